//! Clients that do nothing but apply what `/sync` tells them know what is true.
//!
//! Several users do random things in several rooms; their devices sync at random moments with various options, each as
//! a client would: it keeps state by the rules of the specification, closes gaps with `/messages`, and starts a room
//! over when it enters it. In the end each has the rooms, the state and the log that the server says there are. A failure
//! prints its seed; `HEARTH_TEST_SEED` repeats that one.

use std::collections::{BTreeMap, BTreeSet};

use rand::{
    RngExt as _, SeedableRng as _,
    rngs::StdRng,
    seq::{IndexedMutRandom as _, IndexedRandom as _},
};

use super::*;
use crate::common::history::whole_log;

/// What happens in one run, all in all.
const STEPS: usize = 400;

/// Says which run failed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("HEARTH_TEST_SEED={} repeats this run", self.0);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Plain,
    /// Takes the state from `state_after`.
    After(&'static str, &'static str),
    /// Loads members lazily.
    Lazy,
    /// Wants nothing but messages in its timelines.
    Messages,
}

#[derive(Default)]
struct View {
    joined: bool,
    /// Ids by type and key.
    state: BTreeMap<(String, String), String>,
    /// From the moment when it entered the room.
    log: Vec<String>,
}

struct Client {
    device: Device,
    style: Style,
    rooms: BTreeMap<String, View>,
    /// Rooms where it is invited.
    invites: BTreeSet<String>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is not text")).to_owned()
}

impl View {
    fn apply(&mut self, events: &[Value]) {
        for event in events.iter().filter(|event| event.get("state_key").is_some()) {
            let key = (text(&event["type"]), text(&event["state_key"]));
            self.state.insert(key, text(&event["event_id"]));
        }
    }
}

impl Client {
    fn new(user: &User, style: Style) -> Self {
        let (rooms, invites) = (BTreeMap::new(), BTreeSet::new());
        Self { device: Device::new(user), style, rooms, invites }
    }

    fn user(&self) -> &User {
        &self.device.user
    }

    fn query(&self, rng: &mut StdRng) -> String {
        let limit = [0, 1, 2, 5, 20].choose(rng).copied().unwrap_or(10);
        let mut room = json!({ "timeline": { "limit": limit } });
        let mut query = String::new();
        match self.style {
            Style::Plain => {}
            Style::After(name, _) => query = format!("&{name}=true"),
            Style::Lazy => room["state"] = json!({ "lazy_load_members": true }),
            Style::Messages => room["timeline"]["types"] = json!(["m.room.message"]),
        }
        query.push_str(&filter(&json!({ "room": room })));
        if rng.random_range(0..10) == 0 {
            query.push_str("&full_state=true");
        }
        query
    }

    async fn sync(&mut self, rng: &mut StdRng) {
        // Now and then an answer gets lost, and the client asks again from where it was.
        let kept = self.device.since.clone();
        if rng.random_range(0..8) == 0 {
            let query = self.query(rng);
            self.device.next_with(&query).await;
            self.device.since.clone_from(&kept);
        }
        let query = self.query(rng);
        let answer = self.device.next_with(&query).await;
        let map = |section: &str| answer["rooms"][section].as_object().cloned().unwrap_or_default();
        for (room, body) in map("invite") {
            assert!(!events(&body["invite_state"]).is_empty());
            self.invites.insert(room.clone());
            // A room they were in before may invite them again: then they are no longer in it.
            self.rooms.entry(room).or_default().joined = false;
        }
        for (room, body) in map("leave") {
            self.invites.remove(&room);
            let view = self.rooms.entry(room).or_default();
            if view.joined && self.style == Style::Plain {
                let last = events(&body["timeline"]).last();
                let own = last.is_none_or(|event| event["state_key"] == self.device.user.user_id.as_str());
                assert!(own, "SY-09: a left room's timeline ends with the leaving: {body}");
            }
            view.joined = false;
        }
        for (room, body) in map("join") {
            self.invites.remove(&room);
            self.join(&room, &body, kept.as_deref()).await;
        }
    }

    async fn join(&mut self, room: &str, body: &Value, since: Option<&str>) {
        let timeline = &body["timeline"];
        let new = !self.rooms.get(room).is_some_and(|view| view.joined);
        let gap = match since {
            Some(since) if !new && timeline["limited"] == true => self.gap(room, timeline, since).await,
            _ => Vec::new(),
        };
        let view = self.rooms.entry(room.to_owned()).or_default();
        if new {
            *view = View { joined: true, ..View::default() };
        }
        if let Style::After(_, key) = self.style {
            assert_eq!(body["state"], Value::Null, "SY-05");
            view.apply(body[key]["events"].as_array().expect("SY-05: always there"));
        } else {
            view.apply(body["state"]["events"].as_array().expect("always there"));
            view.apply(events(timeline));
        }
        view.log.extend(gap);
        view.log.extend(ids(timeline));
        if self.style == Style::Lazy {
            for event in events(timeline) {
                let sender = ("m.room.member".to_owned(), text(&event["sender"]));
                assert!(view.state.contains_key(&sender), "LL-01: {} is unknown in {room}: {body}", sender.1);
            }
        }
    }

    /// What lies between the last token and the timeline, oldest first.
    async fn gap(&self, room: &str, timeline: &Value, since: &str) -> Vec<String> {
        let mut events = Vec::new();
        let mut from = text(&timeline["prev_batch"]);
        let wanted = if self.style == Style::Messages {
            filter(&json!({ "types": ["m.room.message"] }))
        } else {
            String::new()
        };
        loop {
            let path = format!("/v3/rooms/{room}/messages?dir=b&limit=7&from={from}&to={since}{wanted}");
            let page = self.user().get(&path).await.expect(200);
            events.extend(common::history::ids(&page["chunk"]));
            match page["end"].as_str() {
                Some(end) => end.clone_into(&mut from),
                None => break,
            }
        }
        events.reverse();
        events
    }

    async fn check(&self) {
        let user = self.user();
        let who = format!("{} ({:?})", user.user_id, self.style);
        let answer = user.get("/v3/joined_rooms").await.expect(200);
        let joined: BTreeSet<String> = serde_json::from_value(answer["joined_rooms"].clone()).expect("ids");
        let known = self.rooms.iter().filter(|(_, view)| view.joined);
        assert_eq!(known.map(|(room, _)| room.clone()).collect::<BTreeSet<_>>(), joined, "rooms of {who}");
        // What a device that starts now hears of.
        let first = user.sync(None, 0).await;
        let rooms = |section: &str| -> BTreeSet<String> {
            let rooms = first["rooms"][section].as_object();
            rooms.map(|rooms| rooms.keys().cloned().collect()).unwrap_or_default()
        };
        assert_eq!(rooms("join"), joined, "rooms of a new device of {who}");
        assert_eq!(rooms("invite"), self.invites, "invites of {who}");
        for room in joined {
            let view = &self.rooms[&room];
            let mut state = View::default();
            let answer = user.get(&format!("/v3/rooms/{room}/state")).await.expect(200);
            state.apply(answer.as_array().expect("a list"));
            if self.style == Style::Lazy {
                state.state.retain(|key, _| key.0 != "m.room.member" || view.state.contains_key(key));
            }
            assert_eq!(view.state, state.state, "state of {room} as {who} knows it");

            let mut log = whole_log(user, &room).await;
            if self.style == Style::Messages {
                log.retain(|event| event["type"] == "m.room.message");
            }
            let log = common::history::ids(&Value::Array(log));
            assert!(log.ends_with(&view.log), "I5: {who} in {room}\nsaw {:#?}\nof  {log:#?}", view.log);
        }
    }
}

struct World {
    rng: StdRng,
    users: Vec<User>,
    rooms: Vec<String>,
    messages: Vec<(String, String)>,
}

impl World {
    fn pick(&mut self) -> (User, User, String) {
        let user = self.users.choose(&mut self.rng).expect("users").clone();
        let other = self.users.choose(&mut self.rng).expect("users").clone();
        let room = self.rooms.choose(&mut self.rng).expect("rooms").clone();
        (user, other, room)
    }

    async fn create_room(&mut self) {
        let (user, ..) = (self.users.choose(&mut self.rng).expect("users").clone(), ());
        let visibility = ["shared", "shared", "joined", "invited", "world_readable"];
        let visibility = visibility.choose(&mut self.rng).expect("one");
        let rule = json!({
            "type": "m.room.history_visibility", "state_key": "",
            "content": { "history_visibility": visibility },
        });
        let levels = json!({ "state_default": 0, "kick": 0, "ban": 0, "invite": 0, "redact": 0 });
        let room = user
            .create_room(json!({
                "preset": "public_chat", "initial_state": [rule], "power_level_content_override": levels,
            }))
            .await;
        self.rooms.push(room);
    }

    /// Something happens, or is refused: that is for other tests.
    async fn act(&mut self) {
        let (user, other, room) = self.pick();
        let number = self.rng.random_range(0..1_000_000);
        let target = json!({ "user_id": other.user_id });
        let on = |action: &str| format!("/v3/rooms/{room}/{action}");
        match self.rng.random_range(0..100) {
            0..35 => {
                let path = on(&format!("send/m.room.message/{}", common::transaction_id()));
                let sent = user.put(&path, json!({ "msgtype": "m.text", "body": number.to_string() })).await;
                if sent.status == 200 {
                    self.messages.push((room, text(&sent.json["event_id"])));
                }
            }
            35..45 => {
                drop(user.put(&on("state/m.room.topic/"), json!({ "topic": number.to_string() })).await);
            }
            45..55 => {
                let key = number % 3;
                drop(user.put(&on(&format!("state/org.example/{key}")), json!({ "x": number })).await);
            }
            55..72 => drop(user.post(&on("join"), json!({})).await),
            72..78 => drop(user.post(&on("leave"), json!({})).await),
            78..82 => drop(user.post(&on("kick"), target).await),
            82..86 => drop(user.post(&on("invite"), target).await),
            86..88 => drop(user.post(&on("ban"), target).await),
            88..92 => drop(user.post(&on("unban"), target).await),
            92..94 => {
                let path = format!("/v3/profile/{}/displayname", user.user_id);
                drop(user.put(&path, json!({ "displayname": number.to_string() })).await);
            }
            94..97 => {
                if let Some((room, event)) = self.messages.choose(&mut self.rng) {
                    let path = format!("/v3/rooms/{room}/redact/{event}/{}", common::transaction_id());
                    drop(user.put(&path, json!({})).await);
                }
            }
            97..98 => {
                let visibility = ["shared", "joined", "invited"].choose(&mut self.rng).expect("one");
                let content = json!({ "history_visibility": visibility });
                drop(user.put(&on("state/m.room.history_visibility/"), content).await);
            }
            _ => self.create_room().await,
        }
    }
}

async fn run(seed: u64, steps: usize) {
    let _seed = Seed(seed);
    let server = server().await;
    let mut users = Vec::new();
    for name in ["alice", "bob", "carol", "dave"] {
        users.push(server.register(name).await);
    }
    let styles = [
        Style::Plain,
        Style::After("use_state_after", "state_after"),
        Style::Lazy,
        Style::Messages,
        Style::After("org.matrix.msc4222.use_state_after", "org.matrix.msc4222.state_after"),
    ];
    let mut clients = Vec::new();
    for user in &users {
        let name = user.user_id.trim_start_matches('@').split(':').next().expect("a name");
        for style in styles {
            clients.push(Client::new(&server.login(name).await, style));
        }
    }
    let (rooms, messages) = (Vec::new(), Vec::new());
    let mut world = World { rng: StdRng::seed_from_u64(seed), users, rooms, messages };
    let mut rng = StdRng::seed_from_u64(!seed);
    world.create_room().await;
    world.create_room().await;
    for _ in 0..steps {
        let client = clients.choose_mut(&mut rng).expect("clients");
        match rng.random_range(0..6) {
            0 => client.sync(&mut rng).await,
            // Amid what happens.
            1 => drop(tokio::join!(world.act(), client.sync(&mut rng))),
            2 if rng.random_range(0..6) == 0 => {
                client.sync(&mut rng).await;
                client.check().await;
            }
            _ => world.act().await,
        }
    }
    for client in &mut clients {
        client.sync(&mut rng).await;
        client.check().await;
    }
}

#[tokio::test]
async fn clients_that_apply_their_syncs_know_what_is_true() {
    match std::env::var("HEARTH_TEST_SEED") {
        Ok(seed) => run(seed.parse().expect("HEARTH_TEST_SEED is a number"), STEPS).await,
        Err(_) => {
            for seed in 1..=common::rounds(2, 40) as u64 {
                run(seed, STEPS).await;
            }
        }
    }
}
