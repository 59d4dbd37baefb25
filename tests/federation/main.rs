//! Rooms that live on this server and on another: Synapse, as organisations run it, and both ways round.
//!
//! Each play of [`scenarios`] is done for rooms that this server keeps and for rooms that Synapse keeps, in several versions.
//! What came of it is the table in `docs/federation.md`, which is held against it: `UPDATE=1` writes it anew.

#![allow(clippy::unwrap_used)]

mod away;
#[path = "../common/mod.rs"]
mod common;
#[path = "../keys/identity.rs"]
#[allow(dead_code)]
mod identity;
mod keys;
mod network;
mod scenarios;
mod synapse;
mod table;
mod ways;
mod world;

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};

use self::{
    common::{Answer, User},
    scenarios::{SCENARIOS, Scenario},
    table::Outcome,
    world::{Case, Side, World},
};

/// One-time keys are of this kind.
const CURVE: &str = "signed_curve25519";

/// Cases at a time: both servers have two cores between them.
const AT_ONCE: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn rooms_live_on_this_server_and_on_synapse() {
    let mut world = World::start().await;
    let only = std::env::var("SCENARIO").ok();
    let chosen = SCENARIOS.iter().filter(|scenario| only.as_ref().is_none_or(|only| scenario.name == only));
    let cases = chosen.flat_map(|scenario| {
        let sides = [Side::Hearth, Side::Synapse];
        sides
            .into_iter()
            .flat_map(move |side| scenario.versions.iter().map(move |version| (scenario, side, *version)))
    });
    let shared = Arc::new(&world);
    let mut outcomes: Vec<Outcome> = stream::iter(cases)
        .map(|(scenario, side, version)| {
            let world = Arc::clone(&shared);
            async move { play(&world, scenario, side, version).await }
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    drop(shared);
    if only.is_none() {
        outcomes.extend(away::plays(&mut world).await);
        table::check(&outcomes);
    }
    let failed: Vec<String> = outcomes.iter().filter_map(Outcome::failure).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

async fn play(world: &World, scenario: &Scenario, side: Side, version: &'static str) -> Outcome {
    let case = Case::new(world, side, version).await;
    let result = (scenario.play)(world, &case).await;
    Outcome { scenario: scenario.name, side, version, result }
}
