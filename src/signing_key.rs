//! The server's signing key in its file, `signing.key` in the data folder: made at the first start, read at the others.
//!
//! Every event that this server ever sent is signed with it, so it is never replaced behind the operator's back: a file
//! that can't be read stops the start.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use hearth_federation::{OldKey, SigningKey, SigningKeyError};
use ruma::{
    MilliSecondsSinceUnixEpoch, UInt,
    serde::{Base64, base64::Standard},
};

use crate::environment::Entropy;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the signing key {path} can't be read or made: {cause}; give the server's user access to it and its folder"
    )]
    File { path: PathBuf, cause: io::Error },
    #[error("the signing key {path} is damaged ({cause}): restore it from a backup")]
    Damaged { path: PathBuf, cause: SigningKeyError },
    #[error(
        "line {line} of {path} isn't `ed25519:<version> <public key in base64> <time in ms>`: mend it, or take it out"
    )]
    Old { path: PathBuf, line: usize },
}

/// The key of the server whose data this is.
pub fn load_or_make(data_dir: &Path, entropy: &dyn Entropy) -> Result<SigningKey, Error> {
    let path = data_dir.join("signing.key");
    let damaged = |cause| Error::Damaged { path: path.clone(), cause };
    match fs::read_to_string(&path) {
        Ok(text) => SigningKey::from_text(&text).map_err(damaged),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            let key = make(entropy).map_err(damaged)?;
            write(data_dir, &path, &key.to_text()).map_err(|cause| Error::File { path, cause })?;
            Ok(key)
        }
        Err(cause) => Err(Error::File { path, cause }),
    }
}

/// The keys that were in use before, from `signing.old`: a line each, with when it was retired.
pub fn load_old(data_dir: &Path) -> Result<Vec<OldKey>, Error> {
    let path = data_dir.join("signing.old");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(Error::File { path, cause }),
    };
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| old_key(line).ok_or_else(|| Error::Old { path: path.clone(), line: index + 1 }))
        .collect()
}

fn old_key(line: &str) -> Option<OldKey> {
    let mut words = line.split_ascii_whitespace();
    let (key_id, public_key, expired) = (words.next()?, words.next()?, words.next()?);
    let public_key = Base64::<Standard>::parse(public_key).ok()?.as_bytes().try_into().ok()?;
    let expired = MilliSecondsSinceUnixEpoch(UInt::new(expired.parse().ok()?)?);
    let whole = words.next().is_none() && key_id.starts_with("ed25519:");
    whole.then(|| OldKey { key_id: key_id.to_owned(), public_key, expired })
}

/// A key under a version that no earlier one had.
fn make(entropy: &dyn Entropy) -> Result<SigningKey, SigningKeyError> {
    let mut seed = [0; 32];
    entropy.fill(&mut seed);
    SigningKey::new(&format!("a_{}", entropy.token(6)), seed)
}

/// Writes the whole file or none, readable by nobody else.
fn write(data_dir: &Path, path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let draft = path.with_extension("key.new");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(data_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;

    #[test]
    fn the_key_of_the_first_start_is_the_key_of_all() {
        let dir = tempfile::tempdir().unwrap();
        let entropy = Environment::real().entropy;
        let first = load_or_make(dir.path(), &*entropy).unwrap();
        let second = load_or_make(dir.path(), &*entropy).unwrap();
        assert_eq!(first.to_text(), second.to_text());
        let other = tempfile::tempdir().unwrap();
        assert_ne!(first.to_text(), load_or_make(other.path(), &*entropy).unwrap().to_text());
    }

    #[test]
    fn a_damaged_key_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("signing.key"), "garbage").unwrap();
        let result = load_or_make(dir.path(), &*Environment::real().entropy);
        assert!(matches!(result, Err(Error::Damaged { .. })));
        assert_eq!(fs::read_to_string(dir.path().join("signing.key")).unwrap(), "garbage");
    }
}
