//! An event as this server has it: the PDU, its place in the room's log, and what has become of it.

use std::sync::OnceLock;

use hearth_federation::{Pdu, PduError};
use ruma::{EventId, OwnedEventId, RoomVersionId, ServerName, UserId, events::room::member::MembershipState};

use super::Error;
use crate::store::event::{OUTLIER, StoredEvent};

/// What the checks on receipt made of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub enum Verdict {
    Accepted = 0,
    /// Allowed by the state before it but not by the current state: kept, but not shown.
    SoftFailed = 1,
    Rejected = 2,
    /// A redaction that isn't applied: its target isn't here yet, or nobody allows it. Part of the history, not shown.
    Held = 3,
    /// Older than the room keeps its history: without content, and part of the history only.
    Gone = 4,
}

/// The type of events that only join the ends of a history. Shown to nobody.
pub(super) const DUMMY: &str = "org.matrix.dummy_event";

impl Verdict {
    fn from_number(number: i64) -> Self {
        match number {
            0 => Self::Accepted,
            1 => Self::SoftFailed,
            3 => Self::Held,
            4 => Self::Gone,
            _ => Self::Rejected,
        }
    }
}

/// Which device sent an event, in which transaction. Told to nobody but that device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentBy {
    pub device: i64,
    pub txn_id: String,
}

#[derive(Debug)]
pub struct Event {
    pub seq: i64,
    pub pdu: Pdu,
    pub verdict: Verdict,
    /// The `seq` of the redaction that applies to it.
    pub redacted_by: Option<i64>,
    pub sent_by: Option<SentBy>,
    /// The event in the format of clients, up to where `unsigned` begins; made at first use.
    pub(super) client_json: OnceLock<Box<str>>,
}

impl Event {
    pub fn new(seq: i64, pdu: Pdu, sent_by: Option<SentBy>) -> Self {
        Self {
            seq,
            pdu,
            verdict: Verdict::Accepted,
            redacted_by: None,
            sent_by,
            client_json: OnceLock::new(),
        }
    }

    pub(super) fn from_stored(stored: StoredEvent, version: &RoomVersionId) -> Result<Self, Error> {
        let verdict = Verdict::from_number(stored.verdict);
        let damaged = |cause: String| Error::Damaged { room: stored.room, seq: stored.seq, cause };
        let event_id = OwnedEventId::try_from(stored.event_id).map_err(|cause| damaged(cause.to_string()))?;
        let pdu = Pdu::from_stored(event_id, stored.pdu, version)
            .map_err(|cause| damaged(cause.to_string()))?
            .with_rejected(verdict == Verdict::Rejected);
        let sent_by = match (stored.sender_device, stored.txn_id) {
            (Some(device), Some(txn_id)) => Some(SentBy { device, txn_id }),
            _ => None,
        };
        Ok(Self {
            seq: stored.seq,
            pdu,
            verdict,
            redacted_by: stored.redacted_by,
            sent_by,
            client_json: OnceLock::new(),
        })
    }

    /// The event after a redaction at `redacted_by`: what may still be shown of it.
    pub(super) fn redacted(&self, redacted_by: i64, version: &RoomVersionId) -> Result<Self, PduError> {
        Ok(Self {
            seq: self.seq,
            pdu: self.pdu.redacted(version)?,
            verdict: self.verdict,
            redacted_by: Some(redacted_by),
            sent_by: self.sent_by.clone(),
            client_json: OnceLock::new(),
        })
    }

    /// The event as somebody gets it who ignores its sender but has to know that it is there.
    pub(super) fn hidden(&self, version: &RoomVersionId) -> Result<Self, PduError> {
        Ok(Self { redacted_by: None, sent_by: None, ..self.redacted(0, version)? })
    }

    /// Whether it has no place in the log of its room.
    pub fn is_outlier(&self) -> bool {
        self.seq <= OUTLIER
    }

    pub fn id(&self) -> &EventId {
        &self.pdu.event_id
    }

    /// The membership that it gives, as a member event. One that can't be read gives none.
    pub fn membership(&self) -> MembershipState {
        self.pdu.membership().unwrap_or(MembershipState::Leave)
    }

    /// Whether clients get to see it at all.
    pub fn is_visible(&self) -> bool {
        self.verdict == Verdict::Accepted && !self.is_dummy()
    }

    /// The server of whoever it keeps out of the room: whom it bans, or from whom it takes their place, an invite or a knock.
    pub fn keeps_out(pdu: &Pdu) -> Option<&ServerName> {
        let target = <&UserId>::try_from(pdu.state_key.as_deref()?).ok()?;
        matches!(pdu.membership()?, MembershipState::Leave | MembershipState::Ban)
            .then(|| target.server_name())
    }

    fn is_dummy(&self) -> bool {
        // Without the text of the type, which costs every message an allocation.
        self.pdu.json.get().contains(DUMMY) && self.pdu.kind.to_string() == DUMMY
    }
}
