//! Edits, reactions, threads and references: what is told along with events, the lists of children and of threads.

mod common;

use common::{Server, User};
use serde_json::{Value, json};
use toml::Table;

/// A room of two who may both say what they like.
async fn pair(server: &Server) -> (User, User, String) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    (alice, bob, room)
}

fn reply(root: &str, text: &str) -> Value {
    json!({ "msgtype": "m.text", "body": text, "m.relates_to": { "rel_type": "m.thread", "event_id": root } })
}

fn edit(target: &str, text: &str) -> Value {
    json!({
        "msgtype": "m.text",
        "body": format!("* {text}"),
        "m.new_content": { "msgtype": "m.text", "body": text },
        "m.relates_to": { "rel_type": "m.replace", "event_id": target },
    })
}

fn reaction(target: &str, key: &str) -> Value {
    json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": target, "key": key } })
}

fn reference(target: &str) -> Value {
    json!({ "body": "see", "msgtype": "m.text", "m.relates_to": { "rel_type": "m.reference", "event_id": target } })
}

async fn say(user: &User, room: &str, content: Value) -> String {
    user.send_event(room, "m.room.message", content).await
}

async fn react(user: &User, room: &str, target: &str, key: &str) -> String {
    user.send_event(room, "m.reaction", reaction(target, key)).await
}

async fn try_send(user: &User, room: &str, kind: &str, content: Value) -> common::Answer {
    user.put(&format!("/v3/rooms/{room}/send/{kind}/{}", common::transaction_id()), content).await
}

async fn redact(user: &User, room: &str, event: &str) {
    let path = format!("/v3/rooms/{room}/redact/{event}/{}", common::transaction_id());
    user.put(&path, json!({})).await.expect(200);
}

async fn fetch(user: &User, room: &str, event: &str) -> Value {
    user.get(&format!("/v3/rooms/{room}/event/{event}")).await.expect(200)
}

async fn bundle(user: &User, room: &str, event: &str) -> Value {
    fetch(user, room, event).await["unsigned"]["m.relations"].clone()
}

fn ids(chunk: &Value) -> Vec<String> {
    let events = chunk["chunk"].as_array().unwrap_or_else(|| panic!("no chunk in {chunk}"));
    events.iter().map(|event| event["event_id"].as_str().unwrap_or_default().to_owned()).collect()
}

async fn children(user: &User, room: &str, rest: &str) -> Value {
    user.get(&format!("/v1/rooms/{room}/relations/{rest}")).await.expect(200)
}

async fn ignore(user: &User, ignored: &str) {
    let path = format!("/v3/user/{}/account_data/m.ignored_user_list", user.user_id);
    user.put(&path, json!({ "ignored_users": { ignored: {} } })).await.expect(200);
}

/// RL-07, RL-08: the latest edit by the author and of the same type counts; the content stays what it was.
#[tokio::test]
async fn rl_07_the_latest_valid_edit_is_told_along() {
    let server = Server::start(Table::new()).await;
    let (alice, bob, room) = pair(&server).await;
    let message = alice.send_text(&room, "first").await;
    assert_eq!(bundle(&bob, &room, &message).await, Value::Null);
    say(&alice, &room, edit(&message, "second")).await;
    let last = say(&alice, &room, edit(&message, "third")).await;

    // None of these is an edit of it.
    say(&bob, &room, edit(&message, "not the author's")).await;
    alice.send_event(&room, "org.example.other", edit(&message, "of another type")).await;
    let mut without = edit(&message, "nothing new");
    without["m.new_content"] = json!("text");
    say(&alice, &room, without).await;

    let event = fetch(&bob, &room, &message).await;
    assert_eq!(event["content"]["body"], "first");
    let replacement = &event["unsigned"]["m.relations"]["m.replace"];
    assert_eq!(replacement["event_id"], last.as_str());
    assert_eq!(replacement["content"]["m.new_content"]["body"], "third");
    assert_eq!(replacement["sender"], alice.user_id.as_str());
    assert!(replacement["room_id"].is_string() && replacement["origin_server_ts"].is_i64(), "{replacement}");

    // RL-08: an edit can't be edited.
    say(&alice, &room, edit(&last, "edit of an edit")).await;
    assert_eq!(bundle(&bob, &room, &last).await["m.replace"], Value::Null);
    // Redacting the last brings back the one before.
    redact(&alice, &room, &last).await;
    let replacement = bundle(&bob, &room, &message).await["m.replace"].clone();
    assert_eq!(replacement["content"]["m.new_content"]["body"], "second");
}

/// RL-01: relations are read from the clear text, so those of encrypted events count.
#[tokio::test]
async fn rl_01_encrypted_events_relate_by_their_clear_text() {
    let server = Server::start(Table::new()).await;
    let (alice, _, room) = pair(&server).await;
    let secret = json!({ "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x" });
    let root = alice.send_event(&room, "m.room.encrypted", secret.clone()).await;
    let with = |relation: Value| {
        let mut content = secret.clone();
        content["m.relates_to"] = relation;
        content
    };
    let thread = with(json!({ "rel_type": "m.thread", "event_id": root }));
    let answer = alice.send_event(&room, "m.room.encrypted", thread).await;
    let replace = with(json!({ "rel_type": "m.replace", "event_id": root }));
    let edit = alice.send_event(&room, "m.room.encrypted", replace).await;
    let bundle = bundle(&alice, &room, &root).await;
    assert_eq!(bundle["m.thread"]["latest_event"]["event_id"], answer.as_str());
    assert_eq!(bundle["m.replace"]["event_id"], edit.as_str());
}

/// RL-09: reactions aren't told along; nobody reacts in the same way twice.
#[tokio::test]
async fn rl_09_nobody_annotates_the_same_twice() {
    let server = Server::start(Table::new()).await;
    let (alice, bob, room) = pair(&server).await;
    let message = alice.send_text(&room, "hello").await;
    let first = react(&bob, &room, &message, "👍").await;
    let refused = try_send(&bob, &room, "m.reaction", reaction(&message, "👍")).await;
    refused.expect_error(400, "M_DUPLICATE_ANNOTATION");
    // Others, other keys and other types are something else.
    react(&alice, &room, &message, "👍").await;
    react(&bob, &room, &message, "👎").await;
    bob.send_event(&room, "org.example.reaction", reaction(&message, "👍")).await;
    assert_eq!(bundle(&alice, &room, &message).await, Value::Null);
    // Taken back, it may be said again.
    redact(&bob, &room, &first).await;
    react(&bob, &room, &message, "👍").await;
    let list = children(&alice, &room, &format!("{message}/m.annotation/m.reaction")).await;
    assert_eq!(list["chunk"].as_array().unwrap().len(), 3, "{list}");
}

/// RL-09: also when the same is sent many times at once.
#[tokio::test]
async fn rl_09_of_many_like_reactions_at_once_one_is_taken() {
    let server = Server::start(Table::new()).await;
    let (alice, bob, room) = pair(&server).await;
    let message = alice.send_text(&room, "hello").await;
    let all = (0..20).map(|_| try_send(&bob, &room, "m.reaction", reaction(&message, "👍")));
    let answers = futures_util::future::join_all(all).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
}

/// RL-10: the thread's last event (with its own edit), the count, and whether the reader takes part.
#[tokio::test]
async fn rl_10_a_thread_is_told_along_with_its_root() {
    let server = Server::start(Table::new()).await;
    let (alice, bob, room) = pair(&server).await;
    let carol = server.register("carol").await;
    carol.join(&room).await;
    let root = alice.send_text(&room, "root").await;
    say(&bob, &room, reply(&root, "one")).await;
    let last = say(&bob, &room, reply(&root, "two")).await;
    say(&bob, &room, edit(&last, "two, edited")).await;

    let thread = bundle(&bob, &room, &root).await["m.thread"].clone();
    assert_eq!(thread["count"], 2);
    assert_eq!(thread["latest_event"]["event_id"], last.as_str());
    let edited = &thread["latest_event"]["unsigned"]["m.relations"]["m.replace"];
    assert_eq!(edited["content"]["m.new_content"]["body"], "two, edited");
    for (user, participates) in [(&bob, true), (&alice, true), (&carol, false)] {
        let thread = bundle(user, &room, &root).await["m.thread"].clone();
        assert_eq!(thread["current_user_participated"], participates, "{}", user.user_id);
    }
    // RL-06: a redacted child is no longer part of it, a redacted root keeps its thread.
    redact(&bob, &room, &last).await;
    redact(&alice, &room, &root).await;
    let thread = bundle(&carol, &room, &root).await["m.thread"].clone();
    assert_eq!(thread["count"], 1);
    assert_eq!(thread["latest_event"]["content"]["body"], "one");
}

/// RL-06: nothing replaces a redacted event.
#[tokio::test]
async fn rl_06_a_redacted_event_has_no_edit() {
    let server = Server::start(Table::new()).await;
    let (alice, bob, room) = pair(&server).await;
    let message = alice.send_text(&room, "secret").await;
    say(&alice, &room, edit(&message, "still secret")).await;
    say(&bob, &room, reference(&message)).await;
    redact(&alice, &room, &message).await;
    let bundle = bundle(&bob, &room, &message).await;
    assert_eq!(bundle["m.replace"], Value::Null);
    assert!(bundle["m.reference"].is_object(), "{bundle}");
}

/// RL-11
#[tokio::test]
async fn rl_11_a_thread_begins_with_an_event_that_relates_to_none() {
    let server = Server::start(Table::new()).await;
    let (alice, _, room) = pair(&server).await;
    let root = alice.send_text(&room, "root").await;
    for child in [
        say(&alice, &room, reply(&root, "in a thread")).await,
        say(&alice, &room, edit(&root, "edited")).await,
        react(&alice, &room, &root, "👍").await,
    ] {
        let refused = try_send(&alice, &room, "m.room.message", reply(&child, "no")).await;
        refused.expect_error(400, "M_UNKNOWN");
    }
    // A plain reply relates to nothing in that sense.
    let rich = json!({ "msgtype": "m.text", "body": "re", "m.relates_to": { "m.in_reply_to": { "event_id": root } } });
    let rich = say(&alice, &room, rich).await;
    say(&alice, &room, reply(&rich, "yes")).await;
}

/// RL-12
#[tokio::test]
async fn rl_12_references_are_told_along_by_their_ids() {
    let server = Server::start(Table::new()).await;
    let (alice, bob, room) = pair(&server).await;
    let message = alice.send_text(&room, "poll").await;
    let first = say(&bob, &room, reference(&message)).await;
    let second = say(&alice, &room, reference(&message)).await;
    let bundle = bundle(&bob, &room, &message).await;
    assert_eq!(bundle["m.reference"], json!({ "chunk": [{ "event_id": first }, { "event_id": second }] }));
}

/// RL-03, RL-04, SY-21: wherever events are shown, and never with state.
#[tokio::test]
async fn rl_03_every_list_of_events_tells_of_relations() {
    let server = Server::start(Table::new()).await;
    let (alice, bob, room) = pair(&server).await;
    let since = alice.sync(None, 0).await["next_batch"].as_str().unwrap().to_owned();
    let message = alice.send_text(&room, "first").await;
    let state = alice.send_state(&room, "m.room.topic", "", json!({ "topic": "state" })).await;
    say(&alice, &room, edit(&message, "second")).await;
    say(&bob, &room, reference(&state)).await;
    let has = |event: &Value| event["unsigned"]["m.relations"]["m.replace"].is_object();
    let find = |list: &Value| {
        let list = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
        list.iter().find(|event| event["event_id"] == message.as_str()).cloned().unwrap_or_default()
    };

    let page = alice.get(&format!("/v3/rooms/{room}/messages?dir=b")).await.expect(200);
    assert!(has(&find(&page["chunk"])), "{page}");
    let context = alice.get(&format!("/v3/rooms/{room}/context/{message}")).await.expect(200);
    assert!(has(&context["event"]), "{context}");
    let context = alice.get(&format!("/v3/rooms/{room}/context/{state}")).await.expect(200);
    assert!(has(&find(&context["events_before"])), "{context}");
    assert_eq!(context["event"]["unsigned"]["m.relations"], Value::Null);
    assert_eq!(bundle(&alice, &room, &state).await, Value::Null);
    for since in [Some(since.as_str()), None] {
        let sync = alice.sync(since, 0).await;
        assert!(has(&find(&sync["rooms"]["join"][&room]["timeline"]["events"])), "{sync}");
    }
}

/// RL-05: children of ignored users, and those that the reader may not see, don't count.
#[tokio::test]
async fn rl_05_children_of_the_ignored_and_the_unseen_stay_out() {
    let server = Server::start(Table::new()).await;
    let (alice, bob, room) = pair(&server).await;
    let carol = server.register("carol").await;
    carol.join(&room).await;
    let root = alice.send_text(&room, "root").await;
    say(&alice, &room, reply(&root, "one")).await;
    ignore(&carol, &bob.user_id).await;
    let ignored = say(&bob, &room, reply(&root, "two")).await;
    say(&bob, &room, reference(&root)).await;

    let bundle_of_carol = bundle(&carol, &room, &root).await;
    assert_eq!(bundle_of_carol["m.thread"]["count"], 1);
    assert_eq!(bundle_of_carol["m.thread"]["latest_event"]["content"]["body"], "one");
    assert_eq!(bundle_of_carol["m.reference"], Value::Null);
    assert!(!ids(&children(&carol, &room, &root).await).contains(&ignored));
    assert!(ids(&children(&alice, &room, &root).await).contains(&ignored));

    // Who has left sees what there was.
    carol.post(&format!("/v3/rooms/{room}/leave"), json!({})).await.expect(200);
    say(&alice, &room, reply(&root, "three")).await;
    say(&alice, &room, edit(&root, "too late")).await;
    let bundle = bundle(&carol, &room, &root).await;
    assert_eq!(bundle["m.thread"]["latest_event"]["content"]["body"], "one");
    assert_eq!(bundle["m.replace"], Value::Null);
    assert_eq!(ids(&children(&carol, &room, &root).await).len(), 1);
    let threads = carol.get(&format!("/v1/rooms/{room}/threads")).await.expect(200);
    assert_eq!(threads["chunk"][0]["unsigned"]["m.relations"]["m.thread"]["count"], 1);
}

/// RL-13: the newest first or the oldest, page by page, by types.
#[tokio::test]
async fn rl_13_children_come_page_by_page() {
    let server = Server::start(Table::new()).await;
    let (alice, bob, room) = pair(&server).await;
    let root = alice.send_text(&room, "root").await;
    let mut all = Vec::new();
    for number in 0..7 {
        all.push(say(&bob, &room, reply(&root, &number.to_string())).await);
        all.push(react(&bob, &room, &root, &number.to_string()).await);
        alice.send_text(&room, "between").await;
    }
    for (direction, expected) in [("b", all.iter().rev().cloned().collect::<Vec<_>>()), ("f", all.clone())] {
        let (mut found, mut from) = (Vec::new(), String::new());
        loop {
            let page = children(&alice, &room, &format!("{root}?dir={direction}&limit=3{from}")).await;
            found.extend(ids(&page));
            let Some(next) = page["next_batch"].as_str() else { break };
            assert_eq!(page["chunk"].as_array().unwrap().len(), 3);
            from = format!("&from={next}");
        }
        assert_eq!(found, expected, "dir={direction}");
    }
    let threads = ids(&children(&alice, &room, &format!("{root}/m.thread?limit=50")).await);
    assert_eq!(threads, all.iter().step_by(2).rev().cloned().collect::<Vec<_>>());
    let none = children(&alice, &room, &format!("{root}/m.thread/m.reaction")).await;
    assert_eq!(ids(&none), Vec::<String>::new());
    assert_eq!(none["recursion_depth"], Value::Null);
    // A token of /messages and one of /sync do as well.
    let page = alice.get(&format!("/v3/rooms/{room}/messages?dir=b&limit=6")).await.expect(200);
    let from = page["end"].as_str().unwrap();
    let older = ids(&children(&alice, &room, &format!("{root}?from={from}&limit=50")).await);
    assert_eq!(older, all[..10].iter().rev().cloned().collect::<Vec<_>>());
}

/// RL-13: children of children, three levels and more, only on request.
#[tokio::test]
async fn rl_13_recursion_finds_what_relates_to_children() {
    let server = Server::start(Table::new()).await;
    let (alice, bob, room) = pair(&server).await;
    let root = alice.send_text(&room, "root").await;
    let child = say(&alice, &room, reply(&root, "child")).await;
    let grandchild = say(&alice, &room, edit(&child, "edited")).await;
    let third = react(&bob, &room, &grandchild, "👍").await;

    assert_eq!(ids(&children(&bob, &room, &root).await), std::slice::from_ref(&child));
    let all = children(&bob, &room, &format!("{root}?recurse=true")).await;
    assert_eq!(ids(&all), [third.clone(), grandchild, child]);
    assert!(all["recursion_depth"].as_i64().unwrap() >= 3);
    let reactions = children(&bob, &room, &format!("{root}/m.annotation?recurse=true")).await;
    assert_eq!(ids(&reactions), [third]);
}

/// RL-13, HV-06: an event that can't be seen has no children, nor has one of another room.
#[tokio::test]
async fn rl_13_an_unseen_parent_is_not_found() {
    let server = Server::start(Table::new()).await;
    let (alice, bob, room) = pair(&server).await;
    let secret = alice.create_room(json!({ "preset": "private_chat" })).await;
    let hidden = alice.send_text(&secret, "hidden").await;
    say(&alice, &secret, reply(&hidden, "also")).await;
    let absent = bob.get(&format!("/v1/rooms/{room}/relations/$nothing")).await;
    absent.expect_error(404, "M_NOT_FOUND");
    for path in [format!("{secret}/relations/{hidden}"), format!("{room}/relations/{hidden}")] {
        bob.get(&format!("/v1/rooms/{path}")).await.expect_error(404, "M_NOT_FOUND");
    }
    bob.get(&format!("/v1/rooms/{secret}/threads")).await.expect_error(403, "M_FORBIDDEN");
}

/// RL-14: by the latest reply, all of them or those that one takes part in; an ignored root shows nothing but itself.
#[tokio::test]
async fn rl_14_threads_are_listed_by_their_latest_reply() {
    let server = Server::start(Table::new()).await;
    let (alice, bob, room) = pair(&server).await;
    let mut roots = Vec::new();
    for number in 0..5 {
        roots.push(alice.send_text(&room, &format!("root {number}")).await);
    }
    let bobs = bob.send_text(&room, "bob's root").await;
    for root in roots.iter().chain([&bobs]) {
        say(&alice, &room, reply(root, "reply")).await;
    }
    say(&bob, &room, reply(&roots[1], "the latest")).await;
    let list = |user: &User, rest: &str| {
        let (user, path) = (user.clone(), format!("/v1/rooms/{room}/threads{rest}"));
        async move { user.get(&path).await.expect(200) }
    };
    let expected = [&roots[1], &bobs, &roots[4], &roots[3], &roots[2], &roots[0]].map(Clone::clone);
    assert_eq!(ids(&list(&alice, "").await), expected);
    let (mut found, mut from) = (Vec::new(), String::new());
    loop {
        let page = list(&alice, &format!("?limit=2{from}")).await;
        found.extend(ids(&page));
        let Some(next) = page["next_batch"].as_str() else { break };
        from = format!("&from={next}");
    }
    assert_eq!(found, expected);
    let mine = list(&bob, "?include=participated").await;
    assert_eq!(ids(&mine), [roots[1].clone(), bobs.clone()]);
    assert_eq!(mine["chunk"][0]["unsigned"]["m.relations"]["m.thread"]["current_user_participated"], true);

    ignore(&alice, &bob.user_id).await;
    let page = list(&alice, "").await;
    let root = page["chunk"].as_array().unwrap().iter().find(|event| event["event_id"] == bobs.as_str());
    assert_eq!(root.unwrap()["content"], json!({}), "{page}");
    assert_eq!(ids(&page)[0], bobs, "the latest reply of the other thread is ignored");
}

/// RL-02: nonsense for a relation is a message like any other, and breaks nothing.
#[tokio::test]
async fn rl_02_malformed_relations_are_none() {
    let server = Server::start(Table::new()).await;
    let (alice, _, room) = pair(&server).await;
    let root = alice.send_text(&room, "root").await;
    for relation in [
        json!("text"),
        json!([]),
        json!({ "rel_type": 5, "event_id": root }),
        json!({ "rel_type": "m.thread" }),
        json!({ "rel_type": "m.thread", "event_id": 7 }),
        json!({ "rel_type": "m.annotation", "event_id": root, "key": { "not": "a text" } }),
        json!({ "rel_type": "m.reference", "event_id": "$of another room" }),
        json!({ "rel_type": "x".repeat(1000), "event_id": "$y".repeat(1000) }),
    ] {
        say(&alice, &room, json!({ "msgtype": "m.text", "body": "x", "m.relates_to": relation })).await;
    }
    assert_eq!(bundle(&alice, &room, &root).await, Value::Null);
    alice.get(&format!("/v1/rooms/{room}/threads")).await.expect(200);
    alice.sync(None, 0).await;
}

/// RC-23, SY-15: what relates to an event of a thread, over up to three steps, is unread in that thread.
#[tokio::test]
async fn rc_23_reactions_and_edits_count_where_their_target_is() {
    let server = Server::start(Table::new()).await;
    let (alice, bob, room) = pair(&server).await;
    let root = bob.send_text(&room, "root").await;
    let child = say(&bob, &room, reply(&root, "in the thread")).await;
    let filter = format!(
        "&filter={}",
        "%7B%22room%22:%7B%22timeline%22:%7B%22unread_thread_notifications%22:true%7D%7D%7D"
    );
    alice.post(&format!("/v3/rooms/{room}/receipt/m.read/{child}"), json!({})).await.expect(200);
    let related = json!({
        "msgtype": "m.text", "body": "about it",
        "m.relates_to": { "rel_type": "m.reference", "event_id": child },
    });
    let related = say(&bob, &room, related).await;
    say(&bob, &room, reference(&related)).await;
    say(&bob, &room, reference(&root)).await;
    let sync = alice.sync_with(None, 0, &filter).await;
    let joined = &sync["rooms"]["join"][&room];
    assert_eq!(joined["unread_thread_notifications"][&root]["notification_count"], 2, "{joined}");
    assert_eq!(joined["unread_notifications"]["notification_count"], 1, "{joined}");
}
