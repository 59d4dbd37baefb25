//! The reference client of the stream in a real browser: `tests/stream-client/` in headless Chromium, over a line that drops,
//! delays and cuts. What two people saw there has to be what the room holds: everything, once, in one order.

mod common;

use common::{PATIENCE, Server, User, rounds};
use serde_json::{Value, json};
use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Once,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

/// How long a page may take for all it does.
const WHOLE_PLAY: Duration = Duration::from_mins(5);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_over_a_line_that_is_cut() {
    let ended = Arc::<AtomicUsize>::default();
    let line = Line { cuts: true, ended: Arc::clone(&ended), ..Line::default() };
    // Five seconds at least: each of the two loses two connections.
    play(line, rounds(40, 400), 125).await;
    assert!(ended.load(Ordering::SeqCst) >= 4, "the line was cut {ended:?} times");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_socket_can_be_had_sync_goes_on_from_the_same_position() {
    // Three attempts of each of the two fail; the next succeed.
    let line = Line { refused: Arc::new(AtomicUsize::new(6)), ..Line::default() };
    let statuses = play(line, 60, 250).await;
    assert!(statuses.iter().any(|status| status == "polling"), "{statuses:?}");
    assert!(statuses.iter().any(|status| status == "streaming"), "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_could_not_be_applied_comes_again() {
    let told = alone("failing", Line::default()).await;
    assert_eq!(told["texts"], json!(["first", "second"]), "{told}");
    assert_eq!(told["failed"]["since"], told["again"]["since"], "no position was taken: {told}");
    let reconnects = strings(&told["statuses"]).iter().filter(|status| *status == "connecting").count();
    assert_eq!(reconnects, 2, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_frame_can_hold_is_refused_and_the_socket_goes_on() {
    let told = alone("large", Line::default()).await;
    assert_eq!(told["errcode"], "M_TOO_LARGE", "{told}");
    assert!(told["next"].as_str().is_some_and(|id| id.starts_with('$')), "{told}");
    assert_eq!(told["statuses"], json!(["connecting", "streaming"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_connection_is_lost_goes_over_the_socket_that_came_back() {
    let (cut, cuts) = watch::channel(false);
    let line = Line { refused: Arc::new(AtomicUsize::new(3)), holds: Some(cut), ..Line::default() };
    let told = alone("lost", line).await;
    assert!(told["sent"].as_str().is_some_and(|id| id.starts_with('$')), "{told}");
    assert_eq!(told["statuses"].as_array().and_then(|all| all.last()), Some(&json!("streaming")), "{told}");
    assert!(*cuts.borrow(), "a request was held");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lines_and_servers_seldom_do_is_borne() {
    let told = report_of("cases.html", None).await;
    assert_eq!(told["wrong"], json!([]), "{told}");
    assert!(told["played"].as_u64().is_some_and(|played| played > 0), "{told}");
}

/// One person does over the line what the page calls so. Gives what the page tells of it.
async fn alone(name: &str, line: Line) -> Value {
    let server = Server::start(toml::Table::new()).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({ "preset": "private_chat" })).await;
    let query = format!("play={name}&room={}&alice={}", room.replace('!', "%21"), alice.access_token);
    perform(line, &server, &query).await
}

/// Two people talk over the line. Gives the states that both their clients went through.
async fn play(line: Line, messages: usize, pace: u64) -> Vec<String> {
    let server = Server::start(toml::Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;

    let query = format!(
        "play=talk&direct={}&room={}&alice={}&bob={}&messages={messages}&pace={pace}",
        server.url(),
        room.replace('!', "%21"),
        alice.access_token,
        bob.access_token,
    );
    let outcome = perform(line, &server, &query).await;

    let held = events_of(&alice, &room).await;
    for index in 0..2 {
        let seen = strings(&outcome["people"][index]["events"]);
        let new: Vec<_> = seen.iter().filter(|id| !held[..held.len() - 2 * messages].contains(id)).collect();
        assert_eq!(new, held[held.len() - 2 * messages..].iter().collect::<Vec<_>>(), "person {index}");
        let sent = strings(&outcome["sent"][index]);
        let own: Vec<_> = held.iter().filter(|id| sent.contains(id)).cloned().collect();
        assert_eq!(own, sent, "in the order in which they were sent");
    }
    let people = outcome["people"].as_array().expect("people");
    people.iter().flat_map(|person| strings(&person["statuses"])).collect()
}

/// Opens the page, with the line between it and the server. Gives what it reports.
async fn perform(line: Line, server: &Server, query: &str) -> Value {
    let proxy = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", proxy.local_addr().expect("an address"));
    let cut = line.holds.clone();
    tokio::spawn(line.carry(proxy, server.port()));
    report_of(&format!("page.html?base={base}&{query}"), cut).await
}

/// Opens one of the pages, and gives what it reports.
async fn report_of(page: &str, cut: Option<watch::Sender<bool>>) -> Value {
    let (reports, mut report) = mpsc::channel(1);
    let pages = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = pages.local_addr().expect("an address");
    tokio::spawn(serve(pages, reports, cut));
    let _browser = Browser::open(&format!("http://{address}/{page}"));
    let report = timeout(WHOLE_PLAY, report.recv()).await.expect("the page ends").expect("a report");
    assert!(report.get("broken").is_none(), "{report}");
    report
}

/// The ids of all of a room's events, oldest first.
async fn events_of(user: &User, room: &str) -> Vec<String> {
    let (mut ids, mut from) = (Vec::new(), String::new());
    loop {
        let page = user.get(&format!("/v3/rooms/{room}/messages?dir=f&limit=500{from}")).await.expect(200);
        ids.extend(page["chunk"].as_array().into_iter().flatten().map(|event| event["event_id"].clone()));
        match page["end"].as_str() {
            Some(end) => from = format!("&from={end}"),
            None => return strings(&Value::Array(ids)),
        }
    }
}

fn strings(list: &Value) -> Vec<String> {
    let list = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    list.iter().map(|text| text.as_str().expect("a string").to_owned()).collect()
}

/// The network between the browser and the server.
#[derive(Clone, Default)]
struct Line {
    /// Connections live for two seconds at most, delay what they carry, and end amid it.
    cuts: bool,
    /// Connections that ended so.
    ended: Arc<AtomicUsize>,
    /// Attempts to open a WebSocket that fail yet.
    refused: Arc<AtomicUsize>,
    /// Requests that send something get nowhere, and lose their connections once this is true.
    holds: Option<watch::Sender<bool>>,
}

impl Line {
    async fn carry(self, listener: TcpListener, port: u16) {
        let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
        while let Ok((browser, _)) = listener.accept().await {
            let (line, fate) = (self.clone(), Chance(chance.next()));
            tokio::spawn(async move { line.connect(browser, port, fate).await });
        }
    }

    async fn connect(&self, mut browser: TcpStream, port: u16, mut fate: Chance) -> Option<()> {
        let mut head = vec![0; 4096];
        let length = browser.read(&mut head).await.ok()?;
        let upgrade =
            head[..length].windows(18).any(|bytes| bytes.eq_ignore_ascii_case(b"upgrade: websocket"));
        let one_less = |left: usize| left.checked_sub(1);
        if upgrade && self.refused.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            return None;
        }
        let mut server = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        self.hold(&head[..length]).await?;
        server.write_all(&head[..length]).await.ok()?;
        let life = Duration::from_millis(if self.cuts { 200 + fate.below(1_800) } else { 600_000 });
        let (mut from_browser, mut to_browser) = browser.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let mut other = Chance(fate.next());
        let both = async {
            tokio::select! {
                ended = self.copy(&mut from_browser, &mut to_server, &mut fate) => ended,
                ended = self.copy(&mut from_server, &mut to_browser, &mut other) => ended,
            }
        };
        if timeout(life, both).await.is_err() {
            self.ended.fetch_add(1, Ordering::SeqCst);
        }
        Some(())
    }

    /// `None`, after a while, if what begins like this isn't let through.
    async fn hold(&self, head: &[u8]) -> Option<()> {
        match &self.holds {
            Some(cut) if head.starts_with(b"PUT ") => {
                let _ = cut.subscribe().wait_for(|cut| *cut).await;
                None
            }
            _ => Some(()),
        }
    }

    async fn copy(
        &self,
        from: &mut (impl tokio::io::AsyncRead + Unpin),
        to: &mut (impl tokio::io::AsyncWrite + Unpin),
        fate: &mut Chance,
    ) -> Option<()> {
        let mut bytes = vec![0; 16 * 1024];
        loop {
            let length = from.read(&mut bytes).await.ok().filter(|length| *length > 0)?;
            self.hold(&bytes[..length]).await?;
            let mut rest = &bytes[..length];
            while self.cuts && !rest.is_empty() {
                // In pieces, so that a cut falls into a frame.
                let (piece, more) = rest.split_at(rest.len().min(1 + fate.below(2_000) as usize));
                sleep(Duration::from_millis(fate.below(20))).await;
                to.write_all(piece).await.ok()?;
                rest = more;
            }
            to.write_all(rest).await.ok()?;
        }
    }
}

/// Numbers by chance, the same in each run.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 ^ (self.0 >> 29)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }
}

/// Serves the pages, passes on what they report, and cuts what is held when they ask for it.
async fn serve(listener: TcpListener, reports: mpsc::Sender<Value>, cut: Option<watch::Sender<bool>>) {
    compile();
    while let Ok((mut stream, _)) = listener.accept().await {
        let (reports, cut) = (reports.clone(), cut.clone());
        tokio::spawn(async move {
            let (head, body) = request(&mut stream).await?;
            let (kind, content) = match head.split([' ', '?']).nth(1)? {
                page @ ("/page.html" | "/cases.html") => (
                    "text/html",
                    format!("<script type=module src={}></script>", page.replace(".html", ".js")),
                ),
                "/report" => {
                    reports.send(serde_json::from_slice(&body).ok()?).await.ok()?;
                    ("text/plain", String::new())
                }
                "/cut" => {
                    cut.as_ref()?.send_replace(true);
                    ("text/plain", String::new())
                }
                script => ("text/javascript", std::fs::read_to_string(compiled().join(&script[1..])).ok()?),
            };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{content}",
                content.len()
            );
            stream.write_all(answer.as_bytes()).await.ok()
        });
    }
}

async fn request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
        timeout(PATIENCE, stream.read_buf(&mut bytes)).await.ok()?.ok().filter(|length| *length > 0)?;
    };
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let length = head.to_ascii_lowercase();
    let length = length.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
    while bytes.len() < end + length.unwrap_or(0) {
        stream.read_buf(&mut bytes).await.ok().filter(|length| *length > 0)?;
    }
    Some((head, bytes.split_off(end)))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where the compiled client is.
fn compiled() -> std::path::PathBuf {
    root().join(".cache/stream-client")
}

/// Once for all tests, which would read what another is about to write.
fn compile() {
    static COMPILED: Once = Once::new();
    COMPILED.call_once(compile_now);
}

fn compile_now() {
    let mut compiler = Command::new(root().join(".cache/node"));
    compiler.arg(root().join("tests/clients/node_modules/typescript/bin/tsc"));
    compiler.args(["-p", "tests/stream-client"]).current_dir(root());
    let output = compiler.output().expect("Node.js: run tests/setup.sh");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

struct Browser {
    process: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    fn open(page: &str) -> Self {
        let profile = tempfile::tempdir().expect("a temporary directory");
        let mut chromium = Command::new("chromium");
        // Chromium doesn't sandbox for root, as which tests may run.
        chromium.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
        chromium.args(["--no-first-run", "--disable-background-networking", "--disable-extensions"]);
        chromium.arg(format!("--user-data-dir={}", profile.path().display()));
        chromium.arg(page).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = chromium.spawn().expect("Chromium: run tests/setup.sh");
        Self { process, _profile: profile }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
