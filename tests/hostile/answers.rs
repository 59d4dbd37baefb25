//! What another server says when it is asked for somebody here: about rooms that this server isn't in, and about people.

use serde_json::{Value, json};

use crate::World;

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
