//! `GET /rooms/{roomId}/hierarchy` ("Spaces").

use ruma::api::client::space::get_hierarchy;
use serde::Serialize;

use crate::{
    account::Session,
    app::App,
    http::{Json, MatrixError, Routes},
    room::{Hierarchy, SpaceRoom},
};

/// Rooms of a page if the client doesn't say, and the most.
const USUAL: usize = 50;
const MOST: usize = 100;

pub(super) fn routes() -> Routes {
    Routes::default().add(hierarchy)
}

#[derive(Serialize)]
struct Page {
    rooms: Vec<SpaceRoom>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

async fn hierarchy(
    app: App,
    session: Session,
    request: get_hierarchy::v1::Request,
) -> Result<Json<Page>, MatrixError> {
    let limit = request.limit.map_or(USUAL, |limit| usize::try_from(limit).unwrap_or(MOST));
    if limit == 0 {
        return Err(MatrixError::invalid_param("`limit` has to be greater than 0"));
    }
    let asked = Hierarchy {
        user_id: session.user_id,
        root: request.room_id,
        suggested_only: request.suggested_only,
        max_depth: request.max_depth.map(u64::from),
    };
    let from = request.from.filter(|from| !from.is_empty());
    let page = app.rooms.hierarchy(asked, from.as_deref(), limit.min(MOST), &*app.peers).await?;
    Ok(Json(Page { rooms: page.rooms, next_batch: page.next_batch }))
}
