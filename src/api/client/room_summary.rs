//! `GET /room_summary/{roomIdOrAlias}` ("Room summaries"): for users, and without a token for the world.

use ruma::{OwnedRoomId, RoomAliasId, api::client::room::get_summary, events::room::member::MembershipState};
use serde::Serialize;

use crate::{
    app::App,
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
    let room = match OwnedRoomId::try_from(asked.as_str()) {
        Ok(room_id) => app.rooms.by_id(&room_id).await,
        Err(_) => match <&RoomAliasId>::try_from(asked.as_str()) {
            Ok(alias) => app.rooms.by_alias(alias).await,
            Err(cause) => return Err(MatrixError::invalid_param(cause.to_string())),
        },
    };
    let user_id = visitor.session.as_ref().map(|session| &*session.user_id);
    let (preview, membership) = app.rooms.preview(room, user_id).await?;
    Ok(Json(Summary {
        membership: user_id.map(|_| membership),
        early_room_version: preview.room_version.clone(),
        early_encryption: preview.encryption.clone(),
        preview,
    }))
}
