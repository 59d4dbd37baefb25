//! Messages to devices ("Send-to-Device messaging").

use ruma::api::client::to_device::send_event_to_device::v3;
use serde::Deserialize;

use super::{body::Body, send::txn};
use crate::{
    account::Session,
    app::App,
    http::{MatrixError, Routes},
    keys::to_device::{Error, Messages},
    limits::Class,
};

pub(super) fn routes() -> Routes {
    Routes::default().limited(Class::Default, send)
}

/// Read here, so that contents stay as they are.
#[derive(Deserialize)]
struct Content {
    messages: Messages,
}

async fn send(
    app: App,
    session: Session,
    request: Body<v3::Request, Content>,
) -> Result<v3::Response, MatrixError> {
    let [kind, txn_id] = request.parameters()?;
    let txn = txn(&session, txn_id, &["sendToDevice", kind])?;
    let kind = kind.to_owned();
    let messages = request.content.messages;
    // LK-02: it may verify its own devices.
    if session.suspended && messages.keys().any(|user_id| *user_id != session.user_id) {
        return Err(MatrixError::suspended());
    }
    app.to_device.send(&session.user_id, &kind, messages, txn).await?;
    Ok(v3::Response::new())
}

impl From<Error> for MatrixError {
    fn from(cause: Error) -> Self {
        let text = cause.to_string();
        match cause {
            Error::Name | Error::TooMany => Self::invalid_param(text),
            Error::NotAnObject | Error::NotCanonical(_) => Self::bad_json(text),
            Error::TooLarge(_) => Self::too_large(text),
            Error::Store(cause) => cause.into(),
        }
    }
}
