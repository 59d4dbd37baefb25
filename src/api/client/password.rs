//! Changing the password, and giving the account up ("Account management").

use ruma::api::client::account::{
    ThirdPartyIdRemovalStatus, change_password::v3 as change, deactivate::v3 as deactivate,
};

use super::{finished::finished, interactive::Interactive};
use crate::{
    account::{Accounts, LogOut, Operation, Session, Stage},
    app::App,
    http::{MatrixError, Routes},
    limits::Class,
};

const FLOWS: &[&[Stage]] = &[&[Stage::Password]];

pub fn routes() -> Routes {
    Routes::default()
        .limited::<Interactive<change::Request>, _, _, _, _>(Class::Login, change)
        .limited::<Interactive<deactivate::Request>, _, _, _, _>(Class::Login, deactivate)
}

async fn change(
    app: App,
    session: Session,
    Interactive { request, auth, digest }: Interactive<change::Request>,
) -> Result<change::Response, MatrixError> {
    Accounts::check_new_password(&request.new_password)?;
    let recipient = Some(session.recipient);
    let operation = Operation { name: "change password", recipient, digest: Some(digest), flows: FLOWS };
    app.accounts.authorise(&operation, auth.as_ref()).await?;
    let log_out = if request.logout_devices { LogOut::Others(session.device) } else { LogOut::Nobody };
    finished(async move {
        app.accounts.set_password(session.recipient, request.new_password, log_out).await?;
        Ok(change::Response::new())
    })
    .await
}

async fn deactivate(
    app: App,
    session: Session,
    Interactive { request, auth, digest }: Interactive<deactivate::Request>,
) -> Result<deactivate::Response, MatrixError> {
    let recipient = Some(session.recipient);
    let operation = Operation { name: "deactivate account", recipient, digest: Some(digest), flows: FLOWS };
    app.accounts.authorise(&operation, auth.as_ref()).await?;
    finished(async move {
        app.accounts.deactivate(session.recipient, request.erase).await?;
        app.key_backups.some_are_doomed();
        app.rooms.nudge_departures();
        // No identity server ever learnt of anything here, so there is nothing to take back.
        Ok(deactivate::Response::new(ThirdPartyIdRemovalStatus::NoSupport))
    })
    .await
}
