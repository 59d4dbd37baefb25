//! HV-05 as a table: every way of reading a room × every way through a room × every history visibility, with one expected
//! answer each. The answers come from a model of its own, which knows the specification's sentences and nothing of the
//! server. What is hidden is answered as what doesn't exist, byte for byte.

#[path = "../common/mod.rs"]
mod common;

mod beside;

use std::collections::BTreeSet;

use common::{Answer, Server, User, history::ids};
use serde_json::{Value, json};

/// What happens between two messages: to the reader's membership, or to the room's history visibility.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Invite,
    Join,
    Leave,
    Kick,
    Ban,
    Unban,
    Knock,
    Forget,
    Visibility(&'static str),
}
use Step::{Ban, Forget, Invite, Join, Kick, Knock, Leave, Unban, Visibility};

const PATHS: [(&str, &[Step]); 18] = [
    ("never there", &[]),
    ("invited", &[Invite]),
    ("rejects the invite", &[Invite, Leave]),
    ("invited, taken back", &[Invite, Kick]),
    ("joins invited", &[Invite, Join]),
    ("joins", &[Join]),
    ("leaves", &[Invite, Join, Leave]),
    ("is kicked", &[Join, Kick]),
    ("is banned", &[Invite, Join, Ban]),
    ("is banned and unbanned", &[Join, Ban, Unban]),
    ("is banned, never there", &[Ban]),
    ("comes back", &[Join, Leave, Join]),
    ("is invited back", &[Join, Leave, Invite]),
    ("forgets", &[Join, Leave, Forget]),
    ("forgets and comes back", &[Join, Leave, Forget, Invite, Join]),
    ("knocks", &[Knock]),
    ("leaves an opened room", &[Join, Visibility("world_readable"), Leave, Visibility("joined")]),
    (
        "joins a closed room",
        &[Visibility("invited"), Invite, Visibility("joined"), Join, Visibility("shared")],
    ),
];

/// Whether a request that reads is open to the reader: guests have fewer (GU-01).
fn is_open(reader: &User, path: &str) -> bool {
    const CLOSED: [&str; 4] = ["/relations/", "/v3/events/", "/threads", "/joined_members"];
    !is_guest(reader) || !CLOSED.iter().any(|closed| path.contains(closed))
}

/// Their names are numbers, and nobody else's are.
fn is_guest(user: &User) -> bool {
    let name = user.user_id.trim_start_matches('@').split(':').next().unwrap_or_default();
    name.bytes().all(|byte| byte.is_ascii_digit())
}

/// The room at one message.
#[derive(Clone, Debug)]
struct Moment {
    visibility: &'static str,
    membership: &'static str,
}

/// "History visibility" and "Leaving rooms" of the Client-Server API.
struct Model {
    moments: Vec<Moment>,
    forgotten: bool,
}

impl Model {
    fn new(visibility: &'static str, path: &[Step]) -> Self {
        let mut now = Moment { visibility, membership: "none" };
        let (mut moments, mut forgotten) = (vec![now.clone()], false);
        for step in path {
            match *step {
                Invite => now.membership = "invite",
                Join => now.membership = "join",
                Leave | Kick | Unban => now.membership = "leave",
                Ban => now.membership = "ban",
                Knock => now.membership = "knock",
                Forget => {}
                Visibility(visibility) => now.visibility = visibility,
            }
            // Forgotten until something happens to the membership again.
            forgotten = *step == Forget || (forgotten && matches!(step, Visibility(_)));
            moments.push(now.clone());
        }
        Self { moments, forgotten }
    }

    fn sees(&self, at: usize) -> bool {
        let moment = &self.moments[at];
        let membership = if self.forgotten { "none" } else { moment.membership };
        let joins_later =
            !self.forgotten && self.moments[at..].iter().any(|later| later.membership == "join");
        moment.visibility == "world_readable"
            || membership == "join"
            || (moment.visibility == "shared" && joins_later)
            || (moment.visibility == "invited" && membership == "invite")
    }

    fn is_in(&self) -> bool {
        self.moments.last().is_some_and(|now| now.membership == "join")
    }

    fn is_world_readable(&self) -> bool {
        self.moments.last().is_some_and(|now| now.visibility == "world_readable")
    }

    /// Members and former members, and everybody while the room is open to the world.
    fn reads_state(&self) -> bool {
        let was_in = self.moments.iter().any(|moment| moment.membership == "join");
        (was_in && !self.forgotten) || self.is_world_readable()
    }
}

async fn act(owner: &User, reader: &User, room: &str, step: Step) {
    let target = json!({ "user_id": reader.user_id });
    let (user, end, body) = match step {
        Invite => (owner, "invite", target),
        Kick => (owner, "kick", target),
        Ban => (owner, "ban", target),
        Unban => (owner, "unban", target),
        Join => (reader, "join", json!({})),
        Leave => (reader, "leave", json!({})),
        Forget => (reader, "forget", json!({})),
        Knock => {
            reader.post(&format!("/v3/knock/{room}"), json!({})).await.expect(200);
            return;
        }
        Visibility(visibility) => {
            let content = json!({ "history_visibility": visibility });
            owner.send_state(room, "m.room.history_visibility", "", content).await;
            return;
        }
    };
    user.post(&format!("/v3/rooms/{room}/{end}"), body).await.expect(200);
}

/// A message, and a reply in a thread of its own.
async fn say(owner: &User, room: &str) -> (String, String) {
    let root = owner.send_text(room, "needle").await;
    let reply = reply(owner, room, &root).await;
    (root, reply)
}

async fn reply(owner: &User, room: &str, root: &str) -> String {
    let content = json!({
        "msgtype": "m.text", "body": "needle",
        "m.relates_to": { "rel_type": "m.thread", "event_id": root },
    });
    owner.send_event(room, "m.room.message", content).await
}

#[track_caller]
fn same(what: &str, hidden: &Answer, absent: &Answer) {
    assert_eq!((hidden.status, hidden.text()), (absent.status, absent.text()), "{what}");
    assert!(hidden.status >= 400, "{what}");
}

fn roots(found: &BTreeSet<String>, said: &[(String, String)]) -> String {
    said.iter().map(|(root, _)| if found.contains(root) { 'x' } else { '-' }).collect()
}

/// A hidden event and one that isn't, by each endpoint that names an event. `late` are replies of the last moment.
async fn by_id(
    what: &str,
    reader: &User,
    room: &str,
    (said, late): (&[(String, String)], &[String]),
    expected: &str,
) {
    for (number, ((root, reply), late)) in said.iter().zip(late).enumerate() {
        let replies: Vec<&String> = if expected.ends_with('x') { vec![late, reply] } else { vec![reply] };
        let seen = expected.as_bytes()[number] == b'x';
        for (before, after) in [
            (format!("/v3/rooms/{room}/event/"), ""),
            (format!("/v3/rooms/{room}/context/"), "?limit=0"),
            (format!("/v1/rooms/{room}/relations/"), ""),
            ("/v3/events/".to_owned(), ""),
        ] {
            if !is_open(reader, &before) {
                continue;
            }
            let what = format!("{what}: {before} of message {number}");
            let answer = reader.get(&format!("{before}{root}{after}")).await;
            if !seen {
                let absent = reader.get(&format!("{before}$absent{after}")).await;
                same(&what, &answer, &absent);
                continue;
            }
            let body = answer.expect(200);
            if before.contains("relations") {
                assert_eq!(ids(&body["chunk"]).iter().collect::<Vec<_>>(), replies, "{what}");
            } else {
                let event = if before.contains("context") { &body["event"] } else { &body };
                assert_eq!(event["event_id"], root.as_str(), "{what}");
                let thread = &event["unsigned"]["m.relations"]["m.thread"];
                assert_eq!(thread["count"], replies.len(), "{what}");
                assert_eq!(thread["latest_event"]["event_id"], **replies[0], "{what}");
            }
        }
    }
}

/// Every list of a room's events.
async fn by_list(
    what: &str,
    reader: &User,
    room: &str,
    said: &[(String, String)],
    (model, expected): (&Model, &str),
) {
    const NOWHERE: &str = "!nowhere:localhost";
    for (path, list) in [
        ("/v3/rooms/ROOM/messages?dir=b&limit=100", "chunk"),
        ("/v3/rooms/ROOM/messages?dir=f&limit=100", "chunk"),
        ("/v1/rooms/ROOM/threads?limit=100", "chunk"),
        ("/v3/rooms/ROOM/initialSync", "messages"),
    ] {
        if !is_open(reader, path) {
            continue;
        }
        let what = format!("{what}: {path}");
        let answer = reader.get(&path.replace("ROOM", room)).await;
        if answer.status != 200 {
            // A first look is at the state too, which those who are only invited may not read.
            let by_state = list == "messages" && !model.reads_state();
            assert!(by_state || !expected.contains('x'), "{what}: {}", answer.text());
            same(&what, &answer, &reader.get(&path.replace("ROOM", NOWHERE)).await);
            continue;
        }
        assert!(expected.contains('x'), "{what}: nothing may be seen");
        let events = &answer.json[list];
        let events = if list == "messages" { &events["chunk"] } else { events };
        let found = roots(&ids(events).into_iter().collect(), said);
        if list == "messages" {
            // Only the last twenty.
            assert!(model.reads_state(), "{what}");
            assert!(
                expected.bytes().zip(found.bytes()).all(|(may, found)| may == b'x' || found == b'-'),
                "{what}"
            );
            assert_eq!(expected.ends_with('x'), found.ends_with('x'), "{what}");
        } else {
            assert_eq!(found, expected, "{what}");
        }
    }
}

async fn by_sync(what: &str, reader: &User, room: &str, said: &[(String, String)], model: &Model) {
    let filter = "&filter=%7B%22room%22%3A%7B%22include_leave%22%3Atrue%2C%22timeline%22%3A%7B%22limit%22%3A100%7D%7D%7D";
    let sync = reader.sync_with(None, 0, filter).await;
    let timeline = |section: &str| ids(&sync["rooms"][section][room]["timeline"]["events"]);
    let synced: BTreeSet<String> = timeline("join").into_iter().chain(timeline("leave")).collect();
    for (number, (root, _)) in said.iter().enumerate() {
        let sees = model.sees(number);
        assert!(sees || !synced.contains(root), "{what}: /sync shows message {number}");
    }
    if model.is_in() {
        assert!(
            said.last().is_some_and(|(root, _)| synced.contains(root)),
            "{what}: /sync has the last message"
        );
    }
}

/// What looks over many rooms shows nothing that its reader may not see, and members all of it.
async fn over_rooms(what: &str, reader: &User, room: &str, said: &[(String, String)], model: &Model) {
    let search = json!({ "search_categories": { "room_events": {
        "search_term": "needle", "filter": { "rooms": [room], "limit": 100 },
    } } });
    let answer = reader.post("/v3/search", search).await.expect(200);
    let results =
        answer["search_categories"]["room_events"]["results"].as_array().cloned().unwrap_or_default();
    let found: BTreeSet<String> =
        results.iter().filter_map(|one| one["result"]["event_id"].as_str().map(str::to_owned)).collect();
    for (number, (root, _)) in said.iter().enumerate() {
        let sees = model.sees(number);
        assert!(sees || !found.contains(root), "{what}: /search shows message {number}");
        if model.is_in() {
            assert_eq!(found.contains(root), sees, "{what}: /search, message {number}");
        }
    }
    // By date, from the first to the last: only what is seen, and all of it that has a time of its own.
    for (number, (root, _)) in said.iter().enumerate() {
        let event = reader.get(&format!("/v3/rooms/{room}/event/{root}")).await;
        let Some(ts) = event.json["origin_server_ts"].as_i64() else {
            assert!(!model.sees(number), "{what}");
            continue;
        };
        let path = format!("/v1/rooms/{room}/timestamp_to_event?ts={ts}&dir=b");
        let nearest = reader.get(&path).await.expect(200);
        assert_eq!(nearest["origin_server_ts"], ts, "{what}: by date");
    }
    for direction in ["f", "b"] {
        let ts = if direction == "f" { 0 } else { 9_000_000_000_000_000_i64 };
        let path = format!("/v1/rooms/{room}/timestamp_to_event?ts={ts}&dir={direction}");
        let answer = reader.get(&path).await;
        if answer.status == 200 {
            let event = answer.json["event_id"].as_str().unwrap_or_default().to_owned();
            reader.get(&format!("/v3/rooms/{room}/event/{event}")).await.expect(200);
        } else {
            assert!(!(0..said.len()).any(|number| model.sees(number)), "{what}: by date");
            let absent = path.replace(room, "!nowhere:localhost");
            same(what, &answer, &reader.get(&absent).await);
        }
    }
}

async fn state(what: &str, reader: &User, room: &str, model: &Model) {
    for (end, may) in [
        ("state", model.reads_state()),
        ("state/m.room.create/", model.reads_state()),
        ("state/org.example.absent/", false),
        ("members", model.reads_state()),
        ("joined_members", model.is_in()),
    ] {
        if !is_open(reader, &format!("/{end}")) {
            continue;
        }
        let what = format!("{what}: /{end}");
        let answer = reader.get(&format!("/v3/rooms/{room}/{end}")).await;
        if may {
            let body: Value = answer.expect(200);
            assert!(!body.is_null(), "{what}");
        } else if end.contains("absent") && model.reads_state() {
            answer.expect_error(404, "M_NOT_FOUND");
        } else {
            same(&what, &answer, &reader.get(&format!("/v3/rooms/!nowhere:localhost/{end}")).await);
        }
    }
}

/// HV-01, HV-02, HV-04, HV-05, HV-06, HV-11, HV-12; of guests too, as far as requests are open to them (GU-01).
async fn every_way_through_a_room(visibility: &'static str) {
    let server = Server::start(toml::toml! { registration.guests = true }).await;
    let owner = server.register("owner").await;
    for (number, (name, path)) in PATHS.iter().enumerate() {
        let reader = server.register(&format!("reader{number}")).await;
        one_way_through_a_room(&format!("{name}, {visibility}"), &owner, &reader, visibility, path).await;
        // Guests neither knock nor forget.
        if !path.contains(&Knock) && !path.contains(&Forget) {
            let guest = server.http().post("/v3/register?kind=guest", None, json!({})).await.expect(200);
            let guest = User::new(server.http().clone(), &guest);
            let what = format!("a guest {name}, {visibility}");
            one_way_through_a_room(&what, &owner, &guest, visibility, path).await;
        }
    }
}

async fn one_way_through_a_room(
    what: &str,
    owner: &User,
    reader: &User,
    visibility: &'static str,
    path: &[Step],
) {
    let join_rule = if path.contains(&Knock) { "knock" } else { "public" };
    let room = owner
        .create_room(json!({ "preset": "private_chat", "initial_state": [
                {
                    "type": "m.room.history_visibility", "state_key": "",
                    "content": { "history_visibility": visibility },
                },
                { "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": join_rule } },
            ] }))
        .await;
    let mut said = Vec::new();
    for step in [None].into_iter().chain(path.iter().map(Some)) {
        if let Some(step) = step {
            act(owner, reader, &room, *step).await;
        }
        owner.send_state(&room, "m.room.topic", "", json!({ "topic": said.len().to_string() })).await;
        said.push(say(owner, &room).await);
    }
    let mut late = Vec::new();
    for (root, _) in &said {
        late.push(reply(owner, &room, root).await);
    }
    let model = Model::new(visibility, path);
    let expected: String = (0..said.len()).map(|at| if model.sees(at) { 'x' } else { '-' }).collect();
    by_id(what, reader, &room, (&said, &late), &expected).await;
    by_list(what, reader, &room, &said, (&model, &expected)).await;
    by_sync(what, reader, &room, &said, &model).await;
    if !is_guest(reader) {
        over_rooms(what, reader, &room, &said, &model).await;
    }
    state(what, reader, &room, &model).await;
    beside::beside(what, owner, reader, &room, &said, &model).await;
}

#[tokio::test]
async fn hv_05_world_readable() {
    every_way_through_a_room("world_readable").await;
}

#[tokio::test]
async fn hv_05_shared() {
    every_way_through_a_room("shared").await;
}

#[tokio::test]
async fn hv_05_invited() {
    every_way_through_a_room("invited").await;
}

#[tokio::test]
async fn hv_05_joined() {
    every_way_through_a_room("joined").await;
}
