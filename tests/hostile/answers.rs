//! What another server says when it is asked for somebody here: about rooms that this server isn't in, and about people.

use http::Method;
use serde_json::{Value, json};

use crate::{World, peer::wire, room::Room};

const HIERARCHY: &str = "/_matrix/federation/v1/hierarchy/";

fn shown(room_id: &str, join_rule: &str) -> Value {
    let room = json!({
        "room_id": room_id, "name": "Elsewhere", "num_joined_members": 3, "world_readable": false,
        "guest_can_join": false, "join_rule": join_rule, "children_state": [],
    });
    json!({ "room": room, "children": [], "inaccessible_children": [] })
}

/// RS-01: a room that this server isn't in is summed up by what one that is in it says, whether by its id or an alias.
#[tokio::test(flavor = "multi_thread")]
async fn rs_01_rooms_of_others_are_summed_up() {
    let world = World::new().await;
    let id = format!("!open:{}", world.peer.name);
    let answer = shown(&id, "public");
    world.peer.on(HIERARCHY, move |_| (200, answer.clone()));
    let resolved = json!({ "room_id": id, "servers": [world.peer.name] });
    world.peer.on("/_matrix/federation/v1/query/directory", move |_| (200, resolved.clone()));

    let summary = |of: &str| format!("/v1/room_summary/{}", of.replace('#', "%23"));
    let by_id = format!("{}?via={}", summary(&id), world.peer.name);
    let by_alias = summary(&format!("#open:{}", world.peer.name));
    for uri in [by_id.as_str(), by_alias.as_str()] {
        let answer = world.alice.get(uri).await.expect(200);
        assert_eq!([&answer["name"], &answer["membership"]], ["Elsewhere", "leave"], "{answer}");
    }
    // Nobody is asked for whoever has no account here.
    let asked = world.peer.asked(HIERARCHY).len();
    assert_eq!(world.here.server.http().get(&by_id, None).await.status, 404);
    assert_eq!(world.peer.asked(HIERARCHY).len(), asked);
}

/// I10: a room that lets in only whom it knows isn't shown, whatever is said of it, and neither is another in its place.
#[tokio::test(flavor = "multi_thread")]
async fn i10_rooms_of_others_that_are_closed_are_not_shown() {
    let world = World::new().await;
    let id = format!("!closed:{}", world.peer.name);
    let uri = format!("/v1/room_summary/{id}?via={}", world.peer.name);
    let other = format!("!other:{}", world.peer.name);
    for lie in [shown(&id, "invite"), shown(&id, "restricted"), shown(&other, "public"), json!([])] {
        let answer = lie.clone();
        world.peer.on(HIERARCHY, move |_| (200, answer.clone()));
        let answer = world.alice.get(&uri).await;
        assert_eq!((answer.status, &answer.json["errcode"]), (404, &json!("M_NOT_FOUND")), "{lie}");
    }
    assert_eq!(world.peer.asked(HIERARCHY).len(), 4);
}

/// PF-01: of the two fields that every client shows only what they can be is passed on.
#[tokio::test(flavor = "multi_thread")]
async fn pf_01_profiles_of_others_have_the_form_of_profiles() {
    let world = World::new().await;
    let profile =
        json!({ "displayname": { "html": "<b>" }, "avatar_url": "mxc://a/b", "org.example.x": [1] });
    world.peer.on("/_matrix/federation/v1/query/profile", move |_| (200, profile.clone()));
    let user = world.peer.user("zoe");
    let profile = world.alice.get(&format!("/v3/profile/{user}")).await.expect(200);
    assert_eq!(profile, json!({ "avatar_url": "mxc://a/b", "org.example.x": [1] }));
    let answer = world.alice.get(&format!("/v3/profile/{user}/displayname")).await;
    assert_eq!((answer.status, &answer.json["errcode"]), (404, &json!("M_NOT_FOUND")));
}

/// I7: an entry of a directory that can't be read hides none of the others.
#[tokio::test(flavor = "multi_thread")]
async fn i7_an_entry_that_makes_no_sense_hides_no_other() {
    let world = World::new().await;
    let good = shown(&format!("!good:{}", world.peer.name), "public")["room"].clone();
    let bad = [json!({ "room_id": "none" }), json!(7), Value::Null];
    let chunk: Vec<Value> = bad.into_iter().chain([good]).collect();
    let page = json!({ "chunk": chunk, "total_room_count_estimate": 4 });
    world.peer.on("/_matrix/federation/v1/publicRooms", move |_| (200, page.clone()));
    let uri = format!("/v3/publicRooms?server={}", world.peer.name);
    let page = world.alice.post(&uri, json!({})).await.expect(200);
    let names: Vec<&Value> = page["chunk"].as_array().unwrap().iter().map(|room| &room["name"]).collect();
    assert_eq!(names, ["Elsewhere"]);
}

/// A directory's page is as long as was asked for, whatever another server sends.
#[tokio::test(flavor = "multi_thread")]
async fn i8_a_page_of_a_directory_has_no_more_than_was_asked_for() {
    let world = World::new().await;
    let chunk: Vec<Value> = (0..5)
        .map(|number| shown(&format!("!{number}:{}", world.peer.name), "public")["room"].clone())
        .collect();
    let page = json!({ "chunk": chunk, "total_room_count_estimate": 5 });
    world.peer.on("/_matrix/federation/v1/publicRooms", move |_| (200, page.clone()));
    let uri = format!("/v3/publicRooms?server={}", world.peer.name);
    let page = world.alice.post(&uri, json!({ "limit": 2 })).await.expect(200);
    assert_eq!(page["chunk"].as_array().unwrap().len(), 2, "{page}");
}

/// I7: a name that is none hides none of the servers that are named with it.
#[tokio::test(flavor = "multi_thread")]
async fn i7_a_server_that_is_none_hides_no_other_of_an_alias() {
    let world = World::new().await;
    let id = format!("!room:{}", world.peer.name);
    let answer = json!({ "room_id": id, "servers": ["not a name", 7, world.peer.name, null] });
    world.peer.on("/_matrix/federation/v1/query/directory", move |_| (200, answer.clone()));
    let answer =
        world.alice.get(&format!("/v3/directory/room/%23room:{}", world.peer.name)).await.expect(200);
    assert_eq!(answer, json!({ "room_id": id, "servers": [world.peer.name] }));
}

/// RS-01, SP-04: whoever is invited sees a closed room by what its server says of it.
#[tokio::test(flavor = "multi_thread")]
async fn rs_01_a_closed_room_is_shown_to_whom_it_invites() {
    let world = World::new().await;
    let room = Room::new(&world.peer, "11", "closed");
    let (id, creator) = {
        let room = room.lock();
        (room.id.clone(), room.creator.clone())
    };
    let answer = shown(id.as_str(), "invite");
    world.peer.on(HIERARCHY, move |_| (200, answer.clone()));
    let (summary, hierarchy) = (format!("/v1/room_summary/{id}"), format!("/v1/rooms/{id}/hierarchy"));
    world.alice.get(&summary).await.expect_error(404, "M_NOT_FOUND");
    world.alice.get(&hierarchy).await.expect_error(403, "M_FORBIDDEN");

    let content = json!({ "membership": "invite" });
    let invite = room.lock().draft(&creator, "m.room.member", Some(&world.alice.user_id), content);
    let body = json!({ "event": wire(&invite), "room_version": "11", "invite_room_state": [] });
    let uri = format!("/_matrix/federation/v2/invite/{id}/{}", invite.event_id);
    world.peer.request(&world.here, Method::PUT, &uri, Some(&body)).await.expect(200);

    let answer = world.alice.get(&summary).await.expect(200);
    assert_eq!([&answer["name"], &answer["membership"]], ["Elsewhere", "invite"], "{answer}");
    let page = world.alice.get(&hierarchy).await.expect(200);
    assert_eq!(page["rooms"][0]["room_id"], id.as_str(), "{page}");
    // Another isn't.
    let bob = world.here.server.register("bob").await;
    bob.get(&summary).await.expect_error(404, "M_NOT_FOUND");
    bob.get(&hierarchy).await.expect_error(403, "M_FORBIDDEN");
}

/// SP-06: a space of another server is shown from its root on, and what isn't a child isn't told as one.
#[tokio::test(flavor = "multi_thread")]
async fn sp_06_children_of_others_have_the_form_of_children() {
    let world = World::new().await;
    let id = format!("!space:{}", world.peer.name);
    let child = json!({
        "type": "m.space.child", "state_key": format!("!child:{}", world.peer.name), "sender": "@a:elsewhere",
        "origin_server_ts": 5, "content": { "via": ["elsewhere"] },
    });
    let changed = |key: &str, value: Value| {
        let mut child = child.clone();
        child[key] = value;
        child
    };
    let children = json!([
        7,
        null,
        {},
        "x",
        changed("type", json!("m.room.topic")),
        changed("state_key", json!("room")),
        changed("sender", json!(7)),
        changed("origin_server_ts", json!("5")),
        changed("content", json!({})),
        changed("content", json!({ "via": [] })),
        changed("content", json!({ "via": "elsewhere" })),
        child,
    ]);
    let mut space = shown(&id, "public");
    space["room"]["children_state"] = children;
    space["room"]["room_type"] = json!("m.space");
    world.peer.on(&format!("{HIERARCHY}{id}"), move |_| (200, space.clone()));
    let page = world.alice.get(&format!("/v1/rooms/{id}/hierarchy")).await.expect(200);
    let rooms = page["rooms"].as_array().unwrap();
    assert_eq!(rooms.len(), 1, "the child isn't shown: {page}");
    assert_eq!(rooms[0]["children_state"], json!([child]));
}

/// A profile that was looked up a moment ago isn't asked for again.
#[tokio::test(flavor = "multi_thread")]
async fn profiles_of_others_are_asked_for_once_in_a_while() {
    const PROFILE: &str = "/_matrix/federation/v1/query/profile";
    let world = World::new().await;
    world.peer.on(PROFILE, |_| (200, json!({ "displayname": "Zoe" })));
    let bob = world.here.server.register("bob").await;
    let path = format!("/v3/profile/{}", world.peer.user("zoe"));
    for user in [&world.alice, &bob] {
        let profile = user.get(&path).await.expect(200);
        assert_eq!(profile["displayname"], "Zoe");
        user.get(&format!("{path}/displayname")).await.expect(200);
    }
    assert_eq!(world.peer.asked(PROFILE).len(), 1);
    world.alice.get(&format!("/v3/profile/{}", world.peer.user("yan"))).await.expect(200);
    assert_eq!(world.peer.asked(PROFILE).len(), 2);
}
