//! The tables `purge` and `purge_rest`, and what goes from all others with an event that is purged.
//!
//! The statements take lists of `seq` as JSON; they cost what is on the list, whatever the size of the room.

use super::{Error, Statement, Store, statement};

/// A room, and what its state says of retention.
pub struct RetentionRow {
    pub room: i64,
    pub version: String,
    /// The current `m.room.retention` event.
    pub pdu: Option<String>,
}

impl Store {
    /// At most `limit` rooms with greater numbers than `after`, in order.
    pub async fn retention_of_rooms(&self, after: i64, limit: i64) -> Result<Vec<RetentionRow>, Error> {
        let rows: Vec<(i64, String, Option<String>)> = self
            .all(statement!(
                "SELECT r.id, r.version, (
                     SELECT e.pdu FROM event e WHERE e.room = r.id AND e.seq = (
                         SELECT s.event FROM state_log s
                         WHERE s.room = r.id AND s.type = 'm.room.retention' AND s.state_key = ''
                         ORDER BY s.seq DESC LIMIT 1
                     )
                 ) FROM room r WHERE r.id > $1 ORDER BY r.id LIMIT $2",
                after,
                limit,
            ))
            .await?;
        Ok(rows.into_iter().map(|(room, version, pdu)| RetentionRow { room, version, pdu }).collect())
    }

    /// How far the log of a room is purged, 0 if it is whole.
    pub async fn purged_up_to(&self, room: i64) -> Result<i64, Error> {
        let row: Option<(i64,)> =
            self.optional(statement!("SELECT upto FROM purge WHERE room = $1", room)).await?;
        Ok(row.map_or(0, |(upto,)| upto))
    }

    /// The last of the events that came up to a time and before any that came later, and when the one after it came.
    /// Looks from event `after` on, which came up to that time.
    pub async fn arrived_up_to(&self, room: i64, after: i64, time: i64) -> Result<(i64, Option<i64>), Error> {
        // Times grow with `seq`: steps that grow lead past the end, and halves back to it.
        let (mut last, mut step) = (after, 1);
        let mut later = loop {
            match self.arrival_from(room, last + step).await? {
                Some((seq, arrived)) if arrived <= time => last = seq,
                _ if step == 1 => break last + 1,
                _ => break last + step,
            }
            step *= 2;
        };
        while later - last > 1 {
            let middle = last + (later - last) / 2;
            match self.arrival_from(room, middle).await? {
                Some((seq, arrived)) if arrived <= time && seq < later => last = seq,
                _ => later = middle,
            }
        }
        Ok((last, self.arrival_from(room, last + 1).await?.map(|(_, arrived)| arrived)))
    }

    /// The first event from `seq` on, and when it came.
    async fn arrival_from(&self, room: i64, seq: i64) -> Result<Option<(i64, i64)>, Error> {
        self.optional(statement!(
            "SELECT seq, arrived FROM event WHERE room = $1 AND seq >= $2 ORDER BY seq LIMIT 1",
            room,
            seq,
        ))
        .await
    }

    /// What is left of purged events.
    pub async fn purge_rest(&self, room: i64) -> Result<Vec<i64>, Error> {
        let rows: Vec<(i64,)> =
            self.all(statement!("SELECT seq FROM purge_rest WHERE room = $1 ORDER BY seq", room)).await?;
        Ok(rows.into_iter().map(|(seq,)| seq).collect())
    }
}

/// The log is purged up to an event.
pub fn set_purged(room: i64, upto: i64) -> Statement {
    statement!(
        "INSERT INTO purge (room, upto) VALUES ($1, $2)
         ON CONFLICT (room) DO UPDATE SET upto = excluded.upto WHERE excluded.upto > purge.upto",
        room,
        upto,
    )
}

/// Takes the content of an event whose row has to stay. `gone` is the verdict of those that would be shown without.
pub fn empty(room: i64, seq: i64, pdu: &str, gone: i64) -> Vec<Statement> {
    vec![
        statement!(
            "UPDATE event SET pdu = $3, verdict = CASE WHEN verdict = 0 THEN $4 ELSE verdict END
             WHERE room = $1 AND seq = $2",
            room,
            seq,
            pdu,
            gone,
        ),
        statement!(
            "INSERT INTO purge_rest (room, seq) VALUES ($1, $2) ON CONFLICT (room, seq) DO NOTHING",
            room,
            seq,
        ),
    ]
}

/// Deletes events and what is kept of them beside.
pub fn delete(room: i64, seqs: &str) -> Vec<Statement> {
    let statement = |text| statement!(text, room, seqs);
    vec![
        statement("DELETE FROM event_state WHERE room = $1 AND seq IN (SELECT value FROM json_each($2))"),
        statement("DELETE FROM held_redaction WHERE room = $1 AND seq IN (SELECT value FROM json_each($2))"),
        statement("DELETE FROM purge_rest WHERE room = $1 AND seq IN (SELECT value FROM json_each($2))"),
        statement(
            "DELETE FROM event_time WHERE room = $1 AND (ts, seq) IN (
                 SELECT ts, seq FROM event WHERE room = $1 AND seq IN (SELECT value FROM json_each($2))
             )",
        ),
        statement("DELETE FROM event WHERE room = $1 AND seq IN (SELECT value FROM json_each($2))"),
    ]
}

/// Events relate to nothing any more; `roots` are the threads that some of them are in.
pub fn unrelate(room: i64, seqs: &str, roots: &str) -> Vec<Statement> {
    // By their places and not by their type: the texts put together keep that out of the choice of an index.
    let shrink = statement!(
        "UPDATE thread SET replies = replies - (
             SELECT COUNT(*) FROM json_each($2) s CROSS JOIN relation r
             WHERE r.room = $1 AND r.parent = thread.root AND r.seq = s.value AND r.rel_type || '' = 'm.thread'
         ) WHERE room = $1 AND root IN (SELECT value FROM json_each($3))",
        room,
        seqs,
        roots,
    );
    let unrelate = statement!(
        "DELETE FROM relation WHERE room = $1 AND seq IN (SELECT value FROM json_each($2))",
        room,
        seqs,
    );
    let begin = statement!(
        "UPDATE thread SET oldest = COALESCE((
             SELECT r.seq FROM relation r
             WHERE r.room = $1 AND r.parent = thread.root AND r.rel_type || '' = 'm.thread' ORDER BY r.seq LIMIT 1
         ), oldest) WHERE room = $1 AND root IN (SELECT value FROM json_each($2))",
        room,
        roots,
    );
    let end = statement!(
        "DELETE FROM thread WHERE room = $1 AND root IN (SELECT value FROM json_each($2)) AND replies <= 0",
        room,
        roots,
    );
    vec![shrink, unrelate, begin, end]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::{Batch, EventRow, alone};

    /// Searching by steps finds what looking at each event finds, from wherever it begins, whatever was deleted before.
    #[tokio::test]
    async fn the_end_of_a_time_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let store = alone::open(dir.path()).await;
        // Several at a time, and now and then none for long.
        let arrived = |seq: i64| 10 * (seq / 3) + if seq > 40 { 500 } else { 0 };
        let mut batch = Batch::new();
        for seq in 1..=70 {
            let step = batch.step();
            batch.event(EventRow {
                room: 1,
                seq,
                event_id: format!("${seq}"),
                step,
                pdu: Arc::from("{}"),
                ts: 0,
                arrived: arrived(seq),
                verdict: 0,
                searchable: false,
                sender_device: None,
                txn_id: None,
                outlier: None,
                position: None,
            });
        }
        store.commit(batch).await.unwrap();
        for purged in [0, 5, 6, 23] {
            let seqs: Vec<i64> = (2..=purged).filter(|seq| seq % 7 != 0).collect();
            store.commit(delete(1, &serde_json::to_string(&seqs).unwrap())).await.unwrap();
            for time in (-10..800).step_by(5) {
                let last = (1..=70).take_while(|seq| arrived(*seq) <= time).last().unwrap_or(0);
                let next = (last < 70).then(|| arrived(last + 1));
                for after in (purged..=last).step_by(4) {
                    let found = store.arrived_up_to(1, after, time).await.unwrap();
                    assert_eq!(found, (last, next), "at {time} from {after}, purged {purged}");
                }
            }
        }
        assert_eq!(store.arrived_up_to(2, 0, i64::MAX).await.unwrap(), (0, None), "a room without events");
    }
}
