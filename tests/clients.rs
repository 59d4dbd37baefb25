//! People chat with the clients they already use: matrix-nio and matrix-js-sdk, in every pairing, through a server that
//! is stopped and started again between their messages. `tests/clients/README.md` has the script that both follow;
//! `tests/setup.sh` installs them.

mod common;

use common::{Server, rounds};
use serde_json::{Value, json};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::{sync::mpsc, time::timeout};

const PASSWORD: &str = "correct horse battery staple";

/// How long both may take for all they do. Each step of theirs has its own deadline, whose message says more.
const WHOLE_CHAT: Duration = Duration::from_mins(8);

#[derive(Clone, Copy, Debug)]
enum Sdk {
    Nio,
    Js,
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_chat_with_matrix_nio() {
    let server = Server::start(toml::Table::new()).await;
    chat(server, Sdk::Nio, Sdk::Nio, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_chat_with_matrix_js_sdk() {
    let server = Server::start(toml::Table::new()).await;
    chat(server, Sdk::Js, Sdk::Js, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn matrix_nio_invites_matrix_js_sdk_where_registration_needs_a_token() {
    let server = Server::start(toml::toml! { registration.mode = "token" }).await;
    let token = registration_token(&server);
    chat(server, Sdk::Nio, Sdk::Js, &["--token", &token]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn matrix_js_sdk_invites_matrix_nio_where_registration_needs_a_token() {
    let server = Server::start(toml::toml! { registration.mode = "token" }).await;
    let token = registration_token(&server);
    chat(server, Sdk::Js, Sdk::Nio, &["--token", &token]).await;
}

/// Threads, edits and reactions as Element uses them, with their lists, counts and receipts.
#[tokio::test(flavor = "multi_thread")]
async fn matrix_js_sdk_has_threads_edits_and_reactions() {
    plays("relations_js.mjs").await;
}

/// Events that are sent later, as those who are in a call have them.
#[tokio::test(flavor = "multi_thread")]
async fn matrix_js_sdk_leaves_a_call_by_a_delayed_event() {
    plays("delayed_js.mjs").await;
}

/// Trees of rooms, ways into them and moves to new versions, as Element has them.
#[tokio::test(flavor = "multi_thread")]
async fn matrix_js_sdk_finds_its_way_through_spaces_and_upgrades() {
    plays("spaces_js.mjs").await;
}

/// Rooms in windows, as clients have them that don't load everything.
#[tokio::test(flavor = "multi_thread")]
async fn matrix_js_sdk_has_its_rooms_by_sliding_sync() {
    plays("sliding_js.mjs").await;
}

/// Rooms as Element X has them, with matrix-sdk and matrix-sdk-ui.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes to build: `make test-more` plays it"]
async fn matrix_sdk_ui_has_its_rooms_by_sliding_sync() {
    for round in 0..rounds(1, 3) {
        let server = Server::start(toml::Table::new()).await;
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(env!("CARGO"));
        command.args(["run", "--quiet", "--locked", "--bin", "sliding-play", "--manifest-path"]);
        command.arg(root.join("tests/clients-rust/Cargo.toml"));
        command.args(["--", server.url()]).env("RUST_BACKTRACE", "0");
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
        let output = output.expect("cargo can be started");
        assert!(output.status.success(), "round {round}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// One program that plays all parts itself, with deadlines of its own, and ends well if all came true.
async fn plays(program: &str) {
    let server = Server::start(toml::Table::new()).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(installed(root.join(".cache/node")));
    command.arg(root.join("tests/clients").join(program));
    command.args(["--url", server.url(), "--password", PASSWORD]);
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
    let output = output.expect("the client can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The operator makes a token for both on the command line, which prints it and nothing else.
fn registration_token(server: &Server) -> String {
    let output = server.run(&["token", "create"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let token = String::from_utf8(output.stdout).expect("a token is text");
    token.trim().to_owned()
}

/// Messages page by page, people, public rooms and rooms in common, as Element looks for them.
#[tokio::test(flavor = "multi_thread")]
async fn matrix_js_sdk_searches_messages_people_and_rooms() {
    plays("search_js.mjs").await;
}

/// The whole play, and its end: both have seen one timeline, which is also the server's, before and after a restart.
async fn chat(mut server: Server, host: Sdk, guest: Sdk, more: &[&str]) {
    let timeline = timeout(WHOLE_CHAT, async {
        let mut alice = Client::start(host, "host", "alice", "bob", server.url(), more);
        let mut bob = Client::start(guest, "guest", "bob", "alice", server.url(), more);

        alice.until("halfway").await;
        bob.until("halfway").await;
        server.stop().await;
        alice.go_on();
        bob.go_on();
        alice.until("sending").await;
        bob.until("sending").await;
        server.start_again().await;

        let (alices, bobs) = (alice.until("timeline").await, bob.until("timeline").await);
        alice.ended().await;
        bob.ended().await;
        assert_eq!(alices, bobs, "both have seen the same events in the same order");
        alices
    })
    .await
    .expect("the chat comes to its end");

    assert_eq!(timeline_of(&server).await, timeline, "the server tells a newcomer the same story");
    server.restart().await;
    assert_eq!(timeline_of(&server).await, timeline, "and the same story after a restart");
}

/// The ids of all events of alice's only room, from its beginning.
async fn timeline_of(server: &Server) -> Value {
    let alice = server.login("alice").await;
    let rooms = alice.get("/v3/joined_rooms").await.expect(200);
    let room = rooms["joined_rooms"][0].as_str().expect("alice is in a room").to_owned();
    let mut events = Vec::new();
    let mut from = String::new();
    loop {
        let page = alice.get(&format!("/v3/rooms/{room}/messages?dir=f&limit=50{from}")).await.expect(200);
        let chunk = page["chunk"].as_array().expect("a page has a chunk");
        events.extend(chunk.iter().map(|event| event["event_id"].clone()));
        match page["end"].as_str() {
            Some(end) if !chunk.is_empty() => from = format!("&from={end}"),
            _ => return json!(events),
        }
    }
}

/// One of the programs, as a subprocess.
struct Client {
    name: String,
    process: Child,
    stdin: Option<ChildStdin>,
    lines: mpsc::UnboundedReceiver<String>,
    complaints: Option<JoinHandle<String>>,
}

impl Client {
    fn start(sdk: Sdk, role: &str, me: &str, peer: &str, url: &str, more: &[&str]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (interpreter, script) = match sdk {
            Sdk::Nio => (installed(root.join(".cache/venv/bin/python")), "tests/clients/chat_nio.py"),
            Sdk::Js => (installed(root.join(".cache/node")), "tests/clients/chat_js.mjs"),
        };
        let mut process = Command::new(interpreter)
            .arg(root.join(script))
            .args(["--url", url, "--role", role, "--me", me, "--peer", peer, "--password", PASSWORD])
            .args(["--messages", &rounds(100, 1000).to_string()])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the client can be started");

        let (line, lines) = mpsc::unbounded_channel();
        let stdout = BufReader::new(process.stdout.take().expect("standard output is piped"));
        thread::spawn(move || {
            for text in stdout.lines().map_while(Result::ok) {
                if line.send(text).is_err() {
                    return;
                }
            }
        });
        let mut stderr = process.stderr.take().expect("standard error is piped");
        let complaints = thread::spawn(move || {
            let mut text = String::new();
            // What is no UTF-8 is lost; there is nobody to tell.
            let _ = stderr.read_to_string(&mut text);
            text
        });
        Self {
            name: format!("{me} ({role}, {sdk:?})"),
            stdin: process.stdin.take(),
            process,
            lines,
            complaints: Some(complaints),
        }
    }

    /// Waits until the client prints `@word`, and gives the JSON behind it.
    async fn until(&mut self, word: &str) -> Value {
        while let Some(line) = self.lines.recv().await {
            let told = line.strip_prefix('@').and_then(|line| line.strip_prefix(word));
            if let Some(value) = told {
                return serde_json::from_str(value).unwrap_or(Value::Null);
            }
        }
        let status = self.process.wait().expect("a child can be waited for");
        let complaint = self.complaint();
        panic!("{} ended with {status} and never came to {word}:\n{complaint}", self.name);
    }

    /// The line on its standard input that a client waits for at half-way.
    fn go_on(&mut self) {
        let stdin = self.stdin.as_mut().expect("standard input is piped");
        stdin.write_all(b"go on\n").expect("the client reads its standard input");
    }

    /// Waits for the end, which must be a good one.
    async fn ended(&mut self) {
        while self.lines.recv().await.is_some() {}
        let status = self.process.wait().expect("a child can be waited for");
        let complaint = self.complaint();
        assert!(status.success(), "{} ended with {status}:\n{complaint}", self.name);
    }

    /// What it wrote to standard error, once, after its end.
    fn complaint(&mut self) -> String {
        self.complaints.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It may have ended already, and nobody is left to tell if it can't be killed.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            let complaint = self.complaint();
            eprintln!("--- {} says ---\n{complaint}", self.name);
        }
    }
}

/// A path that `tests/setup.sh` makes.
fn installed(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is missing: run tests/setup.sh, or `make test`", path.display());
    path
}
