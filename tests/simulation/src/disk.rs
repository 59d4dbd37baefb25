//! A disk in memory that knows what was synced, and what a loss of power makes of the rest.
//!
//! Each file is what a process sees of it, what is certain to be there after a loss of power, and the changes between the
//! two, in their order. [`Disk::crash`] keeps, drops or tears each of these. Locks and shared memory are those of SQLite's
//! file systems; they end with the process that held them, whose open files can do nothing from then on.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::c_int,
    ops::Range,
    sync::Arc,
};

use libsqlite3_sys as sqlite;
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// What a disk writes as a whole, in bytes.
const SECTOR: usize = 512;

/// What becomes of writes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The process was killed: all of them are kept.
    Nothing,
    /// None is kept.
    Everything,
    /// Each is kept, dropped or torn, by chance.
    Some,
}

/// What goes wrong for the time being.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// How often a sync, a write or a read fails, of a thousand.
    pub(crate) sync: u32,
    pub(crate) write: u32,
    pub(crate) read: u32,
    /// No file may grow.
    pub(crate) full: bool,
    /// What a failed sync was to make durable never will be by another: the kernel has forgotten that it is to be written.
    pub(crate) forgetful: bool,
    /// Syncs do nothing and say that they did. For showing that this is found out.
    pub(crate) lying: bool,
}

pub(crate) struct Disk(Mutex<State>);

struct State {
    /// Counts the crashes: what was opened before one is of no use after it.
    life: u64,
    handles: u64,
    files: BTreeMap<String, File>,
    faults: Faults,
    chance: StdRng,
    counts: Counts,
    reads: u64,
}

/// What was done, for the curious.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) writes: u64,
    pub(crate) syncs: u64,
    pub(crate) failed: u64,
    pub(crate) dropped: u64,
    pub(crate) torn: u64,
}

#[derive(Default)]
struct File {
    content: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// Its name is durable.
    named: bool,
    locks: Locks,
    slots: [Slot; 8],
    /// Addresses of pieces of memory, which are never given back.
    memory: Vec<usize>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Default)]
struct Locks {
    shared: BTreeSet<u64>,
    reserved: Option<u64>,
    pending: Option<u64>,
    exclusive: Option<u64>,
}

#[derive(Default)]
struct Slot {
    shared: BTreeSet<u64>,
    exclusive: Option<u64>,
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, written) => {
                let end = at + written.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at..end].copy_from_slice(written);
            }
            Self::Truncate(size) => bytes.truncate(*size),
        }
    }

    /// Some of its sectors.
    fn apply_torn(&self, bytes: &mut Vec<u8>, chance: &mut StdRng) {
        let Self::Write(at, written) = self else { return };
        let mut from = 0;
        while from < written.len() {
            // Sectors are those of the disk, not of the write.
            let to = (from + SECTOR - (at + from) % SECTOR).min(written.len());
            if chance.random_range(0..2) == 0 {
                Self::Write(at + from, written[from..to].to_vec()).apply(bytes);
            }
            from = to;
        }
    }
}

impl State {
    fn fails(&mut self, of_thousand: u32) -> bool {
        let fails = of_thousand > 0 && self.chance.random_range(0..1000) < of_thousand;
        self.counts.failed += u64::from(fails);
        fails
    }
}

impl Disk {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            life: 0,
            handles: 0,
            files: BTreeMap::new(),
            faults: Faults::default(),
            chance: StdRng::seed_from_u64(seed),
            counts: Counts::default(),
            reads: 0,
        })))
    }

    pub(crate) fn set(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    /// What was done so far.
    pub(crate) fn counts(&self) -> Counts {
        self.0.lock().counts
    }

    /// How often something was read so far: a page each time, as a rule.
    pub(crate) fn reads(&self) -> u64 {
        self.0.lock().reads
    }

    /// The process ends now, and with some kinds of loss the machine does.
    pub(crate) fn crash(&self, loss: Loss) {
        let state = &mut *self.0.lock();
        state.life += 1;
        let (chance, counts) = (&mut state.chance, &mut state.counts);
        state.files.retain(|_, file| {
            file.locks = Locks::default();
            file.slots = Default::default();
            // A process that starts anew has memory of its own.
            file.memory = Vec::new();
            let name = file.named || loss == Loss::Nothing || (loss == Loss::Some && chance.random());
            for change in file.pending.drain(..) {
                match (loss, chance.random_range(0..3)) {
                    (Loss::Nothing, _) | (Loss::Some, 0) => change.apply(&mut file.durable),
                    (Loss::Some, 1) => {
                        counts.torn += 1;
                        change.apply_torn(&mut file.durable, chance);
                    }
                    _ => counts.dropped += 1,
                }
            }
            if loss == Loss::Nothing {
                // Also what is forgotten by now is seen by whoever reads it.
                return name;
            }
            file.content.clone_from(&file.durable);
            name
        });
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.0.lock().files.contains_key(name)
    }

    pub(crate) fn delete(&self, name: &str) -> Result<(), c_int> {
        match self.0.lock().files.remove(name) {
            Some(_) => Ok(()),
            None => Err(sqlite::SQLITE_IOERR_DELETE_NOENT),
        }
    }
}

/// An open file.
pub(crate) struct Place {
    disk: Arc<Disk>,
    name: String,
    handle: u64,
    life: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.unlock(sqlite::SQLITE_LOCK_NONE);
        self.unmap(false);
    }
}

impl Place {
    pub(crate) fn open(disk: Arc<Disk>, name: String, create: bool) -> Result<Self, c_int> {
        let (handle, life) = {
            let mut state = disk.0.lock();
            if !state.files.contains_key(&name) {
                if !create {
                    return Err(sqlite::SQLITE_CANTOPEN);
                }
                state.files.insert(name.clone(), File::default());
            }
            state.handles += 1;
            (state.handles, state.life)
        };
        Ok(Self { disk, name, handle, life })
    }

    /// A file that nobody else sees, gone when it is closed.
    pub(crate) fn temporary() -> Self {
        let (disk, name) = (Disk::new(0), String::new());
        disk.0.lock().files.insert(name.clone(), File::default());
        Self { disk, name, handle: 0, life: 0 }
    }

    /// Does something with the file, unless it was opened before a crash.
    fn with<T>(&self, work: impl FnOnce(&mut File, u64) -> T) -> Option<T> {
        let mut state = self.disk.0.lock();
        if state.life != self.life {
            return None;
        }
        Some(work(state.files.get_mut(&self.name)?, self.handle))
    }

    /// Whether it goes wrong this time.
    fn fails(&self, of_thousand: impl FnOnce(&Faults) -> u32) -> bool {
        let mut state = self.disk.0.lock();
        let of_thousand = of_thousand(&state.faults);
        state.fails(of_thousand)
    }

    pub(crate) fn read(&self, at: usize, bytes: &mut [u8]) -> Result<(), c_int> {
        if self.fails(|faults| faults.read) {
            return Err(sqlite::SQLITE_IOERR_READ);
        }
        self.disk.0.lock().reads += 1;
        let whole = self.with(|file, _| {
            let there = file.content.get(at..).unwrap_or_default();
            let count = there.len().min(bytes.len());
            bytes[..count].copy_from_slice(&there[..count]);
            bytes[count..].fill(0);
            count == bytes.len()
        });
        match whole {
            Some(true) => Ok(()),
            Some(false) => Err(sqlite::SQLITE_IOERR_SHORT_READ),
            None => Err(sqlite::SQLITE_IOERR_READ),
        }
    }

    pub(crate) fn write(&self, at: usize, bytes: &[u8]) -> Result<(), c_int> {
        if self.fails(|faults| faults.write) {
            return Err(sqlite::SQLITE_IOERR_WRITE);
        }
        let full = self.disk.0.lock().faults.full;
        self.with(|file, _| {
            if full && at + bytes.len() > file.content.len() {
                return Err(sqlite::SQLITE_FULL);
            }
            let change = Change::Write(at, bytes.to_vec());
            change.apply(&mut file.content);
            file.pending.push(change);
            Ok(())
        })
        .unwrap_or(Err(sqlite::SQLITE_IOERR_WRITE))?;
        self.disk.0.lock().counts.writes += 1;
        Ok(())
    }

    pub(crate) fn truncate(&self, size: usize) -> Result<(), c_int> {
        self.with(|file, _| {
            let change = Change::Truncate(size);
            change.apply(&mut file.content);
            file.pending.push(change);
        })
        .ok_or(sqlite::SQLITE_IOERR_TRUNCATE)
    }

    pub(crate) fn sync(&self) -> Result<(), c_int> {
        let fails = self.fails(|faults| faults.sync);
        let faults = self.disk.0.lock().faults;
        if faults.lying {
            return Ok(());
        }
        self.with(|file, _| {
            if fails {
                if faults.forgetful {
                    file.pending.clear();
                }
                return Err(sqlite::SQLITE_IOERR_FSYNC);
            }
            for change in file.pending.drain(..) {
                change.apply(&mut file.durable);
            }
            file.named = true;
            Ok(())
        })
        .unwrap_or(Err(sqlite::SQLITE_IOERR_FSYNC))?;
        self.disk.0.lock().counts.syncs += 1;
        Ok(())
    }

    pub(crate) fn size(&self) -> Result<usize, c_int> {
        self.with(|file, _| file.content.len()).ok_or(sqlite::SQLITE_IOERR_FSTAT)
    }

    pub(crate) fn lock(&self, level: c_int) -> Result<(), c_int> {
        self.with(|File { locks, .. }, me| {
            let others = |holder: &Option<u64>| holder.is_some_and(|holder| holder != me);
            match level {
                sqlite::SQLITE_LOCK_SHARED => {
                    if others(&locks.pending) || others(&locks.exclusive) {
                        return Err(sqlite::SQLITE_BUSY);
                    }
                    locks.shared.insert(me);
                }
                sqlite::SQLITE_LOCK_RESERVED => {
                    if others(&locks.reserved) {
                        return Err(sqlite::SQLITE_BUSY);
                    }
                    locks.reserved = Some(me);
                }
                _ => {
                    if others(&locks.reserved) || others(&locks.pending) {
                        return Err(sqlite::SQLITE_BUSY);
                    }
                    locks.pending = Some(me);
                    if locks.shared.iter().any(|holder| *holder != me) {
                        return Err(sqlite::SQLITE_BUSY);
                    }
                    locks.exclusive = Some(me);
                }
            }
            Ok(())
        })
        .unwrap_or(Err(sqlite::SQLITE_IOERR_LOCK))
    }

    pub(crate) fn unlock(&self, level: c_int) {
        self.with(|File { locks, .. }, me| {
            for holder in [&mut locks.reserved, &mut locks.pending, &mut locks.exclusive] {
                if *holder == Some(me) {
                    *holder = None;
                }
            }
            if level == sqlite::SQLITE_LOCK_NONE {
                locks.shared.remove(&me);
            }
        });
    }

    pub(crate) fn is_reserved(&self) -> bool {
        self.with(|file, _| file.locks.reserved.is_some()).unwrap_or(false)
    }

    /// The address of a piece of the memory that all who have the file open share.
    pub(crate) fn map(&self, region: usize, size: usize, extend: bool) -> Result<Option<usize>, c_int> {
        self.with(|file, _| {
            while extend && file.memory.len() <= region {
                let memory: &'static mut [u64] = Box::leak(vec![0; size / 8].into_boxed_slice());
                file.memory.push(memory.as_mut_ptr() as usize);
            }
            file.memory.get(region).copied()
        })
        .ok_or(sqlite::SQLITE_IOERR_SHMMAP)
    }

    pub(crate) fn lock_slots(&self, slots: Range<usize>, shared: bool) -> Result<(), c_int> {
        self.with(|file, me| {
            let taken = |slot: &Slot| {
                slot.exclusive.is_some_and(|holder| holder != me)
                    || (!shared && slot.shared.iter().any(|holder| *holder != me))
            };
            if file.slots[slots.clone()].iter().any(taken) {
                return Err(sqlite::SQLITE_BUSY);
            }
            for slot in &mut file.slots[slots] {
                if shared {
                    slot.shared.insert(me);
                } else {
                    slot.exclusive = Some(me);
                }
            }
            Ok(())
        })
        .unwrap_or(Err(sqlite::SQLITE_IOERR_SHMLOCK))
    }

    pub(crate) fn unlock_slots(&self, slots: Range<usize>) {
        self.with(|file, me| {
            for slot in &mut file.slots[slots] {
                slot.shared.remove(&me);
                if slot.exclusive == Some(me) {
                    slot.exclusive = None;
                }
            }
        });
    }

    pub(crate) fn unmap(&self, delete: bool) {
        self.unlock_slots(0..8);
        if delete {
            self.with(|file, _| file.memory.clear());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(disk: &Arc<Disk>) -> Place {
        Place::open(Arc::clone(disk), "file".to_owned(), true).unwrap()
    }

    fn content(disk: &Arc<Disk>) -> Vec<u8> {
        let file = Place::open(Arc::clone(disk), "file".to_owned(), false).unwrap();
        let mut bytes = vec![0; file.size().unwrap()];
        file.read(0, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_was_synced_stays_and_what_was_not_is_kept_dropped_or_torn() {
        let (mut kept, mut dropped, mut torn) = (0, 0, 0);
        for seed in 0..100 {
            let disk = Disk::new(seed);
            let file = opened(&disk);
            file.write(0, &[1; 2048]).unwrap();
            file.sync().unwrap();
            file.write(100, &[2; 1500]).unwrap();
            disk.crash(Loss::Some);
            assert!(file.write(0, &[9]).is_err(), "its process is gone");
            let content = content(&disk);
            assert_eq!(content[..100], [1; 100]);
            assert_eq!(content[1600..], [1; 448]);
            let written = content[100..1600].iter().map(|byte| usize::from(*byte == 2));
            match written.sum::<usize>() {
                0 => dropped += 1,
                1500 => kept += 1,
                count => {
                    // Whole sectors, the first of which the write began within, and the last of which it ended within.
                    assert!(
                        [0, 412, 64, 476].iter().any(|ends| count.abs_diff(*ends) % SECTOR == 0),
                        "{count}"
                    );
                    torn += 1;
                }
            }
        }
        assert!(kept > 10 && dropped > 10 && torn > 10, "{kept} {dropped} {torn}");
    }

    #[test]
    fn a_killed_process_loses_nothing_and_a_lost_power_all_that_was_not_synced() {
        for (loss, left) in [(Loss::Nothing, vec![7; 10]), (Loss::Everything, vec![7; 5])] {
            let disk = Disk::new(0);
            let file = opened(&disk);
            file.write(0, &[7; 5]).unwrap();
            file.sync().unwrap();
            file.write(5, &[7; 5]).unwrap();
            disk.crash(loss);
            assert_eq!(content(&disk), left);
        }
    }

    #[test]
    fn a_file_that_was_never_synced_may_be_gone_by_name() {
        let disk = Disk::new(0);
        opened(&disk).write(0, &[1]).unwrap();
        disk.crash(Loss::Everything);
        assert!(!disk.exists("file"));
    }

    #[test]
    fn what_a_forgetful_kernel_failed_to_sync_is_never_durable() {
        let disk = Disk::new(0);
        let file = opened(&disk);
        disk.set(Faults { sync: 1000, forgetful: true, ..Faults::default() });
        file.write(0, &[1; 10]).unwrap();
        file.sync().unwrap_err();
        disk.set(Faults::default());
        file.write(0, &[2; 5]).unwrap();
        file.sync().unwrap();
        disk.crash(Loss::Everything);
        assert_eq!(content(&disk), [2; 5]);
    }
}
