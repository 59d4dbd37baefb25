//! Typing notifications.

use std::time::Duration;

use ruma::{OwnedRoomId, api::client::typing::create_typing_event};
use serde::Deserialize;

use super::body::Body;
use crate::{
    account::Session,
    app::App,
    http::{MatrixError, Routes},
};

pub(super) fn routes() -> Routes {
    Routes::default().add(typing)
}

/// Read here, because ruma wants a timeout where the specification leaves it to the client.
#[derive(Deserialize)]
struct Typing {
    typing: bool,
    /// In milliseconds.
    timeout: Option<u64>,
}

async fn typing(
    app: App,
    session: Session,
    request: Body<create_typing_event::v3::Request, Typing>,
) -> Result<create_typing_event::v3::Response, MatrixError> {
    let [room_id, user_id] = request.parameters()?;
    let room_id = OwnedRoomId::try_from(room_id)
        .map_err(|_| MatrixError::invalid_param("`roomId` in the path is not valid"))?;
    if session.user_id != user_id {
        return Err(MatrixError::forbidden("you can say only of yourself that you are typing"));
    }
    let room = app.rooms.of_member(&room_id, &session.user_id).await?;
    app.outbound.typing(&room, &session.user_id, request.content.typing);
    if request.content.typing {
        let timeout = request.content.timeout.map(Duration::from_millis);
        app.presence.active(session.recipient);
        app.typing.start(&room, &session.user_id, timeout);
    } else {
        app.typing.stop(&room, &session.user_id);
    }
    Ok(create_typing_event::v3::Response::new())
}
