//! Rooms that are flooded, and those that aren't.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::future::join_all;
use ruma::events::TimelineEventType;
use serde_json::{json, value::to_raw_value};

use super::{
    tests::{World, user},
    *,
};

/// I7: thousands of messages wait in one room. One for another room is answered after a few of their batches, and not after
/// all of them; on a slow machine too, for whatever is slow is so for both.
#[tokio::test]
async fn i7_a_message_waits_for_a_few_batches_of_a_flooded_room_at_most() {
    const FLOOD: usize = 3000;
    let alice = user("alice");
    let world = World::new(&[alice.as_str()]).await;
    let (flooded, quiet) = (world.room(&alice).await, world.room(&alice).await);
    world.say(&quiet, &alice, "before").await;
    let answered = Arc::<AtomicUsize>::default();
    let message = NewEvent {
        sender: alice.clone(),
        kind: TimelineEventType::RoomMessage,
        state_key: None,
        content: to_raw_value(&json!({ "msgtype": "m.text", "body": "more" })).unwrap(),
        redacts: None,
    };
    let flood: Vec<_> = (0..FLOOD)
        .map(|_| {
            let (rooms, room, message) = (Arc::clone(&world.rooms), Arc::clone(&flooded), message.clone());
            let answered = Arc::clone(&answered);
            tokio::spawn(async move {
                rooms.append_one(&room, message, None).await.unwrap();
                answered.fetch_add(1, Ordering::SeqCst);
            })
        })
        .collect();
    while answered.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let mut waited = Vec::new();
    for number in 0..3 {
        let before = answered.load(Ordering::SeqCst);
        world.say(&quiet, &alice, &number.to_string()).await;
        waited.push(answered.load(Ordering::SeqCst) - before);
    }
    assert!(answered.load(Ordering::SeqCst) < FLOOD, "the flood was over before");
    // On a busy machine one of them may have lain still meanwhile; were the rooms served in turn of arrival, each would wait long.
    assert!(waited.iter().any(|waited| *waited <= 6 * 64), "{waited:?} of the flood were answered before");
    join_all(flood).await.into_iter().for_each(|sent| sent.unwrap());
}
