//! Receipts and fully read markers.

use ruma::{
    EventId, OwnedEventId, OwnedRoomId,
    api::client::{read_marker::set_read_marker, receipt::create_receipt},
};
use serde::Deserialize;
use serde_json::Value;

use super::body::Body;
use crate::{
    account::Session,
    app::App,
    http::{MatrixError, Routes},
    receipts::{Kind, Mark, Owner, Thread},
};

pub(super) fn routes() -> Routes {
    Routes::default().add(receipt).add(markers)
}

/// Read here, so that a bad thread is told from JSON of the wrong shape (RC-22).
#[derive(Deserialize)]
struct Receipt {
    thread_id: Option<Value>,
}

async fn receipt(
    app: App,
    session: Session,
    request: Body<create_receipt::v3::Request, Receipt>,
) -> Result<create_receipt::v3::Response, MatrixError> {
    let [room_id, kind, event_id] = request.parameters()?;
    let bad = |what: &str| MatrixError::invalid_param(format!("`{what}` in the path is not valid"));
    let room_id = OwnedRoomId::try_from(room_id).map_err(|_| bad("roomId"))?;
    let event_id = OwnedEventId::try_from(event_id).map_err(|_| bad("eventId"))?;
    let kind = match kind {
        "m.read" => Kind::Read,
        // The second is its name from before 1.4.
        "m.read.private" | "org.matrix.msc2285.read.private" => Kind::Private,
        "m.fully_read" => Kind::FullyRead,
        _ => return Err(MatrixError::invalid_param("there is no such type of receipt")),
    };
    let thread = thread(request.content.thread_id)?;
    mark(&app, &session, &room_id, &[Mark { kind, event_id, thread }]).await?;
    Ok(create_receipt::v3::Response::new())
}

fn thread(given: Option<Value>) -> Result<Thread, MatrixError> {
    let Some(given) = given else { return Ok(Thread::Unthreaded) };
    match given.as_str() {
        Some("main") => Ok(Thread::Main),
        Some(root) => EventId::parse(root)
            .map(Thread::Root)
            .map_err(|_| MatrixError::invalid_param("`thread_id` must be `main` or an event id")),
        None => Err(MatrixError::invalid_param("`thread_id` must be a non-empty string")),
    }
}

async fn markers(
    app: App,
    session: Session,
    request: set_read_marker::v3::Request,
) -> Result<set_read_marker::v3::Response, MatrixError> {
    let marks = [
        (Kind::FullyRead, request.fully_read),
        (Kind::Read, request.read_receipt),
        (Kind::Private, request.private_read_receipt),
    ];
    let marks = marks
        .into_iter()
        .filter_map(|(kind, event_id)| Some(Mark { kind, event_id: event_id?, thread: Thread::Unthreaded }));
    let marks: Vec<Mark> = marks.collect();
    mark(&app, &session, &request.room_id, &marks).await?;
    Ok(set_read_marker::v3::Response::new())
}

async fn mark(
    app: &App,
    session: &Session,
    room_id: &ruma::RoomId,
    marks: &[Mark],
) -> Result<(), MatrixError> {
    let room = app.rooms.of_member(room_id, &session.user_id).await?;
    let owner = Owner { recipient: session.recipient, user_id: &session.user_id };
    app.presence.active(session.recipient);
    Ok(app.receipts.mark(&room, owner, marks).await?)
}
