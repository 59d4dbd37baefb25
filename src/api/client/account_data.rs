//! Account data, global and of rooms ("Client Config").

use ruma::{
    RoomId,
    api::client::config::{
        get_global_account_data::v3 as get_global, get_room_account_data::v3 as get_room,
        set_global_account_data::v3 as set_global, set_room_account_data::v3 as set_room,
    },
};
use serde_json::{Map, Value, json};

use super::{body::Body, own};
use crate::{
    account::{GLOBAL, Session},
    api::bare::{Bare, Delete},
    app::App,
    http::{Json, MatrixError, Routes},
    limits::Class,
};

/// Deleting is a proposal: MSC3391.
const DELETE: &str = "/_matrix/client/unstable/org.matrix.msc3391/user/{user_id}/account_data/{type}";
const DELETE_IN_ROOM: &str =
    "/_matrix/client/unstable/org.matrix.msc3391/user/{user_id}/rooms/{room_id}/account_data/{type}";

type Set<R> = Body<R, Map<String, Value>>;

pub fn routes() -> Routes {
    Routes::default()
        .add(get_in_general)
        .add(get_in_room)
        .add::<Set<set_global::Request>, _, _, _, _>(set_in_general)
        .add::<Set<set_room::Request>, _, _, _, _>(set_in_room)
        .limited_alias(Class::Default, DELETE, delete_in_general)
        .limited_alias(Class::Default, DELETE_IN_ROOM, delete_in_room)
}

async fn get_in_general(
    app: App,
    session: Session,
    request: get_global::Request,
) -> Result<Json<Value>, MatrixError> {
    own::check(&session, &request.user_id)?;
    let kind = request.event_type.to_string();
    Ok(Json(app.accounts.data(session.recipient, &session.user_id, GLOBAL, &kind).await?))
}

async fn get_in_room(
    app: App,
    session: Session,
    request: get_room::Request,
) -> Result<Json<Value>, MatrixError> {
    own::check(&session, &request.user_id)?;
    let room = app.accounts.room_of(&session.user_id, &request.room_id).await?;
    let kind = request.event_type.to_string();
    Ok(Json(app.accounts.data(session.recipient, &session.user_id, room, &kind).await?))
}

async fn set_in_general(
    app: App,
    session: Session,
    request: Set<set_global::Request>,
) -> Result<Json<Value>, MatrixError> {
    let [user_id, kind] = request.parameters()?;
    own::check_text(&session, user_id)?;
    app.accounts.set_data(session.recipient, GLOBAL, kind, &request.content).await?;
    Ok(Json(json!({})))
}

async fn set_in_room(
    app: App,
    session: Session,
    request: Set<set_room::Request>,
) -> Result<Json<Value>, MatrixError> {
    let [user_id, room_id, kind] = request.parameters()?;
    own::check_text(&session, user_id)?;
    let room_id = RoomId::parse(room_id).map_err(|cause| MatrixError::invalid_param(cause.to_string()))?;
    let room = app.accounts.room_of(&session.user_id, &room_id).await?;
    app.accounts.set_data(session.recipient, room, kind, &request.content).await?;
    Ok(Json(json!({})))
}

async fn delete_in_general(
    app: App,
    session: Session,
    request: Bare<Delete>,
) -> Result<Json<Value>, MatrixError> {
    let [user_id, kind] = request.parameters()?;
    own::check_text(&session, user_id)?;
    app.accounts.delete_data(session.recipient, GLOBAL, kind).await?;
    Ok(Json(json!({})))
}

async fn delete_in_room(
    app: App,
    session: Session,
    request: Bare<Delete>,
) -> Result<Json<Value>, MatrixError> {
    let [user_id, room_id, kind] = request.parameters()?;
    own::check_text(&session, user_id)?;
    let room_id = RoomId::parse(room_id).map_err(|cause| MatrixError::invalid_param(cause.to_string()))?;
    let room = app.accounts.room_of(&session.user_id, &room_id).await?;
    app.accounts.delete_data(session.recipient, room, kind).await?;
    Ok(Json(json!({})))
}
