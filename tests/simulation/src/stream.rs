//! A device that reads by the stream (`api-spec/stream.md`): a socket that stays open, though now and then nobody reads it,
//! until it is cut with what is on its way, the server closes it, or the server's life ends. Then it goes on, on another
//! one, from the position that it has.

use std::time::Duration;

use rand::{RngExt as _, seq::IndexedRandom as _};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    client::LONGEST,
    device::{Device, text},
    trace::{self, note},
};

/// What a server has for a device is there within this time.
const QUIET: Duration = Duration::from_secs(10);
/// How many frames are read without being away in between.
const AT_ONCE: usize = 20;

/// An open socket.
pub(crate) struct Line {
    io: DuplexStream,
    /// Of the server's life.
    ends: watch::Receiver<u64>,
    /// What was read, from the first frame on that wasn't heard.
    read: Vec<u8>,
    opened: u64,
}

enum Heard {
    Frame(Value),
    /// With code and reason.
    Closed(u16, String),
    Lost,
}

/// The first frame of a server (RFC 6455, 5.2), if all of it is there: its kind, its payload, and how long it is.
fn first(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte));
    let (head, length) = (*bytes.first()?, *bytes.get(1)?);
    let (start, length) = match length {
        126 => (4, number(bytes.get(2..4)?)),
        127 => (10, number(bytes.get(2..10)?)),
        length => (2, usize::from(length)),
    };
    let payload = bytes.get(start..start + length)?;
    Some((head & 0x0f, payload, start + length))
}

impl Line {
    /// Whoever drops the future loses nothing.
    async fn next(&mut self) -> Heard {
        loop {
            if let Some((kind, payload, length)) = first(&self.read) {
                let heard = match kind {
                    1 => Some(Heard::Frame(serde_json::from_slice(payload).unwrap_or_default())),
                    8 => {
                        let (code, reason) = payload.split_at_checked(2).unwrap_or_default();
                        let code = code.iter().fold(0, |code, byte| code << 8 | u16::from(*byte));
                        Some(Heard::Closed(code, String::from_utf8_lossy(reason).into_owned()))
                    }
                    _ => None,
                };
                self.read.drain(..length);
                if let Some(heard) = heard {
                    return heard;
                }
                continue;
            }
            let read = tokio::select! {
                biased;
                _ = self.ends.changed() => return Heard::Lost,
                read = self.io.read_buf(&mut self.read) => read,
            };
            if !read.is_ok_and(|length| length > 0) {
                return Heard::Lost;
            }
        }
    }

    /// Writes a frame. If nobody takes it, the line is lost, which is heard of next.
    async fn say(&mut self, frame: &Value) {
        let text = frame.to_string().into_bytes();
        let mut bytes = vec![0x81];
        match text.len() {
            length @ 0..126 => bytes.push(0x80 | length as u8),
            length => {
                bytes.push(0xfe);
                bytes.extend((length as u16).to_be_bytes());
            }
        }
        let mask = [1, 2, 3, 4];
        bytes.extend(mask);
        bytes.extend(text.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        let _ = timeout(LONGEST, self.io.write_all(&bytes)).await;
    }
}

impl Device {
    /// Reads what there is, for about so long; whether there may be more.
    pub(crate) async fn follow(&mut self, wait: u64) -> bool {
        let mut line = match self.line.take() {
            Some(_) if self.client.is_unlucky() => {
                note!("{} loses its socket", self.client.who);
                return true;
            }
            Some(line) => line,
            None => {
                self.line = self.open().await;
                return true;
            }
        };
        for _ in 0..AT_ONCE {
            let Ok(heard) = timeout(QUIET.max(Duration::from_millis(wait)), line.next()).await else {
                self.line = Some(line);
                return false;
            };
            let pause = self.client.some(15);
            sleep(pause).await;
            match heard {
                Heard::Lost => return true,
                Heard::Closed(code, reason) => {
                    self.closed(&line, code, &reason);
                    return true;
                }
                Heard::Frame(frame) if frame["type"] == "sync" => {
                    self.take_frame(&frame).await;
                    if self.chance.random_range(0..3) > 0 {
                        line.say(&json!({ "method": "ack", "params": { "pos": self.since } })).await;
                    }
                }
                Heard::Frame(frame) if frame["method"] == "ping" => {
                    line.say(&json!({ "method": "pong" })).await;
                }
                Heard::Frame(_) => {}
            }
        }
        self.line = Some(line);
        true
    }

    async fn take_frame(&mut self, frame: &Value) {
        let (from, to) = (frame["from"].as_str(), text(&frame["to"]));
        note!("{} has a sync to {to}", self.client.who);
        if from != self.since.as_deref() {
            self.wrong(&format!("I5: a sync from {from:?}, where {:?} is had", self.since));
        }
        self.take(&frame["body"]).await;
        if self.since.as_deref() != Some(&*to) {
            self.wrong(&format!("a sync to {to} that goes on at {:?}", self.since));
        }
    }

    /// A socket on which the server knows whose it is, and from where it is to go on.
    async fn open(&mut self) -> Option<Line> {
        let pause = self.client.some(15);
        sleep(pause).await;
        let Some((io, ends)) = self.client.host.stream() else {
            let pause = self.client.some(1000);
            sleep(pause).await;
            return None;
        };
        let mut line = Line { io, ends, read: Vec::new(), opened: trace::now() };
        let limit = [1, 2, 5, 10, 50].choose(&mut self.chance).copied().unwrap_or(10);
        let mut params = json!({
            "access_token": self.client.token, "use_state_after": true,
            "filter": { "room": { "timeline": { "limit": limit } } },
        });
        if let Some(since) = &self.since {
            params["since"] = json!(since);
        }
        note!("{} opens a socket from {:?}", self.client.who, self.since);
        line.say(&json!({ "id": "1", "method": "auth", "params": params })).await;
        if self.client.is_unlucky() {
            let patience = self.client.some(2000);
            sleep(patience).await;
            return None;
        }
        loop {
            let Ok(heard) = timeout(LONGEST, line.next()).await else {
                self.wrong(&format!("no answer for {LONGEST:?} to whoever says who they are"));
                return None;
            };
            match heard {
                Heard::Lost => return None,
                Heard::Closed(code, reason) => {
                    self.closed(&line, code, &reason);
                    return None;
                }
                Heard::Frame(frame) if frame["id"] == "1" => return self.opened(line, &frame),
                Heard::Frame(_) => {}
            }
        }
    }

    fn opened(&self, line: Line, answer: &Value) -> Option<Line> {
        let Some(result) = answer.get("result") else {
            if answer["error"]["errcode"] != "M_UNKNOWN" || !self.client.host.may_fail(line.opened) {
                self.wrong(&format!("a socket is refused: {answer}"));
            }
            return None;
        };
        if result["pos"].as_str() != self.since.as_deref() {
            self.wrong(&format!("I5: a socket that was to go on at {:?} does so at {result}", self.since));
        }
        Some(line)
    }

    fn closed(&self, line: &Line, code: u16, reason: &str) {
        note!("the socket of {} is closed: {code} {reason}", self.client.who);
        match code {
            // It was slow, or the server stops.
            4008 | 4011 => {}
            4000 if self.client.host.may_fail(line.opened) => {}
            _ => self.wrong(&format!("its socket is closed: {code} {reason}")),
        }
    }
}
