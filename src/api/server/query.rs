//! [Querying for information](https://spec.matrix.org/v1.19/server-server-api/#querying-for-information), the published room
//! directory and spaces.

use ruma::{RoomAliasId, RoomId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    account,
    api::bare::{Bare, Get, Post},
    app::App,
    config::LookUp,
    http::{Json, MatrixError, Origin, Routes},
    limits::Class,
    room::{Search, SpaceRoom},
};

/// Rooms of a page of the directory if nobody says, and the most.
const USUAL: usize = 50;
const MOST: usize = 200;

pub(super) fn routes() -> Routes {
    let free = Class::Free;
    Routes::default()
        .limited_alias(free, "/_matrix/federation/v1/query/directory", directory)
        .limited_alias(free, "/_matrix/federation/v1/query/profile", profile)
        .limited_alias(free, "/_matrix/federation/v1/query/{queryType}", other)
        .limited_alias(free, "/_matrix/federation/v1/publicRooms", public_rooms)
        .limited_alias(free, "/_matrix/federation/v1/publicRooms", public_rooms_filtered)
        .limited_alias(free, "/_matrix/federation/v1/hierarchy/{roomId}", hierarchy)
}

/// The room that an alias of this server names, and servers that are in it.
async fn directory(app: App, _: Origin, request: Bare<Get>) -> Result<Json<Value>, MatrixError> {
    let alias = request.query("room_alias");
    let alias = alias.ok_or_else(|| MatrixError::missing_param("`room_alias` is missing"))?;
    let alias = RoomAliasId::parse(alias).map_err(|cause| MatrixError::invalid_param(cause.to_string()))?;
    if alias.server_name() != app.server_name {
        return Err(MatrixError::not_found("the alias is not of this server"));
    }
    let (room_id, servers) = app.handshakes.by_alias(&alias).await?;
    Ok(Json(json!({ "room_id": room_id, "servers": servers })))
}

/// Any other query: there are no more.
async fn other(_: App, _: Origin, _: Bare<Get>) -> Result<Json<()>, MatrixError> {
    Err(MatrixError::not_found("this server answers no queries of this type"))
}

/// The profile of a user of this server.
async fn profile(app: App, _: Origin, request: Bare<Get>) -> Result<Json<Map<String, Value>>, MatrixError> {
    let user_id = request.query("user_id");
    let user_id = user_id.ok_or_else(|| MatrixError::missing_param("`user_id` is missing"))?;
    let user_id = UserId::parse(user_id).map_err(|cause| MatrixError::invalid_param(cause.to_string()))?;
    // PF-04: who is looked up by acquaintances alone can't be known to a server.
    let open = app.config.profiles.look_up != LookUp::Acquaintances;
    if user_id.server_name() != app.server_name || !open {
        return Err(account::Error::NotFound("profile").into());
    }
    let mut profile = app.accounts.profile(&user_id).await?;
    if let Some(field) = request.query("field") {
        profile.retain(|name, _| *name == field);
    }
    Ok(Json(profile))
}

#[derive(Default, Deserialize)]
struct Asked {
    limit: Option<u64>,
    since: Option<String>,
    #[serde(default)]
    filter: Filter,
}

#[derive(Default, Deserialize)]
struct Filter {
    generic_search_term: Option<String>,
    #[serde(default)]
    room_types: Vec<Option<String>>,
}

async fn public_rooms(app: App, _: Origin, request: Bare<Get>) -> Result<Json<Value>, MatrixError> {
    let limit = request.query("limit").map(|limit| limit.parse());
    let limit = limit.transpose().map_err(|_| MatrixError::invalid_param("`limit` is a number"))?;
    list(&app, Asked { limit, since: request.query("since"), ..Asked::default() }).await
}

async fn public_rooms_filtered(
    app: App,
    _: Origin,
    request: Bare<Post, Asked>,
) -> Result<Json<Value>, MatrixError> {
    list(&app, request.content).await
}

async fn list(app: &App, asked: Asked) -> Result<Json<Value>, MatrixError> {
    let limit = asked.limit.map_or(USUAL, |limit| usize::try_from(limit).unwrap_or(MOST));
    let query = Search {
        limit: limit.clamp(1, MOST),
        since: asked.since.filter(|since| !since.is_empty()),
        term: asked.filter.generic_search_term.filter(|term| !term.is_empty()),
        room_types: asked.filter.room_types,
    };
    let page = app.rooms.public_rooms(&query).await?;
    let mut answer = json!({ "chunk": page.rooms, "total_room_count_estimate": page.total });
    if let Some(next) = page.next_batch {
        answer["next_batch"] = json!(next);
    }
    if let Some(previous) = page.prev_batch {
        answer["prev_batch"] = json!(previous);
    }
    Ok(Json(answer))
}

/// A space and its rooms, as far as this server has them and the asking one may know.
async fn hierarchy(
    app: App,
    origin: Origin,
    request: Bare<Get>,
) -> Result<Json<impl Serialize>, MatrixError> {
    #[derive(Serialize)]
    struct Answer {
        room: SpaceRoom,
        children: Vec<SpaceRoom>,
        inaccessible_children: Vec<String>,
    }
    let [room_id] = request.parameters()?;
    let room_id = RoomId::parse(room_id).map_err(|cause| MatrixError::invalid_param(cause.to_string()))?;
    let suggested_only = request.query("suggested_only").is_some_and(|only| only == "true");
    let (room, children, inaccessible) = app.rooms.hierarchy_for(&room_id, &origin, suggested_only).await?;
    let inaccessible_children = inaccessible.into_iter().map(Into::into).collect();
    Ok(Json(Answer { room, children, inaccessible_children }))
}
