//! I1, I4, I5 for readers by long-poll, stream and sliding sync, who change between the first two, whose lines are cut, and whose server is stopped and
//! killed: everything that was acknowledged, once, in one order, no gap but limited ones.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::Method;
use tokio::{task::JoinSet, time::timeout};

use super::*;
use crate::common::{
    history::{check, ids, whole_log},
    rounds,
};

const READERS: usize = 5;
const SLIDING: usize = 3;
const SENDERS: usize = 3;

/// Numbers by chance, from a seed.
#[derive(Clone)]
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What a device knows of a room.
struct Reader {
    user: User,
    port: u16,
    room: String,
    since: Option<String>,
    events: Vec<String>,
    chance: Chance,
}

impl Reader {
    /// Reads until it is told that it is over, and has seen all of `last`.
    async fn read(
        mut self,
        over: Arc<AtomicBool>,
        last: tokio::sync::watch::Receiver<Vec<String>>,
    ) -> Vec<String> {
        loop {
            if over.load(Ordering::SeqCst) && last.borrow().iter().all(|event| self.events.contains(event)) {
                return self.events;
            }
            if self.chance.below(2) == 0 {
                let polls = 1 + self.chance.below(3);
                for _ in 0..polls {
                    if self.poll().await.is_none() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            } else if self.stream().await.is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    async fn poll(&mut self) -> Option<()> {
        let since = self.since.as_ref().map(|since| format!("&since={since}")).unwrap_or_default();
        let path = format!("/v3/sync?timeout=200{since}");
        let http = self.user.http.clone();
        let answer = http.try_request(Method::GET, &path, Some(&self.user.access_token), None).await.ok()?;
        self.apply(&answer.expect(200)).await
    }

    /// A socket for some syncs, which is cut without a word.
    async fn stream(&mut self) -> Option<()> {
        let mut client = Client::try_resume(self.port, &self.user, self.since.as_deref()).await?;
        client.acks = self.chance.below(3) > 0;
        let syncs = 1 + self.chance.below(20);
        for _ in 0..syncs {
            let Ok(body) = timeout(Duration::from_millis(300), client.try_sync()).await else { break };
            self.apply(&body?).await?;
        }
        Some(())
    }

    /// Takes in a body, with the pages that close its gap; the position moves only if all of it could be had.
    async fn apply(&mut self, body: &Value) -> Option<()> {
        let timeline = &body["rooms"]["join"][&self.room]["timeline"];
        let mut new = Vec::new();
        if timeline["limited"] == true && self.since.is_some() {
            let to = self.since.as_ref().map(|since| format!("&to={since}")).unwrap_or_default();
            let mut from = timeline["prev_batch"].as_str().expect("a token").to_owned();
            loop {
                let path = format!("/v3/rooms/{}/messages?dir=b&limit=50&from={from}{to}", self.room);
                let http = &self.user.http;
                let page =
                    http.try_request(Method::GET, &path, Some(&self.user.access_token), None).await.ok()?;
                let page = page.expect(200);
                new.extend(ids(&page["chunk"]));
                match page["end"].as_str() {
                    Some(end) => end.clone_into(&mut from),
                    None => break,
                }
            }
            new.reverse();
        }
        new.extend(ids(&timeline["events"]));
        self.events.extend(new);
        self.since = Some(body["next_batch"].as_str().expect("a token").to_owned());
        Some(())
    }
}

/// A device that follows a room by sliding sync.
struct SlidingReader {
    user: User,
    room: String,
    pos: Option<String>,
    events: Vec<String>,
}

impl SlidingReader {
    async fn read(
        mut self,
        over: Arc<AtomicBool>,
        last: tokio::sync::watch::Receiver<Vec<String>>,
    ) -> Vec<String> {
        loop {
            if over.load(Ordering::SeqCst) && last.borrow().iter().all(|event| self.events.contains(event)) {
                return self.events;
            }
            if self.ask().await.is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    async fn ask(&mut self) -> Option<()> {
        let pos = self.pos.as_ref().map(|pos| format!("&pos={pos}")).unwrap_or_default();
        let path = format!("/unstable/org.matrix.simplified_msc3575/sync?timeout=200{pos}");
        let list = json!({ "ranges": [[0, 9]], "required_state": [], "timeline_limit": 20 });
        let body = json!({ "conn_id": "mixed", "lists": { "all": list } });
        let http = self.user.http.clone();
        let answer =
            http.try_request(Method::POST, &path, Some(&self.user.access_token), Some(body)).await.ok()?;
        if answer.status == 400 {
            // The server was another then; a new connection begins with the room as it is.
            assert_eq!(answer.json["errcode"], "M_UNKNOWN_POS", "{}", answer.json);
            self.pos = None;
            return Some(());
        }
        let answer = answer.expect(200);
        let room = &answer["rooms"][&self.room];
        let mut new = ids(&room["timeline"]);
        let known = self.events.last().cloned();
        if let Some(known) = &known
            && (room["limited"] == true || room["initial"] == true)
            && !new.contains(known)
        {
            let mut missed = self.missed(room["prev_batch"].as_str().expect("a token"), known).await?;
            missed.extend(new);
            new = missed;
        }
        if let Some(at) = known.and_then(|known| new.iter().position(|event| *event == known)) {
            assert_eq!(room["initial"], true, "an event comes twice only with a room that begins anew");
            new.drain(..=at);
        }
        self.events.extend(new);
        self.pos = Some(answer["pos"].as_str().expect("a position").to_owned());
        Some(())
    }

    /// The events between the last one that was seen and a timeline.
    async fn missed(&self, prev_batch: &str, known: &str) -> Option<Vec<String>> {
        let (mut missed, mut from) = (Vec::new(), prev_batch.to_owned());
        loop {
            let path = format!("/v3/rooms/{}/messages?dir=b&limit=50&from={from}", self.room);
            let token = Some(self.user.access_token.as_str());
            let page = self.user.http.try_request(Method::GET, &path, token, None).await.ok()?.expect(200);
            for event in ids(&page["chunk"]) {
                if event == known {
                    missed.reverse();
                    return Some(missed);
                }
                missed.push(event);
            }
            page["end"].as_str().expect("the last event that was seen is further back").clone_into(&mut from);
        }
    }
}

/// Sends over one or the other; what has no answer is tried again until it has one.
async fn send(user: User, port: u16, room: String, count: usize, mut chance: Chance) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let mut socket: Option<Client> = None;
    for number in 0..count {
        let body = json!({ "msgtype": "m.text", "body": number.to_string() });
        let id = format!("n{number}");
        loop {
            if chance.below(10) == 0 {
                socket = None;
            }
            let event = if chance.below(2) == 0 {
                let path = format!("/v3/rooms/{room}/send/m.room.message/{id}");
                let http = &user.http;
                let answer =
                    http.try_request(Method::PUT, &path, Some(&user.access_token), Some(body.clone())).await;
                answer.ok().map(|answer| answer.expect(200))
            } else {
                if socket.is_none() {
                    socket = Client::try_resume(port, &user, None).await;
                }
                match &mut socket {
                    Some(client) => {
                        let params = json!({ "room_id": room, "type": "m.room.message", "content": body });
                        client.begin_as(&id, "send", params).await;
                        let answer = client.try_answer(&id).await;
                        answer.map(|answer| answer.expect("sent"))
                    }
                    None => None,
                }
            };
            if let Some(event) = event {
                acknowledged.push(event["event_id"].as_str().expect("an id").to_owned());
                break;
            }
            socket = None;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn long_poll_stream_and_sliding_sync_mixed_with_cuts_restarts_and_kills() {
    for seed in 0..rounds(2, 30) as u64 {
        println!("seed {seed}");
        one_life(Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))).await;
    }
}

async fn one_life(mut chance: Chance) {
    let mut server = server().await;
    let mut users = Vec::new();
    for index in 0..READERS + SLIDING + SENDERS {
        users.push(server.register(&format!("user{index}")).await);
    }
    let room = room(&users[0], &users[1..].iter().collect::<Vec<_>>()).await;
    let over = Arc::new(AtomicBool::new(false));
    let (announce, last) = tokio::sync::watch::channel(Vec::new());
    let mut readers = JoinSet::new();
    for user in &users[..READERS] {
        let mut reader = Reader {
            user: user.clone(),
            port: server.port(),
            room: room.clone(),
            since: None,
            events: Vec::new(),
            chance: Chance(chance.below(u64::MAX)),
        };
        reader.poll().await.expect("a first answer");
        readers.spawn(reader.read(Arc::clone(&over), last.clone()));
    }
    for user in &users[READERS..READERS + SLIDING] {
        let (user, room) = (user.clone(), room.clone());
        let mut reader = SlidingReader { user, room, pos: None, events: Vec::new() };
        reader.ask().await.expect("a first answer");
        readers.spawn(reader.read(Arc::clone(&over), last.clone()));
    }
    let mut senders = JoinSet::new();
    for user in &users[READERS + SLIDING..] {
        let (user, room) = (user.clone(), room.clone());
        senders.spawn(send(user, server.port(), room, 60, Chance(chance.below(u64::MAX))));
    }
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(300 + chance.below(700))).await;
        if chance.below(2) == 0 {
            server.kill().await;
            server.start_again().await;
        } else {
            server.restart().await;
        }
    }
    let acknowledged: Vec<String> = senders.join_all().await.concat();
    announce.send_replace(acknowledged.clone());
    over.store(true, Ordering::SeqCst);
    let log: Vec<String> = ids(&Value::Array(whole_log(&users[0], &room).await));
    for seen in readers.join_all().await {
        check(&seen, &log, &acknowledged);
    }
}
