//! `hearth backup` and `hearth restore`: all that a server holds, as a folder. That is its database and its signing keys;
//! the configuration is its operator's.
//!
//! What is there under its own name is whole: a backup that was cut short has another name, and a restore that was cut short
//! has no database yet.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use clap::Args;

use super::{Failure, Options, output::say, serve, span};
use crate::{
    environment::Environment,
    signing_key,
    store::{self, copy},
};

#[derive(Args)]
pub(super) struct Backup {
    /// The folder to make. Nothing may be there yet
    folder: PathBuf,
    #[command(flatten)]
    options: Options,
}

#[derive(Args)]
pub(super) struct Restore {
    /// The folder that `hearth backup` made
    folder: PathBuf,
    #[command(flatten)]
    options: Options,
}

const DATABASE: &str = "hearth.db";
/// The key that is in use, without which a server is nobody to others.
pub(super) const KEY: &str = "signing.key";
/// The keys of before, if there are any.
const OLD_KEYS: &str = "signing.old";

pub(super) fn make(command: &Backup) -> Result<(), Failure> {
    let config = command.options.load_existing()?;
    let (folder, database) = (&command.folder, config.database_path());
    if folder.exists() {
        return Err(Failure::new(format!("{} exists: name a folder that doesn't", folder.display())));
    }
    signing_key::load(&config.data_dir)?;
    let partial = beside(folder);
    if partial.exists() {
        fs::remove_dir_all(&partial)
            .map_err(|cause| cant("remove what an earlier backup left,", &partial, &cause))?;
    }
    let now = Environment::real().clock.now_ms();
    if let Err(failure) = fill(&partial, &config.data_dir, &database, now) {
        // Half a backup is none, and on a full disk it would keep the server from going on.
        let _ = fs::remove_dir_all(&partial);
        return Err(failure);
    }
    fs::rename(&partial, folder).map_err(|cause| cant("rename", &partial, &cause))?;
    sync(&parent(folder))?;
    let bytes = fs::metadata(folder.join(DATABASE)).map_or(0, |file| file.len());
    say!("{}  {:.1} MB, all that was stored when it began", folder.display(), bytes as f64 / 1e6)?;
    say!("It holds the server's private key: whoever can read it can speak in the server's name.")
}

/// Makes the folder and all that is in it, and waits until it is on the disk.
fn fill(folder: &Path, data_dir: &Path, database: &Path, now: i64) -> Result<(), Failure> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|cause| cant("make", folder, &cause))?;
    copy_file(&data_dir.join(KEY), &folder.join(KEY))?;
    copy_if_any(&data_dir.join(OLD_KEYS), &folder.join(OLD_KEYS))?;
    let target = folder.join(DATABASE);
    copy::make(database, &target, now).map_err(|cause| match cause {
        store::Error::Full => Failure::new(format!("the disk that was to hold {} is full", folder.display())),
        cause => cause.into(),
    })?;
    private(&target)?;
    sync(&target)?;
    sync(folder)
}

pub(super) fn restore(command: &Restore) -> Result<(), Failure> {
    let config = command.options.load()?;
    let (folder, database) = (&command.folder, config.database_path());
    serve::prepare(&config.data_dir)?;
    let _lock = serve::lock(&config.data_dir)?;
    // SQLite would take what is left in a log beside a database for a part of it, whichever that is.
    if let Some(left) = files(&database).into_iter().find(|file| file.exists()) {
        return Err(Failure::new(format!(
            "{} exists: a backup takes the place of a database that is lost; to give this one up, move it away, with all \
             files whose names begin with {}",
            left.display(),
            database.display()
        )));
    }
    let source = folder.join(DATABASE);
    if !source.exists() {
        return Err(Failure::new(format!(
            "{} isn't a backup: there is no {DATABASE} in it",
            folder.display()
        )));
    }
    let origin = copy::inspect(&source)?.ok_or_else(|| {
        Failure::new(format!(
            "{} wasn't made by `hearth backup`: it may be half of a database, and other servers and clients may know what it \
             has forgotten",
            source.display()
        ))
    })?;
    if origin.server_name != config.server_name.as_str() {
        return Err(Failure::new(format!(
            "this is a backup of {}, and `server_name` is {}: take the other backup, or the other configuration",
            origin.server_name, config.server_name
        )));
    }
    if !folder.join(KEY).exists() {
        return Err(Failure::new(format!(
            "{} isn't a whole backup: there is no {KEY} in it; put the server's there, or take another backup",
            folder.display()
        )));
    }
    for key in [KEY, OLD_KEYS] {
        let (from, to) = (folder.join(key), config.data_dir.join(key));
        // A key that was made since has signed things that only it can verify.
        if to.exists() && fs::read(&from).ok() != fs::read(&to).ok() {
            return Err(Failure::new(format!(
                "{} isn't the key of the backup: move it away if the server of the backup is the one that goes on",
                to.display()
            )));
        }
        copy_if_any(&from, &to)?;
    }
    let partial = beside(&database);
    if let Err(failure) = copy_file(&source, &partial) {
        let _ = fs::remove_file(&partial);
        return Err(failure);
    }
    fs::rename(&partial, &database).map_err(|cause| cant("rename", &partial, &cause))?;
    sync(&parent(&database))?;
    let ago = (Environment::real().clock.now_ms() - origin.made_at).max(0);
    say!("{} is as it was {} ago. Start it.\n", origin.server_name, span(ago as u64))?;
    say!(
        "Clients load everything anew, by themselves. What was said since then in rooms with other servers comes back from \
         these with the next message there; the rest of what happened since is lost, and whoever signed in since has to sign \
         in again."
    )
}

/// What a database consists of while it is in use, and after a kill.
fn files(database: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|end| {
        let mut name = database.as_os_str().to_owned();
        name.push(end);
        name.into()
    })
}

/// Where a file or folder is made before it gets its name.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    path.with_file_name(name)
}

fn copy_if_any(from: &Path, to: &Path) -> Result<(), Failure> {
    if from.try_exists().map_err(|cause| cant("read", from, &cause))? { copy_file(from, to) } else { Ok(()) }
}

/// Copies a file for nobody but the server's user to read, and waits until it is on the disk.
fn copy_file(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::copy(from, to).map_err(|cause| cant("copy", from, &cause))?;
    private(to)?;
    sync(to)
}

fn private(path: &Path) -> Result<(), Failure> {
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|cause| cant("protect", path, &cause))
}

fn sync(path: &Path) -> Result<(), Failure> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|cause| cant("write", path, &cause))
}

fn parent(path: &Path) -> PathBuf {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

fn cant(what: &str, path: &Path, cause: &io::Error) -> Failure {
    Failure::new(format!("can't {what} {}: {cause}", path.display()))
}
