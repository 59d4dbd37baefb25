//! What each fuzz target does with its input: a function of bytes that panics if Hearth doesn't do what its oracle says.
//! `tests/fuzz` gives them what libFuzzer finds; the tests of this package give them all that was ever found worth keeping
//! (`tests/fuzz/corpus`, `tests/fuzz/regressions`), so `cargo test` needs nothing but a stable compiler.
//!
//! An oracle is a second implementation that is as simple as it can be, however slow, or a property of what comes out. It
//! shares no code with what it judges.

// To panic is how an oracle says no.
#![allow(clippy::missing_panics_doc, clippy::panic, clippy::unwrap_used, clippy::expect_used)]

mod acl;
mod api;
mod auth;
mod auth_rules;
mod configuration;
mod filters;
mod glob;
mod json;
mod names;
mod pdu;
mod push;
mod requests;
mod resolution;
mod server_keys;
mod sliding;
mod stream;
mod tokens;
mod transactions;
mod words;
mod world;

// The oracle of state resolution and the rooms that it is held against are those of the protocol's own tests.
#[allow(dead_code, unreachable_pub)]
#[path = "../../../../federation/tests/resolution/dag.rs"]
mod dag;
#[allow(dead_code, unreachable_pub)]
#[path = "../../../../federation/tests/resolution/oracle.rs"]
mod oracle;

/// What one target does with one input.
pub type Body = fn(&[u8]);

/// Every target, by the name of its program and of its folders.
pub const TARGETS: &[(&str, Body)] = &[
    ("acl", acl::run),
    ("api", api::run),
    ("auth", auth::run),
    ("configuration", configuration::run),
    ("filters", filters::run),
    ("json", json::run),
    ("names", names::run),
    ("pdu", pdu::run),
    ("push", push::run),
    ("requests", requests::run),
    ("resolution", resolution::run),
    ("server_keys", server_keys::run),
    ("sliding", sliding::run),
    ("stream", stream::run),
    ("tokens", tokens::run),
    ("transactions", transactions::run),
];

/// The body of a target.
#[must_use]
pub fn body(target: &str) -> Body {
    TARGETS.iter().find(|(name, _)| *name == target).expect("there is a target of that name").1
}
