//! Input that no client that works would send. None of it may cost memory, or be noticed by others.

use super::{delivery::deflate, *};

/// What a socket is closed with after these bytes.
async fn after(server: &Server, bytes: &[u8]) -> Received {
    let mut line = Line::open(server, &[]).await.unwrap_or_else(|answer| panic!("{answer:?}"));
    let _ = line.raw(bytes).await;
    line.closed().await
}

fn code(end: &Received) -> Option<u16> {
    match end {
        Received::Close(code, _) => Some(*code),
        _ => None,
    }
}

#[tokio::test]
async fn what_is_not_web_socket_is_closed_with_the_right_code() {
    let server = server().await;
    let masked = |first: u8, length: u8| vec![first, 0x80 | length, 0, 0, 0, 0];
    let with = |mut head: Vec<u8>, payload: &[u8]| {
        head.extend_from_slice(payload);
        head
    };
    // Not masked.
    assert_eq!(code(&after(&server, &[0x81, 2, b'{', b'}']).await), Some(1002));
    // A length of 2⁶³, and one above the limit.
    let mut long = vec![0x81, 0xff];
    long.extend_from_slice(&(1u64 << 63).to_be_bytes());
    long.extend_from_slice(&[0, 0, 0, 0]);
    assert_eq!(code(&after(&server, &long).await), Some(1009));
    let mut long = vec![0x81, 0xff];
    long.extend_from_slice(&(600 * 1024u64).to_be_bytes());
    long.extend_from_slice(&[0, 0, 0, 0]);
    assert_eq!(code(&after(&server, &long).await), Some(1009));
    // Text that isn't UTF-8; binary.
    assert_eq!(code(&after(&server, &with(masked(0x81, 2), &[0xc3, 0x28])).await), Some(1007));
    assert_eq!(code(&after(&server, &with(masked(0x82, 2), b"{}")).await), Some(1003));
    // A ping of 126 bytes, one in two parts.
    let ping = with(vec![0x89, 0xfe, 0, 126, 0, 0, 0, 0], &[0; 126]);
    assert_eq!(code(&after(&server, &ping).await), Some(1002));
    assert_eq!(code(&after(&server, &masked(0x09, 0)).await), Some(1002));
    // Reserved bits, an unknown opcode, a continuation of nothing, a message within another.
    assert_eq!(code(&after(&server, &masked(0xb1, 0)).await), Some(1002));
    assert!(matches!(code(&after(&server, &masked(0x83, 0)).await), Some(1002 | 1003)));
    assert_eq!(code(&after(&server, &masked(0x80, 0)).await), Some(1002));
    let twice = [masked(0x01, 0), masked(0x81, 0)].concat();
    assert_eq!(code(&after(&server, &twice).await), Some(1002));
    // Compressed without having agreed on it.
    assert_eq!(code(&after(&server, &with(masked(0xc1, 2), b"{}")).await), Some(1002));
}

#[tokio::test]
async fn what_is_not_a_frame_of_the_protocol_is_closed_as_such() {
    let server = server().await;
    let alice = server.register("alice").await;
    for text in [
        "",
        "not JSON",
        "[]",
        r#"["ping",null,null]"#,
        "{}",
        r#"{"method":5}"#,
        r#"{"method":"send"}"#,
        r#"{"id":7,"method":"send"}"#,
        &json!({ "id": "i".repeat(256), "method": "send" }).to_string(),
        r#"{"method":"ack","params":{"pos":7}}"#,
        &"[".repeat(100_000),
        &format!(r#"{{"method":"ping","params":{}{}}}"#, "[".repeat(50_000), "]".repeat(50_000)),
    ] {
        let mut client = Client::ready(&server, &alice).await;
        client.line.text(text).await;
        assert_eq!(code(&client.line.closed().await), Some(4002), "{}", &text[..text.len().min(40)]);
    }
}

#[tokio::test]
async fn content_that_is_nested_without_end_is_an_error_of_its_request() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = room(&alice, &[]).await;
    let mut client = Client::ready(&server, &alice).await;
    let deep = format!("{}{}", r#"{"a":"#.repeat(50_000), "1".to_owned() + &"}".repeat(50_000));
    let frame = format!(
        r#"{{"id":"deep","method":"send","params":{{"room_id":"{room}","type":"m","content":{deep}}}}}"#
    );
    client.line.text(&frame).await;
    let error = client.answer("deep").await.expect_err("too deep");
    assert!(matches!(error["errcode"].as_str(), Some("M_BAD_JSON" | "M_NOT_JSON")), "{error}");
}

#[tokio::test]
async fn a_message_without_end_is_cut_off() {
    let server = server().await;
    let mut line = Line::open(&server, &[]).await.unwrap_or_else(|answer| panic!("{answer:?}"));
    let before = most_resident(&server);
    line.write(0x01, b"{").await.expect("a line");
    let part = vec![b' '; 60_000];
    let mut end = None;
    // More than the server may grow by.
    for _ in 0..2_000 {
        if line.write(0x00, &part).await.is_err() {
            break;
        }
        let read = tokio::time::timeout(std::time::Duration::from_millis(1), line.receive()).await;
        if let Ok(received @ (Received::Close(..) | Received::Eof)) = read {
            end = Some(received);
            break;
        }
    }
    let end = match end {
        Some(end) => end,
        None => line.closed().await,
    };
    assert_eq!(code(&end), Some(1009), "{end:?}");
    let grown = most_resident(&server).saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB more for one message");
}

#[tokio::test]
async fn who_is_still_writing_a_frame_that_is_too_large_gets_to_read_why_it_is_closed() {
    let server = server().await;
    let mut line = Line::open(&server, &[]).await.unwrap_or_else(|answer| panic!("{answer:?}"));
    let mut head = vec![0x81, 0xff];
    head.extend_from_slice(&(4 * 1024 * 1024u64).to_be_bytes());
    head.extend_from_slice(&[0, 0, 0, 0]);
    line.raw(&head).await.expect("a line");
    for _ in 0..1024 {
        line.raw(&[b' '; 4096]).await.expect("the line is whole until the frame is");
    }
    assert_eq!(code(&line.closed().await), Some(1009));
}

#[tokio::test]
async fn a_small_message_that_inflates_to_a_large_one_is_cut_off() {
    let server = server().await;
    let offer = [("Sec-WebSocket-Extensions", "permessage-deflate")];
    let mut client = Client::open_with(&server, &offer).await;
    let bomb = deflate(&vec![b' '; 100 * 1024 * 1024]);
    assert!(bomb.len() < 512 * 1024, "{} bytes", bomb.len());
    let before = most_resident(&server);
    client.line.write(0xc1, &bomb).await.expect("a line");
    assert_eq!(code(&client.line.closed().await), Some(1009));
    let grown = most_resident(&server).saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB more for one message");

    let mut client = Client::open_with(&server, &offer).await;
    client.line.write(0xc1, b"this is not deflated").await.expect("a line");
    assert_eq!(code(&client.line.closed().await), Some(1007));
}

#[tokio::test]
async fn floods_are_ended_with_when_to_come_back() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = room(&alice, &[&bob]).await;
    let mut bystander = Client::ready(&server, &bob).await;
    let before = most_resident(&server);
    // Pings of the protocol and of WebSocket.
    for first in [0x81, 0x89] {
        let mut client = Client::ready(&server, &alice).await;
        let payload: &[u8] = if first == 0x81 { br#"{"method":"ping"}"# } else { b"ping" };
        for _ in 0..20_000 {
            if client.line.write(first, payload).await.is_err() {
                break;
            }
        }
        let end = client.line.closed().await;
        match end {
            Received::Close(4010, reason) => assert!(reason.parse::<u64>().is_ok(), "{reason}"),
            // The line broke before it was read.
            Received::Eof => {}
            other => panic!("{other:?}"),
        }
    }
    // Methods that don't exist.
    let mut client = Client::ready(&server, &alice).await;
    for count in 0..40 {
        client.line.text(&format!(r#"{{"id":"{count}","method":"dance"}}"#)).await;
    }
    assert_eq!(code(&client.line.closed().await), Some(4001));
    let grown = most_resident(&server).saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB more");
    alice.send_text(&room, "still here").await;
    let told = |body: &Value| texts(body, &room).pop();
    assert_eq!(bystander.sync_with(told).await, "still here");
}

#[tokio::test]
async fn positions_that_were_not_sent_can_not_be_acknowledged() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = room(&alice, &[&bob]).await;
    let old = Client::ready(&server, &bob).await.pos.expect("a position");
    let mut other = Client::ready(&server, &bob).await;
    alice.send_text(&room, "something").await;
    other.sync().await;
    // An older one is harmless.
    other.line.text(&json!({ "method": "ack", "params": { "pos": old } }).to_string()).await;
    other.hears_nothing_of(&room).await;

    let mut parts: Vec<u64> = old[1..].split('_').map(|part| part.parse().expect("a number")).collect();
    parts[1] += 1_000_000;
    let future = format!("s{}_{}_{}_{}", parts[0], parts[1], parts[2], parts[3]);
    for pos in [future.as_str(), "nonsense", "r1", "s1_1_1_1"] {
        let mut client = Client::ready(&server, &bob).await;
        client.line.text(&json!({ "method": "ack", "params": { "pos": pos } }).to_string()).await;
        assert_eq!(code(&client.line.closed().await), Some(4002), "{pos}");
    }
    // What another user has been sent lies ahead of what this one has.
    let mut behind = Client::ready(&server, &alice).await;
    behind.acks = false;
    let mut ahead = Client::ready(&server, &bob).await;
    bob.put(&format!("/v3/user/{}/account_data/org.example", bob.user_id), json!({})).await.expect(200);
    ahead.sync().await;
    behind.line.text(&json!({ "method": "ack", "params": { "pos": ahead.pos } }).to_string()).await;
    assert_eq!(code(&behind.line.closed().await), Some(4002));
}

#[tokio::test]
async fn a_foreign_page_gets_nothing_without_a_token() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = room(&alice, &[]).await;
    let headers = [("Origin", "https://evil.example"), ("Cookie", "access_token=nothing")];
    let mut client = Client::open_with(&server, &headers).await;
    let error = client.request("send", text(&room, "hello")).await.expect_err("no token");
    assert_eq!(error["errcode"], "M_INVALID_PARAM");
}
