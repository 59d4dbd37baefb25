//! What the readers for clients share: places in a user's queue, the tokens that name them, and answers from there on.

use std::{num::NonZeroUsize, sync::Arc};

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

use super::{
    body::{StateForm, SyncBody},
    filter::SyncFilter,
    initial::InitialSyncs,
    lazy::LazyMembers,
};
use crate::{
    account::{self, Accounts, Session, Sessions},
    keys::{self, Keys, ToDevice},
    presence::Presence,
    queue::{Queues, Token, TokenError},
    room::Rooms,
    shutdown::Shutdown,
    store::Store,
    typing::Typing,
};

/// Stored filters kept in memory.
const FILTERS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Account(#[from] account::Error),
    #[error(transparent)]
    Keys(#[from] keys::Error),
    #[error(transparent)]
    Room(#[from] crate::room::Error),
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    #[error("an answer can't be written: {0}")]
    Encoding(#[from] serde_json::Error),
    /// A `pos` of sliding sync that isn't known, any more or at all.
    #[error("the connection is not known: begin anew without `pos`")]
    UnknownPos,
    #[error("there is no such method")]
    UnknownMethod,
    /// The task that worked for this request is gone.
    #[error("the answer got lost")]
    Gone,
    #[error(transparent)]
    Shared(Arc<Error>),
}

/// What a reader wants to be told.
pub struct Wanted {
    pub filter: Arc<SyncFilter>,
    pub full_state: bool,
    pub state: StateForm,
}

impl Wanted {
    fn key(&self) -> String {
        format!("{:?} {} {}", self.state, self.full_state, self.filter.key())
    }
}

/// A place from which a queue is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) position: i64,
    /// Messages to the device up to here were handed out.
    pub(super) mail: i64,
    pub(super) fading: u64,
}

impl Place {
    /// Whether somebody who is there has all up to here.
    pub(super) fn is_within(self, there: Self) -> bool {
        self.position <= there.position && self.mail <= there.mail && self.fading <= there.fading
    }

    /// Whether messages to the device are left from before it.
    pub(super) fn has_mail(self) -> bool {
        self.mail < self.position
    }
}

/// Answers `/sync`.
pub struct Syncs {
    pub(super) store: Store,
    pub(super) rooms: Arc<Rooms>,
    pub(super) lazy: LazyMembers,
    pub(super) accounts: Arc<Accounts>,
    pub(super) sessions: Sessions,
    pub(super) queues: Queues,
    pub(super) typing: Arc<Typing>,
    pub(super) presence: Arc<Presence>,
    pub(super) to_device: Arc<ToDevice>,
    pub(super) keys: Arc<Keys>,
    initial: InitialSyncs,
    /// Stored filters never change.
    filters: Mutex<LruCache<(i64, String), Arc<SyncFilter>>>,
    pub(super) epoch: u64,
    pub(super) shutdown: Shutdown,
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
        presence: Arc<Presence>,
        to_device: Arc<ToDevice>,
        keys: Arc<Keys>,
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
            presence,
            to_device,
            keys,
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
        let filter = Arc::new(SyncFilter::parse(&definition)?);
        self.filters.lock().put(key, Arc::clone(&filter));
        Ok(filter)
    }

    /// Where a token points. `None`, a full answer, for no token and for those that mean nothing here: of another
    /// epoch, or of a future that this database hasn't seen.
    pub(super) fn place(&self, since: Option<Token>) -> Option<Place> {
        match since? {
            Token::Queue { epoch, position, mail, boot, fading } => {
                let known = epoch == self.epoch && position <= self.queues.head();
                let fading = if boot == self.queues.tails().boot() { fading } else { 0 };
                known.then_some(Place { position, mail, fading })
            }
            Token::Room { .. } => None,
        }
    }

    /// The place in the queue that a token points to, as [`Self::place`].
    pub fn position(&self, token: Token) -> Option<i64> {
        self.place(Some(token)).map(|place| place.position)
    }

    pub(super) fn token(&self, place: Place) -> String {
        let boot = self.queues.tails().boot();
        let Place { position, mail, fading } = place;
        Token::Queue { epoch: self.epoch, position, mail, boot, fading }.to_string()
    }

    /// The token of somebody who knows everything up to now.
    pub fn token_of_now(&self) -> String {
        self.token(self.now())
    }

    pub(super) fn now(&self) -> Place {
        // The head is read last: what fades never shows a room that the positions don't know yet.
        let fading = self.queues.tails().fading();
        let position = self.queues.head();
        Place { position, mail: position, fading }
    }

    /// An answer with what every answer has.
    pub(super) async fn body(&self, session: &Session, to: Place) -> Result<SyncBody, Error> {
        let keys_left = self.keys.left(session.device).await?;
        Ok(SyncBody { next_batch: self.token(to), keys_left, ..SyncBody::default() })
    }

    /// The first answer of a device. It is made once, however often its client gives up and tries again.
    pub(super) async fn first(
        self: &Arc<Self>,
        session: &Session,
        wanted: &Arc<Wanted>,
    ) -> Result<Bytes, Error> {
        let (syncs, session, wanted) = (Arc::clone(self), session.clone(), Arc::clone(wanted));
        let key = (session.device, wanted.key());
        let make = move || async move {
            // From here on the tail is kept, so that the next request finds it.
            let _tail = syncs.queues.tail(session.recipient);
            let to = syncs.now();
            encode(&syncs.all(&session, &wanted, None, to).await?)
        };
        let device = key.0;
        let body = self.initial.answer(key, make).await.map_err(Error::Shared)?;
        self.with_mail(device, body).await
    }
}

pub(super) fn encode(body: &SyncBody) -> Result<Bytes, Error> {
    Ok(serde_json::to_vec(body)?.into())
}
