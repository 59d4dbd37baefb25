//! Messages between two servers.

use serde_json::json;
use toml::Table;

use crate::{
    common::{
        User,
        device::Device,
        eventually,
        federating::{Authority, Federating},
    },
    numbers, send, send_to,
};

struct Two {
    here: Federating,
    there: Federating,
    alice: User,
    rita: User,
    /// In whose file the servers find it.
    _authority: Authority,
}

impl Two {
    async fn new() -> Self {
        let authority = Authority::new();
        let here = Federating::start(&authority, Table::new()).await;
        let there = Federating::start(&authority, Table::new()).await;
        let (alice, rita) = (here.server.register("alice").await, there.server.register("rita").await);
        Self { here, there, alice, rita, _authority: authority }
    }
}

/// Reads until there are so many.
async fn read(device: &mut Device, count: usize) -> Vec<u64> {
    let mut got = Vec::new();
    while got.len() < count {
        got.extend(numbers(&device.wait().await));
    }
    got
}

#[tokio::test(flavor = "multi_thread")]
async fn td_04_messages_cross_in_order_and_to_all_devices() {
    let two = Two::new().await;
    let second = two.there.server.login("rita").await;
    let (mut one, mut other) = (Device::ready(&two.rita).await, Device::ready(&second).await);
    send(&two.alice, &two.rita, 0..30).await;
    send_to(
        &two.alice,
        json!({ &two.rita.user_id: { "*": { "n": 30 } }, &two.alice.user_id: { "*": { "n": 31 } } }),
    )
    .await;
    assert_eq!(read(&mut one, 31).await, (0..=30).collect::<Vec<_>>());
    assert_eq!(read(&mut other, 1).await, [30]);
    assert_eq!(numbers(&two.alice.sync(None, 0).await), [31]);
    // And back.
    let mut alice = Device::ready(&two.alice).await;
    send(&two.rita, &two.alice, [7]).await;
    assert_eq!(read(&mut alice, 1).await, [7]);
}

/// For so long that it is *behind*, through kills of either.
#[tokio::test(flavor = "multi_thread")]
async fn td_04_a_server_that_was_down_gets_all_once_and_in_order() {
    let mut two = Two::new().await;
    let mut rita = Device::ready(&two.rita).await;
    send(&two.alice, &two.rita, 0..5).await;
    assert_eq!(read(&mut rita, 5).await, (0..5).collect::<Vec<_>>());
    two.there.server.kill().await;
    send(&two.alice, &two.rita, 5..20).await;
    let name = two.there.name.clone();
    let here = &two.here;
    eventually("it is given up for now", || async {
        let list = here.run(&["federation", "list"]);
        let text = String::from_utf8_lossy(&list.stdout).into_owned();
        let line = text.lines().find(|line| line.contains(&name))?;
        line.contains("behind").then_some(())
    })
    .await;
    send(&two.alice, &two.rita, 20..140).await;
    two.here.server.kill().await;
    two.here.start_again().await;
    send(&two.alice, &two.rita, 140..150).await;
    two.there.start_again().await;
    // Whoever speaks is there.
    let user = two.alice.user_id.clone();
    two.rita.get(&format!("/v3/profile/{user}")).await;
    send(&two.alice, &two.rita, 150..160).await;
    assert_eq!(read(&mut rita, 155).await, (5..160).collect::<Vec<_>>());
    send(&two.alice, &two.rita, [160]).await;
    assert_eq!(read(&mut rita, 1).await, [160]);
}

/// Killed again and again while messages are on their way.
#[tokio::test(flavor = "multi_thread")]
async fn td_04_kills_of_either_server_lose_nothing_and_double_nothing() {
    let mut two = Two::new().await;
    let mut rita = Device::ready(&two.rita).await;
    let rounds = crate::common::rounds(4, 20) as u64;
    for round in 0..rounds {
        send(&two.alice, &two.rita, round * 20..(round + 1) * 20).await;
        if round % 2 == 0 {
            two.there.server.kill().await;
            two.there.start_again().await;
            two.rita.get(&format!("/v3/profile/{}", two.alice.user_id)).await;
        } else {
            two.here.server.kill().await;
            two.here.start_again().await;
        }
    }
    assert_eq!(read(&mut rita, 20 * rounds as usize).await, (0..20 * rounds).collect::<Vec<_>>());
    send(&two.alice, &two.rita, [9_999]).await;
    assert_eq!(read(&mut rita, 1).await, [9_999]);
}
