//! `POST /user/{userId}/openid/request_token` (`OpenID`).

use std::time::Duration;

use ruma::{api::client::account::request_openid_token::v3, authentication::TokenType};

use super::own;
use crate::{
    account::{OPENID_LIFETIME_MS, Session},
    app::App,
    http::{MatrixError, Routes},
};

pub(super) fn routes() -> Routes {
    Routes::default().add(request_token)
}

async fn request_token(
    app: App,
    session: Session,
    request: v3::Request,
) -> Result<v3::Response, MatrixError> {
    own::check(&session, &request.user_id)?;
    let token = app.accounts.openid_token(session.recipient).await?;
    let lifetime = Duration::from_millis(OPENID_LIFETIME_MS as u64);
    Ok(v3::Response::new(token, TokenType::Bearer, app.server_name.clone(), lifetime))
}
