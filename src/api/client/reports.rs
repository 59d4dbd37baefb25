//! Reports to the operator ("Reporting Content"): of events, rooms and users.

use ruma::api::client::{
    reporting::report_user,
    room::{report_content, report_room},
};

use crate::{
    account::Session,
    app::App,
    http::{MatrixError, Routes},
    limits::Class,
    store::report::{self, ReportRow},
};

/// The longest reason, in bytes.
const MAX_REASON: usize = 8 * 1024;

pub(super) fn routes() -> Routes {
    let class = Class::Default;
    Routes::default().limited(class, event).limited(class, room).limited(class, user)
}

/// RP-01: only of events that the reporter may see, in a room that they are in.
async fn event(
    app: App,
    session: Session,
    request: report_content::v3::Request,
) -> Result<report_content::v3::Response, MatrixError> {
    let (room, sight) = super::history::glimpse(&app, &session, &request.room_id).await?;
    if !room.snapshot().is_joined(&session.user_id) {
        return Err(MatrixError::not_found(crate::room::NO_EVENT));
    }
    app.rooms.visible_event(&room, &sight, &request.event_id).await?;
    let row = ReportRow {
        room_id: Some(request.room_id.to_string()),
        event_id: Some(request.event_id.to_string()),
        ..reported(&app, &session, request.reason.unwrap_or_default())?
    };
    app.store.commit(report::insert(row)).await?;
    Ok(report_content::v3::Response::new())
}

/// RP-01, RP-02: anybody may report a room, and learns nothing about whether it exists.
async fn room(
    app: App,
    session: Session,
    request: report_room::v3::Request,
) -> Result<report_room::v3::Response, MatrixError> {
    let row =
        ReportRow { room_id: Some(request.room_id.to_string()), ..reported(&app, &session, request.reason)? };
    app.store.commit(report::insert(row)).await?;
    Ok(report_room::v3::Response::new())
}

/// RP-02: as of rooms.
async fn user(
    app: App,
    session: Session,
    request: report_user::v3::Request,
) -> Result<report_user::v3::Response, MatrixError> {
    let row =
        ReportRow { user_id: Some(request.user_id.to_string()), ..reported(&app, &session, request.reason)? };
    app.store.commit(report::insert(row)).await?;
    Ok(report_user::v3::Response::new())
}

fn reported(app: &App, session: &Session, reason: String) -> Result<ReportRow, MatrixError> {
    if reason.len() > MAX_REASON {
        return Err(MatrixError::too_large(format!(
            "`reason` has {} bytes, more than the {MAX_REASON} allowed",
            reason.len()
        )));
    }
    if reason.contains('\0') {
        return Err(MatrixError::invalid_param("`reason` contains a NUL character"));
    }
    let (created_ts, reporter) = (app.environment.clock.now_ms(), session.user_id.to_string());
    Ok(ReportRow { created_ts, reporter, reason, ..ReportRow::default() })
}
