//! Transactions of fifty events, and the join of a large room.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use toml::Table;

use crate::{
    common::federating::{Authority, Federating},
    crowd::Crowd,
    load::{cpu, memory},
    peer::{Peer, wire},
    room::{Room, Shared, message},
};

async fn enter(here: &Federating, room: &Shared, via: &str, name: &str) -> (crate::common::User, String) {
    let user = here.server.register(name).await;
    let id = room.lock().id.to_string();
    user.post(&format!("/v3/join/{id}?via={via}"), json!({})).await.expect(200);
    (user, id)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a benchmark"]
async fn transactions_of_fifty() {
    const TRANSACTIONS: usize = 60;
    let authority = Authority::new();
    let here = Federating::start(&authority, Table::new()).await;
    let peer = Peer::start(&authority).await;
    for version in ["11", "12"] {
        let room = Room::new(&peer, version, &format!("busy{version}"));
        peer.keeps(&room);
        enter(&here, &room, peer.name.as_str(), &format!("alice{version}")).await;
        let parts: Vec<Vec<Value>> = (0..TRANSACTIONS)
            .map(|_| (0..50).map(|number| wire(&room.lock().say(&format!("message {number}")))).collect())
            .collect();
        let (before, began) = (cpu(here.server.pid()), Instant::now());
        for part in &parts {
            let answer = peer.send(&here, part, &[]).await.expect(200);
            let errors =
                answer["pdus"].as_object().unwrap().values().filter(|verdict| verdict["error"].is_string());
            assert_eq!(errors.count(), 0);
        }
        let pdus = (TRANSACTIONS * 50) as f64;
        let used = cpu(here.server.pid()) - before;
        println!(
            "transactions, version {version}: {:.3} ms CPU a PDU, {:.0} PDUs/s",
            used / pdus,
            pdus / began.elapsed().as_secs_f64()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a benchmark"]
async fn join_of_a_large_room() {
    const SERVERS: u32 = 20;
    const MEMBERS: usize = 100;
    const STATE: usize = 1_000;
    let authority = Authority::new();
    let crowd = Crowd::start(&authority, SERVERS).await;
    let peer = Peer::start(&authority).await;
    for round in 1..=3 {
        let more = toml::toml! { max_members = 1000 };
        let mut here = Federating::start(&authority, Table::new()).await;
        here.server.stop().await;
        here.configure(|config| drop(config.insert("rooms".to_owned(), more.into())));
        here.start_again().await;
        let room = Room::new(&peer, "11", &format!("large{round}"));
        {
            let mut room = room.lock();
            for server in &crowd.servers {
                room.signs(&server.name, &server.key);
            }
            for number in 1..MEMBERS {
                let user = crowd.servers[number % crowd.servers.len()].user(&format!("user{number}"));
                room.put(&user, "m.room.member", user.as_str(), json!({ "membership": "join" }));
            }
            let creator = room.creator.clone();
            for number in room.state.len()..STATE {
                room.put(&creator, "org.example.state", &number.to_string(), message("a piece of state"));
            }
        }
        peer.keeps(&room);
        let (resident, _) = memory(here.server.pid());
        let (before, began) = (cpu(here.server.pid()), Instant::now());
        let (user, id) = enter(&here, &room, peer.name.as_str(), "alice").await;
        let took: Duration = began.elapsed();
        let used = cpu(here.server.pid()) - before;
        let members = user.get(&format!("/v3/rooms/{id}/joined_members")).await.expect(200);
        assert_eq!(members["joined"].as_object().unwrap().len(), MEMBERS + 1);
        println!(
            "join of {MEMBERS} members, {STATE} state events, {SERVERS} servers: {took:.0?}, {used:.0} ms CPU, \
             peak {:.0} MiB over {resident:.0}",
            memory(here.server.pid()).1 - resident
        );
    }
}
