//! Delivery by `/sync`: once, in order, until the token that followed is presented.

use serde_json::{Value, json};

use crate::{
    common::{
        device::{Device, FOR_EVER, next_batch},
        eventually,
    },
    numbers, send, send_to, server,
};

#[tokio::test]
async fn td_01_messages_are_kept_until_the_token_that_followed_them() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let before = next_batch(&bob.sync(None, 0).await).to_owned();
    send(&alice, &bob, 1..=3).await;
    let first = bob.sync(Some(&before), 0).await;
    assert_eq!(numbers(&first), [1, 2, 3]);
    // That answer got lost.
    let again = bob.sync(Some(&before), 0).await;
    assert_eq!(numbers(&again), [1, 2, 3]);
    assert_eq!(numbers(&bob.sync(None, 0).await), [1, 2, 3], "a client that begins anew misses nothing");
    assert!(numbers(&bob.sync(Some(next_batch(&again)), 0).await).is_empty());
    // Whatever token comes now.
    assert!(numbers(&bob.sync(Some(&before), 0).await).is_empty(), "they were acknowledged");
    assert!(numbers(&bob.sync(None, 0).await).is_empty());
    assert!(numbers(&bob.sync_with(Some(&before), 0, "&full_state=true").await).is_empty());
}

#[tokio::test]
async fn td_01_a_full_state_has_what_was_not_acknowledged() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    send(&alice, &bob, 1..=2).await;
    let first = bob.sync(None, 0).await;
    send(&alice, &bob, 3..=4).await;
    let whole = bob.sync_with(Some(next_batch(&first)), 0, "&full_state=true").await;
    assert_eq!(numbers(&whole), [3, 4]);
    assert!(numbers(&bob.sync(Some(next_batch(&whole)), 0).await).is_empty());
}

#[tokio::test]
async fn td_02_more_than_fit_come_in_pages_and_hold_up_nothing() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let mut device = Device::ready(&bob).await;
    send(&alice, &bob, 0..250).await;
    alice.send_text(&room, "hello").await;
    let answer = device.next().await;
    assert_eq!(numbers(&answer), (0..100).collect::<Vec<_>>());
    assert!(answer["rooms"]["join"][&room].is_object(), "the rest of the answer is up to date");
    // TD-06: nobody waits while there are some left.
    let half = device.since.clone().unwrap();
    assert_eq!(numbers(&device.wait().await), (100..200).collect::<Vec<_>>());
    assert_eq!(numbers(&bob.sync(Some(&half), 0).await), (100..200).collect::<Vec<_>>());
    // A client that begins anew here has the rest before it.
    let anew = bob.sync(None, 0).await;
    assert_eq!(numbers(&anew), (100..200).collect::<Vec<_>>(), "the first page was acknowledged");
    send(&alice, &bob, 250..260).await;
    let answer = device.wait().await;
    assert_eq!(numbers(&answer), (200..260).collect::<Vec<_>>());
    assert!(answer["rooms"]["join"][&room].is_null());
    assert!(numbers(&device.next().await).is_empty());
}

#[tokio::test]
async fn td_06_a_message_wakes_its_device_and_only_that() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mut device = Device::ready(&bob).await;
    let mut other = Device::ready(&server.login("bob").await).await;
    let laptop = other.user.clone();
    let some = |answer: &Value| Some(numbers(answer)).filter(|numbers| !numbers.is_empty());
    let sends = async {
        assert_eq!(device.woken_by(send(&alice, &bob, [1]), some).await, [1]);
        send(&alice, &laptop, [2]).await;
    };
    // The other one is woken by what comes after, and hears of nothing before.
    assert_eq!(other.woken_by(sends, some).await, [2]);
}

#[tokio::test]
async fn td_01_each_device_has_its_own_and_says_for_itself_what_it_has() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let second = server.login("bob").await;
    let (mut one, mut two) = (Device::ready(&bob).await, Device::ready(&second).await);
    send_to(&alice, json!({ &bob.user_id: { "*": { "n": 1 } } })).await;
    send(&alice, &second, [2]).await;
    assert_eq!(numbers(&one.next().await), [1]);
    assert!(numbers(&one.next().await).is_empty());
    assert_eq!(numbers(&two.next().await), [1, 2]);
    assert_eq!(numbers(&second.sync(None, 0).await), [1, 2]);
}

/// OK-12: what a device has when it is logged out nobody gets, also not one that takes its name.
#[tokio::test]
async fn ok_12_a_device_that_is_logged_out_loses_its_messages() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let second = server.login("bob").await;
    send(&alice, &second, [1]).await;
    second.post("/v3/logout", json!({})).await.expect(200);
    send(&alice, &second, [2]).await;
    let body = json!({
        "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "bob" },
        "password": crate::common::PASSWORD, "device_id": second.device_id,
    });
    let answer = server.http().post("/v3/login", None, body).await.expect(200);
    let again = crate::User::new(server.http().clone(), &answer);
    assert_eq!(again.device_id, second.device_id);
    send(&alice, &again, [3]).await;
    assert_eq!(numbers(&again.sync(None, 0).await), [3]);
    assert!(numbers(&bob.sync(None, 0).await).is_empty());
}

#[tokio::test]
async fn td_01_exactly_once_through_restarts_and_kills() {
    let mut server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let before = next_batch(&bob.sync(None, 0).await).to_owned();
    send(&alice, &bob, 0..150).await;
    let first = bob.sync(Some(&before), 0).await;
    server.kill().await;
    server.start_again().await;
    // The answer got lost with the server, or it didn't.
    assert_eq!(numbers(&bob.sync(Some(&before), 0).await), numbers(&first));
    server.kill().await;
    server.start_again().await;
    let second = bob.sync(Some(next_batch(&first)), 0).await;
    assert_eq!(numbers(&second), (100..150).collect::<Vec<_>>());
    server.restart().await;
    assert_eq!(numbers(&bob.sync(None, 0).await), (100..150).collect::<Vec<_>>());
    server.restart().await;
    // The first word of the device to this run acknowledges what another run has handed out.
    assert!(numbers(&bob.sync(Some(next_batch(&second)), 0).await).is_empty());
    assert!(numbers(&bob.sync(None, 0).await).is_empty());
}

/// A first answer is kept for a client that gave up; the messages in it are those that are there when it comes back.
#[tokio::test]
async fn a_first_answer_that_was_kept_has_no_message_twice() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    for n in 0..20 {
        let room = bob.create_room(json!({ "name": n.to_string() })).await;
        bob.send_text(&room, "hello").await;
    }
    send(&alice, &bob, [1]).await;
    for _ in 0..20 {
        // Gives up at a moment of its own.
        let asked = bob.clone();
        let poll = tokio::spawn(async move { asked.sync(None, 0).await });
        tokio::task::yield_now().await;
        poll.abort();
    }
    // Another request gets it, by a filter of its own, and says so.
    let filter = "&filter=%7B%22presence%22%3A%7B%22limit%22%3A1%7D%7D";
    let other = bob.sync_with(None, 0, filter).await;
    assert_eq!(numbers(&other), [1]);
    bob.sync(Some(next_batch(&other)), 0).await;
    assert!(numbers(&bob.sync(None, 0).await).is_empty());
}

/// Many senders, and a device that polls with answers that get lost now and then.
#[tokio::test]
async fn td_02_messages_of_each_sender_arrive_in_order_and_once() {
    let server = server().await;
    let bob = server.register("bob").await;
    let mut device = Device::ready(&bob).await;
    let each = crate::common::rounds(40, 400) as u64;
    let mut senders = Vec::new();
    for sender in 0..4 {
        let (alice, bob) = (server.register(&format!("alice{sender}")).await, bob.clone());
        senders.push(tokio::spawn(async move {
            send(&alice, &bob, (0..each).map(|n| sender * 100_000 + n)).await;
        }));
    }
    let mut got: Vec<u64> = Vec::new();
    let mut round = 0;
    while got.len() < 4 * each as usize {
        round += 1;
        let answer = bob.sync(device.since.as_deref(), FOR_EVER).await;
        if round % 3 == 0 {
            continue;
        }
        got.extend(numbers(&answer));
        device.since = Some(next_batch(&answer).to_owned());
    }
    for sender in senders {
        sender.await.unwrap();
    }
    for sender in 0..4 {
        let of_sender: Vec<u64> =
            got.iter().filter(|n| **n / 100_000 == sender).map(|n| n % 100_000).collect();
        assert_eq!(of_sender, (0..each).collect::<Vec<_>>());
    }
    let rest = device.next().await;
    assert!(numbers(&rest).is_empty());
}

/// A device that was away for long. Eight at once write to it; what it sends on the way isn't held up.
#[tokio::test]
async fn td_02_a_full_mailbox_is_paged_through_once_and_in_order() {
    let server = server().await;
    let bob = server.register("bob").await;
    let room = bob.create_room(json!({})).await;
    let mut device = Device::ready(&bob).await;
    let each = crate::common::rounds(100, 1_250) as u64;
    let senders = (0..8).map(async |sender| {
        let alice = server.register(&format!("alice{sender}")).await;
        send(&alice, &bob, (0..each).map(|n| sender * 100_000 + n)).await;
    });
    futures_util::future::join_all(senders).await;
    let mut got: Vec<u64> = Vec::new();
    let mut times = Vec::new();
    for page in 0..8 * each / 100 {
        let said = bob.send_text(&room, &page.to_string()).await;
        let begin = std::time::Instant::now();
        let answer = device.wait().await;
        times.push(begin.elapsed());
        let numbers = numbers(&answer);
        assert_eq!(numbers.len(), 100, "page {page}");
        got.extend(numbers);
        let timeline = &answer["rooms"]["join"][&room]["timeline"]["events"];
        assert_eq!(timeline.as_array().unwrap().last().unwrap()["event_id"], said.as_str());
    }
    assert!(numbers(&device.next().await).is_empty());
    for sender in 0..8 {
        let of_sender: Vec<u64> =
            got.iter().filter(|n| **n / 100_000 == sender).map(|n| n % 100_000).collect();
        assert_eq!(of_sender, (0..each).collect::<Vec<_>>());
    }
    times.sort_unstable();
    // For measuring: `cargo test --release … -- --nocapture full_mailbox`.
    eprintln!(
        "{} pages: {:?} at the median, {:?} at most",
        times.len(),
        times[times.len() / 2],
        times.last()
    );
}

/// The first message in a room of a hundred.
#[tokio::test]
async fn a_hundred_devices_get_a_message_each_by_one_request() {
    let server = server().await;
    let alice = server.register("alice").await;
    let mut users = Vec::new();
    for n in 0..100 {
        users.push(server.register(&format!("bob{n}")).await);
    }
    let messages: serde_json::Map<String, Value> = users
        .iter()
        .zip(0..)
        .map(|(user, n)| {
            let content = json!({ "n": n, "ciphertext": "x".repeat(1_000) });
            (user.user_id.clone(), json!({ &user.device_id: content }))
        })
        .collect();
    let polls: Vec<_> = futures_util::future::join_all(users.iter().map(Device::ready)).await;
    let polls: Vec<_> = polls.iter().map(Device::poll).collect();
    let begin = std::time::Instant::now();
    send_to(&alice, json!(messages)).await;
    let sent = begin.elapsed();
    for (poll, n) in polls.into_iter().zip(0..) {
        assert_eq!(numbers(&poll.await.unwrap()), [n]);
    }
    eprintln!("sent in {sent:?}, all have it after {:?}", begin.elapsed());
}

/// What waits is said to Prometheus.
#[tokio::test]
async fn how_many_messages_wait_and_were_dropped_is_a_metric() {
    let server = server().await;
    let metrics = eventually("there are metrics", || async {
        let text = server.http().get("/metrics", None).await.text();
        text.contains("hearth_to_device_waiting").then_some(text)
    })
    .await;
    for reason in ["age", "full"] {
        assert!(
            metrics.contains(&format!("hearth_to_device_dropped_total{{reason=\"{reason}\"}} 0")),
            "{metrics}"
        );
    }
}
