//! A whole server in this process, with two users of it and another server, for targets that need state: as good as new again
//! after some hundred inputs, and whenever an input has ended what the next one needs.

use std::{
    cell::{Cell, RefCell},
    path::Path,
    time::Duration,
};

use bytes::Bytes;
use hearth::testing::server::Server;
use hearth_federation::{
    BlockedKeys, Draft, KnownKeys, Limits, Pdu, Position, ServerKeys, SignedRequest, SigningKey,
    own_server_keys,
};
use http::{Method, Request, StatusCode, header};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomVersionId, ServerName,
    server_name,
};
use serde_json::{Value, json, value::to_raw_value};
use tempfile::TempDir;
use tokio::{runtime::Runtime, time::timeout};

/// Inputs that one server gets.
const INPUTS: u32 = 500;
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_millis(250);

/// How long making the world may take, for each of its steps: passwords are hashed.
const MAKING: Duration = Duration::from_secs(30);

const PASSWORD: &str = "correct horse battery staple";

/// The version of the room that all are in.
pub(crate) const VERSION: RoomVersionId = RoomVersionId::V11;

/// The other server: nobody can be reached under that name, which is an address that is refused.
pub(crate) fn peer() -> &'static ServerName {
    server_name!("127.0.0.1:1")
}

pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) key: SigningKey,
    pub(crate) alice: String,
    pub(crate) bob: String,
    pub(crate) room: String,
    /// Of Alice's first message.
    pub(crate) event: OwnedEventId,
    /// What an event of the other server's user cites, and its join, which is the last of these.
    pub(crate) cited: Vec<OwnedEventId>,
    since: String,
    filter: String,
    inputs: u32,
    /// A request that may change something was cut: a room's writer may be at it still.
    cut: Cell<bool>,
    _folder: TempDir,
}

/// What a server answered.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
}

thread_local! {
    static WORLD: RefCell<Option<(World, Time)>> = const { RefCell::new(None) };
}

/// Does something in the world. `false`: nothing is as it was, so the next input gets another.
pub(crate) fn within(work: impl AsyncFnOnce(&World) -> bool) {
    WORLD.with_borrow_mut(|place| {
        // Taken out, so that a world in which something panicked is never seen again.
        let here = place.take().filter(|(world, _)| world.inputs < INPUTS);
        let (mut world, time) = here.unwrap_or_else(World::new);
        world.inputs += 1;
        let usable = time.block_on(work(&world));
        *place = usable.then_some((world, time));
    });
}

/// What makes time pass in a world. Its end waits for nothing that is still at work there.
struct Time(Option<Runtime>);

impl Time {
    fn begin() -> Self {
        Self(Some(tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")))
    }

    fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.0.as_ref().expect("it is there to its end").block_on(work)
    }
}

impl Drop for Time {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl World {
    fn new() -> (Self, Time) {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let folder = folder.expect("there is room for a folder");
        let time = Time::begin();
        let world = time.block_on(Self::start(folder));
        (world, time)
    }

    async fn start(folder: TempDir) -> Self {
        let configuration = format!(
            r#"
            data_dir = "{}"
            database.synchronous = "normal"
            registration.mode = "open"
            registration.guests = true
            limits.enabled = false
            retention.enabled = true
            federation.allow = ["127.0.0.1"]
            federation.notaries = []
            rooms.default_version = "{VERSION}"
            "#,
            folder.path().display(),
        );
        let server = Server::start(&configuration).await.expect("a server starts");
        let key = SigningKey::new("peer", [5; 32]).expect("it is a key");
        let event = ruma::owned_event_id!("$nothing");
        let mut world = Self {
            server,
            key,
            alice: String::new(),
            bob: String::new(),
            room: String::new(),
            event,
            cited: Vec::new(),
            since: String::new(),
            filter: String::new(),
            inputs: 0,
            cut: Cell::new(false),
            _folder: folder,
        };
        world.alice = world.register("alice").await;
        world.bob = world.register("bob").await;
        let content =
            json!({ "preset": "public_chat", "invite": ["@bob:localhost"], "name": "Room", "topic": "x" });
        world.room = world.done(&world.alice, Method::POST, "createRoom", content).await["room_id"].text();
        let room = encoded(&world.room);
        world.done(&world.bob, Method::POST, &format!("join/{room}"), json!({})).await;
        let message = json!({ "msgtype": "m.text", "body": "hello" });
        let sent = world
            .done(&world.alice, Method::PUT, &format!("rooms/{room}/send/m.room.message/1"), message)
            .await;
        world.event = sent["event_id"].text().try_into().expect("it is an id");
        let filter = json!({ "room": { "timeline": { "limit": 3 } } });
        let stored = world.done(&world.alice, Method::POST, "user/@alice:localhost/filter", filter).await;
        world.filter = stored["filter_id"].text();
        world.since = world.get(&world.alice, "sync?timeout=0").await["next_batch"].text();
        world.meet().await;
        world
    }

    async fn register(&self, name: &str) -> String {
        let body = json!({
            "username": name, "password": PASSWORD, "device_id": name.to_uppercase(), "auth": { "type": "m.login.dummy" },
        });
        self.done("", Method::POST, "register", body).await["access_token"].text()
    }

    /// The other server's user joins the room, by the protocol.
    async fn meet(&mut self) {
        let now = MilliSecondsSinceUnixEpoch::now();
        let document = own_server_keys(peer(), &[&self.key], &[], now);
        let keys =
            ServerKeys::read(&document, peer(), now, &BlockedKeys::default()).expect("it is just made");
        let known = serde_json::to_string(&KnownKeys::new(keys, now)).expect("it has a text");
        self.server.know_keys(peer(), known).await.expect("it can be stored");
        let (room, user) = (encoded(&self.room), encoded(guest().as_str()));
        let uri = format!("/_matrix/federation/v1/make_join/{room}/{user}?ver={VERSION}");
        let template = self.signed(Method::GET, &uri, None).await.expect("an answer");
        let ids = |field: &str| -> Vec<OwnedEventId> {
            serde_json::from_value(template.body["event"][field].clone()).expect("a template has them")
        };
        let (previous, cited) = (ids("prev_events"), ids("auth_events"));
        let depth = template.body["event"]["depth"].as_i64().expect("a template has it");
        let join = Draft {
            room_id: Some(OwnedRoomId::try_from(self.room.as_str()).expect("it is an id")),
            sender: guest(),
            kind: "m.room.member".into(),
            state_key: Some(guest().to_string()),
            content: to_raw_value(&json!({ "membership": "join" })).expect("it is JSON"),
            redacts: None,
        };
        let join: Pdu = join
            .build(
                &VERSION,
                Position::new(previous, cited.clone(), depth, now),
                peer(),
                &self.key,
                Limits::FEDERATED,
            )
            .expect("it is an event");
        let uri = format!("/_matrix/federation/v2/send_join/{room}/{}", encoded(join.event_id.as_str()));
        let body: Value = serde_json::from_str(join.json.get()).expect("it is JSON");
        let answer = self.signed(Method::PUT, &uri, Some(&body)).await.expect("an answer");
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        self.cited = cited;
        self.cited.push(join.event_id);
    }

    /// The text with what it names in braces.
    pub(crate) fn filled(&self, text: &str, form: impl Fn(&str) -> String) -> String {
        let mut text = text.to_owned();
        for (name, value) in [
            ("{alice}", "@alice:localhost"),
            ("{bob}", "@bob:localhost"),
            ("{eve}", guest().as_str()),
            ("{room}", &self.room),
            ("{event}", self.event.as_str()),
            ("{since}", &self.since),
            ("{filter}", &self.filter),
            ("{token}", &self.alice),
            ("{password}", PASSWORD),
        ] {
            if text.contains(name) {
                text = text.replace(name, &form(value));
            }
        }
        text
    }

    /// What must succeed; the path is below `/_matrix/client/v3/`.
    async fn done(&self, token: &str, method: Method, path: &str, body: Value) -> Value {
        let uri = format!("/_matrix/client/v3/{path}");
        let request = asking(token, &method, &uri, body.to_string().into_bytes()).expect("it is a request");
        let answer = self.answer(request, MAKING).await.expect("an answer");
        assert!(answer.status.is_success(), "{method} {path}: {} {}", answer.status, answer.body);
        answer.body
    }

    pub(crate) async fn get(&self, token: &str, path: &str) -> Value {
        self.done(token, Method::GET, path, json!({})).await
    }

    /// `None`: it took too long, or can't be asked.
    pub(crate) async fn ask(&self, token: &str, method: &Method, uri: &str, body: Vec<u8>) -> Option<Answer> {
        self.answer(asking(token, method, uri, body)?, PATIENCE).await
    }

    /// A request of the other server.
    pub(crate) async fn signed(&self, method: Method, uri: &str, body: Option<&Value>) -> Option<Answer> {
        let content = body.map(Value::to_string);
        let signed = SignedRequest {
            method: method.as_str(),
            uri,
            origin: peer(),
            destination: server_name!("localhost"),
            content: content.as_deref(),
        };
        let authorization = signed.sign(&self.key).ok()?;
        let request = Request::builder().method(method).uri(uri).header(header::AUTHORIZATION, authorization);
        // As long as the world isn't whole, it is being made.
        let patience = if self.cited.is_empty() { MAKING } else { PATIENCE };
        self.answer(request.body(content.unwrap_or_default().into()).ok()?, patience).await
    }

    async fn answer(&self, request: Request<Bytes>, patience: Duration) -> Option<Answer> {
        let asked = format!("{} {}", request.method(), request.uri());
        let reads = request.method().is_safe();
        let Ok(response) = timeout(patience, self.server.answer(request)).await else {
            self.cut.set(self.cut.get() || !reads);
            return None;
        };
        let (parts, body) = response.into_parts();
        let kind =
            parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let body = if kind.starts_with("application/json") {
            serde_json::from_slice(&body).unwrap_or_else(|cause| panic!("{asked}: {cause}: {body:?}"))
        } else {
            Value::Null
        };
        let status = parts.status;
        // What another server is to blame for has numbers of its own.
        let to_blame = status.is_server_error() && !matches!(status.as_u16(), 502..=504);
        assert!(!to_blame, "{asked}: {status} {body}");
        if status.is_client_error() && !body.is_null() {
            let code = body["errcode"].as_str();
            let has_code = code.is_some_and(|code| code.contains('_') && body["error"].is_string());
            assert!(has_code || body["flows"].is_array(), "{asked}: {status} {body}");
        }
        Some(Answer { status, body })
    }

    /// Whatever was written can be read.
    pub(crate) async fn is_readable_by(&self, token: &str) -> bool {
        let room = encoded(&self.room);
        for path in [
            format!("rooms/{room}/messages?dir=b&limit=20"),
            format!("rooms/{room}/state"),
            "sync?timeout=0".to_owned(),
        ] {
            let uri = format!("/_matrix/client/v3/{path}");
            let Some(answer) = self.ask(token, &Method::GET, &uri, Vec::new()).await else {
                return false;
            };
            assert!(answer.status.is_success(), "{path}: {} {}", answer.status, answer.body);
        }
        true
    }

    /// Whether Alice and Bob are still who they were, in their room, and nothing is at work that may change it.
    pub(crate) async fn is_whole(&self) -> bool {
        if self.cut.get() {
            return false;
        }
        for token in [&self.alice, &self.bob] {
            let Some(answer) =
                self.ask(token, &Method::GET, "/_matrix/client/v3/joined_rooms", Vec::new()).await
            else {
                return false;
            };
            // They may have logged out or left; but whoever is here gets an answer.
            if answer.status != StatusCode::OK {
                assert!(answer.status.is_client_error(), "{} {}", answer.status, answer.body);
                return false;
            }
            if !answer.body["joined_rooms"].as_array().is_some_and(|rooms| rooms.contains(&json!(self.room)))
            {
                return false;
            }
        }
        true
    }
}

fn asking(token: &str, method: &Method, uri: &str, body: Vec<u8>) -> Option<Request<Bytes>> {
    let mut request = Request::builder().method(method).uri(uri);
    if !token.is_empty() {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    request.body(body.into()).ok()
}

pub(crate) fn guest() -> OwnedUserId {
    OwnedUserId::try_from(format!("@eve:{}", peer())).expect("it is a user's id")
}

/// As a part of a path.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

trait Text {
    fn text(&self) -> String;
}

impl Text for Value {
    fn text(&self) -> String {
        self.as_str().expect("it is a text").to_owned()
    }
}
