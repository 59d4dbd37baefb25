//! Stored filters ("Filtering").

use ruma::api::client::filter::{create_filter::v3 as create, get_filter::v3 as get};
use serde_json::{Map, Value};

use super::{body::Body, own};
use crate::{
    account::Session,
    app::App,
    http::{Json, MatrixError, Routes},
    live::SyncFilter,
};

type Create = Body<create::Request, Map<String, Value>>;

pub fn routes() -> Routes {
    Routes::default().add::<Create, _, _, _, _>(create).add(get)
}

async fn create(app: App, session: Session, request: Create) -> Result<create::Response, MatrixError> {
    let [user_id] = request.parameters()?;
    own::check_text(&session, user_id)?;
    // Kept as it was given, with sorted keys: it may say more than we know of.
    let content = Value::Object(request.content).to_string();
    SyncFilter::parse(&content)
        .map_err(|cause| MatrixError::bad_json(format!("this is no filter: {cause}")))?;
    Ok(create::Response::new(app.accounts.add_filter(session.recipient, &content).await?))
}

async fn get(app: App, session: Session, request: get::Request) -> Result<Json<Value>, MatrixError> {
    own::check(&session, &request.user_id)?;
    let content = app.accounts.filter(session.recipient, &request.filter_id).await?;
    Ok(Json(serde_json::from_str(&content).map_err(|cause| MatrixError::internal(&cause))?))
}
