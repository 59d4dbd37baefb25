//! People who go on with what they do whatever happens to their servers, and what they must find in the end.
//!
//! Each does one thing after the other: says something in a room, sets a state that is theirs, marks as read, sends a message to
//! somebody's device. What isn't answered, or answered with an error of the server, they do again, under the same
//! transaction id, until it is. Each follows all rooms by `/sync` on another device, closes gaps, and keeps what an answer said only
//! once all of it is there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::Method;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{sync::Notify, task::JoinHandle};

use crate::common::{
    Answer, Server, User,
    history::{ids, whole_log},
};

/// How long all servers may take to have all that was sent.
const AGREEMENT: Duration = Duration::from_mins(2);
/// What is said to devices.
const TO_DEVICE: &str = "org.example.number";
/// The state that everybody has one of.
const STATE: &str = "org.example.state";

/// Somebody, and the server that they are on.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) user: User,
    home: usize,
    follower: User,
}

/// Some people on some servers, in rooms that all are in.
#[derive(Clone)]
pub(crate) struct Party {
    pub(crate) people: Vec<Person>,
    pub(crate) rooms: Vec<String>,
}

/// A server, and the name by which others reach it.
pub(crate) type Home<'a> = (&'a Server, &'a str);

impl Party {
    pub(crate) async fn gather(homes: &[Home<'_>], each: usize, rooms: usize) -> Self {
        let mut people = Vec::new();
        for number in 0..each {
            for (home, (server, _)) in homes.iter().enumerate() {
                let name = format!("person{number}");
                let user = server.register(&name).await;
                people.push(Person { user, home, follower: server.login(&name).await });
            }
        }
        let mut all = Vec::new();
        for number in 0..rooms {
            let owner = &people[number % people.len()];
            let via = homes[owner.home].1;
            let levels = json!({ "state_default": 0 });
            let body = json!({ "preset": "public_chat", "power_level_content_override": levels });
            let room = owner.user.create_room(body).await;
            for person in people.iter().filter(|person| person.user.user_id != owner.user.user_id) {
                person.user.post(&format!("/v3/join/{room}?via={via}"), json!({})).await.expect(200);
            }
            all.push(room);
        }
        // Whoever came before hears of those who came after by their servers.
        for person in &people {
            for room in &all {
                crate::common::eventually("everybody is in all rooms", async || {
                    let answer = person.user.get(&format!("/v3/rooms/{room}/joined_members")).await;
                    let joined = answer.json["joined"].as_object().map_or(0, serde_json::Map::len);
                    (joined == people.len()).then_some(())
                })
                .await;
            }
        }
        Self { people, rooms: all }
    }
}

/// What was acknowledged.
#[derive(Clone, Default)]
pub(crate) struct Acknowledged {
    /// Event ids of messages by room, with the number that its sender gave each.
    messages: BTreeMap<String, Vec<(String, String)>>,
    /// The last state that somebody set in a room: (room, user) → its number.
    state: BTreeMap<(String, String), usize>,
    /// How many messages for devices went from a user to another.
    to_devices: BTreeMap<(String, String), usize>,
}

/// What a device has heard.
#[derive(Default)]
struct Heard {
    since: Option<String>,
    rooms: HashMap<String, Vec<String>>,
    to_device: BTreeMap<String, Vec<usize>>,
    /// (room, user) → event that they have read last.
    read: HashMap<(String, String), String>,
}

/// Counts, for who strikes at some moment.
#[derive(Default)]
pub(crate) struct Progress {
    acknowledged: AtomicUsize,
    more: Notify,
    ending: AtomicBool,
    followers_end: AtomicBool,
    /// The server may have forgotten what it acknowledged.
    pub(crate) forgetful: AtomicBool,
    /// Two servers go by different clocks, and by these it is decided which state holds where history forks.
    pub(crate) clocks_differ: AtomicBool,
    /// Answers that told of an error of the server.
    refused: AtomicUsize,
}

impl Progress {
    pub(crate) fn count(&self) -> usize {
        self.acknowledged.load(Ordering::SeqCst)
    }

    pub(crate) fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    /// Waits until so many more acts were acknowledged.
    pub(crate) async fn more(&self, acts: usize) {
        let wanted = self.count() + acts;
        let waited = Instant::now();
        while self.count() < wanted {
            assert!(waited.elapsed() < AGREEMENT, "nothing goes on");
            let _ = tokio::time::timeout(Duration::from_millis(100), self.more.notified()).await;
        }
    }
}

/// The people at work.
pub(crate) struct Load {
    pub(crate) party: Party,
    pub(crate) progress: Arc<Progress>,
    senders: Vec<JoinHandle<Acknowledged>>,
    followers: Vec<JoinHandle<Heard>>,
}

/// Between two acts of somebody, at most.
const PAUSE_MS: u64 = 20;

impl Load {
    /// Starts all people, who choose what they do by the seed.
    pub(crate) async fn start(party: &Party, seed: u64) -> Self {
        let progress = Arc::<Progress>::default();
        let mut followers = Vec::new();
        for person in &party.people {
            let first = person.follower.sync(None, 0).await;
            let since = first["next_batch"].as_str().unwrap().to_owned();
            let heard = Heard { since: Some(since), ..Heard::default() };
            let task = follow(person.follower.clone(), heard, Arc::clone(&progress));
            followers.push(tokio::spawn(task));
        }
        let senders = (0..party.people.len()).map(|number| {
            let chance = StdRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(number as u64));
            let sender = Sender { party: party.clone(), number, acts: 0, progress: Arc::clone(&progress) };
            tokio::spawn(sender.work(chance))
        });
        Self { party: party.clone(), senders: senders.collect(), followers, progress }
    }

    /// Lets everybody finish what they do: all that was acknowledged.
    async fn stop(&mut self) -> Acknowledged {
        self.progress.ending.store(true, Ordering::SeqCst);
        let mut all = Acknowledged::default();
        for sender in self.senders.drain(..) {
            let one = sender.await.expect("a sender");
            for (room, messages) in one.messages {
                all.messages.entry(room).or_default().extend(messages);
            }
            all.state.extend(one.state);
            all.to_devices.extend(one.to_devices);
        }
        all
    }

    /// Ends the load, and says of which acknowledged messages nothing is left.
    pub(crate) async fn lost(mut self) -> Vec<String> {
        let acknowledged = self.stop().await;
        for follower in &self.followers {
            follower.abort();
        }
        let mut lost = Vec::new();
        for (room, messages) in acknowledged.messages {
            let there: HashSet<String> =
                ids(&Value::Array(whole_log(&self.party.people[0].user, &room).await)).into_iter().collect();
            lost.extend(messages.into_iter().map(|(id, _)| id).filter(|id| !there.contains(id)));
        }
        lost
    }

    /// Ends the load. In the end all servers have all that was acknowledged, once, in an order that everybody on a server
    /// shares; every follower has seen all of it, in that order; messages for devices came once, in order.
    ///
    /// Returns how many acts were acknowledged.
    ///
    /// # Panics
    /// If anything of that isn't so.
    pub(crate) async fn end(mut self) -> usize {
        let acknowledged = self.stop().await;
        let count = self.progress.count();
        let people = self.party.people.clone();
        // Whoever is spoken to by a server knows that it is back.
        let mut last = HashMap::new();
        for person in &people {
            for room in &self.party.rooms {
                let event =
                    person.user.send_text(room, &format!("last words of {}", person.user.user_id)).await;
                last.insert((room.clone(), person.user.user_id.clone()), event);
            }
        }
        for ((room, user_id), event) in &last {
            for person in &people {
                agree(&format!("{} has the last words of {user_id}", person.user.user_id), async || {
                    let answer = person.user.get(&format!("/v3/rooms/{room}/event/{event}")).await;
                    (answer.status == 200).then_some(()).ok_or_else(|| answer.text())
                })
                .await;
            }
        }
        for room in &self.party.rooms {
            self.check_room(room, &acknowledged, last.values()).await;
        }

        // Everybody has read what they said last; who hears of that last has heard of all else.
        for person in &people {
            for room in &self.party.rooms {
                let event = &last[&(room.clone(), person.user.user_id.clone())];
                let path = format!("/v3/rooms/{room}/receipt/m.read/{event}");
                person.user.post(&path, json!({})).await.expect(200);
            }
        }
        self.progress.followers_end.store(true, Ordering::SeqCst);
        for (person, follower) in people.iter().zip(self.followers.drain(..)) {
            let mut heard = follower.await.expect("a follower");
            let name = person.user.user_id.clone();
            agree(&format!("{name} hears of all"), async || {
                step(&person.follower, &mut heard, 100).await?;
                for ((from, to), count) in &acknowledged.to_devices {
                    let got = heard.to_device.get(from).map_or(0, Vec::len);
                    if *to == name && got < *count {
                        return Err(format!("{got} of {count} messages of {from}"));
                    }
                }
                for ((room, user), event) in &last {
                    if !heard.rooms.get(room).is_some_and(|seen| seen.contains(event)) {
                        return Err(format!("not of the last event of {user} in {room}"));
                    }
                    if heard.read.get(&(room.clone(), user.clone())) != Some(event) {
                        return Err(format!("not of what {user} read last in {room}"));
                    }
                }
                Ok(())
            })
            .await;
            for room in &self.party.rooms {
                let log = ids(&Value::Array(whole_log(&person.user, room).await));
                let messages = acknowledged.messages.get(room).map(Vec::as_slice).unwrap_or_default();
                let messages: Vec<String> = messages.iter().map(|(id, _)| id.clone()).collect();
                crate::common::history::check(&heard.rooms[room], &log, &messages);
            }
            for ((from, to), count) in &acknowledged.to_devices {
                if *to == name {
                    let expected: Vec<usize> = (0..*count).collect();
                    assert_eq!(heard.to_device[from], expected, "from {from} to {to}: each once, in order");
                }
            }
        }
        count
    }

    async fn check_room(&self, room: &str, acknowledged: &Acknowledged, last: impl Iterator<Item = &String>) {
        let messages = acknowledged.messages.get(room).map(Vec::as_slice).unwrap_or_default();
        let mut wanted: BTreeSet<&String> = messages.iter().map(|(id, _)| id).collect();
        let last: BTreeSet<&String> = last.collect();
        agree(&format!("the servers agree about {room}"), async || {
            let mut logs: Vec<(usize, Vec<Value>)> = Vec::new();
            for person in &self.party.people {
                logs.push((person.home, whole_log(&person.user, room).await));
            }
            // Of this load; what was before, another server may have or not.
            let of_load = |log: &[Value]| {
                let ours =
                    log.iter().filter(|event| event["type"] == "m.room.message" || event["type"] == STATE);
                ids(&Value::Array(ours.cloned().collect()))
            };
            let first = of_load(&logs[0].1);
            let all: BTreeSet<&String> = first.iter().collect();
            if all.len() != first.len() {
                return Err("an event is there twice".to_owned());
            }
            for (home, log) in &logs {
                let theirs = of_load(log);
                let same = if *home == logs[0].0 { theirs == first } else { theirs.len() == first.len() };
                let set: BTreeSet<&String> = theirs.iter().collect();
                if !same || set != all {
                    let lacks: Vec<_> = all.symmetric_difference(&set).collect();
                    return Err(format!("server {home} has another log than {}: {lacks:?}", logs[0].0));
                }
            }
            wanted.retain(|id| !all.contains(*id));
            if let Some(id) = wanted.first() {
                return Err(format!("{id} was acknowledged and is lost, and {} more", wanted.len() - 1));
            }
            // Each number of a sender once, and on their own server in order, however often it was tried.
            for person in &self.party.people {
                let (_, log) = logs.iter().find(|(home, _)| *home == person.home).unwrap();
                let theirs = log.iter().filter(|event| event["sender"] == *person.user.user_id);
                let theirs = theirs.filter(|event| event["type"] == "m.room.message");
                let numbers: Vec<usize> = theirs
                    .filter_map(|event| event["content"]["number"].as_u64())
                    .map(|n| n as usize)
                    .collect();
                let mut sorted = numbers.clone();
                sorted.sort_unstable();
                sorted.dedup();
                if sorted != numbers {
                    return Err(format!(
                        "messages of {} twice or out of order: {numbers:?}",
                        person.user.user_id
                    ));
                }
                let acknowledged = messages.iter().filter(|(_, by)| *by == person.user.user_id).count();
                if acknowledged != numbers.len() {
                    return Err(format!("{acknowledged} acknowledged, {} there", numbers.len()));
                }
            }
            let mut states = Vec::new();
            for person in &self.party.people {
                let state = person.user.get(&format!("/v3/rooms/{room}/state")).await.expect(200);
                let mut state = ids(&state);
                state.sort_unstable();
                states.push(state);
                for ((of, user), number) in &acknowledged.state {
                    if of == room && !self.progress.clocks_differ.load(Ordering::SeqCst) {
                        let there = person.user.get(&format!("/v3/rooms/{room}/state/{STATE}/{user}")).await;
                        if there.json["number"] != json!(number) {
                            return Err(format!("{user} set {number}, there is {}", there.text()));
                        }
                    }
                }
            }
            if states.iter().any(|state| *state != states[0]) {
                return Err(format!("different states: {states:?}"));
            }
            if !last.iter().any(|id| all.contains(*id)) {
                return Err("no last words".to_owned());
            }
            Ok(())
        })
        .await;
    }
}

/// Asks again and again until it is so; else panics with what was wrong last.
async fn agree(what: &str, mut condition: impl AsyncFnMut() -> Result<(), String>) {
    let deadline = Instant::now() + AGREEMENT;
    while let Err(cause) = condition().await {
        assert!(Instant::now() < deadline, "not within {AGREEMENT:?}: {what}: {cause}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

struct Sender {
    party: Party,
    /// Of the person.
    number: usize,
    acts: usize,
    progress: Arc<Progress>,
}

impl Sender {
    async fn work(mut self, mut chance: StdRng) -> Acknowledged {
        let mut done = Acknowledged::default();
        let me = self.party.people[self.number].clone();
        let name = me.user.user_id.clone();
        let mut read = None;
        while !self.progress.ending.load(Ordering::SeqCst) {
            self.acts += 1;
            let act = self.acts;
            let room = self.party.rooms[chance.random_range(0..self.party.rooms.len())].clone();
            match chance.random_range(0..10) {
                0 => {
                    let content = json!({ "number": act });
                    self.put(&format!("/v3/rooms/{room}/state/{STATE}/{name}"), &content).await;
                    done.state.insert((room, name.clone()), act);
                }
                1 => {
                    let next = (self.number + 1) % self.party.people.len();
                    let other = &self.party.people[next].follower;
                    let count = done.to_devices.entry((name.clone(), other.user_id.clone())).or_default();
                    let content = json!({ "number": *count });
                    let body = json!({ "messages": { &other.user_id: { &other.device_id: content } } });
                    self.put(&format!("/v3/sendToDevice/{TO_DEVICE}/{act}"), &body).await;
                    *count += 1;
                }
                2 => {
                    if let Some((room, event)) = read.take() {
                        let path = format!("/v3/rooms/{room}/receipt/m.read/{event}");
                        self.ask(Method::POST, &path, &json!({})).await;
                    }
                }
                _ => {
                    let body =
                        json!({ "msgtype": "m.text", "body": format!("{act} of {name}"), "number": act });
                    let path = format!("/v3/rooms/{room}/send/m.room.message/a{act}");
                    let event = self.put(&path, &body).await["event_id"].as_str().unwrap().to_owned();
                    read = Some((room.clone(), event.clone()));
                    done.messages.entry(room).or_default().push((event, name.clone()));
                }
            }
            self.progress.acknowledged.fetch_add(1, Ordering::SeqCst);
            self.progress.more.notify_waiters();
            tokio::time::sleep(Duration::from_millis(chance.random_range(0..PAUSE_MS))).await;
        }
        done
    }

    async fn put(&self, path: &str, body: &Value) -> Value {
        self.ask(Method::PUT, path, body).await
    }

    /// Asks until there is an answer of success.
    async fn ask(&self, method: Method, path: &str, body: &Value) -> Value {
        let user = &self.party.people[self.number].user;
        loop {
            let asked =
                user.http.try_request(method.clone(), path, Some(&user.access_token), Some(body.clone()));
            match asked.await {
                Ok(answer) if answer.status == 200 => return answer.json,
                Ok(answer) if answer.status == 404 && self.progress.forgetful.load(Ordering::SeqCst) => {
                    return answer.json;
                }
                Ok(answer) => {
                    assert!(
                        may_be_tried_again(&answer),
                        "{method} {path}: {} {}",
                        answer.status,
                        answer.text()
                    );
                    self.progress.refused.fetch_add(1, Ordering::SeqCst);
                }
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Whether the server says, in Matrix's way, that it couldn't.
fn may_be_tried_again(answer: &Answer) -> bool {
    answer.status >= 500 && answer.json["errcode"].is_string() && answer.json["error"].is_string()
}

async fn follow(user: User, mut heard: Heard, progress: Arc<Progress>) -> Heard {
    while !progress.followers_end.load(Ordering::SeqCst) {
        if step(&user, &mut heard, 1000).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    heard
}

/// One `/sync`, and the pages that close its gaps; nothing of it counts if any of that has no answer.
async fn step(user: &User, heard: &mut Heard, timeout: u64) -> Result<(), String> {
    let since = heard.since.clone().unwrap();
    let answer = get(user, &format!("/v3/sync?timeout={timeout}&since={since}")).await?;
    let mut new = Vec::new();
    for (room, joined) in answer["rooms"]["join"].as_object().into_iter().flatten() {
        let timeline = &joined["timeline"];
        let mut events = Vec::new();
        if timeline["limited"] == true {
            let prev_batch = timeline["prev_batch"].as_str().expect("a limited timeline has a prev_batch");
            events = gap(user, room, prev_batch, &since).await?;
        }
        events.extend(ids(&timeline["events"]));
        new.push((room.clone(), events));
    }
    for (room, events) in new {
        heard.rooms.entry(room).or_default().extend(events);
    }
    for (room, joined) in answer["rooms"]["join"].as_object().into_iter().flatten() {
        for event in joined["ephemeral"]["events"].as_array().into_iter().flatten() {
            for (read, by) in event["content"].as_object().into_iter().flatten() {
                for user in by["m.read"].as_object().into_iter().flat_map(|users| users.keys()) {
                    heard.read.insert((room.clone(), user.clone()), read.clone());
                }
            }
        }
    }
    for event in answer["to_device"]["events"].as_array().into_iter().flatten() {
        if event["type"] == TO_DEVICE {
            let number = event["content"]["number"].as_u64().unwrap() as usize;
            let from = event["sender"].as_str().unwrap().to_owned();
            heard.to_device.entry(from).or_default().push(number);
        }
    }
    heard.since = Some(answer["next_batch"].as_str().expect("next_batch").to_owned());
    Ok(())
}

async fn gap(user: &User, room: &str, prev_batch: &str, to: &str) -> Result<Vec<String>, String> {
    let (mut events, mut from) = (Vec::new(), prev_batch.to_owned());
    loop {
        let path = format!("/v3/rooms/{room}/messages?dir=b&limit=100&from={from}&to={to}");
        let page = get(user, &path).await?;
        events.extend(ids(&page["chunk"]));
        match page["end"].as_str() {
            Some(end) => end.clone_into(&mut from),
            None => break,
        }
    }
    events.reverse();
    Ok(events)
}

async fn get(user: &User, path: &str) -> Result<Value, String> {
    let answer = user.http.try_request(Method::GET, path, Some(&user.access_token), None).await;
    let answer = answer.map_err(|cause| cause.0)?;
    if answer.status == 200 {
        return Ok(answer.json);
    }
    assert!(may_be_tried_again(&answer), "GET {path}: {} {}", answer.status, answer.text());
    Err(answer.text())
}
