//! What fades, as another server hears of it.

use serde_json::json;

use crate::{World, common::eventually};

/// ED-02: whoever stops typing without a word stops for others too, at once.
#[tokio::test(flavor = "multi_thread")]
async fn ed_02_the_end_of_typing_by_itself_is_told() {
    let world = World::new().await;
    let room = world.shared("11", "typing").await;
    let id = room.lock().id.clone();
    let path = format!("/v3/rooms/{id}/typing/{}", world.alice.user_id);
    world.alice.put(&path, json!({ "typing": true, "timeout": 300 })).await.expect(200);
    let last = || world.told("m.typing").last().map(|content| content["typing"].clone());
    eventually("the end is told", || async { (last() == Some(json!(false))).then_some(()) }).await;
    let told = world.told("m.typing");
    let of_alice = |typing| json!({ "room_id": id, "user_id": world.alice.user_id, "typing": typing });
    assert_eq!(told.last(), Some(&of_alice(false)));
    // What is of another server is told by that alone.
    let creator = room.lock().creator.clone();
    assert!(told.iter().all(|content| content["user_id"] != creator.as_str()), "{told:?}");
}
