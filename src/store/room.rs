//! The tables `room`, `state_log`, `extremity`, `membership` and `txn`.

use std::collections::HashMap;

use super::{
    Error, Parts, Statement, Store,
    event::{LAST, OUTLIER, StoredEvent},
    statement,
};

/// A row of `room`.
pub struct RoomRow {
    pub number: i64,
    pub room_id: String,
    pub version: String,
}

/// Somebody's current membership of a room.
pub struct MembershipRow {
    pub room: i64,
    pub room_id: String,
    pub membership: String,
}

/// Forgets the transactions of some devices (`from ≤ device < to`) that were answered before `horizon`.
pub fn trim_txns(from: i64, to: i64, horizon: i64) -> Statement {
    statement!("DELETE FROM txn WHERE device >= $1 AND device < $2 AND created_ts < $3", from, to, horizon)
}

impl Store {
    pub async fn room(&self, number: i64) -> Result<Option<RoomRow>, Error> {
        let row: Option<(String, String)> =
            self.optional(statement!("SELECT room_id, version FROM room WHERE id = $1", number)).await?;
        Ok(row.map(|(room_id, version)| RoomRow { number, room_id, version }))
    }

    pub async fn room_by_id(&self, room_id: &str) -> Result<Option<RoomRow>, Error> {
        let row: Option<(i64, String, String)> = self
            .optional(statement!("SELECT id, room_id, version FROM room WHERE room_id = $1", room_id))
            .await?;
        Ok(row.map(|(number, room_id, version)| RoomRow { number, room_id, version }))
    }

    /// The greatest number of a room, 0 if there is none.
    pub async fn last_room(&self) -> Result<i64, Error> {
        let (last,): (i64,) = self.one(statement!("SELECT COALESCE(MAX(id), 0) FROM room")).await?;
        Ok(last)
    }

    /// The greatest `seq` of a room, the position at which it was given and when that was, zeros if it has no events.
    pub async fn last_event(&self, room: i64) -> Result<(i64, i64, i64), Error> {
        let row: Option<(i64, i64, i64)> = self
            .optional(statement!(
                "SELECT seq, position, arrived FROM event WHERE room = $1 AND seq > $2 ORDER BY seq DESC LIMIT 1",
                room,
                OUTLIER,
            ))
            .await?;
        Ok(row.unwrap_or_default())
    }

    /// The greatest `seq` of a room, 0 if it has no events.
    pub async fn last_seq(&self, room: i64) -> Result<i64, Error> {
        let (last,): (i64,) = self
            .one(statement!(
                "SELECT COALESCE(MAX(seq), 0) FROM event WHERE room = $1 AND seq > $2",
                room,
                OUTLIER
            ))
            .await?;
        Ok(last)
    }

    /// The least `seq` in the log of a room, 1 if it has no events.
    pub async fn first_seq(&self, room: i64) -> Result<i64, Error> {
        let (first,): (i64,) = self
            .one(statement!(
                "SELECT COALESCE(MIN(seq), 1) FROM event WHERE room = $1 AND seq > $2",
                room,
                OUTLIER,
            ))
            .await?;
        Ok(first)
    }

    /// The least `seq` of an outlier of a room, [`OUTLIER`] if it has none.
    pub async fn last_outlier(&self, room: i64) -> Result<i64, Error> {
        let (first,): (i64,) = self
            .one(statement!(
                "SELECT COALESCE(MIN(seq), $2) FROM event WHERE room = $1 AND seq <= $2",
                room,
                OUTLIER,
            ))
            .await?;
        Ok(first)
    }

    /// The position of an event.
    pub async fn position_of(&self, room: i64, seq: i64) -> Result<i64, Error> {
        let row: Option<(i64,)> = self
            .optional(statement!("SELECT position FROM event WHERE room = $1 AND seq = $2", room, seq))
            .await?;
        Ok(row.map_or(0, |(position,)| position))
    }

    /// What others said of a room that this server isn't in, as JSON.
    pub async fn hearsay(&self, room: i64) -> Result<Option<String>, Error> {
        let row: Option<(Option<String>,)> =
            self.optional(statement!("SELECT hearsay FROM room WHERE id = $1", room)).await?;
        Ok(row.and_then(|(hearsay,)| hearsay))
    }

    /// The last event that the queue position `position` covers: 0 if the room is younger.
    pub async fn seq_at(&self, room: i64, position: i64) -> Result<i64, Error> {
        // Positions grow with `seq`, so this is a search by halves of the primary key. Most tokens are recent: it begins
        // at the end, with steps that grow.
        let last = self.last_seq(room).await?;
        let (mut low, mut high) = (last, last);
        let mut step = 1;
        while low > 0 && !self.is_covered(room, low, position).await? {
            high = low - 1;
            low = (low - step).max(0);
            step *= 2;
        }
        while low < high {
            let middle = low + (high - low + 1) / 2;
            if self.is_covered(room, middle, position).await? {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        Ok(low)
    }

    /// Whether a position covers an event, or, of one that was purged, the last before it that is left.
    async fn is_covered(&self, room: i64, seq: i64, position: i64) -> Result<bool, Error> {
        let found: Option<(i64,)> = self
            .optional(statement!(
                "SELECT position FROM event WHERE room = $1 AND seq <= $2 ORDER BY seq DESC LIMIT 1",
                room,
                seq,
            ))
            .await?;
        Ok(found.is_some_and(|(found,)| found <= position))
    }

    /// The events that no other follows yet.
    pub async fn extremities(&self, room: i64) -> Result<Vec<StoredEvent>, Error> {
        self.event_rows(statement!(
            "SELECT e.room, e.seq, e.event_id, e.pdu, e.verdict, e.redacted_by, e.sender_device, e.txn_id
             FROM extremity x JOIN event e ON e.room = x.room AND e.seq = CASE
                 WHEN x.event = $2 THEN (SELECT MAX(seq) FROM event WHERE room = $1 AND seq > $3) ELSE x.event
             END
             WHERE x.room = $1 ORDER BY e.seq",
            room,
            LAST,
            OUTLIER,
        ))
        .await
    }

    /// The state events in force after event `at`, in no order.
    pub async fn state_events_at(&self, room: i64, at: i64) -> Result<Vec<StoredEvent>, Error> {
        self.event_rows(statement!(
            "SELECT e.room, e.seq, e.event_id, e.pdu, e.verdict, e.redacted_by, e.sender_device, e.txn_id
             FROM state_log s JOIN event e ON e.room = s.room AND e.seq = s.event
             WHERE s.room = $1 AND (s.type, s.state_key, s.seq) IN (
                 SELECT type, state_key, MAX(seq) FROM state_log
                 WHERE room = $1 AND seq <= $2 GROUP BY type, state_key
             )",
            room,
            at,
        ))
        .await
    }

    /// What changed in the state after event `after`, up to and with event `to`: the last event of each key.
    pub async fn state_between(
        &self,
        room: i64,
        after: i64,
        to: i64,
    ) -> Result<Vec<(String, String, i64)>, Error> {
        let rows: Vec<(String, String, i64)> = self
            .all(statement!(
                "SELECT type, state_key, event FROM state_log
                 WHERE room = $1 AND seq > $2 AND seq <= $3 ORDER BY seq",
                room,
                after,
                to,
            ))
            .await?;
        let mut latest = std::collections::BTreeMap::new();
        for (kind, state_key, event) in rows {
            latest.insert((kind, state_key), event);
        }
        Ok(latest.into_iter().map(|((kind, state_key), event)| (kind, state_key, event)).collect())
    }

    /// For each type, state key and `seq`: the `seq` of the state event in force after that event.
    pub async fn state_entries_at(
        &self,
        room: i64,
        questions: &[(String, &str, i64)],
    ) -> Result<Vec<Option<i64>>, Error> {
        let list = serde_json::to_string(questions).map_err(|cause| Error::Encoding(cause.to_string()))?;
        let rows: Vec<(String, String, i64, Option<i64>)> = self
            .all(statement!(
                "SELECT q.value ->> 0, q.value ->> 1, q.value ->> 2, (
                     SELECT s.event FROM state_log s
                     WHERE s.room = $1 AND s.type = q.value ->> 0 AND s.state_key = q.value ->> 1
                       AND s.seq <= q.value ->> 2
                     ORDER BY s.seq DESC LIMIT 1
                 ) FROM json_each($2) q",
                room,
                list,
            ))
            .await?;
        // Rows come in no order.
        let found: HashMap<(&str, &str, i64), Option<i64>> =
            rows.iter().map(|(kind, key, at, event)| ((&**kind, &**key, *at), *event)).collect();
        let answers =
            questions.iter().map(|(kind, key, at)| found.get(&(&**kind, *key, *at)).copied().flatten());
        Ok(answers.collect())
    }

    /// Every change of one state key: the `seq` where it took effect and that of the event, oldest first.
    pub async fn state_history(
        &self,
        room: i64,
        kind: &str,
        state_key: &str,
    ) -> Result<Vec<(i64, i64)>, Error> {
        self.all(statement!(
            "SELECT seq, event FROM state_log
             WHERE room = $1 AND type = $2 AND state_key = $3 ORDER BY seq",
            room,
            kind,
            state_key,
        ))
        .await
    }

    /// The rooms in which a user has a membership that is not forgotten.
    pub async fn memberships(&self, user_id: &str) -> Result<Vec<MembershipRow>, Error> {
        let rows: Vec<(i64, String, String)> = self
            .all(statement!(
                "SELECT m.room, r.room_id, m.membership
                 FROM membership m JOIN room r ON r.id = m.room
                 WHERE m.user_id = $1 AND NOT m.forgotten ORDER BY m.room",
                user_id,
            ))
            .await?;
        let rows = rows.into_iter();
        Ok(rows.map(|(room, room_id, membership)| MembershipRow { room, room_id, membership }).collect())
    }

    /// Whether a user is joined to at least one of these rooms. Those that nobody here is in, or that aren't known, count for
    /// nothing.
    pub async fn is_in_one_of(&self, user_id: &str, room_ids: &[&str]) -> Result<bool, Error> {
        let list = serde_json::to_string(room_ids).map_err(|cause| Error::Encoding(cause.to_string()))?;
        let row: Option<(i64,)> = self
            .optional(statement!(
                "SELECT r.id FROM json_each($2) q JOIN room r ON r.room_id = q.value
                 JOIN membership m ON m.room = r.id AND m.user_id = $1
                 WHERE m.membership = 'join' AND EXISTS (
                     SELECT 1 FROM membership l JOIN account a ON a.user_id = l.user_id
                     WHERE l.room = r.id AND l.membership = 'join')
                 LIMIT 1",
                user_id,
                list,
            ))
            .await?;
        Ok(row.is_some())
    }

    pub async fn is_forgotten(&self, user_id: &str, room: i64) -> Result<bool, Error> {
        let row: Option<(bool,)> = self
            .optional(statement!(
                "SELECT forgotten FROM membership WHERE user_id = $1 AND room = $2",
                user_id,
                room,
            ))
            .await?;
        Ok(row.is_some_and(|(forgotten,)| forgotten))
    }

    /// The number of a room that the user has or had something to do with.
    pub async fn room_of_user(&self, user_id: &str, room_id: &str) -> Result<Option<i64>, Error> {
        let row: Option<(i64,)> = self
            .optional(statement!(
                "SELECT r.id FROM room r JOIN membership m ON m.room = r.id AND m.user_id = $1
                 WHERE r.room_id = $2",
                user_id,
                room_id,
            ))
            .await?;
        Ok(row.map(|(room,)| room))
    }

    /// The joined users of a room that have an account here: number and user id.
    pub async fn local_members(&self, room: i64) -> Result<Vec<(i64, String)>, Error> {
        self.all(statement!(
            "SELECT a.recipient, a.user_id FROM membership m JOIN account a ON a.user_id = m.user_id
             WHERE m.room = $1 AND m.membership = 'join' ORDER BY a.recipient",
            room,
        ))
        .await
    }

    pub async fn is_published(&self, room: i64) -> Result<bool, Error> {
        let row: Option<(bool,)> =
            self.optional(statement!("SELECT published FROM room WHERE id = $1", room)).await?;
        Ok(row.is_some_and(|(published,)| published))
    }

    /// How many rooms the public directory has.
    pub async fn published_count(&self) -> Result<i64, Error> {
        let (count,): (i64,) = self.one(statement!("SELECT COUNT(*) FROM room WHERE published")).await?;
        Ok(count)
    }

    /// At most `limit` rooms of the public directory with a number above `after`, in order.
    pub async fn published_after(&self, after: i64, limit: i64) -> Result<Vec<i64>, Error> {
        let rows: Vec<(i64,)> = self
            .all(statement!(
                "SELECT id FROM room WHERE published AND id > $1 ORDER BY id LIMIT $2",
                after,
                limit,
            ))
            .await?;
        Ok(rows.into_iter().map(|(number,)| number).collect())
    }

    /// At most `limit` rooms of the public directory with a number below `before`, the last one first.
    pub async fn published_before(&self, before: i64, limit: i64) -> Result<Vec<i64>, Error> {
        let rows: Vec<(i64,)> = self
            .all(statement!(
                "SELECT id FROM room WHERE published AND id < $1 ORDER BY id DESC LIMIT $2",
                before,
                limit,
            ))
            .await?;
        Ok(rows.into_iter().map(|(number,)| number).collect())
    }

    /// The last number that was given to a device.
    pub async fn last_device(&self) -> Result<i64, Error> {
        let (last,): (i64,) = self.one(statement!("SELECT value FROM counter WHERE name = 'device'")).await?;
        Ok(last)
    }

    /// The answers that were given to these transactions, each `[device, path, txn_id]` in JSON.
    pub async fn txns(&self, keys: String) -> Result<Vec<(i64, i64, String, String)>, Error> {
        self.settled_if_possible(Parts::EVENTS).await?;
        self.all(statement!(
            "SELECT t.device, t.path, t.txn_id, t.event FROM json_each($1) k
             JOIN txn t ON t.device = k.value ->> 0 AND t.path = k.value ->> 1 AND t.txn_id = k.value ->> 2",
            keys,
        ))
        .await
    }
}

pub fn insert_room(number: i64, room_id: &str, version: &str, open: bool) -> Statement {
    statement!(
        "INSERT INTO room (id, room_id, version, open) VALUES ($1, $2, $3, $4)",
        number,
        room_id,
        version,
        open,
    )
}

fn insert_extremity(room: i64, event: i64) -> Statement {
    statement!("INSERT INTO extremity (room, event) VALUES ($1, $2)", room, event)
}

/// The events that have no follower, by their `seq`; [`LAST`] for one that is the room's last.
pub fn replace_extremities(room: i64, events: &[i64]) -> Vec<Statement> {
    let mut statements = vec![statement!("DELETE FROM extremity WHERE room = $1", room)];
    statements.extend(events.iter().map(|event| insert_extremity(room, *event)));
    statements
}

/// A user has nothing to do with a room any more, as if they never had.
pub fn remove_membership(user_id: &str, room: i64) -> Statement {
    statement!("DELETE FROM membership WHERE user_id = $1 AND room = $2", user_id, room)
}

/// A forgotten room stays forgotten (MB-01) until the user is asked in, asks to get in, or is in.
pub fn set_membership(user_id: &str, room: i64, membership: &str, event: i64) -> Statement {
    statement!(
        "INSERT INTO membership (user_id, room, membership, event) VALUES ($1, $2, $3, $4)
         ON CONFLICT (user_id, room) DO UPDATE
         SET membership = excluded.membership, event = excluded.event,
             forgotten = membership.forgotten AND excluded.membership IN ('leave', 'ban')",
        user_id,
        room,
        membership,
        event,
    )
}

/// Conflicts unless the user has left the room or is banned from it.
pub fn forget(user_id: &str, room: i64) -> Statement {
    statement!(
        "UPDATE membership SET forgotten = TRUE
         WHERE user_id = $1 AND room = $2 AND membership IN ('leave', 'ban')",
        user_id,
        room,
    )
    .expecting(1)
}

/// State at a place that others may have filled already.
pub fn set_state(room: i64, kind: &str, state_key: &str, seq: i64, event: i64) -> Statement {
    statement!(
        "INSERT INTO state_log (room, type, state_key, seq, event) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (room, type, state_key, seq) DO NOTHING",
        room,
        kind,
        state_key,
        seq,
        event,
    )
}

/// Nothing is under a key from `seq` on, unless something is set there.
pub fn end_state(room: i64, kind: &str, state_key: &str, seq: i64) -> Statement {
    set_state(room, kind, state_key, seq, 0)
}

/// What others say of a room that this server isn't in (JSON); none once it is.
pub fn set_hearsay(room: i64, hearsay: Option<String>) -> Statement {
    statement!("UPDATE room SET hearsay = $2 WHERE id = $1", room, hearsay)
}

pub fn set_version(room: i64, version: &str) -> Statement {
    statement!("UPDATE room SET version = $2 WHERE id = $1", room, version)
}

/// Whether strangers may know who is in it.
pub fn set_open(room: i64, open: bool) -> Statement {
    statement!("UPDATE room SET open = $2 WHERE id = $1", room, open)
}

pub fn publish(room: i64, published: bool) -> Statement {
    statement!("UPDATE room SET published = $2 WHERE id = $1", room, published)
}
