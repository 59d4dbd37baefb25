//! The tables `queue` and `head_history`, and what an account has lost of its queue.

use super::{Entry, Error, Kind, Parts, Statement, Store, flags, statement};

/// An event that a recipient was notified of.
pub struct Notified {
    pub position: i64,
    pub room: i64,
    pub seq: i64,
    pub flags: i64,
    /// No receipt of theirs has passed it.
    pub unread: bool,
}

impl Store {
    /// At most `limit` entries for events below position `before` with one of these flags, the newest first.
    pub async fn notifications(
        &self,
        recipient: i64,
        before: i64,
        limit: i64,
        flags: i64,
    ) -> Result<Vec<Notified>, Error> {
        self.settled_if_possible(Parts::of(recipient)).await?;
        let rows: Vec<(i64, i64, i64, i64, bool)> = self
            .all(statement!(
                "SELECT q.position, q.room, q.item, q.flags, COALESCE(q.item <= (
                     SELECT u.seq + u.more FROM unread u
                     WHERE u.recipient = q.recipient AND u.room = q.room AND u.seq <= q.item
                     ORDER BY u.seq DESC LIMIT 1
                 ), FALSE)
                 FROM queue q
                 WHERE q.recipient = $1 AND q.position < $2 AND q.kind = $3 AND q.flags & $4 <> 0
                 ORDER BY q.position DESC LIMIT $5",
                recipient,
                before,
                i64::from(Kind::Event as i16),
                flags,
                limit,
            ))
            .await?;
        let notified = |(position, room, seq, flags, unread)| Notified { position, room, seq, flags, unread };
        Ok(rows.into_iter().map(notified).collect())
    }

    /// A recipient's entries with `after < position ≤ to`, in order. Of those for messages to one device only the last: it says
    /// that there are some, and thousands may wait (or all, while the disk is full).
    pub async fn queue(&self, recipient: i64, after: i64, to: i64) -> Result<Vec<Entry>, Error> {
        if !self.settled_if_possible(Parts::of(recipient)).await? {
            return self.first_of_queue(recipient, after, to, i64::MAX).await;
        }
        let rows: Vec<(i64, i16, i64, i64, i64)> = self
            .all(statement!(
                "SELECT position, kind, room, item, flags FROM queue
                 WHERE recipient = $1 AND position > $2 AND position <= $3 AND kind <> $4
                 UNION ALL
                 SELECT MAX(position), kind, room, MAX(item), 0 FROM queue
                 WHERE recipient = $1 AND position > $2 AND position <= $3 AND kind = $4 GROUP BY kind, room
                 ORDER BY 1",
                recipient,
                after,
                to,
                i64::from(Kind::ToDevice as i16),
            ))
            .await?;
        Ok(rows.into_iter().filter_map(entry).collect())
    }

    /// The first `limit` of a recipient's entries with `after < position ≤ to`.
    pub async fn first_of_queue(
        &self,
        recipient: i64,
        after: i64,
        to: i64,
        limit: i64,
    ) -> Result<Vec<Entry>, Error> {
        let question = if self.settled_if_possible(Parts::of(recipient)).await? {
            statement!(
                "SELECT position, kind, room, item, flags FROM queue
                 WHERE recipient = $1 AND position > $2 AND position <= $3 ORDER BY position LIMIT $4",
                recipient,
                after,
                to,
                limit,
            )
        } else {
            // Nothing is skipped because the disk is full: what isn't in the queues yet is read where it waits.
            statement!(
                "SELECT position, kind, room, item, flags FROM queue
                 WHERE recipient = $1 AND position > $2 AND position <= $3
                 UNION ALL
                 SELECT d.position, d.kind, d.room, d.item, r.value & 65535
                 FROM delivery d, json_each(d.recipients) r
                 WHERE r.value >> 16 = $1 AND d.position > $2 AND d.position <= $3
                   AND d.position > (SELECT s.position FROM settled s WHERE s.part = $5)
                 ORDER BY position LIMIT $4",
                recipient,
                after,
                to,
                limit,
                Parts::number(recipient),
            )
        };
        let rows: Vec<(i64, i16, i64, i64, i64)> = self.all(question).await?;
        Ok(rows.into_iter().filter_map(entry).collect())
    }

    /// Entries at or below this position are gone.
    pub async fn queue_trimmed(&self, recipient: i64) -> Result<i64, Error> {
        let row: Option<(i64,)> =
            self.optional(statement!("SELECT trimmed FROM account WHERE recipient = $1", recipient)).await?;
        Ok(row.map_or(0, |(trimmed,)| trimmed))
    }

    /// The last position that was given out at a time, if that is known. `hour` is a time in whole hours.
    pub async fn head_at(&self, hour: i64) -> Result<Option<i64>, Error> {
        let row: Option<(i64,)> = self
            .optional(statement!(
                "SELECT position FROM head_history WHERE hour <= $1 ORDER BY hour DESC LIMIT 1",
                hour,
            ))
            .await?;
        Ok(row.map(|(position,)| position))
    }

    /// The greatest number of a recipient.
    pub async fn last_recipient(&self) -> Result<i64, Error> {
        let (last,): (i64,) = self.one(statement!("SELECT COALESCE(MAX(recipient), 0) FROM account")).await?;
        Ok(last)
    }
}

/// `None` for what only a newer version knows.
fn entry((position, kind, room, item, flags): (i64, i16, i64, i64, i64)) -> Option<Entry> {
    Some(Entry { position, kind: Kind::from_number(kind)?, room, item, flags })
}

pub fn set_cursor(device: i64, position: i64) -> Statement {
    statement!("UPDATE device SET position = $2 WHERE id = $1 AND position < $2", device, position)
}

/// Removes what all devices of this device's user have passed, but for what they were notified of: that can be looked up
/// until it is past the horizon.
pub fn trim_behind_cursors(device: i64) -> Statement {
    statement!(
        "DELETE FROM queue
         WHERE recipient = (SELECT recipient FROM device WHERE id = $1)
           AND flags & $2 = 0
           AND position <= (SELECT MIN(o.position) FROM device d
                            JOIN device o ON o.recipient = d.recipient WHERE d.id = $1)",
        device,
        flags::NOTIFY,
    )
}

/// Writes down up to where [`trim_behind_cursors`] has removed entries.
pub fn note_trimmed(device: i64) -> Statement {
    statement!(
        "UPDATE account SET trimmed = lowest.position
         FROM (SELECT d.recipient, MIN(o.position) AS position FROM device d
               JOIN device o ON o.recipient = d.recipient WHERE d.id = $1 GROUP BY d.recipient) AS lowest
         WHERE account.recipient = lowest.recipient AND account.trimmed < lowest.position",
        device,
    )
}

pub fn note_head(hour: i64, position: i64) -> Statement {
    statement!(
        "INSERT INTO head_history (hour, position) VALUES ($1, $2) ON CONFLICT (hour) DO NOTHING",
        hour,
        position,
    )
}

/// Removes old entries of the accounts numbered `from..to`, whether or not their devices have passed them.
pub fn trim_to_horizon(from: i64, to: i64, horizon: i64) -> Vec<Statement> {
    vec![
        statement!(
            "DELETE FROM queue WHERE recipient >= $1 AND recipient < $2 AND position <= $3",
            from,
            to,
            horizon,
        ),
        statement!(
            "UPDATE account SET trimmed = $3
             WHERE recipient >= $1 AND recipient < $2 AND trimmed < $3",
            from,
            to,
            horizon,
        ),
    ]
}
