//! One-time keys: people publish some for the device that acts, others claim them. Each is handed out once at most.

use std::{collections::BTreeMap, time::Duration};

use rand::RngExt as _;
use ruma::serde::{Base64, base64::Standard};
use serde_json::{Value, json};

use crate::{
    actor::Actor,
    client::Client,
    device::text,
    world::{Person, World},
};

/// Of the device that acts.
const DEVICE: &str = "ACTOR";
const ALGORITHM: &str = "curve25519";

#[derive(Default)]
pub(crate) struct Keys {
    /// By user and id.
    published: BTreeMap<(String, String), String>,
    /// What was handed out, as often as it was.
    claimed: Vec<((String, String), String)>,
}

impl Actor {
    pub(crate) async fn publish_keys(&mut self) {
        let mut keys = json!({});
        for _ in 0..self.chance.random_range(1..4) {
            let name = self.unique();
            let mut key = [0; 32];
            key[..name.len().min(32)].copy_from_slice(&name.as_bytes()[..name.len().min(32)]);
            let (id, key) = (format!("{ALGORITHM}:{name}"), Base64::<Standard>::new(key.to_vec()).encode());
            keys[&id] = json!(key);
            let published = (self.user_id(), id);
            self.world.plot.lock().keys.published.insert(published, key);
        }
        let body = json!({ "one_time_keys": keys });
        let answer = self.client.ask("POST", "/v3/keys/upload", Some(&body)).await;
        if let Some(answer) = answer.filter(|answer| !answer.is_ok()) {
            self.world.wrong(format!("keys are refused: {answer:?}"));
        }
    }

    pub(crate) async fn claim_key(&mut self) {
        let other = self.other();
        let user_id = self.people[other].user_id.clone();
        let body = json!({ "one_time_keys": { &user_id: { DEVICE: ALGORITHM } } });
        let answer = self.client.once("POST", "/v3/keys/claim", Some(&body), Duration::ZERO).await;
        let Some(answer) = answer else { return };
        for (id, key) in answer.json["one_time_keys"][&user_id][DEVICE].as_object().into_iter().flatten() {
            let claimed = ((user_id.clone(), id.clone()), text(key));
            self.world.plot.lock().keys.claimed.push(claimed);
        }
    }
}

/// What was handed out was published, was handed out once, and isn't there any more.
pub(crate) async fn judge(world: &World, people: &[Person], clients: &mut [Client]) {
    {
        let plot = world.plot.lock();
        let mut times: BTreeMap<&(String, String), usize> = BTreeMap::new();
        for (name, key) in &plot.keys.claimed {
            *times.entry(name).or_default() += 1;
            if plot.keys.published.get(name) != Some(key) {
                world.wrong(format!("the key {name:?} was handed out as {key}, which it isn't"));
            }
        }
        for (name, times) in times.into_iter().filter(|(_, times)| *times > 1) {
            world.wrong(format!("the key {name:?} was handed out {times} times"));
        }
    }
    for (person, client) in people.iter().zip(clients) {
        let Some(answer) = client.ask("POST", "/v3/keys/upload", Some(&json!({}))).await else { continue };
        let left = answer.json["one_time_key_counts"][ALGORITHM].as_u64();
        let left = left.or_else(|| (answer.json["one_time_key_counts"] != Value::Null).then_some(0));
        let plot = world.plot.lock();
        let published = plot.keys.published.keys().filter(|(user, _)| *user == person.user_id).count() as u64;
        let claimed =
            plot.keys.claimed.iter().filter(|((user, _), _)| *user == person.user_id).count() as u64;
        if left.is_none_or(|left| left + claimed > published) {
            world.wrong(format!(
                "of {published} keys of {} {claimed} were handed out, and {left:?} are left",
                person.user_id
            ));
        }
    }
}
