//! A fault in a room's writer: who waits is told, the room is as before, and the next one finds it at work.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use ruma::{UserId, events::TimelineEventType};
use serde_json::{json, value::to_raw_value};

use super::{
    tests::{World, user},
    *,
};
use crate::{account::ProfileChange, environment::Clock};

/// A clock that breaks once, the time that it is told to: the first from then on, the second …
#[derive(Default)]
struct Brittle(AtomicUsize);

impl Clock for Brittle {
    fn now_ms(&self) -> i64 {
        let before = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert_ne!(before, Ok(1), "on purpose");
        1_000
    }
}

fn message(sender: &UserId) -> NewEvent {
    NewEvent {
        sender: sender.to_owned(),
        kind: TimelineEventType::RoomMessage,
        state_key: None,
        content: to_raw_value(&json!({ "body": "lost" })).unwrap(),
        redacts: None,
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

    clock.0.store(1, Ordering::SeqCst);
    let event = message(&alice);
    let failed = world.rooms.append_one(&room, event.clone(), None).await;
    assert!(matches!(failed, Err(Error::Internal(_))), "{failed:?}");
    assert_eq!(room.snapshot().last_seq, seq, "the room is as before");

    let again = tokio::time::timeout(Duration::from_mins(1), world.rooms.append_one(&room, event, None));
    let again = again.await.expect("a writer is at work again").unwrap().event_id;
    assert_eq!(room.snapshot().last_seq, seq + 1, "nothing was left out");
    world.say(&other, &alice, "elsewhere").await;
    assert_ne!(before, again);
}

/// Those of the batch that fails, whose events are made already or not, and those whose turn it isn't yet.
#[tokio::test]
async fn i7_all_who_wait_for_a_rooms_writer_hear_that_it_panicked() {
    // More than the writer takes at a time.
    const MANY: usize = 200;
    let (alice, clock) = (user("alice"), Arc::<Brittle>::default());
    let environment = Environment { clock: Arc::<Brittle>::clone(&clock), ..Environment::real() };
    let world = World::keeping(&[alice.as_str()], environment, None).await;
    let room = world.room(&alice).await;
    let seq = room.snapshot().last_seq;

    clock.0.store(5, Ordering::SeqCst);
    let waiting =
        (0..MANY).map(|_| writer::append(&world.rooms.core, &room, vec![message(&alice)], None, None));
    let failed = tokio::time::timeout(Duration::from_mins(1), join_all(waiting)).await;
    let failed = failed.expect("nobody waits for ever");
    assert!(failed.iter().all(|result| matches!(result, Err(Error::Internal(_)))), "{failed:?}");
    assert_eq!(room.snapshot().last_seq, seq, "nothing is half there");
    let after = tokio::time::timeout(Duration::from_mins(1), world.say(&room, &alice, "after"));
    after.await.expect("a writer is at work again");
    assert_eq!(room.snapshot().last_seq, seq + 1);
}

/// PF-01: whoever changed their name has to hear that their rooms didn't, and to be able to try again.
#[tokio::test]
async fn pf_01_a_name_cut_short_by_the_database_is_refused_until_it_is_everywhere() {
    let alice = user("alice");
    let world = World::new(&[alice.as_str()]).await;
    let room = world.room(&alice).await;
    let recipient = world.accounts.recipient(&alice).await.unwrap().unwrap();
    let name = || room.snapshot().member(&alice).map(|event| event.pdu.content.get().to_owned()).unwrap();
    let database = rusqlite::Connection::open(world.path()).unwrap();
    database.busy_timeout(Duration::from_secs(10)).unwrap();
    let fails = "CREATE TRIGGER fails BEFORE INSERT ON event BEGIN SELECT RAISE(FAIL, 'on purpose'); END";
    database.execute_batch(fails).unwrap();

    let set =
        async || world.accounts.set_profile_field(recipient, "displayname", json!("Alice")).await.unwrap();
    assert_eq!(set().await, ProfileChange::Member);
    let failed = world.rooms.update_profile(&alice).await;
    assert!(matches!(failed, Err(Error::Store(_))), "{failed:?}");
    assert!(!name().contains("Alice"));

    database.execute_batch("DROP TRIGGER fails").unwrap();
    assert_eq!(set().await, ProfileChange::Member, "the rooms may not know yet");
    world.rooms.update_profile(&alice).await.unwrap();
    assert!(name().contains("Alice"));
    let seq = room.snapshot().last_seq;
    world.rooms.update_profile(&alice).await.unwrap();
    assert_eq!(room.snapshot().last_seq, seq, "once is enough");
}
