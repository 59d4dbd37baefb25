//! The table `destination`: servers that events are sent to.

use std::collections::HashMap;

use super::{Error, Parts, Statement, Store, statement, to_device::delete_messages};

/// A row of `destination`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationRow {
    pub server: String,
    pub recipient: i64,
    /// All up to here has been sent.
    pub position: i64,
    /// It lacks what was said while nothing was put into its queue.
    pub behind: bool,
    /// In a row.
    pub failures: i64,
    pub failing_since: i64,
    pub retry_ts: i64,
    pub error: Option<String>,
}

type Columns = (String, i64, i64, bool, i64, i64, i64, Option<String>);

impl From<Columns> for DestinationRow {
    fn from(row: Columns) -> Self {
        let (server, recipient, position, behind, failures, failing_since, retry_ts, error) = row;
        Self { server, recipient, position, behind, failures, failing_since, retry_ts, error }
    }
}

/// A new one, which has nothing to do with anything before now.
pub fn insert_destination(server: &str, recipient: i64) -> Statement {
    statement!(
        "INSERT INTO destination (server, recipient, position) SELECT $1, $2, position FROM head WHERE id = 1",
        server,
        recipient,
    )
}

/// Forgets a server and all that waits for it.
pub fn delete_destination(recipient: i64) -> Vec<Statement> {
    vec![
        statement!("DELETE FROM destination WHERE recipient = $1", recipient),
        statement!("DELETE FROM queue WHERE recipient = $1", recipient),
        delete_messages(recipient, i64::MAX),
    ]
}

/// All up to a position has been sent.
pub fn sent(recipient: i64, position: i64) -> Vec<Statement> {
    vec![
        statement!(
            "UPDATE destination
             SET position = $2, failures = 0, failing_since = 0, retry_ts = 0, error = NULL
             WHERE recipient = $1 AND position <= $2",
            recipient,
            position,
        ),
        statement!("DELETE FROM queue WHERE recipient = $1 AND position <= $2", recipient, position),
        delete_messages(recipient, position),
    ]
}

/// It lacks nothing but what is in its queue.
pub fn caught_up(recipient: i64) -> Statement {
    statement!("UPDATE destination SET behind = FALSE WHERE recipient = $1", recipient)
}

/// An attempt failed.
pub fn failed(recipient: i64, failures: i64, failing_since: i64, retry_ts: i64, error: &str) -> Statement {
    statement!(
        "UPDATE destination SET failures = $2, failing_since = $3, retry_ts = $4, error = $5
         WHERE recipient = $1",
        recipient,
        failures,
        failing_since,
        retry_ts,
        error,
    )
}

/// A server that fails is to be tried again at once. Conflicts if there is none of that name that does.
pub fn retry_now(server: &str) -> Statement {
    statement!("UPDATE destination SET retry_ts = 0 WHERE server = $1 AND failures > 0", server).expecting(1)
}

impl Store {
    pub async fn destinations(&self) -> Result<Vec<DestinationRow>, Error> {
        let rows: Vec<Columns> = self
            .all(statement!(
                "SELECT server, recipient, position, behind, failures, failing_since, retry_ts, error
                 FROM destination ORDER BY server",
            ))
            .await?;
        Ok(rows.into_iter().map(DestinationRow::from).collect())
    }

    /// How many entries wait in the queues of servers that have any.
    pub async fn entries_for_servers(&self) -> Result<HashMap<i64, i64>, Error> {
        self.settled(Parts::ALL).await?;
        let rows: Vec<(i64, i64)> = self
            .all(statement!(
                "SELECT q.recipient, COUNT(*) FROM queue q JOIN destination d ON d.recipient = q.recipient
                 WHERE q.position > d.position GROUP BY q.recipient",
            ))
            .await?;
        Ok(rows.into_iter().collect())
    }

    pub async fn destination(&self, recipient: i64) -> Result<Option<DestinationRow>, Error> {
        let row: Option<Columns> = self
            .optional(statement!(
                "SELECT server, recipient, position, behind, failures, failing_since, retry_ts, error
                 FROM destination WHERE recipient = $1",
                recipient,
            ))
            .await?;
        Ok(row.map(DestinationRow::from))
    }

    /// Whether somebody of a server is or was in a room here, or was asked into one.
    pub async fn is_server_of_rooms(&self, server: &str) -> Result<bool, Error> {
        let (found,): (bool,) = self
            .one(statement!(
                "SELECT EXISTS (
                     SELECT 1 FROM membership WHERE substr(user_id, instr(user_id, ':') + 1) = $1
                 )",
                server,
            ))
            .await?;
        Ok(found)
    }

    /// How many servers there are of whom that isn't so.
    pub async fn strangers(&self) -> Result<i64, Error> {
        let (count,): (i64,) = self
            .one(statement!(
                "SELECT COUNT(*) FROM destination d WHERE NOT EXISTS (
                     SELECT 1 FROM membership m WHERE substr(m.user_id, instr(m.user_id, ':') + 1) = d.server
                 )",
            ))
            .await?;
        Ok(count)
    }

    /// The servers that may be forgotten: nobody of theirs is in a room or asked to be, and either nothing waits for them
    /// and they aren't behind, or they have failed since before `lately` and nobody of theirs ever was in one, or since
    /// before `long_ago`.
    pub async fn forgettable_destinations(&self, lately: i64, long_ago: i64) -> Result<Vec<i64>, Error> {
        self.settled(Parts::ALL).await?;
        let rows: Vec<(i64,)> = self
            .all(statement!(
                "SELECT d.recipient FROM destination d
                 WHERE NOT EXISTS (
                     SELECT 1 FROM membership m WHERE substr(m.user_id, instr(m.user_id, ':') + 1) = d.server
                       AND m.membership IN ('join', 'invite', 'knock')
                 ) AND (
                     (NOT d.behind
                       AND NOT EXISTS (
                           SELECT 1 FROM queue q WHERE q.recipient = d.recipient AND q.position > d.position
                       )
                       AND NOT EXISTS (SELECT 1 FROM to_device t WHERE t.mailbox = d.recipient))
                     OR (d.failing_since > 0 AND d.failing_since < $2)
                     OR (d.failing_since > 0 AND d.failing_since < $1 AND NOT EXISTS (
                         SELECT 1 FROM membership m WHERE substr(m.user_id, instr(m.user_id, ':') + 1) = d.server
                     ))
                 )
                 ORDER BY d.recipient DESC",
                lately,
                long_ago,
            ))
            .await?;
        Ok(rows.into_iter().map(|(recipient,)| recipient).collect())
    }

    /// Those for which something waits.
    pub async fn destinations_waiting(&self) -> Result<Vec<i64>, Error> {
        self.settled(Parts::ALL).await?;
        let rows: Vec<(i64,)> = self
            .all(statement!(
                "SELECT d.recipient FROM destination d
                 WHERE d.behind OR EXISTS (
                     SELECT 1 FROM queue q WHERE q.recipient = d.recipient AND q.position > d.position
                 )",
            ))
            .await?;
        Ok(rows.into_iter().map(|(recipient,)| recipient).collect())
    }

    /// The rooms in which a server has somebody, and those in which it had until after a position, with the `seq` of what put
    /// the last of them out.
    pub async fn rooms_of_server(&self, server: &str, after: i64) -> Result<Vec<(i64, Option<i64>)>, Error> {
        let rows: Vec<(i64, bool, i64)> = self
            .all(statement!(
                "SELECT m.room, MAX(m.membership = 'join') <> 0, MAX(m.event) FROM membership m
                 WHERE substr(m.user_id, instr(m.user_id, ':') + 1) = $1
                   AND (m.membership = 'join' OR EXISTS (
                       SELECT 1 FROM event e WHERE e.room = m.room AND e.seq = m.event AND e.position > $2
                   ))
                 GROUP BY m.room ORDER BY m.room",
                server,
                after,
            ))
            .await?;
        Ok(rows.into_iter().map(|(room, joined, event)| (room, (!joined).then_some(event))).collect())
    }
}
