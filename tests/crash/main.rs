//! What happens to machines, while people go on with what they do: processes that are killed, power that goes, disks that are full
//! or fail, files and time that run out, a clock that jumps. Nothing that was acknowledged is lost, nothing is there twice, all
//! have one order, and two servers agree in the end.
//!
//! In `make test` there is a little of everything; `make crash` does it a thousand times with the release build. What is done
//! follows from seeds, which failures print (`HEARTH_TEST_SEED`); when it meets what is the machine's business.

// A test that can't go on should stop where it is.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod clock;
mod disk;
mod faults;
mod files;
mod kills;
mod load;
mod migration;
mod power;
mod stopped;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use common::{Server, eventually};
use rusqlite::Connection;
use rustix::process::Signal;

/// How often something is done: `few` as a rule, or what a variable of the environment says.
fn times(variable: &str, few: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(few)
}

/// Where random choices begin.
fn seed() -> u64 {
    let seed = std::env::var("HEARTH_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    eprintln!("HEARTH_TEST_SEED={seed}");
    seed
}

/// SQLite's own verdict about what a dead server has left. The files stay as they are: a copy is looked at.
fn assert_intact(server: &Server) {
    let copy = tempfile::tempdir().unwrap();
    for name in ["hearth.db", "hearth.db-wal"] {
        let file = server.data_dir().join(name);
        if file.exists() {
            fs::copy(file, copy.path().join(name)).unwrap();
        }
    }
    assert_eq!(integrity(&copy.path().join("hearth.db")), "ok");
}

fn integrity(path: &Path) -> String {
    let database = Connection::open(path).unwrap();
    database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap()
}

/// How long starts took.
#[derive(Default)]
struct Starts(Vec<Duration>);

impl Starts {
    /// Starts a dead server again.
    async fn again(&mut self, server: &mut Server) {
        let begin = Instant::now();
        server.start_again().await;
        self.0.push(begin.elapsed());
    }

    /// Says how long they took. A release build has two seconds, but for one start in a hundred, which the machine may have
    /// kept waiting.
    fn report(mut self, what: &str) {
        self.0.sort_unstable();
        let of = |percent: usize| {
            let last = self.0.len().checked_sub(1)?;
            Some(self.0[last * percent / 100])
        };
        let (Some(median), Some(most), Some(longest)) = (of(50), of(99), of(100)) else { return };
        let starts = self.0.len();
        eprintln!(
            "{what}: {starts} starts, median {median:.0?}, 99 of 100 within {most:.0?}, longest {longest:.2?}"
        );
        let release = std::env::var_os("HEARTH_BINARY").is_some();
        assert!(!release || most < Duration::from_secs(2), "one start in a hundred took {most:?}");
    }
}

/// Stops a server where it is, until [`Signal::CONT`], and waits until all of its threads stand still.
async fn freeze(server: &Server) {
    server.signal(Signal::STOP);
    let threads = format!("/proc/{}/task", server.pid());
    eventually("all threads stand still", async || {
        let mut threads = fs::read_dir(&threads).unwrap();
        // One that has ended meanwhile has no state.
        threads
            .all(|thread| {
                let stat = fs::read_to_string(thread.unwrap().path().join("stat"));
                stat.ok().is_none_or(|stat| {
                    stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
                })
            })
            .then_some(())
    })
    .await;
}

/// Nothing that a server says of itself may be a surprise.
fn assert_no_panic(server: &Server) {
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
}
