//! Which rooms an answer is about, and waiting for one that is about any.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use ruma::OwnedUserId;
use tokio::time::Instant;

use super::{
    Form, Sliding,
    body::{Count, RoomBody, SlidingBody},
    connection::{Draft, Held, Sent, told},
    extensions::Extending,
    order::{Order, Reading, rooms_of_space},
    request::{Config, Request},
    room::{Chosen, RoomWish, Told},
};
use crate::{
    account::{IgnoredUsers, InvitePermissions, Session},
    live::{
        body::StateForm,
        changes::{Changes, RoomChanges},
        filter::SyncFilter,
        room::RoomSync,
        syncs::{Error, Place, Wanted},
    },
    queue::{Span, Token, Unread},
};

/// The longest that a request waits, whatever it asks for: proxies cut longer ones.
const LONGEST: Duration = Duration::from_mins(2);

/// Rooms that are read at a time.
const ROOMS_AT_ONCE: usize = 8;

/// With more new rooms than this in an answer, what can be is asked of all at once.
const FEW: usize = 8;

/// More rooms than this are read and dropped: they would push those out of memory that are in use.
const MANY: usize = 128;

/// Events that the timelines of new rooms may have in one answer together. The rooms beyond come with the next answer.
const EVENTS: usize = 20_000;

/// A request at work.
struct Asked<'a> {
    session: &'a Session,
    request: &'a Request,
    held: &'a Held,
    /// The connection begins.
    first: bool,
    ignored: IgnoredUsers,
    invites: InvitePermissions,
}

/// What was found for a request so far.
struct Found {
    body: SlidingBody,
    /// Whether there is anything in it that a client waits for.
    news: bool,
}

impl Sliding {
    /// The answer to one request, at the latest when its time is up.
    pub async fn sync(&self, session: Session, request: Request) -> Result<Bytes, Error> {
        let held = match &request.pos {
            None => self.connections.open(session.device, &request.conn_id),
            Some(pos) => self.resume(&session, &request.conn_id, pos)?,
        };
        if let Some(position) = self.connections.position(session.device) {
            self.syncs.queues.present(session.device, position);
        }
        let mail = self.acknowledged(&session, &request).await;
        let first = request.pos.is_none();
        let wait = if first { Duration::ZERO } else { request.timeout.min(LONGEST) };
        let deadline = Instant::now() + wait;
        let tail = self.syncs.queues.tail(session.recipient);
        let mut draft = Draft { mail, ..Draft::of(&held.known) };
        let mut looked = false;
        loop {
            let (woken, replaced) = (tail.woken(), held.connection.replaced.notified());
            // At first too: nobody woke a request that wasn't waiting yet when its session ended.
            Box::pin(self.syncs.sessions.still(&session)).await?;
            let over = || Instant::now() >= deadline || self.syncs.shutdown.is_set() || !held.is_current();
            if !looked || tail.has_news(draft.place.position, draft.place.fading) || over() {
                // Boxed: what a waiting request keeps is small, however much its answer needs while it is made.
                let found = Box::pin(self.look(&session, &request, &held, first, &mut draft)).await?;
                looked = true;
                if found.news || over() {
                    return self.finish(&request, &held, draft, found.body);
                }
            }
            tokio::select! {
                biased;
                () = woken => {}
                () = replaced => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    /// Takes the word of a request for which messages to the device it has. Returns their last position.
    async fn acknowledged(&self, session: &Session, request: &Request) -> i64 {
        let since = request.mail.as_ref().and_then(|wish| wish.since);
        // A place that means nothing here is none.
        let Some(place) = self.syncs.place(since) else { return 0 };
        self.syncs.to_device.acknowledge(session.device, place.mail).await;
        place.mail
    }

    /// The connection that a `pos` belongs to.
    fn resume(&self, session: &Session, conn_id: &str, pos: &str) -> Result<Held, Error> {
        let Ok((Token::Queue { epoch, .. }, Some(number))) = Token::with_answer(pos) else {
            return Err(Error::UnknownPos);
        };
        if epoch != self.syncs.epoch {
            return Err(Error::UnknownPos);
        }
        self.connections.resume(session.device, conn_id, number).ok_or(Error::UnknownPos)
    }

    fn finish(
        &self,
        request: &Request,
        held: &Held,
        draft: Draft,
        mut body: SlidingBody,
    ) -> Result<Bytes, Error> {
        let place = draft.place;
        match self.connections.answer(held, draft) {
            Some(number) => body.pos = format!("{}_{number}", self.syncs.token(place)),
            // Nobody waits for this answer any more; the request that took its place gets one.
            None => {
                body = SlidingBody { pos: request.pos.clone().unwrap_or_default(), ..SlidingBody::default() }
            }
        }
        body.txn_id.clone_from(&request.txn_id);
        Ok(serde_json::to_vec(&body)?.into())
    }

    /// What is new since the draft, which it brings up to now.
    async fn look(
        &self,
        session: &Session,
        request: &Request,
        held: &Held,
        first: bool,
        draft: &mut Draft,
    ) -> Result<Found, Error> {
        let (syncs, recipient, wishes) = (&self.syncs, session.recipient, &request.wishes);
        let orders = self.orders.of(recipient);
        let mut order = orders.lock().await;
        let (from, to) = (draft.place, syncs.now());
        // Read after `to`: lists that are settled for the order as of `to` aren't filtered again until it changes, so a
        // change up to there must be in these.
        let ignored = syncs.accounts.ignored_users(recipient).await?;
        let invites = syncs.accounts.invite_permissions(recipient).await?;
        let asked = Asked { session, request, held, first, ignored, invites };
        order.advance(syncs, session, wishes.lists.values(), to.position).await?;
        // A connection that begins has nothing that could have changed.
        let after = if first { to.position } else { from.position };
        let changes = match syncs.queues.read(recipient, after, to.position).await? {
            Span::Entries(entries) => Changes::of(&entries),
            Span::Trimmed => return Err(Error::UnknownPos),
        };
        let mut typing: HashMap<i64, Vec<OwnedUserId>> = HashMap::new();
        if to.fading > from.fading {
            typing.extend(syncs.typing.heard_by(&session.user_id, from.fading));
        }
        let counts = draft.rest.counts.clone();
        let chosen = self.choose(&asked, &order, &changes, &typing, draft).await?;
        drop(order);
        let mut news = first || counts != draft.rest.counts;

        let by_number: BTreeMap<i64, &Chosen<'_>> =
            chosen.iter().map(|chosen| (chosen.room, chosen)).collect();
        mark_missed(held, draft, &changes, &typing, &|room| by_number.contains_key(&room));
        let mut body = SlidingBody::default();
        for (list, count) in &draft.rest.counts {
            body.lists.insert(list.clone(), Count { count: *count });
        }
        let stale = stale(&asked, &chosen, &changes, draft);
        let (told, left_out) = self.tell(&asked, stale, &changes, draft, (from, to)).await?;
        if left_out {
            draft.rest.settled = None;
        }
        let mut shown: HashMap<i64, Vec<ruma::OwnedEventId>> = HashMap::new();
        let mut expanded: HashMap<i64, Vec<ruma::OwnedEventId>> = HashMap::new();
        for (room, told) in told {
            if told.body.as_ref().is_some_and(|body| body.initial) {
                shown.insert(room, told.events);
            } else if told.body.as_ref().is_some_and(RoomBody::is_expanded) {
                expanded.insert(room, told.events);
            }
            if let (Some(told), Some(chosen)) = (told.body, by_number.get(&room)) {
                news = true;
                body.rooms.insert(chosen.room_id.clone(), told);
            }
            draft.rooms.insert(room, told.sent);
        }
        let extending = Extending {
            syncs,
            session,
            form: request.form,
            wishes: &wishes.extensions,
            mail: request.mail.as_ref(),
            known: &held.known,
            changes: &changes,
            typing,
            ignored: &asked.ignored,
            chosen: &chosen,
            rooms: &body.rooms,
            shown,
            expanded,
            span: (from.position, to.position),
            to,
        };
        news |= extending.add_to(&mut body.extensions, draft).await?;
        draft.place = to;
        Ok(Found { body, news })
    }

    /// The rooms of the lists' windows and of the subscriptions: all of them, or if the client has them all as they were,
    /// those of which the queue speaks.
    async fn choose<'a>(
        &self,
        asked: &Asked<'a>,
        order: &Order,
        changes: &Changes,
        typing: &HashMap<i64, Vec<OwnedUserId>>,
        draft: &mut Draft,
    ) -> Result<Vec<Chosen<'a>>, Error> {
        let wishes = &asked.request.wishes;
        let mut spaces = BTreeMap::new();
        for list in wishes.lists.values() {
            for space in list.filters.spaces.iter().flatten() {
                if let Some(number) = order.number(space)
                    && !spaces.contains_key(space)
                {
                    let rooms = rooms_of_space(&self.syncs, &asked.session.user_id, number).await?;
                    spaces.insert(space.clone(), rooms);
                }
            }
        }
        let by_spaces = wishes.lists.values().any(|list| list.filters.spaces.is_some());
        let rest = &mut draft.rest;
        if asked.first || *rest.wishes != *wishes {
            (rest.counted, rest.settled) = (None, None);
            rest.counts = BTreeMap::new();
            rest.wishes = Arc::new(wishes.clone());
        }
        let rooms = &draft.rooms;
        let sent = |room: i64| rooms.get(&room).or_else(|| asked.held.known.rooms.get(&room));
        let (has, is_in) = (|room| sent(room).is_some(), |room| sent(room).is_some_and(|sent| sent.joined));
        let (ignored, invites) = (&asked.ignored, &asked.invites);
        let reading = Reading { ignored, invites, has: &has, is_in: &is_in, spaces };
        let version = Some(order.version()).filter(|_| !by_spaces);

        let mut found: BTreeMap<i64, Vec<&'a str>> = BTreeMap::new();
        if version.is_some() && rest.settled == version {
            for room in changes.rooms.keys().chain(typing.keys()) {
                let lists =
                    wishes.lists.iter().filter(|(_, list)| order.holds(&list.filters, *room, &reading));
                let lists: Vec<&str> = lists.map(|(name, _)| &**name).collect();
                let subscribed = || {
                    order.get(*room).is_some_and(|listed| wishes.subscriptions.contains_key(&listed.room_id))
                };
                if !lists.is_empty() || subscribed() {
                    found.insert(*room, lists);
                }
            }
        } else {
            let mut all = true;
            for (name, list) in &wishes.lists {
                let counted =
                    rest.counts.get(name).copied().filter(|_| version.is_some() && rest.counted == version);
                let (window, count) = order.window(list, &reading, counted);
                all &= list.shows_all(count);
                rest.counts.insert(name.clone(), count);
                for room in window {
                    found.entry(room).or_default().push(name);
                }
            }
            let subscribed = wishes.subscriptions.keys().filter_map(|room_id| order.number(room_id));
            for room in subscribed {
                found.entry(room).or_default();
            }
            rest.counted = version;
            rest.settled = version.filter(|_| all);
        }
        // Rooms of the same lists are asked the same; a subscription is a room's own.
        let mut configs: HashMap<Vec<&str>, Arc<Config>> = HashMap::new();
        let joined = |lists: &[&str], subscription: Option<&Config>| {
            let mut config = subscription.cloned().unwrap_or_default();
            lists
                .iter()
                .filter_map(|list| wishes.lists.get(*list))
                .for_each(|list| config.join(&list.config));
            asked.held.intern(config)
        };
        let chosen = found.into_iter().filter_map(|(room, lists)| {
            let listed = order.get(room)?;
            let subscription = wishes.subscriptions.get(&listed.room_id);
            let config = match (subscription, configs.get(&lists)) {
                (Some(_), _) => joined(&lists, subscription),
                (None, Some(config)) => Arc::clone(config),
                (None, None) => {
                    Arc::clone(configs.entry(lists.clone()).or_insert_with(|| joined(&lists, None)))
                }
            };
            Some(Chosen {
                room,
                room_id: listed.room_id.clone(),
                config,
                lists,
                subscribed: subscription.is_some(),
                dm: order.is_direct(&listed.room_id),
                last: listed.last,
            })
        });
        Ok(chosen.collect())
    }

    /// What is new in these rooms, and whether some of them were left out.
    async fn tell<'a>(
        &self,
        asked: &'a Asked<'a>,
        mut stale: Vec<&'a Chosen<'a>>,
        changes: &Changes,
        draft: &'a Draft,
        (from, to): (Place, Place),
    ) -> Result<(Vec<(i64, Told)>, bool), Error> {
        let recipient = asked.session.recipient;
        let sent = |room: i64| draft.rooms.get(&room).or_else(|| asked.held.known.rooms.get(&room));
        stale.sort_unstable_by_key(|chosen| Reverse(chosen.last));
        let all = stale.len();
        let mut events = EVENTS;
        stale.retain(|chosen| {
            let cost = if sent(chosen.room).is_none() { chosen.config.timeline_limit.max(1) } else { 0 };
            let fits = cost <= events;
            events = events.saturating_sub(cost);
            fits
        });
        let left_out = stale.len() < all;
        let new = stale.iter().filter(|chosen| sent(chosen.room).is_none()).count();
        let mut counts: Option<HashMap<i64, Unread>> = None;
        if new > FEW && asked.request.form == Form::Early {
            counts = Some(self.syncs.store.unread_of_rooms(recipient).await?);
        }
        let mut wanted: HashMap<usize, Wanted> = HashMap::new();
        for chosen in &stale {
            let limit = chosen.config.timeline_limit;
            wanted.entry(limit).or_insert_with(|| Wanted {
                filter: Arc::new(SyncFilter::of_timeline(limit)),
                full_state: false,
                state: StateForm::After,
            });
        }
        let many = stale.len() > MANY;
        let mut questions = Vec::with_capacity(stale.len());
        for chosen in stale {
            let sent = sent(chosen.room);
            let counts = counts.as_mut().map(|counts| counts.remove(&chosen.room).unwrap_or_default());
            questions.push(self.tell_one(One {
                asked,
                chosen,
                sent,
                changes: changes.rooms.get(&chosen.room).cloned().unwrap_or_default(),
                counts: counts.filter(|_| sent.is_none()),
                // It was made for each limit above.
                wanted: &wanted[&chosen.config.timeline_limit],
                span: (from.position, to.position),
                once: many,
            }));
        }
        let mut answers = stream::iter(questions).buffer_unordered(ROOMS_AT_ONCE);
        let mut all = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer {
                Ok((room, Some(told))) => all.push((room, told)),
                Ok((_, None)) => {}
                // I7: one room that can't be read doesn't take the others away.
                Err(Error::Room(cause @ crate::room::Error::Damaged { .. })) => {
                    tracing::error!(%cause, "a room is left out of an answer");
                }
                Err(cause) => return Err(cause),
            }
        }
        Ok((all, left_out))
    }

    async fn tell_one(&self, one: One<'_>) -> Result<(i64, Option<Told>), Error> {
        let One { asked, chosen, sent, .. } = one;
        let rooms = &self.syncs.rooms;
        let room = if one.once {
            rooms.by_number_once(chosen.room).await?
        } else {
            rooms.by_number(chosen.room).await?
        };
        let sync = RoomSync {
            syncs: &self.syncs,
            session: asked.session,
            wanted: one.wanted,
            room,
            changes: one.changes,
            whole: sent.is_none(),
            since: sent.is_some(),
            span: one.span,
            typing: None,
            counts: one.counts,
            ignored: &asked.ignored,
            invites: &asked.invites,
        };
        let key = asked.held.connection.key;
        let (form, first) = (asked.request.form, asked.first);
        let told = RoomWish { sliding: self, key, form, chosen, sent, first, sync }.tell().await?;
        Ok((chosen.room, told))
    }
}

/// What is asked of one room.
struct One<'a> {
    asked: &'a Asked<'a>,
    chosen: &'a Chosen<'a>,
    sent: Option<&'a Sent>,
    changes: RoomChanges,
    counts: Option<Unread>,
    wanted: &'a Wanted,
    span: (i64, i64),
    /// The room is read and dropped.
    once: bool,
}

/// The rooms of which something may be new.
fn stale<'a>(
    asked: &Asked<'_>,
    chosen: &'a [Chosen<'a>],
    changes: &Changes,
    draft: &Draft,
) -> Vec<&'a Chosen<'a>> {
    let is_stale = |chosen: &&Chosen<'_>| {
        let sent = draft.rooms.get(&chosen.room).or_else(|| asked.held.known.rooms.get(&chosen.room));
        sent.is_none_or(|sent| {
            sent.told & told::EVENTS == 0
                || !Arc::ptr_eq(&sent.config, &chosen.config)
                || sent.dm != chosen.dm
                || changes.rooms.contains_key(&chosen.room)
        })
    };
    chosen.iter().filter(is_stale).collect()
}

/// Notes of rooms that the client has but isn't told of now that it misses something.
fn mark_missed(
    held: &Held,
    draft: &mut Draft,
    changes: &Changes,
    typing: &HashMap<i64, Vec<OwnedUserId>>,
    is_chosen: &dyn Fn(i64) -> bool,
) {
    let mut miss = |room: i64, bits: u8| {
        if is_chosen(room) || bits == 0 {
            return;
        }
        let sent: Option<&Sent> = draft.rooms.get(&room).or_else(|| held.known.rooms.get(&room));
        if let Some(sent) = sent.filter(|sent| sent.told & bits != 0) {
            let missing = Sent { told: sent.told & !bits, ..sent.clone() };
            draft.rooms.insert(room, missing);
        }
    };
    for (room, changes) in &changes.rooms {
        let bits = [
            (!changes.seqs.is_empty() || changes.unread, told::EVENTS),
            (!changes.account_data.is_empty(), told::ACCOUNT_DATA),
            (!changes.receipts.is_empty(), told::RECEIPTS),
        ];
        miss(*room, bits.into_iter().filter(|(changed, _)| *changed).map(|(_, bit)| bit).sum());
    }
    for room in typing.keys() {
        miss(*room, told::TYPING);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{
        account,
        live::{
            brief_tests::{log_in, syncs_of},
            sliding::Wishes,
        },
        room::tests::World,
    };

    #[tokio::test]
    async fn a_session_that_ends_before_its_request_waits_is_told_so() {
        let world = World::new(&[]).await;
        let session = log_in(&world, "alice").await;
        let sliding = Sliding::new(syncs_of(&world));
        let request =
            |pos| Request { timeout: Duration::from_secs(1), ..Request::new(Wishes::default(), pos) };
        let first = sliding.sync(session.clone(), request(None)).await.unwrap();
        let first: Value = serde_json::from_slice(&first).unwrap();
        world.accounts.logout(&session).await.unwrap();
        let answer = sliding.sync(session, request(first["pos"].as_str())).await;
        assert!(matches!(answer, Err(Error::Account(account::Error::UnknownToken { .. }))), "{answer:?}");
    }
}
