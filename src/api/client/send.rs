//! Sending events to a room: messages, state and redactions.

use ruma::{
    EventId, OwnedEventId, OwnedUserId, RoomId,
    api::client::{message::send_message_event, redact::redact_event, state::send_state_event},
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::{
    delayed_events::{Delayable, Sent, Wanted, schedule_by_query},
    finished::finished,
    state::KEYLESS,
    with::Delay,
};
use crate::{
    account::Session,
    app::App,
    http::{Json, MatrixError, Routes},
    limits::Class,
    room::{self, Txn},
};

/// The longest transaction id, in bytes.
const MAX_TXN_ID: usize = 255;

pub(super) fn routes() -> Routes {
    let routes = Routes::default()
        .limited(Class::Message, send)
        .limited(Class::Message, redact)
        .limited(Class::Message, set_state);
    KEYLESS.iter().fold(routes, |routes, path| routes.limited_alias(Class::Message, path, set_state))
}

async fn send(
    app: App,
    session: Session,
    request: Delayable<send_message_event::v3::Request>,
) -> Result<Json<Sent>, MatrixError> {
    let Delayable { request, more: Delay(delay) } = request;
    let kind = request.event_type.to_string();
    if session.suspended {
        let redacts = request.body.get_field::<OwnedEventId>("redacts").ok().flatten();
        let target = redacts.filter(|_| kind == "m.room.redaction" && delay.is_none());
        check_own(&app, &session, &request.room_id, target.as_deref()).await?;
    }
    let txn = txn(&session, request.txn_id.as_str(), &["send", request.room_id.as_str(), &kind])?;
    let content = request.body.into_json();
    if let Some(delay) = delay {
        let (room_id, txn) = (&*request.room_id, Some(txn));
        let wanted = Wanted { room_id, kind, state_key: None, content, txn };
        return schedule_by_query(&app, &session, wanted, &delay).await.map(Json);
    }
    let room = app.rooms.of_acquaintance(&request.room_id).await?;
    app.presence.active(session.recipient);
    let event_id =
        app.rooms.send(&room, &session.user_id, TimelineEventType::from(kind), content, txn).await?;
    Ok(Json(Sent::Now(event_id)))
}

async fn redact(
    app: App,
    session: Session,
    request: redact_event::v3::Request,
) -> Result<redact_event::v3::Response, MatrixError> {
    if session.suspended {
        check_own(&app, &session, &request.room_id, Some(&request.event_id)).await?;
    }
    let scope = ["redact", request.room_id.as_str(), request.event_id.as_str()];
    let txn = txn(&session, request.txn_id.as_str(), &scope)?;
    let room = app.rooms.of_acquaintance(&request.room_id).await?;
    let content = room::reason(request.reason);
    app.presence.active(session.recipient);
    let event_id = app.rooms.redact(&room, &session.user_id, request.event_id, content, txn).await?;
    Ok(redact_event::v3::Response::new(event_id))
}

async fn set_state(
    app: App,
    session: Session,
    request: Delayable<send_state_event::v3::Request>,
) -> Result<Json<Sent>, MatrixError> {
    let Delayable { request, more: Delay(delay) } = request;
    if session.suspended && (delay.is_some() || !is_leaving(&session, &request)) {
        return Err(MatrixError::suspended());
    }
    if session.guest && request.event_type == StateEventType::RoomMember && !is_own_way(&session, &request) {
        return Err(MatrixError::guest());
    }
    let content = request.body.into_json();
    if let Some(delay) = delay {
        let (kind, state_key) = (request.event_type.to_string(), Some(request.state_key));
        let wanted = Wanted { room_id: &request.room_id, kind, state_key, content, txn: None };
        return schedule_by_query(&app, &session, wanted, &delay).await.map(Json);
    }
    // Not only for members: who sets their own membership may be about to join.
    let room = app.rooms.of_acquaintance(&request.room_id).await?;
    app.presence.active(session.recipient);
    if let Some(invitee) = invited_elsewhere(&app, &request.event_type, &request.state_key, &content) {
        let content =
            serde_json::from_str(content.get()).map_err(|cause| MatrixError::bad_json(cause.to_string()))?;
        return finished(async move {
            let event_id = app.handshakes.invite_with(&room, &session.user_id, &invitee, content).await?;
            Ok(Json(Sent::Now(event_id)))
        })
        .await;
    }
    let event_id =
        app.rooms.set_state(&room, &session.user_id, request.event_type, request.state_key, content).await?;
    Ok(Json(Sent::Now(event_id)))
}

/// Whom a state event invites whose server has to agree.
fn invited_elsewhere(
    app: &App,
    kind: &StateEventType,
    state_key: &str,
    content: &RawValue,
) -> Option<OwnedUserId> {
    #[derive(Deserialize)]
    struct Content {
        membership: MembershipState,
    }
    if *kind != StateEventType::RoomMember {
        return None;
    }
    let invites = serde_json::from_str::<Content>(content.get())
        .is_ok_and(|content| content.membership == MembershipState::Invite);
    let invitee = OwnedUserId::try_from(state_key).ok()?;
    (invites && invitee.server_name() != app.server_name).then_some(invitee)
}

/// LK-02: a suspended account may redact what it sent itself.
async fn check_own(
    app: &App,
    session: &Session,
    room_id: &RoomId,
    target: Option<&EventId>,
) -> Result<(), MatrixError> {
    let target = target.ok_or_else(MatrixError::suspended)?;
    let room = app.rooms.of_acquaintance(room_id).await?;
    match app.rooms.event(&room, target).await {
        Ok(event) if event.pdu.sender == session.user_id => Ok(()),
        Ok(_) | Err(room::Error::NotFound(_)) => Err(MatrixError::suspended()),
        Err(cause) => Err(cause.into()),
    }
}

/// LK-02: a suspended account may leave.
fn is_leaving(session: &Session, request: &send_state_event::v3::Request) -> bool {
    request.event_type == StateEventType::RoomMember
        && request.state_key == session.user_id
        && membership(request).as_deref() == Some("leave")
}

/// GU-01: a guest joins and leaves. The requests that do anything else to a membership aren't open to it.
fn is_own_way(session: &Session, request: &send_state_event::v3::Request) -> bool {
    request.state_key == session.user_id && matches!(membership(request).as_deref(), Some("join" | "leave"))
}

fn membership(request: &send_state_event::v3::Request) -> Option<String> {
    request.body.get_field("membership").ok().flatten()
}

/// GN-06: a transaction id counts for one device and one path.
pub(super) fn txn(session: &Session, txn_id: &str, scope: &[&str]) -> Result<Txn, MatrixError> {
    if txn_id.len() > MAX_TXN_ID {
        return Err(MatrixError::invalid_param(format!(
            "the transaction id has {} bytes, more than the {MAX_TXN_ID} allowed",
            txn_id.len()
        )));
    }
    let mut hash = Sha256::new();
    for part in scope {
        hash.update(part.as_bytes());
        // No part can hold it, so that no two scopes look alike.
        hash.update([0]);
    }
    let hash: [u8; 32] = hash.finalize().into();
    let path = hash.first_chunk().map_or(0, |start| i64::from_be_bytes(*start));
    Ok(Txn { device: session.device, path, txn_id: txn_id.to_owned() })
}
