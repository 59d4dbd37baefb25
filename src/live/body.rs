//! The answer of `/sync`, as JSON.

use std::{collections::BTreeMap, sync::Arc};

use ruma::{OwnedRoomId, OwnedUserId};
use serde::Serialize;
use serde_json::value::RawValue;

use super::device_lists::DeviceListsBody;
use crate::{keys::Left, queue::Counts};

#[derive(Default, Serialize)]
pub struct SyncBody {
    pub next_batch: String,
    #[serde(skip_serializing_if = "Events::is_empty")]
    pub account_data: Events,
    #[serde(skip_serializing_if = "Events::is_empty")]
    pub presence: Events,
    #[serde(skip_serializing_if = "RoomsBody::is_empty")]
    pub rooms: RoomsBody,
    #[serde(skip_serializing_if = "DeviceListsBody::is_empty")]
    pub device_lists: DeviceListsBody,
    #[serde(skip_serializing_if = "Events::is_empty")]
    pub to_device: Events,
    #[serde(flatten)]
    pub keys_left: Arc<Left>,
    /// These changed: a reason to answer.
    #[serde(skip)]
    pub news_of_keys: bool,
}

impl SyncBody {
    /// Whether there is anything that a waiting client waits for.
    pub fn is_empty(&self) -> bool {
        self.account_data.is_empty()
            && self.presence.is_empty()
            && self.rooms.is_empty()
            && self.device_lists.is_empty()
            && self.to_device.is_empty()
            && !self.news_of_keys
    }
}

#[derive(Default, Serialize)]
pub struct Events {
    pub events: Vec<Box<RawValue>>,
}

impl Events {
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

impl From<Vec<Box<RawValue>>> for Events {
    fn from(events: Vec<Box<RawValue>>) -> Self {
        Self { events }
    }
}

#[derive(Default, Serialize)]
pub struct RoomsBody {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub join: BTreeMap<OwnedRoomId, JoinedRoom>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub invite: BTreeMap<OwnedRoomId, InvitedRoom>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub knock: BTreeMap<OwnedRoomId, KnockedRoom>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub leave: BTreeMap<OwnedRoomId, LeftRoom>,
}

impl RoomsBody {
    pub fn is_empty(&self) -> bool {
        self.join.is_empty() && self.invite.is_empty() && self.knock.is_empty() && self.leave.is_empty()
    }
}

impl RoomsBody {
    /// Takes in the rooms of another part of the answer.
    pub(super) fn extend(&mut self, other: Self) {
        self.join.extend(other.join);
        self.invite.extend(other.invite);
        self.knock.extend(other.knock);
        self.leave.extend(other.leave);
    }
}

#[derive(Default, Serialize)]
pub struct Timeline {
    pub events: Vec<Box<RawValue>>,
    pub limited: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_batch: Option<String>,
}

/// Which state of a room a request wants (SY-05), and the name that the answer gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateForm {
    /// At the start of the timeline.
    Before,
    /// At the end of the timeline.
    After,
    /// The same for clients from before 1.16, which know only the name of the proposal.
    EarlyAfter,
}

impl StateForm {
    pub(super) fn is_after(self) -> bool {
        self != Self::Before
    }

    pub(super) fn body(self, events: Events) -> StateBody {
        match self {
            Self::Before => StateBody::Before(events),
            Self::After => StateBody::After(events),
            Self::EarlyAfter => StateBody::EarlyAfter(events),
        }
    }
}

/// The state of a room as the request wants it.
#[derive(Serialize)]
pub enum StateBody {
    #[serde(rename = "state")]
    Before(Events),
    #[serde(rename = "state_after")]
    After(Events),
    #[serde(rename = "org.matrix.msc4222.state_after")]
    EarlyAfter(Events),
}

impl StateBody {
    pub(super) fn is_empty(&self) -> bool {
        let (Self::Before(events) | Self::After(events) | Self::EarlyAfter(events)) = self;
        events.is_empty()
    }
}

#[derive(Serialize)]
pub struct JoinedRoom {
    pub timeline: Timeline,
    #[serde(flatten)]
    pub state: StateBody,
    #[serde(skip_serializing_if = "Events::is_empty")]
    pub ephemeral: Events,
    #[serde(skip_serializing_if = "Events::is_empty")]
    pub account_data: Events,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<SummaryBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread_notifications: Option<UnreadBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread_thread_notifications: Option<BTreeMap<String, UnreadBody>>,
}

#[derive(Default, Serialize)]
pub struct SummaryBody {
    #[serde(rename = "m.heroes")]
    pub heroes: Vec<OwnedUserId>,
    #[serde(rename = "m.joined_member_count")]
    pub joined: usize,
    #[serde(rename = "m.invited_member_count")]
    pub invited: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UnreadBody {
    pub highlight_count: i64,
    pub notification_count: i64,
}

impl From<Counts> for UnreadBody {
    fn from(counts: Counts) -> Self {
        Self { highlight_count: counts.highlights, notification_count: counts.notifications }
    }
}

#[derive(Serialize)]
pub struct InvitedRoom {
    pub invite_state: Events,
}

#[derive(Serialize)]
pub struct KnockedRoom {
    pub knock_state: Events,
}

#[derive(Serialize)]
pub struct LeftRoom {
    pub timeline: Timeline,
    #[serde(flatten)]
    pub state: StateBody,
    #[serde(skip_serializing_if = "Events::is_empty")]
    pub account_data: Events,
}
