//! Searching messages: what is found, by whom, in which order, page by page.

mod common;

use common::{Server, User};
use serde_json::{Value, json};
use toml::Table;

async fn ask(user: &User, criteria: Value, from: &str) -> Value {
    let path =
        format!("/v3/search{}", if from.is_empty() { String::new() } else { format!("?next_batch={from}") });
    let body = json!({ "search_categories": { "room_events": criteria } });
    user.post(&path, body).await.expect(200)["search_categories"]["room_events"].take()
}

fn bodies(found: &Value) -> Vec<String> {
    let results = found["results"].as_array().unwrap_or_else(|| panic!("no results in {found}"));
    let text = |result: &Value| {
        let content = &result["result"]["content"];
        let text =
            [&content["body"], &content["name"], &content["topic"]].into_iter().find_map(Value::as_str);
        text.unwrap_or("-").to_owned()
    };
    results.iter().map(text).collect()
}

/// The newest first.
async fn find(user: &User, term: &str) -> Vec<String> {
    bodies(&ask(user, json!({ "search_term": term, "order_by": "recent" }), "").await)
}

fn encode(token: &str) -> String {
    form_urlencoded::byte_serialize(token.as_bytes()).collect()
}

/// SE-01: all words, whole, without case and diacritics; in messages, names and topics.
#[tokio::test]
async fn se_01_words_are_found_in_messages_names_and_topics() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({ "name": "Apple garden", "topic": "Pears and plums" })).await;
    for text in [
        "Red apples, please",
        "An APPLE a day",
        "a càfé by the river",
        "今日は東京都に行く",
        "\"quoted\" OR not",
    ] {
        alice.send_text(&room, text).await;
    }
    assert_eq!(find(&alice, "apple").await, ["An APPLE a day", "Apple garden"]);
    assert_eq!(find(&alice, "day apple").await, ["An APPLE a day"]);
    assert_eq!(find(&alice, "cafe").await, ["a càfé by the river"]);
    assert_eq!(find(&alice, "plums").await, ["Pears and plums"]);
    // Nothing is called so, but something begins so.
    assert_eq!(find(&alice, "riv").await, ["a càfé by the river"]);
    for part in ["東京", "京都", "都", "行く"] {
        assert_eq!(find(&alice, part).await, ["今日は東京都に行く"], "{part}");
    }
    // What would be an operator is a word.
    for term in ["\"quoted\" OR", "or NOT", "quoted*"] {
        assert_eq!(find(&alice, term).await, ["\"quoted\" OR not"], "{term}");
    }
    for term in ["apple AND nothing", "", "?!", "words:apple", "x OR apple", "\u{e000}r1"] {
        assert_eq!(find(&alice, term).await, Vec::<String>::new(), "{term}");
    }
    let keys = |keys: Value| json!({ "search_term": "apple", "order_by": "recent", "keys": keys });
    assert_eq!(bodies(&ask(&alice, keys(json!(["content.name"])), "").await), ["Apple garden"]);
    assert_eq!(bodies(&ask(&alice, keys(json!(["content.body"])), "").await), ["An APPLE a day"]);
    assert_eq!(bodies(&ask(&alice, keys(json!(["content.body", "content.name"])), "").await).len(), 2);
    let found = ask(&alice, json!({ "search_term": "day Apple" }), "").await;
    assert_eq!(found["highlights"], json!(["apple", "day"]));
    assert_eq!(found["count"], 1);
}

/// SE-02: the beginning of a word is searched for on every page, and the count grows to what there is.
#[tokio::test]
async fn se_02_beginnings_of_words_are_found_page_by_page() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    for number in 1..=5 {
        alice.send_text(&room, &format!("gardening {number}")).await;
    }
    for order in ["recent", "rank"] {
        let criteria = json!({ "search_term": "garden", "order_by": order, "filter": { "limit": 2 } });
        let (mut found, mut counts, mut from) = (Vec::new(), Vec::new(), String::new());
        loop {
            let page = ask(&alice, criteria.clone(), &encode(&from)).await;
            found.extend(bodies(&page));
            counts.push(page["count"].as_u64().expect("a count"));
            match page["next_batch"].as_str() {
                Some(next) if counts.len() < 10 => next.clone_into(&mut from),
                _ => break,
            }
        }
        let expected: Vec<String> = (1..=5).rev().map(|number| format!("gardening {number}")).collect();
        assert_eq!(found, expected, "{order}");
        assert!(counts.is_sorted() && counts[0] > 2, "{order}: {counts:?}");
        assert_eq!(counts.last(), Some(&5), "{order}: {counts:?}");
    }
}

/// SE-01: encrypted and redacted content is never found, an edit by its new text.
#[tokio::test]
async fn se_01_what_is_secret_or_gone_is_not_found() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let secret = json!({ "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "treasure", "body": "treasure" });
    alice.send_event(&room, "m.room.encrypted", secret).await;
    let gone = alice.send_text(&room, "treasure here").await;
    assert_eq!(find(&alice, "treasure").await, ["treasure here"]);
    let redact = |event: String| {
        let path = format!("/v3/rooms/{room}/redact/{event}/{}", common::transaction_id());
        let alice = alice.clone();
        async move { alice.put(&path, json!({})).await.expect(200) }
    };
    redact(gone).await;
    assert_eq!(find(&alice, "treasure").await, Vec::<String>::new());
    // Before anybody has searched, so perhaps before it was indexed.
    let gone = alice.send_text(&room, "jewel").await;
    redact(gone).await;
    assert_eq!(find(&alice, "jewel").await, Vec::<String>::new());

    let message = alice.send_text(&room, "teh mistake").await;
    let edit = json!({
        "msgtype": "m.text", "body": "* the correction",
        "m.new_content": { "msgtype": "m.text", "body": "the correction" },
        "m.relates_to": { "rel_type": "m.replace", "event_id": message },
    });
    alice.send_event(&room, "m.room.message", edit).await;
    assert_eq!(find(&alice, "correction").await, ["* the correction"]);
}

/// SE-01, HV-05, I10: only in rooms that one is or was in, and of these only what one may see.
#[tokio::test]
async fn se_01_only_what_may_be_seen_is_found() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let visibility = json!([{
        "type": "m.room.history_visibility", "state_key": "", "content": { "history_visibility": "joined" },
    }]);
    let room = alice.create_room(json!({ "preset": "public_chat", "initial_state": visibility })).await;
    let open = alice
        .create_room(json!({ "preset": "public_chat", "initial_state": [{
            "type": "m.room.history_visibility", "state_key": "", "content": { "history_visibility": "world_readable" },
        }] }))
        .await;
    alice.send_text(&open, "lantern in the open").await;
    alice.send_text(&room, "lantern before").await;
    bob.join(&room).await;
    alice.send_text(&room, "lantern during").await;
    bob.post(&format!("/v3/rooms/{room}/leave"), json!({})).await.expect(200);
    alice.send_text(&room, "lantern after").await;
    assert_eq!(find(&bob, "lantern").await, ["lantern during"]);
    assert_eq!(find(&alice, "lantern").await.len(), 4);
    bob.post(&format!("/v3/rooms/{room}/forget"), json!({})).await.expect(200);
    assert_eq!(find(&bob, "lantern").await, Vec::<String>::new());
    // IG-01: nor what somebody says whom one ignores.
    bob.join(&open).await;
    assert_eq!(find(&bob, "lantern").await, ["lantern in the open"]);
    let list = format!("/v3/user/{}/account_data/m.ignored_user_list", bob.user_id);
    bob.put(&list, json!({ "ignored_users": { &alice.user_id: {} } })).await.expect(200);
    assert_eq!(find(&bob, "lantern").await, Vec::<String>::new());
}

/// SE-02: page by page, with filters, each message once.
#[tokio::test]
async fn se_02_results_come_page_by_page() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let one = alice.create_room(json!({ "preset": "public_chat" })).await;
    let two = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&one).await;
    let mut all = Vec::new();
    for number in 0..12 {
        let (user, room) =
            if number % 3 == 0 { (&bob, &one) } else { (&alice, if number % 2 == 0 { &one } else { &two }) };
        let text = format!("kettle {number}");
        user.send_text(room, &text).await;
        alice.send_text(room, "nothing").await;
        all.insert(0, text);
    }
    for (order, sorted) in [("recent", false), ("rank", true)] {
        let criteria = json!({ "search_term": "kettle", "order_by": order, "filter": { "limit": 5 } });
        let (mut found, mut from) = (Vec::new(), String::new());
        loop {
            let page = ask(&alice, criteria.clone(), &from).await;
            found.extend(bodies(&page));
            let Some(next) = page["next_batch"].as_str() else { break };
            assert_eq!(page["results"].as_array().map(Vec::len), Some(5));
            from = encode(next);
        }
        let mut expected = all.clone();
        if sorted {
            found.sort();
            expected.sort();
        }
        assert_eq!(found, expected, "{order}");
    }
    for (filter, expected) in [
        (json!({ "rooms": [two] }), 4),
        (json!({ "not_rooms": [two] }), 8),
        (json!({ "senders": [bob.user_id] }), 4),
        (json!({ "not_senders": [bob.user_id] }), 8),
        (json!({ "types": ["m.room.name"] }), 0),
        (json!({ "rooms": [] }), 0),
    ] {
        let mut filter = filter;
        filter["limit"] = json!(50);
        let found = ask(&alice, json!({ "search_term": "kettle", "filter": filter }), "").await;
        assert_eq!(bodies(&found).len(), expected, "{filter}");
    }
    let path = "/v3/search?next_batch=nonsense";
    let body = json!({ "search_categories": { "room_events": { "search_term": "kettle" } } });
    alice.post(path, body).await.expect_error(400, "M_INVALID_PARAM");
}

/// SE-02: groups name their results, and go on by a token of their own.
#[tokio::test]
async fn se_02_groups_have_their_results_and_tokens() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    for number in 0..4 {
        alice.send_text(&room, &format!("winter {number}")).await;
        bob.send_text(&room, &format!("winter, says Bob {number}")).await;
    }
    let criteria = json!({
        "search_term": "winter", "order_by": "recent", "filter": { "limit": 2 },
        "groupings": { "group_by": [{ "key": "sender" }, { "key": "room_id" }] },
    });
    let found = ask(&alice, criteria.clone(), "").await;
    let senders = &found["groups"]["sender"];
    let ids: Vec<&Value> =
        found["results"].as_array().unwrap().iter().map(|one| &one["result"]["event_id"]).collect();
    assert_eq!(found["groups"]["room_id"][&room]["results"], json!(ids));
    assert_eq!(senders[&bob.user_id]["results"], json!([ids[0]]));
    assert_eq!(senders[&alice.user_id]["results"], json!([ids[1]]));
    let next = encode(senders[&bob.user_id]["next_batch"].as_str().unwrap());
    let more = ask(&alice, criteria, &next).await;
    assert_eq!(bodies(&more), ["winter, says Bob 2", "winter, says Bob 1"]);
}

/// SE-02: who follows the token of a group sees each of its results once, in either order and from any page.
#[tokio::test]
async fn se_02_tokens_of_groups_lead_through_their_results() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let mut of_bob = Vec::new();
    for _ in 0..6 {
        alice.send_text(&room, "autumn").await;
        of_bob.insert(0, bob.send_text(&room, "autumn").await);
    }
    let results = |found: &Value| -> Vec<String> {
        let results = found["groups"]["sender"][&bob.user_id]["results"].as_array();
        results.into_iter().flatten().map(|id| id.as_str().unwrap().to_owned()).collect()
    };
    for order in ["recent", "rank"] {
        let criteria = json!({
            "search_term": "autumn", "order_by": order, "filter": { "limit": 2 },
            "groupings": { "group_by": [{ "key": "sender" }] },
        });
        let first = ask(&alice, criteria.clone(), "").await;
        let second = ask(&alice, criteria.clone(), &encode(first["next_batch"].as_str().unwrap())).await;
        for (mut page, expected) in [(first, &of_bob[..]), (second, &of_bob[1..])] {
            let mut seen = results(&page);
            while let Some(next) = page["groups"]["sender"][&bob.user_id]["next_batch"].as_str() {
                assert!(seen.len() <= expected.len(), "{order}: {seen:?}");
                page = ask(&alice, criteria.clone(), &encode(next)).await;
                seen.extend(results(&page));
            }
            assert_eq!(seen, expected, "{order}");
        }
    }
}

/// SE-02: the events around a result, the profiles of who speaks there, and the state of the rooms.
#[tokio::test]
async fn se_02_results_come_with_their_surroundings() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let name = format!("/v3/profile/{}/displayname", alice.user_id);
    alice.put(&name, json!({ "displayname": "Alice A" })).await.expect(200);
    let room = alice.create_room(json!({ "name": "Room" })).await;
    for text in ["one", "two", "needle", "three", "four"] {
        alice.send_text(&room, text).await;
    }
    let criteria = json!({
        "search_term": "needle", "include_state": true,
        "event_context": { "before_limit": 1, "after_limit": 5, "include_profile": true },
    });
    let found = ask(&alice, criteria, "").await;
    let context = &found["results"][0]["context"];
    let texts = |list: &Value| -> Vec<String> {
        list.as_array()
            .unwrap()
            .iter()
            .map(|event| event["content"]["body"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(texts(&context["events_before"]), ["two"]);
    assert_eq!(texts(&context["events_after"]), ["three", "four"]);
    assert_eq!(context["profile_info"][&alice.user_id]["displayname"], "Alice A");
    assert!(found["results"][0]["rank"].as_f64().unwrap() > 0.0);
    let types: Vec<&Value> =
        found["state"][&room].as_array().unwrap().iter().map(|event| &event["type"]).collect();
    assert!(types.contains(&&json!("m.room.name")), "{types:?}");
    let start = context["start"].as_str().unwrap();
    let page = alice.get(&format!("/v3/rooms/{room}/messages?dir=b&from={start}&limit=1")).await.expect(200);
    assert_eq!(page["chunk"][0]["content"]["body"], "one");
}

/// The best comes first: what says more of it in fewer words.
#[tokio::test]
async fn se_02_the_best_results_come_first() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    for text in [
        "bread bread bread",
        "a long story in which bread is mentioned only once among many words",
        "bread, fresh",
    ] {
        alice.send_text(&room, text).await;
    }
    let found = bodies(&ask(&alice, json!({ "search_term": "bread" }), "").await);
    assert_eq!(found[0], "bread bread bread");
    assert!(found[2].starts_with("a long story"));
}

/// What was sent before a kill is found after it.
#[tokio::test]
async fn the_index_survives_a_kill() {
    let mut server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    alice.send_text(&room, "harbour one").await;
    find(&alice, "harbour").await;
    alice.send_text(&room, "harbour two").await;
    server.kill().await;
    server.start_again().await;
    assert_eq!(find(&alice, "harbour").await, ["harbour two", "harbour one"]);
}

/// Bad questions are refused, large ones bounded.
#[tokio::test]
async fn questions_are_checked() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    alice.create_room(json!({ "name": "Room" })).await;
    let refused = alice.post("/v3/search", json!({})).await;
    refused.expect_error(400, "M_BAD_JSON");
    for criteria in [json!({}), json!({ "search_term": 5 })] {
        let body = json!({ "search_categories": { "room_events": criteria } });
        alice.post("/v3/search", body).await.expect_error(400, "M_BAD_JSON");
    }
    for criteria in [
        json!({ "search_term": "x", "order_by": "luck" }),
        json!({ "search_term": "x", "groupings": { "group_by": [{ "key": "luck" }] } }),
    ] {
        let body = json!({ "search_categories": { "room_events": criteria } });
        alice.post("/v3/search", body).await.expect_error(400, "M_INVALID_PARAM");
    }
    find(&alice, &"long ".repeat(20_000)).await;
    find(&alice, "nul \0 and \u{fdd0}").await;
    let nothing = alice.post("/v3/search", json!({ "search_categories": {} })).await.expect(200);
    assert_eq!(nothing, json!({ "search_categories": {} }));
}
