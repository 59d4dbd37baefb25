//! `GET /room_summary/{roomIdOrAlias}` ("Room summaries"): for users, and without a token for the world.

use ruma::{OwnedRoomId, RoomAliasId, api::client::room::get_summary, events::room::member::MembershipState};
use serde::Serialize;

use crate::{
    app::App,
    handshakes,
    http::{Json, MatrixError, Routes, Visitor},
    limits::Class,
    room::Preview,
};

pub(super) fn routes() -> Routes {
    // Limited though the specification doesn't ask for it: anybody may ask, by names that they guess.
    let class = Class::Default;
    Routes::default().limited(class, summary).limited_alias(
        class,
        // What clients call that came before the proposal's last form.
        "/_matrix/client/unstable/im.nheko.summary/summary/{room_id_or_alias}",
        summary,
    )
}

#[derive(Serialize)]
struct Summary {
    #[serde(flatten)]
    preview: Preview,
    #[serde(skip_serializing_if = "Option::is_none")]
    membership: Option<MembershipState>,
    /// Names that today's clients read, from before the proposal's last form.
    #[serde(rename = "im.nheko.summary.room_version")]
    early_room_version: String,
    #[serde(rename = "im.nheko.summary.encryption", skip_serializing_if = "Option::is_none")]
    early_encryption: Option<String>,
}

async fn summary(
    app: App,
    visitor: Visitor,
    request: get_summary::v1::Request,
) -> Result<Json<Summary>, MatrixError> {
    let asked = request.room_id_or_alias;
    let user_id = visitor.session.as_ref().map(|session| &*session.user_id);
    let (preview, membership) = if let Some(user_id) = user_id {
        let named = match OwnedRoomId::try_from(asked.as_str()) {
            Ok(room_id) => Ok((room_id, request.via)),
            Err(_) => app.handshakes.by_alias(alias(asked.as_str())?).await,
        };
        match named {
            Ok((room_id, via)) => app.rooms.preview_anywhere(&room_id, &via, user_id, &*app.peers).await?,
            Err(handshakes::Error::Room(cause)) => app.rooms.preview(Err(cause), Some(user_id)).await?,
            Err(cause) => return Err(cause.into()),
        }
    } else {
        // Whoever has no account here isn't asked for by us.
        let room = match OwnedRoomId::try_from(asked.as_str()) {
            Ok(room_id) => app.rooms.by_id(&room_id).await,
            Err(_) => app.rooms.by_alias(alias(asked.as_str())?).await,
        };
        app.rooms.preview(room, None).await?
    };
    Ok(Json(Summary {
        membership: user_id.map(|_| membership),
        early_room_version: preview.room_version.clone(),
        early_encryption: preview.encryption.clone(),
        preview,
    }))
}

fn alias(text: &str) -> Result<&RoomAliasId, MatrixError> {
    text.try_into().map_err(|cause: ruma::IdParseError| MatrixError::invalid_param(cause.to_string()))
}
