//! The tables `to_device` and `heard_message`: messages for devices, and those that other servers have brought before.
//!
//! A mailbox is the number of a device here; below zero that of a server, whose devices they are for.

use std::sync::Arc;

use super::{Arg, Error, Statement, Store, statement};

/// A message in a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRow {
    pub position: i64,
    /// JSON: the event as its device gets it; for a server the content of an `m.direct_to_device`.
    pub message: String,
}

/// A device that a message may go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRow {
    pub user_id: String,
    pub recipient: i64,
    pub device_id: String,
    pub device: i64,
}

fn message((position, message): (i64, String)) -> MessageRow {
    MessageRow { position, message }
}

/// A message at the position of the batch's step of that number, unless the device is gone.
pub fn insert_message(device: i64, step: u32, message: Arc<str>, now: i64) -> Statement {
    statement!(
        "INSERT INTO to_device (mailbox, position, message, created_ts)
         SELECT id, $2, $3, $4 FROM device WHERE id = $1",
        device,
        Arg::Position(step),
        message,
        now,
    )
}

/// The same for a server.
pub fn insert_message_for_server(server: i64, step: u32, message: String, now: i64) -> Statement {
    statement!(
        "INSERT INTO to_device (mailbox, position, message, created_ts) VALUES ($1, $2, $3, $4)",
        server,
        Arg::Position(step),
        message,
        now,
    )
}

/// Those at or below a position.
pub fn delete_messages(mailbox: i64, up_to: i64) -> Statement {
    statement!("DELETE FROM to_device WHERE mailbox = $1 AND position <= $2", mailbox, up_to)
}

/// At most `limit` of those from before a time, but for those that a dehydrated device has: it waits for its user.
pub fn delete_messages_before(time: i64, limit: i64) -> Statement {
    statement!(
        "DELETE FROM to_device WHERE (mailbox, position) IN (
             SELECT mailbox, position FROM to_device
             WHERE created_ts < $1 AND mailbox NOT IN (SELECT device FROM dehydrated_device)
             ORDER BY created_ts LIMIT $2
         )",
        time,
        limit,
    )
}

/// Conflicts if a server has brought a message of that id before.
pub fn insert_heard(server: &str, message_id: &str, now: i64) -> Statement {
    statement!(
        "INSERT INTO heard_message (server, message_id, heard_ts) VALUES ($1, $2, $3)
         ON CONFLICT (server, message_id) DO NOTHING",
        server,
        message_id,
        now,
    )
    .expecting(1)
}

pub fn delete_heard_before(time: i64, limit: i64) -> Statement {
    statement!(
        "DELETE FROM heard_message WHERE (server, message_id) IN (
             SELECT server, message_id FROM heard_message WHERE heard_ts < $1 ORDER BY heard_ts LIMIT $2
         )",
        time,
        limit,
    )
}

impl Store {
    /// The first `limit` messages of a mailbox with `after < position ≤ to`, in order.
    pub async fn messages(
        &self,
        mailbox: i64,
        after: i64,
        to: i64,
        limit: i64,
    ) -> Result<Vec<MessageRow>, Error> {
        let rows = self
            .all(statement!(
                "SELECT position, message FROM to_device
                 WHERE mailbox = $1 AND position > $2 AND position <= $3 ORDER BY position LIMIT $4",
                mailbox,
                after,
                to,
                limit,
            ))
            .await?;
        Ok(rows.into_iter().map(message).collect())
    }

    /// The messages of a mailbox at these positions, in order.
    pub async fn messages_at(&self, mailbox: i64, positions: &[i64]) -> Result<Vec<MessageRow>, Error> {
        let positions =
            serde_json::to_string(positions).map_err(|cause| Error::Encoding(cause.to_string()))?;
        let rows = self
            .all(statement!(
                "SELECT position, message FROM to_device
                 WHERE mailbox = $1 AND position IN (SELECT value FROM json_each($2)) ORDER BY position",
                mailbox,
                positions,
            ))
            .await?;
        Ok(rows.into_iter().map(message).collect())
    }

    /// The positions of a mailbox's messages with `after < position ≤ to`, in order.
    pub async fn message_positions(&self, mailbox: i64, after: i64, to: i64) -> Result<Vec<i64>, Error> {
        let rows: Vec<(i64,)> = self
            .all(statement!(
                "SELECT position FROM to_device
                 WHERE mailbox = $1 AND position > $2 AND position <= $3 ORDER BY position",
                mailbox,
                after,
                to,
            ))
            .await?;
        Ok(rows.into_iter().map(|(position,)| position).collect())
    }

    /// Whether a mailbox has a message at or below a position.
    pub async fn has_messages(&self, mailbox: i64, up_to: i64) -> Result<bool, Error> {
        let (found,): (bool,) = self
            .one(statement!(
                "SELECT EXISTS (SELECT 1 FROM to_device WHERE mailbox = $1 AND position <= $2)",
                mailbox,
                up_to,
            ))
            .await?;
        Ok(found)
    }

    /// The devices of users here, of each in the order in which they came; `users` is a JSON array of ids.
    pub async fn addresses(&self, users: String) -> Result<Vec<AddressRow>, Error> {
        let rows: Vec<(String, i64, String, i64)> = self
            .all(statement!(
                "SELECT a.user_id, a.recipient, d.device_id, d.id
                 FROM json_each($1) u
                 JOIN account a ON a.user_id = u.value
                 JOIN device d ON d.recipient = a.recipient
                 ORDER BY a.recipient, d.id",
                users,
            ))
            .await?;
        let row =
            |(user_id, recipient, device_id, device)| AddressRow { user_id, recipient, device_id, device };
        Ok(rows.into_iter().map(row).collect())
    }

    /// Which of these ids a server's messages had before; `ids` is a JSON array.
    pub async fn heard_messages(&self, server: &str, ids: String) -> Result<Vec<String>, Error> {
        let rows: Vec<(String,)> = self
            .all(statement!(
                "SELECT message_id FROM heard_message
                 WHERE server = $1 AND message_id IN (SELECT value FROM json_each($2))",
                server,
                ids,
            ))
            .await?;
        Ok(rows.into_iter().map(|(id,)| id).collect())
    }

    /// The mailboxes that have more than so many messages, or bytes of them.
    pub async fn overfull_mailboxes(&self, most: i64, bytes: i64) -> Result<Vec<i64>, Error> {
        let rows: Vec<(i64,)> = self
            .all(statement!(
                "SELECT mailbox FROM to_device GROUP BY mailbox
                 HAVING COUNT(*) > $1 OR SUM(OCTET_LENGTH(message)) > $2",
                most,
                bytes,
            ))
            .await?;
        Ok(rows.into_iter().map(|(mailbox,)| mailbox).collect())
    }

    /// Up to which position a mailbox has more than its newest so many messages, or bytes of them, and how many lie there.
    pub async fn excess_of_mailbox(
        &self,
        mailbox: i64,
        most: i64,
        bytes: i64,
    ) -> Result<Option<(i64, i64)>, Error> {
        let (position, count): (Option<i64>, i64) = self
            .one(statement!(
                "SELECT MAX(position), COUNT(*) FROM (
                     SELECT position, ROW_NUMBER() OVER newest AS place,
                            SUM(OCTET_LENGTH(message)) OVER newest AS bytes
                     FROM to_device WHERE mailbox = $1
                     WINDOW newest AS (ORDER BY position DESC ROWS UNBOUNDED PRECEDING)
                 ) AS counted
                 WHERE place > $2 OR bytes > $3",
                mailbox,
                most,
                bytes,
            ))
            .await?;
        Ok(position.map(|position| (position, count)))
    }

    /// How many messages are from before a time, but for those of dehydrated devices.
    pub async fn messages_before(&self, time: i64) -> Result<i64, Error> {
        let (count,): (i64,) = self
            .one(statement!(
                "SELECT COUNT(*) FROM to_device
                 WHERE created_ts < $1 AND mailbox NOT IN (SELECT device FROM dehydrated_device)",
                time,
            ))
            .await?;
        Ok(count)
    }

    /// Whether any message of another server was heard before a time.
    pub async fn has_heard_before(&self, time: i64) -> Result<bool, Error> {
        let question = "SELECT EXISTS (SELECT 1 FROM heard_message WHERE heard_ts < $1)";
        let (found,): (bool,) = self.one(statement!(question, time)).await?;
        Ok(found)
    }

    /// How many messages wait, in all mailboxes.
    pub async fn messages_waiting(&self) -> Result<i64, Error> {
        let (count,): (i64,) = self.one(statement!("SELECT COUNT(*) FROM to_device")).await?;
        Ok(count)
    }
}
