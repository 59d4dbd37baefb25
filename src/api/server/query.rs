//! [Querying for information](https://spec.matrix.org/v1.19/server-server-api/#querying-for-information).

use ruma::RoomAliasId;
use serde_json::{Value, json};

use crate::{
    api::bare::{Bare, Get},
    app::App,
    http::{Json, MatrixError, Origin, Routes},
    limits::Class,
};

pub(super) fn routes() -> Routes {
    Routes::default().limited_alias(Class::Free, "/_matrix/federation/v1/query/directory", directory)
}

/// The room that an alias of this server names, and a server that is in it.
async fn directory(app: App, _: Origin, request: Bare<Get>) -> Result<Json<Value>, MatrixError> {
    let alias = request.query("room_alias");
    let alias = alias.ok_or_else(|| MatrixError::missing_param("`room_alias` is missing"))?;
    let alias = RoomAliasId::parse(alias).map_err(|cause| MatrixError::invalid_param(cause.to_string()))?;
    let room = app.rooms.by_alias(&alias).await?;
    Ok(Json(json!({ "room_id": room.room_id, "servers": [app.server_name] })))
}
