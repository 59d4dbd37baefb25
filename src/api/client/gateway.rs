//! Service discovery: the node that a user's client is to speak to. There is one, so it is this one.

use axum::extract::{Request, State};
use http::Method;
use serde::Serialize;

use crate::{
    account::Session,
    app::App,
    http::{Caller as _, Json, MatrixError, Routes, base_url},
};

/// How long a client may believe what it was told.
const TTL_MS: u64 = 5 * 60 * 1000;

pub(super) fn routes() -> Routes {
    Routes::default().mount(Method::GET, "/_matrix/client/unstable/hearth/v1/gateway", gateway)
}

#[derive(Serialize)]
struct Gateway {
    /// The base of the client API's addresses, as in `.well-known/matrix/client` and in the answer to a login.
    url: String,
    /// Where to go if nobody answers there, the best first.
    backup_urls: Vec<String>,
    ttl_ms: u64,
}

async fn gateway(State(app): State<App>, request: Request) -> Result<Json<Gateway>, MatrixError> {
    let (parts, _) = request.into_parts();
    Session::identify(&app, &parts).await?;
    let url = app.config.public_base_url.clone().or_else(|| base_url(&parts));
    let url = url.ok_or_else(|| MatrixError::missing_param("the header Host is missing"))?;
    Ok(Json(Gateway { url, backup_urls: Vec::new(), ttl_ms: TTL_MS }))
}
