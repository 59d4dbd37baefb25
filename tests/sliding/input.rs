//! I8: what clients shouldn't send.

use super::*;

#[tokio::test]
async fn i8_bad_requests_get_a_matrix_error() {
    let server = server().await;
    let alice = server.register("alice").await;
    let config = json!({ "ranges": [[0, 1]], "timeline_limit": 1, "required_state": [] });
    let many = |count: usize| -> Value {
        (0..count)
            .map(|number| (format!("l{number}"), config.clone()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let subscribe = |count: usize| -> Value {
        let one = json!({ "timeline_limit": 1, "required_state": [] });
        let rooms = (0..count).map(|number| (format!("!r{number}:localhost"), one.clone()));
        rooms.collect::<serde_json::Map<_, _>>().into()
    };
    let of = |more: Value| all_rooms(more);
    let elements: Vec<Value> = (0..1000).map(|number| json!([format!("t{number}"), ""])).collect();
    for (body, errcode) in [
        (json!({ "lists": many(101) }), "M_INVALID_PARAM"),
        (json!({ "room_subscriptions": subscribe(101) }), "M_INVALID_PARAM"),
        (json!({ "conn_id": "x".repeat(1000) }), "M_INVALID_PARAM"),
        (json!({ "lists": { "x".repeat(1000): config } }), "M_INVALID_PARAM"),
        (of(json!({ "required_state": elements })), "M_INVALID_PARAM"),
        (of(json!({ "ranges": [[5, 1]] })), "M_INVALID_PARAM"),
        (of(json!({ "ranges": vec![[0, 1]; 1000] })), "M_INVALID_PARAM"),
        (of(json!({ "filters": { "tags": vec!["x"; 1000] } })), "M_INVALID_PARAM"),
        (
            json!({ "extensions": { "receipts": { "enabled": true, "rooms": vec!["x"; 1000] } } }),
            "M_INVALID_PARAM",
        ),
        (of(json!({ "ranges": [[-1, 1]] })), "M_BAD_JSON"),
        (of(json!({ "ranges": [[0, 1, 2]] })), "M_BAD_JSON"),
        (of(json!({ "timeline_limit": -1 })), "M_BAD_JSON"),
        (of(json!({ "timeline_limit": 1.5 })), "M_BAD_JSON"),
        (of(json!({ "required_state": [["only one"]] })), "M_BAD_JSON"),
        (of(json!({ "filters": { "is_dm": "yes" } })), "M_BAD_JSON"),
        (json!({ "lists": [] }), "M_BAD_JSON"),
        (json!({ "lists": { "a": {} } }), "M_BAD_JSON"),
        (json!({ "room_subscriptions": { "nonsense": config } }), "M_BAD_JSON"),
        (json!({ "extensions": { "typing": 5 } }), "M_BAD_JSON"),
        (json!([]), "M_BAD_JSON"),
    ] {
        alice.post(EARLY, body).await.expect_error(400, errcode);
    }
    for (query, errcode) in [
        ("timeout=-1", "M_INVALID_PARAM"),
        ("timeout=x", "M_INVALID_PARAM"),
        ("set_presence=away", "M_INVALID_PARAM"),
    ] {
        alice.post(&format!("{EARLY}?{query}"), json!({})).await.expect_error(400, errcode);
    }
    alice.http.post(EARLY, None, json!({})).await.expect_error(401, "M_MISSING_TOKEN");
    for body in [
        json!({ "lists": { "a": { "timeline_limit": 1, "required_state": {}, "range": [3, 1] } } }),
        json!({ "set_presence": "away" }),
        json!({ "lists": { "a": { "timeline_limit": 1, "required_state": { "include": vec![json!({}); 1000] } } } }),
    ] {
        alice.post(MERGED, body).await.expect_error(400, "M_INVALID_PARAM");
    }
    alice
        .post(MERGED, json!({ "lists": { "a": { "required_state": {} } } }))
        .await
        .expect_error(400, "M_BAD_JSON");
    // What is unknown is left alone, and as much as may be is.
    let answer = alice
        .post(
            EARLY,
            json!({
                "lists": many(100), "room_subscriptions": subscribe(100), "unknown": 1,
                "extensions": { "org.example": { "enabled": true } },
            }),
        )
        .await
        .expect(200);
    assert_eq!(answer["lists"].as_object().expect("lists").len(), 100);
}

/// I8: windows and timelines as large as numbers go.
#[tokio::test]
async fn i8_huge_numbers_are_as_good_as_large_ones() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room_id = alice.create_room(json!({})).await;
    let body = all_rooms(json!({
        "ranges": [[0, u64::MAX], [u64::MAX, u64::MAX]], "timeline_limit": u64::MAX,
    }));
    let mut sliding = Sliding::new(&alice, body);
    assert_eq!(rooms(&sliding.next().await), [room_id.as_str()]);
    assert!(rooms(&sliding.next().await).is_empty());
    sliding.body = all_rooms(json!({ "ranges": [] }));
    let answer = sliding.next().await;
    assert_eq!((rooms(&answer).len(), count(&answer, "all")), (0, 1));
    let mut nothing = Sliding::new(&alice, json!({}));
    let answer = nothing.next().await;
    assert_eq!(
        (&answer["lists"], &answer["rooms"], &answer["extensions"]),
        (&json!({}), &json!({}), &json!({}))
    );
}

/// I8: an answer has a bounded number of events; the rooms beyond come with the next.
#[tokio::test]
async fn i8_what_is_too_much_for_one_answer_comes_with_the_next() {
    let server = server().await;
    let alice = server.register("alice").await;
    for _ in 0..105 {
        alice.create_room(json!({})).await;
    }
    let mut sliding =
        Sliding::new(&alice, all_rooms(json!({ "ranges": [[0, 999]], "timeline_limit": 1000 })));
    let answer = sliding.next().await;
    assert_eq!((rooms(&answer).len(), count(&answer, "all")), (100, 105));
    // It isn't waited for.
    let answer = sliding.ask(FOR_EVER).await.expect(200);
    assert_eq!(rooms(&answer).len(), 5);
    sliding.pos = Some(pos(&answer).to_owned());
    assert!(rooms(&sliding.next().await).is_empty());
}

#[tokio::test]
async fn suspended_accounts_and_guests_read_as_by_sync() {
    let server = Server::start(toml::toml! { registration.guests = true }).await;
    let bob = server.register("bob").await;
    let room_id = bob.create_room(json!({ "preset": "public_chat" })).await;
    let content = json!({ "guest_access": "can_join" });
    bob.send_state(&room_id, "m.room.guest_access", "", content).await;
    assert!(server.run(&["user", "suspend", "bob"]).status.success());
    let answer = common::eventually("bob is suspended", || async {
        let name = format!("/v3/profile/{}/displayname", bob.user_id);
        let refused = bob.put(&name, json!({ "displayname": "Bob" })).await.status == 403;
        refused.then_some(Sliding::of_all_rooms(&bob).next().await)
    })
    .await;
    assert_eq!(rooms(&answer), [room_id.as_str()]);

    let answer = server.http().post("/v3/register?kind=guest", None, json!({})).await.expect(200);
    let guest = User::new(server.http().clone(), &answer);
    guest.post(&format!("/v3/rooms/{room_id}/join"), json!({})).await.expect(200);
    assert_eq!(rooms(&Sliding::of_all_rooms(&guest).next().await), [room_id.as_str()]);
}
