//! A client of the stream, and below it a WebSocket that can be made to misbehave. Every well-formed frame in either
//! direction is held against its JSON Schema, and every sync against the one before.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::LazyLock,
};

use flate2::{Decompress, FlushDecompress};
use jsonschema::Validator;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::common::{PATIENCE, Server, User};

pub(crate) const PATH: &str = "/_matrix/client/unstable/hearth/v1/stream";

static SCHEMAS: LazyLock<BTreeMap<String, Validator>> = LazyLock::new(|| {
    let folder = std::fs::read_dir("api-spec/stream").expect("the schemas are in the repository");
    let schemas = folder.map(|file| {
        let path = file.expect("a file").path();
        let schema: Value = serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("JSON");
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        (name, jsonschema::validator_for(&schema).expect("a JSON Schema"))
    });
    schemas.collect()
});

/// That a frame is as a schema says.
#[track_caller]
fn check(frame: &Value, schema: &str) {
    let schema = SCHEMAS.get(schema).unwrap_or_else(|| panic!("no schema for {frame}"));
    if let Err(cause) = schema.validate(frame) {
        panic!("{cause}: {frame}");
    }
}

/// What came over the line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Received {
    Frame(Value),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(u16, String),
    /// The line is down.
    Eof,
}

/// A WebSocket as RFC 6455 has it, seen from the client.
pub(crate) struct Line {
    stream: TcpStream,
    /// Bytes that were read ahead.
    read: Vec<u8>,
    pub(crate) deflate: bool,
    /// How many messages came compressed, and how many not.
    pub(crate) compressed: (usize, usize),
    /// The methods of requests, by their ids.
    pub(crate) asked: HashMap<String, String>,
}

impl Line {
    /// The handshake with these headers besides the needed ones. An answer other than 101 is given as (status, body).
    pub(crate) async fn open(server: &Server, more: &[(&str, &str)]) -> Result<Self, (u16, Value)> {
        Self::open_at(server, PATH, more).await
    }

    pub(crate) async fn open_at(
        server: &Server,
        path: &str,
        more: &[(&str, &str)],
    ) -> Result<Self, (u16, Value)> {
        // They take a while to be read, which the server is not to see as silence.
        LazyLock::force(&SCHEMAS);
        let stream = TcpStream::connect(("127.0.0.1", server.port())).await.expect("an open port");
        Self::shake_hands(stream, path, more).await.expect("an answer")
    }

    /// The handshake over a connection. `None` if it breaks.
    async fn shake_hands(
        mut stream: TcpStream,
        path: &str,
        more: &[(&str, &str)],
    ) -> Option<Result<Self, (u16, Value)>> {
        stream.set_nodelay(true).ok()?;
        let mut headers: Vec<(&str, &str)> = vec![
            ("Host", "localhost"),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Protocol", "hearth.v1.json"),
        ];
        for (name, value) in more {
            headers.retain(|(known, _)| known != name);
            headers.push((name, value));
        }
        let headers = headers.iter().filter(|(_, value)| !value.is_empty());
        let headers = headers.fold(String::new(), |all, (name, value)| all + name + ": " + value + "\r\n");
        stream.write_all(format!("GET {path} HTTP/1.1\r\n{headers}\r\n").as_bytes()).await.ok()?;
        let mut read = Vec::new();
        let head = loop {
            if let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let rest = read.split_off(end + 4);
                break String::from_utf8(std::mem::replace(&mut read, rest)).expect("text");
            }
            let more = timeout(PATIENCE, stream.read_buf(&mut read)).await.expect("an answer");
            more.ok().filter(|length| *length > 0)?;
        };
        let status: u16 = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        if status != 101 {
            let lower = head.to_ascii_lowercase();
            let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
            let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
            while read.len() < length {
                timeout(PATIENCE, stream.read_buf(&mut read)).await.expect("a body").ok()?;
            }
            return Some(Err((status, serde_json::from_slice(&read).unwrap_or_default())));
        }
        let lower = head.to_ascii_lowercase();
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "the key's answer (RFC 6455, 1.3): {head}");
        assert!(lower.contains("sec-websocket-protocol: hearth.v1.json"), "{head}");
        let deflate = lower.contains("permessage-deflate");
        if deflate {
            assert!(lower.contains("server_no_context_takeover"), "{head}");
            assert!(lower.contains("client_no_context_takeover"), "{head}");
        }
        Some(Ok(Self { stream, read, deflate, compressed: (0, 0), asked: HashMap::new() }))
    }

    /// One frame of any kind, masked.
    pub(crate) async fn write(&mut self, first: u8, payload: &[u8]) -> std::io::Result<()> {
        let mask = [7, 11, 13, 17];
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..126 => frame.push(0x80 | length as u8),
            length @ 126..65_536 => {
                frame.push(0xfe);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                frame.push(0xff);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
        self.stream.write_all(&frame).await
    }

    pub(crate) async fn raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    pub(crate) async fn text(&mut self, text: &str) {
        // If the server has closed it already, reading will say why.
        let _ = self.write(0x81, text.as_bytes()).await;
    }

    async fn fill(&mut self, length: usize) -> bool {
        while self.read.len() < length {
            match self.stream.read_buf(&mut self.read).await {
                Ok(0) | Err(_) => return false,
                Ok(_) => {}
            }
        }
        true
    }

    /// The next message. Waits for it as long as it takes.
    pub(crate) async fn receive(&mut self) -> Received {
        if !self.fill(2).await {
            return Received::Eof;
        }
        assert_eq!(self.read[1] & 0x80, 0, "a server's frames are not masked");
        let (head, length) = match self.read[1] {
            126 => {
                if !self.fill(4).await {
                    return Received::Eof;
                }
                (4, usize::from(u16::from_be_bytes([self.read[2], self.read[3]])))
            }
            127 => {
                if !self.fill(10).await {
                    return Received::Eof;
                }
                let length: [u8; 8] = self.read[2..10].try_into().expect("eight bytes");
                (10, u64::from_be_bytes(length) as usize)
            }
            length => (2, usize::from(length)),
        };
        if !self.fill(head + length).await {
            return Received::Eof;
        }
        let first = self.read[0];
        let mut payload = self.read.split_off(head);
        self.read = payload.split_off(length);
        match first & 0x0f {
            1 => {
                assert_eq!(first & 0x80, 0x80, "messages come in one frame");
                if first & 0x40 != 0 {
                    assert!(self.deflate, "compression was not agreed on");
                    self.compressed.0 += 1;
                    payload = inflate(&payload);
                } else {
                    self.compressed.1 += 1;
                }
                let frame: Value = serde_json::from_slice(&payload).expect("frames are JSON");
                check(&frame, &self.schema_of(&frame));
                Received::Frame(frame)
            }
            8 if payload.len() >= 2 => {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                Received::Close(code, String::from_utf8(payload[2..].to_vec()).expect("a reason in UTF-8"))
            }
            8 => Received::Close(1005, String::new()),
            9 => Received::Ping(payload),
            10 => Received::Pong(payload),
            opcode => panic!("a frame with opcode {opcode}"),
        }
    }

    /// The name of the schema of a frame that came.
    fn schema_of(&self, frame: &Value) -> String {
        match (frame["type"].as_str(), frame["method"].as_str()) {
            (Some(kind), None) => kind.to_owned(),
            (None, Some(method)) => method.to_owned(),
            _ if frame.get("error").is_some() => "error".to_owned(),
            _ => {
                let method = frame["id"].as_str().and_then(|id| self.asked.get(id));
                let own = format!("result-{}", method.unwrap_or_else(|| panic!("nobody asked for {frame}")));
                if SCHEMAS.contains_key(&own) { own } else { "result".to_owned() }
            }
        }
    }

    /// The next message, which has to come.
    pub(crate) async fn next(&mut self) -> Received {
        timeout(PATIENCE, self.receive()).await.expect("a message of the server")
    }

    /// How the server ends the socket, whatever it says before.
    pub(crate) async fn closed(&mut self) -> Received {
        loop {
            if let end @ (Received::Close(..) | Received::Eof) = self.next().await {
                return end;
            }
        }
    }
}

fn inflate(payload: &[u8]) -> Vec<u8> {
    let mut input = payload.to_vec();
    input.extend_from_slice(&[0, 0, 0xff, 0xff]);
    let mut output = Vec::with_capacity(input.len() * 20 + 1024);
    let mut inflate = Decompress::new(false);
    inflate.decompress_vec(&input, &mut output, FlushDecompress::Sync).expect("deflated data");
    assert!(inflate.total_in() == input.len() as u64, "the buffer was too small");
    output
}

/// A client that does as `api-spec/stream.md` says.
pub(crate) struct Client {
    pub(crate) line: Line,
    /// Its position; `None` before its first sync.
    pub(crate) pos: Option<String>,
    /// Syncs that came while it waited for something else.
    syncs: VecDeque<Value>,
    next_id: usize,
    /// Whether it acknowledges each sync.
    pub(crate) acks: bool,
}

impl Client {
    /// Opens a socket and reads its greeting.
    pub(crate) async fn open(server: &Server) -> Self {
        Self::open_with(server, &[]).await
    }

    pub(crate) async fn open_with(server: &Server, headers: &[(&str, &str)]) -> Self {
        let mut line = Line::open(server, headers).await.unwrap_or_else(|answer| panic!("{answer:?}"));
        match line.next().await {
            Received::Frame(hello) => assert_eq!(hello["type"], "hello", "{hello}"),
            other => panic!("{other:?}"),
        }
        Self { line, pos: None, syncs: VecDeque::new(), next_id: 0, acks: true }
    }

    /// A socket that goes on from a position, at a port whose server may be gone. `None` if it breaks before it is ready.
    pub(crate) async fn try_resume(port: u16, user: &User, since: Option<&str>) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let line = Line::shake_hands(stream, PATH, &[]).await?.ok()?;
        let pos = since.map(str::to_owned);
        let mut client = Self { line, pos, syncs: VecDeque::new(), next_id: 0, acks: true };
        let params = match since {
            Some(since) => json!({ "access_token": user.access_token, "since": since }),
            None => json!({ "access_token": user.access_token }),
        };
        let id = client.begin("auth", params).await;
        client.try_answer(&id).await?.expect("auth");
        Some(client)
    }

    /// A socket that is up to date about its user.
    pub(crate) async fn ready(server: &Server, user: &User) -> Self {
        let mut client = Self::open(server).await;
        client.auth(user, json!({})).await;
        client.sync().await;
        client
    }

    /// One that goes on from a position.
    pub(crate) async fn resumed(server: &Server, user: &User, since: &str) -> Self {
        let mut client = Self::open(server).await;
        client.auth(user, json!({ "since": since })).await;
        client
    }

    pub(crate) async fn auth(&mut self, user: &User, mut params: Value) -> Value {
        params["access_token"] = json!(user.access_token);
        self.pos = params["since"].as_str().map(str::to_owned);
        let answer = self.request("auth", params).await.expect("auth");
        assert_eq!(
            (&answer["user_id"], &answer["device_id"]),
            (&json!(user.user_id), &json!(user.device_id))
        );
        assert_eq!(answer["pos"].as_str(), self.pos.as_deref());
        answer
    }

    /// Sends a request; its id.
    pub(crate) async fn begin(&mut self, method: &str, params: Value) -> String {
        self.next_id += 1;
        let id = self.next_id.to_string();
        self.begin_as(&id, method, params).await;
        id
    }

    pub(crate) async fn begin_as(&mut self, id: &str, method: &str, params: Value) {
        let frame = json!({ "id": id, "method": method, "params": params });
        let schema = format!("request-{method}");
        if SCHEMAS.contains_key(&schema) {
            check(&frame, &schema);
        }
        self.line.asked.insert(id.to_owned(), method.to_owned());
        self.line.text(&frame.to_string()).await;
    }

    /// A request that is not as its schema says.
    pub(crate) async fn begin_unchecked(&mut self, method: &str, params: Value) -> String {
        self.next_id += 1;
        let id = self.next_id.to_string();
        self.line.asked.insert(id.clone(), method.to_owned());
        self.line.text(&json!({ "id": id, "method": method, "params": params }).to_string()).await;
        id
    }

    /// The answer to a request.
    pub(crate) async fn answer(&mut self, id: &str) -> Result<Value, Value> {
        self.try_answer(id).await.unwrap_or_else(|| panic!("closed before the answer to {id}"))
    }

    /// The same; `None` when the socket ends before.
    pub(crate) async fn try_answer(&mut self, id: &str) -> Option<Result<Value, Value>> {
        loop {
            let mut frame = self.frame().await?;
            if frame["id"] == id {
                let error = frame["error"].take();
                return Some(if error.is_null() { Ok(frame["result"].take()) } else { Err(error) });
            }
            if frame["type"] == "sync" {
                self.syncs.push_back(frame);
            }
        }
    }

    pub(crate) async fn request(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        let id = self.begin(method, params).await;
        self.answer(&id).await
    }

    /// The next frame that isn't a heartbeat; `None` when the socket ends.
    async fn frame(&mut self) -> Option<Value> {
        loop {
            match self.line.next().await {
                Received::Frame(frame) if frame["method"] == "ping" => {
                    self.line.text(r#"{"method":"pong"}"#).await;
                }
                Received::Frame(frame) if frame["method"] == "pong" => {}
                Received::Frame(frame) => return Some(frame),
                Received::Ping(_) | Received::Pong(_) => {}
                Received::Close(..) | Received::Eof => return None,
            }
        }
    }

    /// The body of the next sync; `None` when the socket ends.
    pub(crate) async fn try_sync(&mut self) -> Option<Value> {
        let frame = match self.syncs.pop_front() {
            Some(frame) => frame,
            None => loop {
                let frame = self.frame().await?;
                if frame["type"] == "sync" {
                    break frame;
                }
            },
        };
        assert_eq!(frame["from"].as_str(), self.pos.as_deref(), "contiguous");
        assert_eq!(frame["to"], frame["body"]["next_batch"]);
        self.pos = frame["to"].as_str().map(str::to_owned);
        if self.acks {
            self.ack().await;
        }
        Some(frame["body"].clone())
    }

    pub(crate) async fn sync(&mut self) -> Value {
        self.try_sync().await.expect("a sync")
    }

    /// Reads syncs until one has what is looked for.
    pub(crate) async fn sync_with<T>(&mut self, mut look: impl FnMut(&Value) -> Option<T>) -> T {
        loop {
            let body = self.sync().await;
            if let Some(found) = look(&body) {
                return found;
            }
        }
    }

    pub(crate) async fn ack(&mut self) {
        let ack = json!({ "method": "ack", "params": { "pos": self.pos } });
        check(&ack, "ack");
        self.line.text(&ack.to_string()).await;
    }

    /// Takes note of the syncs that came meanwhile: their bodies.
    pub(crate) async fn syncs_read(&mut self) -> Vec<Value> {
        let mut bodies = Vec::new();
        while !self.syncs.is_empty() {
            bodies.push(self.sync().await);
        }
        bodies
    }

    /// That no message of the room comes before the answer to a request that is made now. (That nobody types may: a server
    /// that has just started tells it for those who heard otherwise before.)
    pub(crate) async fn hears_nothing_of(&mut self, room: &str) {
        self.request("typing", json!({ "room_id": room, "typing": false })).await.expect("a request");
        let said = self.syncs.iter().flat_map(|frame| texts(&frame["body"], room));
        assert_eq!(said.collect::<Vec<_>>(), Vec::<String>::new());
    }
}

/// The bodies of a room's messages in a sync.
pub(crate) fn texts(body: &Value, room: &str) -> Vec<String> {
    let events = body["rooms"]["join"][room]["timeline"]["events"].as_array();
    let texts = events.into_iter().flatten().filter_map(|event| event["content"]["body"].as_str());
    texts.map(str::to_owned).collect()
}
