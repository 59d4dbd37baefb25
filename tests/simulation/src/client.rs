//! A client's requests to its server, any of which may get lost on the way there or back, or be given up.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use http::{Request, header};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::{
    host::Host,
    trace::{self, note},
    world::World,
};

/// How long a server may take with anything, beside what it was asked to wait for. Other servers may have to be waited for …
pub(crate) const LONGEST: Duration = Duration::from_mins(3);
/// … and several of them, one after the other, for so long each, if somebody wants to get into a room that they have.
const LONGEST_ENTRY: Duration = Duration::from_mins(15);
/// How often something is tried that has to be done in the end.
const TRIES: usize = 400;

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) json: Value,
}

impl Answer {
    pub(crate) fn is_ok(&self) -> bool {
        self.status == 200
    }

    /// A text of the answer; empty if there is none.
    pub(crate) fn text(&self, key: &str) -> String {
        self.json[key].as_str().unwrap_or_default().to_owned()
    }
}

/// A value as it stands in a path or a query.
pub(crate) fn encoded(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // A `String` takes everything.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

pub(crate) struct Client {
    pub(crate) world: Arc<World>,
    pub(crate) host: Arc<Host>,
    pub(crate) who: String,
    pub(crate) token: Option<String>,
    chance: StdRng,
}

impl Client {
    pub(crate) fn new(world: &Arc<World>, host: &Arc<Host>, who: String, token: Option<String>) -> Self {
        let chance = StdRng::seed_from_u64(world.number());
        Self { world: Arc::clone(world), host: Arc::clone(host), who, token, chance }
    }

    pub(crate) fn is_unlucky(&mut self) -> bool {
        let trouble = self.world.trouble();
        trouble > 0 && self.chance.random_range(0..1000) < trouble
    }

    pub(crate) fn some(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.chance.random_range(0..=most))
    }

    /// One request that may wait so long for news. `None` if it had no answer that means anything.
    pub(crate) async fn once(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        wait: Duration,
    ) -> Option<Answer> {
        let (began, short) = (trace::now(), path.split('?').next().unwrap_or_default().to_owned());
        let pause = self.some(15);
        sleep(pause).await;
        if self.is_unlucky() {
            let pause = self.some(3000);
            sleep(pause).await;
            return None;
        }
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/_matrix/client{path}"))
            .header(header::HOST, &*self.host.name);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = match request.body(body.into()) {
            Ok(request) => request,
            Err(cause) => {
                self.world.wrong(format!("a request that can't be made: {path}: {cause}"));
                return None;
            }
        };
        note!("{} {method} {short}", self.who);
        let host = Arc::clone(&self.host);
        let mut task = tokio::spawn(async move { host.answer(request).await });
        if self.is_unlucky() {
            let patience = self.some(2000);
            if timeout(patience, &mut task).await.is_err() {
                let cut = self.chance.random::<bool>();
                note!("{} gives up: {method} {short}; connection cut: {cut}", self.who);
                if cut {
                    task.abort();
                }
            }
            return None;
        }
        let longest = if short.starts_with("/v3/join/") { LONGEST_ENTRY } else { LONGEST };
        let answer = match timeout(longest + wait, task).await {
            Ok(Ok(Some(answer))) => answer,
            Ok(Ok(None)) => {
                let pause = self.some(1000);
                sleep(pause).await;
                return None;
            }
            Ok(Err(cause)) => {
                self.world.wrong(format!("{} {method} {path}: {cause}", self.who));
                return None;
            }
            Err(_) => {
                self.world.wrong(format!("no answer for {longest:?}: {} {method} {path}", self.who));
                return None;
            }
        };
        let pause = self.some(15);
        sleep(pause).await;
        let status = answer.status().as_u16();
        if self.is_unlucky() {
            note!("{} loses the answer {status}: {method} {short}", self.who);
            return None;
        }
        let json = serde_json::from_slice(answer.body()).unwrap_or_default();
        note!("{} has {status}: {method} {short}", self.who);
        if status >= 500 {
            // Other servers that can't be reached have 502 and 504.
            if status == 500 && !self.host.may_fail(began) {
                self.world.wrong(format!("{} {method} {path}: {status} {json}", self.who));
            }
            if status == 500 || status == 503 {
                let pause = self.some(1000);
                sleep(pause).await;
                return None;
            }
        }
        if status == 401 && self.token.is_some() {
            self.world.wrong(format!("a session is lost: {} {method} {path}: {json}", self.who));
        }
        Some(Answer { status, json })
    }

    /// The same as often as it takes.
    pub(crate) async fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> Option<Answer> {
        for _ in 0..TRIES {
            if let Some(answer) = self.once(method, path, body, Duration::ZERO).await {
                return Some(answer);
            }
        }
        self.world.wrong(format!("never done: {} {method} {path}", self.who));
        None
    }

    pub(crate) async fn get(&mut self, path: &str) -> Option<Answer> {
        self.ask("GET", path, None).await
    }
}
