//! Logging in ("Login").

use std::time::Duration;

use http::StatusCode;
use ruma::api::client::{
    session::{
        get_login_types::v3 as types,
        login::v3::{self as login, DiscoveryInfo, HomeserverInfo, LoginInfo},
    },
    uiaa::UserIdentifier,
};

use crate::{
    account::DeviceRequest,
    app::App,
    http::{Anonymous, Class, MatrixError, Routes},
};

pub fn routes() -> Routes {
    Routes::default().add(types).limited(Class::Login, login)
}

async fn types(_: App, _: Anonymous, _: types::Request) -> Result<types::Response, MatrixError> {
    Ok(types::Response::new(vec![types::LoginType::Password(types::PasswordLoginType::new())]))
}

async fn login(app: App, _: Anonymous, request: login::Request) -> Result<login::Response, MatrixError> {
    let LoginInfo::Password(credentials) = request.login_info else {
        return Err(MatrixError::new(
            StatusCode::BAD_REQUEST,
            "M_UNKNOWN",
            "this server knows logins of type m.login.password only",
        ));
    };
    let user = match credentials.identifier {
        Some(UserIdentifier::Matrix(identifier)) => identifier.user,
        Some(_) => {
            return Err(MatrixError::forbidden("this server knows its users by their Matrix ids only"));
        }
        // From before there were identifiers; clients still do it.
        #[expect(deprecated, reason = "see above")]
        None => credentials.user.ok_or_else(|| MatrixError::missing_param("identifier is missing"))?,
    };
    let device = DeviceRequest {
        device_id: request.device_id,
        display_name: request.initial_device_display_name,
        refresh: request.refresh_token,
    };
    let session = app.accounts.login(&user, credentials.password, device).await?;
    let mut response = login::Response::new(session.user_id, session.tokens.access, session.device_id);
    response.refresh_token = session.tokens.refresh;
    response.expires_in = session.tokens.expires_in.map(|wait| Duration::from_millis(wait as u64));
    let base_url = app.config.public_base_url.clone();
    response.well_known = base_url.map(|url| DiscoveryInfo::new(HomeserverInfo::new(url)));
    Ok(response)
}
