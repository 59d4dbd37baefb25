//! Receipts of users of other servers: kept, and told to the members here. They clear nobody's notifications.

use std::collections::HashMap;

use ruma::{OwnedEventId, OwnedUserId};

use super::{Receipts, Thread, found};
use crate::{
    queue::{self, Kind as Entry},
    room::{Error, Room},
    store::{
        Batch,
        receipt::{ReceiptKey, set_receipt},
    },
};

/// A public receipt (`m.read`), as its user's server told it.
#[derive(Clone, Debug)]
pub struct Heard {
    pub user_id: OwnedUserId,
    /// The furthest of them counts.
    pub event_ids: Vec<OwnedEventId>,
    pub thread: Thread,
    /// When it was given, by that server.
    pub ts: i64,
}

impl Receipts {
    /// Takes receipts of members of a room who are of other servers. Those of others, of events that aren't here, and those
    /// that aren't ahead of what is there change nothing.
    pub async fn hear(&self, room: &Room, heard: Vec<Heard>) -> Result<(), Error> {
        let members = room.snapshot();
        let now = self.environment.clock.now_ms();
        let mut batch = Batch::new();
        // Many have read up to the same event.
        let mut seqs: HashMap<OwnedEventId, Option<i64>> = HashMap::new();
        for receipt in heard.into_iter().filter(|receipt| members.is_joined(&receipt.user_id)) {
            let mut furthest: Option<(i64, OwnedEventId)> = None;
            for event_id in receipt.event_ids {
                let seq = if let Some(seq) = seqs.get(&event_id) {
                    *seq
                } else {
                    let event = found(self.rooms.event(room, &event_id).await)?;
                    let seq = event.filter(|event| event.is_visible() && !event.is_outlier());
                    *seqs.entry(event_id.clone()).or_insert(seq.map(|event| event.seq))
                };
                let ahead = seq.filter(|seq| furthest.as_ref().is_none_or(|(before, _)| before < seq));
                furthest = ahead.map(|seq| (seq, event_id)).or(furthest);
            }
            let Some((seq, event_id)) = furthest else { continue };
            let key = ReceiptKey {
                room: room.number,
                user_id: receipt.user_id.as_str(),
                kind: "m.read",
                thread: receipt.thread.name(),
            };
            if self.store.receipt_seq(key).await?.is_some_and(|before| before >= seq) {
                continue;
            }
            let step = batch.step();
            batch.push(set_receipt(key, event_id.as_str(), seq, receipt.ts.clamp(0, now), step));
            let recipients: Vec<i64> = members.local.iter().map(|member| member.recipient).collect();
            batch.deliver(queue::pointer(recipients, step, Entry::Receipt, room.number));
        }
        if !batch.is_empty() {
            self.store.commit(batch).await?;
        }
        Ok(())
    }
}
