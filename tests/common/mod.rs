//! The harness of the black-box tests: a real `hearth` process on its own data, and a client that speaks to it as any
//! program would, over a real socket. It owns the process and its temporary directory and never looks inside the
//! server: what a test can't see over HTTP, in the log or in the exit status it doesn't see.
//!
//! ```ignore
//! mod common;
//! use common::Server;
//!
//! #[tokio::test]
//! async fn a_message_survives_a_restart() {
//!     let mut server = Server::start(toml::Table::new()).await;
//!     let alice = server.register("alice").await;
//!     let room = alice.create_room(json!({ "preset": "private_chat" })).await;
//!     let event = alice.send_text(&room, "hello").await;
//!
//!     server.restart().await;
//!
//!     alice.get(&format!("/v3/rooms/{room}/event/{event}")).await.expect(200);
//! }
//! ```
//!
//! Configuration is the harness's own (see [`Server::start`]) with the test's laid over it: write it with
//! [`toml::toml!`]. Paths are complete (`/_matrix/…`, `/`), or begin with `/v3/`, `/v1/`, `/r0/` or `/unstable/`, short
//! for those below `/_matrix/client`. A server that is dropped is killed; if the test failed, its log is printed first.

// Each test binary compiles its own copy of this module and uses a part of it.
#![allow(dead_code, unused_imports)]

pub(crate) mod device;
pub(crate) mod federating;
pub(crate) mod history;
mod http;
mod server;
mod user;

pub(crate) use http::{Answer, Http, Unanswered};
pub(crate) use server::{PASSWORD, Server, free_port, is_free};
pub(crate) use user::{User, transaction_id};

use std::time::{Duration, Instant};

/// How long any condition of a test may take to come true. It is a verdict of failure, not a measure of speed: generous
/// enough for a debug build on a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Asks `condition` again and again until it has an answer, and gives that.
///
/// # Panics
/// After [`PATIENCE`], saying `what` never came true.
pub(crate) async fn eventually<T, F>(what: &str, condition: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    eventually_within(PATIENCE, what, condition).await
}

/// The same for what a server may put off by itself.
pub(crate) async fn eventually_within<T, F>(
    patience: Duration,
    what: &str,
    mut condition: impl FnMut() -> F,
) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = condition().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A number that says how much a test does: `few` as a rule, `many` under `make test-more`.
pub(crate) fn rounds(few: usize, many: usize) -> usize {
    if std::env::var_os("HEARTH_TEST_MORE").is_some() { many } else { few }
}
