//! `GET /retention/configuration` (MSC1763): how long this server keeps history, for clients that tell their users.

use http::StatusCode;
use serde_json::{Value, json};

use crate::api::bare::{Bare, Get};
use crate::{
    account::Session,
    app::App,
    http::{Json, MatrixError, Routes},
    limits::Class,
};

pub(super) fn routes() -> Routes {
    let path = "/_matrix/client/unstable/org.matrix.msc1763/retention/configuration";
    Routes::default().limited_alias(Class::Default, path, configuration)
}

/// Where history is for ever, whatever rooms say, there is no such endpoint.
async fn configuration(app: App, _: Session, _: Bare<Get>) -> Result<Json<Value>, MatrixError> {
    let lifetimes = app.rooms.policy().retention.ok_or_else(|| {
        MatrixError::new(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", "this server keeps history for ever")
    })?;
    let mut limit = json!({ "min": lifetimes.shortest });
    if let Some(longest) = lifetimes.longest {
        limit["max"] = longest.into();
    }
    let mut policies = json!({});
    if let Some(default) = lifetimes.default {
        policies["*"] = json!({ "max_lifetime": default });
    }
    Ok(Json(json!({ "policies": policies, "limits": { "max_lifetime": limit } })))
}
