//! The disk, the clock and the power switch of a server (`disk.c`), and what is left on the disk when the power goes.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use rand::{RngExt as _, rngs::StdRng};
use tempfile::TempDir;

use crate::common::Server;

pub(crate) const ENOSPC: i64 = 28;
pub(crate) const EIO: i64 = 5;

/// What can be set, and read, while the server runs: `enum word` in `disk.c`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Word {
    /// The error number of writes; 0: they work.
    WriteError,
    /// So many work before that.
    WritesLeft,
    /// The error number of fsync, which loses what it should have made durable.
    SyncError,
    /// fsync says that it is done, and does nothing.
    SyncLies,
    /// A write writes half of what it is given.
    ShortWrites,
    /// Added to the time of day.
    ClockMs,
    /// The process is killed instead of the change with this number.
    DieAfter,
    /// Changes of files so far.
    Changes,
    /// Calls of fsync so far.
    Syncs,
    /// Calls that were answered with an error so far.
    Failed,
}

/// What a loss of power leaves of that which wasn't synced.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Left {
    Nothing,
    Everything,
    /// Any of its sectors.
    Torn,
}

impl Left {
    pub(crate) fn any(chance: &mut StdRng) -> Self {
        match chance.random_range(0..4) {
            0 => Self::Nothing,
            1 => Self::Everything,
            _ => Self::Torn,
        }
    }
}

const SECTOR: usize = 512;

/// The shared library, compiled by the first test that needs it.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        // The source that belongs to this program, whatever has become of the file.
        let text = include_str!("disk.c");
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = folder.join(format!("disk-{:x}.so", hasher.finish()));
        if !path.exists() {
            let own = tempfile::tempdir_in(folder).unwrap();
            let (source, library) = (own.path().join("disk.c"), own.path().join("disk.so"));
            fs::write(&source, text).unwrap();
            let mut command = Command::new("cc");
            command.args(["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]);
            let status = command.arg(&library).arg(source).args(["-ldl", "-lpthread"]).status();
            assert!(status.expect("a C compiler").success(), "disk.c can be compiled");
            fs::rename(library, &path).unwrap();
        }
        path
    })
}

pub(crate) struct Disk {
    folder: PathBuf,
    own: TempDir,
    control: File,
    /// What is on it at the start of the process, by the numbers of the files.
    before: HashMap<u64, (String, Vec<u8>)>,
}

impl Disk {
    /// Puts a stopped server on such a disk, for its next start.
    pub(crate) fn below(server: &mut Server) -> Self {
        let own = tempfile::tempdir().unwrap();
        let control =
            File::options().read(true).write(true).create_new(true).open(own.path().join("control"));
        let control = control.unwrap();
        control.set_len(4096).unwrap();
        let mut disk = Self { folder: server.data_dir(), own, control, before: HashMap::new() };
        disk.begin();
        server.prefix = disk.prefix();
        disk
    }

    fn prefix(&self) -> Vec<String> {
        let of = |name: &str, path: &Path| format!("{name}={}", path.display());
        vec![
            "env".to_owned(),
            of("LD_PRELOAD", library()),
            of("HEARTH_DISK_FOLDER", &self.folder),
            of("HEARTH_DISK_CONTROL", &self.own.path().join("control")),
            of("HEARTH_DISK_LOG", &self.log_path()),
        ]
    }

    fn log_path(&self) -> PathBuf {
        self.own.path().join("log")
    }

    pub(crate) fn set(&self, word: Word, value: i64) {
        self.control.write_all_at(&value.to_ne_bytes(), word as u64 * 8).unwrap();
    }

    pub(crate) fn get(&self, word: Word) -> i64 {
        let mut bytes = [0; 8];
        self.control.read_exact_at(&mut bytes, word as u64 * 8).unwrap();
        i64::from_ne_bytes(bytes)
    }

    /// Whatever is on the disk now is durable.
    pub(crate) fn begin(&mut self) {
        self.before.clear();
        for entry in fs::read_dir(&self.folder).into_iter().flatten() {
            let entry = entry.unwrap();
            let (name, bytes) = (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
            if !name.ends_with("-shm") {
                self.before.insert(entry.metadata().unwrap().ino(), (name, bytes));
            }
        }
        let _ = fs::remove_file(self.log_path());
        for word in [Word::DieAfter, Word::Changes, Word::Syncs, Word::Failed] {
            self.set(word, 0);
        }
    }

    /// What a disk has after the power went, once the process is dead; it begins anew with that.
    pub(crate) fn lose_power(&mut self, left: Left, chance: &mut StdRng) {
        let mut replay = Replay::new(&self.before);
        replay.read(&fs::read(self.log_path()).unwrap_or_default(), chance);
        let files = replay.end(left, chance);
        for entry in fs::read_dir(&self.folder).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        for (name, bytes) in files {
            fs::write(self.folder.join(name), bytes).unwrap();
        }
        // What shared memory there was is gone; SQLite must not believe whatever is there.
        if chance.random_bool(0.5) {
            let garbage: Vec<u8> = (0..32_768).map(|_| chance.random()).collect();
            fs::write(self.folder.join("hearth.db-shm"), garbage).unwrap();
        }
        self.begin();
    }
}

enum Change {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

enum Move {
    Link(String, u64),
    Rename(String, String),
    Unlink(String),
}

/// A file as the disk has it, and what was done to it since it was last synced.
#[derive(Default)]
struct OnDisk {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

impl OnDisk {
    fn settle(&mut self, left: Left, chance: &mut StdRng) {
        let likely = [0.1, 0.5, 0.9][chance.random_range(0..3)];
        for change in std::mem::take(&mut self.pending) {
            let mut kept = || match left {
                Left::Nothing => false,
                Left::Everything => true,
                Left::Torn => chance.random_bool(likely),
            };
            match change {
                Change::Truncate(length) => {
                    if kept() {
                        self.durable.resize(length as usize, 0);
                    }
                }
                Change::Write(offset, bytes) => {
                    let (mut place, mut rest) = (offset as usize, &*bytes);
                    while !rest.is_empty() {
                        let (sector, more) = rest.split_at(rest.len().min(SECTOR - place % SECTOR));
                        if kept() {
                            let end = place + sector.len();
                            self.durable.resize(self.durable.len().max(end), 0);
                            self.durable[place..end].copy_from_slice(sector);
                        }
                        place += sector.len();
                        rest = more;
                    }
                }
            }
        }
    }
}

/// Follows the log.
struct Replay {
    files: HashMap<u64, OnDisk>,
    names: BTreeMap<String, u64>,
    moves: Vec<Move>,
}

impl Replay {
    fn new(before: &HashMap<u64, (String, Vec<u8>)>) -> Self {
        let names = before.iter().map(|(file, (name, _))| (name.clone(), *file)).collect();
        let on_disk = |bytes: &Vec<u8>| OnDisk { durable: bytes.clone(), pending: Vec::new() };
        let files = before.iter().map(|(file, (_, bytes))| (*file, on_disk(bytes))).collect();
        Self { files, names, moves: Vec::new() }
    }

    fn read(&mut self, mut log: &[u8], chance: &mut StdRng) {
        let number = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().unwrap());
        // The last record may have been cut off by the end of the process: then nothing of it was done.
        while log.len() >= 32 {
            let [kind, file, offset, length] =
                [0, 8, 16, 24].map(|place: usize| number(&log[place..place + 8]));
            let Some(bytes) = log.get(32..32 + length as usize) else { return };
            log = &log[32 + length as usize..];
            let name = || String::from_utf8(bytes.to_vec()).unwrap();
            match kind {
                1 => assert!(self.files.contains_key(&file), "{} was there before", name()),
                2 => {
                    self.files.insert(file, OnDisk::default());
                    self.moves.push(Move::Link(name(), file));
                }
                3 => self.of(file).pending.push(Change::Write(offset, bytes.to_vec())),
                4 => self.of(file).pending.push(Change::Truncate(offset)),
                5 => self.of(file).settle(Left::Everything, chance),
                // The page cache takes for clean what never got to the disk, or did in part.
                6 => {
                    let left = if chance.random_bool(0.5) { Left::Nothing } else { Left::Torn };
                    self.of(file).settle(left, chance);
                }
                7 => {
                    let names = name();
                    let (from, to) = names.split_once('\0').unwrap();
                    self.moves.push(Move::Rename(from.to_owned(), to.to_owned()));
                }
                8 => self.moves.push(Move::Unlink(name())),
                9 => {
                    let all = self.moves.len();
                    self.settle_moves(all);
                }
                other => panic!("a record of kind {other}"),
            }
        }
    }

    fn of(&mut self, file: u64) -> &mut OnDisk {
        self.files.entry(file).or_default()
    }

    fn settle_moves(&mut self, first: usize) {
        for step in self.moves.drain(..).take(first) {
            match step {
                Move::Link(name, file) => {
                    self.names.insert(name, file);
                }
                Move::Rename(from, to) => {
                    if let Some(file) = self.names.remove(&from) {
                        self.names.insert(to, file);
                    }
                }
                Move::Unlink(name) => {
                    self.names.remove(&name);
                }
            }
        }
    }

    /// Names are kept in the order in which they were given, as file systems do that keep a journal of these.
    fn end(mut self, left: Left, chance: &mut StdRng) -> BTreeMap<String, Vec<u8>> {
        let kept = match left {
            Left::Nothing => 0,
            Left::Everything => self.moves.len(),
            Left::Torn => chance.random_range(0..=self.moves.len()),
        };
        self.settle_moves(kept);
        let mut files = BTreeMap::new();
        for (name, file) in std::mem::take(&mut self.names) {
            let on_disk = self.of(file);
            on_disk.settle(left, chance);
            files.insert(name, on_disk.durable.clone());
        }
        files
    }
}
