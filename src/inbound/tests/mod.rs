//! Stories of transactions of another server that has real keys, on a real database.

mod edus;
mod gaps;
mod holes;
mod policy;

use std::sync::Arc;

use hearth_federation::{
    BlockedKeys, ClientError, Draft, KnownKeys, Limits, Pdu, Position, Response, ServerKeys, ServerRequest,
    SigningKey, Task, own_server_keys,
};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, RoomVersionId, events::room::member::MembershipState,
    owned_event_id, owned_room_id, owned_server_name, owned_user_id,
};
use serde_json::{Value, json, value::to_raw_value};
use tokio::sync::Semaphore;

use super::*;
use crate::{
    config,
    keys::to_device::tests::to_device_of,
    peers::{OwnKeys, Wire},
    presence,
    room::{
        Hearsay,
        received_tests::{SEED, Story, text},
    },
    store::server_key::set_server_keys,
};

/// How long a transaction may take here before it is answered half done.
const PATIENCE: Duration = Duration::from_mins(1);

/// A story, and the way by which other servers reach it.
pub(super) struct Meeting {
    pub(super) story: Story,
    pub(super) inbound: Arc<Inbound>,
    origin: OwnedServerName,
    pub(super) there: Arc<There>,
}

/// What the other server answers: events that it has, of which it gives those that are asked for.
#[derive(Default)]
pub(super) struct There {
    events: Mutex<Vec<Pdu>>,
    asked: Mutex<Vec<(String, Value)>>,
    /// The state before each event, and those of it that may not be known elsewhere.
    state: Mutex<Option<(Vec<OwnedEventId>, Vec<Value>)>>,
    /// It gives missing events only when there is a permit.
    slow: Mutex<Option<Arc<Semaphore>>>,
    /// What it answers as a policy server.
    policy: Mutex<Option<Result<SigningKey, Value>>>,
    /// Instead of missing events, or of history.
    lies: Mutex<Option<Value>>,
}

impl There {
    /// The state before any event is this; `events` are those that can be had one by one.
    fn keeps(&self, state: &[OwnedEventId], events: &[(&OwnedEventId, Value)]) {
        let events = events.iter().map(|(id, pdu)| json!({ "wanted": &id.as_str()[1..], "pdu": pdu }));
        *self.state.lock() = Some((state.to_vec(), events.collect()));
    }

    fn has(&self, events: &[&Pdu]) {
        self.events.lock().extend(events.iter().map(|event| (*event).clone()));
    }

    /// As the specification has it, one event at a time.
    fn missing_events(&self, asked: &Value) -> Value {
        let ids = |key: &str| -> Vec<OwnedEventId> { serde_json::from_value(asked[key].clone()).unwrap() };
        let (mut queue, earliest) = (ids("latest_events"), ids("earliest_events"));
        let limit = asked["limit"].as_u64().unwrap() as usize;
        let events = self.events.lock();
        let mut found: Vec<&Pdu> = Vec::new();
        let mut next = 0;
        while let Some(id) = queue.get(next).cloned() {
            next += 1;
            let Some(event) = events.iter().find(|event| event.event_id == id) else { continue };
            for previous in &event.prev_events {
                if queue.contains(previous) || earliest.contains(previous) || found.len() == limit {
                    continue;
                }
                queue.push(previous.clone());
                found.extend(events.iter().find(|event| event.event_id == *previous));
            }
        }
        json!({ "events": found.into_iter().map(wire).collect::<Vec<_>>() })
    }

    fn answer(&self, uri: &str, body: &Value) -> Value {
        let state = self.state.lock();
        let lie = self.lies.lock().clone();
        match (uri.split('/').nth(4), &*state) {
            (Some("get_missing_events"), _) => lie.unwrap_or_else(|| self.missing_events(body)),
            (Some("state_ids"), Some((ids, _))) => json!({ "pdu_ids": ids, "auth_chain_ids": [] }),
            (Some("backfill"), _) => lie.unwrap_or_else(
                || json!({ "pdus": self.events.lock().iter().map(wire).collect::<Vec<_>>() }),
            ),
            (Some("event"), Some((_, events))) => {
                let wanted = uri.split('/').nth(5).unwrap().trim_start_matches("%24");
                let id = |event: &&Value| event["wanted"] == wanted;
                json!({ "pdus": events.iter().filter(id).map(|event| &event["pdu"]).collect::<Vec<_>>() })
            }
            (Some("sign"), _) => match &*self.policy.lock() {
                Some(Ok(key)) => policy::signature(body, key),
                _ => json!({}),
            },
            _ => json!({}),
        }
    }
}

impl Wire for There {
    fn send<'a>(
        &'a self,
        server: &'a ServerName,
        request: ServerRequest,
    ) -> Task<'a, Result<Response, ClientError>> {
        assert_eq!(server, "elsewhere");
        let body = serde_json::from_str(request.body().unwrap_or("null")).unwrap();
        let answer = self.answer(request.uri(), &body);
        let refused = match &*self.policy.lock() {
            Some(Err(words)) if request.uri().ends_with("/sign") => Some(ClientError::Refused {
                status: http::StatusCode::BAD_REQUEST,
                errcode: words["errcode"].as_str().unwrap().to_owned(),
                message: words["error"].as_str().unwrap().to_owned(),
                retry_after_ms: None,
            }),
            _ => None,
        };
        self.asked.lock().push((request.uri().to_owned(), body));
        let body = answer.to_string().into();
        let slow = self.slow.lock().clone().filter(|_| request.uri().contains("/get_missing_events/"));
        Box::pin(async move {
            if let Some(slow) = slow {
                slow.acquire().await.unwrap().forget();
            }
            if let Some(refused) = refused {
                return Err(refused);
            }
            Ok(Response { status: http::StatusCode::OK, headers: http::HeaderMap::new(), body })
        })
    }
}

impl Meeting {
    pub(super) async fn new() -> Self {
        let story = Story::new().await;
        let origin = owned_server_name!("elsewhere");
        let (store, environment) = (story.world.store.clone(), story.world.environment.clone());
        let key = SigningKey::from_text(SEED).unwrap();
        let now = environment.clock.now();
        let document = own_server_keys(&origin, &[&key], &[], now);
        let keys = ServerKeys::read(&document, &origin, now, &BlockedKeys::default()).unwrap();
        let keys = serde_json::to_string(&KnownKeys::new(keys, now)).unwrap();
        store.commit(set_server_keys(origin.as_str(), keys)).await.unwrap();
        let own = OwnKeys { key: Arc::new(SigningKey::from_text(SEED).unwrap()), old: Vec::new() };
        let config = config::Federation { notaries: Vec::new(), ..config::Federation::default() };
        let peers = Peers::new(owned_server_name!("localhost"), own, &config, store.clone(), &environment);
        let there = Arc::new(There::default());
        let peers = peers.unwrap().through(Arc::<There>::clone(&there));
        let (queues, rooms) = (&story.world.queues, Arc::clone(&story.world.rooms));
        let settings =
            presence::Settings { enabled: true, times: presence::Times { idle: 300_000, grace: 30_000 } };
        let accounts = Arc::clone(&story.world.accounts);
        let presence = Presence::new(settings, store.clone(), accounts, queues, &environment);
        let receipts = Arc::new(Receipts::new(store.clone(), Arc::clone(&rooms), environment));
        let typing = Typing::new(queues.clone());
        rooms.ask_policy_servers_by(Arc::<Peers>::clone(&peers));
        let history = Arc::new(History::new(Arc::clone(&peers), Arc::clone(&rooms)));
        let to_device = to_device_of(&story.world, Some(&peers));
        let inbound = Inbound::new(store, peers, rooms, history, typing, presence, receipts, to_device);
        let inbound = inbound.answering_within(PATIENCE);
        Self { story, inbound, origin, there }
    }

    /// The server as it is after a restart, as far as transactions go.
    async fn restart(&mut self) {
        self.inbound.store.published().await.unwrap();
        let Inbound { store, peers, rooms, history, typing, presence, heard, .. } = &*self.inbound;
        let (store, peers, rooms) = (store.clone(), Arc::clone(peers), Arc::clone(rooms));
        let (history, typing, presence) = (Arc::clone(history), Arc::clone(typing), Arc::clone(presence));
        let (heard, to_device) = (Arc::clone(heard), to_device_of(&self.story.world, Some(&peers)));
        let inbound = Inbound::new(store, peers, rooms, history, typing, presence, heard, to_device);
        self.inbound = inbound.answering_within(PATIENCE);
    }

    pub(super) async fn take(&self, txn_id: &str, pdus: &[Value]) -> Value {
        let body = json!({ "origin": "elsewhere", "origin_server_ts": 1, "pdus": pdus }).to_string();
        self.take_text(txn_id, &body).await
    }

    async fn take_text(&self, txn_id: &str, body: &str) -> Value {
        self.take_from(&self.origin, txn_id, body).await
    }

    async fn take_from(&self, origin: &ServerName, txn_id: &str, body: &str) -> Value {
        let transaction = serde_json::from_str(body).unwrap();
        let answer = self.inbound.take(origin, txn_id, transaction).await.unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    fn say(&mut self, body: &str) -> Pdu {
        self.story.by_rita("m.room.message", None, text(body), &[])
    }

    async fn has(&self, event_id: &OwnedEventId) -> bool {
        self.story.world.rooms.event(&self.story.room, event_id).await.is_ok()
    }
}

pub(super) fn wire(pdu: &Pdu) -> Value {
    serde_json::from_str(pdu.json.get()).unwrap()
}

/// TX-01: nothing of a transaction that is too long is even looked at.
#[test]
fn tx_01_long_transactions_are_refused() {
    let read = |pdus: usize, edus: usize| {
        let body = json!({ "pdus": vec![json!({}); pdus], "edus": vec![json!({}); edus] }).to_string();
        serde_json::from_str::<Transaction>(&body).map_err(|cause| cause.to_string())
    };
    assert!(read(50, 100).is_ok());
    assert!(read(51, 0).is_err_and(|cause| cause.contains("more than 50")));
    assert!(read(0, 101).is_err_and(|cause| cause.contains("more than 100")));
}

/// TX-04, PD-04, I7: each event is judged for itself, and only what was dropped has an error.
#[tokio::test]
async fn tx_04_a_bad_event_is_an_error_for_itself() {
    let mut meeting = Meeting::new().await;
    let good = meeting.say("good");
    let unsigned = meeting.say("not signed");
    let mut unsigned_wire = wire(&unsigned);
    unsigned_wire["signatures"] = json!({});
    let stranger = owned_user_id!("@stranger:elsewhere");
    let rejected = meeting.story.event(&stranger, "m.room.message", None, text("who?"), &[]);
    let changed = meeting.say("as it was");
    let mut changed_wire = wire(&changed);
    changed_wire["content"]["body"] = json!("as it isn't");
    let last = meeting.say("last");
    let mut deep = wire(&meeting.say("too deep"));
    deep["depth"] = json!(9_007_199_254_740_992_i64);
    let answer = meeting
        .take(
            "1",
            &[
                json!({}),
                json!(7),
                wire(&good),
                unsigned_wire,
                wire(&rejected),
                deep,
                changed_wire,
                json!({ "room_id": "!unknown:elsewhere", "type": "m.room.message" }),
                json!({ "room_id": meeting.story.room.room_id }),
                wire(&last),
            ],
        )
        .await;
    let pdus = &answer["pdus"];
    for event in [&good, &rejected, &changed, &last] {
        assert_eq!(pdus[event.event_id.as_str()], json!({}), "{answer}");
        assert!(meeting.has(&event.event_id).await);
    }
    let why = pdus[unsigned.event_id.as_str()]["error"].as_str().unwrap();
    assert!(why.contains("no signature of elsewhere"), "{why}");
    assert!(!meeting.has(&unsigned.event_id).await);
    assert_eq!(pdus.as_object().unwrap().len(), 5, "{answer}");
    // SG-07: what was changed on the way is what a redaction leaves.
    let kept = meeting.story.world.rooms.event(&meeting.story.room, &changed.event_id).await.unwrap();
    assert_eq!(kept.pdu.content.get(), "{}");
}

/// TX-03: a transaction is done once, and answered as it was, by a server that was restarted too.
#[tokio::test]
async fn tx_03_a_transaction_is_done_once() {
    let mut meeting = Meeting::new().await;
    let first = meeting.say("first");
    let answer = meeting.take("a", &[wire(&first)]).await;
    let second = meeting.say("second");
    // A replay is known by its id alone.
    assert_eq!(meeting.take("a", &[wire(&second)]).await, answer);
    assert!(!meeting.has(&second.event_id).await);
    meeting.restart().await;
    assert_eq!(meeting.take("a", &[wire(&second)]).await, answer);
    assert!(!meeting.has(&second.event_id).await);
    assert_ne!(meeting.take("b", &[wire(&second)]).await, answer);
    assert!(meeting.has(&second.event_id).await);
}

/// TX-03: who brings it again while it is at work gets the same answer; too many of one server are turned away.
#[tokio::test]
async fn tx_03_concurrent_replays_wait_for_one_answer() {
    let mut meeting = Meeting::new().await;
    let events = gaps::line(&mut meeting, 50);
    let wires = [wire(&events[49])];
    let again = (0..20).map(|_| {
        let transaction = serde_json::from_value(json!({ "pdus": wires })).unwrap();
        meeting.inbound.take(&meeting.origin, "x", transaction)
    });
    let answers = futures_util::future::join_all(again).await;
    let first = answers[0].as_ref().unwrap();
    assert!(answers.iter().all(|answer| Arc::ptr_eq(answer.as_ref().unwrap(), first)));
    assert!(first.contains(events[49].event_id.as_str()) && !first.contains("error"), "{first}");
    assert_eq!(meeting.there.asked.lock().len(), 1, "what is missing is asked for once");
    assert!(meeting.inbound.running.lock().is_empty());

    let transaction = || serde_json::from_value(json!({ "pdus": wires })).unwrap();
    let meeting = &meeting;
    let taken = (0..=MOST_RUNNING).map(|n| (n.to_string(), transaction()));
    let taken = taken.map(|(id, pdus)| async move { meeting.inbound.take(&meeting.origin, &id, pdus).await });
    let taken = futures_util::future::join_all(taken.collect::<Vec<_>>()).await;
    assert_eq!(taken.iter().filter(|answer| matches!(answer, Err(Error::Busy))).count(), 1);
}

/// AC-02: who isn't let in hears so for each event, and nothing is kept.
#[tokio::test]
async fn ac_02_events_by_way_of_a_denied_server_are_dropped() {
    let mut meeting = Meeting::new().await;
    let acl = json!({ "allow": ["*"], "deny": ["elsewhere"] });
    meeting.story.set("m.room.server_acl", acl).await;
    let event = meeting.say("let me in");
    let answer = meeting.take("1", &[wire(&event)]).await;
    let why = answer["pdus"][event.event_id.as_str()]["error"].as_str().unwrap();
    assert!(why.contains("access control"), "{why}");
    assert!(!meeting.has(&event.event_id).await);
}

/// What is hashed is what is stored: of two equal keys the last counts, in the whole way through.
#[tokio::test]
async fn of_equal_keys_the_last_counts() {
    let mut meeting = Meeting::new().await;
    let event = meeting.say("twice");
    let twice = event.json.get().replacen('{', r#"{"room_id":"!other:elsewhere","unsigned":{"a":1},"#, 1);
    let body = format!(r#"{{"pdus":[{twice}]}}"#);
    let answer = meeting.take_text("1", &body).await;
    assert_eq!(answer["pdus"][event.event_id.as_str()], json!({}), "{answer}");
    let kept = meeting.story.world.rooms.event(&meeting.story.room, &event.event_id).await.unwrap();
    assert_eq!(kept.pdu.json.get(), event.json.get());
}

/// I7, I8: an event that can't even be read stops nothing that comes with it.
#[tokio::test]
async fn i8_an_event_that_is_nested_without_end_is_dropped_alone() {
    let mut meeting = Meeting::new().await;
    let (one, two) = (meeting.say("one"), meeting.say("two"));
    let room_id = &meeting.story.room.room_id;
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let wide = "1,".repeat(1_000_000);
    let body = format!(
        r#"{{"pdus":[{},{{"room_id":"{room_id}","content":{{"a":{deep}}}}},{deep},[{wide}1],{{"room_id":"{room_id}","content":[{wide}1]}},{}],"edus":[{deep},{{"edu_type":"m.typing","content":{deep}}}]}}"#,
        one.json, two.json,
    );
    let answer = meeting.take_text("1", &body).await;
    assert_eq!(answer["pdus"], json!({ one.event_id.as_str(): {}, two.event_id.as_str(): {} }));
}

/// PD-03, PD-06: one after the other in one transaction, each following the one before.
#[tokio::test]
async fn events_of_a_room_keep_their_order() {
    let mut meeting = Meeting::new().await;
    let mut events: Vec<Pdu> = Vec::new();
    for n in 0..20 {
        let previous: Vec<OwnedEventId> = events.last().map(|pdu| pdu.event_id.clone()).into_iter().collect();
        events.push(meeting.story.by_rita("m.room.message", None, text(&n.to_string()), &previous));
    }
    let answer = meeting.take("1", &events.iter().map(wire).collect::<Vec<_>>()).await;
    assert!(answer["pdus"].as_object().unwrap().values().all(|verdict| *verdict == json!({})), "{answer}");
    let ends = meeting.story.ends();
    assert_eq!(ends, [events.last().unwrap().event_id.clone()]);
}

/// An invite to a room that nobody here is in can be taken back by the server that gave it, if the event cites it.
#[tokio::test]
async fn an_invite_from_outside_can_be_taken_back() {
    let meeting = Meeting::new().await;
    let room_id = owned_room_id!("!far:elsewhere");
    let member = |membership: &str, auth: &[&Pdu]| {
        let draft = Draft {
            room_id: Some(room_id.clone()),
            sender: owned_user_id!("@rita:elsewhere"),
            kind: "m.room.member".into(),
            state_key: Some("@bob:localhost".to_owned()),
            content: to_raw_value(&json!({ "membership": membership })).unwrap(),
            redacts: None,
        };
        let auth: Vec<OwnedEventId> = auth.iter().map(|pdu| pdu.event_id.clone()).collect();
        let previous = vec![owned_event_id!("$sMaZdbpuHWoaSsvzdGpU5r9i5bCq6sfKp3a4TFGRTKg")];
        let position = Position::new(previous, auth, 7, MilliSecondsSinceUnixEpoch(7_u32.into()));
        let key = SigningKey::from_text(SEED).unwrap();
        draft.build(&RoomVersionId::V11, position, &meeting.origin, &key, Limits::FEDERATED).unwrap()
    };
    let invite = member("invite", &[]);
    let rooms = &meeting.story.world.rooms;
    let hearsay = Hearsay {
        room_id: room_id.clone(),
        version: RoomVersionId::V11,
        event: invite.clone(),
        about: Some(Vec::new()),
    };
    let room = rooms.hear(hearsay).await.unwrap();
    let bob = owned_user_id!("@bob:localhost");
    assert_eq!(room.snapshot().membership(&bob), MembershipState::Invite);

    let guessed = member("leave", &[]);
    let answer = meeting.take("1", &[wire(&guessed)]).await;
    assert!(answer["pdus"][guessed.event_id.as_str()]["error"].is_string(), "{answer}");
    assert_eq!(room.snapshot().membership(&bob), MembershipState::Invite);
    let taken_back = member("leave", &[&invite]);
    let answer = meeting.take("2", &[wire(&taken_back)]).await;
    assert_eq!(answer["pdus"][taken_back.event_id.as_str()], json!({}), "{answer}");
    assert_eq!(room.snapshot().membership(&bob), MembershipState::Leave);
}

/// How much work a transaction of fifty events is. For measuring: `cargo test --release … -- --ignored --nocapture cost`.
#[tokio::test]
#[ignore = "it measures, and checks nothing"]
async fn cost_of_transactions() {
    let mut meeting = Meeting::new().await;
    for n in 0..100 {
        let guest: ruma::OwnedUserId = format!("@guest{n}:elsewhere").try_into().unwrap();
        let join = json!({ "membership": "join" });
        let join = meeting.story.event(&guest, "m.room.member", Some(guest.as_str()), join, &[]);
        meeting.story.bring(&[join]).await;
    }
    let cpu = || {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<i64> =
            stat.rsplit(')').next().unwrap().split(' ').filter_map(|n| n.parse().ok()).collect();
        (fields[10] + fields[11]) * 10
    };
    let mut previous: Vec<OwnedEventId> = meeting.story.ends();
    let mut bodies = Vec::new();
    for _ in 0..40 {
        let mut wires = Vec::new();
        for n in 0..50 {
            let pdu = meeting.story.by_rita("m.room.message", None, text(&n.to_string()), &previous);
            previous = vec![pdu.event_id.clone()];
            wires.push(wire(&pdu));
        }
        bodies.push(json!({ "pdus": wires }).to_string());
    }
    let (before, start) = (cpu(), std::time::Instant::now());
    for (n, body) in bodies.iter().enumerate() {
        let answer = meeting.take_text(&n.to_string(), body).await;
        assert!(!answer.to_string().contains("error"));
    }
    let (spent, took) = (cpu() - before, start.elapsed().as_millis());
    eprintln!("2000 events: {spent} ms of CPU, {took} ms in all");
}
