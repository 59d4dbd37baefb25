//! Readers that don't keep up. (Tests of positions that are acknowledged wrongly are among the hostile.)

use std::time::Duration;

use super::*;

fn config() -> toml::Table {
    toml::toml! {
        [stream]
        patience_ms = 2_000
    }
}

#[tokio::test]
async fn who_acknowledges_nothing_is_sent_so_much_and_then_closed() {
    let server = Server::start(config()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = room(&alice, &[&bob]).await;
    let mut silent = Client::ready(&server, &bob).await;
    silent.acks = false;
    let before = silent.pos.clone().expect("a position");
    let long = "x".repeat(20_000);
    let mut sender = Client::ready(&server, &alice).await;
    for _ in 0..60 {
        sender.request("send", text(&room, &long)).await.expect("others don't notice");
        sender.syncs_read().await;
    }
    let mut read = 0;
    while let Some(body) = silent.try_sync().await {
        read += texts(&body, &room).len();
    }
    assert!(read < 60, "256 KiB and one sync: {read} of 60");
    // Nothing is lost to it.
    let mut again = Client::resumed(&server, &bob, &before).await;
    let body = again.sync().await;
    let timeline = &body["rooms"]["join"][&room]["timeline"];
    assert_eq!(timeline["limited"], true);
    let prev_batch = timeline["prev_batch"].as_str().expect("a token");
    let path = format!("/v3/rooms/{room}/messages?dir=b&from={prev_batch}&limit=100");
    let page = bob.get(&path).await.expect(200);
    let page = page["chunk"].as_array().expect("events");
    let older = page.iter().filter(|event| event["type"] == "m.room.message").count();
    assert_eq!(older + texts(&body, &room).len(), 60);
}

#[tokio::test]
async fn signs_of_life_are_no_acknowledgement() {
    let server = Server::start(config()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = room(&alice, &[&bob]).await;
    let mut lively = Client::ready(&server, &bob).await;
    let mut sender = Client::ready(&server, &alice).await;
    let long = "x".repeat(20_000);
    for _ in 0..60 {
        sender.request("send", text(&room, &long)).await.expect("others don't notice");
        sender.syncs_read().await;
    }
    let end = tokio::time::timeout(common::PATIENCE, async {
        let mut signs = tokio::time::interval(Duration::from_millis(100));
        loop {
            tokio::select! {
                received = lively.line.receive() => {
                    if matches!(received, Received::Close(..) | Received::Eof) {
                        break received;
                    }
                }
                _ = signs.tick() => {
                    lively.line.text(r#"{"method":"pong"}"#).await;
                    // Something to be answered, too. If the server has closed it already, reading will say why.
                    let _ = lively.line.write(0x89, b"are you there").await;
                }
            }
        }
    });
    let end = end.await.expect("an end");
    assert!(matches!(end, Received::Close(4008, _)), "{end:?}");
}

#[tokio::test]
async fn an_acknowledgement_opens_the_window_again_and_nothing_is_missing() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = room(&alice, &[&bob]).await;
    let mut reader = Client::ready(&server, &bob).await;
    reader.acks = false;
    let mut sender = Client::ready(&server, &alice).await;
    let long = "x".repeat(60_000);
    let mut told = Vec::new();
    for count in 0..30 {
        sender.request("send", text(&room, &format!("{count} {long}"))).await.expect("sent");
        sender.syncs_read().await;
        if count % 6 == 5 {
            while told.len() <= count {
                let body = reader.sync().await;
                assert_ne!(body["rooms"]["join"][&room]["timeline"]["limited"], true);
                told.extend(texts(&body, &room));
                reader.ack().await;
            }
        }
    }
    let numbers: Vec<usize> = told
        .iter()
        .map(|text| text.split(' ').next().unwrap_or_default().parse().expect("a number"))
        .collect();
    assert_eq!(numbers, (0..30).collect::<Vec<_>>());
}

#[tokio::test]
async fn who_reads_nothing_is_closed_and_the_server_keeps_nothing_for_it() {
    let server = Server::start(config()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = room(&alice, &[&bob]).await;
    let mut sender = Client::ready(&server, &alice).await;
    let long = "x".repeat(60_000);
    let mut dead = Vec::new();
    for _ in 0..10 {
        dead.push(Client::ready(&server, &bob).await);
    }
    let before = most_resident(&server);
    // More than the network takes for a client that doesn't read; acknowledged without having been read.
    for _ in 0..400 {
        sender.request("send", text(&room, &long)).await.expect("others don't notice");
        sender.syncs_read().await;
    }
    let grown = most_resident(&server).saturating_sub(before);
    assert!(grown < 100 * 1024, "{grown} KiB more for sockets that take nothing");
    for client in &mut dead {
        let end = client.line.closed().await;
        assert!(matches!(end, Received::Close(4008, _) | Received::Eof), "{end:?}");
    }
}

#[tokio::test]
async fn who_asks_and_never_reads_the_answers_is_no_longer_read() {
    let server = Server::start(config()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = room(&alice, &[&bob]).await;
    let mut deaf = Client::ready(&server, &alice).await;
    let before = most_resident(&server);
    // Errors with as much text as there may be; what is sent stays in the network once nobody reads it.
    let request =
        json!({ "id": "i".repeat(255), "method": "send", "params": { "room_id": "y".repeat(60_000) } });
    let request = request.to_string();
    let sending = async {
        loop {
            deaf.line.text(&request).await;
        }
    };
    let stuck = tokio::time::timeout(Duration::from_secs(3), sending).await;
    assert!(stuck.is_err());
    let grown = most_resident(&server).saturating_sub(before);
    assert!(grown < 100 * 1024, "{grown} KiB more for one socket");
    let mut other = Client::ready(&server, &bob).await;
    other.request("send", text(&room, "others don't notice")).await.expect("sent");
}

#[tokio::test]
async fn who_asks_and_never_reads_the_answers_is_gone() {
    let server = Server::start(toml::toml! {
        [stream]
        heartbeat_ms = 500
    })
    .await;
    let alice = server.register("alice").await;
    let mut deaf = Client::ready(&server, &alice).await;
    let request =
        json!({ "id": "i".repeat(255), "method": "send", "params": { "room_id": "y".repeat(60_000) } });
    let request = request.to_string();
    let sending = async {
        // Until the line breaks.
        while deaf.line.write(0x81, request.as_bytes()).await.is_ok() {}
    };
    let sent = tokio::time::timeout(common::PATIENCE, sending).await;
    assert!(sent.is_ok(), "its socket is open still");
    common::eventually("nobody counts it any more", || async {
        let metrics = server.http().get("/metrics", None).await.text();
        metrics.contains("hearth_stream_sockets 0\n").then_some(())
    })
    .await;
}

/// Each time there would be all that there is to send.
#[tokio::test]
async fn who_begins_anew_again_and_again_without_reading_is_told_when_to_come_back() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = room(&alice, &[&bob]).await;
    let mut sender = Client::ready(&server, &alice).await;
    let long = "x".repeat(60_000);
    for _ in 0..200 {
        sender.request("send", text(&room, &long)).await.expect("sent");
        sender.syncs_read().await;
    }
    drop(sender);
    let sockets = async |count: usize| {
        let metrics = server.http().get("/metrics", None).await.text();
        metrics.contains(&format!("hearth_stream_sockets {count}\n")).then_some(())
    };
    common::eventually("the sender is gone", async || sockets(0).await).await;

    let mut deaf = Client::open(&server).await;
    let before = most_resident(&server);
    let filter = json!({ "room": { "timeline": { "limit": 1_000 } } });
    for _ in 0..40 {
        // Twelve megabytes each: more than the network takes for a client that doesn't read.
        deaf.begin("auth", json!({ "access_token": bob.access_token, "filter": filter })).await;
    }
    common::eventually("it is closed", async || sockets(0).await).await;
    let grown = most_resident(&server).saturating_sub(before);
    assert!(grown < 160 * 1024, "{grown} KiB more for one socket");
    let end = deaf.line.closed().await;
    assert!(matches!(&end, Received::Close(4010, wait) if wait == "1000") || end == Received::Eof, "{end:?}");
}

/// What fades is kept for nobody: however often it changed, who catches up hears what has become of it.
#[tokio::test]
async fn who_catches_up_hears_once_who_types_now() {
    let server = Server::start(toml::toml! {
        [stream]
        patience_ms = 600_000
        [presence]
        offline_after_ms = 3_000
    })
    .await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = room(&alice, &[&bob]).await;
    let mut reader = Client::ready(&server, &bob).await;
    reader.acks = false;
    let mut talker = Client::ready(&server, &alice).await;
    let long = "x".repeat(60_000);
    for count in 0..5 {
        talker.request("send", text(&room, &format!("{count} {long}"))).await.expect("sent");
    }
    // From here on its window is closed.
    reader.sync_with(|body| texts(body, &room).iter().any(|text| text.starts_with('4')).then_some(())).await;
    for count in 0..1_001 {
        let typing = json!({ "room_id": room, "typing": count % 2 == 0, "timeout": 120_000 });
        talker.request("typing", typing).await.expect("done");
        let presence = json!({ "presence": "online", "status_msg": count.to_string() });
        talker.request("presence", presence).await.expect("done");
    }
    talker.request("send", text(&room, "the end")).await.expect("sent");

    reader.ack().await;
    reader.acks = true;
    let (mut typing, mut ended, mut status) = (Vec::new(), false, None);
    while !ended || status.as_deref() != Some("1000") {
        let body = reader.sync().await;
        let events = body["rooms"]["join"][&room]["ephemeral"]["events"].as_array();
        let events = events.into_iter().flatten().filter(|event| event["type"] == "m.typing");
        typing.extend(events.map(|event| event["content"]["user_ids"].clone()));
        ended |= texts(&body, &room).contains(&"the end".to_owned());
        let people = body["presence"]["events"].as_array().into_iter().flatten();
        let of_alice = people.filter(|event| event["sender"] == json!(alice.user_id));
        for event in of_alice {
            status = event["content"]["status_msg"].as_str().map(str::to_owned);
        }
    }
    assert_eq!(typing, [json!([alice.user_id])]);
}
