//! "Server Administration": locking and suspending accounts, and who uses them from where.

use std::collections::BTreeMap;

use ruma::{
    MilliSecondsSinceUnixEpoch, UInt, UserId,
    api::client::admin::{
        get_user_info::v3 as whois, is_user_locked::v1 as is_locked, is_user_suspended::v1 as is_suspended,
        lock_user::v1 as lock, suspend_user::v1 as suspend,
    },
};

use crate::{
    account::{Measure, Session},
    app::App,
    http::{MatrixError, Routes},
};

pub(super) fn routes() -> Routes {
    Routes::default().add(whois).add(is_locked).add(is_suspended).add(lock).add(suspend)
}

async fn whois(app: App, session: Session, request: whois::Request) -> Result<whois::Response, MatrixError> {
    let uses = app.accounts.whois(&session, &request.user_id).await?;
    let devices = uses.into_iter().map(|device| {
        let time = |ts: i64| UInt::try_from(ts).ok().map(MilliSecondsSinceUnixEpoch);
        let mut connection = whois::ConnectionInfo::new();
        connection.ip = device.last_seen_ip;
        connection.last_seen = device.last_seen_ts.and_then(time);
        connection.user_agent = device.user_agent;
        let mut connections = whois::SessionInfo::new();
        connections.connections = vec![connection];
        let mut sessions = whois::DeviceInfo::new();
        sessions.sessions = vec![connections];
        (device.device_id, sessions)
    });
    let mut response = whois::Response::new();
    response.devices = devices.collect::<BTreeMap<_, _>>();
    response.user_id = Some(request.user_id);
    Ok(response)
}

async fn is_locked(
    app: App,
    session: Session,
    request: is_locked::Request,
) -> Result<is_locked::Response, MatrixError> {
    let account = app.accounts.measured(&session, &request.user_id).await?;
    Ok(is_locked::Response::new(account.locked))
}

async fn is_suspended(
    app: App,
    session: Session,
    request: is_suspended::Request,
) -> Result<is_suspended::Response, MatrixError> {
    let account = app.accounts.measured(&session, &request.user_id).await?;
    Ok(is_suspended::Response::new(account.suspended))
}

async fn lock(app: App, session: Session, request: lock::Request) -> Result<lock::Response, MatrixError> {
    set(&app, &session, &request.user_id, Measure::Lock, request.locked).await?;
    Ok(lock::Response::new(request.locked))
}

async fn suspend(
    app: App,
    session: Session,
    request: suspend::Request,
) -> Result<suspend::Response, MatrixError> {
    set(&app, &session, &request.user_id, Measure::Suspension, request.suspended).await?;
    Ok(suspend::Response::new(request.suspended))
}

async fn set(
    app: &App,
    session: &Session,
    user_id: &UserId,
    measure: Measure,
    on: bool,
) -> Result<(), MatrixError> {
    app.accounts.moderate(session, user_id, measure, on).await?;
    tracing::info!(by = %session.user_id, %user_id, ?measure, on, "an account was moderated");
    Ok(())
}
