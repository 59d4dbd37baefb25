//! `/_synapse/admin/v1/register`: registration by a shared secret, as the tools of operators expect it. Without a
//! secret in the configuration the path does not exist.

use axum::{
    extract::{Request, State},
    response::Response,
};
use http::{Method, StatusCode};
use serde_json::json;

use super::register::answer;
use crate::{
    account::SharedSecretRequest,
    app::App,
    http::{Anonymous, Caller as _, Json, MatrixError, Reply as _, Routes, read},
    limits::Class,
};

const PATH: &str = "/_synapse/admin/v1/register";

pub fn routes() -> Routes {
    Routes::default().mount(Method::GET, PATH, nonce).mount(Method::POST, PATH, register)
}

fn not_served() -> MatrixError {
    MatrixError::new(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", "registration by shared secret is not enabled")
}

async fn nonce(State(app): State<App>) -> Result<Response, MatrixError> {
    let nonce = app.accounts.nonce().ok_or_else(not_served)?;
    Json(json!({ "nonce": nonce })).reply()
}

async fn register(State(app): State<App>, request: Request) -> Result<Response, MatrixError> {
    if !app.accounts.has_shared_secret() {
        return Err(not_served());
    }
    let (parts, body) = request.into_parts();
    let caller = Anonymous::identify(&app, &parts).await?;
    app.limits.check(Class::Registration, caller.limit_key()).map_err(MatrixError::limit_exceeded)?;
    let body = read(&parts, body).await?;
    let request: SharedSecretRequest = serde_json::from_slice(&body).map_err(|cause| {
        if cause.is_data() {
            MatrixError::bad_json(cause.to_string())
        } else {
            MatrixError::not_json("the body is not JSON")
        }
    })?;
    let registered = app.accounts.register_by_secret(request).await?;
    let home_server = app.accounts.server_name().to_string();
    let mut body = json!({ "user_id": registered.user_id, "home_server": home_server });
    let answer = answer(registered);
    if let (Some(token), Some(device_id)) = (answer.access_token, answer.device_id) {
        body["access_token"] = token.into();
        body["device_id"] = device_id.as_str().into();
    }
    Json(body).reply()
}
