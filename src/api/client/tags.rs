//! Tags of rooms ("Room Tagging").

use ruma::{
    RoomId,
    api::client::tag::{create_tag::v3 as create, delete_tag::v3 as delete, get_tags::v3 as get},
};
use serde_json::{Map, Value, json};

use super::{body::Body, own};
use crate::{
    account::Session,
    app::App,
    http::{Json, MatrixError, Routes},
};

type Create = Body<create::Request, Map<String, Value>>;

pub fn routes() -> Routes {
    Routes::default().add(get).add::<Create, _, _, _, _>(create).add(delete)
}

async fn get(app: App, session: Session, request: get::Request) -> Result<Json<Value>, MatrixError> {
    own::check(&session, &request.user_id)?;
    let room = app.accounts.room_of(&session.user_id, &request.room_id).await?;
    Ok(Json(json!({ "tags": app.accounts.tags(session.recipient, room).await? })))
}

async fn create(app: App, session: Session, request: Create) -> Result<create::Response, MatrixError> {
    let [user_id, room_id, tag] = request.parameters()?;
    own::check_text(&session, user_id)?;
    let room_id = RoomId::parse(room_id).map_err(|cause| MatrixError::invalid_param(cause.to_string()))?;
    let room = app.accounts.room_of(&session.user_id, &room_id).await?;
    app.accounts.set_tag(session.recipient, room, tag, request.content.clone()).await?;
    Ok(create::Response::new())
}

async fn delete(
    app: App,
    session: Session,
    request: delete::Request,
) -> Result<delete::Response, MatrixError> {
    own::check(&session, &request.user_id)?;
    let room = app.accounts.room_of(&session.user_id, &request.room_id).await?;
    app.accounts.remove_tag(session.recipient, room, &request.tag).await?;
    Ok(delete::Response::new())
}
