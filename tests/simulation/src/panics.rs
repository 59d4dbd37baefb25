//! What panics, in whatever task of whatever server: that makes a run wrong (I8), also where nobody waits for the task, or
//! somebody does who takes it for a line that was lost.

use std::panic;

use parking_lot::Mutex;

static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// From here on panics are written down, beside what is said of them anyway.
pub(crate) fn watch() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        SEEN.lock().push(panic.to_string());
        usual(panic);
    }));
}

/// Those that there were.
pub(crate) fn seen() -> Vec<String> {
    SEEN.lock().clone()
}
