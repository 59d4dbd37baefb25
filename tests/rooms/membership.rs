//! Joining, inviting, knocking, leaving, kicking, banning and forgetting.

use serde_json::{Value, json};

use crate::{
    common::{Server, User, eventually, history::whole_log},
    encoded, server, state,
};

const UNKNOWN: &str = "!AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

async fn membership(user: &User, room: &str, of: &User) -> Value {
    state(user, room, "m.room.member", &of.user_id).await
}

async fn act(user: &User, room: &str, action: &str, on: &User) -> crate::common::Answer {
    user.post(&format!("/v3/rooms/{room}/{action}"), json!({ "user_id": on.user_id })).await
}

async fn two(server: &Server) -> (User, User) {
    (server.register("alice").await, server.register("bob").await)
}

#[tokio::test]
async fn mb_06_a_join_names_the_room_and_again_changes_nothing() {
    let server = server().await;
    let (alice, bob) = two(&server).await;
    let room = alice.create_room(json!({ "preset": "public_chat", "room_alias_name": "hall" })).await;
    for path in [
        format!("/v3/join/{room}"),
        format!("/v3/join/{}", encoded(&room)),
        format!("/r0/rooms/{}/join", encoded(&room)),
        format!("/v3/join/{}", encoded("#hall:localhost")),
    ] {
        let answer = bob.post(&path, json!({})).await.expect(200);
        assert_eq!(answer, json!({ "room_id": room }), "{path}");
    }
    let joins = whole_log(&alice, &room).await;
    let joins = joins.iter().filter(|event| event["state_key"] == bob.user_id.as_str()).count();
    assert_eq!(joins, 1);
    let joined = bob.get("/v3/joined_rooms").await.expect(200);
    assert_eq!(joined, json!({ "joined_rooms": [room] }));
}

#[tokio::test]
async fn joining_what_is_closed_or_not_there() {
    let server = server().await;
    let (alice, bob) = two(&server).await;
    let room = alice.create_room(json!({})).await;
    bob.post(&format!("/v3/join/{room}"), json!({})).await.expect_error(403, "M_FORBIDDEN");
    bob.post(&format!("/v3/join/{UNKNOWN}"), json!({})).await.expect_error(404, "M_NOT_FOUND");
    bob.post("/v3/join/!gone:nowhere.invalid", json!({})).await.expect_error(502, "M_UNKNOWN");
    bob.post("/v3/join/%23gone:nowhere.invalid", json!({})).await.expect_error(502, "M_UNKNOWN");
    bob.post("/v3/join/neither", json!({})).await.expect_error(400, "M_INVALID_PARAM");
    bob.post(&format!("/v3/knock/{UNKNOWN}"), json!({})).await.expect_error(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn mb_01_mb_05_invites_are_accepted_rejected_and_sent_again() {
    let server = server().await;
    let (alice, bob) = two(&server).await;
    let room = alice.create_room(json!({})).await;
    act(&alice, &room, "invite", &bob).await.expect(200);
    let before = whole_log(&alice, &room).await.len();
    act(&alice, &room, "invite", &bob).await.expect(200);
    assert_eq!(whole_log(&alice, &room).await.len(), before, "MB-05: nothing new to say");

    bob.post(&format!("/v3/rooms/{room}/leave"), json!({})).await.expect(200);
    assert_eq!(membership(&alice, &room, &bob).await["membership"], "leave");
    bob.post(&format!("/v3/join/{room}"), json!({})).await.expect_error(403, "M_FORBIDDEN");

    act(&alice, &room, "invite", &bob).await.expect(200);
    bob.join(&room).await;
    act(&alice, &room, "invite", &bob).await.expect_error(403, "M_FORBIDDEN");
    bob.post(&format!("/v3/rooms/{room}/leave"), json!({})).await.expect(200);
    bob.post(&format!("/v3/rooms/{room}/leave"), json!({})).await.expect(200);
    assert_eq!(bob.get("/v3/joined_rooms").await.expect(200)["joined_rooms"], json!([]));
}

#[tokio::test]
async fn invites_that_can_not_be_delivered_say_so() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let path = format!("/v3/rooms/{room}/invite");
    alice.post(&path, json!({ "user_id": "@carol:nowhere.invalid" })).await.expect_error(502, "M_UNKNOWN");
    let mail = json!({ "id_server": "a", "id_access_token": "b", "medium": "email", "address": "c@d" });
    alice.post(&path, mail).await.expect_error(400, "M_INVALID_PARAM");
    alice.post(&path, json!({})).await.expect_error(400, "M_BAD_JSON");
    let content = json!({ "membership": "invite" });
    let state = format!("/v3/rooms/{room}/state/m.room.member/@carol:nowhere.invalid");
    alice.put(&state, content).await.expect_error(502, "M_UNKNOWN");
}

#[tokio::test]
async fn mb_02_only_a_room_that_was_left_can_be_forgotten() {
    let server = server().await;
    let (alice, bob) = two(&server).await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let forget = format!("/v3/rooms/{room}/forget");
    bob.post(&forget, json!({})).await.expect_error(403, "M_FORBIDDEN");
    bob.join(&room).await;
    bob.post(&forget, json!({})).await.expect_error(400, "M_UNKNOWN");
    bob.post(&format!("/v3/rooms/{room}/leave"), json!({})).await.expect(200);
    bob.post(&forget, json!({})).await.expect(200);
    bob.post(&forget, json!({})).await.expect(200);
    let send = format!("/v3/rooms/{room}/send/m.room.message/1");
    let message = json!({ "msgtype": "m.text", "body": "still here?" });
    bob.put(&send, message.clone()).await.expect_error(403, "M_FORBIDDEN");
    bob.join(&room).await;
    bob.put(&send, message).await.expect(200);
}

#[tokio::test]
async fn mb_04_kicks_bans_and_unbans() {
    let server = server().await;
    let (alice, bob) = two(&server).await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    act(&alice, &room, "kick", &bob).await.expect_error(403, "M_FORBIDDEN");
    act(&alice, &room, "unban", &bob).await.expect_error(403, "M_BAD_STATE");
    bob.join(&room).await;
    act(&bob, &room, "kick", &alice).await.expect_error(403, "M_FORBIDDEN");
    act(&bob, &room, "ban", &alice).await.expect_error(403, "M_FORBIDDEN");
    act(&alice, &room, "kick", &bob).await.expect(200);
    assert_eq!(membership(&alice, &room, &bob).await["membership"], "leave");
    bob.join(&room).await;

    act(&alice, &room, "ban", &bob).await.expect(200);
    bob.post(&format!("/v3/join/{room}"), json!({})).await.expect_error(403, "M_FORBIDDEN");
    bob.post(&format!("/v3/rooms/{room}/leave"), json!({})).await.expect_error(403, "M_FORBIDDEN");
    act(&alice, &room, "invite", &bob).await.expect_error(403, "M_FORBIDDEN");
    act(&alice, &room, "kick", &bob).await.expect_error(403, "M_FORBIDDEN");
    act(&alice, &room, "unban", &bob).await.expect(200);
    bob.join(&room).await;
}

#[tokio::test]
async fn mb_08_reasons_are_in_the_member_events() {
    let server = server().await;
    let (alice, bob) = two(&server).await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let on_bob = |action: &str| {
        (format!("/v3/rooms/{room}/{action}"), json!({ "user_id": bob.user_id, "reason": action }), &alice)
    };
    let own = |action: &str| (format!("/v3/rooms/{room}/{action}"), json!({ "reason": action }), &bob);
    let by_alias = (format!("/v3/join/{room}"), json!({ "reason": "join" }), &bob);
    for (path, body, who) in [
        own("join"),
        own("leave"),
        on_bob("invite"),
        by_alias,
        on_bob("kick"),
        on_bob("ban"),
        on_bob("unban"),
    ] {
        let reason = body["reason"].clone();
        who.post(&path, body).await.expect(200);
        assert_eq!(membership(&alice, &room, &bob).await["reason"], reason, "{path}");
    }
}

/// What else a request to join says is part of the join, but for what only the server may say.
#[tokio::test]
async fn a_join_has_what_its_request_says_beside_it() {
    let server = server().await;
    let (alice, bob) = two(&server).await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let said = json!({
        "org.example.mood": { "of": "spring" }, "membership": "ban", "displayname": 5, "avatar_url": [],
        "join_authorised_via_users_server": alice.user_id, "is_direct": true, "third_party_invite": {},
    });
    for path in [format!("/v3/rooms/{room}/join"), format!("/v3/join/{room}")] {
        bob.post(&path, said.clone()).await.expect(200);
        let content = membership(&alice, &room, &bob).await;
        let expected = json!({ "membership": "join", "org.example.mood": said["org.example.mood"] });
        assert_eq!(content, expected, "{path}");
        bob.post(&format!("/v3/rooms/{room}/leave"), json!({})).await.expect(200);
        bob.post(&path, json!("no object")).await.expect_error(400, "M_BAD_JSON");
        // What no event can hold keeps nobody out for good.
        let big = json!({ "org.example": "x".repeat(70_000) });
        bob.post(&path, big).await.expect_error(413, "M_TOO_LARGE");
        bob.post(&path, json!({ "org.example": 1.5 })).await.expect_error(400, "M_BAD_JSON");
    }
}

#[tokio::test]
async fn knocking_is_answered_by_an_invite() {
    let server = server().await;
    let (alice, bob) = two(&server).await;
    let rules = json!([{ "type": "m.room.join_rules", "content": { "join_rule": "knock" } }]);
    let room = alice.create_room(json!({ "initial_state": rules, "room_alias_name": "door" })).await;
    let knock = format!("/v3/knock/{}", encoded("#door:localhost"));
    let answer = bob.post(&knock, json!({ "reason": "rain" })).await.expect(200);
    assert_eq!(answer, json!({ "room_id": room }));
    let member = membership(&alice, &room, &bob).await;
    assert_eq!((&member["membership"], &member["reason"]), (&json!("knock"), &json!("rain")));
    bob.post(&format!("/v3/join/{room}"), json!({})).await.expect_error(403, "M_FORBIDDEN");
    act(&alice, &room, "invite", &bob).await.expect(200);
    bob.join(&room).await;
    bob.post(&knock, json!({})).await.expect_error(403, "M_FORBIDDEN");

    // RV-15: older versions know no knocking.
    let old = alice.create_room(json!({ "room_version": "6", "initial_state": rules })).await;
    bob.post(&format!("/v3/knock/{old}"), json!({})).await.expect_error(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn mb_07_members_of_one_room_may_join_another_and_nobody_can_claim_to() {
    let server = server().await;
    let (alice, bob) = two(&server).await;
    for version in ["8", "9", "10", "11", "12"] {
        let space = alice.create_room(json!({ "preset": "public_chat" })).await;
        let allow = json!([{ "type": "m.room_membership", "room_id": space }]);
        let rules = json!({ "join_rule": "restricted", "allow": allow });
        let room = alice
            .create_room(json!({
                "room_version": version,
                "initial_state": [{ "type": "m.room.join_rules", "content": rules }],
            }))
            .await;
        bob.post(&format!("/v3/join/{room}"), json!({})).await.expect_error(403, "M_FORBIDDEN");
        // MB-10: who vouches for a join is not the client's to say.
        let forged = json!({ "membership": "join", "join_authorised_via_users_server": alice.user_id });
        let path = format!("/v3/rooms/{room}/state/m.room.member/{}", bob.user_id);
        bob.put(&path, forged).await.expect_error(403, "M_FORBIDDEN");

        bob.join(&space).await;
        bob.join(&room).await;
        let member = membership(&alice, &room, &bob).await;
        assert_eq!(member["join_authorised_via_users_server"], alice.user_id.as_str(), "version {version}");

        let renamed =
            json!({ "membership": "join", "displayname": "Bob", "join_authorised_via_users_server": "x" });
        bob.put(&path, renamed).await.expect(200);
        let member = membership(&alice, &room, &bob).await;
        assert_eq!(member, json!({ "membership": "join", "displayname": "Bob" }), "MB-10: version {version}");
    }
}

/// MB-07: asking to be let in takes nothing away from whoever may enter anyway, by either way of joining.
#[tokio::test]
async fn mb_07_who_knocked_and_now_qualifies_may_join() {
    let server = server().await;
    let (alice, bob) = two(&server).await;
    for by_state in [false, true] {
        let space = alice.create_room(json!({ "preset": "public_chat" })).await;
        let allow = json!([{ "type": "m.room_membership", "room_id": space }]);
        let rules = json!({ "join_rule": "knock_restricted", "allow": allow });
        let room = alice
            .create_room(json!({ "initial_state": [{ "type": "m.room.join_rules", "content": rules }] }))
            .await;
        bob.post(&format!("/v3/knock/{room}"), json!({})).await.expect(200);
        let join = async || {
            if by_state {
                let path = format!("/v3/rooms/{room}/state/m.room.member/{}", bob.user_id);
                bob.put(&path, json!({ "membership": "join" })).await
            } else {
                bob.post(&format!("/v3/join/{room}"), json!({})).await
            }
        };
        join().await.expect_error(403, "M_FORBIDDEN");
        bob.join(&space).await;
        join().await.expect(200);
        let member = membership(&alice, &room, &bob).await;
        assert_eq!(member["join_authorised_via_users_server"], alice.user_id.as_str());
    }
}

/// AR-08: whoever lets somebody in has to be in the room, with the power to invite.
#[tokio::test]
async fn ar_08_nobody_is_let_in_where_nobody_may_invite() {
    let server = server().await;
    let (alice, bob) = two(&server).await;
    let carol = server.register("carol").await;
    let space = alice.create_room(json!({ "preset": "public_chat" })).await;
    carol.join(&space).await;
    let allow = json!([
        { "type": "org.example.unheard-of", "room_id": space },
        { "type": "m.room_membership", "room_id": "!nowhere:example.org" },
        { "type": "m.room_membership", "room_id": space },
    ]);
    let rules = json!({ "join_rule": "restricted", "allow": allow });
    let room = alice
        .create_room(json!({
            "invite": [bob.user_id],
            "power_level_content_override": { "invite": 50 },
            "initial_state": [{ "type": "m.room.join_rules", "content": rules }],
        }))
        .await;
    bob.join(&room).await;
    alice.post(&format!("/v3/rooms/{room}/leave"), json!({})).await.expect(200);
    carol.post(&format!("/v3/join/{room}"), json!({})).await.expect_error(403, "M_FORBIDDEN");
    assert_eq!(carol.get("/v3/joined_rooms").await.expect(200)["joined_rooms"], json!([space]));
}

/// MB-01: only being asked in, asking to get in, or being in brings a forgotten room back.
#[tokio::test]
async fn mb_01_a_forgotten_room_stays_forgotten_until_the_user_is_wanted_or_wants() {
    let server = server().await;
    let (alice, bob) = two(&server).await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    alice.send_text(&room, "before").await;
    let gone = async || {
        let messages = bob.get(&format!("/v3/rooms/{room}/messages?dir=b")).await;
        messages.expect_error(403, "M_FORBIDDEN");
        let filter = encoded(r#"{"room":{"include_leave":true}}"#);
        let sync = bob.sync_with(None, 0, &format!("&filter={filter}")).await;
        assert_eq!(sync["rooms"]["leave"].get(&room), None);
    };
    bob.post(&format!("/v3/rooms/{room}/leave"), json!({})).await.expect(200);
    bob.post(&format!("/v3/rooms/{room}/forget"), json!({})).await.expect(200);
    gone().await;
    for action in ["ban", "unban"] {
        act(&alice, &room, action, &bob).await.expect(200);
        gone().await;
    }
    act(&alice, &room, "invite", &bob).await.expect(200);
    let sync = bob.sync(None, 0).await;
    assert!(sync["rooms"]["invite"].get(&room).is_some(), "{sync}");
    bob.join(&room).await;
    bob.get(&format!("/v3/rooms/{room}/messages?dir=b")).await.expect(200);
}

#[tokio::test]
async fn memberships_set_as_state_follow_the_same_rules() {
    let server = server().await;
    let (alice, bob) = two(&server).await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let of_bob = format!("/v3/rooms/{room}/state/m.room.member/{}", bob.user_id);
    let set = |membership: &str| json!({ "membership": membership, "org.example.own": 1 });

    alice.put(&of_bob, set("join")).await.expect_error(403, "M_FORBIDDEN");
    alice.put(&of_bob, set("invite")).await.expect(200);
    bob.put(&of_bob, set("join")).await.expect(200);
    assert_eq!(membership(&alice, &room, &bob).await["org.example.own"], 1);
    assert_eq!(bob.get("/v3/joined_rooms").await.expect(200)["joined_rooms"], json!([room]));
    alice.put(&of_bob, set("leave")).await.expect(200);
    assert_eq!(bob.get("/v3/joined_rooms").await.expect(200)["joined_rooms"], json!([]));
    alice.put(&of_bob, set("ban")).await.expect(200);
    bob.put(&of_bob, set("join")).await.expect_error(403, "M_FORBIDDEN");

    alice.put(&of_bob, json!({})).await.expect_error(400, "M_BAD_JSON");
    alice.put(&of_bob, set("asleep")).await.expect_error(403, "M_FORBIDDEN");
    let nobody = format!("/v3/rooms/{room}/state/m.room.member/nobody");
    alice.put(&nobody, set("invite")).await.expect_error(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn mb_09_member_events_carry_the_profile_and_follow_its_changes() {
    let server = server().await;
    let (alice, bob) = two(&server).await;
    let name = |user: &User, name: &str| {
        let path = format!("/v3/profile/{}/displayname", user.user_id);
        let (user, body) = (user.clone(), json!({ "displayname": name }));
        async move { user.put(&path, body).await.expect(200) }
    };
    name(&bob, "Bob").await;
    let room = alice.create_room(json!({ "invite": [bob.user_id] })).await;
    assert_eq!(membership(&alice, &room, &bob).await["displayname"], "Bob");
    bob.join(&room).await;
    assert_eq!(membership(&alice, &room, &bob).await["displayname"], "Bob");
    name(&bob, "Robert").await;
    let member = eventually("the room knows the new name", || async {
        let member = membership(&alice, &room, &bob).await;
        (member["displayname"] == "Robert").then_some(member)
    });
    assert_eq!(member.await["membership"], "join");
}

#[tokio::test]
async fn i10_to_those_outside_a_private_room_is_as_one_that_does_not_exist() {
    let server = server().await;
    let (alice, bob) = two(&server).await;
    let private = alice.create_room(json!({ "room_alias_name": "secret" })).await;
    let event = alice.send_text(&private, "psst").await;
    let text = json!({ "msgtype": "m.text", "body": "hi" });
    let user = json!({ "user_id": "@carol:localhost" });
    for (method, path, body) in [
        ("POST", "rooms/{}/invite".to_owned(), &user),
        ("POST", "rooms/{}/kick".to_owned(), &user),
        ("POST", "rooms/{}/ban".to_owned(), &user),
        ("POST", "rooms/{}/unban".to_owned(), &user),
        ("POST", "rooms/{}/leave".to_owned(), &json!({})),
        ("POST", "rooms/{}/forget".to_owned(), &json!({})),
        ("PUT", "rooms/{}/send/m.room.message/1".to_owned(), &text),
        ("PUT", format!("rooms/{{}}/redact/{event}/1"), &json!({})),
        ("PUT", "rooms/{}/state/m.room.name".to_owned(), &json!({ "name": "mine" })),
        ("PUT", "rooms/{}/state/m.room.member/@carol:localhost".to_owned(), &json!({ "membership": "ban" })),
        ("PUT", "rooms/{}/send/m.room.redaction/1".to_owned(), &json!({ "redacts": 1 })),
        ("PUT", "rooms/{}/send/m.room.message/2".to_owned(), &json!({})),
        ("PUT", "rooms/{}/state/m.room.canonical_alias".to_owned(), &json!({ "alias": "#secret:localhost" })),
        ("GET", "rooms/{}/aliases".to_owned(), &json!({})),
        ("GET", "directory/list/room/{}".to_owned(), &json!({})),
        ("PUT", "directory/list/room/{}".to_owned(), &json!({ "visibility": "public" })),
    ] {
        let ask = async |room: &str| {
            let path = format!("/v3/{}", path.replace("{}", room));
            let body = (method != "GET").then(|| body.clone());
            let method = method.parse().expect("a method");
            bob.http.request(method, &path, Some(&bob.access_token), body).await
        };
        let (secret, unknown) = (ask(&private).await, ask(UNKNOWN).await);
        assert_eq!((secret.status, secret.text()), (unknown.status, unknown.text()), "{method} {path}");
        assert!(secret.status == 403 || secret.status == 404, "{method} {path}: {}", secret.status);
    }
    assert_eq!(
        whole_log(&alice, &private).await.last().expect("an event")["event_id"],
        event,
        "nothing was stored"
    );
}

#[tokio::test]
async fn mb_11_mb_12_who_takes_no_invites_gets_none() {
    let server = server().await;
    let (alice, bob) = two(&server).await;
    let room = alice.create_room(json!({})).await;
    let config = format!("/v3/user/{}/account_data/m.invite_permission_config", bob.user_id);
    bob.put(&config, json!({ "default_action": "block" })).await.expect(200);

    act(&alice, &room, "invite", &bob).await.expect_error(403, "M_INVITE_BLOCKED");
    let of_bob = format!("/v3/rooms/{room}/state/m.room.member/{}", bob.user_id);
    let invite = json!({ "membership": "invite" });
    alice.put(&of_bob, invite).await.expect_error(403, "M_INVITE_BLOCKED");
    let body = json!({ "invite": [bob.user_id] });
    alice.post("/v3/createRoom", body).await.expect_error(403, "M_INVITE_BLOCKED");

    let carol = server.register("carol").await;
    let body = json!({ "invite": [bob.user_id, carol.user_id] });
    let room_of_two = alice.create_room(body).await;
    assert_eq!(membership(&alice, &room_of_two, &carol).await["membership"], "invite");
    let of_bob = format!("/v3/rooms/{room_of_two}/state/m.room.member/{}", bob.user_id);
    alice.get(&of_bob).await.expect_error(404, "M_NOT_FOUND");

    bob.put(&config, json!({ "default_action": "perhaps" })).await.expect(200);
    act(&alice, &room, "invite", &bob).await.expect(200);
}

/// MSC4155: a list that is null is none, and the others hold.
#[tokio::test]
async fn msc4155_lists_that_are_null_take_nothing_from_the_others() {
    let server = server().await;
    let (alice, bob) = two(&server).await;
    let room = alice.create_room(json!({})).await;
    let lists = format!("/v3/user/{}/account_data/org.matrix.msc4155.invite_permission_config", bob.user_id);
    let blocked = json!({ "blocked_users": [alice.user_id], "allowed_servers": null });
    bob.put(&lists, blocked).await.expect(200);
    act(&alice, &room, "invite", &bob).await.expect_error(403, "M_INVITE_BLOCKED");
}

#[tokio::test]
async fn deactivated_users_leave_their_rooms() {
    let mut server = server().await;
    let (alice, bob) = two(&server).await;
    let room = alice.create_room(json!({ "invite": [bob.user_id] })).await;
    let other = alice.create_room(json!({ "invite": [bob.user_id] })).await;
    bob.join(&room).await;
    let auth = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "bob" },
        "password": "correct horse battery staple",
    });
    let challenge = bob.post("/v3/account/deactivate", json!({})).await.expect(401);
    let mut auth = auth;
    auth["session"] = challenge["session"].clone();
    bob.post("/v3/account/deactivate", json!({ "auth": auth })).await.expect(200);
    // Whatever was left to do when the power went is done after the next start.
    server.kill().await;
    server.start_again().await;
    for room in [&room, &other] {
        eventually("bob is gone", || async {
            (membership(&alice, room, &bob).await["membership"] == "leave").then_some(())
        })
        .await;
    }
}
