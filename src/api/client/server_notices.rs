//! `/_synapse/admin/v1/send_server_notice`: server notices, as the tools of operators send them.

use http::StatusCode;
use ruma::UserId;
use serde::Deserialize;
use serde_json::{Map, Value, json, value::to_raw_value};

use super::send::txn;
use crate::{
    account::Session,
    api::bare::{Bare, Post, Put},
    app::App,
    http::{Json, MatrixError, Routes},
    limits::Class,
    room::{
        Txn,
        notices::{Notice, NoticeError},
    },
};

const PATH: &str = "/_synapse/admin/v1/send_server_notice";

pub(super) fn routes() -> Routes {
    Routes::default().limited_alias(Class::Free, PATH, post).limited_alias(
        Class::Free,
        &format!("{PATH}/{{txn_id}}"),
        put,
    )
}

#[derive(Deserialize)]
struct Body {
    user_id: Option<String>,
    content: Option<Map<String, Value>>,
    #[serde(rename = "type")]
    kind: Option<String>,
    state_key: Option<String>,
}

async fn post(app: App, session: Session, request: Bare<Post, Body>) -> Result<Json<Value>, MatrixError> {
    send(&app, &session, request.content, None).await
}

async fn put(app: App, session: Session, request: Bare<Put, Body>) -> Result<Json<Value>, MatrixError> {
    let [txn_id] = request.parameters()?;
    let txn = txn(&session, txn_id, &["send_server_notice"])?;
    send(&app, &session, request.content, Some(txn)).await
}

async fn send(
    app: &App,
    session: &Session,
    body: Body,
    txn: Option<Txn>,
) -> Result<Json<Value>, MatrixError> {
    if !session.admin {
        return Err(MatrixError::forbidden("only administrators of this server may do that"));
    }
    let missing = |name: &str| MatrixError::missing_param(format!("the body has no `{name}`"));
    let user_id = body.user_id.ok_or_else(|| missing("user_id"))?;
    let user_id = UserId::parse(user_id).map_err(|cause| MatrixError::invalid_param(cause.to_string()))?;
    let content = body.content.ok_or_else(|| missing("content"))?;
    let notice = Notice {
        kind: body.kind.unwrap_or_else(|| "m.room.message".to_owned()),
        state_key: body.state_key,
        content: to_raw_value(&content).map_err(|cause| MatrixError::internal(&cause))?,
    };
    let event_id = app.notices.send(&user_id, notice, txn).await?;
    Ok(Json(json!({ "event_id": event_id })))
}

impl From<NoticeError> for MatrixError {
    fn from(error: NoticeError) -> Self {
        let text = error.to_string();
        match error {
            NoticeError::Disabled | NoticeError::NotLocal => {
                Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", text)
            }
            NoticeError::NoUser => Self::not_found(text),
            NoticeError::Taken(_) => Self::internal(&text),
            NoticeError::Account(cause) => cause.into(),
            NoticeError::Room(cause) => cause.into(),
        }
    }
}
