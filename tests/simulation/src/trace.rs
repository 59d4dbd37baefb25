//! What happens in a run, in its order: a hash of all of it, by which two runs are compared, and its lines for people.

use std::{
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use tokio::time::Instant;

static PRINTED: AtomicBool = AtomicBool::new(false);
static STATE: Mutex<Option<State>> = Mutex::new(None);

struct State {
    start: Instant,
    /// Its keys are fixed.
    hash: DefaultHasher,
    lines: u64,
}

/// Begins, at the time zero.
pub(crate) fn begin(printed: bool) {
    PRINTED.store(printed, Ordering::SeqCst);
    *STATE.lock() = Some(State { start: Instant::now(), hash: DefaultHasher::new(), lines: 0 });
}

/// Milliseconds since the beginning.
pub(crate) fn now() -> u64 {
    let state = STATE.lock();
    state.as_ref().map_or(0, |state| state.start.elapsed().as_millis() as u64)
}

/// Something happens now.
pub(crate) fn tell(what: fmt::Arguments<'_>) {
    let now = now();
    let what = what.to_string();
    if let Some(state) = &mut *STATE.lock() {
        (now, &what).hash(&mut state.hash);
        state.lines += 1;
    }
    if PRINTED.load(Ordering::SeqCst) {
        eprintln!("{now:>8} {what}");
    }
}

/// The hash of all that has happened, and how much that was.
pub(crate) fn end() -> (u64, u64) {
    STATE.lock().as_ref().map_or((0, 0), |state| (state.hash.finish(), state.lines))
}

macro_rules! note {
    ($($word:tt)*) => { $crate::trace::tell(format_args!($($word)*)) };
}
pub(crate) use note;
