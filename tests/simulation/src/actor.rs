//! Somebody who does things by chance: what is to be done is tried until there is an answer, and what was acknowledged is
//! written down.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    client::{Answer, Client, encoded},
    device::{list, text},
    receipts::{Mark, PRIVATE, PUBLIC},
    world::{Person, Room, Sent, World},
};

pub(crate) struct Actor {
    pub(crate) world: Arc<World>,
    pub(crate) people: Arc<Vec<Person>>,
    pub(crate) me: usize,
    pub(crate) client: Client,
    pub(crate) chance: StdRng,
    /// Rooms that it has entered and not left, as far as it knows.
    mine: BTreeSet<String>,
    /// Numbers what it does.
    number: u32,
}

impl Actor {
    pub(crate) fn new(world: &Arc<World>, me: usize) -> Self {
        let people = world.people();
        let person = &people[me];
        let client = Client::new(world, &person.host, person.user_id.clone(), Some(person.token.clone()));
        let chance = StdRng::seed_from_u64(world.number());
        Self { world: Arc::clone(world), people, me, client, chance, mine: BTreeSet::new(), number: 0 }
    }

    pub(crate) fn user_id(&self) -> String {
        self.people[self.me].user_id.clone()
    }

    /// A text that is nowhere else.
    pub(crate) fn unique(&mut self) -> String {
        self.number += 1;
        format!("{}-{}", self.me, self.number)
    }

    fn room(&mut self) -> Option<Room> {
        let plot = self.world.plot.lock();
        let mine: Vec<&Room> = plot.rooms.iter().filter(|room| self.mine.contains(&room.room_id)).collect();
        // Sometimes one that it may not be in.
        if mine.is_empty() || self.chance.random_range(0..10) == 0 {
            return plot.rooms.choose(&mut self.chance).cloned();
        }
        mine.choose(&mut self.chance).map(|room| (*room).clone())
    }

    pub(crate) fn other(&mut self) -> usize {
        self.chance.random_range(0..self.people.len())
    }

    /// Does so many things, then makes sure that all of them are done.
    pub(crate) async fn run(mut self, acts: usize) {
        for _ in 0..acts {
            // Half of it comes in bursts.
            let most = if self.chance.random::<bool>() { 20 } else { 4000 };
            let pause = self.chance.random_range(0..most);
            sleep(Duration::from_millis(pause)).await;
            self.act().await;
        }
    }

    async fn act(&mut self) {
        match self.chance.random_range(0..100) {
            0..32 => self.send().await,
            32..41 => self.join().await,
            41..45 => self.create().await,
            45..51 => self.invite().await,
            51..55 => self.leave().await,
            55..60 => self.throw_out().await,
            60..67 => self.set_state().await,
            67..71 => self.redact().await,
            71..77 => self.read_up_to().await,
            77..81 => self.keep_data().await,
            81..88 => self.write_to_device().await,
            88..90 => self.publish_keys().await,
            90..92 => self.claim_key().await,
            92..94 => self.rename().await,
            94..96 => self.type_something().await,
            _ => self.snoop().await,
        }
    }

    pub(crate) async fn create(&mut self) {
        let visibility = ["shared", "shared", "joined", "invited", "world_readable"];
        let visibility = visibility.choose(&mut self.chance).copied().unwrap_or("shared");
        let rough = self.chance.random_range(0..3) == 0;
        let rule = json!({
            "type": "m.room.history_visibility", "state_key": "",
            "content": { "history_visibility": visibility },
        });
        // Some can throw others out.
        let strong = self.other();
        let mut users = json!({});
        if strong != self.me {
            users[&self.people[strong].user_id] = json!(50);
        }
        let levels = json!({ "state_default": 0, "kick": 50, "ban": 50, "invite": 0, "users": users });
        let version = ["10", "11", "12"].choose(&mut self.chance).copied().unwrap_or("11");
        let preset = if self.chance.random_range(0..3) > 0 { "public_chat" } else { "private_chat" };
        let mut levels = levels;
        if version != "12" {
            levels["users"][self.user_id()] = json!(100);
        }
        let body = json!({
            "preset": preset, "room_version": version,
            "initial_state": [rule], "power_level_content_override": levels,
        });
        // A room whose answer got lost stays what its creator alone knows of.
        let answer = self.client.once("POST", "/v3/createRoom", Some(&body), Duration::ZERO).await;
        let Some(answer) = answer else { return };
        if !answer.is_ok() {
            self.world.wrong(format!("a room can't be made: {answer:?}"));
            return;
        }
        let room_id = answer.text("room_id");
        self.mine.insert(room_id.clone());
        let (user_id, mut plot) = (self.user_id(), self.world.plot.lock());
        plot.near.insert((user_id, room_id.clone()));
        plot.rooms.push(Room { room_id, creator: self.me, visibility, rough });
    }

    pub(crate) async fn join(&mut self) {
        let room = self.world.plot.lock().rooms.choose(&mut self.chance).cloned();
        if let Some(room) = room {
            self.join_this(&room).await;
        }
    }

    pub(crate) async fn join_this(&mut self, room: &Room) -> bool {
        self.world.plot.lock().near.insert((self.user_id(), room.room_id.clone()));
        let via = encoded(&self.people[room.creator].host.name);
        let also = self.other();
        let also = encoded(&self.people[also].host.name);
        let path = format!("/v3/join/{}?via={via}&via={also}", encoded(&room.room_id));
        let answer = self.client.once("POST", &path, Some(&json!({})), Duration::ZERO).await;
        let is_in = answer.is_some_and(|answer| answer.is_ok());
        if is_in {
            self.mine.insert(room.room_id.clone());
        }
        is_in
    }

    pub(crate) async fn send(&mut self) {
        let Some(room) = self.room() else { return };
        self.send_to(&room).await;
    }

    /// A message, until it is acknowledged or refused.
    pub(crate) async fn send_to(&mut self, room: &Room) -> bool {
        let body = self.unique();
        let path = format!("/v3/rooms/{}/send/m.room.message/{body}", encoded(&room.room_id));
        let content = json!({ "msgtype": "m.text", "body": body });
        let Some(answer) = self.client.ask("PUT", &path, Some(&content)).await else { return false };
        if !answer.is_ok() {
            return false;
        }
        let event = answer.text("event_id");
        // Again, later: it is the same event.
        if self.chance.random_range(0..5) == 0 {
            let again = self.client.ask("PUT", &path, Some(&content)).await;
            if again.is_some_and(|again| !again.is_ok() || again.text("event_id") != event) {
                self.world.wrong(format!("I3: {path} isn't {event} again"));
            }
        }
        let (room, by, body) = (room.room_id.clone(), self.me, Some(body));
        self.world.plot.lock().sent.push(Sent { room, event, by, body });
        true
    }

    fn acknowledged(&self, room: &Room, answer: Option<Answer>) {
        let event = answer.filter(Answer::is_ok).map(|answer| answer.text("event_id"));
        if let Some(event) = event.filter(|event| !event.is_empty()) {
            let (room, by) = (room.room_id.clone(), self.me);
            self.world.plot.lock().sent.push(Sent { room, event, by, body: None });
        }
    }

    async fn set_state(&mut self) {
        let (Some(room), value) = (self.room(), self.unique()) else { return };
        let rest = match self.chance.random_range(0..3) {
            0 => "m.room.topic/".to_owned(),
            key => format!("org.example/{key}"),
        };
        let path = format!("/v3/rooms/{}/state/{rest}", encoded(&room.room_id));
        let content = json!({ "topic": value });
        let answer = self.client.once("PUT", &path, Some(&content), Duration::ZERO).await;
        self.acknowledged(&room, answer);
    }

    async fn on_room(&mut self, room: &Room, action: &str, body: Value) -> Option<Answer> {
        let path = format!("/v3/rooms/{}/{action}", encoded(&room.room_id));
        self.client.once("POST", &path, Some(&body), Duration::ZERO).await
    }

    async fn invite(&mut self) {
        let (Some(room), other) = (self.room(), self.other()) else { return };
        let user_id = self.people[other].user_id.clone();
        self.world.plot.lock().near.insert((user_id.clone(), room.room_id.clone()));
        self.on_room(&room, "invite", json!({ "user_id": user_id })).await;
    }

    async fn leave(&mut self) {
        let Some(room) = self.room().filter(|room| room.rough) else { return };
        if self.on_room(&room, "leave", json!({})).await.is_some_and(|answer| answer.is_ok()) {
            self.mine.remove(&room.room_id);
        }
    }

    async fn throw_out(&mut self) {
        let (Some(room), other) = (self.room().filter(|room| room.rough), self.other()) else { return };
        let action = ["kick", "kick", "ban", "unban", "unban"].choose(&mut self.chance).copied();
        let user_id = self.people[other].user_id.clone();
        self.on_room(&room, action.unwrap_or("kick"), json!({ "user_id": user_id })).await;
    }

    async fn redact(&mut self) {
        let mine: Vec<Sent> = {
            let plot = self.world.plot.lock();
            plot.sent.iter().filter(|sent| sent.by == self.me && sent.body.is_some()).cloned().collect()
        };
        let Some(sent) = mine.choose(&mut self.chance).cloned() else { return };
        let txn = self.unique();
        let path = format!("/v3/rooms/{}/redact/{}/{txn}", encoded(&sent.room), encoded(&sent.event));
        let answer = self.client.ask("PUT", &path, Some(&json!({}))).await;
        if let Some(answer) = answer.filter(Answer::is_ok) {
            let redaction = answer.text("event_id");
            self.world.plot.lock().redacted.push((sent.room, sent.event, redaction));
        }
    }

    async fn read_up_to(&mut self) {
        let Some(room) = self.room() else { return };
        let events: Vec<String> = {
            let plot = self.world.plot.lock();
            plot.sent.iter().filter(|sent| sent.room == room.room_id).map(|sent| sent.event.clone()).collect()
        };
        let Some(event) = events.choose(&mut self.chance).cloned() else { return };
        let kind = if self.chance.random_range(0..4) == 0 { PRIVATE } else { PUBLIC };
        let path = format!("receipt/{kind}/{}", encoded(&event));
        let mark =
            Mark { user: self.user_id(), room: room.room_id.clone(), event, kind, acknowledged: false };
        let number = {
            let marks = &mut self.world.plot.lock().marks;
            marks.push(mark);
            marks.len() - 1
        };
        let answer = self.on_room(&room, &path, json!({})).await;
        self.world.plot.lock().marks[number].acknowledged = answer.is_some_and(|answer| answer.is_ok());
    }

    async fn keep_data(&mut self) {
        let (kind, value) = (format!("org.example.{}", self.chance.random_range(0..3)), self.unique());
        let path = format!("/v3/user/{}/account_data/{kind}", encoded(&self.user_id()));
        let answer = self.client.ask("PUT", &path, Some(&json!({ "value": value }))).await;
        if answer.is_some_and(|answer| answer.is_ok()) {
            self.world.plot.lock().account_data.insert((self.user_id(), kind), value);
        }
    }

    async fn write_to_device(&mut self) {
        let (other, body) = (self.other(), self.unique());
        let person = &self.people[other];
        let Some((device, _)) = person.devices.choose(&mut self.chance).cloned() else { return };
        let user_id = person.user_id.clone();
        let message = json!({ "messages": { &user_id: { &device: { "body": body } } } });
        let path = format!("/v3/sendToDevice/org.example.mail/{body}");
        let answer = self.client.ask("PUT", &path, Some(&message)).await;
        if answer.is_some_and(|answer| answer.is_ok()) {
            let from = self.user_id();
            self.world.plot.lock().mail.push((user_id, device, from, body));
        }
    }

    async fn rename(&mut self) {
        let name = self.unique();
        let path = format!("/v3/profile/{}/displayname", encoded(&self.user_id()));
        self.client.once("PUT", &path, Some(&json!({ "displayname": name })), Duration::ZERO).await;
    }

    async fn type_something(&mut self) {
        let Some(room) = self.room() else { return };
        let user_id = self.user_id();
        let path = format!("/v3/rooms/{}/typing/{}", encoded(&room.room_id), encoded(&user_id));
        let body = json!({ "typing": true, "timeout": 5000 });
        self.client.once("PUT", &path, Some(&body), Duration::ZERO).await;
    }

    /// Looks at what may not be for it to see.
    async fn snoop(&mut self) {
        let (room, event) = {
            let plot = self.world.plot.lock();
            let Some(room) = plot.rooms.choose(&mut self.chance).cloned() else { return };
            let events: Vec<String> = plot
                .sent
                .iter()
                .filter(|sent| sent.room == room.room_id)
                .map(|sent| sent.event.clone())
                .collect();
            (room, events.choose(&mut self.chance).cloned())
        };
        let id = encoded(&room.room_id);
        let path = match (self.chance.random_range(0..4), event) {
            (0, Some(event)) => format!("/v3/rooms/{id}/event/{}", encoded(&event)),
            (1, Some(event)) => format!("/v3/rooms/{id}/context/{}", encoded(&event)),
            (2, _) => format!("/v3/rooms/{id}/state"),
            _ => format!("/v3/rooms/{id}/messages?dir=b&limit=20"),
        };
        let Some(answer) = self.client.once("GET", &path, None, Duration::ZERO).await else { return };
        let near = self.world.plot.lock().near.contains(&(self.user_id(), room.room_id.clone()));
        if !near && room.visibility != "world_readable" && answer.status < 400 {
            let found = list(&answer.json["chunk"]).len();
            let what = text(&answer.json["event_id"]);
            self.world.wrong(format!("I10: {} sees {path}: {what} {found}", self.user_id()));
        }
    }
}
