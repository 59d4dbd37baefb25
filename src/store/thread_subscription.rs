//! The table `thread_subscription`.

use std::collections::HashMap;

use super::{Arg, Error, Statement, Store, statement};

#[derive(Clone, Debug)]
pub struct SubscriptionRow {
    pub room_id: String,
    /// The event that the thread hangs on.
    pub root: String,
    pub subscribed: bool,
    /// A client subscribed by itself.
    pub automatic: bool,
    /// The last `seq` of the room when the user last unsubscribed; 0: never.
    pub ended: i64,
    /// The position of the last change.
    pub changed: i64,
}

type Columns = (String, String, bool, bool, i64, i64);

impl From<Columns> for SubscriptionRow {
    fn from((room_id, root, subscribed, automatic, ended, changed): Columns) -> Self {
        Self { room_id, root, subscribed, automatic, ended, changed }
    }
}

/// A question for rows of [`Columns`].
macro_rules! subscriptions {
    ($rest:literal) => {
        concat!(
            "SELECT r.room_id, s.root, s.subscribed, s.automatic, s.ended, s.changed
             FROM thread_subscription s JOIN room r ON r.id = s.room ",
            $rest
        )
    };
}

/// Changes at the position of the batch's step of that number.
pub fn subscribe(recipient: i64, room: i64, root: &str, automatic: bool, step: u32) -> Statement {
    statement!(
        "INSERT INTO thread_subscription (recipient, room, root, subscribed, automatic, changed)
         VALUES ($1, $2, $3, TRUE, $4, $5)
         ON CONFLICT (recipient, room, root) DO UPDATE
         SET subscribed = TRUE, automatic = excluded.automatic, changed = excluded.changed",
        recipient,
        room,
        root,
        automatic,
        Arg::Position(step),
    )
}

/// `ended` is the room's last `seq`. Nothing without a subscription.
pub fn unsubscribe(recipient: i64, room: i64, root: &str, ended: i64, step: u32) -> Statement {
    statement!(
        "UPDATE thread_subscription SET subscribed = FALSE, automatic = FALSE, ended = $4, changed = $5
         WHERE recipient = $1 AND room = $2 AND root = $3 AND subscribed",
        recipient,
        room,
        root,
        ended,
        Arg::Position(step),
    )
}

impl Store {
    pub async fn thread_subscription(
        &self,
        recipient: i64,
        room: i64,
        root: &str,
    ) -> Result<Option<SubscriptionRow>, Error> {
        let row: Option<Columns> = self
            .optional(statement!(
                subscriptions!("WHERE s.recipient = $1 AND s.room = $2 AND s.root = $3"),
                recipient,
                room,
                root
            ))
            .await?;
        Ok(row.map(SubscriptionRow::from))
    }

    /// Of these recipients (a JSON list), those who ever subscribed to a thread, and whether they are subscribed to this one.
    pub async fn thread_subscribers(
        &self,
        recipients: String,
        room: i64,
        root: &str,
    ) -> Result<HashMap<i64, bool>, Error> {
        let rows: Vec<(i64, bool)> = self
            .all(statement!(
                "SELECT p.value, EXISTS (
                     SELECT 1 FROM thread_subscription s
                     WHERE s.recipient = p.value AND s.room = $2 AND s.root = $3 AND s.subscribed)
                 FROM json_each($1) p
                 WHERE EXISTS (SELECT 1 FROM thread_subscription s WHERE s.recipient = p.value)",
                recipients,
                room,
                root
            ))
            .await?;
        Ok(rows.into_iter().collect())
    }

    /// What changed after one position and up to another, the latest first.
    pub async fn thread_subscriptions(
        &self,
        recipient: i64,
        after: i64,
        upto: i64,
        limit: i64,
    ) -> Result<Vec<SubscriptionRow>, Error> {
        let rows: Vec<Columns> = self
            .all(statement!(
                subscriptions!(
                    "WHERE s.recipient = $1 AND s.changed > $2 AND s.changed <= $3
                     ORDER BY s.changed DESC LIMIT $4"
                ),
                recipient,
                after,
                upto,
                limit
            ))
            .await?;
        Ok(rows.into_iter().map(SubscriptionRow::from).collect())
    }
}
