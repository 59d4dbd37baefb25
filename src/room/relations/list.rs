//! Lists of what relates to an event, and of the threads of a room.

use std::sync::Arc;

use ruma::{EventId, UserId};

use super::bundle::{Scope, list};
use crate::{
    room::{Direction, Error, Event, Reader, Room, Rooms, Sight},
    store::relation::{Children, Shown, ThreadRow},
};

/// RL-13: the levels of relations that are followed.
pub const RECURSION: i64 = 3;

/// The most rows that one request looks at for each that it may give, and the fewest that it looks at.
const SCAN: usize = 10;
const STRIDE: usize = 100;

/// Which relations to an event are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Listing<'a> {
    pub parent: &'a EventId,
    pub rel_type: Option<&'a str>,
    pub kind: Option<&'a str>,
    /// What relates to those that are found is asked for too.
    pub recurse: bool,
    pub direction: Direction,
    /// Places in the log: to begin at and to stop at.
    pub from: Option<i64>,
    pub to: Option<i64>,
    pub limit: usize,
}

/// A page of them.
#[derive(Debug)]
pub struct Relations {
    /// In the direction asked for.
    pub events: Vec<Arc<Event>>,
    /// The place to go on at, if there may be more.
    pub next: Option<i64>,
}

/// A page of a room's threads.
#[derive(Debug)]
pub struct Threads {
    /// Their roots, the one with the latest reply first.
    pub roots: Vec<Arc<Event>>,
    /// The place to go on at, if there may be more.
    pub next: Option<i64>,
}

impl Rooms {
    /// RL-13: the events that relate to one that `sight` shows, as far as it shows them.
    pub async fn relations(
        &self,
        room: &Room,
        sight: &Sight,
        reader: Reader<'_>,
        listing: Listing<'_>,
    ) -> Result<Relations, Error> {
        self.visible_event(room, sight, listing.parent).await?;
        let ignored = self.core.accounts.ignored_users(reader.recipient).await?;
        let forwards = listing.direction == Direction::Forwards;
        let limit = listing.limit.max(1);
        let (mut after, mut to) = if forwards {
            (listing.from.unwrap_or(i64::MIN), listing.to.unwrap_or(i64::MAX))
        } else {
            (listing.to.unwrap_or(i64::MIN), listing.from.unwrap_or(i64::MAX))
        };
        let mut budget = SCAN * limit.max(STRIDE);
        let mut seqs: Vec<i64> = Vec::new();
        let mut more = true;
        while more && seqs.len() < limit && budget > 0 {
            let wanted = (limit - seqs.len()).max(STRIDE);
            let rows = self.core.store.children(Children {
                room: room.number,
                parent: listing.parent.as_str(),
                rel_type: listing.rel_type,
                kind: listing.kind,
                depth: if listing.recurse { RECURSION } else { 1 },
                after,
                to,
                forwards,
                limit: wanted as i64 + 1,
            });
            let rows = rows.await?;
            more = rows.len() > wanted;
            let rows: Vec<(i64, String)> = rows.into_iter().take(wanted).collect();
            budget = budget.saturating_sub(rows.len());
            for (at, (seq, sender)) in rows.iter().enumerate() {
                if forwards {
                    after = *seq;
                } else {
                    to = *seq - 1;
                }
                // RL-05
                let ignored = <&UserId>::try_from(sender.as_str()).is_ok_and(|user| ignored.contains(user));
                if sight.may_see(*seq) && !ignored {
                    seqs.push(*seq);
                    if seqs.len() == limit {
                        more |= at + 1 < rows.len();
                        break;
                    }
                }
            }
        }
        let mut events = self.core.events(room.number, &room.version, &seqs).await?;
        // What was redacted since it was found relates to nothing any more.
        events.retain(|event| event.is_visible() && event.relation().is_some());
        Ok(Relations { events, next: more.then_some(if forwards { after } else { to }) })
    }

    /// RL-14: the threads of a room, as far as `sight` shows them. Roots that the reader ignores come redacted.
    pub async fn threads(
        &self,
        room: &Room,
        sight: &Sight,
        reader: Reader<'_>,
        participated: bool,
        from: Option<i64>,
        limit: usize,
    ) -> Result<Threads, Error> {
        let ignored = self.core.accounts.ignored_users(reader.recipient).await?;
        let scope = Scope::Sight(sight);
        let shown = scope.shown(&ignored)?;
        let limit = limit.max(1);
        let mut from = from.unwrap_or(i64::MAX);
        let mut budget = SCAN * limit.max(STRIDE);
        let mut roots = Vec::new();
        let mut more = true;
        while more && roots.len() < limit && budget > 0 {
            let wanted = limit.max(STRIDE);
            let rows = self.thread_rows(room, &shown, from, wanted as i64 + 1).await?;
            more = rows.len() > wanted;
            let rows: Vec<(String, i64)> = rows.into_iter().take(wanted).collect();
            budget = budget.saturating_sub(rows.len());
            let ids: Vec<&str> = rows.iter().map(|(root, _)| root.as_str()).collect();
            let events = self.core.events_by_id(room, &ids).await?;
            let threads =
                self.core.store.threads_of(room.number, list(&ids)?, reader.user_id.as_str()).await?;
            let threads = self.core.threads(room, reader, scope, &ignored, &shown, threads).await?;
            for (at, (id, latest)) in rows.iter().enumerate() {
                from = *latest - 1;
                let thread = threads.iter().find(|thread| thread.root == *id);
                let (Some(thread), Some(root)) = (thread, events.get(id.as_str())) else { continue };
                if !is_root(root, sight) || (participated && !took_part(thread, root, reader.user_id)) {
                    continue;
                }
                let root = if ignored.contains(&root.pdu.sender) && root.redacted_by.is_none() {
                    Arc::new(root.hidden(&room.version)?)
                } else {
                    Arc::clone(root)
                };
                roots.push(root);
                if roots.len() == limit {
                    more |= at + 1 < rows.len();
                    break;
                }
            }
        }
        Ok(Threads { roots, next: more.then_some(from) })
    }

    /// The roots of threads and their latest replies, as far as they are shown.
    async fn thread_rows(
        &self,
        room: &Room,
        shown: &Shown,
        from: i64,
        limit: i64,
    ) -> Result<Vec<(String, i64)>, Error> {
        let store = &self.core.store;
        let sees_all = shown.ignored.is_empty() && shown.parts.is_empty() && shown.first <= 1;
        // What one may not see doesn't even show in the order.
        Ok(if sees_all && shown.last >= room.snapshot().last_seq {
            store.threads(room.number, from, limit).await?
        } else {
            store.threads_seen(room.number, from, limit, shown).await?
        })
    }
}

/// Nothing that relates to another begins a thread.
fn is_root(event: &Event, sight: &Sight) -> bool {
    event.is_visible() && sight.may_see(event.seq) && event.relation().is_none()
}

fn took_part(thread: &ThreadRow, root: &Event, reader: &UserId) -> bool {
    thread.participated || root.pdu.sender == reader
}
