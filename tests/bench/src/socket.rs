//! One WebSocket of Hearth's stream (`api-spec/stream.md`): what a virtual user has in place of long-polls and requests.
//!
//! As lean as [`crate::connection`], and for the same reason. It acknowledges what it was sent as the stream asks, answers
//! heartbeats, and closes no gap by itself: scenarios do.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::User;

const PATH: &str = "/_matrix/client/unstable/hearth/v1/stream";

/// Nothing that a server owes takes this long.
const PATIENCE: Duration = Duration::from_mins(1);

/// Syncs that are acknowledged together.
const ACKNOWLEDGED_TOGETHER: u32 = 32;

const READ_SIZE: usize = 4096;

pub(crate) struct Socket {
    stream: TcpStream,
    incoming: Vec<u8>,
    /// Where in `incoming` the next frame begins.
    next: usize,
    outgoing: Vec<u8>,
    requests: u64,
    /// The client's position.
    pub(crate) position: String,
    unacknowledged: u32,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    to: Option<Cow<'a, str>>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

impl Socket {
    /// A socket of `user` that goes on from `since`, or from now.
    pub(crate) async fn open(address: SocketAddr, user: &User, since: Option<&str>) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut socket = Self {
            stream,
            incoming: Vec::new(),
            next: 0,
            outgoing: Vec::new(),
            requests: 0,
            position: since.unwrap_or_default().to_owned(),
            unacknowledged: 0,
        };
        let head = format!(
            "GET {PATH} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: hearth.v1.json\r\n\r\n"
        );
        socket.stream.write_all(head.as_bytes()).await?;
        loop {
            let end = socket.incoming.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            if let Some(end) = end {
                if !socket.incoming.starts_with(b"HTTP/1.1 101") {
                    bail!("no upgrade: {}", String::from_utf8_lossy(&socket.incoming));
                }
                socket.next = end + 4;
                break;
            }
            socket.fill().await?;
        }
        let mut params = json!({ "access_token": &*user.token });
        if let Some(since) = since {
            params["since"] = json!(since);
        }
        let id = socket.begin("auth", &params.to_string()).await?;
        loop {
            let Some((start, end)) = socket.receive().await? else { continue };
            let frame: Frame<'_> = serde_json::from_slice(&socket.incoming[start..end])?;
            if let Some(error) = frame.error {
                bail!("auth: {error}");
            }
            if frame.id.as_deref() == Some(&id) {
                break;
            }
        }
        if since.is_none() {
            socket.sync().await?;
        }
        Ok(socket)
    }

    /// Waits for the next sync, and gives its body.
    pub(crate) async fn sync(&mut self) -> Result<&[u8]> {
        loop {
            let Some((start, end)) = self.receive().await? else { continue };
            let frame: Frame<'_> = serde_json::from_slice(&self.incoming[start..end])?;
            if frame.kind.as_deref() != Some("sync") {
                continue;
            }
            let (body, to) = frame.body.zip(frame.to).context("a sync without a body or a position")?;
            self.position.clear();
            self.position.push_str(&to);
            let from = start + (body.get().as_ptr() as usize - self.incoming[start..].as_ptr() as usize);
            let body = from..from + body.get().len();
            self.unacknowledged += 1;
            if self.unacknowledged >= ACKNOWLEDGED_TOGETHER {
                self.acknowledge().await?;
            }
            return Ok(&self.incoming[body]);
        }
    }

    async fn acknowledge(&mut self) -> Result<()> {
        self.unacknowledged = 0;
        let frame = format!(r#"{{"method":"ack","params":{{"pos":"{}"}}}}"#, self.position);
        self.write(0x81, frame.as_bytes()).await
    }

    /// Sends a message. Returns the event's id. Syncs that come meanwhile are thrown away.
    pub(crate) async fn send(&mut self, room: &str, content: &str) -> Result<Box<str>> {
        #[derive(Deserialize)]
        struct Sent {
            event_id: Box<str>,
        }
        let params = format!(
            r#"{{"room_id":{},"type":"m.room.message","content":{content}}}"#,
            serde_json::to_string(room)?
        );
        let id = self.begin("send", &params).await?;
        loop {
            let Some((start, end)) = self.receive().await? else { continue };
            let frame: Frame<'_> = serde_json::from_slice(&self.incoming[start..end])?;
            match (frame.result, frame.error) {
                (Some(result), _) if frame.id.as_deref() == Some(&id) => {
                    return Ok(serde_json::from_str::<Sent>(result.get())?.event_id);
                }
                (_, Some(error)) => bail!("send: {error}"),
                _ => {}
            }
            if let Some(to) = frame.to {
                self.position.clear();
                self.position.push_str(&to);
                self.unacknowledged += 1;
                if self.unacknowledged >= ACKNOWLEDGED_TOGETHER {
                    self.acknowledge().await?;
                }
            }
        }
    }

    async fn begin(&mut self, method: &str, params: &str) -> Result<String> {
        self.requests += 1;
        let id = format!("b{}", self.requests);
        let frame = format!(r#"{{"id":"{id}","method":"{method}","params":{params}}}"#);
        self.write(0x81, frame.as_bytes()).await?;
        Ok(id)
    }

    async fn write(&mut self, first: u8, payload: &[u8]) -> Result<()> {
        self.outgoing.clear();
        self.outgoing.push(first);
        match payload.len() {
            length @ 0..126 => self.outgoing.push(0x80 | length as u8),
            length => {
                self.outgoing.push(0xfe);
                self.outgoing.extend_from_slice(&u16::try_from(length)?.to_be_bytes());
            }
        }
        // A mask of zeros leaves the payload as it is.
        self.outgoing.extend_from_slice(&[0; 4]);
        self.outgoing.extend_from_slice(payload);
        self.stream.write_all(&self.outgoing).await?;
        Ok(())
    }

    async fn fill(&mut self) -> Result<()> {
        if self.next > 0 {
            self.incoming.drain(..self.next);
            self.next = 0;
        }
        self.incoming.reserve(READ_SIZE);
        if self.stream.read_buf(&mut self.incoming).await? == 0 {
            bail!("the server closed the socket");
        }
        Ok(())
    }

    /// The next text frame, as a part of `incoming`; `None` for a heartbeat, which was answered. Waits as long as it takes.
    async fn receive(&mut self) -> Result<Option<(usize, usize)>> {
        let (start, end) = loop {
            if let Some(frame) = self.complete() {
                break frame;
            }
            self.fill().await?;
        };
        let first = self.incoming[self.next];
        self.next = end;
        match first & 0x0f {
            1 => {}
            8 => bail!("closed: {}", String::from_utf8_lossy(&self.incoming[start..end])),
            _ => return Ok(None),
        }
        let text = &self.incoming[start..end];
        if text.starts_with(br#"{"method""#) {
            let frame: Frame<'_> = serde_json::from_slice(text)?;
            if frame.method.as_deref() == Some("ping") {
                self.write(0x81, br#"{"method":"pong"}"#).await?;
            }
            return Ok(None);
        }
        Ok(Some((start, end)))
    }

    /// Where the payload of the frame at `next` begins and ends, if it is all there.
    fn complete(&self) -> Option<(usize, usize)> {
        let bytes = &self.incoming[self.next..];
        let (head, length) = match bytes.get(1)? {
            126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
            127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
            length => (2, usize::from(*length)),
        };
        (bytes.len() >= head + length).then_some((self.next + head, self.next + head + length))
    }

    /// Keeps the socket alive until it is dropped or fails, and acknowledges at once what little comes.
    pub(crate) async fn idle(mut self) -> Result<()> {
        loop {
            self.sync().await?;
            self.acknowledge().await?;
        }
    }

    /// The next sync, which has to come.
    pub(crate) async fn sync_in_time(&mut self) -> Result<&[u8]> {
        tokio::time::timeout(PATIENCE, self.sync()).await.context("no sync within a minute")?
    }
}
