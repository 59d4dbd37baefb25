//! Connections: retries, lost answers, several at once, and those that are gone.

use super::*;

#[tokio::test]
async fn an_answer_that_got_lost_comes_again() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room_id = alice.create_room(json!({})).await;
    let mut sliding = Sliding::of_all_rooms(&alice);
    sliding.next().await;
    alice.send_text(&room_id, "one").await;
    let lost = sliding.ask(0).await.expect(200);
    assert_eq!(texts(room(&lost, &room_id)), ["one"]);
    alice.send_text(&room_id, "two").await;
    let again = sliding.next().await;
    assert_eq!(texts(room(&again, &room_id)), ["one", "two"]);
    let answer = sliding.next().await;
    assert!(rooms(&answer).is_empty(), "{answer}");
    // What the lost answer said is no way on.
    sliding.pos = Some(pos(&lost).to_owned());
    sliding.ask(0).await.expect_error(400, "M_UNKNOWN_POS");
}

#[tokio::test]
async fn a_lost_first_answer_costs_nothing_but_itself() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room_id = alice.create_room(json!({})).await;
    let mut sliding = Sliding::of_all_rooms(&alice);
    sliding.ask(0).await.expect(200);
    assert_eq!(rooms(&sliding.next().await), [room_id.as_str()]);
    assert!(rooms(&sliding.next().await).is_empty());
}

#[tokio::test]
async fn a_request_takes_the_place_of_the_one_that_waits() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room_id = alice.create_room(json!({})).await;
    let mut sliding = Sliding::of_all_rooms(&alice);
    sliding.next().await;
    let waiting = sliding.poll();
    // With the same `pos`, and other wishes: it is answered at once, and so is the one before, with nothing.
    sliding.body["lists"]["all"]["required_state"] = json!([["*", "*"]]);
    let answer = common::eventually("the first request is replaced", || async {
        let answer = sliding.ask(0).await.expect(200);
        waiting.is_finished().then_some(answer)
    })
    .await;
    let before = waiting.await.expect("a request");
    assert!(rooms(&before).is_empty());
    assert!(keys(room(&answer, &room_id)).contains(&"m.room.power_levels|".to_owned()));
    sliding.pos = Some(pos(&answer).to_owned());
    assert!(rooms(&sliding.next().await).is_empty());
}

#[tokio::test]
async fn a_pos_is_known_to_its_own_connection_alone() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mut sliding = Sliding::of_all_rooms(&alice);
    sliding.next().await;
    let other_device = server.login("alice").await;
    for user in [&bob, &other_device] {
        let mut thief = Sliding::of_all_rooms(user);
        thief.next().await;
        thief.pos.clone_from(&sliding.pos);
        thief.ask(0).await.expect_error(400, "M_UNKNOWN_POS");
    }
    let mut named = Sliding::of_all_rooms(&alice);
    named.body["conn_id"] = json!("other");
    named.next().await;
    named.pos.clone_from(&sliding.pos);
    named.ask(0).await.expect_error(400, "M_UNKNOWN_POS");
    for nonsense in ["", "x", "s1_2_3_4", "s1_2_3_4_5", "r5", "s_1", "-1", "99999999999999999999"] {
        let mut wrong = Sliding::of_all_rooms(&alice);
        wrong.pos = Some(format!("{nonsense}x"));
        wrong.ask(0).await.expect_error(400, "M_UNKNOWN_POS");
    }
    assert!(rooms(&sliding.next().await).is_empty(), "and the connection doesn't notice");
}

#[tokio::test]
async fn connections_of_a_device_know_nothing_of_each_other() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room_id = alice.create_room(json!({})).await;
    let mut list = Sliding::of_all_rooms(&alice);
    list.body["conn_id"] = json!("room-list");
    let mut keys = Sliding::new(
        &alice,
        json!({ "conn_id": "encryption", "extensions": { "e2ee": { "enabled": true }, "to_device": { "enabled": true } } }),
    );
    assert_eq!(rooms(&list.next().await), [room_id.as_str()]);
    let answer = keys.next().await;
    assert!(rooms(&answer).is_empty());
    assert!(answer["extensions"]["to_device"]["next_batch"].is_string());
    assert!(answer["extensions"]["e2ee"].is_object());
    for number in 0..3 {
        alice.send_text(&room_id, &number.to_string()).await;
        assert_eq!(texts(room(&list.next().await, &room_id)).len(), 1);
    }
    assert!(rooms(&keys.next().await).is_empty());
    alice.send_text(&room_id, "again").await;
    assert_eq!(texts(room(&list.next().await, &room_id)), ["again"]);
}

#[tokio::test]
async fn a_device_keeps_the_connections_that_it_uses() {
    let server = server().await;
    let alice = server.register("alice").await;
    let mut used = Sliding::of_all_rooms(&alice);
    used.next().await;
    let mut first = None;
    for number in 0..30 {
        let mut other = Sliding::of_all_rooms(&alice);
        other.body["conn_id"] = json!(format!("c{number}"));
        other.next().await;
        first.get_or_insert(other);
        used.next().await;
    }
    first.expect("one").ask(0).await.expect_error(400, "M_UNKNOWN_POS");
    used.next().await;
}

/// Whether or not its last answer has reached the client; what was said meanwhile is told and nothing else.
#[tokio::test]
async fn connections_go_on_after_a_planned_restart() {
    let mut server = server().await;
    let alice = server.register("alice").await;
    let (room_id, other) = (alice.create_room(json!({})).await, alice.create_room(json!({})).await);
    let mut sliding = Sliding::of_all_rooms(&alice);
    let mut late = Sliding::of_all_rooms(&alice);
    late.body["conn_id"] = json!("late");
    for connection in [&mut sliding, &mut late] {
        assert_eq!(rooms(&connection.next().await).len(), 2);
        assert!(rooms(&connection.next().await).is_empty());
    }
    for text in ["one", "two", "three"] {
        alice.send_text(&room_id, text).await;
    }
    // This answer gets lost.
    late.ask(0).await.expect(200);
    for round in 1..=3 {
        server.restart().await;
        alice.send_text(&room_id, &format!("round {round}")).await;
        let answer = sliding.next().await;
        assert_eq!(rooms(&answer), [room_id.as_str()], "{answer}");
        let shown = room(&answer, &room_id);
        let said: &[&str] = if round == 1 { &["one", "two", "three", "round 1"] } else { &[] };
        let last = format!("round {round}");
        assert_eq!(texts(shown), if said.is_empty() { vec![last.as_str()] } else { said.to_vec() });
        assert!(shown.get("initial").is_none() && shown.get("limited").is_none(), "{shown}");
        assert!(rooms(&sliding.next().await).is_empty());
    }
    let answer = late.next().await;
    let shown = room(&answer, &room_id);
    assert_eq!(texts(shown), ["one", "two", "three", "round 1", "round 2", "round 3"]);
    alice.send_text(&other, "elsewhere").await;
    assert_eq!(rooms(&late.next().await), [other.as_str()]);
}

/// A server that is killed has left nothing, nor has the run before it.
#[tokio::test]
async fn a_kill_makes_connections_begin_anew_and_nothing_is_lost() {
    let mut server = server().await;
    let alice = server.register("alice").await;
    let room_id = alice.create_room(json!({})).await;
    let mut sliding = Sliding::of_all_rooms(&alice);
    sliding.next().await;
    server.restart().await;
    alice.send_text(&room_id, "one").await;
    server.kill().await;
    server.start_again().await;
    sliding.ask(0).await.expect_error(400, "M_UNKNOWN_POS");
    sliding.pos = None;
    let answer = sliding.next().await;
    assert_eq!(texts(room(&answer, &room_id)), ["one"]);
    assert_eq!(room(&answer, &room_id)["initial"], true);
}

#[tokio::test]
async fn a_pos_is_a_token_of_messages_and_relations() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room_id = alice.create_room(json!({})).await;
    let event = alice.send_text(&room_id, "one").await;
    let mut sliding = Sliding::of_all_rooms(&alice);
    let answer = sliding.next().await;
    alice.send_text(&room_id, "two").await;
    let path = format!("/v3/rooms/{room_id}/messages?dir=b&limit=1&from={}", pos(&answer));
    let page = alice.get(&path).await.expect(200);
    assert_eq!(page["chunk"][0]["event_id"], event);
    let path = format!("/v1/rooms/{room_id}/relations/{event}?dir=f&from={}", pos(&answer));
    alice.get(&path).await.expect(200);
}

#[tokio::test]
async fn who_logs_out_is_told_so_and_gets_nothing_more() {
    let server = server().await;
    let alice = server.register("alice").await;
    alice.create_room(json!({})).await;
    let mut sliding = Sliding::of_all_rooms(&alice);
    sliding.next().await;
    let waiting = tokio::spawn({
        let same = Sliding { user: alice.clone(), pos: sliding.pos.clone(), body: sliding.body.clone() };
        async move { same.ask(FOR_EVER).await }
    });
    alice.post("/v3/logout", json!({})).await.expect(200);
    waiting.await.expect("a request").expect_error(401, "M_UNKNOWN_TOKEN");
}
