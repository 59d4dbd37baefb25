//! How many instructions the hot paths take, counted by Callgrind: a number that a busy machine doesn't change. It is run by
//! `tests/counts.sh`, which compares with the baseline beside this file.
//!
//! What is counted is what happens inside [`hearth_counted_region`], on the thread that calls it; Callgrind writes a profile
//! whenever that function returns. This program says on its standard output which of these are which.

mod protocol;
mod reading;
mod server;

use std::hint::black_box;

/// Callgrind counts inside of this alone. The script knows it by its name.
#[inline(never)]
fn hearth_counted_region(work: &mut dyn FnMut()) {
    work();
}

/// Counts `work` on what `prepare` makes, which isn't counted, some times over: the script takes the middle. One time before
/// that isn't counted, for what is made once and kept.
fn count<T, R>(name: &str, mut prepare: impl FnMut() -> T, mut work: impl FnMut(T) -> R) {
    black_box(work(prepare()));
    for _ in 0..9 {
        let mut prepared = Some(prepare());
        let mut done = None;
        hearth_counted_region(&mut || done = prepared.take().map(&mut work));
        println!("counted {name}");
        // What is left is dropped out here.
        drop(black_box(done));
    }
}

fn main() {
    // Not to wait for what a server that is half there still does.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::exit(1)
    }));
    protocol::count_all();
    reading::count_all();
    server::count_all();
}
