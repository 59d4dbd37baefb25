//! From the deliveries of a commit to the queues of their recipients.
//!
//! A queue lies together on disk, so that its reader scans it from front to back. To put each entry there at once would
//! make a message to ten people touch twenty pages. Instead a commit writes one row for all recipients of a step, which
//! is as durable, and now and then the writer moves what has gathered into the tables `queue` and `unread`, many entries
//! a page. Readers who find their entries in memory never notice; whoever reads the tables has them settled first, or
//! learns from `head.settled` from where on to add what came since.

use std::{collections::HashSet, sync::Arc};

use rusqlite::Connection;

use super::{
    Error,
    batch::Batch,
    entry::{Kind, flags},
};

/// Entries that may wait. More would make the commit that moves them slow.
pub(super) const MOST: usize = 1000;

/// Servers that can't be reached, into whose queues nothing is put. They get what they missed from the room logs.
pub(super) type Behind = Arc<HashSet<i64>>;

pub(super) fn load_behind(connection: &Connection) -> Result<Behind, Error> {
    let mut question = connection.prepare("SELECT recipient FROM destination WHERE behind")?;
    let rows = question.query_map([], |row| row.get(0))?;
    Ok(Arc::new(rows.collect::<Result<_, _>>()?))
}

/// From here on a server's queue is filled, or it is emptied and nothing is put into it.
pub(super) fn fill_queue(
    connection: &Connection,
    recipient: i64,
    filled: bool,
    behind: &mut Behind,
) -> Result<(), Error> {
    connection
        .prepare_cached("UPDATE destination SET behind = ?2 WHERE recipient = ?1")?
        .execute((recipient, !filled))?;
    if filled {
        Arc::make_mut(behind).remove(&recipient);
    } else {
        connection.prepare_cached("DELETE FROM queue WHERE recipient = ?1")?.execute([recipient])?;
        Arc::make_mut(behind).insert(recipient);
    }
    Ok(())
}

/// Writes the deliveries of a batch. Returns the number of entries that now wait because of it.
pub(super) fn insert(
    connection: &Connection,
    batch: &Batch,
    base: i64,
    behind: &Behind,
) -> Result<usize, Error> {
    let mut entries = 0;
    for delivery in &batch.deliveries {
        let reached = |(recipient, _): &&(i64, i64)| *recipient > 0 || !behind.contains(recipient);
        let recipients: Vec<&(i64, i64)> = delivery.recipients.iter().filter(reached).collect();
        if recipients.is_empty() {
            continue;
        }
        let text = "INSERT INTO delivery (position, kind, room, item, thread, recipients)
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        entries += recipients.len();
        let recipients =
            serde_json::to_string(&recipients).map_err(|cause| Error::Encoding(cause.to_string()))?;
        let entry = delivery.entry(base, 0);
        let row = (entry.position, entry.kind as i16, entry.room, entry.item, &delivery.thread, recipients);
        connection.prepare_cached(text)?.execute(row)?;
    }
    Ok(entries)
}

/// Moves all that waits into the tables `queue` and `unread`.
pub(super) fn move_on(connection: &Connection) -> Result<(), Error> {
    connection
        .prepare_cached(
            "INSERT INTO queue (recipient, position, kind, room, item, flags)
             SELECT r.value ->> 0, d.position, d.kind, d.room, d.item, r.value ->> 1
             FROM delivery d, json_each(d.recipients) r ORDER BY 1, 2",
        )?
        .execute([])?;
    // An invitation notifies, but the room isn't the recipient's to read yet.
    connection
        .prepare_cached(
            "INSERT INTO unread (recipient, room, seq, highlight, thread)
             SELECT r.value ->> 0, d.room, d.item, (r.value ->> 1) & ?3 <> 0, d.thread
             FROM delivery d, json_each(d.recipients) r
             WHERE d.kind = ?1 AND (r.value ->> 1) & ?2 <> 0 AND (r.value ->> 1) & ?4 = 0 ORDER BY 1, 2, 3",
        )?
        .execute((Kind::Event as i16, flags::NOTIFY, flags::HIGHLIGHT, flags::OWN_MEMBERSHIP))?;
    connection
        .prepare_cached(
            "UPDATE head SET settled = COALESCE((SELECT MAX(position) FROM delivery), settled) WHERE id = 1",
        )?
        .execute([])?;
    connection.prepare_cached("DELETE FROM delivery")?.execute([])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use super::*;
    use crate::store::{Delivered, Delivery, Durability, Item, Store, Subscriber};

    struct Nobody;

    impl Subscriber for Nobody {
        fn committed(&self, _: i64, _: &[Delivered]) {}
    }

    async fn open(dir: &Path) -> Store {
        let path = dir.join("hearth.db");
        Store::open(&path, Durability::Full, Arc::new(Nobody)).await.unwrap().0
    }

    fn message(seq: i64, recipients: Vec<(i64, i64)>) -> Batch {
        let mut batch = Batch::new();
        let step = batch.step();
        let (kind, item, thread) = (Kind::Event, Item::Value(seq), String::new());
        batch.deliver(Delivery { step, kind, room: 5, item, thread, recipients });
        batch
    }

    #[tokio::test]
    async fn whoever_reads_a_queue_finds_all_that_was_committed_before() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        for seq in 1..=3000 {
            store.commit(message(seq, vec![(1, 0), (2, flags::STATE)])).await.unwrap();
            if seq % 700 == 0 {
                let queue = store.queue(2, 0, i64::MAX).await.unwrap();
                let items: Vec<i64> = queue.iter().map(|entry| entry.item).collect();
                assert_eq!(items, (1..=seq).collect::<Vec<_>>());
                assert!(queue.iter().all(|entry| entry.flags == flags::STATE));
            }
        }
    }

    #[tokio::test]
    async fn unread_counts_have_what_notifies_and_is_the_recipients_to_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        let invite = flags::NOTIFY | flags::OWN_MEMBERSHIP;
        for (seq, flags) in [(1, invite), (2, 0), (3, flags::NOTIFY), (4, flags::NOTIFY | flags::HIGHLIGHT)] {
            store.commit(message(seq, vec![(1, flags)])).await.unwrap();
        }
        store.settled().await.unwrap();
        let (counts, position) = store.unread(1, 5).await.unwrap();
        let main = counts.total();
        assert_eq!((main.notifications, main.highlights, position), (2, 1, 4));
    }

    #[tokio::test]
    async fn what_a_run_has_left_is_there_in_the_next() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).await.commit(message(1, vec![(1, 0)])).await.unwrap();
        let store = open(dir.path()).await;
        store.commit(message(2, vec![(1, 0)])).await.unwrap();
        let queue = store.queue(1, 0, i64::MAX).await.unwrap();
        assert_eq!(queue.iter().map(|entry| entry.position).collect::<Vec<_>>(), [1, 2]);
    }
}
