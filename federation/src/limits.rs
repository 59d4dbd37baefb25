//! How large events may be.
//!
//! Specification: [Size limits](https://spec.matrix.org/v1.19/client-server-api/#size-limits).

/// Bytes of a whole event that can federate, signed and canonical.
pub const MAX_PDU_BYTES: usize = 65_536;

/// Bytes of `type`, `state_key`, `sender`, `room_id` and `event_id`, each.
pub const MAX_FIELD_BYTES: usize = 255;

/// Events in `prev_events`.
pub const MAX_PREV_EVENTS: usize = 20;

/// Events in `auth_events`.
pub const MAX_AUTH_EVENTS: usize = 10;

/// The limit that depends on the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a whole event.
    pub max_pdu_bytes: usize,
}

impl Limits {
    /// Of rooms that federate.
    pub const FEDERATED: Self = Self { max_pdu_bytes: MAX_PDU_BYTES };

    /// Of rooms whose events never leave this server (`m.federate: false`).
    pub const fn local(max_pdu_bytes: usize) -> Self {
        Self { max_pdu_bytes }
    }
}
