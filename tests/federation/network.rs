//! Three Hearths and a Synapse in one room, with a network between them that delays, refuses and cuts, and heals: all end
//! with the same events and the same state. What the network does follows from a seed, which a failure prints (`SEED=` runs
//! it again).

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
};

use crate::{
    common::{
        User,
        federating::{Authority, Federating},
        rounds,
    },
    synapse::Synapse,
    world::{history, ok, until},
};

/// The way to a server.
#[derive(Clone)]
struct Way(Arc<AtomicU64>);

/// Nothing comes through, and what was on its way is cut.
const CUT: u64 = u64::MAX;

impl Way {
    /// Forwards whatever comes to `from` to `to`, as late as it is told, in milliseconds.
    fn new(from: TcpListener, to: u16) -> Self {
        let way = Self(Arc::default());
        let state = way.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = from.accept().await {
                if state.0.load(Ordering::Relaxed) == CUT {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(state.clone().pass(from_client, to_server));
                tokio::spawn(state.clone().pass(from_server, to_client));
            }
        });
        way
    }

    async fn pass(self, mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf) {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            match self.0.load(Ordering::Relaxed) {
                CUT => return,
                late => tokio::time::sleep(Duration::from_millis(late)).await,
            }
            if to.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    }

    fn set(&self, late: u64) {
        self.0.store(late, Ordering::Relaxed);
    }
}

/// Numbers that follow from a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_servers_end_with_the_same_room_whatever_the_network_did() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = seed.map_or_else(|| (1..=rounds(1, 8) as u64).collect(), |seed| vec![seed]);
    let authority = Authority::new();
    let mut hearths = Vec::new();
    let mut ways = Vec::new();
    for _ in 0..3 {
        let from = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hearth = Federating::start_behind(&authority, from.local_addr().unwrap().port()).await;
        ways.push(Way::new(from, hearth.port()));
        hearths.push(hearth);
    }
    let from = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let synapse = Synapse::start_behind(&authority, Some(from.local_addr().unwrap().port())).await;
    ways.push(Way::new(from, synapse.federation_port()));
    for seed in seeds {
        let mut people = Vec::new();
        for hearth in &hearths {
            people.push(hearth.server.register(&format!("person{seed}")).await);
        }
        people.push(synapse.register(&format!("person{seed}")).await);
        if let Err(cause) = story(seed, &people, &hearths[0].name, &ways).await {
            panic!("SEED={seed}: {cause}");
        }
    }
}

async fn story(seed: u64, people: &[User], via: &str, ways: &[Way]) -> Result<(), String> {
    let users: serde_json::Map<String, Value> =
        people.iter().map(|user| (user.user_id.clone(), json!(100))).collect();
    let levels = json!({ "users": users });
    let room =
        json!({ "preset": "public_chat", "room_version": "11", "power_level_content_override": levels });
    let room = ok(people[0].post("/v3/createRoom", room).await)?["room_id"].as_str().unwrap().to_owned();
    for user in &people[1..] {
        let path = format!("/v3/join/{room}?via={via}&server_name={via}");
        until("everybody joins", async || user.post(&path, json!({})).await.status.eq(&200).then_some(()))
            .await?;
    }
    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for step in 0..40 {
        for way in ways {
            match chance.below(10) {
                0..5 => way.set(0),
                5..8 => way.set(chance.below(150)),
                _ => way.set(CUT),
            }
        }
        let user = &people[chance.below(people.len() as u64) as usize];
        if chance.below(4) == 0 {
            user.send_state(&room, "m.room.topic", "", json!({ "topic": format!("{step}") })).await;
        } else {
            user.send_text(&room, &format!("{step}")).await;
        }
        tokio::time::sleep(Duration::from_millis(chance.below(120))).await;
    }
    for way in ways {
        way.set(0);
    }
    // Whoever missed something learns of it by what follows.
    for attempt in 0..8 {
        for user in people {
            user.send_text(&room, &format!("healed {attempt}")).await;
        }
        if until_equal(&room, people).await {
            return Ok(());
        }
    }
    let mut report = Vec::new();
    for user in people {
        let (events, state) = seen(user, &room).await;
        report.push(format!("{}: {} events, {:?}", user.user_id, events.len(), state));
    }
    Err(report.join("\n"))
}

/// Whether all of them come to see the same before the next attempt.
async fn until_equal(room: &str, people: &[User]) -> bool {
    for _ in 0..40 {
        let mut all = Vec::new();
        for user in people {
            all.push(seen(user, room).await);
        }
        if all.windows(2).all(|pair| pair[0] == pair[1]) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    false
}

/// The messages of a room, and what its state is, by the ids of the events.
async fn seen(user: &User, room: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let id = |event: &Value| event["event_id"].as_str().unwrap_or_default().to_owned();
    let events = history(user, room).await;
    let messages = events.iter().filter(|event| event["type"] == "m.room.message").map(id).collect();
    let state = user.get(&format!("/v3/rooms/{room}/state")).await.json;
    (messages, state.as_array().into_iter().flatten().map(id).collect())
}
