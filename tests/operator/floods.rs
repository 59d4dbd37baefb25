//! Connections that are meant to cost more than they took to send: of HTTP/2 resets, headers and pings without end, and
//! greetings of TLS that never come. They end; others don't notice; memory stays what it is.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use super::tls::{Pair, Secured};
use crate::common::{PATIENCE, eventually};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames (RFC 9113, 6).
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `GET` of a path, as headers that are compressed with the static table alone (RFC 7541).
fn get(path: &str) -> Vec<u8> {
    let mut headers = vec![0x82, 0x87, 0x04, path.len() as u8];
    headers.extend(path.as_bytes());
    headers.extend([0x01, 9]);
    headers.extend(b"localhost");
    headers
}

/// One connection of HTTP/2, of which the test writes every frame.
struct Line(TlsStream<TcpStream>);

impl Line {
    async fn open(secured: &Secured, pair: &Pair) -> Self {
        let mut stream = secured.connect(pair, &[b"h2"]).await.unwrap();
        stream.write_all(PREFACE).await.unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        Self(stream)
    }

    /// Writes until the other end takes no more. Returns whether it took all.
    async fn pour(&mut self, parts: impl IntoIterator<Item = Vec<u8>>) -> bool {
        for part in parts {
            match timeout(Duration::from_secs(3), self.0.write_all(&part)).await {
                Ok(Ok(())) => {}
                _ => return false,
            }
        }
        timeout(Duration::from_secs(3), self.0.flush()).await.is_ok_and(|flushed| flushed.is_ok())
    }

    /// The code with which the other end goes away; `None` if it just closes.
    async fn goes_away(&mut self) -> Option<u32> {
        let mut read = Vec::new();
        loop {
            while read.len() >= 9 {
                let length = u32::from_be_bytes([0, read[0], read[1], read[2]]) as usize;
                if read.len() < 9 + length {
                    break;
                }
                if read[3] == GOAWAY {
                    return Some(u32::from_be_bytes(read[13..17].try_into().unwrap()));
                }
                read.drain(..9 + length);
            }
            let more =
                timeout(PATIENCE, self.0.read_buf(&mut read)).await.expect("it neither answers nor closes");
            if more.ok().is_none_or(|length| length == 0) {
                return None;
            }
        }
    }
}

/// KiB of memory that the server has had at its most.
fn most_resident(secured: &Secured) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", secured.server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

async fn others_are_answered(secured: &Secured) {
    secured.server.http().get("/_matrix/client/versions", None).await.expect(200);
}

#[tokio::test]
async fn requests_that_are_taken_back_at_once_end_their_connection() {
    let pair = Pair::new();
    let secured = Secured::start(&pair).await;
    others_are_answered(&secured).await;
    let before = most_resident(&secured);
    let mut line = Line::open(&secured, &pair).await;
    let headers = get("/_matrix/client/versions");
    let requests = (0..50_000).map(|number| {
        let stream = 2 * number + 1;
        let mut request = frame(HEADERS, END_STREAM | END_HEADERS, stream, &headers);
        request.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        request
    });
    let requests: Vec<Vec<u8>> = requests.collect();
    // These are few enough for the buffers between the two: whether all could be written says nothing.
    line.pour(requests.chunks(100).map(<[Vec<u8>]>::concat)).await;
    let end = line.goes_away().await;
    assert!(matches!(end, Some(ENHANCE_YOUR_CALM) | None), "{end:?}");
    others_are_answered(&secured).await;
    let grown = most_resident(&secured).saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB more");
}

#[tokio::test]
async fn headers_that_go_on_for_ever_end_their_connection() {
    let pair = Pair::new();
    let secured = Secured::start(&pair).await;
    others_are_answered(&secured).await;
    let before = most_resident(&secured);
    let mut line = Line::open(&secured, &pair).await;
    // A header whose name and value are literals; never the last.
    let mut more = vec![0x00, 1, b'x', 0x7f, 0x81, 0x7d];
    more.resize(16_000, b'y');
    let begin = std::iter::once(frame(HEADERS, 0, 1, &get("/_matrix/client/versions")));
    let more = (0..4_000).map(|_| frame(CONTINUATION, 0, 1, &more));
    let took_all = line.pour(begin.chain(more)).await;
    let end = line.goes_away().await;
    assert!(!took_all && end != Some(0), "took all: {took_all}, {end:?}");
    others_are_answered(&secured).await;
    let grown = most_resident(&secured).saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more");
}

/// A client that doesn't read what it asked for isn't read either.
#[tokio::test]
async fn pings_and_settings_whose_answers_nobody_reads_pile_up_nowhere() {
    let pair = Pair::new();
    let secured = Secured::start(&pair).await;
    others_are_answered(&secured).await;
    let before = most_resident(&secured);
    for flood in [frame(PING, 0, 0, b"pingping"), frame(SETTINGS, 0, 0, &[])] {
        let mut line = Line::open(&secured, &pair).await;
        let flood = flood.repeat(10_000);
        line.pour((0..300).map(|_| flood.clone())).await;
        others_are_answered(&secured).await;
        let grown = most_resident(&secured).saturating_sub(before);
        assert!(grown < 32 * 1024, "{grown} KiB more");
    }
}

#[tokio::test]
async fn whoever_never_greets_is_not_waited_for() {
    let pair = Pair::new();
    let secured = Secured::start(&pair).await;
    // Nothing, and the beginning of a greeting.
    for begin in [&[][..], &[0x16, 3, 1, 2]] {
        let mut stream = TcpStream::connect(("127.0.0.1", secured.port)).await.unwrap();
        stream.write_all(begin).await.unwrap();
        let mut rest = Vec::new();
        let ended = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "it is still open after {begin:?}");
    }
}

/// Neither when the server is to stop, nor who has greeted and then asks for nothing.
#[tokio::test]
async fn whoever_asks_for_nothing_keeps_no_server_from_its_end() {
    let pair = Pair::new();
    let mut secured = Secured::start(&pair).await;
    let mut begun = Vec::new();
    for greeting in [&[][..], &[0x16, 3, 1, 2]] {
        let mut stream = TcpStream::connect(("127.0.0.1", secured.port)).await.unwrap();
        stream.write_all(greeting).await.unwrap();
        begun.push(stream);
    }
    let mut greeted = secured.connect(&pair, &[b"h2"]).await.unwrap();
    greeted.write_all(&PREFACE[..10]).await.unwrap();
    let http = secured.server.http().clone();
    eventually("the server has all of them", || async {
        let metrics = http.get("/metrics", None).await.text();
        metrics.contains("hearth_http_connections 4").then_some(())
    })
    .await;
    secured.server.stop().await;
    assert!(!secured.server.log().contains("cut off"), "{}", secured.server.log());
}
