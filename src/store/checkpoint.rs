//! Moves what was committed from the write-ahead log into the database file.
//!
//! SQLite does this inside a commit now and then, and that commit's callers wait for it. Here a thread of its own does it
//! while commits go on. Only if it can't keep up does the writer stop for a moment, so that the log stays bounded.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use rusqlite::Connection;
use tracing::warn;

/// Commits gather for so long before they are moved: pages that are written often are moved once.
const PAUSE: Duration = Duration::from_millis(100);

/// Pages of 4 KiB in the log at which the writer stops and lets it be emptied.
const MOST_PAGES: i64 = 16_384;

pub(super) struct Checkpoints {
    written: SyncSender<()>,
    behind: Arc<AtomicBool>,
}

impl Checkpoints {
    /// Starts the thread; it ends when this is dropped.
    pub(super) fn start(connection: Connection) -> Self {
        let (written, signals) = sync_channel(1);
        let behind = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&behind);
        thread::spawn(move || run(&connection, &signals, &flag));
        Self { written, behind }
    }

    /// To be called by the writer between two transactions.
    pub(super) fn written(&self, connection: &Connection) {
        // A signal that waits already says the same.
        let _ = self.written.try_send(());
        if self.behind.swap(false, Ordering::AcqRel) {
            checkpoint(connection, "TRUNCATE");
        }
    }
}

fn run(connection: &Connection, signals: &Receiver<()>, behind: &AtomicBool) {
    while signals.recv().is_ok() {
        thread::sleep(PAUSE);
        if checkpoint(connection, "PASSIVE") > MOST_PAGES {
            behind.store(true, Ordering::Release);
        }
    }
}

/// The pages in the log.
fn checkpoint(connection: &Connection, mode: &str) -> i64 {
    let pages = connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(1));
    pages.unwrap_or_else(|cause| {
        // What is committed is safe in the log; the next attempt moves it.
        warn!(%cause, "the write-ahead log was not moved into the database");
        0
    })
}
