//! The life of a session after its beginning: who am I, new tokens, and the end.

use std::time::Duration;

use http::request::Parts;
use ruma::api::client::{
    account::{get_3pids::v3 as threepids, whoami::v3 as whoami},
    session::{logout::v3 as logout, logout_all::v3 as logout_all, refresh_token::v3 as refresh},
};
use serde_json::{Value, json};

use crate::{
    account::Session,
    app::App,
    http::{Anonymous, Caller, Json, MatrixError, Routes, check_open, origin, token},
    limits::{Class, LimitKey},
};

pub fn routes() -> Routes {
    Routes::default()
        .add(whoami)
        .limited(Class::Login, refresh)
        .alias("/_matrix/client/v1/refresh", refresh)
        .add(logout)
        .add(logout_all)
        .add(third_party_ids)
}

/// A session whose account may be locked: it may do nothing but end.
struct Leaving(Session);

impl Caller for Leaving {
    async fn identify(app: &App, parts: &Parts) -> Result<Self, MatrixError> {
        let token = token(parts).ok_or_else(MatrixError::missing_token)?;
        let session = app.sessions.authenticate_even_locked(&token, &origin(parts)).await?;
        check_open(parts, &session)?;
        Ok(Self(session))
    }

    fn limit_key(&self) -> LimitKey {
        self.0.limit_key()
    }
}

async fn whoami(_: App, session: Session, _: whoami::Request) -> Result<whoami::Response, MatrixError> {
    let mut response = whoami::Response::new(session.user_id, session.guest);
    response.device_id = Some(session.device_id);
    Ok(response)
}

async fn refresh(
    app: App,
    _: Anonymous,
    request: refresh::Request,
) -> Result<refresh::Response, MatrixError> {
    let tokens = app.accounts.refresh(&request.refresh_token).await?;
    let mut response = refresh::Response::new(tokens.access);
    response.refresh_token = tokens.refresh;
    response.expires_in_ms = tokens.expires_in.map(|wait| Duration::from_millis(wait as u64));
    Ok(response)
}

async fn logout(
    app: App,
    Leaving(session): Leaving,
    _: logout::Request,
) -> Result<logout::Response, MatrixError> {
    app.accounts.logout(&session).await?;
    Ok(logout::Response::new())
}

async fn logout_all(
    app: App,
    Leaving(session): Leaving,
    _: logout_all::Request,
) -> Result<logout_all::Response, MatrixError> {
    app.accounts.logout_all(session.recipient).await?;
    Ok(logout_all::Response::new())
}

/// Nobody has any yet, but clients' settings pages ask.
async fn third_party_ids(_: App, _: Session, _: threepids::Request) -> Result<Json<Value>, MatrixError> {
    Ok(Json(json!({ "threepids": [] })))
}
