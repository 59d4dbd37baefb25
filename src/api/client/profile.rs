//! Profiles ("Profiles"): of users here, and, asked for at their server, of others.

use ruma::{
    UserId,
    api::client::profile::{
        delete_profile_field::v3 as delete, get_profile::v3 as get, get_profile_field::v3 as get_field,
        set_profile_field::v3 as set_field,
    },
};
use serde_json::{Map, Value, json};

use super::{body::Body, finished::finished, own};
use crate::{
    account::{self, ProfileChange, Session},
    app::App,
    config::LookUp,
    http::{Json, MatrixError, Routes, Visitor},
};

type SetField = Body<set_field::Request, Map<String, Value>>;

pub fn routes() -> Routes {
    Routes::default()
        .add(get)
        .alias("/_matrix/client/unstable/uk.tcpip.msc4133/profile/{user_id}", get)
        .add(get_field)
        .add::<SetField, _, _, _, _>(set_field)
        .add(delete_field)
}

/// PF-04: a profile that may not be seen isn't there.
async fn may_look_up(app: &App, visitor: &Visitor, user_id: &UserId) -> Result<(), MatrixError> {
    let allowed = match (app.config.profiles.look_up, &visitor.session) {
        (LookUp::Everybody, _) | (LookUp::Users, Some(_)) => true,
        (_, None) => return Err(MatrixError::missing_token()),
        (LookUp::Acquaintances, Some(session)) => app.accounts.may_know(&session.user_id, user_id).await?,
    };
    if allowed { Ok(()) } else { Err(account::Error::NotFound("profile").into()) }
}

/// The profile of a user, wherever their account is; of others a field alone, if only that is wanted.
async fn profile_of(
    app: &App,
    visitor: &Visitor,
    user_id: &UserId,
    field: Option<&str>,
) -> Result<Map<String, Value>, MatrixError> {
    if user_id.server_name() == app.server_name {
        may_look_up(app, visitor, user_id).await?;
        return Ok(app.accounts.profile(user_id).await?);
    }
    // Whoever has no account here isn't asked for by us.
    if visitor.session.is_none() {
        return Err(account::Error::NotFound("profile").into());
    }
    app.peers.profile(user_id, field).await.map_err(|cause| {
        tracing::debug!(%user_id, %cause, "a profile isn't to be had");
        account::Error::NotFound("profile").into()
    })
}

async fn get(
    app: App,
    visitor: Visitor,
    request: get::Request,
) -> Result<Json<Map<String, Value>>, MatrixError> {
    Ok(Json(profile_of(&app, &visitor, &request.user_id, None).await?))
}

async fn get_field(
    app: App,
    visitor: Visitor,
    request: get_field::Request,
) -> Result<Json<Value>, MatrixError> {
    let field = request.field.as_str();
    let value = profile_of(&app, &visitor, &request.user_id, Some(field)).await?.remove(field);
    let value = value.ok_or_else(|| MatrixError::not_found("this profile has no such field"))?;
    Ok(Json(json!({ field: value })))
}

async fn set_field(app: App, session: Session, request: SetField) -> Result<Json<Value>, MatrixError> {
    let [user_id, field] = request.parameters()?;
    own::check_text(&session, user_id)?;
    check_guest(&session, field)?;
    let value = request.content.get(field);
    let value = value.ok_or_else(|| MatrixError::missing_param(format!("the body has no {field:.255}")))?;
    // PF-02. Of the two that everybody knows, clients have always sent what they liked along with them.
    if request.content.len() > 1 && !["displayname", "avatar_url"].contains(&field) {
        return Err(MatrixError::bad_json(format!("the body may have {field:.255} only")));
    }
    let (field, value) = (field.to_owned(), value.clone());
    finished(async move {
        let change = app.accounts.set_profile_field(session.recipient, &field, value).await?;
        tell_rooms(&app, &session, change).await?;
        Ok(Json(json!({})))
    })
    .await
}

async fn delete_field(
    app: App,
    session: Session,
    request: delete::Request,
) -> Result<delete::Response, MatrixError> {
    own::check(&session, &request.user_id)?;
    check_guest(&session, request.field.as_str())?;
    finished(async move {
        let change = app.accounts.delete_profile_field(session.recipient, request.field.as_str()).await?;
        tell_rooms(&app, &session, change).await?;
        Ok(delete::Response::new())
    })
    .await
}

/// GU-04: a guest has a name and nothing else.
fn check_guest(session: &Session, field: &str) -> Result<(), MatrixError> {
    if session.guest && field != "displayname" { Err(MatrixError::guest()) } else { Ok(()) }
}

/// Members of the user's rooms see the profile in member events (PF-01).
async fn tell_rooms(app: &App, session: &Session, change: ProfileChange) -> Result<(), MatrixError> {
    if change == ProfileChange::Member {
        app.rooms.update_profile(&session.user_id).await?;
        app.presence.renamed(session.recipient, &session.user_id).await?;
    }
    Ok(())
}
