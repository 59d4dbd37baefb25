//! One write: rows and statements that become durable together or not at all.
//!
//! The rows of a message are kept apart by table, so that the writer can insert the rows of all batches of a group
//! with one statement a table. A batch counts its *steps*: things that happen one after the other. Each step gets a
//! position of its own when the batch is committed.

use super::{Arg, Parts, Statement, entry::Delivery};

/// A row of `event`, whose position is that of its step.
#[derive(Clone, Debug)]
pub struct EventRow {
    pub room: i64,
    pub seq: i64,
    pub event_id: String,
    pub step: u32,
    /// Of history that is put between other events: their position, instead of that of the step.
    pub position: Option<i64>,
    pub pdu: std::sync::Arc<str>,
    /// Its `origin_server_ts`.
    pub ts: i64,
    /// When this server put it into the log.
    pub arrived: i64,
    pub verdict: i64,
    /// Whether it has text that can be searched for.
    pub searchable: bool,
    pub sender_device: Option<i64>,
    pub txn_id: Option<String>,
    /// It is there already, as an outlier under this `seq`, and takes its place in the log now.
    pub outlier: Option<i64>,
}

/// A change of a room's current state.
#[derive(Clone, Debug)]
pub struct StateRow {
    pub room: i64,
    pub kind: String,
    pub state_key: String,
    pub seq: i64,
    pub event: i64,
}

/// The answer to a transaction: a row of `txn`. Conflicts if the transaction was answered before.
#[derive(Clone, Debug)]
pub struct TxnRow {
    pub device: i64,
    /// A hash of the request's path, see `room::Txn`.
    pub path: i64,
    pub txn_id: String,
    pub event: String,
    pub created_ts: i64,
}

pub(super) type Adopt = Box<dyn FnOnce(i64) + Send + Sync>;

/// What is to become durable together.
#[derive(Default)]
pub struct Batch {
    pub(super) steps: u32,
    pub(super) events: Vec<EventRow>,
    pub(super) state: Vec<StateRow>,
    pub(super) txns: Vec<TxnRow>,
    pub(super) deliveries: Vec<Delivery>,
    pub(super) statements: Vec<Statement>,
    pub(super) adopt: Option<Adopt>,
    pub(super) settle: Parts,
    /// Recipients whose queues are filled from here on, or no longer.
    pub(super) filled: Vec<(i64, bool)>,
}

/// How much of a batch there was at some moment.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    steps: u32,
    events: usize,
    state: usize,
    txns: usize,
    deliveries: usize,
    statements: usize,
    filled: usize,
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn extent(&self) -> Extent {
        Extent {
            steps: self.steps,
            events: self.events.len(),
            state: self.state.len(),
            txns: self.txns.len(),
            deliveries: self.deliveries.len(),
            statements: self.statements.len(),
            filled: self.filled.len(),
        }
    }

    /// Takes out all that was added since; what was to be settled for it may be all the same.
    pub fn cut(&mut self, extent: Extent) {
        self.steps = extent.steps;
        self.events.truncate(extent.events);
        self.state.truncate(extent.state);
        self.txns.truncate(extent.txns);
        self.deliveries.truncate(extent.deliveries);
        self.statements.truncate(extent.statements);
        self.filled.truncate(extent.filled);
    }

    /// Starts the next step. Its position is the batch's base plus the number returned (see [`super::Committed`]).
    pub fn step(&mut self) -> u32 {
        self.steps += 1;
        self.steps
    }

    pub fn event(&mut self, row: EventRow) {
        self.events.push(row);
    }

    pub fn state(&mut self, row: StateRow) {
        self.state.push(row);
    }

    /// What was delivered up to and with this batch has to be in the tables `queue` and `unread`, as far as it is of these parts,
    /// when its statements run.
    pub fn settle(&mut self, parts: Parts) {
        self.settle = self.settle.and(parts);
    }

    /// From this batch on, a server's queue is filled; or it is emptied, and nothing is put into it.
    pub fn fill_queue(&mut self, recipient: i64, filled: bool) {
        self.filled.push((recipient, filled));
    }

    pub fn txn(&mut self, row: TxnRow) {
        self.txns.push(row);
    }

    pub fn deliver(&mut self, delivery: Delivery) {
        self.deliveries.push(delivery);
    }

    /// Statements run in the order they were pushed, after the batch's rows.
    pub fn push(&mut self, statement: Statement) {
        self.statements.push(statement);
    }

    /// Called with the batch's base position right after the commit and before any reader wakes: where memory catches
    /// up with the database. It must not block. What was to be called before is called first.
    pub fn on_commit(&mut self, adopt: impl FnOnce(i64) + Send + Sync + 'static) {
        self.adopt = Some(match self.adopt.take() {
            None => Box::new(adopt),
            Some(first) => Box::new(move |base| {
                first(base);
                adopt(base);
            }),
        });
    }

    /// Adds what another batch does, after what this one does. Its steps follow this one's, and the number returned is
    /// what its own step numbers grow by.
    pub fn append(&mut self, mut other: Self) -> u32 {
        let shift = self.steps;
        self.steps += other.steps;
        other.events.iter_mut().for_each(|row| row.step += shift);
        other.deliveries.iter_mut().for_each(|delivery| delivery.step += shift);
        let args = other.statements.iter_mut().flat_map(|statement| statement.args.iter_mut());
        args.for_each(|arg| {
            if let Arg::Position(step) = arg {
                *step += shift;
            }
        });
        self.events.append(&mut other.events);
        self.state.append(&mut other.state);
        self.settle(other.settle);
        self.filled.append(&mut other.filled);
        self.txns.append(&mut other.txns);
        self.deliveries.append(&mut other.deliveries);
        self.statements.append(&mut other.statements);
        shift
    }

    /// The same once more, but for what is called after the commit.
    pub fn copy(&self) -> Self {
        Self {
            steps: self.steps,
            events: self.events.clone(),
            state: self.state.clone(),
            txns: self.txns.clone(),
            deliveries: self.deliveries.clone(),
            statements: self.statements.clone(),
            adopt: None,
            settle: self.settle,
            filled: self.filled.clone(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.state.is_empty()
            && self.txns.is_empty()
            && self.deliveries.is_empty()
            && self.statements.is_empty()
            && self.filled.is_empty()
    }
}

impl From<Statement> for Batch {
    fn from(statement: Statement) -> Self {
        Self { statements: vec![statement], ..Self::default() }
    }
}

impl Extend<Statement> for Batch {
    fn extend<T: IntoIterator<Item = Statement>>(&mut self, statements: T) {
        self.statements.extend(statements);
    }
}

impl From<Vec<Statement>> for Batch {
    fn from(statements: Vec<Statement>) -> Self {
        Self { statements, ..Self::default() }
    }
}
