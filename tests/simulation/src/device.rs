//! A device that reads: a chain of `/sync`, a connection of sliding sync ([`sliding`](crate::sliding)), or sockets of the
//! stream ([`stream`](crate::stream)), each gap of which is closed, and nothing else. What it has in the end is what the
//! server has told it, by the rules of the specification.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    client::{Client, encoded},
    stream::Line,
    world::World,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    /// Takes the state from `state_after`.
    After,
    Sliding,
    /// Takes the state from `state_after`, too.
    Stream,
}

#[derive(Default)]
pub(crate) struct View {
    pub(crate) joined: bool,
    /// Ids by type and key.
    pub(crate) state: BTreeMap<(String, String), String>,
    /// Ids of events from the moment when it entered the room.
    pub(crate) log: Vec<String>,
    /// The last receipt of each user and type: the event.
    pub(crate) receipts: BTreeMap<(String, String), String>,
    /// How many unread messages it shows.
    pub(crate) unread: u64,
}

pub(crate) struct Device {
    pub(crate) client: Client,
    pub(crate) user_id: String,
    pub(crate) device_id: String,
    pub(crate) style: Style,
    /// Where it goes on: a token of `/sync` or the stream, or the `pos` of a connection.
    pub(crate) since: Option<String>,
    pub(crate) rooms: BTreeMap<String, View>,
    pub(crate) invites: BTreeSet<String>,
    pub(crate) account_data: BTreeMap<String, Value>,
    /// Contents of messages from device to device, in their order.
    pub(crate) mail: Vec<String>,
    /// Every event that it was ever shown, with its room.
    pub(crate) seen: BTreeSet<(String, String)>,
    /// How many rooms the list of a connection has, and those that it was told of.
    pub(crate) listed: Option<u64>,
    pub(crate) told: BTreeSet<String>,
    /// Where its messages go on, by sliding sync.
    pub(crate) mail_since: Option<String>,
    /// How many events of a room it wants to have at first, by sliding sync.
    pub(crate) limit: u64,
    /// Its open socket, by the stream.
    pub(crate) line: Option<Line>,
    pub(crate) chance: StdRng,
}

/// The elements of a list, or none.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub(crate) fn ids(events: &[Value]) -> impl Iterator<Item = String> {
    events.iter().map(|event| text(&event["event_id"]))
}

impl View {
    pub(crate) fn apply(&mut self, events: &[Value]) {
        for event in events.iter().filter(|event| event.get("state_key").is_some()) {
            let key = (text(&event["type"]), text(&event["state_key"]));
            self.state.insert(key, text(&event["event_id"]));
        }
    }

    /// Takes over an `m.receipt`.
    pub(crate) fn read(&mut self, content: &Value) {
        for (id, kinds) in content.as_object().into_iter().flatten() {
            for (kind, users) in kinds.as_object().into_iter().flatten() {
                for user in users.as_object().into_iter().flatten().map(|(user, _)| user) {
                    self.receipts.insert((user.clone(), kind.clone()), id.clone());
                }
            }
        }
    }
}

impl Device {
    pub(crate) fn new(world: &Arc<World>, client: Client, user_id: String, device_id: String) -> Self {
        let mut chance = StdRng::seed_from_u64(world.number());
        Self {
            client,
            user_id,
            device_id,
            style: [Style::Plain, Style::Stream, Style::After, Style::Sliding]
                .choose(&mut chance)
                .copied()
                .unwrap_or(Style::Plain),
            since: None,
            rooms: BTreeMap::new(),
            invites: BTreeSet::new(),
            account_data: BTreeMap::new(),
            mail: Vec::new(),
            seen: BTreeSet::new(),
            listed: None,
            told: BTreeSet::new(),
            mail_since: None,
            limit: [1, 3, 20].choose(&mut chance).copied().unwrap_or(3),
            line: None,
            chance,
        }
    }

    pub(crate) fn wrong(&self, what: &str) {
        self.client.world.wrong(format!("{what}: {} {}", self.user_id, self.device_id));
    }

    /// Reads until the run is over.
    pub(crate) async fn run(mut self) -> Self {
        while !self.client.world.is_over() {
            let wait = [0, 1000, 10_000, 30_000].choose(&mut self.chance).copied().unwrap_or(0);
            self.hear(wait).await;
            // Some are away for a while, now and then.
            let away = if self.chance.random_range(0..8) == 0 { 20_000 } else { 500 };
            let away = self.chance.random_range(0..away);
            sleep(Duration::from_millis(away)).await;
        }
        self
    }

    /// Reads what is left.
    pub(crate) async fn finish(&mut self) {
        // Several times: mail comes a hundred at a time, and what a sync does may have something come.
        for _ in 0..20 {
            let before = self.since.clone();
            let news = self.hear(0).await;
            if before.is_some() && !news.unwrap_or(self.since != before) {
                return;
            }
        }
    }

    /// One answer, if there is one; whether there is anything in it, if that is to be seen.
    async fn hear(&mut self, wait: u64) -> Option<bool> {
        match self.style {
            Style::Sliding => self.slide(wait).await,
            Style::Stream => Some(self.follow(wait).await),
            Style::Plain | Style::After => {
                self.sync(wait).await;
                None
            }
        }
    }

    async fn sync(&mut self, wait: u64) {
        let limit = [1, 2, 5, 10, 50].choose(&mut self.chance).copied().unwrap_or(10);
        let filter = json!({ "room": { "timeline": { "limit": limit } } });
        let mut path = format!("/v3/sync?timeout={wait}&filter={}", encoded(&filter.to_string()));
        if let Some(since) = &self.since {
            path = format!("{path}&since={since}");
        }
        if self.style == Style::After {
            path.push_str("&use_state_after=true");
        }
        let answer = self.client.once("GET", &path, None, Duration::from_millis(wait)).await;
        let Some(answer) = answer else { return };
        if !answer.is_ok() {
            self.wrong(&format!("/sync is refused: {answer:?}"));
            return;
        }
        self.take(&answer.json).await;
    }

    /// Takes over the body of a sync.
    pub(crate) async fn take(&mut self, body: &Value) {
        let rooms = |section: &str| body["rooms"][section].as_object().cloned().unwrap_or_default();
        for (room, _) in rooms("invite") {
            self.rooms.entry(room.clone()).or_default().joined = false;
            self.invites.insert(room);
        }
        for (room, part) in rooms("leave") {
            self.invites.remove(&room);
            self.see(&room, list(&part["timeline"]["events"]));
            self.rooms.entry(room).or_default().joined = false;
        }
        for (room, part) in rooms("join") {
            self.invites.remove(&room);
            self.join(&room, &part).await;
        }
        for event in list(&body["account_data"]["events"]) {
            self.account_data.insert(text(&event["type"]), event["content"].clone());
        }
        self.get_mail(list(&body["to_device"]["events"]));
        self.since = Some(text(&body["next_batch"]));
    }

    pub(crate) fn get_mail(&mut self, events: &[Value]) {
        for event in events {
            let body = text(&event["content"]["body"]);
            self.client.world.plot.lock().delivered.insert(body.clone());
            self.mail.push(body);
        }
    }

    pub(crate) fn see(&mut self, room: &str, events: &[Value]) {
        self.seen.extend(ids(events).map(|id| (room.to_owned(), id)));
    }

    async fn join(&mut self, room: &str, part: &Value) {
        let timeline = &part["timeline"];
        let events = list(&timeline["events"]);
        let new = !self.rooms.get(room).is_some_and(|view| view.joined);
        let gap = match self.since.clone() {
            Some(since) if !new && timeline["limited"] == true => {
                self.gap(room, &text(&timeline["prev_batch"]), Some(&since)).await
            }
            _ => Vec::new(),
        };
        self.see(room, events);
        let view = self.rooms.entry(room.to_owned()).or_default();
        if new {
            *view = View { joined: true, ..View::default() };
        }
        if matches!(self.style, Style::After | Style::Stream) {
            view.apply(list(&part["state_after"]["events"]));
        } else {
            view.apply(list(&part["state"]["events"]));
            view.apply(events);
        }
        view.log.extend(gap);
        view.log.extend(ids(events));
        for event in list(&part["ephemeral"]["events"]).iter().filter(|event| event["type"] == "m.receipt") {
            view.read(&event["content"]);
        }
        if let Some(count) = part["unread_notifications"]["notification_count"].as_u64() {
            view.unread = count;
        }
    }

    /// What lies between the last token, or what it has of the room, and the timeline, oldest first.
    pub(crate) async fn gap(&mut self, room: &str, from: &str, since: Option<&str>) -> Vec<String> {
        let (mut events, mut from) = (Vec::new(), from.to_owned());
        let to = since.map(|since| format!("&to={since}")).unwrap_or_default();
        let has: BTreeSet<String> = match since {
            None => self.rooms.get(room).into_iter().flat_map(|view| view.log.iter().cloned()).collect(),
            Some(_) => BTreeSet::new(),
        };
        // More pages than there can be.
        for _ in 0..1000 {
            let room_path = encoded(room);
            let path = format!("/v3/rooms/{room_path}/messages?dir=b&limit=7&from={from}{to}");
            let Some(page) = self.client.get(&path).await else { break };
            if !page.is_ok() {
                self.wrong(&format!("I5: a gap can't be closed: {page:?}"));
                break;
            }
            let chunk = list(&page.json["chunk"]);
            self.see(room, chunk);
            let new = ids(chunk).take_while(|id| !has.contains(id));
            events.extend(new);
            if ids(chunk).any(|id| has.contains(&id)) {
                events.reverse();
                return events;
            }
            let Some(end) = page.json["end"].as_str() else {
                events.reverse();
                return events;
            };
            end.clone_into(&mut from);
        }
        self.wrong("I5: a gap has no end");
        events
    }
}
