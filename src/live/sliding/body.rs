//! The answer of sliding sync, as JSON, in either form.

use std::collections::BTreeMap;

use ruma::{OwnedRoomId, OwnedUserId};
use serde::Serialize;
use serde_json::{Value, value::RawValue};

#[derive(Default, Serialize)]
pub(super) struct SlidingBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) txn_id: Option<String>,
    pub(super) pos: String,
    pub(super) lists: BTreeMap<String, Count>,
    pub(super) rooms: BTreeMap<OwnedRoomId, RoomBody>,
    pub(super) extensions: BTreeMap<&'static str, Value>,
}

#[derive(Serialize)]
pub(super) struct Count {
    pub(super) count: u64,
}

/// A room: what changed of it, or with `initial` all of it. Some fields belong to one of the forms.
#[derive(Default, Serialize)]
pub(super) struct RoomBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bump_stamp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) membership: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lists: Option<Vec<String>>,
    /// `null` if it was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) avatar: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) heroes: Option<Vec<Hero>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) is_dm: Option<bool>,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) initial: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) expanded_timeline: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) unstable_expanded_timeline: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) required_state: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) timeline: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prev_batch: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) limited: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) num_live: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) joined_count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) invited_count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) invite_state: Option<Vec<Box<RawValue>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stripped_state: Option<Vec<Box<RawValue>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) notification_count: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) highlight_count: Option<i64>,
}

/// A member whom the name of a room without one is made of.
#[derive(Serialize)]
pub(super) struct Hero {
    pub(super) user_id: OwnedUserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) displayname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) avatar_url: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls")]
fn is_false(value: &bool) -> bool {
    !value
}
