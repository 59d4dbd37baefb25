//! Reading rooms: who sees which events and which state, page by page, and what they are told of an event.

mod common;

use std::collections::BTreeSet;

use common::{Server, User};
use futures_util::future::join_all;
use serde_json::{Value, json};
use toml::Table;

fn encoded(value: &Value) -> String {
    let text = value.to_string();
    text.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            },
        )
        .collect()
}

fn ids(events: &Value) -> Vec<String> {
    let events = events.as_array().map(Vec::as_slice).unwrap_or_default();
    events.iter().filter_map(|event| event["event_id"].as_str().map(str::to_owned)).collect()
}

/// All of a room's log that somebody sees, in the order of the pages, and how many pages that took.
async fn page_through(user: &User, room: &str, direction: &str, more: &str) -> (Vec<String>, usize) {
    let (mut seen, mut pages, mut from) = (Vec::new(), 0, String::new());
    loop {
        let page =
            user.get(&format!("/v3/rooms/{room}/messages?dir={direction}{from}{more}")).await.expect(200);
        seen.extend(ids(&page["chunk"]));
        pages += 1;
        let Some(end) = page["end"].as_str() else { return (seen, pages) };
        assert!(pages < 1000, "paging never ends");
        from = format!("&from={end}");
    }
}

async fn room_with(owner: &User, visibility: &str) -> String {
    let visibility = json!({
        "type": "m.room.history_visibility", "state_key": "",
        "content": { "history_visibility": visibility },
    });
    owner.create_room(json!({ "preset": "private_chat", "initial_state": [visibility] })).await
}

/// HV-01, HV-04, HV-05, HV-06, HV-11, HV-12: for each history visibility, what strangers, guests, former members and
/// members see of four messages: before the invites, before the joins, before the end, after it.
#[tokio::test]
async fn everybody_sees_what_the_history_visibility_allows_and_nothing_else() {
    let server = Server::start(Table::new()).await;
    let names = ["stranger", "invited", "left", "banned", "joined"];
    let owner = server.register("owner").await;
    let people = join_all(names.iter().map(|name| server.register(name))).await;
    let [_, _, left, banned, joined] = &people[..] else { panic!("five people") };

    let expected = [
        ("world_readable", ["xxxx", "xxxx", "xxxx", "xxxx", "xxxx"]),
        ("shared", ["----", "----", "xxx-", "xxx-", "xxxx"]),
        ("invited", ["----", "-xxx", "-xx-", "-xx-", "-xxx"]),
        ("joined", ["----", "----", "--x-", "--x-", "--xx"]),
    ];
    for (visibility, expected) in expected {
        let room = room_with(&owner, visibility).await;
        let first = owner.send_text(&room, "before the invites").await;
        for person in &people[1..] {
            owner.invite(&room, &person.user_id).await;
        }
        let second = owner.send_text(&room, "before the joins").await;
        for person in [left, banned, joined] {
            person.join(&room).await;
        }
        let third = owner.send_text(&room, "before the end").await;
        left.post(&format!("/v3/rooms/{room}/leave"), json!({})).await.expect(200);
        let ban = json!({ "user_id": banned.user_id });
        owner.post(&format!("/v3/rooms/{room}/ban"), ban).await.expect(200);
        let fourth = owner.send_text(&room, "after the end").await;
        owner.send_state(&room, "m.room.topic", "", json!({ "topic": "later" })).await;
        let messages = [first, second, third, fourth];

        for (person, expected) in people.iter().zip(expected) {
            let who = format!("{} of a room that is {visibility}", person.user_id);
            let mut by_id = String::new();
            for message in &messages {
                let event = person.get(&format!("/v3/rooms/{room}/event/{message}")).await;
                let context = person.get(&format!("/v3/rooms/{room}/context/{message}")).await;
                assert_eq!(event.status, context.status, "{who}");
                if event.status == 200 {
                    by_id.push('x');
                } else {
                    event.expect_error(404, "M_NOT_FOUND");
                    context.expect_error(404, "M_NOT_FOUND");
                    by_id.push('-');
                }
            }
            assert_eq!(by_id, expected, "/event and /context, {who}");

            let pages = person.get(&format!("/v3/rooms/{room}/messages?dir=b&limit=100")).await;
            let seen: BTreeSet<String> = if pages.status == 200 {
                ids(&pages.json["chunk"]).into_iter().collect()
            } else {
                pages.expect_error(403, "M_FORBIDDEN");
                BTreeSet::new()
            };
            let listed: String =
                messages.iter().map(|id| if seen.contains(id) { 'x' } else { '-' }).collect();
            assert_eq!(listed, expected, "/messages, {who}");

            let member = person.user_id.contains("joined");
            let former = person.user_id.contains("left") || person.user_id.contains("banned");
            for path in ["state", "members", "state/m.room.create/"] {
                let answer = person.get(&format!("/v3/rooms/{room}/{path}")).await;
                let allowed = member || former || visibility == "world_readable";
                assert_eq!(answer.status, if allowed { 200 } else { 403 }, "{path}, {who}");
            }
            // HV-11: a former member's state is that of when they left.
            let topic = person.get(&format!("/v3/rooms/{room}/state/m.room.topic")).await;
            let now = member || (visibility == "world_readable" && !former);
            assert_eq!(topic.status == 200, now, "the state of {who}");
            let members = person.get(&format!("/v3/rooms/{room}/joined_members")).await;
            assert_eq!(members.status, if member { 200 } else { 403 }, "/joined_members, {who}");
        }

        // Who has forgotten a room is like who never was in it.
        left.post(&format!("/v3/rooms/{room}/forget"), json!({})).await.expect(200);
        let public = visibility == "world_readable";
        let third = left.get(&format!("/v3/rooms/{room}/event/{}", messages[2])).await;
        assert_eq!(third.status, if public { 200 } else { 404 }, "{visibility}");
        let state = left.get(&format!("/v3/rooms/{room}/state")).await;
        assert_eq!(state.status, if public { 200 } else { 403 }, "{visibility}");
    }
}

/// I10, HV-06: a room that one may not see answers as one that doesn't exist.
#[tokio::test]
async fn a_hidden_room_is_like_none() {
    let server = Server::start(Table::new()).await;
    let (owner, stranger) = (server.register("owner").await, server.register("stranger").await);
    let hidden = room_with(&owner, "shared").await;
    let event = owner.send_text(&hidden, "secret").await;
    let nowhere = "!doesnotexist:localhost";
    for path in ["messages?dir=b", "state", "state/m.room.name/", "members", "joined_members"] {
        let nowhere = stranger.get(&format!("/v3/rooms/{nowhere}/{path}")).await;
        let hidden = stranger.get(&format!("/v3/rooms/{hidden}/{path}")).await;
        assert_eq!(hidden.text(), nowhere.text(), "{path}");
        assert_eq!(hidden.status, nowhere.status, "{path}");
        hidden.expect_error(403, "M_FORBIDDEN");
    }
    for path in ["event", "context"] {
        let there = stranger.get(&format!("/v3/rooms/{hidden}/{path}/{event}")).await;
        let not_there = stranger.get(&format!("/v3/rooms/{hidden}/{path}/$nothing")).await;
        let nowhere = stranger.get(&format!("/v3/rooms/{nowhere}/{path}/{event}")).await;
        assert_eq!(there.text(), not_there.text());
        assert_eq!(there.text(), nowhere.text());
        there.expect_error(404, "M_NOT_FOUND");
    }
}

/// Trap 13: an event is read only by way of its own room.
#[tokio::test]
async fn an_event_of_another_room_is_not_found() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let one = room_with(&alice, "shared").await;
    let other = room_with(&alice, "world_readable").await;
    let event = alice.send_text(&one, "here").await;
    alice.get(&format!("/v3/rooms/{one}/event/{event}")).await.expect(200);
    for path in ["event", "context"] {
        let answer = alice.get(&format!("/v3/rooms/{other}/{path}/{event}")).await;
        answer.expect_error(404, "M_NOT_FOUND");
    }
    let receipt = format!("/v3/rooms/{other}/receipt/m.read/{event}");
    alice.post(&receipt, json!({})).await.expect_error(404, "M_NOT_FOUND");
}

/// HV-03: a change of the visibility itself is seen by who is allowed before it or after it.
#[tokio::test]
async fn a_change_of_visibility_is_seen_from_both_sides() {
    let server = Server::start(Table::new()).await;
    let (owner, bob) = (server.register("owner").await, server.register("bob").await);
    let room = room_with(&owner, "joined").await;
    let set = async |value: &str| {
        let content = json!({ "history_visibility": value });
        owner.send_state(&room, "m.room.history_visibility", "", content).await
    };
    let opened = set("shared").await;
    let open = owner.send_text(&room, "open").await;
    let closed = set("joined").await;
    let hidden = owner.send_text(&room, "hidden").await;
    owner.invite(&room, &bob.user_id).await;
    bob.join(&room).await;

    for (event, status) in [(opened, 200), (open, 200), (closed, 200), (hidden, 404)] {
        bob.get(&format!("/v3/rooms/{room}/event/{event}")).await.expect(status);
    }
}

/// HV-07, HV-09: pages in both directions meet, hold each event once, and end.
#[tokio::test]
async fn pages_lead_from_end_to_end() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let room = room_with(&alice, "shared").await;
    let mut sent = Vec::new();
    for number in 0..23 {
        sent.push(alice.send_text(&room, &format!("message {number}")).await);
    }

    let (back, pages) = page_through(&alice, &room, "b", "&limit=7").await;
    let (on, _) = page_through(&alice, &room, "f", "&limit=7").await;
    assert_eq!(pages, back.len().div_ceil(7), "no page is short, and none is empty");
    assert_eq!(back.iter().rev().collect::<Vec<_>>(), on.iter().collect::<Vec<_>>());
    assert!(on.ends_with(&sent));
    let create = alice.get(&format!("/v3/rooms/{room}/event/{}", on[0])).await.expect(200);
    assert_eq!(create["type"], "m.room.create");

    // Ten events unless asked otherwise; the other direction from its end gives them again.
    let newest = alice.get(&format!("/v3/rooms/{room}/messages?dir=b")).await.expect(200);
    assert_eq!(ids(&newest["chunk"]).len(), 10);
    let (start, end) = (newest["start"].as_str().unwrap(), newest["end"].as_str().unwrap());
    let path = format!("/v3/rooms/{room}/messages?dir=f&from={end}&to={start}&limit=100");
    let again = alice.get(&path).await.expect(200);
    assert_eq!(ids(&again["chunk"]), sent[13..]);
    assert_eq!(again.get("end"), None);

    // `to` ends a page early.
    let path = format!("/v3/rooms/{room}/messages?dir=b&to={end}&limit=1000");
    let some = alice.get(&path).await.expect(200);
    assert_eq!(ids(&some["chunk"]), ids(&newest["chunk"]));
    assert_eq!(some.get("end"), None, "there is nothing more before `to`");
}

#[tokio::test]
async fn bad_paging_parameters_are_refused() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let room = room_with(&alice, "shared").await;
    for (query, errcode) in [
        ("dir=b&from=garbage", "M_INVALID_PARAM"),
        ("dir=b&to=s1_2", "M_INVALID_PARAM"),
        ("dir=sideways", "M_INVALID_PARAM"),
        ("limit=3", "M_MISSING_PARAM"),
        ("dir=b&limit=-1", "M_INVALID_PARAM"),
        ("dir=b&filter=%7B", "M_INVALID_PARAM"),
    ] {
        let answer = alice.get(&format!("/v3/rooms/{room}/messages?{query}")).await;
        answer.expect_error(400, errcode);
    }
    // A token far outside of the room is the end that it lies beyond.
    for (query, full) in
        [("dir=b&from=r999999", true), ("dir=f&from=r999999", false), ("dir=b&from=r-999999", false)]
    {
        let page = alice.get(&format!("/v3/rooms/{room}/messages?{query}")).await.expect(200);
        assert_eq!(ids(&page["chunk"]).is_empty(), !full, "{query}");
        assert!(full || page.get("end").is_none(), "{query}");
    }
}

/// HV-07, "a page full of rejected events ends pagination": what a filter hides costs a bounded scan, an empty page with
/// an end follows, and the one event at the bottom is found.
#[tokio::test]
async fn events_that_nobody_asked_for_do_not_end_paging() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let room = room_with(&alice, "shared").await;
    let wanted = alice.send_event(&room, "org.example.wanted", json!({})).await;
    for _ in 0..11 {
        join_all((0..100).map(|_| alice.send_text(&room, "noise"))).await;
    }
    let filter = encoded(&json!({ "types": ["org.example.*"] }));
    let first =
        alice.get(&format!("/v3/rooms/{room}/messages?dir=b&limit=5&filter={filter}")).await.expect(200);
    assert!(ids(&first["chunk"]).is_empty() && first["end"].is_string(), "{first}");
    let (seen, pages) = page_through(&alice, &room, "b", &format!("&limit=5&filter={filter}")).await;
    assert_eq!(seen, [wanted.as_str()]);
    assert!(pages <= 3, "{pages} pages");

    let nothing = encoded(&json!({ "types": [] }));
    let (seen, pages) = page_through(&alice, &room, "b", &format!("&filter={nothing}")).await;
    assert_eq!((seen.len(), pages), (0, 1));
}

/// FI-03: a filter that isn't for a room shows nothing of it.
#[tokio::test]
async fn filters_choose_their_rooms() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let (room, other) = (room_with(&alice, "shared").await, room_with(&alice, "shared").await);
    let event = alice.send_text(&room, "hello").await;
    for (filter, shown) in [
        (json!({ "rooms": [room, other] }), true),
        (json!({ "rooms": [other] }), false),
        (json!({ "rooms": [] }), false),
        (json!({ "rooms": [room], "not_rooms": [room] }), false),
        (json!({ "not_rooms": [other] }), true),
    ] {
        let wanted = encoded(&filter);
        let (seen, pages) = page_through(&alice, &room, "b", &format!("&filter={wanted}")).await;
        assert_eq!((seen.contains(&event), pages), (shown, 1), "{filter}");
        let context = format!("/v3/rooms/{room}/context/{event}?filter={wanted}");
        let context = alice.get(&context).await.expect(200);
        assert_eq!(context["event"]["event_id"], event.as_str());
        for part in ["events_before", "state"] {
            assert_eq!(!ids(&context[part]).is_empty(), shown, "{part}: {filter}");
        }
    }
}

#[tokio::test]
async fn a_page_begins_where_its_direction_does_whatever_its_filter() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let room = room_with(&alice, "shared").await;
    let nothing = encoded(&json!({ "types": [] }));
    for direction in ["b", "f"] {
        let path = format!("/v3/rooms/{room}/messages?dir={direction}");
        let (all, none) = (alice.get(&path).await, alice.get(&format!("{path}&filter={nothing}")).await);
        assert_eq!(none.expect(200)["start"], all.expect(200)["start"], "{direction}");
    }
}

/// HV-04: who was away pages over the gap without an empty page.
#[tokio::test]
async fn who_was_away_pages_over_what_they_missed() {
    let server = Server::start(Table::new()).await;
    let (owner, bob) = (server.register("owner").await, server.register("bob").await);
    let room = room_with(&owner, "joined").await;
    owner.invite(&room, &bob.user_id).await;
    bob.join(&room).await;
    let before = owner.send_text(&room, "before").await;
    bob.post(&format!("/v3/rooms/{room}/leave"), json!({})).await.expect(200);
    let missed = join_all((0..50).map(|_| owner.send_text(&room, "missed"))).await;
    owner.invite(&room, &bob.user_id).await;
    bob.join(&room).await;
    let after = owner.send_text(&room, "after").await;

    let page = bob.get(&format!("/v3/rooms/{room}/messages?dir=b&limit=4")).await.expect(200);
    let seen = ids(&page["chunk"]);
    // The message, the join; then what was there up to the leave.
    assert_eq!((seen.len(), &seen[0], &seen[3]), (4, &after, &before));
    let (all, _) = page_through(&bob, &room, "f", "&limit=3").await;
    assert!(all.contains(&before) && all.contains(&after));
    assert!(missed.iter().all(|event| !all.contains(event)));
}

/// HV-10, HV-09
#[tokio::test]
async fn a_context_is_split_around_its_event_and_leads_on() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let room = room_with(&alice, "shared").await;
    let mut sent = Vec::new();
    for number in 0..12 {
        sent.push(alice.send_text(&room, &format!("{number}")).await);
    }
    alice.send_state(&room, "m.room.topic", "", json!({ "topic": "last" })).await;
    let path = |limit| format!("/v3/rooms/{room}/context/{}?limit={limit}", sent[6]);

    let context = alice.get(&path(4)).await.expect(200);
    assert_eq!(context["event"]["event_id"], sent[6].as_str());
    assert_eq!(ids(&context["events_before"]), [sent[5].as_str(), &sent[4]]);
    assert_eq!(ids(&context["events_after"]), [sent[7].as_str(), &sent[8]]);
    let (start, end) = (context["start"].as_str().unwrap(), context["end"].as_str().unwrap());
    let back = alice.get(&format!("/v3/rooms/{room}/messages?dir=b&from={start}&limit=1")).await.expect(200);
    assert_eq!(ids(&back["chunk"]), [sent[3].as_str()]);
    let on = alice.get(&format!("/v3/rooms/{room}/messages?dir=f&from={end}&limit=1")).await.expect(200);
    assert_eq!(ids(&on["chunk"]), [sent[9].as_str()]);
    let has_topic = |context: &Value| {
        context["state"].as_array().unwrap().iter().any(|event| event["type"] == "m.room.topic")
    };
    assert!(!has_topic(&context), "the state is that of the last event returned");

    let alone = alice.get(&path(0)).await.expect(200);
    assert_eq!(alone["event"]["event_id"], sent[6].as_str());
    assert!(ids(&alone["events_before"]).is_empty() && ids(&alone["events_after"]).is_empty());
    let all = alice.get(&path(100)).await.expect(200);
    assert!(has_topic(&all));
    assert_eq!(ids(&all["events_after"]).len(), 6);
}

/// LL-04, FI-02: with lazy loading a page comes with its senders, as they were.
#[tokio::test]
async fn a_page_brings_the_members_that_it_shows() {
    let server = Server::start(Table::new()).await;
    let people = join_all(["alice", "bob", "carol"].map(|name| server.register(name))).await;
    let [alice, bob, carol] = &people[..] else { panic!("three people") };
    let room = room_with(alice, "shared").await;
    for person in [bob, carol] {
        alice.invite(&room, &person.user_id).await;
        person.join(&room).await;
    }
    let event = bob.send_text(&room, "hello").await;
    carol.send_text(&room, "not shown").await;
    let rename = json!({ "membership": "join", "displayname": "Robert" });
    bob.send_state(&room, "m.room.member", &bob.user_id, rename).await;

    let filter =
        json!({ "lazy_load_members": true, "types": ["m.room.message"], "not_senders": [carol.user_id] });
    let filter = encoded(&filter);
    let page = alice.get(&format!("/v3/rooms/{room}/messages?dir=b&filter={filter}")).await.expect(200);
    assert_eq!(ids(&page["chunk"]), [event.as_str()]);
    let state = page["state"].as_array().unwrap();
    assert_eq!(state.len(), 1, "{state:?}");
    assert_eq!(state[0]["state_key"], bob.user_id.as_str());
    assert_ne!(state[0]["content"]["displayname"], "Robert", "the name is that of then");
    let without = alice.get(&format!("/v3/rooms/{room}/messages?dir=b")).await.expect(200);
    assert_eq!(without.get("state"), None);

    let lazy = encoded(&json!({ "lazy_load_members": true }));
    let path = format!("/v3/rooms/{room}/context/{event}?limit=0&filter={lazy}");
    let context = alice.get(&path).await.expect(200);
    let members = context["state"].as_array().unwrap().iter();
    let members: Vec<&str> = members
        .filter(|event| event["type"] == "m.room.member")
        .filter_map(|event| event["state_key"].as_str())
        .collect();
    assert_eq!(members, [bob.user_id.as_str()]);
}

/// EV-08, EV-09, EV-10, EV-11: what is said of an event beside the event, to whom it may be said.
#[tokio::test]
async fn events_say_of_themselves_what_their_reader_may_know() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let other_device = server.login("alice").await;
    let room = room_with(&alice, "joined").await;
    let event =
        async |user: &User, id: &str| user.get(&format!("/v3/rooms/{room}/event/{id}")).await.expect(200);
    let first = alice.send_state(&room, "m.room.topic", "", json!({ "topic": "secret" })).await;
    alice.invite(&room, &bob.user_id).await;
    bob.join(&room).await;
    let second = alice.send_state(&room, "m.room.topic", "", json!({ "topic": "known" })).await;
    let third = alice.send_state(&room, "m.room.topic", "", json!({ "topic": "new" })).await;

    // EV-09: the content before is told to those who could see it.
    let unsigned = event(&bob, &second).await["unsigned"].clone();
    assert_eq!(unsigned["replaces_state"], first.as_str());
    assert_eq!(unsigned.get("prev_content"), None, "it was set before he came");
    assert_eq!(event(&alice, &second).await["unsigned"]["prev_content"]["topic"], "secret");
    let unsigned = event(&bob, &third).await["unsigned"].clone();
    assert_eq!(unsigned["prev_content"]["topic"], "known");
    assert!(unsigned["age"].as_i64().is_some_and(|age| age >= 0));

    // EV-10
    assert_eq!(unsigned["membership"], "join");
    let path = format!("/v3/rooms/{room}/state/m.room.create/?format=event");
    let create = bob.get(&path).await.expect(200);
    assert_eq!(create["unsigned"]["membership"], "leave");

    // EV-08: the transaction is told to the device that made it.
    let path = format!("/v3/rooms/{room}/send/m.room.message/my-own");
    let sent = alice.put(&path, json!({ "msgtype": "m.text", "body": "oops" })).await.expect(200);
    let message = sent["event_id"].as_str().unwrap();
    assert_eq!(event(&alice, message).await["unsigned"]["transaction_id"], "my-own");
    for other in [&other_device, &bob] {
        assert_eq!(event(other, message).await["unsigned"].get("transaction_id"), None);
    }

    // EV-11, RD-04: a redacted event is never served whole again, and says why.
    let path = format!("/v3/rooms/{room}/redact/{message}/r1");
    let redaction = alice.put(&path, json!({ "reason": "a slip" })).await.expect(200);
    let redacted = event(&bob, message).await;
    assert_eq!(redacted["content"], json!({}));
    assert_eq!(redacted["unsigned"]["redacted_because"]["event_id"], redaction["event_id"]);
    assert_eq!(redacted["unsigned"]["redacted_because"]["content"]["reason"], "a slip");
    let page = bob.get(&format!("/v3/rooms/{room}/messages?dir=b")).await.expect(200);
    assert!(!page.to_string().contains("oops"));
}

/// EV-07, GN-15: one state event in all the ways to ask for it.
#[tokio::test]
async fn state_is_read_by_key_with_or_without_a_slash() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let room = room_with(&alice, "shared").await;
    let id = alice.send_state(&room, "m.room.topic", "", json!({ "topic": "here" })).await;
    alice.send_state(&room, "org.example.thing", "a%2Fb", json!({ "keyed": true })).await;

    for version in ["r0", "v3"] {
        for path in ["state/m.room.topic", "state/m.room.topic/"] {
            let content = alice.get(&format!("/{version}/rooms/{room}/{path}")).await.expect(200);
            assert_eq!(content, json!({ "topic": "here" }));
        }
    }
    let event = alice.get(&format!("/v3/rooms/{room}/state/m.room.topic/?format=event")).await.expect(200);
    assert_eq!((&event["event_id"], &event["state_key"]), (&json!(id), &json!("")));
    assert_eq!(event["room_id"], room.as_str());
    for federated in ["auth_events", "prev_events", "hashes", "signatures", "depth"] {
        assert_eq!(event.get(federated), None, "{federated} is between servers");
    }
    let keyed = alice.get(&format!("/v3/rooms/{room}/state/org.example.thing/a%2Fb")).await.expect(200);
    assert_eq!(keyed, json!({ "keyed": true }));
    for missing in ["state/m.room.topic/x", "state/m.room.avatar", "state/org.example.thing"] {
        let answer = alice.get(&format!("/v3/rooms/{room}/{missing}")).await;
        answer.expect_error(404, "M_NOT_FOUND");
    }
}

/// LL-05, HV-11: members by membership, and as they were at a token.
#[tokio::test]
async fn members_are_listed_by_membership_and_time() {
    let server = Server::start(Table::new()).await;
    let people = join_all(["alice", "bob", "carol", "dave"].map(|name| server.register(name))).await;
    let [alice, bob, carol, dave] = &people[..] else { panic!("four people") };
    let room = room_with(alice, "joined").await;
    let members = async |user: &User, query: &str| -> Vec<String> {
        let answer = user.get(&format!("/v3/rooms/{room}/members{query}")).await.expect(200);
        let chunk = answer["chunk"].as_array().unwrap().clone();
        let mut names: Vec<String> = chunk
            .iter()
            .map(|event| {
                let name = event["state_key"].as_str().unwrap();
                format!(
                    "{} {}",
                    &name[1..name.find(':').unwrap()],
                    event["content"]["membership"].as_str().unwrap()
                )
            })
            .collect();
        names.sort();
        names
    };
    let page = alice.get(&format!("/v3/rooms/{room}/messages?dir=b&limit=1")).await.expect(200);
    let early = page["start"].as_str().unwrap().to_owned();
    for person in [bob, carol, dave] {
        alice.invite(&room, &person.user_id).await;
    }
    bob.join(&room).await;
    carol.join(&room).await;
    carol.post(&format!("/v3/rooms/{room}/leave"), json!({})).await.expect(200);
    dave.join(&room).await;

    assert_eq!(members(alice, "").await, ["alice join", "bob join", "carol leave", "dave join"]);
    assert_eq!(members(alice, "?membership=leave").await, ["carol leave"]);
    assert_eq!(members(alice, "?not_membership=leave").await, ["alice join", "bob join", "dave join"]);
    assert_eq!(members(alice, &format!("?at={early}")).await, ["alice join"]);
    // Before bob could see anything: as near as he could look.
    assert_eq!(members(bob, &format!("?at={early}")).await, ["alice join"]);
    // Carol sees who was there when she left, not who came later, whatever she asks for.
    let carols = ["alice join", "bob join", "carol leave", "dave invite"];
    assert_eq!(members(carol, "").await, carols);
    assert_eq!(members(carol, "?at=r9999").await, carols);

    let joined = bob.get(&format!("/v3/rooms/{room}/joined_members")).await.expect(200);
    let joined: Vec<&String> = joined["joined"].as_object().unwrap().keys().collect();
    assert_eq!(joined, [&alice.user_id, &bob.user_id, &dave.user_id]);
}

/// HV-09, I5, LL-05: the tokens of `/sync` are places in a room's log, and close the gap that it left.
#[tokio::test]
async fn tokens_of_sync_are_good_for_history_and_members() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = room_with(&alice, "shared").await;
    let quiet = room_with(&alice, "shared").await;
    let since = alice.sync(None, 0).await["next_batch"].as_str().unwrap().to_owned();
    let mut sent = Vec::new();
    for number in 0..30 {
        sent.push(alice.send_text(&room, &format!("{number}")).await);
    }
    let sync = alice.sync(Some(&since), 0).await;
    let timeline = &sync["rooms"]["join"][&room]["timeline"];
    assert_eq!(timeline["limited"], true);
    let (before, next) = (timeline["prev_batch"].as_str().unwrap(), sync["next_batch"].as_str().unwrap());
    alice.invite(&room, &bob.user_id).await;

    for (from, to, direction) in [(before, &*since, "b"), (&since, before, "f")] {
        let path = format!("/v3/rooms/{room}/messages?dir={direction}&from={from}&to={to}&limit=100");
        let mut gap = ids(&alice.get(&path).await.expect(200)["chunk"]);
        if direction == "b" {
            gap.reverse();
        }
        gap.extend(ids(&timeline["events"]));
        assert_eq!(gap, sent, "{direction}");
    }
    let path = format!("/v3/rooms/{room}/messages?dir=b&from={next}&limit=2");
    let newest = ids(&alice.get(&path).await.expect(200)["chunk"]);
    assert_eq!(newest, [sent[29].as_str(), &sent[28]]);
    // A room that the answer didn't mention.
    let path = format!("/v3/rooms/{quiet}/messages?dir=f&from={next}");
    assert!(ids(&alice.get(&path).await.expect(200)["chunk"]).is_empty());

    for (at, count) in [(next, 1), (before, 1), ("", 2)] {
        let path = format!("/v3/rooms/{room}/members?at={at}&not_membership=leave");
        let members = alice.get(&path).await.expect(200);
        assert_eq!(ids(&members["chunk"]).len(), count, "{at}");
    }
}

/// HV-05, SY-23: a first sync, and paging on from it, shows a newcomer what the history visibility allows.
#[tokio::test]
async fn sync_shows_newcomers_no_more_than_history_does() {
    let server = Server::start(Table::new()).await;
    let (owner, bob) = (server.register("owner").await, server.register("bob").await);
    for (visibility, expected) in
        [("world_readable", "xxx"), ("shared", "xxx"), ("invited", "-xx"), ("joined", "--x")]
    {
        let room = room_with(&owner, visibility).await;
        let since = bob.sync(None, 0).await["next_batch"].as_str().unwrap().to_owned();
        let first = owner.send_text(&room, "before the invite").await;
        owner.invite(&room, &bob.user_id).await;
        let second = owner.send_text(&room, "before the join").await;
        bob.join(&room).await;
        let third = owner.send_text(&room, "after").await;
        for sync in [bob.sync(Some(&since), 0).await, bob.sync(None, 0).await] {
            let timeline = &sync["rooms"]["join"][&room]["timeline"];
            let mut seen = ids(&timeline["events"]);
            if let Some(from) = timeline["prev_batch"].as_str() {
                let path = format!("/v3/rooms/{room}/messages?dir=b&from={from}&limit=100");
                seen.extend(ids(&bob.get(&path).await.expect(200)["chunk"]));
            }
            let shown = [&first, &second, &third].map(|id| if seen.contains(id) { 'x' } else { '-' });
            assert_eq!(shown.iter().collect::<String>(), expected, "{visibility}");
        }
    }
}
