//! A clock that jumps by an hour, forth and back, on one of two servers that share rooms.

use std::sync::atomic::Ordering;

use serde_json::json;
use toml::Table;

use crate::{
    Starts, assert_intact, assert_no_panic,
    common::{
        eventually,
        federating::{Authority, Federating},
        history::{ids, whole_log},
    },
    disk::{Disk, Word},
    load::{Load, Party},
};

const HOUR: i64 = 60 * 60 * 1000;

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_loses_reorders_and_stops_nothing() {
    let authority = Authority::new();
    let mut here = Federating::start(&authority, Table::new()).await;
    let there = Federating::start(&authority, Table::new()).await;
    let homes = [(&here.server, here.name.as_str()), (&there.server, there.name.as_str())];
    let party = Party::gather(&homes, 2, 2).await;
    let alice = here.server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    here.server.stop().await;
    let disk = Disk::below(&mut here.server);
    here.start_again().await;

    let load = Load::start(&party, 1).await;
    load.progress.clocks_differ.store(true, Ordering::SeqCst);
    let since = alice.sync(None, 0).await["next_batch"].as_str().unwrap().to_owned();
    let mut sent = Vec::new();
    let mut starts = Starts::default();
    for (jump, offset) in [HOUR, 0, -HOUR, 0].into_iter().enumerate() {
        let path = format!("/v3/rooms/{room}/send/m.room.message/before{jump}");
        let body = json!({ "msgtype": "m.text", "body": jump.to_string() });
        let event = alice.put(&path, body.clone()).await.expect(200)["event_id"].clone();
        sent.push(event.as_str().unwrap().to_owned());
        // It is due soon by the clock of now.
        let delayed =
            format!("/v3/rooms/{room}/send/m.room.message/delayed{jump}?org.matrix.msc4140.delay=300");
        let delayed =
            if offset > 0 { Some(alice.put(&delayed, body.clone()).await.expect(200)) } else { None };

        disk.set(Word::ClockMs, offset);

        load.progress.more(25).await;
        assert_eq!(
            alice.put(&path, body.clone()).await.expect(200)["event_id"],
            event,
            "I3: the same transaction"
        );
        // A request that waits is answered, whatever the clock says of how long that was.
        let waited = alice.sync(Some(&since), 100).await;
        assert!(waited["next_batch"].is_string());
        if let Some(delayed) = delayed {
            assert!(delayed["delay_id"].is_string(), "{delayed}");
            let due = eventually("what was due is sent", async || {
                let log = whole_log(&alice, &room).await;
                let last = log.last().filter(|last| last["content"]["body"] == body["body"])?;
                let id = last["event_id"].as_str().unwrap();
                (*id != *event.as_str().unwrap()).then(|| id.to_owned())
            })
            .await;
            sent.push(due);
        }
        // Who is new, and who comes by a password, is let in.
        alice.sync(None, 0).await;
        here.server.login("alice").await;
        // What it has by this clock is whole, and it starts by it.
        here.server.kill().await;
        assert_intact(&here.server);
        starts.again(&mut here.server).await;
    }
    let log = whole_log(&alice, &room).await;
    let log = log.into_iter().filter(|event| event["type"] == "m.room.message").collect();
    assert_eq!(ids(&serde_json::Value::Array(log)), sent, "the order is that of sending, not of the clock");
    load.end().await;
    for one in [&here, &there] {
        assert_no_panic(&one.server);
    }
    starts.report("after jumps of the clock");
}
