//! More people than anybody expects: a server that has thousands of its users join a room that somebody here is in.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::{
    World,
    common::{eventually, rounds},
    peer::wire,
};

/// KiB of memory that the server has had at its most.
pub(crate) fn most_resident(world: &World) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.here.server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// Whether an event has been taken, or may still be: a server that is slow answers before it is done.
fn is_taken(verdict: &Value) -> bool {
    *verdict == json!({}) || verdict["error"] == "it is still at work"
}

/// I7: the room takes them, for they are its own server's business; others go on meanwhile, and so does the room.
#[tokio::test(flavor = "multi_thread")]
async fn i7_a_storm_of_joins_keeps_no_other_room_waiting() {
    let world = World::new().await;
    let room = world.shared("11", "storm").await;
    let id = room.lock().id.clone();
    let (bob, carol) = (world.here.server.register("bob").await, world.here.server.register("carol").await);
    let quiet = bob.create_room(json!({ "preset": "public_chat" })).await;
    carol.join(&quiet).await;
    let crowd = rounds(500, 10_000);
    let before = most_resident(&world);

    let (transactions, said) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let storm = async {
        for first in (0..crowd).step_by(50) {
            let joins: Vec<_> = (first..first + 50)
                .map(|number| {
                    let user = world.peer.user(&format!("crowd{number}"));
                    wire(&room.lock().put(
                        &user,
                        "m.room.member",
                        user.as_str(),
                        json!({ "membership": "join" }),
                    ))
                })
                .collect();
            let answer = world.peer.send(&world.here, &joins, &[]).await.expect(200);
            assert!(answer["pdus"].as_object().unwrap().values().all(is_taken), "{answer}");
            transactions.fetch_add(1, Ordering::SeqCst);
        }
    };
    let talk = async {
        while transactions.load(Ordering::SeqCst) < crowd / 50 {
            bob.send_text(&quiet, "is it windy?").await;
            said.fetch_add(1, Ordering::SeqCst);
        }
    };
    tokio::join!(storm, talk);
    let said = said.load(Ordering::SeqCst);
    assert!(said > crowd / 50, "{said} messages while {} transactions were taken", crowd / 50);

    eventually("all of them are in the room", || async {
        let members = world.alice.get(&format!("/v3/rooms/{id}/joined_members")).await.expect(200);
        (members["joined"].as_object().unwrap().len() == crowd + 2).then_some(())
    })
    .await;
    let last = room.lock().said_by(&world.peer.user("crowd7"), "and I am still here");
    world.peer.send(&world.here, &[wire(&last)], &[]).await.expect(200);
    world.sees_soon(&room, last.event_id.as_str()).await;
    let grown = most_resident(&world).saturating_sub(before);
    assert!(grown < 64 * 1024 + 16 * crowd as u64, "{grown} KiB more for {crowd} people");
}
