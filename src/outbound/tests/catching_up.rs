//! What a server that was down is sent when it is back.

use super::*;

/// One that missed ten messages, is back, and is being sent them; each attempt waits for a permit.
async fn catching_up() -> (Sending, Arc<Semaphore>) {
    let sending = Sending::new().await;
    sending.there.script.lock().down = true;
    sending.say(0..10).await;
    sending.is_behind().await;
    let gate = Arc::new(Semaphore::new(0));
    {
        let mut script = sending.there.script.lock();
        (script.down, script.gate) = (false, Some(Arc::clone(&gate)));
        script.attempts.clear();
    }
    sending.peers.heard_from(&owned_server_name!("elsewhere"));
    sending.until("it is sent what it missed", |script| script.attempts.len() == 1).await;
    (sending, gate)
}

/// However much is said while it is sent the rest, and however slow it is.
#[tokio::test]
async fn tx_06_what_is_said_while_a_server_catches_up_is_sent_whole() {
    let (sending, gate) = catching_up().await;
    sending.say(10..90).await;
    gate.add_permits(1000);
    sending.until("all is taken", |script| script.taken.last().is_some_and(|last| last == "89")).await;
    assert_eq!(sending.there.script.lock().taken, numbers(90));
}

/// I7: one that fails again once it has what it had missed lacks what was said meanwhile, and still gets it.
#[tokio::test]
async fn tx_06_a_server_that_fails_while_it_catches_up_misses_nothing() {
    let (sending, gate) = catching_up().await;
    sending.say(10..20).await;
    let recipient = sending.destination().await.recipient;
    let mut batch = Batch::new();
    let step = batch.step();
    let message = json!({ "message_id": "1" }).to_string();
    batch.push(insert_message_for_server(recipient, step, message, 0));
    batch.deliver(crate::queue::pointer([recipient], step, crate::queue::Kind::ToDevice, 0));
    sending.story.world.store.commit(batch).await.unwrap();
    gate.add_permits(1);
    sending.until("it is sent what was said since", |script| script.attempts.len() == 2).await;
    sending.there.script.lock().busy = true;
    gate.add_permits(1);
    sending.until("it took nothing", |script| script.at_work == 0).await;
    {
        let mut script = sending.there.script.lock();
        (script.busy, script.gate) = (false, None);
    }
    sending.say([20]).await;
    sending.until("it is there again", |script| script.taken.contains(&"20".to_owned())).await;
    sending.has_caught_up().await;
    let script = sending.there.script.lock();
    assert_eq!(script.taken, numbers(21));
    assert_eq!(script.messages, [json!({ "message_id": "1" })]);
}

/// TX-05: what was said while it had nobody in the room, it isn't sent later either.
#[tokio::test]
async fn a_server_that_was_down_hears_nothing_of_when_it_was_not_in_the_room() {
    let mut sending = Sending::new().await;
    sending.there.script.lock().down = true;
    sending.say(0..2).await;
    sending.is_behind().await;
    let Story { world, room, alice, rita, .. } = &sending.story;
    world.rooms.kick(room, alice, rita, None).await.unwrap();
    let missed = sending.say(2..5).await;
    sending.read(&[(&missed[0], Thread::Unthreaded)]).await;
    let join = json!({ "membership": "join" });
    let join = sending.story.by_rita("m.room.member", Some("@rita:elsewhere"), join, &[]);
    assert_eq!(sending.story.bring(&[join]).await, [crate::room::Outcome::Accepted]);
    sending.say(5..7).await;
    {
        let mut script = sending.there.script.lock();
        script.down = false;
        script.attempts.clear();
    }
    sending.peers.heard_from(&owned_server_name!("elsewhere"));
    sending.until("all since then is taken", |script| script.taken.contains(&"6".to_owned())).await;
    let script = sending.there.script.lock();
    let said: Vec<&str> = script.taken.iter().map(String::as_str).collect();
    assert_eq!((said, &*script.read), (vec!["0", "1", "5", "6"], &[][..]));
    assert!(script.attempts.iter().any(|(_, texts)| texts.contains(&String::new())), "the kick");
}

/// JN-11, TX-06: whoever was invited and no longer is hears of it, though their server was down and is in the room by nobody.
#[tokio::test]
async fn tx_06_a_server_that_was_down_hears_that_an_invite_was_taken_back() {
    let sending = Sending::new().await;
    let Story { world, alice, .. } = &sending.story;
    let room = world.room(alice).await;
    let guests = [ruma::owned_user_id!("@kicked:elsewhere"), ruma::owned_user_id!("@banned:elsewhere")];
    for guest in &guests {
        let invite = crate::room::NewEvent {
            sender: alice.clone(),
            kind: ruma::events::TimelineEventType::RoomMember,
            state_key: Some(guest.to_string()),
            content: serde_json::value::to_raw_value(&json!({ "membership": "invite" })).unwrap(),
            redacts: None,
        };
        let invite = world.rooms.draft(&room, invite).await.unwrap();
        let outcome = world.rooms.receive_own(&room, invite).await.unwrap();
        assert_eq!(outcome, crate::room::Outcome::Accepted);
    }
    sending.there.script.lock().down = true;
    sending.say([0]).await;
    sending.is_behind().await;
    world.say(&room, alice, "not for those who are only invited").await;
    world.rooms.kick(&room, alice, &guests[0], None).await.unwrap();
    world.rooms.ban(&room, alice, &guests[1], None).await.unwrap();
    {
        let mut script = sending.there.script.lock();
        script.down = false;
        script.attempts.clear();
    }
    sending.peers.heard_from(&owned_server_name!("elsewhere"));
    sending.has_caught_up().await;
    sending.say([1]).await;
    sending.until("it goes on", |script| script.taken.contains(&"1".to_owned())).await;
    let script = sending.there.script.lock();
    assert_eq!(script.taken, numbers(2));
    let texts = script.attempts.iter().flat_map(|(_, texts)| texts);
    assert_eq!(
        texts.filter(|text| text.is_empty()).count(),
        2,
        "the kick and the ban: {:?}",
        script.attempts
    );
}

/// ED-02, ED-03: by the time that a server is back, who typed and who was there while it was down has faded.
#[tokio::test]
async fn a_server_that_was_down_hears_nothing_of_who_typed_and_who_was_there_meanwhile() {
    let sending = Sending::new().await;
    let Story { room, alice, .. } = &sending.story;
    let [before, after] = [ruma::user_id!("@before:localhost"), ruma::user_id!("@after:localhost")];
    sending.there.script.lock().down = true;
    sending.say([0]).await;
    sending.is_behind().await;
    sending.outbound.typing(room, alice, true);
    sending.tell_of(before).await;
    sending.there.script.lock().down = false;
    sending.peers.heard_from(&owned_server_name!("elsewhere"));
    sending.has_caught_up().await;
    sending.tell_of(after).await;
    sending.until("it hears who is there", |script| !script.faded.is_empty()).await;
    assert_eq!(sending.there.script.lock().faded, [json!(after)]);
}
