//! `POST /rooms/{roomId}/upgrade` ("Room upgrades").

use ruma::api::client::room::upgrade_room::v3::{Request, Response};

use super::finished::finished;
use crate::{
    account::Session,
    app::App,
    http::{MatrixError, Routes},
    limits::Class,
};

pub(super) fn routes() -> Routes {
    // It makes a room.
    Routes::default().limited(Class::RoomCreation, upgrade)
}

async fn upgrade(app: App, session: Session, request: Request) -> Result<Response, MatrixError> {
    let room = app.rooms.of_member(&request.room_id, &session.user_id).await?;
    finished(async move {
        let creators = request.additional_creators;
        let new = app.rooms.upgrade(&room, &session.user_id, request.new_version, &creators).await?;
        Ok(Response::new(new))
    })
    .await
}
