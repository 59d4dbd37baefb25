//! Three Hearths and a Synapse in one room, with a network between them that delays, that lets one thing overtake another,
//! that cuts one way between two servers or everything that leads to one, and heals: in the end all have every event, none
//! twice, and the same state.
//!
//! What is done and when what is cut follows from a seed, which a failure prints and `HEARTH_TEST_SEED` takes; the machine
//! decides the rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    common::{
        User,
        federating::{Authority, Federating},
        rounds,
    },
    synapse::Synapse,
    ways::{CUT, Reached, Ways},
    world::{history, ok, until},
};

const SERVERS: usize = 4;
/// How long all may take to hear of all that they missed.
const PATIENCE: Duration = Duration::from_mins(2);

struct Network {
    people: Vec<User>,
    ways: Arc<Ways>,
    first: String,
    _hearths: Vec<Federating>,
    _synapse: Synapse,
    _authority: Authority,
}

impl Network {
    /// New servers, which know nothing of each other yet.
    async fn start() -> Self {
        let authority = Authority::new();
        let (mut people, mut hearths, mut reached) = (Vec::new(), Vec::new(), Vec::new());
        for number in 1..SERVERS {
            let from = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let hearth = Federating::start_behind(&authority, from.local_addr().unwrap().port()).await;
            reached.push(Reached { from, port: hearth.port(), process: hearth.server.pid() });
            people.push(hearth.server.register(&format!("person{number}")).await);
            hearths.push(hearth);
        }
        let from = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let synapse = Synapse::start_behind(&authority, Some(from.local_addr().unwrap().port())).await;
        reached.push(Reached { from, port: synapse.federation_port(), process: synapse.pid() });
        people.push(synapse.register("person4").await);
        let (ways, first) = (Ways::new(reached), hearths[0].name.clone());
        Self { people, ways, first, _hearths: hearths, _synapse: synapse, _authority: authority }
    }

    /// A room of the first server that all are in, and in which all may do all things.
    async fn room(&self) -> Result<String, String> {
        let levels = json!({ "state_default": 0, "events_default": 0 });
        let body = json!({ "preset": "public_chat", "power_level_content_override": levels });
        let room =
            ok(self.people[0].post("/v3/createRoom", body).await)?["room_id"].as_str().unwrap().to_owned();
        for user in &self.people[1..] {
            let path = format!("/v3/join/{room}?via={via}&server_name={via}", via = self.first);
            until("everybody joins", async || {
                user.post(&path, json!({})).await.status.eq(&200).then_some(())
            })
            .await?;
        }
        Ok(room)
    }

    /// One way, or all that lead to one server, become something else.
    fn change(&self, chance: &mut StdRng) {
        let late = match chance.random_range(0..10) {
            0..3 => 0,
            3..6 => chance.random_range(1..150),
            _ => CUT,
        };
        let (from, to) = (chance.random_range(0..SERVERS), chance.random_range(0..SERVERS));
        for other in 0..SERVERS {
            if from == to || from == other {
                self.ways.set(other, to, late);
            }
        }
    }

    fn heal(&self) {
        for from in 0..SERVERS {
            for to in 0..SERVERS {
                self.ways.set(from, to, 0);
            }
        }
    }
}

/// All that somebody finds of a room: its events, and its state.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    events: BTreeSet<String>,
    state: BTreeMap<(String, String), String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn all_servers_end_with_the_same_room_whatever_the_network_did() {
    let seed = std::env::var("HEARTH_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = seed.map_or_else(|| (1..=rounds(1, 8) as u64).collect(), |seed| vec![seed]);
    for seed in seeds {
        if let Err(cause) = story(seed, rounds(60, 120)).await {
            panic!("HEARTH_TEST_SEED={seed}: {cause}");
        }
    }
}

async fn story(seed: u64, acts: usize) -> Result<(), String> {
    let network = Network::start().await;
    let room = network.room().await?;
    let mut chance = StdRng::seed_from_u64(seed);
    let mut sent = BTreeSet::new();
    for act in 0..acts {
        if act % 3 == 0 {
            network.change(&mut chance);
        }
        let user = &network.people[chance.random_range(0..SERVERS)];
        sent.insert(match chance.random_range(0..10) {
            0 | 1 => user.send_state(&room, "m.room.topic", "", json!({ "topic": act.to_string() })).await,
            2 => {
                let key = chance.random_range(0..3).to_string();
                user.send_state(&room, "org.example.thing", &key, json!({ "act": act })).await
            }
            _ => user.send_text(&room, &act.to_string()).await,
        });
        // Half of it comes in bursts.
        if act % 40 < 20 {
            tokio::time::sleep(Duration::from_millis(chance.random_range(0..100))).await;
        }
    }
    network.heal();
    // Whoever is spoken to by a server knows that it is back.
    for user in &network.people {
        sent.insert(user.send_text(&room, "healed").await);
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut all = Vec::new();
        for user in &network.people {
            all.push(found(user, &room).await?);
        }
        if all.iter().all(|found| *found == all[0]) && sent.is_subset(&all[0].events) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(difference(&all, &sent));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn found(user: &User, room: &str) -> Result<Found, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found = Found::default();
    for event in history(user, room).await {
        if !found.events.insert(text(&event["event_id"])) {
            return Err(format!("{} has it twice: {event}", user.user_id));
        }
    }
    let state = user.get(&format!("/v3/rooms/{room}/state")).await.json;
    for event in state.as_array().into_iter().flatten() {
        found.state.insert((text(&event["type"]), text(&event["state_key"])), text(&event["event_id"]));
    }
    Ok(found)
}

/// What each lacks of what all have together, and what of its state is another's than the first one's.
fn difference(all: &[Found], sent: &BTreeSet<String>) -> String {
    let mut union: BTreeSet<&String> = sent.iter().collect();
    union.extend(all.iter().flat_map(|found| &found.events));
    let lacks = |(number, found): (usize, &Found)| {
        let events: Vec<_> = union.iter().filter(|id| !found.events.contains(**id)).collect();
        let keys: BTreeSet<_> = all[0].state.keys().chain(found.state.keys()).collect();
        let state = keys.into_iter().map(|key| (key, found.state.get(key)));
        let state: Vec<_> = state.filter(|(key, id)| all[0].state.get(*key) != *id).collect();
        format!("{number} lacks {} of {}: {events:?}; its state has {state:?}", events.len(), union.len())
    };
    all.iter().enumerate().map(lacks).collect::<Vec<_>>().join("\n")
}
