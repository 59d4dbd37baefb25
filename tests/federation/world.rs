//! The two servers, and the people of a case.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    common::{
        User,
        federating::{Authority, Federating},
    },
    synapse::Synapse,
};

/// How long something may take to reach the other server.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct World {
    pub(crate) hearth: Federating,
    pub(crate) synapse: Synapse,
    /// Its file is read at each start.
    _authority: Authority,
}

/// Who keeps the room of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Hearth,
    Synapse,
}

/// Two people: one makes a room, the other is on the other server.
pub(crate) struct Case {
    pub(crate) version: &'static str,
    pub(crate) owner: User,
    pub(crate) guest: User,
    /// The name of the owner's server …
    pub(crate) via: String,
    /// … and of the guest's.
    pub(crate) from: String,
}

pub(crate) type Played = Result<(), String>;

impl World {
    pub(crate) async fn start() -> Self {
        let authority = Authority::new();
        let hearth = Federating::start(&authority, toml::Table::new()).await;
        let synapse = Synapse::start(&authority).await;
        Self { hearth, synapse, _authority: authority }
    }
}

impl Case {
    pub(crate) async fn new(world: &World, side: Side, version: &'static str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let here = world.hearth.server.register(&format!("here{number}")).await;
        let there = world.synapse.register(&format!("there{number}")).await;
        let names = (world.hearth.name.clone(), world.synapse.name.clone());
        match side {
            Side::Hearth => Self { version, owner: here, guest: there, via: names.0, from: names.1 },
            Side::Synapse => Self { version, owner: there, guest: here, via: names.1, from: names.0 },
        }
    }

    /// A room of the owner.
    pub(crate) async fn room(&self, preset: &str, more: Value) -> Result<String, String> {
        let mut body = json!({ "preset": preset, "room_version": self.version });
        body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        let answer = ok(self.owner.post("/v3/createRoom", body).await)?;
        Ok(answer["room_id"].as_str().unwrap_or_default().to_owned())
    }

    /// A room that the guest has joined.
    pub(crate) async fn shared(&self) -> Result<String, String> {
        let room = self.room("public_chat", json!({})).await?;
        self.enter(&self.guest, &room).await?;
        Ok(room)
    }

    /// Joins by way of the owner's server.
    pub(crate) async fn enter(&self, user: &User, room: &str) -> Result<(), String> {
        // The older name is what Synapse takes for rooms that it doesn't know.
        let path = format!("/v3/join/{room}?via={via}&server_name={via}", via = self.via);
        // Whoever keeps the room may still have to forgive this server for a case before.
        until(&format!("{} joins", user.user_id), async || {
            user.post(&path, json!({})).await.status.eq(&200).then_some(())
        })
        .await
    }
}

/// The body of an answer of success.
pub(crate) fn ok(answer: crate::common::Answer) -> Result<Value, String> {
    if answer.status == 200 { Ok(answer.json) } else { Err(format!("{answer:?}")) }
}

/// Asks until there is an answer.
pub(crate) async fn until<T>(what: &str, condition: impl AsyncFnMut() -> Option<T>) -> Result<T, String> {
    until_within(PATIENCE, what, condition).await
}

/// The same for what a server may put off by itself.
pub(crate) async fn until_within<T>(
    patience: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> Result<T, String> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = condition().await {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            return Err(format!("not within {patience:?}: {what}"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn ensure(is: bool, what: &str) -> Played {
    if is { Ok(()) } else { Err(what.to_owned()) }
}

/// All messages of a room that somebody finds by paging back, oldest first.
pub(crate) async fn messages(user: &User, room: &str) -> Vec<Value> {
    let mut events = history(user, room).await;
    events.retain(|event| event["type"] == "m.room.message");
    events
}

/// All events of a room that somebody finds by paging back, oldest first.
pub(crate) async fn history(user: &User, room: &str) -> Vec<Value> {
    let (mut events, mut from) = (Vec::new(), String::new());
    loop {
        let page = user.get(&format!("/v3/rooms/{room}/messages?dir=b&limit=100{from}")).await.json;
        let chunk = page["chunk"].as_array().cloned().unwrap_or_default();
        match page["end"].as_str() {
            Some(end) if !chunk.is_empty() => from = format!("&from={end}"),
            _ => from.clear(),
        }
        events.extend(chunk);
        if from.is_empty() {
            events.reverse();
            return events;
        }
    }
}

pub(crate) fn texts(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["content"]["body"].as_str()).collect()
}

/// Whether somebody sees an event of a room.
pub(crate) async fn sees(user: &User, room: &str, event: &str) -> Played {
    until(&format!("{} sees {event}", user.user_id), async || {
        user.get(&format!("/v3/rooms/{room}/event/{event}")).await.status.eq(&200).then_some(())
    })
    .await
}

/// The membership of a user in a room, as another sees it, becomes this.
pub(crate) async fn becomes(reader: &User, room: &str, user: &User, membership: &str) -> Played {
    let path = format!("/v3/rooms/{room}/state/m.room.member/{}", user.user_id);
    until(&format!("{} is {membership} for {}", user.user_id, reader.user_id), async || {
        (reader.get(&path).await.json["membership"] == membership).then_some(())
    })
    .await
}

/// Syncs until an answer has what is looked for.
pub(crate) async fn hears<T>(
    user: &User,
    what: &str,
    find: impl Fn(&Value) -> Option<T>,
) -> Result<T, String> {
    let deadline = Instant::now() + PATIENCE;
    let mut since: Option<String> = None;
    while Instant::now() < deadline {
        let answer = user.sync(since.as_deref(), 1000).await;
        if let Some(found) = find(&answer) {
            return Ok(found);
        }
        since = answer["next_batch"].as_str().map(str::to_owned);
    }
    Err(format!("{} doesn't hear of {what}", user.user_id))
}
