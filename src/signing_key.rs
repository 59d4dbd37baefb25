//! The server's signing key in its file, `signing.key` in the data folder: made at the first start, read at the others.
//!
//! Every event that this server ever sent is signed with it, so it is never replaced behind the operator's back: a file
//! that can't be read stops the start, and so does one that is missing beside a database that has had one. Those of before are
//! in `signing.old`, a line each, for others verify by them what was signed then; `hearth key rotate` puts them there.

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
        "there is no signing key {path}: only the first start of a server makes one; if this server was started before, see whether `data_dir` is its folder, or put the key back from a backup"
    )]
    None { path: PathBuf },
    #[error(
        "line {line} of {path} isn't `ed25519:<version> <public key in base64> <time in ms>`: mend it, or take it out"
    )]
    Old { path: PathBuf, line: usize },
}

/// The key of the server whose data this is, made if this is its first start.
pub fn load_or_make(data_dir: &Path, entropy: &dyn Entropy) -> Result<SigningKey, Error> {
    match load(data_dir) {
        Err(Error::None { path }) => {
            let key = make(entropy).map_err(|cause| Error::Damaged { path: path.clone(), cause })?;
            write(data_dir, &path, &key.to_text()).map_err(|cause| Error::File { path, cause })?;
            Ok(key)
        }
        loaded => loaded,
    }
}

/// The key of the server whose data this is, which has been started before.
pub fn load(data_dir: &Path) -> Result<SigningKey, Error> {
    let path = data_dir.join("signing.key");
    match fs::read_to_string(&path) {
        Ok(text) => SigningKey::from_text(&text).map_err(|cause| Error::Damaged { path, cause }),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Err(Error::None { path }),
        Err(cause) => Err(Error::File { path, cause }),
    }
}

/// Makes a new key, and the one in use an old one, which they are returned as. Whatever happens on the way, each key that
/// has signed anything is in one of the files.
pub fn rotate(
    data_dir: &Path,
    now: MilliSecondsSinceUnixEpoch,
    entropy: &dyn Entropy,
) -> Result<(SigningKey, SigningKey), Error> {
    let current = load(data_dir)?;
    let key_path = data_dir.join("signing.key");
    let new = make(entropy).map_err(|cause| Error::Damaged { path: key_path.clone(), cause })?;
    let path = data_dir.join("signing.old");
    let mut text = String::new();
    for old in load_old(data_dir, &current)? {
        text.push_str(&line(&old.key_id, &old.public_key, old.expired));
    }
    text.push_str(&line(current.id().as_str(), &current.public_key(), now));
    write(data_dir, &path, &text).map_err(|cause| Error::File { path, cause })?;
    // If this isn't reached, the key is in both files, and in use.
    write(data_dir, &key_path, &new.to_text()).map_err(|cause| Error::File { path: key_path, cause })?;
    Ok((current, new))
}

fn line(key_id: &str, public_key: &[u8; 32], expired: MilliSecondsSinceUnixEpoch) -> String {
    format!("{key_id} {} {}\n", Base64::<Standard, _>::new(public_key).encode(), expired.get())
}

/// The keys that were in use before, from `signing.old`: a line each, with when it was retired. One that is in use again
/// isn't old.
pub fn load_old(data_dir: &Path, current: &SigningKey) -> Result<Vec<OldKey>, Error> {
    let path = data_dir.join("signing.old");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(Error::File { path, cause }),
    };
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let keys = lines
        .map(|(index, line)| old_key(line).ok_or_else(|| Error::Old { path: path.clone(), line: index + 1 }));
    let mut keys = keys.collect::<Result<Vec<_>, _>>()?;
    keys.retain(|old| old.key_id != current.id().as_str());
    Ok(keys)
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
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
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
    fn ky_01_a_key_of_before_is_kept_with_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let entropy = Environment::real().entropy;
        let at = |time: u32| MilliSecondsSinceUnixEpoch(time.into());
        let never_started = rotate(dir.path(), at(1), &*entropy);
        assert!(matches!(never_started, Err(Error::None { .. })));
        let first = load_or_make(dir.path(), &*entropy).unwrap();

        let (old, second) = rotate(dir.path(), at(1000), &*entropy).unwrap();
        assert_eq!(old.to_text(), first.to_text());
        let (_, third) = rotate(dir.path(), at(2000), &*entropy).unwrap();

        let current = load_or_make(dir.path(), &*entropy).unwrap();
        assert_eq!(current.to_text(), third.to_text());
        let old = load_old(dir.path(), &current).unwrap();
        let of = |key: &SigningKey, time| (key.id().to_string(), key.public_key(), at(time));
        let old: Vec<_> = old.into_iter().map(|old| (old.key_id, old.public_key, old.expired)).collect();
        assert_eq!(old, [of(&first, 1000), of(&second, 2000)]);
    }

    /// The power went between the two files.
    #[test]
    fn a_key_in_both_files_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let entropy = Environment::real().entropy;
        let at = |time: u32| MilliSecondsSinceUnixEpoch(time.into());
        let key = load_or_make(dir.path(), &*entropy).unwrap();
        rotate(dir.path(), at(1000), &*entropy).unwrap();
        fs::write(dir.path().join("signing.key"), key.to_text()).unwrap();

        assert!(load_old(dir.path(), &key).unwrap().is_empty());
        let (_, new) = rotate(dir.path(), at(2000), &*entropy).unwrap();
        let old = load_old(dir.path(), &new).unwrap();
        assert_eq!(old.len(), 1, "once");
        assert_eq!(old[0].expired, at(2000));
    }

    #[test]
    fn keys_are_nobody_elses_to_read() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let entropy = Environment::real().entropy;
        load_or_make(dir.path(), &*entropy).unwrap();
        rotate(dir.path(), MilliSecondsSinceUnixEpoch(ruma::uint!(1)), &*entropy).unwrap();
        let mode = fs::metadata(dir.path().join("signing.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
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
