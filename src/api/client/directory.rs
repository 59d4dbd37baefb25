//! Room aliases and the public directory ("Room aliases" and "Listing rooms" of the Client-Server API).

use http::StatusCode;
use ruma::{
    UInt,
    api::client::{
        alias::{create_alias, delete_alias, get_alias},
        directory::{get_public_rooms, get_public_rooms_filtered, get_room_visibility, set_room_visibility},
        room::{Visibility, aliases},
    },
    directory::{PublicRoomsChunk, PublicRoomsChunkInit, RoomNetwork},
    events::room::history_visibility::HistoryVisibility,
};

use super::finished::finished;
use crate::{
    account::Session,
    app::App,
    http::{Anonymous, MatrixError, Routes, Visitor},
    limits::Class,
    room::{self, PublicRoom, PublicRooms, Search},
};

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 200;

pub(super) fn routes() -> Routes {
    // Some are limited though the specification doesn't ask for it: names are scarce, and a page looks at many rooms.
    Routes::default()
        .add(resolve)
        .limited(Class::Default, add_alias)
        .limited(Class::Default, remove_alias)
        .add(room_aliases)
        .add(visibility)
        .limited(Class::Default, set_visibility)
        .limited(Class::Default, public_rooms)
        .limited(Class::Default, public_rooms_filtered)
}

async fn resolve(
    app: App,
    _: Anonymous,
    request: get_alias::v3::Request,
) -> Result<get_alias::v3::Response, MatrixError> {
    let (room_id, servers) = app.handshakes.by_alias(&request.room_alias).await?;
    Ok(get_alias::v3::Response::new(room_id, servers))
}

async fn add_alias(
    app: App,
    session: Session,
    request: create_alias::v3::Request,
) -> Result<create_alias::v3::Response, MatrixError> {
    let room = app.rooms.of_member(&request.room_id, &session.user_id).await?;
    match app.rooms.add_alias(&room, &request.room_alias, &session.user_id).await {
        Ok(()) => Ok(create_alias::v3::Response::new()),
        // `createRoom` has another errcode for it.
        Err(cause @ room::Error::AliasInUse(_)) => {
            Err(MatrixError::new(StatusCode::CONFLICT, "M_UNKNOWN", cause.to_string()))
        }
        Err(cause) => Err(cause.into()),
    }
}

async fn remove_alias(
    app: App,
    session: Session,
    request: delete_alias::v3::Request,
) -> Result<delete_alias::v3::Response, MatrixError> {
    finished(async move {
        app.rooms.remove_alias(&request.room_alias, &session.user_id, session.admin).await?;
        Ok(delete_alias::v3::Response::new())
    })
    .await
}

async fn room_aliases(
    app: App,
    session: Session,
    request: aliases::v3::Request,
) -> Result<aliases::v3::Response, MatrixError> {
    let room = app.rooms.of_acquaintance(&request.room_id).await?;
    let snapshot = room.snapshot();
    let readable = snapshot.history_visibility() == HistoryVisibility::WorldReadable;
    if !readable && !snapshot.is_joined(&session.user_id) {
        app.rooms.of_member(&request.room_id, &session.user_id).await?;
    }
    Ok(aliases::v3::Response::new(app.rooms.aliases(&room).await?))
}

async fn visibility(
    app: App,
    visitor: Visitor,
    request: get_room_visibility::v3::Request,
) -> Result<get_room_visibility::v3::Response, MatrixError> {
    let unknown = || MatrixError::not_found("there is no such room in the directory");
    let room = match app.rooms.by_id(&request.room_id).await {
        Ok(room) => room,
        Err(room::Error::NotFound(_)) => return Err(unknown()),
        Err(cause) => return Err(cause.into()),
    };
    if app.rooms.is_published(&room).await? {
        return Ok(get_room_visibility::v3::Response::new(Visibility::Public));
    }
    // That a private room exists is known to its members alone.
    if visitor.session.is_some_and(|session| room.snapshot().is_joined(&session.user_id)) {
        return Ok(get_room_visibility::v3::Response::new(Visibility::Private));
    }
    Err(unknown())
}

async fn set_visibility(
    app: App,
    session: Session,
    request: set_room_visibility::v3::Request,
) -> Result<set_room_visibility::v3::Response, MatrixError> {
    let published = is_public(&request.visibility)?;
    let room = app.rooms.of_member(&request.room_id, &session.user_id).await?;
    app.rooms.publish(&room, &session.user_id, published).await?;
    Ok(set_room_visibility::v3::Response::new())
}

/// Whether a room of this visibility is in the directory.
pub(super) fn is_public(visibility: &Visibility) -> Result<bool, MatrixError> {
    match visibility {
        Visibility::Public => Ok(true),
        Visibility::Private => Ok(false),
        other => Err(MatrixError::invalid_param(format!("`{other}` is not a visibility"))),
    }
}

async fn public_rooms(
    app: App,
    _: Anonymous,
    request: get_public_rooms::v3::Request,
) -> Result<get_public_rooms::v3::Response, MatrixError> {
    let query = Search {
        limit: limit(request.limit),
        since: request.since.filter(|since| !since.is_empty()),
        term: None,
        room_types: Vec::new(),
    };
    let page = list(&app, request.server.as_deref(), &query).await?;
    let mut response = get_public_rooms::v3::Response::new(Vec::new());
    response.total_room_count_estimate = UInt::try_from(page.total).ok();
    response.chunk = page.rooms.into_iter().map(chunk).collect();
    response.next_batch = page.next_batch;
    response.prev_batch = page.prev_batch;
    Ok(response)
}

async fn public_rooms_filtered(
    app: App,
    _: Session,
    request: get_public_rooms_filtered::v3::Request,
) -> Result<get_public_rooms_filtered::v3::Response, MatrixError> {
    let room_types = request.filter.room_types.iter().map(|kind| kind.as_str().map(str::to_owned));
    let query = Search {
        limit: limit(request.limit),
        since: request.since.filter(|since| !since.is_empty()),
        term: request.filter.generic_search_term.filter(|term| !term.is_empty()),
        room_types: room_types.collect(),
    };
    let page = match request.room_network {
        // No room here is one of another network.
        RoomNetwork::ThirdParty(_) => PublicRooms::default(),
        _ => list(&app, request.server.as_deref(), &query).await?,
    };
    let mut response = get_public_rooms_filtered::v3::Response::new();
    response.total_room_count_estimate = UInt::try_from(page.total).ok();
    response.chunk = page.rooms.into_iter().map(chunk).collect();
    response.next_batch = page.next_batch;
    response.prev_batch = page.prev_batch;
    Ok(response)
}

async fn list(
    app: &App,
    server: Option<&ruma::ServerName>,
    query: &Search,
) -> Result<PublicRooms, MatrixError> {
    if let Some(server) = server
        && server != app.server_name
    {
        return of_another(app, server, query).await;
    }
    Ok(app.rooms.public_rooms(query).await?)
}

/// A part of the directory of another server.
async fn of_another(
    app: &App,
    server: &ruma::ServerName,
    query: &Search,
) -> Result<PublicRooms, MatrixError> {
    let mut asked = serde_json::json!({ "limit": query.limit });
    if let Some(since) = &query.since {
        asked["since"] = since.as_str().into();
    }
    if let Some(term) = &query.term {
        asked["filter"]["generic_search_term"] = term.as_str().into();
    }
    if !query.room_types.is_empty() {
        asked["filter"]["room_types"] = serde_json::json!(query.room_types);
    }
    let page = app.peers.public_rooms::<PublicRooms>(server, &asked).await;
    let mut page = page.map_err(|cause| {
        let text = format!("the directory of {server} can't be had: {cause}");
        MatrixError::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", text)
    })?;
    page.rooms.truncate(query.limit);
    Ok(page)
}

fn limit(asked: Option<UInt>) -> usize {
    match asked.and_then(|asked| usize::try_from(u64::from(asked)).ok()) {
        None | Some(0) => DEFAULT_LIMIT,
        Some(asked) => asked.min(MAX_LIMIT),
    }
}

fn chunk(room: PublicRoom) -> PublicRoomsChunk {
    let mut chunk = PublicRoomsChunk::from(PublicRoomsChunkInit {
        num_joined_members: UInt::try_from(room.joined_members as u64).unwrap_or(UInt::MAX),
        room_id: room.room_id,
        world_readable: room.world_readable,
        guest_can_join: room.guest_can_join,
    });
    chunk.name = room.name;
    chunk.topic = room.topic;
    chunk.canonical_alias = room.canonical_alias;
    chunk.avatar_url = room.avatar_url.map(Into::into);
    chunk.join_rule = room.join_rule.into();
    chunk.room_type = room.room_type.map(Into::into);
    chunk
}
