//! The stream's socket: a first byte that says how to read the rest. Even: bytes as they come from the wire. Odd: a text frame
//! a line, masked as a client masks it.
//!
//! Whatever comes, the server's own frames are right: whole, unmasked, JSON, and a close that isn't because the server failed.

use std::time::Duration;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
    time::timeout,
};

use crate::world::{World, within};

/// How long the server may take to end on a busy machine. It says goodbye for a second at most.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn run(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    within(async |world| {
        let bytes = if first % 2 == 0 { rest.to_vec() } else { frames(world, rest) };
        speak(world, &bytes).await;
        world.is_whole().await
    });
}

fn frames(world: &World, rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in rest.split(|byte| *byte == b'\n').take(64) {
        let text = match std::str::from_utf8(line) {
            Ok(text) => world.filled(text, str::to_owned).into_bytes(),
            Err(_) => line.to_vec(),
        };
        bytes.push(0x81);
        match text.len() {
            length @ 0..126 => bytes.push(0x80 | length as u8),
            length => {
                bytes.push(0xfe);
                bytes.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
            }
        }
        let mask = [1, 2, 3, 4];
        bytes.extend(mask);
        bytes.extend(text.iter().take(65_535).zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
    bytes
}

async fn speak(world: &World, bytes: &[u8]) {
    let (mut ours, theirs) = duplex(64 * 1024);
    world.server.stream(theirs).expect("there is room for a socket");
    // Whoever is closed amid their words hears why.
    let _ = timeout(PATIENCE, ours.write_all(bytes)).await;
    let _ = ours.shutdown().await;
    let mut heard = Vec::new();
    let ended = timeout(PATIENCE, ours.read_to_end(&mut heard)).await;
    assert!(ended.is_ok(), "the server holds a socket whose client is gone");
    check(&heard);
}

/// The length of a payload, and what follows it.
fn length_of(length: u8, rest: &[u8]) -> Option<(usize, &[u8])> {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte));
    match length {
        126 => rest.split_at_checked(2).map(|(length, rest)| (number(length), rest)),
        127 => rest.split_at_checked(8).map(|(length, rest)| (number(length), rest)),
        length => Some((usize::from(length), rest)),
    }
}

/// The frames of a server (RFC 6455, 5.2). The last may be cut short.
fn check(mut bytes: &[u8]) {
    let mut hello = false;
    while let [head, length, rest @ ..] = bytes {
        assert_eq!(head & 0xf0, 0x80, "a whole frame, without extensions");
        assert_eq!(length & 0x80, 0, "servers don't mask");
        let Some((length, rest)) = length_of(*length, rest) else { return };
        let Some((payload, rest)) = rest.split_at_checked(length) else { return };
        bytes = rest;
        match head & 0x0f {
            1 => {
                let frame: Value = serde_json::from_slice(payload).expect("frames are JSON");
                assert!(frame.is_object());
                assert!(hello || frame["type"] == "hello", "{frame}");
                hello = true;
                let error = &frame["error"];
                assert!(
                    error.is_null() || (error["errcode"].is_string() && error["errcode"] != "M_UNKNOWN"),
                    "{frame}"
                );
            }
            8 => {
                let [a, b, reason @ ..] = payload else { panic!("a close without a code") };
                let code = u16::from_be_bytes([*a, *b]);
                let reason = std::str::from_utf8(reason).expect("reasons are text");
                // A client that closes hears its own code.
                assert!(
                    (1000..5000).contains(&code) && !reason.starts_with("the server failed"),
                    "{code}: {reason}"
                );
            }
            10 => assert!(length <= 125),
            other => panic!("a frame of kind {other}"),
        }
    }
}
