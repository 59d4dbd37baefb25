//! Who is there, and since when not ("Presence"): kept in memory, told through the part of the queues that fades.
//!
//! A device is there while a request of it waits or its socket is open, and for a grace time after; whoever serves it
//! [holds](Presence::hold) it for so long, and nothing happens a heartbeat. The [`board`] has everybody who is here, by
//! way of their [`devices`]; the [`audience`] knows who hears of whom; the [`agenda`] is one list of times for all. One
//! task tells what has changed, in rounds. Only a user's last state is stored, now and then.
//!
//! Whoever is online counts as active at the moment (`currently_active`): both end after the same idle time. So messages
//! of somebody who is online are no news of their presence.

mod agenda;
mod audience;
mod board;
mod devices;
mod elsewhere;
mod newcomers;
#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId};
use serde_json::{Map, Value, json};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::Instant,
};

use self::{
    board::{Board, Past, Saved, Seen, User},
    elsewhere::Elsewhere,
};
pub use self::{
    devices::{State, Times},
    elsewhere::Hearsay,
};
use crate::{
    account::{Accounts, Error, MemberProfile, Session},
    environment::Environment,
    queue::Queues,
    store::{
        self, Batch, Store,
        presence::{PresenceRow, set_presence},
    },
};

/// The longest status message, in characters.
pub const LONGEST_STATUS: usize = 1_000;
/// People of whom a reader is told at once who doesn't know any yet: those with the latest activity.
const MOST: usize = 1_000;
/// How often last states are written, in milliseconds, and how many in one commit.
const SAVE_EVERY: i64 = 60_000;
const SAVED_AT_ONCE: usize = 500;
/// Users of before the start who are read at a time.
const READ_AT_ONCE: usize = 8;

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// When off, nobody is here for anybody.
    pub enabled: bool,
    pub times: Times,
}

/// What other servers that share a room with somebody may hear of them.
#[derive(Clone, Debug)]
pub struct Outward {
    pub user_id: OwnedUserId,
    pub hearers: Hearers,
    /// As one of the entries of `m.presence`.
    pub content: Value,
}

/// Which servers hear of somebody.
#[derive(Clone, Debug)]
pub enum Hearers {
    /// All that are in these rooms.
    Of(Vec<i64>),
    /// These recipients.
    Servers(Vec<i64>),
}

/// What there is to tell of somebody at the moment.
#[derive(Clone, Debug)]
pub struct PresenceEvent {
    pub user_id: OwnedUserId,
    pub state: State,
    /// Milliseconds; `None` if nothing is known of any activity.
    pub last_active_ago: Option<i64>,
    pub status: Option<Arc<str>>,
    profile: Arc<MemberProfile>,
}

impl PresenceEvent {
    /// As the answer to who asks for somebody's presence.
    pub fn status(&self) -> Map<String, Value> {
        let mut content = Map::new();
        content.insert("presence".to_owned(), self.state.name().into());
        if let Some(ago) = self.last_active_ago {
            content.insert("last_active_ago".to_owned(), ago.into());
        }
        if self.state == State::Online {
            content.insert("currently_active".to_owned(), true.into());
        }
        if let Some(status) = &self.status {
            content.insert("status_msg".to_owned(), (**status).into());
        }
        content
    }

    /// The event `m.presence`.
    pub fn event(&self) -> Value {
        let mut content = self.status();
        // PR-05
        if let Some(name) = &self.profile.displayname {
            content.insert("displayname".to_owned(), (**name).into());
        }
        if let Some(url) = &self.profile.avatar_url {
            content.insert("avatar_url".to_owned(), (**url).into());
        }
        json!({ "type": "m.presence", "sender": self.user_id, "content": content })
    }
}

pub struct Presence {
    settings: Settings,
    store: Store,
    accounts: Arc<Accounts>,
    board: Board,
    elsewhere: Mutex<Elsewhere>,
    /// The zero of the board's clock, and what time it was.
    started: Instant,
    started_ts: i64,
    /// Users whose rooms have changed.
    moved: UnboundedSender<i64>,
    moves: Mutex<Option<UnboundedReceiver<i64>>>,
    outward: OnceLock<UnboundedSender<Outward>>,
    /// Counts the moves, so that nobody enters with the rooms of before one.
    seen_moves: AtomicU64,
}

impl Presence {
    pub fn new(
        settings: Settings,
        store: Store,
        accounts: Arc<Accounts>,
        queues: &Queues,
        environment: &Environment,
    ) -> Arc<Self> {
        let (moved, moves) = unbounded_channel();
        let tails = queues.shared_tails();
        if settings.enabled {
            tails.send_moves(moved.clone());
        }
        Arc::new(Self {
            settings,
            store,
            accounts,
            board: Board::new(tails, settings.times),
            elsewhere: Mutex::default(),
            started: Instant::now(),
            started_ts: environment.clock.now_ms(),
            moved,
            moves: Mutex::new(Some(moves)),
            outward: OnceLock::new(),
            seen_moves: AtomicU64::new(0),
        })
    }

    /// A device is there, as what is `wanted`, for as long as what is returned is kept, and for the grace time after.
    /// To be called before a reader takes the place from which it reads. Cheap for those who are here already.
    pub async fn hold(self: &Arc<Self>, session: &Session, wanted: State) -> Held {
        if !self.settings.enabled {
            return Held(None);
        }
        loop {
            let user = match self.here(session.recipient, &session.user_id).await {
                Ok(user) => user,
                Err(cause) => {
                    tracing::warn!(%cause, "can't tell that a user is here");
                    return Held(None);
                }
            };
            if self.board.hold(&user, session.device, wanted, self.now()) {
                let presence = Arc::clone(self);
                return Held(Some(Holding { presence, user, device: session.device }));
            }
        }
    }

    /// A user does something (PR-02). Cheap: it is on the way of every message.
    pub fn active(&self, recipient: i64) {
        self.board.active(recipient, self.now());
    }

    /// A user says of themselves what they are, through a device (PR-01). The status message is stored when this returns.
    pub async fn say(&self, session: &Session, state: State, status: Option<String>) -> Result<(), Error> {
        if !self.settings.enabled {
            return Ok(());
        }
        let status = status.map(|status| status.replace('\0', "")).filter(|status| !status.is_empty());
        if status.as_ref().is_some_and(|status| status.chars().count() > LONGEST_STATUS) {
            return Err(Error::TooLarge { what: "the status message in characters", limit: LONGEST_STATUS });
        }
        let status: Option<Arc<str>> = status.map(Arc::from);
        loop {
            let user = self.here(session.recipient, &session.user_id).await?;
            let now = self.now();
            if user.status() != status {
                let saved = Saved { state, status: status.clone(), last_active: now };
                self.store.commit(self.saving(&user, &saved)).await?;
                user.set_saved(saved);
            }
            if self.board.say(&user, session.device, state, status.clone(), now) {
                return Ok(());
            }
        }
    }

    /// A user's name or picture has changed (PR-05).
    pub async fn renamed(&self, recipient: i64, user_id: &UserId) -> Result<(), Error> {
        if !self.settings.enabled {
            return Ok(());
        }
        loop {
            let profile = self.accounts.member_profile(user_id).await?;
            let user = match self.board.user(recipient) {
                Some(user) => user,
                None => self.enter(recipient, user_id, MemberProfile::default()).await?,
            };
            if self.board.set_profile(&user, profile, self.now()) {
                return Ok(());
            }
        }
    }

    /// What a user is, for somebody who asks. Who shares no room with them learns nothing (PR-04).
    pub async fn ask(&self, reader: &UserId, user_id: &UserId) -> Result<PresenceEvent, Error> {
        if reader != user_id && !self.store.share_a_room(reader.as_str(), user_id.as_str()).await? {
            return Err(Error::NotAllowed("you share no room with this user"));
        }
        if user_id.server_name() != reader.server_name() {
            return self.ask_elsewhere(user_id);
        }
        let account = self.store.account_of(user_id.as_str()).await?.filter(|_| self.settings.enabled);
        let account = account.ok_or(Error::NotFound("presence state"))?;
        let now = self.now();
        if let Some(seen) = self.board.now(account.recipient, now) {
            return Ok(event_of(seen, now));
        }
        let row = self.store.presence(account.recipient).await?;
        let nothing = PresenceEvent {
            user_id: user_id.to_owned(),
            state: State::Offline,
            last_active_ago: None,
            status: None,
            profile: Arc::default(),
        };
        Ok(row.and_then(|row| self.event_of_row(row, now)).unwrap_or(nothing))
    }

    /// What a reader hears who has heard everything up to the number `after` of the queues' fading part, up to the
    /// number `to`; whoever has heard nothing (`None`) hears of all who are there. The reader is held.
    pub async fn heard_by(
        &self,
        recipient: i64,
        reader: &UserId,
        after: Option<u64>,
        to: u64,
    ) -> Result<Vec<PresenceEvent>, store::Error> {
        // For a reader who isn't held nothing is kept in mind, and so nothing would ever be new.
        if self.board.user(recipient).is_none() {
            return Ok(Vec::new());
        }
        let now = self.now();
        if let Some(after) = after
            && let Some(news) = self.board.news(recipient, after, to)
        {
            return Ok(news.into_iter().map(|seen| event_of(seen, now)).collect());
        }
        let here = self.board.everybody(recipient, now);
        let known: HashSet<i64> = here.iter().map(|seen| seen.recipient).collect();
        let mut events: Vec<PresenceEvent> = here.into_iter().map(|seen| event_of(seen, now)).collect();
        if after.is_some() {
            // A reader who knew somebody as there has to learn that they are gone.
            let rows = self.store.presence_of_peers(reader.as_str(), MOST as i64).await?;
            let rows = rows.into_iter().filter(|row| !known.contains(&row.recipient));
            events.extend(rows.filter_map(|row| self.event_of_row(row, now)));
        } else {
            events.retain(|event| event.state != State::Offline);
        }
        events.sort_by_key(|event| event.last_active_ago.unwrap_or(i64::MAX));
        events.truncate(MOST);
        Ok(events)
    }

    /// Tells what changes, for ever.
    pub async fn run(self: Arc<Self>) {
        let Some(mut moves) = self.moves.lock().take().filter(|_| self.settings.enabled) else { return };
        if let Err(cause) = self.remember().await {
            tracing::warn!(%cause, "those who were online before the start are offline until they come back");
        }
        let mut moved = Vec::new();
        let mut save_at = self.now() + SAVE_EVERY;
        loop {
            let now = self.now();
            let wait = self.board.until_round(now).unwrap_or(i64::MAX).min(save_at - now).max(0);
            tokio::select! {
                biased;
                () = tokio::time::sleep(Duration::from_millis(wait as u64)) => {}
                () = self.board.agenda.sooner() => continue,
                _ = moves.recv_many(&mut moved, 256) => {
                    self.follow(std::mem::take(&mut moved)).await;
                    continue;
                }
            }
            let now = self.now();
            if self.board.until_round(now) == Some(0) {
                let round = self.board.round(now);
                self.tell_others(round.outward, now);
            }
            if now >= save_at {
                self.save(false).await;
                save_at = self.now() + SAVE_EVERY;
            }
        }
    }

    /// Other servers hear of what changed, if somebody tells them.
    fn tell_others(&self, changed: Vec<(i64, Vec<i64>)>, now: i64) {
        for (recipient, rooms) in changed {
            if let Some(seen) = self.board.now(recipient, now) {
                self.tell(seen, Hearers::Of(rooms), now);
            }
        }
    }

    fn tell(&self, seen: Seen, hearers: Hearers, now: i64) {
        let Some(outward) = self.outward.get() else { return };
        let event = event_of(seen, now);
        let mut content = event.status();
        content.insert("user_id".to_owned(), json!(event.user_id));
        // Nobody listens any more: the server ends.
        let _ = outward.send(Outward { user_id: event.user_id, hearers, content: Value::Object(content) });
    }

    /// Sends what other servers may have to hear of from now on there. For one who listens: the first.
    pub fn send_outward(&self, sender: UnboundedSender<Outward>) {
        let _ = self.outward.set(sender);
    }

    /// Writes down what everybody was last seen as. For the end of the process; otherwise it happens by itself.
    pub async fn flush(&self) {
        self.save(true).await;
    }

    /// Milliseconds since the start.
    fn now(&self) -> i64 {
        self.started.elapsed().as_millis() as i64
    }

    /// The user, who is here from now on.
    async fn here(&self, recipient: i64, user_id: &UserId) -> Result<Arc<User>, store::Error> {
        if let Some(user) = self.board.user(recipient) {
            return Ok(user);
        }
        // Boxed: what a waiting request keeps is small.
        Box::pin(async {
            let profile = self.accounts.member_profile(user_id).await?;
            self.enter(recipient, user_id, profile).await
        })
        .await
    }

    async fn enter(
        &self,
        recipient: i64,
        user_id: &UserId,
        profile: MemberProfile,
    ) -> Result<Arc<User>, store::Error> {
        let seen_moves = self.seen_moves.load(Ordering::SeqCst);
        let row = self.store.presence(recipient).await?;
        let rooms = self.store.joined_rooms(user_id.as_str()).await?;
        let now = self.now();
        let past = Past {
            still_until: row
                .as_ref()
                .filter(|row| self.is_still_there(row, now))
                .map(|_| self.settings.times.grace),
            saved: row.map(|row| self.saved_of(row)),
            profile,
        };
        let user = self.board.enter(recipient, user_id.to_owned(), past, rooms, now);
        if self.seen_moves.load(Ordering::SeqCst) != seen_moves {
            // Perhaps it was they, before their rooms were known here. The receiver lives as long as we do.
            let _ = self.moved.send(recipient);
        }
        Ok(user)
    }

    /// Whether somebody may still be what is stored: the server has just started, and their clients are coming back.
    fn is_still_there(&self, row: &PresenceRow, now: i64) -> bool {
        State::from_number(row.state) != State::Offline && now < self.settings.times.grace
    }

    fn saved_of(&self, row: PresenceRow) -> Saved {
        Saved {
            state: State::from_number(row.state),
            status: row.status_msg.map(Arc::from),
            last_active: row.last_active_ts - self.started_ts,
        }
    }

    /// What there is to tell of somebody who isn't here.
    fn event_of_row(&self, row: PresenceRow, now: i64) -> Option<PresenceEvent> {
        let still = self.is_still_there(&row, now);
        let user_id = UserId::parse(&row.user_id).ok()?;
        let saved = self.saved_of(row);
        Some(PresenceEvent {
            user_id,
            state: if still { saved.state } else { State::Offline },
            last_active_ago: Some((now - saved.last_active).max(0)),
            status: saved.status,
            profile: Arc::default(),
        })
    }

    /// Brings back those who were there when the server stopped, until their clients had time to come back.
    async fn remember(&self) -> Result<(), store::Error> {
        let rows = self.store.present_users().await?;
        let entering = rows.into_iter().map(|row| async move {
            // Only what was checked is stored.
            if let Ok(user_id) = UserId::parse(&row.user_id) {
                self.here(row.recipient, &user_id).await?;
            }
            Ok::<_, store::Error>(())
        });
        let mut entering = stream::iter(entering).buffer_unordered(READ_AT_ONCE);
        while let Some(entered) = entering.next().await {
            entered?;
        }
        Ok(())
    }

    /// Looks up the rooms of users whose rooms have changed.
    async fn follow(&self, mut moved: Vec<i64>) {
        self.seen_moves.fetch_add(1, Ordering::SeqCst);
        moved.sort_unstable();
        moved.dedup();
        for recipient in moved {
            let Some(user) = self.board.user(recipient) else { continue };
            match self.store.joined_rooms(user.user_id.as_str()).await {
                Ok(rooms) => self.board.set_rooms(recipient, rooms),
                Err(cause) => tracing::warn!(%cause, "can't see who shares a room with a user"),
            }
        }
    }

    async fn save(&self, all: bool) {
        let unsaved = self.board.unsaved(all, self.now());
        for users in unsaved.chunks(SAVED_AT_ONCE) {
            let mut batch = Batch::new();
            for (user, saved) in users {
                batch.push(self.saving(user, saved));
            }
            match self.store.commit(batch).await {
                Ok(_) => users.iter().for_each(|(user, saved)| user.set_saved(saved.clone())),
                Err(cause) => tracing::warn!(%cause, "can't write down who is online; trying again later"),
            }
        }
    }

    fn saving(&self, user: &User, saved: &Saved) -> store::Statement {
        let status = saved.status.as_deref().map(str::to_owned);
        set_presence(user.recipient, saved.state.number(), self.started_ts + saved.last_active, status)
    }
}

fn event_of(seen: Seen, now: i64) -> PresenceEvent {
    PresenceEvent {
        user_id: seen.user_id,
        state: seen.told.state,
        last_active_ago: Some((now - seen.last_active).max(0)),
        status: seen.told.status,
        profile: seen.told.profile,
    }
}

struct Holding {
    presence: Arc<Presence>,
    user: Arc<User>,
    device: i64,
}

/// A device is there while this is kept. For another state of the same device hold it anew, and drop this after.
pub struct Held(Option<Holding>);

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(Holding { presence, user, device }) = &self.0 {
            presence.board.release(user, *device, presence.now());
        }
    }
}
