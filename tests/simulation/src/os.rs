//! What the simulation takes the place of in C: the operating system's random numbers, and SQLite's file system.
//!
//! The only module with unsafe code. It translates; what a file system does is said in [`disk`](crate::disk).
//!
//! `getrandom` is the function of libc that the standard library takes the keys of its hash tables from, and tokio, by way of
//! these, the order of `select!`. This program's own definition comes before libc's.

#![allow(unsafe_code)]

use std::{
    collections::BTreeMap,
    ffi::{CStr, c_char, c_int, c_void},
    ptr, slice,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use libsqlite3_sys as sqlite;
use parking_lot::Mutex;

use crate::disk::{Disk, Place};

/// SQLite's name for the file system.
pub(crate) const FILE_SYSTEM: &str = "simulated";

/// All that comes from [`fill`] follows from this.
static STATE: AtomicU64 = AtomicU64::new(0);

/// From here on random numbers follow from a seed.
pub(crate) fn seed(seed: u64) {
    STATE.store(seed.wrapping_mul(0xD129_0419_34A5_2B6D), Ordering::SeqCst);
}

/// Random numbers (`SplitMix64`).
fn fill(bytes: &mut [u8]) {
    for part in bytes.chunks_mut(8) {
        let mut number = STATE.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::SeqCst);
        number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        number ^= number >> 31;
        part.copy_from_slice(&number.to_le_bytes()[..part.len()]);
    }
}

/// In place of libc's.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, _flags: u32) -> isize {
    // SAFETY: the caller gives `length` bytes to be written to, as getrandom(2) has it.
    fill(unsafe { slice::from_raw_parts_mut(buffer.cast::<u8>(), length) });
    length as isize
}

/// By the first part of the path of their files.
static DISKS: Mutex<BTreeMap<String, Arc<Disk>>> = Mutex::new(BTreeMap::new());

/// Files below `/name/` are on this disk.
pub(crate) fn mount(name: &str, disk: &Arc<Disk>) {
    DISKS.lock().insert(name.to_owned(), Arc::clone(disk));
}

/// What SQLite keeps of an open file: its own part first.
#[repr(C)]
struct Open {
    base: sqlite::sqlite3_file,
    place: *mut Place,
}

static METHODS: sqlite::sqlite3_io_methods = sqlite::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// Makes the file system known to SQLite.
pub(crate) fn register() {
    let vfs = sqlite::sqlite3_vfs {
        iVersion: 2,
        szOsFile: size_of::<Open>() as c_int,
        mxPathname: 512,
        pNext: ptr::null_mut(),
        zName: c"simulated".as_ptr(),
        pAppData: ptr::null_mut(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: Some(get_last_error),
        xCurrentTimeInt64: Some(current_time_int64),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    };
    // SAFETY: it lives for ever, as SQLite wants it, and all that it points to is static.
    let code = unsafe { sqlite::sqlite3_vfs_register(Box::leak(Box::new(vfs)), 0) };
    assert_eq!(code, sqlite::SQLITE_OK, "SQLite takes no file system");
}

fn code(done: Result<(), c_int>) -> c_int {
    done.err().unwrap_or(sqlite::SQLITE_OK)
}

/// The disk and the name of a file there.
fn found(path: *const c_char) -> Option<(Arc<Disk>, String)> {
    // SAFETY: SQLite's names of files end in a zero.
    let path = unsafe { CStr::from_ptr(path) }.to_str().ok()?;
    let (disk, name) = path.trim_start_matches('/').split_once('/')?;
    Some((Arc::clone(DISKS.lock().get(disk)?), name.to_owned()))
}

fn place<'a>(file: *mut sqlite::sqlite3_file) -> &'a mut Place {
    // SAFETY: SQLite calls with files that `open` has opened and `close` hasn't closed, from one thread at a time each.
    unsafe { &mut *(*file.cast::<Open>()).place }
}

unsafe extern "C" fn open(
    _: *mut sqlite::sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    let file = file.cast::<Open>();
    // SAFETY: SQLite gives `szOsFile` bytes; without methods it doesn't close what wasn't opened.
    unsafe { (*file).base.pMethods = ptr::null() };
    let opened = if name.is_null() {
        Ok(Place::temporary())
    } else {
        match found(name) {
            Some((disk, name)) => Place::open(disk, name, flags & sqlite::SQLITE_OPEN_CREATE != 0),
            None => Err(sqlite::SQLITE_CANTOPEN),
        }
    };
    match opened {
        Ok(place) => {
            // SAFETY: as above; SQLite may give no place for the flags.
            unsafe {
                (*file).place = Box::into_raw(Box::new(place));
                (*file).base.pMethods = &raw const METHODS;
                if !flags_out.is_null() {
                    *flags_out = flags;
                }
            }
            sqlite::SQLITE_OK
        }
        Err(code) => code,
    }
}

unsafe extern "C" fn close(file: *mut sqlite::sqlite3_file) -> c_int {
    let file = file.cast::<Open>();
    // SAFETY: it comes from `open`, and nobody uses it after this.
    unsafe {
        drop(Box::from_raw((*file).place));
        (*file).base.pMethods = ptr::null();
    }
    sqlite::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut sqlite::sqlite3_file,
    bytes: *mut c_void,
    count: c_int,
    at: i64,
) -> c_int {
    // SAFETY: SQLite gives `count` bytes.
    let bytes = unsafe { slice::from_raw_parts_mut(bytes.cast::<u8>(), count as usize) };
    code(place(file).read(at as usize, bytes))
}

unsafe extern "C" fn write(
    file: *mut sqlite::sqlite3_file,
    bytes: *const c_void,
    count: c_int,
    at: i64,
) -> c_int {
    // SAFETY: SQLite gives `count` bytes.
    let bytes = unsafe { slice::from_raw_parts(bytes.cast::<u8>(), count as usize) };
    code(place(file).write(at as usize, bytes))
}

unsafe extern "C" fn truncate(file: *mut sqlite::sqlite3_file, size: i64) -> c_int {
    code(place(file).truncate(size as usize))
}

unsafe extern "C" fn sync(file: *mut sqlite::sqlite3_file, _flags: c_int) -> c_int {
    code(place(file).sync())
}

unsafe extern "C" fn file_size(file: *mut sqlite::sqlite3_file, size: *mut i64) -> c_int {
    code(place(file).size().map(|found| {
        // SAFETY: SQLite gives a place for it.
        unsafe { *size = found as i64 };
    }))
}

unsafe extern "C" fn lock(file: *mut sqlite::sqlite3_file, level: c_int) -> c_int {
    code(place(file).lock(level))
}

unsafe extern "C" fn unlock(file: *mut sqlite::sqlite3_file, level: c_int) -> c_int {
    place(file).unlock(level);
    sqlite::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(file: *mut sqlite::sqlite3_file, held: *mut c_int) -> c_int {
    // SAFETY: SQLite gives a place for it.
    unsafe { *held = c_int::from(place(file).is_reserved()) };
    sqlite::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut sqlite::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    sqlite::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut sqlite::sqlite3_file) -> c_int {
    4096
}

/// As SQLite's own on Unix: a write that is torn leaves what is beside it.
unsafe extern "C" fn device_characteristics(_: *mut sqlite::sqlite3_file) -> c_int {
    sqlite::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shm_map(
    file: *mut sqlite::sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    memory: *mut *mut c_void,
) -> c_int {
    code(place(file).map(region as usize, size as usize, extend != 0).map(|found| {
        // SAFETY: SQLite gives a place for the pointer. What it points to is never given back.
        unsafe { *memory = found.map_or(ptr::null_mut(), |found| found as *mut c_void) };
    }))
}

unsafe extern "C" fn shm_lock(
    file: *mut sqlite::sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    let shared = flags & sqlite::SQLITE_SHM_SHARED != 0;
    let slots = first as usize..(first + count) as usize;
    if flags & sqlite::SQLITE_SHM_LOCK != 0 {
        code(place(file).lock_slots(slots, shared))
    } else {
        place(file).unlock_slots(slots);
        sqlite::SQLITE_OK
    }
}

unsafe extern "C" fn shm_barrier(_: *mut sqlite::sqlite3_file) {
    std::sync::atomic::fence(Ordering::SeqCst);
}

unsafe extern "C" fn shm_unmap(file: *mut sqlite::sqlite3_file, delete: c_int) -> c_int {
    place(file).unmap(delete != 0);
    sqlite::SQLITE_OK
}

unsafe extern "C" fn delete(_: *mut sqlite::sqlite3_vfs, name: *const c_char, _sync: c_int) -> c_int {
    let Some((disk, name)) = found(name) else { return sqlite::SQLITE_IOERR_DELETE };
    code(disk.delete(&name))
}

unsafe extern "C" fn access(
    _: *mut sqlite::sqlite3_vfs,
    name: *const c_char,
    _flags: c_int,
    is: *mut c_int,
) -> c_int {
    let exists = found(name).is_some_and(|(disk, name)| disk.exists(&name));
    // SAFETY: SQLite gives a place for it.
    unsafe { *is = c_int::from(exists) };
    sqlite::SQLITE_OK
}

unsafe extern "C" fn full_pathname(
    _: *mut sqlite::sqlite3_vfs,
    name: *const c_char,
    most: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: the name ends in a zero, and `most` bytes may be written.
    unsafe {
        let name = CStr::from_ptr(name).to_bytes_with_nul();
        if name.len() > most as usize {
            return sqlite::SQLITE_CANTOPEN;
        }
        ptr::copy_nonoverlapping(name.as_ptr().cast(), out, name.len());
    }
    sqlite::SQLITE_OK
}

unsafe extern "C" fn randomness(_: *mut sqlite::sqlite3_vfs, count: c_int, bytes: *mut c_char) -> c_int {
    // SAFETY: SQLite gives `count` bytes.
    fill(unsafe { slice::from_raw_parts_mut(bytes.cast::<u8>(), count as usize) });
    count
}

/// Nobody who could be waited for goes on meanwhile.
unsafe extern "C" fn sleep(_: *mut sqlite::sqlite3_vfs, microseconds: c_int) -> c_int {
    microseconds
}

/// The first of January 2027, always: SQLite's time is only written down beside migrations.
const JULIAN_MS: i64 = 212_666_644_800_000;

unsafe extern "C" fn current_time(_: *mut sqlite::sqlite3_vfs, days: *mut f64) -> c_int {
    // SAFETY: SQLite gives a place for it.
    unsafe { *days = JULIAN_MS as f64 / 86_400_000.0 };
    sqlite::SQLITE_OK
}

unsafe extern "C" fn current_time_int64(_: *mut sqlite::sqlite3_vfs, ms: *mut i64) -> c_int {
    // SAFETY: SQLite gives a place for it.
    unsafe { *ms = JULIAN_MS };
    sqlite::SQLITE_OK
}

unsafe extern "C" fn get_last_error(_: *mut sqlite::sqlite3_vfs, _: c_int, _: *mut c_char) -> c_int {
    0
}
