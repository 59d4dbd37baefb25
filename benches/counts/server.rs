//! A whole server in this process, asked as a client asks, without sockets: a message to a room of a hundred, the answers that
//! bring it, a page of the room's history through a filter. The database's own threads aren't counted.

use std::cell::Cell;

use bytes::Bytes;
use hearth::testing::server::Server;
use http::{Method, Request};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::count;

const MEMBERS: usize = 100;

pub(crate) fn count_all() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    // Guests have no passwords, the hash of which takes seconds under Callgrind.
    let configuration = format!(
        "data_dir = \"{}\"\nfederation.enabled = false\nlimits.enabled = false\nregistration = {{ mode = \"open\", guests = true }}\n",
        dir.path().display()
    );
    let server = runtime.block_on(Server::start(&configuration)).expect("a server can be started");
    let asker = Asker { runtime, server, next: Cell::new(0) };

    let alice = asker.register();
    let room = json!({ "preset": "public_chat", "name": "Harbour", "initial_state": [
        { "type": "m.room.guest_access", "state_key": "", "content": { "guest_access": "can_join" } },
    ] });
    let room = asker.ask(&alice, Method::POST, "/v3/createRoom", &room);
    let room = room["room_id"].as_str().expect("a room has an id").to_owned();
    let guests: Vec<String> = (1..MEMBERS).map(|_| asker.guest(&room)).collect();

    let message = || asker.message(&alice, &room);
    count("server: send a message to 100 members", message, |request| asker.answer(request));

    let since = Cell::new(asker.sync(&guests[0], None).1);
    let waiting = || {
        asker.answer(asker.message(&alice, &room));
        Asker::sync_request(&guests[0], Some(&since.take()))
    };
    count("server: sync one message", waiting, |request| {
        let (body, next) = read_sync(&asker.answer(request));
        since.set(next);
        body
    });

    let sliding = json!({
        "lists": { "all": { "ranges": [[0, 19]], "timeline_limit": 10, "required_state": [["m.room.name", ""]] } },
    });
    let path = "/unstable/org.matrix.simplified_msc3575/sync?timeout=0";
    let pos = |answer: &Value| answer["pos"].as_str().expect("there is a pos").to_owned();
    let at = Cell::new(pos(&asker.ask(&guests[1], Method::POST, path, &sliding)));
    let waiting = || {
        asker.answer(asker.message(&alice, &room));
        request(&guests[1], Method::POST, &format!("{path}&pos={}", at.take()), &sliding)
    };
    count("server: sliding sync of one message", waiting, |request| {
        let answer = asker.answer(request);
        at.set(pos(&answer));
        answer
    });

    let filter = "%7B%22types%22%3A%5B%22m.room.message%22%5D%2C%22not_senders%22%3A%5B%22@x:y%22%5D%7D";
    let path = format!("/v3/rooms/{room}/messages?dir=b&limit=50&filter={filter}");
    let page = || request(&guests[2], Method::GET, &path, &Value::Null);
    count("server: page of 50 events, filtered", page, |request| asker.answer(request));
    // The database's writer goes on for as long as the server is there.
    asker.runtime.shutdown_background();
}

/// The answer to a sync, and its token.
fn read_sync(answer: &Value) -> (Value, String) {
    (answer.clone(), answer["next_batch"].as_str().expect("there is a token").to_owned())
}

fn request(token: &str, method: Method, path: &str, body: &Value) -> Request<Bytes> {
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let request = Request::builder().method(method).uri(format!("/_matrix/client{path}"));
    let request =
        if token.is_empty() { request } else { request.header("authorization", format!("Bearer {token}")) };
    request.body(body).expect("that is a request")
}

struct Asker {
    runtime: Runtime,
    server: Server,
    next: Cell<usize>,
}

impl Asker {
    fn answer(&self, request: Request<Bytes>) -> Value {
        let asked = format!("{} {}", request.method(), request.uri());
        let answer = self.runtime.block_on(self.server.answer(request));
        let body = String::from_utf8_lossy(answer.body());
        assert!(answer.status().is_success(), "{asked}: {} {body}", answer.status());
        serde_json::from_str(&body).expect("every answer is JSON")
    }

    fn ask(&self, token: &str, method: Method, path: &str, body: &Value) -> Value {
        self.answer(request(token, method, path, body))
    }

    fn register(&self) -> String {
        let body =
            json!({ "username": "alice", "password": "correct horse", "auth": { "type": "m.login.dummy" } });
        token(&self.ask("", Method::POST, "/v3/register", &body))
    }

    fn guest(&self, room: &str) -> String {
        let guest = token(&self.ask("", Method::POST, "/v3/register?kind=guest", &json!({})));
        self.ask(&guest, Method::POST, &format!("/v3/rooms/{room}/join"), &json!({}));
        guest
    }

    fn message(&self, token: &str, room: &str) -> Request<Bytes> {
        let number = self.next.replace(self.next.get() + 1);
        let body = json!({ "msgtype": "m.text", "body": "Shall we meet at the bridge? ".repeat(4) });
        request(token, Method::PUT, &format!("/v3/rooms/{room}/send/m.room.message/t{number}"), &body)
    }

    fn sync(&self, token: &str, since: Option<&str>) -> (Value, String) {
        read_sync(&self.answer(Self::sync_request(token, since)))
    }

    fn sync_request(token: &str, since: Option<&str>) -> Request<Bytes> {
        let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
        request(token, Method::GET, &format!("/v3/sync?timeout=0{since}"), &Value::Null)
    }
}

fn token(answer: &Value) -> String {
    answer["access_token"].as_str().expect("whoever registers gets a token").to_owned()
}
