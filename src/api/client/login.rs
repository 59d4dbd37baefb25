//! Logging in ("Login").

use std::time::Duration;

use http::StatusCode;
use ruma::{
    OwnedDeviceId,
    api::client::session::{
        get_login_types::v3 as types,
        login::v3::{self as login, DiscoveryInfo, HomeserverInfo},
    },
};

use super::body::Body;
use crate::{
    account::DeviceRequest,
    app::App,
    http::{Anonymous, MatrixError, Routes},
    limits::{Class, LimitKey},
};

pub fn routes() -> Routes {
    Routes::default().add(types).limited::<Body<login::Request, Login>, _, _, _, _>(Class::Login, login)
}

/// ruma's own type panics without a `type`.
#[derive(serde::Deserialize)]
struct Login {
    #[serde(rename = "type")]
    kind: String,
    identifier: Option<Identifier>,
    /// From before there were identifiers; clients still send it.
    user: Option<String>,
    password: Option<String>,
    device_id: Option<OwnedDeviceId>,
    initial_device_display_name: Option<String>,
    #[serde(default)]
    refresh_token: bool,
}

#[derive(serde::Deserialize)]
struct Identifier {
    #[serde(rename = "type")]
    kind: String,
    user: Option<String>,
}

async fn types(_: App, _: Anonymous, _: types::Request) -> Result<types::Response, MatrixError> {
    Ok(types::Response::new(vec![types::LoginType::Password(types::PasswordLoginType::new())]))
}

async fn login(
    app: App,
    _: Anonymous,
    request: Body<login::Request, Login>,
) -> Result<login::Response, MatrixError> {
    let request = request.content;
    if request.kind != "m.login.password" {
        return Err(MatrixError::new(
            StatusCode::BAD_REQUEST,
            "M_UNKNOWN",
            "this server knows logins of type m.login.password only",
        ));
    }
    let user = match request.identifier {
        Some(identifier) if identifier.kind == "m.id.user" => identifier.user,
        Some(_) => {
            return Err(MatrixError::forbidden("this server knows its users by their Matrix ids only"));
        }
        None => request.user,
    };
    let (Some(user), Some(password)) = (user, request.password) else {
        return Err(MatrixError::missing_param("a login needs an identifier with a user, and a password"));
    };
    let device = DeviceRequest {
        device_id: request.device_id,
        display_name: request.initial_device_display_name,
        refresh: request.refresh_token,
    };
    // AU-09: of accounts that don't exist too, so that nobody learns which do.
    let name = LimitKey::named(app.accounts.login_name(&user).as_str());
    app.limits.check(Class::LoginAccount, name).map_err(MatrixError::limit_exceeded)?;
    let session = app.accounts.login(&user, password, device).await?;
    let mut response = login::Response::new(session.user_id, session.tokens.access, session.device_id);
    response.refresh_token = session.tokens.refresh;
    response.expires_in = session.tokens.expires_in.map(|wait| Duration::from_millis(wait as u64));
    let base_url = app.config.public_base_url.clone();
    response.well_known = base_url.map(|url| DiscoveryInfo::new(HomeserverInfo::new(url)));
    Ok(response)
}
