//! `GET /rooms/{roomId}/threads`: the threads of a room ("Querying threads in a room").

use ruma::api::client::threads::get_threads::v1::{IncludeThreads, Request};
use serde::Serialize;
use serde_json::value::RawValue;

use super::history::{place, token};
use crate::{
    account::Session,
    app::App,
    http::{Json, MatrixError, Routes},
    room::Reader,
};

/// Threads of a page that names no number, and the most that it may name.
const USUAL: usize = 20;
const MOST: usize = 100;

pub(super) fn routes() -> Routes {
    Routes::default().add(threads)
}

#[derive(Serialize)]
struct Answer {
    chunk: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

async fn threads(app: App, session: Session, request: Request) -> Result<Json<Answer>, MatrixError> {
    let room = app.rooms.of_acquaintance(&request.room_id).await?;
    let sight = app.rooms.reading(&room, &session.user_id).await?;
    let participated = match request.include {
        IncludeThreads::All => false,
        IncludeThreads::Participated => true,
        _ => return Err(MatrixError::invalid_param("`include` must be `all` or `participated`")),
    };
    let from = place(&app, &room, request.from).await?;
    let limit = match request.limit.map(u64::from) {
        None => USUAL,
        Some(0) => return Err(MatrixError::invalid_param("`limit` must be greater than zero")),
        Some(limit) => usize::try_from(limit).unwrap_or(MOST).min(MOST),
    };
    let reader = Reader::of(&session);
    let page = app.rooms.threads(&room, &sight, reader, participated, from, limit).await?;
    Ok(Json(Answer {
        chunk: app.rooms.client_events(&room, reader, &page.roots, Some(&sight)).await?,
        next_batch: page.next.map(token),
    }))
}
