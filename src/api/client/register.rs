//! Making an account ("Account registration").

use std::time::Duration;

use ruma::api::client::account::{
    check_registration_token_validity::v1 as token_validity,
    get_username_availability::v3 as availability,
    register::{RegistrationKind, v3 as register},
};
use serde_json::Value;

use super::interactive::Interactive;
use crate::{
    account::{Accounts, DeviceRequest, Error, NewAccount, Operation, Registered, Stage},
    app::App,
    config::RegistrationMode,
    http::{Anonymous, MatrixError, Routes},
    limits::Class,
};

pub fn routes() -> Routes {
    Routes::default()
        .limited::<Interactive<register::Request>, _, _, _, _>(Class::Registration, register)
        .add(available)
        .add(token_is_valid)
}

/// Whether a registration token comes with the first request.
fn in_one_round(auth: Option<&Value>) -> bool {
    let auth = |key: &str| auth.and_then(|auth| auth.get(key)).and_then(Value::as_str);
    auth("session").is_none() && auth("type") == Some(Stage::RegistrationToken.name())
}

async fn register(
    app: App,
    caller: Anonymous,
    Interactive { request, auth, .. }: Interactive<register::Request>,
) -> Result<register::Response, MatrixError> {
    match request.kind {
        RegistrationKind::User => {}
        // Nothing else of what the client says counts.
        RegistrationKind::Guest => {
            return Ok(answer(app.accounts.register_guest(request.initial_device_display_name).await?));
        }
        _ => return Err(MatrixError::invalid_param("`kind` is \"user\" or \"guest\"")),
    }
    if request.login_type.is_some() {
        return Err(MatrixError::forbidden("this server has no application services yet"));
    }
    let flows: &[&[Stage]] = match app.accounts.registration() {
        RegistrationMode::Closed => return Err(Error::RegistrationClosed.into()),
        // Whoever has a token and comes without a session gets the account in one round.
        RegistrationMode::Token if in_one_round(auth.as_ref()) => &[&[Stage::RegistrationToken]],
        // Otherwise clients go by what others offer: the token, and then a stage that always passes.
        RegistrationMode::Token => &[&[Stage::RegistrationToken, Stage::Dummy]],
        RegistrationMode::Open => &[&[Stage::Dummy]],
    };
    let guest = match &request.guest_access_token {
        Some(token) => {
            let name = request.username.as_deref();
            let name = name.ok_or_else(|| MatrixError::missing_param("a guest says `username` too"))?;
            Some(app.accounts.guest(token, name, &caller.origin).await?)
        }
        None => None,
    };
    // Whoever learns only after the last stage that their name is taken has to begin again.
    let user_id = match &guest {
        Some(guest) => guest.user_id.clone(),
        None => app.accounts.available(request.username.as_deref()).await?,
    };
    let attempt = auth.as_ref().is_some_and(|auth| auth.get("type").or(auth.get("session")).is_some());
    if attempt && request.password.is_none() {
        return Err(MatrixError::missing_param("an account needs a password"));
    }
    if let Some(password) = &request.password {
        Accounts::check_new_password(password)?;
    }
    // Clients find out the flows before anybody has chosen a name, so the request may change until it is complete.
    let operation = Operation { name: "register", recipient: None, digest: None, flows };
    let authorised = app.accounts.authorise(&operation, auth.as_ref()).await?;

    let device = DeviceRequest {
        device_id: request.device_id,
        display_name: request.initial_device_display_name,
        refresh: request.refresh_token,
    };
    let new = NewAccount {
        user_id,
        password: request.password,
        admin: false,
        token: authorised.registration_token,
        device: (!request.inhibit_login).then_some(device),
    };
    Ok(answer(match guest {
        Some(guest) => app.accounts.register_as(new, guest).await?,
        None => app.accounts.register(new).await?,
    }))
}

pub(super) fn answer(registered: Registered) -> register::Response {
    let mut response = register::Response::new(registered.user_id);
    if let Some(login) = registered.login {
        response.device_id = Some(login.device_id);
        response.access_token = Some(login.tokens.access);
        response.refresh_token = login.tokens.refresh;
        response.expires_in = login.tokens.expires_in.map(|wait| Duration::from_millis(wait as u64));
    }
    response
}

async fn available(
    app: App,
    _: Anonymous,
    request: availability::Request,
) -> Result<availability::Response, MatrixError> {
    app.accounts.available(Some(&request.username)).await?;
    Ok(availability::Response::new(true))
}

async fn token_is_valid(
    app: App,
    _: Anonymous,
    request: token_validity::Request,
) -> Result<token_validity::Response, MatrixError> {
    if app.accounts.registration() == RegistrationMode::Closed {
        return Err(Error::RegistrationClosed.into());
    }
    let valid = app.accounts.is_registration_token(&request.token).await?;
    Ok(token_validity::Response::new(valid))
}
