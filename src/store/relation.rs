//! The table `relation`: which events say something of which others.

use super::{Error, Statement, Store, statement};

pub struct RelationRow<'a> {
    pub room: i64,
    /// The id of the event that something is said of.
    pub parent: &'a str,
    pub rel_type: &'a str,
    /// Of the child, as all that follows.
    pub seq: i64,
    pub kind: &'a str,
    pub sender: &'a str,
    pub ts: i64,
}

/// Which children a reader may know of, as JSON: events of these ranges of `seq`, and not of these users.
pub struct Seen {
    pub ranges: String,
    pub ignored: String,
}

/// What the children of one type say of a parent.
pub struct Aggregate {
    pub parent: String,
    pub rel_type: String,
    pub count: i64,
    /// The `seq` of the last child.
    pub last: i64,
    /// Whether the reader is among the senders.
    pub participated: bool,
}

/// Which children of a parent are asked for; an empty text is any.
pub struct Wanted<'a> {
    pub parent: &'a str,
    pub rel_type: &'a str,
    pub kind: &'a str,
    /// How many levels of children of children there are to be beside its own.
    pub deeper: i64,
}

impl Store {
    /// The `seq` of a room's last event that relates to another; 0 if there is none.
    pub async fn last_relation(&self, room: i64) -> Result<i64, Error> {
        let (last,): (i64,) =
            self.one(statement!("SELECT COALESCE(MAX(seq), 0) FROM relation WHERE room = $1", room)).await?;
        Ok(last)
    }

    /// The annotations that a user has made of an event, by events of one type.
    pub async fn annotations(
        &self,
        room: i64,
        parent: &str,
        sender: &str,
        kind: &str,
    ) -> Result<Vec<i64>, Error> {
        let rows: Vec<(i64,)> = self
            .all(statement!(
                "SELECT seq FROM relation
                 WHERE room = $1 AND parent = $2 AND rel_type = 'm.annotation' AND sender = $3 AND kind = $4",
                room,
                parent,
                sender,
                kind,
            ))
            .await?;
        Ok(rows.into_iter().map(|(seq,)| seq).collect())
    }

    /// What is said of these events (a JSON list of ids), by the types of relation that are told along with an event.
    pub async fn aggregates(
        &self,
        room: i64,
        parents: String,
        reader: &str,
        seen: &Seen,
    ) -> Result<Vec<Aggregate>, Error> {
        let rows: Vec<(String, String, i64, i64, i64)> = self
            .all(statement!(
                "SELECT r.parent, r.rel_type, COUNT(*), MAX(r.seq), MAX(CASE WHEN r.sender = $3 THEN 1 ELSE 0 END)
                 FROM json_each($2) p JOIN relation r ON r.room = $1 AND r.parent = p.value
                 WHERE r.rel_type IN ('m.replace', 'm.thread', 'm.reference')
                   AND EXISTS (
                       SELECT 1 FROM json_each($4) v WHERE r.seq BETWEEN v.value ->> 0 AND v.value ->> 1
                   )
                   AND r.sender NOT IN (SELECT value FROM json_each($5))
                 GROUP BY r.parent, r.rel_type",
                room,
                parents,
                reader,
                seen.ranges.clone(),
                seen.ignored.clone(),
            ))
            .await?;
        let aggregate = |(parent, rel_type, count, last, participated)| Aggregate {
            parent,
            rel_type,
            count,
            last,
            participated: participated != 0,
        };
        Ok(rows.into_iter().map(aggregate).collect())
    }

    /// The last edit of each of these events, each `[id, sender, type]` in JSON: RL-07.
    pub async fn latest_edits(
        &self,
        room: i64,
        parents: String,
        seen: &Seen,
    ) -> Result<Vec<(String, i64)>, Error> {
        let rows: Vec<(String, Option<i64>)> = self
            .all(statement!(
                "SELECT p.value ->> 0, (
                     SELECT r.seq FROM relation r JOIN event e ON e.room = r.room AND e.seq = r.seq
                     WHERE r.room = $1 AND r.parent = p.value ->> 0 AND r.rel_type = 'm.replace'
                       AND r.sender = p.value ->> 1 AND r.kind = p.value ->> 2
                       AND EXISTS (
                           SELECT 1 FROM json_each($3) v WHERE r.seq BETWEEN v.value ->> 0 AND v.value ->> 1
                       )
                       AND r.sender NOT IN (SELECT value FROM json_each($4))
                     ORDER BY r.ts DESC, e.event_id DESC LIMIT 1
                 ) FROM json_each($2) p",
                room,
                parents,
                seen.ranges.clone(),
                seen.ignored.clone(),
            ))
            .await?;
        Ok(rows.into_iter().filter_map(|(parent, seq)| Some((parent, seq?))).collect())
    }

    /// The ids of the events that refer to these (a JSON list), oldest first; of each at most `most`.
    pub async fn references(
        &self,
        room: i64,
        parents: String,
        most: i64,
        seen: &Seen,
    ) -> Result<Vec<(String, String)>, Error> {
        self.all(statement!(
            "SELECT parent, event_id FROM (
                 SELECT r.parent, e.event_id, r.seq,
                     ROW_NUMBER() OVER (PARTITION BY r.parent ORDER BY r.seq) AS place
                 FROM json_each($2) p JOIN relation r ON r.room = $1 AND r.parent = p.value
                 JOIN event e ON e.room = r.room AND e.seq = r.seq
                 WHERE r.rel_type = 'm.reference'
                   AND EXISTS (
                       SELECT 1 FROM json_each($4) v WHERE r.seq BETWEEN v.value ->> 0 AND v.value ->> 1
                   )
                   AND r.sender NOT IN (SELECT value FROM json_each($5))
             ) ranked WHERE place <= $3 ORDER BY seq",
            room,
            parents,
            most,
            seen.ranges.clone(),
            seen.ignored.clone(),
        ))
        .await
    }

    /// At most `limit` children with `after < seq ≤ to`, from the newest on or, `forwards`, from the oldest.
    pub async fn children(
        &self,
        room: i64,
        wanted: &Wanted<'_>,
        (after, to): (i64, i64),
        forwards: bool,
        limit: i64,
        seen: &Seen,
    ) -> Result<Vec<i64>, Error> {
        let rows: Vec<(i64,)> = self
            .all(statement!(
                "WITH RECURSIVE parent (id, depth) AS (
                     SELECT CAST($2 AS TEXT), 0
                     UNION
                     SELECT e.event_id, p.depth + 1
                     FROM parent p JOIN relation r ON r.room = $1 AND r.parent = p.id
                     JOIN event e ON e.room = r.room AND e.seq = r.seq
                     WHERE p.depth < $5
                 )
                 SELECT DISTINCT r.seq
                 FROM parent p JOIN relation r ON r.room = $1 AND r.parent = p.id
                 WHERE ($3 = '' OR r.rel_type = $3) AND ($4 = '' OR r.kind = $4)
                   AND r.seq > $6 AND r.seq <= $7
                   AND EXISTS (
                       SELECT 1 FROM json_each($10) v WHERE r.seq BETWEEN v.value ->> 0 AND v.value ->> 1
                   )
                   AND r.sender NOT IN (SELECT value FROM json_each($11))
                 ORDER BY CASE WHEN $8 THEN r.seq ELSE -r.seq END LIMIT $9",
                room,
                wanted.parent,
                wanted.rel_type,
                wanted.kind,
                wanted.deeper,
                after,
                to,
                forwards,
                limit,
                seen.ranges.clone(),
                seen.ignored.clone(),
            ))
            .await?;
        Ok(rows.into_iter().map(|(seq,)| seq).collect())
    }

    /// The threads whose last reply is at `to` or below, the one with the latest first: the root's id and the reply's `seq`.
    pub async fn threads(
        &self,
        room: i64,
        to: i64,
        limit: i64,
        seen: &Seen,
    ) -> Result<Vec<(String, i64)>, Error> {
        self.all(statement!(
            "SELECT r.parent, r.seq FROM relation r
             WHERE r.room = $1 AND r.seq <= $2 AND r.rel_type = 'm.thread'
               AND EXISTS (SELECT 1 FROM json_each($4) v WHERE r.seq BETWEEN v.value ->> 0 AND v.value ->> 1)
               AND r.sender NOT IN (SELECT value FROM json_each($5))
               AND NOT EXISTS (
                   SELECT 1 FROM relation l
                   WHERE l.room = r.room AND l.parent = r.parent AND l.rel_type = 'm.thread' AND l.seq > r.seq
                     AND EXISTS (
                         SELECT 1 FROM json_each($4) v WHERE l.seq BETWEEN v.value ->> 0 AND v.value ->> 1
                     )
                     AND l.sender NOT IN (SELECT value FROM json_each($5))
               )
             ORDER BY r.seq DESC LIMIT $3",
            room,
            to,
            limit,
            seen.ranges.clone(),
            seen.ignored.clone(),
        ))
        .await
    }
}

pub fn insert(row: &RelationRow<'_>) -> Statement {
    statement!(
        "INSERT INTO relation (room, parent, rel_type, seq, kind, sender, ts)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        row.room,
        row.parent,
        row.rel_type,
        row.seq,
        row.kind,
        row.sender,
        row.ts,
    )
}

/// An event no longer says anything of another.
pub fn remove(room: i64, seq: i64) -> Statement {
    statement!("DELETE FROM relation WHERE room = $1 AND seq = $2", room, seq)
}
