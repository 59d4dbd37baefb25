//! Looking for people ("User Directory") and what one has in common with them ("Mutual Rooms").

use ruma::{
    OwnedRoomId, UserId,
    api::client::{membership::get_mutual_rooms, user_directory::search_users::v3::Request},
};
use serde::Serialize;

use super::with::{BatchToken, With};
use crate::{
    account::Session,
    app::App,
    http::{Json, MatrixError, Routes},
};

const MOST: usize = 100;

pub(super) fn routes() -> Routes {
    Routes::default().add(search).add(mutual_rooms).add(mutual_rooms_unstable)
}

#[derive(Serialize)]
struct Found {
    results: Vec<Person>,
    limited: bool,
}

#[derive(Serialize)]
struct Person {
    user_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar_url: Option<String>,
}

async fn search(app: App, session: Session, request: Request) -> Result<Json<Found>, MatrixError> {
    let limit = usize::try_from(request.limit).unwrap_or(MOST).clamp(1, MOST);
    let everybody = app.config.user_directory.search_all_users;
    let found = app.accounts.find_people(&session.user_id, &request.search_term, limit, everybody).await;
    let (people, limited) = found?;
    let results = people.into_iter().map(|person| Person {
        user_id: person.user_id,
        display_name: person.display_name,
        avatar_url: person.avatar_url,
    });
    Ok(Json(Found { results: results.collect(), limited }))
}

#[derive(Serialize)]
struct Mutual {
    joined: Vec<OwnedRoomId>,
    count: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
    /// What clients from before 1.19 look for.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch_token: Option<String>,
}

async fn mutual_rooms(
    app: App,
    session: Session,
    request: get_mutual_rooms::v1::Request,
) -> Result<Json<Mutual>, MatrixError> {
    mutual(&app, &session, &request.user_id, request.from.as_deref()).await
}

async fn mutual_rooms_unstable(
    app: App,
    session: Session,
    request: With<get_mutual_rooms::unstable::Request, BatchToken>,
) -> Result<Json<Mutual>, MatrixError> {
    let (request, BatchToken(token)) = (request.request, request.more);
    mutual(&app, &session, &request.user_id, request.from.or(token).as_deref()).await
}

async fn mutual(
    app: &App,
    session: &Session,
    other: &UserId,
    from: Option<&str>,
) -> Result<Json<Mutual>, MatrixError> {
    let found = app.accounts.mutual_rooms(&session.user_id, other, from).await?;
    let next_batch = found.next_batch;
    let next_batch_token = next_batch.clone();
    Ok(Json(Mutual { joined: found.rooms, count: found.count, next_batch, next_batch_token }))
}
