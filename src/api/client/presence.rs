//! Presence ("Presence"): what a user says of themselves, and what others are.

use ruma::api::client::presence::{get_presence::v3 as get, set_presence::v3 as set};
use serde_json::{Map, Value};

use super::own;
use crate::{
    account::Session,
    app::App,
    http::{Json, MatrixError, Routes},
    presence::State,
};

pub(super) fn routes() -> Routes {
    Routes::default().add(ask).add(say)
}

async fn ask(
    app: App,
    session: Session,
    request: get::Request,
) -> Result<Json<Map<String, Value>>, MatrixError> {
    Ok(Json(app.presence.ask(&session.user_id, &request.user_id).await?.status()))
}

async fn say(app: App, session: Session, request: set::Request) -> Result<set::Response, MatrixError> {
    own::check(&session, &request.user_id)?;
    let state = State::from_name(request.presence.as_str())
        .ok_or_else(|| MatrixError::invalid_param("`presence` is one of online, unavailable and offline"))?;
    app.presence.say(&session, state, request.status_msg).await?;
    Ok(set::Response::new())
}
