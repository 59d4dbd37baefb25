//! [OpenID](https://spec.matrix.org/v1.19/server-server-api/#openid): whose token somebody was shown. For everybody.

use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    api::bare::{Bare, Get},
    app::App,
    http::{Anonymous, Json, MatrixError, Routes},
    limits::Class,
};

pub(super) fn routes() -> Routes {
    Routes::default().limited_alias(Class::Default, "/_matrix/federation/v1/openid/userinfo", userinfo)
}

async fn userinfo(app: App, _: Anonymous, request: Bare<Get>) -> Result<Json<Value>, MatrixError> {
    let token = request.query("access_token");
    let token = token.ok_or_else(|| MatrixError::missing_param("`access_token` is missing"))?;
    let unknown = || {
        let text = "this token is not known, or no longer";
        MatrixError::new(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", text)
    };
    let user_id = app.accounts.openid_user(&token).await?.ok_or_else(unknown)?;
    Ok(Json(json!({ "sub": user_id })))
}
