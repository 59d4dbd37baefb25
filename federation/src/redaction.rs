//! What survives a redaction, per room version.
//!
//! Works on parsed JSON, in place. Event ids and signatures are computed over this form, so a mistake here splits rooms.
//!
//! Specification: the section "Redactions" of each [room version](https://spec.matrix.org/v1.19/rooms/).

use ruma::room_version_rules::RedactionRules;

use crate::json::{Object, Value};

/// Redact a whole event. It keeps its `hashes` and `signatures`.
pub(crate) fn redact_event(event: &mut Object<'_>, kind: &str, rules: &RedactionRules) {
    event.retain(|key, value| match key {
        "content" => {
            if let Value::Object(content) = value {
                redact_content(content, kind, rules);
            }
            true
        }
        "event_id" | "type" | "room_id" | "sender" | "state_key" | "hashes" | "signatures" | "depth"
        | "prev_events" | "auth_events" | "origin_server_ts" => true,
        "origin" | "membership" | "prev_state" => rules.keep_origin_membership_prev_state,
        _ => false,
    });
}

/// Redact the content of an event of a type.
pub(crate) fn redact_content(content: &mut Object<'_>, kind: &str, rules: &RedactionRules) {
    match kind {
        "m.room.member" => content.retain(|key, value| match key {
            "membership" => true,
            "join_authorised_via_users_server" => rules.keep_room_member_join_authorised_via_users_server,
            "third_party_invite" if rules.keep_room_member_third_party_invite_signed => {
                // Anything but an object has no `signed` to keep.
                let Value::Object(invite) = value else { return false };
                invite.retain(|key, _| key == "signed");
                true
            }
            _ => false,
        }),
        "m.room.create" if rules.keep_room_create_content => {}
        "m.room.create" => content.retain(|key, _| key == "creator"),
        "m.room.join_rules" => content.retain(|key, _| match key {
            "join_rule" => true,
            "allow" => rules.keep_room_join_rules_allow,
            _ => false,
        }),
        "m.room.power_levels" => content.retain(|key, _| match key {
            "ban" | "events" | "events_default" | "kick" | "redact" | "state_default" | "users"
            | "users_default" => true,
            "invite" => rules.keep_room_power_levels_invite,
            _ => false,
        }),
        "m.room.history_visibility" => content.retain(|key, _| key == "history_visibility"),
        "m.room.redaction" if rules.keep_room_redaction_redacts => content.retain(|key, _| key == "redacts"),
        "m.room.aliases" if rules.keep_room_aliases_aliases => content.retain(|key, _| key == "aliases"),
        _ => content.clear(),
    }
}
