//! One socket from its first frame to its last: who it belongs to, what it was sent, and what it has to be told.

use std::{num::NonZeroU32, pin::pin, str::FromStr, sync::Arc, time::Duration};

use bytes::Bytes;
use governor::{
    DefaultDirectRateLimiter, NotUntil, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::{Instant, sleep_until};

use super::{
    Entered, Methods, Newcomer, Socket, Streams,
    calls::{Calls, Done},
    close::{Close, ended, with_errcode},
    frames::{
        Auth, Authenticated, Beat, BeatParams, InRoom, Inbound, NewToken, Outbound, Position, Typed,
        begin_sync, sync,
    },
    socket::{Heard, Wire},
    window::Window,
};
use crate::{
    account::{self, Origin, Session},
    live::{
        body::StateForm,
        filter::SyncFilter,
        long_poll::BRIEF,
        syncs::{Error, Place, Syncs, Wanted, encode},
    },
    presence::Held,
    queue::{Tail, Token},
};

/// How long a client may take to say who it is.
const INTRODUCTION: Duration = Duration::from_secs(10);

/// When a socket that had to make room for a newer one of its device may come back.
const CROWDED: Duration = Duration::from_secs(30);

/// When a socket that began anew before it had read what it was sent may come back.
const AGAIN: Duration = Duration::from_secs(1);

/// How long requests at work may take once the server is about to stop.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Signs of life that may be missing.
const MISSED: u32 = 2;

/// Frames a second that ask for nothing, and how many more at a time: more than a client that acknowledges each sync of a
/// busy account has to send. Requests have the limits of their twins.
const FRAMES: (NonZeroU32, NonZeroU32) = (NonZeroU32::new(1_000).unwrap(), NonZeroU32::new(10_000).unwrap());

/// Requests for methods that don't exist, before the client counts as broken.
const UNKNOWN_METHODS: u32 = 32;

/// The longest id of a request, in bytes.
const MAX_ID: usize = 255;

/// What a socket reads once it is known whose it is.
struct Reader {
    session: Session,
    wanted: Arc<Wanted>,
    tail: Arc<Tail>,
    /// Where the client is once it has read all that was sent, and the name that it has for that.
    sent: Place,
    pos: String,
    /// How far the queue was looked at; what lies between is not for this client.
    seen: Place,
    window: Window,
    entered: Entered,
    /// The device is there while the socket is.
    _held: Held,
}

pub(super) struct Connection {
    streams: Arc<Streams>,
    newcomer: Option<Newcomer>,
    wire: Wire,
    methods: Arc<dyn Methods>,
    /// Whose token came with the request to open the socket.
    opener: Option<Box<Session>>,
    origin: Origin,
    reader: Option<Box<Reader>>,
    calls: Calls,
    /// A frame with a token that waits for the requests at work; nothing is read after it.
    renewal: Option<Bytes>,
    frames: DefaultDirectRateLimiter,
    unknown_methods: u32,
    /// The generation of sessions in which this one was last known to be alive.
    generation: u64,
    opened: Instant,
    /// The next time to say that we are there, and how often that was since the client last did.
    beat: Instant,
    beats: u32,
    /// What the client had taken by the last of them.
    taken: u64,
    /// Since when there is something for the client that it doesn't take. While it is the network that waits for it: what
    /// it had taken by then; while it is its acknowledgement: `None`.
    waiting: Option<(Instant, Option<u64>)>,
}

impl Connection {
    pub(super) fn new(
        streams: Arc<Streams>,
        newcomer: Newcomer,
        socket: Socket,
        opener: Option<Session>,
        origin: Origin,
        methods: Arc<dyn Methods>,
    ) -> Self {
        let now = Instant::now();
        let mut connection = Self {
            streams,
            newcomer: Some(newcomer),
            wire: Wire::new(socket),
            methods,
            opener: opener.map(Box::new),
            origin,
            reader: None,
            calls: Calls::default(),
            renewal: None,
            frames: RateLimiter::direct(Quota::per_second(FRAMES.0).allow_burst(FRAMES.1)),
            unknown_methods: 0,
            generation: 0,
            opened: now,
            beat: now,
            beats: 0,
            taken: 0,
            waiting: None,
        };
        connection.heard_something(now);
        connection
    }

    /// Boxed, for what an `async fn` gets it keeps twice.
    pub(super) async fn run(mut self: Box<Self>) {
        let close = match self.serve().await {
            Ok(close) | Err(close) => close,
        };
        // What a closed socket held is free while its client reads why.
        self.reader = None;
        Box::pin(self.wire.close(close)).await;
    }

    async fn serve(&mut self) -> Result<Close, Close> {
        let syncs = Arc::clone(&self.streams.syncs);
        let mut stop = pin!(syncs.shutdown.wait());
        let hello = Typed::Hello {
            heartbeat_ms: self.streams.settings.heartbeat.as_millis() as u64,
            max_frame_bytes: self.streams.settings.max_frame_bytes,
            features: &self.methods.names(),
        };
        self.wire.send(Outbound::Typed(hello).encode())?;
        let mut timer = pin!(sleep_until(self.deadline()));
        loop {
            if self.calls.is_idle()
                && !self.wire.is_busy()
                && let Some(frame) = self.renewal.take()
            {
                Box::pin(self.frame(&frame)).await?;
            }
            let tail = self.reader.as_ref().map(|reader| Arc::clone(&reader.tail));
            // Before looking for news, so that what comes meanwhile is not missed.
            let woken = tail.as_ref().map(|tail| tail.woken());
            if self.reader.as_ref().is_some_and(|reader| reader.entered.has_to_leave()) {
                return Err(Close::TooMany(CROWDED));
            }
            // Not only when it is woken for that: it may have been about to do something else.
            let generation = syncs.sessions.generation();
            if std::mem::replace(&mut self.generation, generation) != generation {
                Box::pin(self.check()).await?;
            }
            if self.has_news() {
                Box::pin(self.deliver()).await?;
            }
            let until = self.deadline();
            // Mostly it has moved on: then the timer finds out when it is over, and needn't be set for each message.
            if until < timer.deadline() {
                timer.as_mut().reset(until);
            }
            let reading = self.is_listening();
            let answering = !self.calls.is_idle() && !self.wire.is_busy();
            let waits = !self.calls.is_idle()
                || self.waiting.is_some()
                || self.renewal.is_some()
                || self.reader.as_ref().is_some_and(|reader| reader.seen.has_mail());
            tokio::select! {
                biased;
                () = &mut stop => return Ok(Box::pin(self.drain()).await),
                () = timer.as_mut() => {
                    if Instant::now() >= until {
                        Box::pin(self.tick()).await?;
                    }
                    timer.as_mut().reset(self.deadline());
                }
                done = self.calls.next(), if answering => self.answer(done)?,
                heard = self.wire.turn(reading, waits) => Box::pin(self.heard(heard?)).await?,
                () = resolved(woken) => {}
            }
        }
    }

    /// Whether something has come for the client, and it takes it.
    fn has_news(&mut self) -> bool {
        let busy = self.wire.is_busy();
        let Some(reader) = &self.reader else { return false };
        if !reader.seen.has_mail() && !reader.tail.has_news(reader.seen.position, reader.seen.fading) {
            if !busy {
                self.waiting = None;
            }
            return false;
        }
        let open = reader.window.is_open();
        if !busy && open {
            self.waiting = None;
            return true;
        }
        // For its acknowledgement it has all the time from when it has everything; answers on the wire give it no more.
        let unacknowledged = !open && (!busy || matches!(self.waiting, Some((_, None))));
        if self.waiting.is_none_or(|(_, taken)| taken.is_none() != unacknowledged) {
            self.waiting = Some((Instant::now(), (!unacknowledged).then(|| self.wire.written())));
        }
        false
    }

    /// Sends what has come for the client.
    async fn deliver(&mut self) -> Result<(), Close> {
        let Some(reader) = &mut self.reader else { return Ok(()) };
        let syncs = &self.streams.syncs;
        let to = syncs.now();
        let next = syncs.token(to);
        let mut frame = begin_sync(Some(&reader.pos), &next, BRIEF);
        let head = frame.len();
        let span = (reader.seen, to);
        let brief = syncs.brief(&reader.session, &reader.wanted, &reader.tail, span, &next, &mut frame).await;
        match brief {
            Ok(false) => {}
            Ok(true) => {
                (reader.seen, reader.sent, reader.pos) = (to, to, next);
                reader.window.sent(to, frame.len() - head);
                frame.push(b'}');
                return self.wire.send(frame);
            }
            Err(cause) => return Err(self.failed(cause)),
        }
        drop(frame);
        let body = syncs.changes(&reader.session, &reader.wanted, reader.seen, to).await;
        let body = match body {
            Ok(body) => body,
            Err(cause) => return Err(self.failed(cause)),
        };
        // It may have been too much for one answer.
        let to = syncs.place(Token::from_str(&body.next_batch).ok()).unwrap_or(to);
        reader.seen = to;
        if body.is_empty() {
            return Ok(());
        }
        let Ok(body) = encode(&body) else { return Err(Close::Internal) };
        let from = std::mem::replace(&mut reader.pos, syncs.token(to));
        reader.sent = to;
        reader.window.sent(to, body.len());
        self.wire.send(sync(Some(&from), &reader.pos, &body))
    }

    async fn heard(&mut self, heard: Heard) -> Result<(), Close> {
        let text = match heard {
            Heard::Flushed => return Ok(()),
            Heard::Beat => None,
            Heard::Text(text) => Some(text),
        };
        let now = Instant::now();
        self.heard_something(now);
        match text {
            Some(text) => self.frame(&text).await,
            None => self.count(),
        }
    }

    /// Counts a frame that asks for nothing.
    fn count(&self) -> Result<(), Close> {
        let early = |early: NotUntil<_>| Close::TooMany(early.wait_time_from(DefaultClock::default().now()));
        self.frames.check().map_err(early)
    }

    async fn frame(&mut self, bytes: &Bytes) -> Result<(), Close> {
        let not_utf8 = |_| Close::Protocol(1007, "a text frame that is not UTF-8".to_owned());
        let text = std::str::from_utf8(bytes).map_err(not_utf8)?;
        if !text.trim_ascii_start().starts_with('{') {
            return Err(Close::NotAFrame("a frame is an object".to_owned()));
        }
        let frame: Inbound<'_> = serde_json::from_str(text)
            .map_err(|cause| Close::NotAFrame(format!("not a frame of this protocol: {cause}")))?;
        if matches!(&*frame.method, "auth" | "token") && !self.calls.is_idle() {
            // The first use of a refreshed token ends the one before, which the requests at work came under.
            self.renewal = Some(bytes.clone());
            return Ok(());
        }
        let id = frame.id.as_deref();
        if self.reader.is_none() || matches!(&*frame.method, "pong" | "ping" | "ack" | "auth" | "token") {
            self.count()?;
        }
        match &*frame.method {
            "pong" => Ok(()),
            "ping" => {
                self.acknowledge(frame.params).await?;
                self.wire.send(Outbound::Beat(Beat::Pong).encode())
            }
            "ack" => self.acknowledge(frame.params).await,
            "auth" => self.authenticate(required(id)?, frame.params).await,
            "token" => self.renew(required(id)?, frame.params).await,
            method => self.call(required(id)?, method, frame.params),
        }
    }

    async fn acknowledge(&mut self, params: Option<&RawValue>) -> Result<(), Close> {
        let position: Position = match params {
            Some(params) => read(params).map_err(Close::NotAFrame)?,
            None => Position::default(),
        };
        let (Some(pos), Some(reader)) = (position.pos, &mut self.reader) else { return Ok(()) };
        let place = Token::from_str(&pos).ok().and_then(|token| self.streams.syncs.place(Some(token)));
        let sent = reader.sent;
        let Some(place) = place.filter(|place| place.is_within(sent)) else {
            return Err(Close::NotAFrame("`pos` is not a position that this socket was sent".to_owned()));
        };
        reader.window.acknowledged(place);
        let syncs = &self.streams.syncs;
        syncs.queues.present(reader.session.device, place.position);
        syncs.sessions.note(&reader.session, &self.origin);
        syncs.to_device.acknowledge(reader.session.device, place.mail).await;
        Ok(())
    }

    async fn authenticate(&mut self, id: &str, params: Option<&RawValue>) -> Result<(), Close> {
        let auth: Auth = match params.map_or_else(|| Err("`params` are missing".to_owned()), read) {
            Ok(auth) => auth,
            Err(cause) => return self.refuse(id, account::Error::Invalid(cause).into()),
        };
        let syncs = Arc::clone(&self.streams.syncs);
        if self.reader.is_some() && self.wire.is_busy() {
            // Each may be answered with all that there is: one after the other, not one on top of the other.
            return Err(Close::TooMany(AGAIN));
        }
        let session = match (&auth.access_token, &self.opener) {
            (Some(token), _) => syncs.sessions.authenticate(token, &self.origin).await,
            (None, Some(session)) => syncs.sessions.again(session).await,
            (None, None) => Err(account::Error::Invalid("`access_token` is missing".to_owned())),
        };
        let session = match session {
            Ok(session) => session,
            Err(cause) => return self.refuse(id, cause.into()),
        };
        let wanted = match wanted(&syncs, &auth, &session).await {
            Ok(wanted) => Arc::new(wanted),
            Err(cause) => return self.refuse(id, cause),
        };
        if self.reader.as_ref().is_some_and(|reader| reader.session.device != session.device) {
            let text = "this socket belongs to another device".to_owned();
            return self.refuse(id, account::Error::Invalid(text).into());
        }
        let since = auth.since.filter(|since| !since.is_empty());
        let place = since.as_deref().map(|since| syncs.place(Token::from_str(since).ok()));
        if place == Some(None) {
            let text = "`since` is not usable on this server".to_owned();
            self.refuse(id, account::Error::Invalid(text).into())?;
            return Err(Close::PositionUnusable);
        }
        let held = syncs.presence.hold(&session, auth.set_presence).await;
        (self.newcomer, self.opener) = (None, None);
        let entered = match self.reader.take() {
            Some(reader) => reader.entered,
            None => self.streams.enter(session.device, session.recipient),
        };
        // From here on the tail is kept, so that nothing is missed between the first answer and the next.
        let tail = syncs.queues.tail(session.recipient);
        let answer =
            Authenticated { user_id: &session.user_id, device_id: &session.device_id, pos: since.as_deref() };
        let answer = to_raw_value(&answer).map_err(|_| Close::Internal)?;
        self.wire.send(Outbound::Result { id, result: &answer }.encode())?;

        let mut window = Window::default();
        let (sent, pos) = if let (Some(Some(place)), Some(since)) = (place, since) {
            syncs.queues.present(session.device, place.position);
            syncs.to_device.acknowledge(session.device, place.mail).await;
            (place, since)
        } else {
            let body = match syncs.first(&session, &wanted).await {
                Ok(body) => body,
                Err(cause) => return Err(self.failed(cause)),
            };
            let place = syncs.place(next_batch(&body)).ok_or(Close::Internal)?;
            let pos = syncs.token(place);
            window.sent(place, body.len());
            self.wire.send(sync(None, &pos, &body))?;
            (place, pos)
        };
        let reader = Reader { session, wanted, tail, sent, pos, seen: sent, window, entered, _held: held };
        self.reader = Some(Box::new(reader));
        self.waiting = None;
        Ok(())
    }

    /// A refreshed token for the socket's device.
    async fn renew(&mut self, id: &str, params: Option<&RawValue>) -> Result<(), Close> {
        let token: NewToken = match params.map_or_else(|| Err("`params` are missing".to_owned()), read) {
            Ok(token) => token,
            Err(cause) => return self.refuse(id, account::Error::Invalid(cause).into()),
        };
        let session = self.streams.syncs.sessions.authenticate(&token.access_token, &self.origin).await;
        let of_device = |session: &Session| {
            self.reader.as_ref().is_some_and(|reader| reader.session.device == session.device)
        };
        let session = match session {
            Ok(session) if of_device(&session) => session,
            Ok(_) => {
                let text = "this token doesn't belong to the socket's device".to_owned();
                return self.refuse(id, account::Error::Invalid(text).into());
            }
            Err(cause) => return self.refuse(id, cause.into()),
        };
        if let Some(reader) = &mut self.reader {
            reader.session = session;
        }
        self.reply(id, &Ok(RawValue::from_string("{}".to_owned()).map_err(|_| Close::Internal)?))
    }

    fn call(&mut self, id: &str, method: &str, params: Option<&RawValue>) -> Result<(), Close> {
        let Some(reader) = &self.reader else {
            let cause = account::Error::Invalid("`auth` comes first".to_owned());
            return self.refuse(id, cause.into());
        };
        let params = params.unwrap_or(RawValue::NULL);
        let Some(call) = self.methods.call(&reader.session, method, id, params) else {
            self.unknown_methods += 1;
            if self.unknown_methods > UNKNOWN_METHODS {
                return Err(Close::UnknownMethods);
            }
            return self.refuse(id, Error::UnknownMethod);
        };
        let room = read::<InRoom>(params).ok().and_then(|params| params.room_id);
        self.calls.begin(room, id.to_owned(), call);
        Ok(())
    }

    fn answer(&mut self, done: Option<Done>) -> Result<(), Close> {
        match done {
            Some(done) => self.reply(&done.id, &done.answer),
            None => Ok(()),
        }
    }

    fn reply(&mut self, id: &str, answer: &super::Answered) -> Result<(), Close> {
        let frame = match answer {
            Ok(result) => Outbound::Result { id, result },
            Err(error) => Outbound::Error { id, error },
        };
        self.wire.send(frame.encode())
    }

    /// Answers a request with an error, and closes the socket if it can't go on with it.
    fn refuse(&mut self, id: &str, cause: Error) -> Result<(), Close> {
        let close = ended(&cause);
        let error = self.methods.explain(cause);
        let close = close.map(|close| with_errcode(close, &error));
        self.reply(id, &Err(error))?;
        close.map_or(Ok(()), Err)
    }

    /// Whether the session is still there: whoever ends one wakes its readers.
    async fn check(&mut self) -> Result<(), Close> {
        let Some(reader) = &self.reader else { return Ok(()) };
        match self.streams.syncs.sessions.still(&reader.session).await {
            Ok(()) => Ok(()),
            Err(cause) => Err(self.failed(cause.into())),
        }
    }

    /// How the socket ends that can't go on for this.
    fn failed(&self, cause: Error) -> Close {
        let Some(close) = ended(&cause) else {
            let session = self.reader.as_ref().map(|reader| &reader.session);
            let user_id = session.map(|session| &session.user_id).map(tracing::field::display);
            tracing::error!(%cause, user_id, "a socket failed; its client resumes");
            return Close::Internal;
        };
        with_errcode(close, &self.methods.explain(cause))
    }

    fn heard_something(&mut self, now: Instant) {
        self.beats = 0;
        let random = self.streams.environment.entropy.number();
        self.beat = now + jittered(self.streams.settings.heartbeat, random);
    }

    /// Whether frames of the client are read.
    fn is_listening(&self) -> bool {
        !self.calls.is_full() && self.renewal.is_none()
    }

    /// When to look again if nothing happens before.
    fn deadline(&self) -> Instant {
        let mut deadline = self.beat;
        if self.reader.is_none() {
            deadline = deadline.min(self.opened + INTRODUCTION);
        }
        if let Some((since, _)) = self.waiting {
            deadline = deadline.min(since + self.streams.settings.patience);
        }
        if let Some(expires) = self.expiry() {
            deadline = deadline.min(expires);
        }
        deadline
    }

    /// When the session's token ends.
    fn expiry(&self) -> Option<Instant> {
        let expires = self.reader.as_ref()?.session.expires_ts?;
        let left = expires - self.streams.environment.clock.now_ms();
        // A clock that is set back must not make it a busy wait.
        Some(Instant::now() + Duration::from_millis(u64::try_from(left).unwrap_or(0).max(1)))
    }

    async fn tick(&mut self) -> Result<(), Close> {
        let now = Instant::now();
        if self.reader.is_none() && now >= self.opened + INTRODUCTION {
            return Err(Close::NoIntroduction);
        }
        let written = self.wire.written();
        if let Some((_, before)) =
            self.waiting.filter(|(since, _)| now >= *since + self.streams.settings.patience)
        {
            if before.is_none_or(|before| before == written) {
                return Err(Close::TooSlow);
            }
            // A long message on a thin line arrives, if slowly.
            self.waiting = Some((now, Some(written)));
        }
        if now >= self.beat {
            self.heard_nothing(now, written)?;
        }
        self.check().await
    }

    fn heard_nothing(&mut self, now: Instant, written: u64) -> Result<(), Close> {
        let taken = std::mem::replace(&mut self.taken, written);
        let excused = if self.wire.is_busy() { taken != written } else { !self.is_listening() };
        if excused {
            // It takes what it is sent, or isn't listened to at the moment.
            self.heard_something(now);
            return Ok(());
        }
        if self.beats >= MISSED || self.wire.is_busy() {
            return Err(Close::Gone);
        }
        let beats = self.beats + 1;
        self.heard_something(now);
        self.beats = beats;
        let pos = self.reader.as_ref().map(|reader| reader.pos.as_str());
        let ping = Beat::Ping { params: BeatParams { pos } };
        self.wire.send(Outbound::Beat(ping).encode())
    }

    /// The server is about to stop: what is at work is answered yet, and the client told when to come back.
    async fn drain(&mut self) -> Close {
        let deadline = Instant::now() + LAST_WORDS;
        while !self.calls.is_idle() || self.wire.is_busy() {
            let answering = !self.calls.is_idle() && !self.wire.is_busy();
            let going = tokio::select! {
                biased;
                () = sleep_until(deadline) => break,
                done = self.calls.next(), if answering => self.answer(done),
                heard = self.wire.turn(false, true) => heard.map(drop),
            };
            if going.is_err() {
                return Close::Gone;
            }
        }
        // All at once would be a storm: two milliseconds for each, half a minute at most.
        let spread = (self.streams.count() as u64 * 2).clamp(500, 30_000);
        let delay_ms = self.streams.environment.entropy.number() % spread;
        let reconnect = Typed::Reconnect { url: None, delay_ms, reason: "the server is about to stop" };
        match self.wire.send(Outbound::Typed(reconnect).encode()) {
            Ok(()) => Close::Draining,
            Err(close) => close,
        }
    }
}

/// A heartbeat that is up to a tenth shorter or longer, so that sockets that opened together don't beat together.
fn jittered(heartbeat: Duration, random: u64) -> Duration {
    heartbeat * (900 + (random % 201) as u32) / 1000
}

/// What the client asked for in its `auth`.
async fn wanted(syncs: &Syncs, auth: &Auth, session: &Session) -> Result<Wanted, Error> {
    let state = if auth.use_state_after { StateForm::After } else { StateForm::Before };
    let invalid = |cause: serde_json::Error| account::Error::Invalid(format!("`filter`: {cause}"));
    let filter = match &auth.filter {
        None => SyncFilter::everything(),
        Some(filter) if filter.get().starts_with('"') => {
            let id: String = serde_json::from_str(filter.get()).map_err(invalid)?;
            syncs.stored_filter(session.recipient, id).await?
        }
        Some(filter) => Arc::new(SyncFilter::parse(filter.get()).map_err(invalid)?),
    };
    Ok(Wanted { filter, full_state: false, state })
}

/// Waits for what there may be to wait for.
async fn resolved(future: Option<impl Future<Output = ()>>) {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

fn required(id: Option<&str>) -> Result<&str, Close> {
    let id = id.filter(|id| id.len() <= MAX_ID);
    id.ok_or_else(|| Close::NotAFrame(format!("a request needs an `id` of at most {MAX_ID} bytes")))
}

fn read<T: DeserializeOwned>(params: &RawValue) -> Result<T, String> {
    serde_json::from_str(params.get()).map_err(|cause| format!("`params`: {cause}"))
}

fn next_batch(body: &Bytes) -> Option<Token> {
    #[derive(Deserialize)]
    struct Head {
        next_batch: String,
    }
    serde_json::from_slice::<Head>(body).ok()?.next_batch.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn heartbeats_differ_by_a_tenth_to_either_side() {
        let random = (0..1_000).chain(u64::MAX - 1_000..=u64::MAX);
        let beats: BTreeSet<_> = random.map(|random| jittered(Duration::from_secs(30), random)).collect();
        assert_eq!(
            beats.first().zip(beats.last()),
            Some((&Duration::from_secs(27), &Duration::from_secs(33)))
        );
        assert!(beats.len() > 100, "{beats:?}");
    }

    /// What an idle socket costs is this, its reader, its buffers and what the network keeps for it.
    #[test]
    fn a_socket_that_waits_is_small() {
        fn size<F: Future>(_: impl FnOnce(Box<Connection>) -> F) -> usize {
            size_of::<F>()
        }
        let waiting = size(Connection::run);
        let whole = waiting + size_of::<Connection>() + size_of::<Reader>();
        assert!(whole <= 2304, "{whole} bytes, {waiting} of them to wait");
    }
}
