//! Who answers: `/version`, and where this server's federation is.

use http::Method;
use serde_json::json;

use crate::http::{Json, Routes};

pub(super) fn routes() -> Routes {
    Routes::default().mount(Method::GET, "/_matrix/federation/v1/version", version)
}

async fn version() -> Json<serde_json::Value> {
    Json(json!({ "server": { "name": "Hearth", "version": env!("CARGO_PKG_VERSION") } }))
}
