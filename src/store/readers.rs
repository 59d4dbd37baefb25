//! How the database is read: by some connections that take turns, each with a thread of its own.
//!
//! On a machine that is simulated there is one, and whoever asks waits for its answer without letting anything else go on,
//! so that no thread decides what comes first.

use std::{
    path::Path,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use parking_lot::Mutex;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, SqlitePool};

use super::{
    Durability, Error, open,
    statement::{Record, Statement, bind_as},
};
use crate::environment::{Machine, Work};

#[derive(Clone)]
pub(super) enum Readers {
    Pool(SqlitePool),
    Simulated(Simulated),
}

#[derive(Clone)]
pub(super) struct Simulated {
    machine: Arc<dyn Machine>,
    /// None once it has ended.
    connection: Arc<Mutex<Option<SqliteConnection>>>,
}

impl Readers {
    /// Opens the file and brings its schema up to date.
    pub(super) async fn open(
        path: &Path,
        durability: Durability,
        machine: Option<&Arc<dyn Machine>>,
    ) -> Result<Self, Error> {
        let Some(machine) = machine else {
            return Ok(Self::Pool(open::open(path, durability).await?));
        };
        let options = open::options(path, durability).vfs(machine.file_system().to_owned());
        let mut connection = at_once(options.connect()).map_err(|cause| open::explain(path, cause))?;
        at_once(open::update(&mut connection))?;
        let connection = Arc::new(Mutex::new(Some(connection)));
        Ok(Self::Simulated(Simulated { machine: Arc::clone(machine), connection }))
    }

    /// Ends the reading.
    pub(super) async fn close(&self) {
        match self {
            Self::Pool(pool) => pool.close().await,
            Self::Simulated(one) => one.close(),
        }
    }

    pub(super) async fn all<T: Record>(&self, question: &Statement) -> Result<Vec<T>, sqlx::Error> {
        match self {
            Self::Pool(pool) => bind_as(question).fetch_all(pool).await,
            Self::Simulated(one) => one.ask(question).await,
        }
    }

    pub(super) async fn optional<T: Record>(&self, question: &Statement) -> Result<Option<T>, sqlx::Error> {
        match self {
            Self::Pool(pool) => bind_as(question).fetch_optional(pool).await,
            Self::Simulated(one) => Ok(one.ask(question).await?.into_iter().next()),
        }
    }

    pub(super) async fn one<T: Record>(&self, question: &Statement) -> Result<T, sqlx::Error> {
        match self {
            Self::Pool(pool) => bind_as(question).fetch_one(pool).await,
            Self::Simulated(one) => {
                one.ask(question).await?.into_iter().next().ok_or(sqlx::Error::RowNotFound)
            }
        }
    }
}

impl Simulated {
    async fn ask<T: Record>(&self, question: &Statement) -> Result<Vec<T>, sqlx::Error> {
        self.machine.pause(Work::Reading).await;
        let answer = {
            let mut connection = self.connection.lock();
            let connection = connection.as_mut().ok_or(sqlx::Error::PoolClosed)?;
            let answer = at_once(bind_as(question).fetch_all(&mut *connection));
            // Its thread is done with all of it when it has answered this.
            at_once(connection.ping())?;
            answer
        };
        self.machine.pause(Work::Reading).await;
        answer
    }

    /// Its thread is gone when this returns, so that it isn't by chance the last that closes the file, and tidies up.
    fn close(&self) {
        if let Some(connection) = self.connection.lock().take() {
            // What it can't finish, whoever opens the file next does.
            let _ = at_once(connection.close());
        }
    }
}

/// Polls to the end, while this thread does nothing else.
fn at_once<T>(work: impl Future<Output = T>) -> T {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut work = pin!(work);
    loop {
        match work.as_mut().poll(&mut context) {
            Poll::Ready(done) => return done,
            Poll::Pending => thread::park(),
        }
    }
}
