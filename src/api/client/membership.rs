//! Room membership: joining, inviting, knocking, leaving, kicking, banning, forgetting.

use ruma::{
    OwnedRoomId, OwnedRoomOrAliasId, OwnedServerName, RoomId,
    api::client::{
        knock::knock_room,
        membership::{
            ban_user, forget_room,
            invite_user::{self, v3::InvitationRecipient},
            join_room_by_id, join_room_by_id_or_alias, joined_rooms, kick_user, leave_room, unban_user,
        },
    },
    serde::JsonObject,
};

use super::{
    finished::finished,
    with::{Also, With},
};
use crate::{
    account::Session,
    app::App,
    http::{MatrixError, Routes},
    limits::Class,
};

pub(super) fn routes() -> Routes {
    Routes::default()
        .limited(Class::Join, join)
        .limited(Class::Join, join_by_alias)
        .limited(Class::Invite, invite)
        .limited(Class::Join, knock)
        .add(leave)
        .add(kick)
        .add(ban)
        .add(unban)
        .add(forget)
        .add(joined)
}

/// The room that a user outside of it names, and servers that may know it.
async fn find(
    app: &App,
    name: OwnedRoomOrAliasId,
    via: Vec<OwnedServerName>,
) -> Result<(OwnedRoomId, Vec<OwnedServerName>), MatrixError> {
    match <&RoomId>::try_from(&*name) {
        Ok(room_id) => Ok((room_id.to_owned(), via)),
        Err(alias) => {
            let (room_id, servers) = app.handshakes.by_alias(alias).await?;
            Ok((room_id, via.into_iter().chain(servers).collect()))
        }
    }
}

async fn enter(
    app: App,
    session: Session,
    room_id: OwnedRoomId,
    via: Vec<OwnedServerName>,
    said: JsonObject,
) -> Result<OwnedRoomId, MatrixError> {
    finished(async move {
        let room = app.handshakes.join(&room_id, &session.user_id, via, Some(&said)).await?;
        Ok(room.room_id.clone())
    })
    .await
}

async fn join(
    app: App,
    session: Session,
    With { request, more: Also(said) }: With<join_room_by_id::v3::Request, Also<JsonObject>>,
) -> Result<join_room_by_id::v3::Response, MatrixError> {
    enter(app, session, request.room_id, Vec::new(), said).await.map(join_room_by_id::v3::Response::new)
}

async fn join_by_alias(
    app: App,
    session: Session,
    With { request, more: Also(said) }: With<join_room_by_id_or_alias::v3::Request, Also<JsonObject>>,
) -> Result<join_room_by_id_or_alias::v3::Response, MatrixError> {
    let (room_id, via) = find(&app, request.room_id_or_alias, request.via).await?;
    let room_id = enter(app, session, room_id, via, said).await?;
    Ok(join_room_by_id_or_alias::v3::Response::new(room_id))
}

async fn invite(
    app: App,
    session: Session,
    request: invite_user::v3::Request,
) -> Result<invite_user::v3::Response, MatrixError> {
    let InvitationRecipient::UserId(invitee) = request.recipient else {
        return Err(MatrixError::invalid_param(
            "invites by e-mail or telephone are not supported: this server has no identity server",
        ));
    };
    let room = app.rooms.of_member(&request.room_id, &session.user_id).await?;
    finished(async move {
        app.handshakes.invite(&room, &session.user_id, &invitee.user_id, invitee.reason).await?;
        Ok(invite_user::v3::Response::new())
    })
    .await
}

async fn knock(
    app: App,
    session: Session,
    request: knock_room::v3::Request,
) -> Result<knock_room::v3::Response, MatrixError> {
    let (room_id, via) = find(&app, request.room_id_or_alias, request.via).await?;
    finished(async move {
        let room = app.handshakes.knock(&room_id, &session.user_id, via, request.reason).await?;
        Ok(knock_room::v3::Response::new(room.room_id.clone()))
    })
    .await
}

async fn leave(
    app: App,
    session: Session,
    request: leave_room::v3::Request,
) -> Result<leave_room::v3::Response, MatrixError> {
    let room = app.rooms.of_acquaintance(&request.room_id).await?;
    finished(async move {
        app.handshakes.leave(&room, &session.user_id, request.reason).await?;
        Ok(leave_room::v3::Response::new())
    })
    .await
}

async fn kick(
    app: App,
    session: Session,
    request: kick_user::v3::Request,
) -> Result<kick_user::v3::Response, MatrixError> {
    let room = app.rooms.of_member(&request.room_id, &session.user_id).await?;
    app.rooms.kick(&room, &session.user_id, &request.user_id, request.reason).await?;
    Ok(kick_user::v3::Response::new())
}

async fn ban(
    app: App,
    session: Session,
    request: ban_user::v3::Request,
) -> Result<ban_user::v3::Response, MatrixError> {
    let room = app.rooms.of_member(&request.room_id, &session.user_id).await?;
    app.rooms.ban(&room, &session.user_id, &request.user_id, request.reason).await?;
    Ok(ban_user::v3::Response::new())
}

async fn unban(
    app: App,
    session: Session,
    request: unban_user::v3::Request,
) -> Result<unban_user::v3::Response, MatrixError> {
    let room = app.rooms.of_member(&request.room_id, &session.user_id).await?;
    app.rooms.unban(&room, &session.user_id, &request.user_id, request.reason).await?;
    Ok(unban_user::v3::Response::new())
}

async fn forget(
    app: App,
    session: Session,
    request: forget_room::v3::Request,
) -> Result<forget_room::v3::Response, MatrixError> {
    let room = app.rooms.of_acquaintance(&request.room_id).await?;
    finished(async move {
        app.rooms.forget(&room, &session.user_id).await?;
        app.sliding.forgotten(session.recipient);
        Ok(forget_room::v3::Response::new())
    })
    .await
}

async fn joined(
    app: App,
    session: Session,
    _: joined_rooms::v3::Request,
) -> Result<joined_rooms::v3::Response, MatrixError> {
    Ok(joined_rooms::v3::Response::new(app.rooms.joined(&session.user_id).await?))
}
