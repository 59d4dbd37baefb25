//! [Third-party invites](https://spec.matrix.org/v1.19/server-server-api/#third-party-invites): of people who were known by an
//! address when they were invited.

use ruma::{OwnedUserId, RoomId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    api::bare::{Bare, Put},
    app::App,
    handshakes::{Bound, Exchange},
    http::{Anonymous, Json, MatrixError, Origin, Routes},
    limits::Class,
};

/// Invites that are looked at of one request. It is anybody's.
const MOST_INVITES: usize = 20;

pub(super) fn routes() -> Routes {
    Routes::default()
        .limited_alias(Class::Default, "/_matrix/federation/v1/3pid/onbind", onbind)
        .limited_alias(Class::Free, "/_matrix/federation/v1/exchange_third_party_invite/{roomId}", exchange)
}

#[derive(Deserialize)]
struct Bind {
    mxid: OwnedUserId,
    invites: Vec<Bound>,
}

/// An identity server says whose address it is. That alone is believed of nobody: each invite is signed.
async fn onbind(app: App, _: Anonymous, request: Bare<Put, Bind>) -> Result<Json<Value>, MatrixError> {
    let Bind { mxid, invites } = request.content;
    for invite in invites.into_iter().filter(|invite| invite.mxid == mxid).take(MOST_INVITES) {
        let room_id = invite.room_id.clone();
        if let Err(cause) = app.handshakes.bound(invite).await {
            tracing::info!(%mxid, %room_id, %cause, "an invite by an address isn't fulfilled");
        }
    }
    Ok(Json(json!({})))
}

async fn exchange(
    app: App,
    origin: Origin,
    request: Bare<Put, Exchange>,
) -> Result<Json<Value>, MatrixError> {
    let [room_id] = request.parameters()?;
    let room_id = RoomId::parse(room_id).map_err(|cause| MatrixError::invalid_param(cause.to_string()))?;
    app.handshakes.exchange(&origin, &room_id, request.content).await?;
    Ok(Json(json!({})))
}
