//! Where tokens come from, where they may go to, and those that mean nothing.

use super::*;

#[tokio::test]
async fn sy24_garbage_is_no_token() {
    let server = server().await;
    let alice = server.register("alice").await;
    for garbage in
        ["garbage", "s", "s1", "s1_2_3", "s1_2_3_4_5_6", "s1_-2_3_4", "s-1_2_3_4", "r", "%00", "s1_x_1_1"]
    {
        let answer = alice.get(&format!("/v3/sync?since={garbage}")).await;
        answer.expect_error(400, "M_INVALID_PARAM");
    }
    let none = alice.get("/v3/sync?since=").await.expect(200);
    assert!(find(&none["account_data"], "m.push_rules", None).is_some(), "an empty token is none");
}

/// A token is a place, not a key: it shows its bearer nothing but what is theirs.
#[tokio::test]
async fn sy24_the_token_of_somebody_else_opens_nothing() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let device = Device::ready(&alice).await;
    alice.create_room(json!({ "preset": "private_chat" })).await;
    let since = device.since.as_deref();
    assert_eq!(bob.sync(since, 0).await["rooms"], Value::Null);
    let without = server.http().get(&format!("/v3/sync?since={}", since.expect("a token")), None).await;
    without.expect_error(401, "M_MISSING_TOKEN");
}

/// Of a restored backup, of another server: a full answer, at once.
#[tokio::test]
async fn tokens_of_the_future_and_of_other_times_get_a_full_answer() {
    let mut server = server().await;
    let alice = server.register("alice").await;
    let room = public_room(&alice, &[]).await;
    alice.send_text(&room, "hello").await;
    let device = Device::ready(&alice).await;
    let since = device.since.clone().expect("a token");
    let parts: Vec<&str> = since.trim_start_matches('s').split('_').collect();
    let [epoch, position, boot, fading] = parts[..] else { panic!("{since} has four parts") };
    let other_epoch = epoch.parse::<u64>().expect("a number") ^ 1;
    let first = alice.sync(None, 0).await;
    let prev_batch = join(&first, &room)["timeline"]["prev_batch"].as_str().expect("prev_batch").to_owned();
    let future = format!("s{epoch}_{}_{boot}_{fading}", i64::MAX);
    let elsewhere = format!("s{other_epoch}_{position}_{boot}_{fading}");

    for strange in [&future, &elsewhere, &prev_batch] {
        let answer = alice.sync(Some(strange), FOR_EVER).await;
        let timeline = &join(&answer, &room)["timeline"];
        assert!(!events(timeline).is_empty(), "{strange}: {answer}");
        assert!(find(&answer["account_data"], "m.push_rules", None).is_some());
        let next = alice.sync(Some(next_batch(&answer)), 0).await;
        assert_eq!(next["rooms"], Value::Null, "from there on it goes as usual");
    }

    // What fades has forgotten its numbers after a restart, and says so.
    server.restart().await;
    let answer = alice.sync(Some(&since), 0).await;
    assert_eq!(answer["rooms"], Value::Null, "{answer}");
    alice.typing(&room, true).await;
    let answer = alice.sync(Some(&since), 0).await;
    assert!(find(&join(&answer, &room)["ephemeral"], "m.typing", None).is_some(), "{answer}");
}

#[tokio::test]
async fn hv09_every_token_is_good_wherever_a_token_goes() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[]).await;
    let first = alice.send_text(&room, "first").await;
    let mut device = Device::ready(&alice).await;
    let before = device.since.clone().expect("a token");
    let second = alice.send_text(&room, "second").await;
    bob.join(&room).await;
    let answer = device.next().await;
    let after = next_batch(&answer).to_owned();
    let prev_batch = join(&answer, &room)["timeline"]["prev_batch"].as_str().expect("prev_batch").to_owned();

    let messages = async |query: String| {
        let page = alice.get(&format!("/v3/rooms/{room}/messages?{query}")).await.expect(200);
        common::history::ids(&page["chunk"])
    };
    for start in [&before, &prev_batch] {
        assert_eq!(messages(format!("dir=f&from={start}")).await.first(), Some(&second), "{start}");
        assert_eq!(messages(format!("dir=b&from={start}")).await.first(), Some(&first), "{start}");
    }
    let span = messages(format!("dir=f&from={before}&to={after}")).await;
    assert_eq!(span.len(), 2);
    assert_eq!(span[0], second);

    // LL-05
    let members = async |at: &str| {
        let answer =
            alice.get(&format!("/v3/rooms/{room}/members?at={at}&membership=join")).await.expect(200);
        answer["chunk"].as_array().expect("chunk").len()
    };
    assert_eq!(members(&before).await, 1);
    assert_eq!(members(&prev_batch).await, 1);
    assert_eq!(members(&after).await, 2);
}

/// Queues are cut after a while. Here that is done to the database: nobody waits thirty days for a test.
#[tokio::test]
async fn a_token_from_before_the_horizon_is_answered_from_the_logs() {
    let mut server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (stays, leaves) = (public_room(&alice, &[&bob]).await, public_room(&alice, &[&bob]).await);
    let (left, enters) = (public_room(&alice, &[&bob]).await, public_room(&alice, &[]).await);
    bob.leave(&left).await;
    let mut device = Device::ready(&bob).await;
    for number in 0..12 {
        alice.send_text(&stays, &number.to_string()).await;
    }
    bob.leave(&leaves).await;
    bob.join(&enters).await;

    server.stop().await;
    {
        let database = rusqlite::Connection::open(server.data_dir().join("hearth.db")).expect("a database");
        let cut = "UPDATE account SET trimmed = (SELECT position FROM head)";
        database.execute(cut, []).expect("the queues are cut");
    }
    server.start_again().await;
    let answer = device.next().await;
    let rooms = |section: &str| -> Vec<String> {
        let rooms = answer["rooms"][section].as_object();
        rooms.map(|rooms| rooms.keys().cloned().collect()).unwrap_or_default()
    };
    let mut joined = vec![stays.clone(), enters];
    joined.sort_unstable();
    assert_eq!(rooms("join"), joined);
    assert_eq!(rooms("leave"), [leaves], "what was left since, and nothing that was left before");
    let body = join(&answer, &stays);
    assert_eq!(body["timeline"]["limited"], true);
    assert_eq!(ids(&body["timeline"]).len(), 10);
    assert!(find(&body["state"], "m.room.create", Some("")).is_some());
    assert_eq!(device.next().await["rooms"], Value::Null, "from there on it goes as usual");
}
