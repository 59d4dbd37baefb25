//! A fault in a room's writer: who waits is told, the room is as before, and the next one finds it at work.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ruma::events::TimelineEventType;
use serde_json::{json, value::to_raw_value};

use super::{
    tests::{World, user},
    *,
};
use crate::environment::Clock;

/// A clock that breaks when it is told to.
#[derive(Default)]
struct Brittle(AtomicBool);

impl Clock for Brittle {
    fn now_ms(&self) -> i64 {
        assert!(!self.0.swap(false, Ordering::SeqCst), "on purpose");
        1_000
    }
}

#[tokio::test]
async fn i7_a_panic_in_a_rooms_writer_loses_only_what_it_was_doing() {
    let (alice, clock) = (user("alice"), Arc::<Brittle>::default());
    let environment = Environment { clock: Arc::<Brittle>::clone(&clock), ..Environment::real() };
    let world = World::keeping(&[alice.as_str()], environment, None).await;
    let (room, other) = (world.room(&alice).await, world.room(&alice).await);
    let before = world.say(&room, &alice, "before").await;
    let seq = room.snapshot().last_seq;

    clock.0.store(true, Ordering::SeqCst);
    let event = NewEvent {
        sender: alice.clone(),
        kind: TimelineEventType::RoomMessage,
        state_key: None,
        content: to_raw_value(&json!({ "body": "lost" })).unwrap(),
        redacts: None,
    };
    let failed = world.rooms.append_one(&room, event.clone(), None).await;
    assert!(matches!(failed, Err(Error::Internal(_))), "{failed:?}");
    assert_eq!(room.snapshot().last_seq, seq, "the room is as before");

    let again = tokio::time::timeout(Duration::from_secs(30), world.rooms.append_one(&room, event, None));
    let again = again.await.expect("a writer is at work again").unwrap().event_id;
    assert_eq!(room.snapshot().last_seq, seq + 1, "nothing was left out");
    world.say(&other, &alice, "elsewhere").await;
    assert_ne!(before, again);
}
