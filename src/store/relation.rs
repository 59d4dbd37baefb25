//! The tables `relation` and `thread`.

use std::collections::HashSet;

use super::{Error, Statement, Store, event::StoredEvent, statement};

/// A row of `relation`.
#[derive(Clone, Debug)]
pub struct RelationRow<'a> {
    pub room: i64,
    pub parent: &'a str,
    /// The `seq` of the event that relates; all that follows is its own.
    pub seq: i64,
    pub event_id: &'a str,
    pub rel_type: &'a str,
    pub kind: &'a str,
    pub sender: &'a str,
    pub ts: i64,
    pub key: Option<&'a str>,
    /// It is an `m.replace` that has what an edit needs.
    pub replaces: bool,
    /// Its parent isn't here.
    pub early: bool,
}

/// Which children somebody may be shown.
#[derive(Clone, Debug)]
pub struct Shown {
    /// No child before or after.
    pub first: i64,
    pub last: i64,
    /// The parts between these that are shown, as a JSON list of `[first, last]`; empty if that is all.
    pub parts: String,
    /// Senders whose events aren't shown, as a JSON list.
    pub ignored: String,
}

/// What of an event's children goes into its `m.relations`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bundled {
    /// The `seq` of its latest edit.
    Edit {
        parent: String,
        seq: i64,
    },
    Reference {
        parent: String,
        seq: i64,
        event_id: String,
    },
    Thread(ThreadRow),
}

/// A row of `thread`, or what somebody sees of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadRow {
    pub root: String,
    pub oldest: i64,
    pub latest: i64,
    pub replies: i64,
    /// The reader has replied.
    pub participated: bool,
}

impl From<(String, i64, i64, i64, bool)> for ThreadRow {
    fn from((root, oldest, latest, replies, participated): (String, i64, i64, i64, bool)) -> Self {
        Self { root, oldest, latest, replies, participated }
    }
}

/// What is asked of the children of an event.
#[derive(Clone, Copy, Debug)]
pub struct Children<'a> {
    pub room: i64,
    pub parent: &'a str,
    pub rel_type: Option<&'a str>,
    pub kind: Option<&'a str>,
    /// Children of children are meant too, so many levels down; 1 is none of them.
    pub depth: i64,
    /// Only those with `after < seq ≤ to`.
    pub after: i64,
    pub to: i64,
    pub forwards: bool,
    pub limit: i64,
}

/// References to the events of one page that are told; past it, those to a few events would make every page slow.
const REFERENCES: i64 = 5_000;

// SQLite takes the tables of a `CROSS JOIN` in the order in which they stand. By itself it begins with all relations of the
// room here, whose number it doesn't know to be more than that of the events asked about.

/// What holds of a row of `relation` with this name that is shown, with the arguments `$3` to `$6` from a [`Shown`]. The sum
/// keeps this range out of the choice of an index: that by type is the better one.
macro_rules! shown {
    ($row:literal) => {
        concat!(
            $row,
            ".seq + 0 BETWEEN $3 AND $4 AND ($5 = '' OR EXISTS (
                 SELECT 1 FROM json_each($5) v WHERE ",
            $row,
            ".seq >= CAST(v.value ->> 0 AS BIGINT) AND ",
            $row,
            ".seq <= CAST(v.value ->> 1 AS BIGINT)
             )) AND ($6 = '' OR ",
            $row,
            ".sender NOT IN (SELECT value FROM json_each($6)))"
        )
    };
}

type BundleRow = (i64, String, i64, Option<String>, i64, i64, bool);

impl Store {
    /// What belongs into the `m.relations` of these events, a JSON list of `[event id, sender, type]`, but for what only
    /// the events themselves tell. Of threads it is the whole; see [`Self::threads_shown`].
    pub async fn bundled(
        &self,
        room: i64,
        parents: String,
        shown: &Shown,
        reader: &str,
    ) -> Result<Vec<Bundled>, Error> {
        let rows: Vec<BundleRow> = self
            .all(statement!(
                concat!(
                    "SELECT 1, e.parent, e.seq, NULL, 0, 0, FALSE FROM (
                         SELECT p.value ->> 0 AS parent, (
                             SELECT r.seq FROM relation r
                             WHERE r.room = $1 AND r.parent = p.value ->> 0 AND r.rel_type = 'm.replace'
                               AND r.sender = p.value ->> 1 AND r.kind = p.value ->> 2 AND r.replaces AND ",
                    shown!("r"),
                    "        ORDER BY r.ts DESC, r.event_id DESC LIMIT 1
                         ) AS seq FROM json_each($2) p
                     ) e WHERE e.seq IS NOT NULL
                     UNION ALL
                     SELECT 2, f.parent, f.seq, f.event_id, 0, 0, FALSE FROM (
                         SELECT r.parent, r.seq, r.event_id FROM json_each($2) p
                         CROSS JOIN relation r
                         WHERE r.room = $1 AND r.parent = p.value ->> 0 AND r.rel_type = 'm.reference' AND ",
                    shown!("r"),
                    "    ORDER BY r.seq DESC LIMIT $8
                     ) f
                     UNION ALL
                     SELECT 3, t.root, t.latest, NULL, t.oldest, t.replies, EXISTS (
                         SELECT 1 FROM relation r WHERE r.room = $1 AND r.parent = t.root
                         AND r.rel_type = 'm.thread' AND r.sender = $7
                     ) FROM json_each($2) p CROSS JOIN thread t WHERE t.room = $1 AND t.root = p.value ->> 0"
                ),
                room,
                parents,
                shown.first,
                shown.last,
                &shown.parts,
                &shown.ignored,
                reader,
                REFERENCES,
            ))
            .await?;
        let rows = rows.into_iter().map(|(kind, parent, child, event_id, oldest, replies, participated)| {
            match (kind, event_id) {
                (2, Some(event_id)) => Bundled::Reference { parent, seq: child, event_id },
                (3, _) => {
                    Bundled::Thread(ThreadRow { root: parent, oldest, latest: child, replies, participated })
                }
                _ => Bundled::Edit { parent, seq: child },
            }
        });
        Ok(rows.collect())
    }

    /// Those of these events, a JSON list of ids, that others relate to: by a relation of one of these types and from one of
    /// these senders, JSON lists both.
    pub async fn related_by(
        &self,
        room: i64,
        parents: String,
        shown: &Shown,
        rel_types: Option<String>,
        senders: Option<String>,
    ) -> Result<HashSet<String>, Error> {
        let (any_sender, senders) = (senders.is_none(), senders.unwrap_or_default());
        let rows: Vec<(String,)> = match rel_types {
            Some(rel_types) => {
                self.all(statement!(
                    concat!(
                        "SELECT p.value FROM json_each($2) p WHERE EXISTS (
                             SELECT 1 FROM json_each($7) t CROSS JOIN relation r
                             WHERE r.room = $1 AND r.parent = p.value AND r.rel_type = t.value
                               AND ($8 OR r.sender IN (SELECT value FROM json_each($9))) AND ",
                        shown!("r"),
                        ")"
                    ),
                    room,
                    parents,
                    shown.first,
                    shown.last,
                    &shown.parts,
                    &shown.ignored,
                    rel_types,
                    any_sender,
                    senders,
                ))
                .await?
            }
            None => {
                self.all(statement!(
                    concat!(
                        "SELECT p.value FROM json_each($2) p WHERE EXISTS (
                             SELECT 1 FROM relation r WHERE r.room = $1 AND r.parent = p.value
                               AND ($7 OR r.sender IN (SELECT value FROM json_each($8))) AND ",
                        shown!("r"),
                        ")"
                    ),
                    room,
                    parents,
                    shown.first,
                    shown.last,
                    &shown.parts,
                    &shown.ignored,
                    any_sender,
                    senders,
                ))
                .await?
            }
        };
        Ok(rows.into_iter().map(|(parent,)| parent).collect())
    }

    /// The threads with these roots, a JSON list of event ids, in no order.
    pub async fn threads_of(&self, room: i64, roots: String, reader: &str) -> Result<Vec<ThreadRow>, Error> {
        let rows: Vec<(String, i64, i64, i64, bool)> = self
            .all(statement!(
                "SELECT t.root, t.oldest, t.latest, t.replies, EXISTS (
                     SELECT 1 FROM relation r WHERE r.room = $1 AND r.parent = t.root
                     AND r.rel_type = 'm.thread' AND r.sender = $3
                 ) FROM json_each($2) p CROSS JOIN thread t WHERE t.room = $1 AND t.root = p.value",
                room,
                roots,
                reader,
            ))
            .await?;
        Ok(rows.into_iter().map(ThreadRow::from).collect())
    }

    /// What somebody sees of the threads with these roots, a JSON list of event ids. Costs all their replies.
    pub async fn threads_shown(
        &self,
        room: i64,
        roots: String,
        shown: &Shown,
        reader: &str,
    ) -> Result<Vec<ThreadRow>, Error> {
        let rows: Vec<(String, i64, i64, i64, bool)> = self
            .all(statement!(
                concat!(
                    "SELECT r.parent, MIN(r.seq), MAX(r.seq), COUNT(*),
                            MAX(CASE WHEN r.sender = $7 THEN 1 ELSE 0 END) = 1
                     FROM json_each($2) p
                     CROSS JOIN relation r
                     WHERE r.room = $1 AND r.parent = p.value AND r.rel_type = 'm.thread' AND ",
                    shown!("r"),
                    " GROUP BY r.parent"
                ),
                room,
                roots,
                shown.first,
                shown.last,
                &shown.parts,
                &shown.ignored,
                reader,
            ))
            .await?;
        Ok(rows.into_iter().map(ThreadRow::from).collect())
    }

    /// The children of an event, each with its sender, in the order of `seq` that is asked for.
    pub async fn children(&self, asked: Children<'_>) -> Result<Vec<(i64, String)>, Error> {
        macro_rules! direct {
            ($order:literal) => {
                concat!(
                    "SELECT seq, sender FROM relation
                     WHERE room = $1 AND parent = $2 AND seq > $3 AND seq <= $4
                       AND ($5 = '' OR rel_type = $5) AND ($6 = '' OR kind = $6) ORDER BY seq ",
                    $order,
                    " LIMIT $7"
                )
            };
        }
        macro_rules! deep {
            ($order:literal) => {
                concat!(
                    "WITH RECURSIVE found (seq, event_id, sender, depth) AS (
                         SELECT seq, event_id, sender, 1 FROM relation
                         WHERE room = $1 AND parent = $2
                           AND ($5 = '' OR rel_type = $5) AND ($6 = '' OR kind = $6)
                         UNION
                         SELECT r.seq, r.event_id, r.sender, f.depth + 1 FROM found f
                         CROSS JOIN relation r
                         WHERE r.room = $1 AND r.parent = f.event_id AND f.depth < $8 AND ($5 = '' OR r.rel_type = $5) AND ($6 = '' OR r.kind = $6)
                     )
                     SELECT DISTINCT seq, sender FROM found WHERE seq > $3 AND seq <= $4 ORDER BY seq ",
                    $order,
                    " LIMIT $7"
                )
            };
        }
        let text = match (asked.depth > 1, asked.forwards) {
            (false, false) => direct!("DESC"),
            (false, true) => direct!("ASC"),
            (true, false) => deep!("DESC"),
            (true, true) => deep!("ASC"),
        };
        let mut question = statement!(
            text,
            asked.room,
            asked.parent,
            asked.after,
            asked.to,
            asked.rel_type.unwrap_or_default(),
            asked.kind.unwrap_or_default(),
            asked.limit,
        );
        if asked.depth > 1 {
            question.args.push(asked.depth.into());
        }
        self.all(question).await
    }

    /// The roots of a room's threads whose latest reply is at `from` or before, each with that, the latest first.
    pub async fn threads(&self, room: i64, from: i64, limit: i64) -> Result<Vec<(String, i64)>, Error> {
        self.all(statement!(
            "SELECT root, latest FROM thread WHERE room = $1 AND latest <= $2 ORDER BY latest DESC LIMIT $3",
            room,
            from,
            limit,
        ))
        .await
    }

    /// As [`Self::threads`], for one who doesn't see all of the room. Passes over each relation that is later.
    pub async fn threads_seen(
        &self,
        room: i64,
        from: i64,
        limit: i64,
        shown: &Shown,
    ) -> Result<Vec<(String, i64)>, Error> {
        self.all(statement!(
            concat!(
                "SELECT r.parent, r.seq FROM relation r
                 WHERE r.room = $1 AND r.seq <= $2 AND r.rel_type = 'm.thread' AND ",
                shown!("r"),
                "  AND NOT EXISTS (
                     SELECT 1 FROM relation l
                     WHERE l.room = $1 AND l.parent = r.parent AND l.rel_type = 'm.thread' AND l.seq > r.seq AND ",
                shown!("l"),
                ") ORDER BY r.seq DESC LIMIT $7"
            ),
            room,
            from,
            shown.first,
            shown.last,
            &shown.parts,
            &shown.ignored,
            limit,
        ))
        .await
    }

    /// The `seq` of somebody's annotations of an event with this key, by events of this type.
    pub async fn annotations(
        &self,
        room: i64,
        parent: &str,
        sender: &str,
        kind: &str,
        key: &str,
    ) -> Result<Vec<i64>, Error> {
        let rows: Vec<(i64,)> = self
            .all(statement!(
                "SELECT seq FROM relation
                 WHERE room = $1 AND parent = $2 AND rel_type = 'm.annotation' AND sender = $3 AND kind = $4
                   AND key = $5",
                room,
                parent,
                sender,
                kind,
                key,
            ))
            .await?;
        Ok(rows.into_iter().map(|(seq,)| seq).collect())
    }

    /// The greatest `seq` of an event of a room that relates to another, 0 without any, and whether there are some
    /// whose parent wasn't there when they came.
    pub async fn relations_extent(&self, room: i64) -> Result<(i64, bool), Error> {
        self.one(statement!(
            "SELECT COALESCE((SELECT MAX(seq) FROM relation WHERE room = $1), 0),
                    EXISTS (SELECT 1 FROM relation WHERE room = $1 AND early)",
            room,
        ))
        .await
    }

    /// The events of a room with these ids, a JSON list, in no order.
    pub async fn events_by_id(&self, room: i64, ids: String) -> Result<Vec<StoredEvent>, Error> {
        self.event_rows(statement!(
            "SELECT room, seq, event_id, pdu, verdict, redacted_by, sender_device, txn_id FROM event
             WHERE event_id IN (SELECT value FROM json_each($2)) AND room = $1",
            room,
            ids,
        ))
        .await
    }
}

/// Keeps a relation.
pub fn relate(row: &RelationRow<'_>) -> Vec<Statement> {
    let mut statements = vec![statement!(
        "INSERT INTO relation (room, parent, seq, event_id, rel_type, kind, sender, ts, key, replaces, early)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        row.room,
        row.parent,
        row.seq,
        row.event_id,
        row.rel_type,
        row.kind,
        row.sender,
        row.ts,
        row.key,
        row.replaces,
        row.early,
    )];
    if row.rel_type == "m.thread" {
        statements.push(statement!(
            "INSERT INTO thread (room, root, oldest, latest, replies) VALUES ($1, $2, $3, $3, 1)
             ON CONFLICT (room, root) DO UPDATE SET
                 oldest = CASE WHEN excluded.oldest < thread.oldest THEN excluded.oldest ELSE thread.oldest END,
                 latest = CASE WHEN excluded.latest > thread.latest THEN excluded.latest ELSE thread.latest END,
                 replies = thread.replies + 1",
            row.room,
            row.parent,
            row.seq,
        ));
    }
    statements
}

/// The child relates to its parent no more.
pub fn unrelate(room: i64, parent: &str, seq: i64, rel_type: &str) -> Vec<Statement> {
    let mut statements = vec![statement!(
        "DELETE FROM relation WHERE room = $1 AND parent = $2 AND seq = $3",
        room,
        parent,
        seq,
    )];
    if rel_type == "m.thread" {
        statements.push(statement!(
            "DELETE FROM thread WHERE room = $1 AND root = $2 AND NOT EXISTS (
                 SELECT 1 FROM relation r WHERE r.room = $1 AND r.parent = $2 AND r.rel_type = 'm.thread')",
            room,
            parent,
        ));
        // Counted anew: it may have been the first, the last, or gone before.
        statements.push(statement!(
            "UPDATE thread SET oldest = now.oldest, latest = now.latest, replies = now.replies
             FROM (SELECT MIN(seq) AS oldest, MAX(seq) AS latest, COUNT(*) AS replies FROM relation
                   WHERE room = $1 AND parent = $2 AND rel_type = 'm.thread') AS now
             WHERE thread.room = $1 AND thread.root = $2",
            room,
            parent,
        ));
    }
    statements
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::alone::open;

    /// A relation to `$0` by `@a:x`.
    fn row<'a>(seq: i64, event_id: &'a str, rel_type: &'a str, ts: i64) -> RelationRow<'a> {
        RelationRow {
            room: 1,
            parent: "$0",
            seq,
            event_id,
            rel_type,
            kind: "m.room.message",
            sender: "@a:x",
            ts,
            key: None,
            replaces: rel_type == "m.replace",
            early: false,
        }
    }

    async fn keep(store: &Store, row: RelationRow<'_>) {
        store.commit(relate(&row)).await.unwrap();
    }

    fn everything() -> Shown {
        Shown { first: i64::MIN, last: i64::MAX, parts: String::new(), ignored: String::new() }
    }

    async fn bundled(store: &Store, shown: &Shown) -> Vec<Bundled> {
        let parents = r#"[["$0","@a:x","m.room.message"]]"#.to_owned();
        store.bundled(1, parents, shown, "@b:x").await.unwrap()
    }

    async fn edit(store: &Store, shown: &Shown) -> Option<i64> {
        let mut found = bundled(store, shown).await.into_iter();
        found.find_map(|row| if let Bundled::Edit { seq, .. } = row { Some(seq) } else { None })
    }

    #[tokio::test]
    async fn rl_07_the_latest_edit_is_that_of_the_latest_time_and_then_of_the_greatest_id() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        assert_eq!(edit(&store, &everything()).await, None);
        // The order of the log is not that of the times.
        for (seq, id, ts, latest) in
            [(1, "$b", 50, 1), (2, "$c", 40, 1), (3, "$a", 50, 1), (4, "$d", 50, 4), (5, "$e", 60, 5)]
        {
            keep(&store, row(seq, id, "m.replace", ts)).await;
            assert_eq!(edit(&store, &everything()).await, Some(latest), "after {seq}");
        }
        // RL-08: by somebody else, of another type, without a new content.
        keep(&store, RelationRow { sender: "@b:x", ..row(6, "$f", "m.replace", 70) }).await;
        keep(&store, RelationRow { kind: "m.other", ..row(7, "$g", "m.replace", 70) }).await;
        keep(&store, RelationRow { replaces: false, ..row(8, "$h", "m.replace", 70) }).await;
        keep(&store, RelationRow { room: 2, ..row(9, "$i", "m.replace", 70) }).await;
        assert_eq!(edit(&store, &everything()).await, Some(5));
        // RL-05
        assert_eq!(edit(&store, &Shown { last: 4, ..everything() }).await, Some(4));
        assert_eq!(edit(&store, &Shown { first: 2, last: 3, ..everything() }).await, Some(3));
        assert_eq!(edit(&store, &Shown { parts: "[[1,1],[3,3]]".to_owned(), ..everything() }).await, Some(1));
        assert_eq!(edit(&store, &Shown { ignored: r#"["@a:x"]"#.to_owned(), ..everything() }).await, None);
    }

    #[tokio::test]
    async fn rl_06_a_thread_is_counted_down_as_it_was_counted_up() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        let thread = async || {
            let found = store.threads_of(1, r#"["$0"]"#.to_owned(), "@b:x").await.unwrap();
            found.first().map(|row| (row.oldest, row.latest, row.replies))
        };
        // One that came late, of history.
        for (seq, expected) in [(3, (3, 3, 1)), (9, (3, 9, 2)), (-4, (-4, 9, 3))] {
            keep(&store, row(seq, &format!("${seq}"), "m.thread", 0)).await;
            assert_eq!(thread().await, Some(expected));
        }
        for (seq, expected) in
            [(9, Some((-4, 3, 2))), (9, Some((-4, 3, 2))), (-4, Some((3, 3, 1))), (3, None)]
        {
            store.commit(unrelate(1, "$0", seq, "m.thread")).await.unwrap();
            assert_eq!(thread().await, expected);
        }
        keep(&store, row(12, "$12", "m.thread", 0)).await;
        assert_eq!(thread().await, Some((12, 12, 1)));
    }

    /// What is counted when a thread grows is what counting its replies gives.
    #[tokio::test]
    async fn rl_10_both_ways_to_count_a_thread_agree() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        for seq in 1..=20 {
            let sender = if seq % 5 == 0 { "@b:x" } else { "@a:x" };
            keep(&store, RelationRow { sender, ..row(seq, &format!("${seq}"), "m.thread", 0) }).await;
            keep(&store, row(100 + seq, &format!("$1{seq}"), "m.annotation", 0)).await;
        }
        store.commit(unrelate(1, "$0", 7, "m.thread")).await.unwrap();
        let roots = || r#"["$0"]"#.to_owned();
        for reader in ["@a:x", "@b:x", "@c:x"] {
            let counted = store.threads_of(1, roots(), reader).await.unwrap();
            assert_eq!(counted, store.threads_shown(1, roots(), &everything(), reader).await.unwrap());
            assert_eq!(counted[0].replies, 19);
            assert_eq!(counted[0].participated, reader != "@c:x");
        }
        let shown = Shown { last: 15, ignored: r#"["@b:x"]"#.to_owned(), ..everything() };
        let part = store.threads_shown(1, roots(), &shown, "@b:x").await.unwrap();
        assert_eq!((part[0].latest, part[0].replies, part[0].participated), (14, 11, false));
        let listed = store.threads(1, i64::MAX, 5).await.unwrap();
        assert_eq!(listed, store.threads_seen(1, i64::MAX, 5, &everything()).await.unwrap());
    }
}
