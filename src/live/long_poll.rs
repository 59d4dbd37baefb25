//! `/sync`: reading a user's queue from a token on, and waiting for its next entry.
//!
//! A waiting request holds no room, no transaction and no database connection: it waits on the end of one queue.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use lru::LruCache;
use parking_lot::Mutex;
use ruma::OwnedUserId;
use serde_json::{json, value::RawValue};

use super::{
    body::{RoomsBody, StateForm, SyncBody},
    changes::{Changes, RoomChanges},
    filter::SyncFilter,
    initial::InitialSyncs,
    lazy::LazyMembers,
    room::RoomSync,
};
use crate::{
    account::{self, Accounts, Session, Sessions},
    queue::{Queues, Span, Token, TokenError, Unread},
    room::{Room, Rooms},
    shutdown::Shutdown,
    store::{Store, account_data::AccountDataRow},
    typing::Typing,
};

/// The longest that a request waits, whatever it asks for: proxies cut longer ones.
const LONGEST: Duration = Duration::from_mins(2);

const PUSH_RULES: &str = "m.push_rules";

/// Rooms of a first answer that are read at a time: more than the connections to the database, so that none waits.
const ROOMS_AT_ONCE: usize = 8;

/// Stored filters kept in memory.
const FILTERS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Account(#[from] account::Error),
    #[error(transparent)]
    Room(#[from] crate::room::Error),
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    #[error("an answer can't be written: {0}")]
    Encoding(#[from] serde_json::Error),
    /// The task that worked for this request is gone.
    #[error("the answer got lost")]
    Gone,
    #[error(transparent)]
    Shared(Arc<Error>),
}

/// What `/sync` was asked.
pub struct Request {
    pub since: Option<Token>,
    pub filter: Arc<SyncFilter>,
    pub timeout: Duration,
    pub full_state: bool,
    pub state: StateForm,
}

impl Request {
    fn key(&self) -> String {
        format!("{:?} {} {}", self.state, self.full_state, self.filter.key())
    }
}

/// A place from which a queue is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    position: i64,
    fading: u64,
}

/// Answers `/sync`.
pub struct Syncs {
    pub(super) store: Store,
    pub(super) rooms: Arc<Rooms>,
    pub(super) lazy: LazyMembers,
    accounts: Arc<Accounts>,
    sessions: Sessions,
    queues: Queues,
    pub(super) typing: Arc<Typing>,
    initial: InitialSyncs,
    /// Stored filters never change.
    filters: Mutex<LruCache<(i64, String), Arc<SyncFilter>>>,
    epoch: u64,
    shutdown: Shutdown,
}

impl Syncs {
    #[expect(clippy::too_many_arguments, reason = "put together once, at the start")]
    pub fn new(
        store: Store,
        rooms: Arc<Rooms>,
        accounts: Arc<Accounts>,
        sessions: Sessions,
        queues: Queues,
        typing: Arc<Typing>,
        epoch: u64,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            store,
            rooms,
            lazy: LazyMembers::new(),
            accounts,
            sessions,
            queues,
            typing,
            initial: InitialSyncs::default(),
            filters: Mutex::new(LruCache::new(FILTERS)),
            epoch,
            shutdown,
        }
    }

    /// A filter that the user has stored.
    pub async fn stored_filter(&self, recipient: i64, id: String) -> Result<Arc<SyncFilter>, Error> {
        let key = (recipient, id);
        if let Some(filter) = self.filters.lock().get(&key) {
            return Ok(Arc::clone(filter));
        }
        // FI-01: an id never begins with a brace.
        if key.1.starts_with('{') {
            return Err(account::Error::Invalid("`filter` is not the JSON of a filter".to_owned()).into());
        }
        let definition = self.accounts.filter(recipient, &key.1).await.map_err(|cause| match cause {
            account::Error::NotFound(_) => {
                account::Error::Invalid("`filter`: there is no such filter".to_owned())
            }
            cause => cause,
        })?;
        let filter = Arc::new(SyncFilter::new(serde_json::from_str(&definition)?));
        self.filters.lock().put(key, Arc::clone(&filter));
        Ok(filter)
    }

    /// The answer to one request, at the latest when its time is up.
    pub async fn sync(self: &Arc<Self>, session: Session, request: Request) -> Result<Bytes, Error> {
        let Some(place) = self.place(request.since) else {
            let syncs = Arc::clone(self);
            let key = (session.device, request.key());
            let make = move || async move { syncs.first(&session, &request).await };
            return Box::pin(self.initial.answer(key, make)).await.map_err(Error::Shared);
        };
        self.queues.present(session.device, place.position);
        self.next(session, request, place).await
    }

    /// Where a token points. `None`, a full answer, for no token and for those that mean nothing here: of another
    /// epoch, or of a future that this database hasn't seen.
    fn place(&self, since: Option<Token>) -> Option<Place> {
        match since? {
            Token::Queue { epoch, position, boot, fading } => {
                let known = epoch == self.epoch && position <= self.queues.head();
                let fading = if boot == self.queues.tails().boot() { fading } else { 0 };
                known.then_some(Place { position, fading })
            }
            Token::Room { .. } => None,
        }
    }

    fn token(&self, place: Place) -> String {
        let boot = self.queues.tails().boot();
        let (position, fading) = (place.position, place.fading);
        Token::Queue { epoch: self.epoch, position, boot, fading }.to_string()
    }

    /// The token of somebody who knows everything up to now.
    pub fn token_of_now(&self) -> String {
        self.token(self.now())
    }

    async fn first(&self, session: &Session, request: &Request) -> Result<Bytes, Error> {
        // From here on the tail is kept, so that the next request finds it.
        let _tail = self.queues.tail(session.recipient);
        let to = self.now();
        let body = self.all(session, request, None, to).await?;
        encode(&body)
    }

    async fn next(&self, session: Session, request: Request, from: Place) -> Result<Bytes, Error> {
        let deadline = Instant::now() + request.timeout.min(LONGEST);
        let tail = self.queues.tail(session.recipient);
        let mut from = from;
        loop {
            let woken = tail.woken();
            let to = self.now();
            // Boxed: what a waiting request keeps is small, however much its answer needs while it is made.
            if request.full_state {
                let body = Box::pin(self.all(&session, &request, Some(from), to)).await?;
                return encode(&body);
            }
            if tail.has_news(from.position, from.fading) {
                let body = Box::pin(self.changes(&session, &request, from, to)).await?;
                if !body.is_empty() {
                    return encode(&body);
                }
            }
            // Nothing up to here is for this client: it need not be looked at again.
            from = to;
            if Instant::now() >= deadline || self.shutdown.is_set() {
                return encode(&SyncBody { next_batch: self.token(to), ..SyncBody::default() });
            }
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep_until(deadline.into()) => {}
            }
            Box::pin(self.sessions.still(&session)).await?;
        }
    }

    fn now(&self) -> Place {
        // The head is read last: what fades never shows a room that the positions don't know yet.
        let fading = self.queues.tails().fading();
        Place { position: self.queues.head(), fading }
    }

    async fn changes(
        &self,
        session: &Session,
        request: &Request,
        from: Place,
        to: Place,
    ) -> Result<SyncBody, Error> {
        let entries = match self.queues.read(session.recipient, from.position, to.position).await? {
            Span::Entries(entries) => entries,
            // The room logs know what the queue has forgotten; every room is new to such a device.
            Span::Trimmed => return Box::pin(self.all(session, request, Some(from), to)).await,
        };
        let mut changes = Changes::of(&entries);
        let mut body = SyncBody { next_batch: self.token(to), ..SyncBody::default() };
        if !changes.account_data.is_empty() {
            let rows = self.store.account_data_changed(session.recipient, &changes.account_data).await?;
            let rows = self.with_push_rules(session, rows).await?;
            body.account_data = account_data_events(rows, |kind| request.filter.account_data(kind))?.into();
        }
        let mut typing = HashMap::new();
        if to.fading > from.fading {
            for (number, users) in self.typing.heard_by(&session.user_id, from.fading) {
                changes.rooms.entry(number).or_default();
                typing.insert(number, users);
            }
        }
        let ignored = self.accounts.ignored_users(session.recipient).await?;
        let invites = self.accounts.invite_permissions(session.recipient).await?;
        for (number, changes) in changes.rooms {
            let room = self.rooms.by_number(number).await?;
            if !request.filter.room(&room.room_id) {
                continue;
            }
            let typing = typing.remove(&number);
            let room = RoomSync {
                syncs: self,
                session,
                request,
                room,
                changes,
                whole: false,
                since: true,
                span: (from.position, to.position),
                typing,
                counts: None,
                ignored: &ignored,
                invites: &invites,
            };
            room.add_to(&mut body.rooms).await?;
        }
        Ok(body)
    }

    /// Push rules are shown whole: what is stored, with what the specification predefines today.
    async fn with_push_rules(
        &self,
        session: &Session,
        mut rows: Vec<AccountDataRow>,
    ) -> Result<Vec<AccountDataRow>, Error> {
        for row in rows.iter_mut().filter(|row| row.kind == PUSH_RULES) {
            let content = self.accounts.push_rules_content(session.recipient, &session.user_id).await?;
            row.content = content.to_string();
        }
        Ok(rows)
    }

    /// Every room and all account data; with `from`, timelines only since then (`full_state`), if the queue still has
    /// what came since.
    async fn all(
        &self,
        session: &Session,
        request: &Request,
        from: Option<Place>,
        to: Place,
    ) -> Result<SyncBody, Error> {
        let (recipient, user_id) = (session.recipient, &session.user_id);
        let mut body = SyncBody { next_batch: self.token(to), ..SyncBody::default() };
        let mut rows = self.store.account_data_of(recipient, 0).await?;
        if !rows.iter().any(|row| row.kind == PUSH_RULES) {
            // They exist for everybody, also for those who have never changed them.
            rows.push(AccountDataRow { kind: PUSH_RULES.to_owned(), content: String::new() });
        }
        let rows = self.with_push_rules(session, rows).await?;
        body.account_data = account_data_events(rows, |kind| request.filter.account_data(kind))?.into();

        let mut changes = match from {
            Some(from) => match self.queues.read(recipient, from.position, to.position).await? {
                Span::Entries(entries) => Some(Changes::of(&entries)),
                Span::Trimmed => None,
            },
            None => None,
        };
        let typing = self.typing.heard_by(user_id, 0);
        let mut typing: HashMap<i64, Vec<OwnedUserId>> = typing.into_iter().collect();
        let mut counts: HashMap<i64, Unread> = self.store.unread_of_rooms(recipient).await?;
        let memberships = self.store.memberships(user_id.as_str()).await?;
        let ignored = &self.accounts.ignored_users(recipient).await?;
        let invites = &self.accounts.invite_permissions(recipient).await?;
        let asked = memberships.into_iter().map(|membership| {
            let since = changes.is_some();
            let number = membership.room;
            let news = match &mut changes {
                Some(changes) => changes.rooms.remove(&number),
                // The device may still believe to be in a room that was left after its token.
                None => from.is_some().then(RoomChanges::default),
            };
            let left = matches!(membership.membership.as_str(), "leave" | "ban");
            let typing = typing.remove(&number).filter(|users| !users.is_empty());
            let counts = counts.remove(&number).unwrap_or_default();
            async move {
                let mut rooms = RoomsBody::default();
                if left && news.is_none() && !request.filter.include_leave() {
                    return Ok(rooms);
                }
                let room = self.rooms.by_number_once(number).await?;
                if !request.filter.room(&room.room_id)
                    || (left && !since && self.knows(request, session, &room, from).await?)
                {
                    return Ok(rooms);
                }
                let changes = news.unwrap_or_default();
                let span = (from.filter(|_| since).map_or(i64::MIN, |from| from.position), to.position);
                let counts = Some(counts);
                let room = RoomSync {
                    syncs: self,
                    session,
                    request,
                    room,
                    changes,
                    whole: true,
                    since,
                    span,
                    typing,
                    counts,
                    ignored,
                    invites,
                };
                room.add_to(&mut rooms).await?;
                Ok::<_, Error>(rooms)
            }
        });
        let mut answers = stream::iter(asked).buffer_unordered(ROOMS_AT_ONCE);
        while let Some(rooms) = answers.next().await {
            body.rooms.extend(rooms?);
        }
        drop(answers);
        Ok(body)
    }

    /// Whether a device with this place knows already that the user has left a room.
    async fn knows(
        &self,
        request: &Request,
        session: &Session,
        room: &Room,
        from: Option<Place>,
    ) -> Result<bool, Error> {
        let (Some(from), false) = (from, request.filter.include_leave()) else { return Ok(false) };
        let Some(leaving) = room.snapshot().member(&session.user_id).map(|member| member.seq) else {
            return Ok(false);
        };
        Ok(self.rooms.place_at(room, from.position).await? >= leaving)
    }

    /// The unread events of a room; the end of the queue keeps them up from then on.
    pub(super) async fn unread(&self, recipient: i64, room: i64) -> Result<Unread, Error> {
        let tail = self.queues.tail(recipient);
        if let Some(unread) = tail.unread(room) {
            return Ok(unread);
        }
        // The end of the queue mostly reaches back to what is settled, and counts on from there.
        let (unread, position) = self.store.unread(recipient, room).await?;
        tail.remember_unread(room, unread, position);
        if let Some(unread) = tail.unread(room) {
            return Ok(unread);
        }
        self.store.settled().await?;
        let (unread, position) = self.store.unread(recipient, room).await?;
        tail.remember_unread(room, unread.clone(), position);
        Ok(tail.unread(room).unwrap_or(unread))
    }
}

fn encode(body: &SyncBody) -> Result<Bytes, Error> {
    Ok(serde_json::to_vec(body)?.into())
}

/// Account data in the form of events, as far as `wanted` says of their type.
pub(super) fn account_data_events(
    rows: Vec<AccountDataRow>,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<Box<RawValue>>, Error> {
    let wanted = rows.into_iter().filter(|row| wanted(&row.kind));
    wanted
        .map(|row| {
            let content: &RawValue = serde_json::from_str(&row.content)?;
            Ok(serde_json::value::to_raw_value(&json!({ "type": row.kind, "content": content }))?)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a waiting client costs is mostly this.
    #[test]
    fn a_request_that_waits_is_small() {
        fn size<F: Future>(_: impl FnOnce(Arc<Syncs>, Session, Request) -> F) -> usize {
            size_of::<F>()
        }
        let waiting = size(|syncs, session, request| async move { syncs.sync(session, request).await });
        assert!(waiting <= 1280, "{waiting} bytes");
    }
}
