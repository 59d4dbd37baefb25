//! "Server-side key backups": versions, and the keys in them.

use std::{fmt::Write as _, io, sync::Arc};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::StatusCode;
use ruma::{
    UInt,
    api::client::backup::{
        BackupAlgorithm, KeyBackupData, RoomKeyBackup, add_backup_keys, add_backup_keys_for_room,
        add_backup_keys_for_session, create_backup_version, delete_backup_keys, delete_backup_keys_for_room,
        delete_backup_keys_for_session, delete_backup_version, get_backup_info, get_backup_keys,
        get_backup_keys_for_room, get_backup_keys_for_session, get_latest_backup_info, update_backup_version,
    },
    serde::Raw,
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::{
    account::Session,
    app::App,
    http::{Json, MatrixError, Routes, Whole, json_response},
    keys::{
        KeyBackups,
        backup::{Error, Held, Keys},
    },
    store::key_backup::{BackedUpKeyRow, BackupRow},
};

/// Keys that are read at a time, and sent on before the next are.
const PAGE: i64 = 500;

pub(super) fn routes() -> Routes {
    Routes::default()
        .add(create_version)
        .add(current_version)
        .add(version)
        .add(update_version)
        .add(delete_version)
        .add(put_all)
        .add(put_room)
        .add(put_session)
        .add(get_all)
        .add(get_room)
        .add(get_session)
        .add(delete_all)
        .add(delete_room)
        .add(delete_session)
}

/// What a client says about a version.
#[derive(Deserialize)]
struct Description {
    algorithm: String,
    auth_data: Box<RawValue>,
    version: Option<String>,
}

impl Description {
    fn read(body: &Raw<BackupAlgorithm>) -> Result<Self, MatrixError> {
        let this: Self = serde_json::from_str(body.json().get())
            .map_err(|cause| MatrixError::bad_json(cause.to_string()))?;
        if !this.auth_data.get().starts_with('{') {
            return Err(MatrixError::bad_json("`auth_data` is not an object"));
        }
        Ok(this)
    }
}

async fn create_version(
    app: App,
    session: Session,
    request: create_backup_version::v3::Request,
) -> Result<create_backup_version::v3::Response, MatrixError> {
    let Description { algorithm, auth_data, .. } = Description::read(&request.algorithm)?;
    let version = app.key_backups.create(session.recipient, &algorithm, auth_data.get()).await?;
    Ok(create_backup_version::v3::Response::new(version.to_string()))
}

fn describe(backup: &BackupRow) -> Result<Json<Value>, MatrixError> {
    let auth_data: Value =
        serde_json::from_str(&backup.auth_data).map_err(|cause| MatrixError::internal(&cause))?;
    Ok(Json(json!({
        "version": backup.version.to_string(),
        "algorithm": backup.algorithm,
        "auth_data": auth_data,
        "count": backup.count,
        "etag": backup.etag.to_string(),
    })))
}

async fn current_version(
    app: App,
    session: Session,
    _: get_latest_backup_info::v3::Request,
) -> Result<Json<Value>, MatrixError> {
    describe(&app.key_backups.current(session.recipient).await?)
}

async fn version(
    app: App,
    session: Session,
    request: get_backup_info::v3::Request,
) -> Result<Json<Value>, MatrixError> {
    describe(&app.key_backups.version(session.recipient, &request.version).await?)
}

async fn update_version(
    app: App,
    session: Session,
    request: update_backup_version::v3::Request,
) -> Result<update_backup_version::v3::Response, MatrixError> {
    let Description { algorithm, auth_data, version } = Description::read(&request.algorithm)?;
    if version.is_some_and(|version| version != request.version) {
        return Err(MatrixError::invalid_param("the body has another version than the path"));
    }
    let auth_data = auth_data.get();
    app.key_backups.set_auth_data(session.recipient, &request.version, &algorithm, auth_data).await?;
    Ok(update_backup_version::v3::Response::new())
}

async fn delete_version(
    app: App,
    session: Session,
    request: delete_backup_version::v3::Request,
) -> Result<delete_backup_version::v3::Response, MatrixError> {
    app.key_backups.delete_version(session.recipient, &request.version).await?;
    Ok(delete_backup_version::v3::Response::new())
}

/// A key as clients send it. Whatever else they say of it isn't kept.
#[derive(Deserialize)]
struct Key {
    first_message_index: UInt,
    forwarded_count: UInt,
    is_verified: bool,
    session_data: Box<RawValue>,
}

fn read_key(
    room_id: &str,
    session_id: &str,
    key: &Raw<KeyBackupData>,
) -> Result<BackedUpKeyRow, MatrixError> {
    let explain =
        |cause: &str| MatrixError::bad_json(format!("the key of session {session_id:.64}: {cause}"));
    let key: Key = serde_json::from_str(key.json().get()).map_err(|cause| explain(&cause.to_string()))?;
    if key.session_data.get() == "null" {
        return Err(explain("`session_data` is null"));
    }
    Ok(BackedUpKeyRow {
        room_id: room_id.to_owned(),
        session_id: session_id.to_owned(),
        first_message_index: key.first_message_index.into(),
        forwarded_count: key.forwarded_count.into(),
        is_verified: key.is_verified,
        session_data: key.session_data.get().to_owned(),
    })
}

fn read_room(room_id: &str, room: &RoomKeyBackup) -> Result<Vec<BackedUpKeyRow>, MatrixError> {
    room.sessions.iter().map(|(session_id, key)| read_key(room_id, session_id, key)).collect()
}

fn held(Held { etag, count }: Held) -> Json<Value> {
    Json(json!({ "etag": etag.to_string(), "count": count }))
}

async fn put_all(
    app: App,
    session: Session,
    request: add_backup_keys::v3::Request,
) -> Result<Json<Value>, MatrixError> {
    let mut keys = Vec::new();
    for (room_id, room) in &request.rooms {
        keys.append(&mut read_room(room_id.as_str(), room)?);
    }
    Ok(held(app.key_backups.upload(session.recipient, &request.version, keys).await?))
}

async fn put_room(
    app: App,
    session: Session,
    request: add_backup_keys_for_room::v3::Request,
) -> Result<Json<Value>, MatrixError> {
    let room = RoomKeyBackup::new(request.sessions);
    let keys = read_room(request.room_id.as_str(), &room)?;
    Ok(held(app.key_backups.upload(session.recipient, &request.version, keys).await?))
}

async fn put_session(
    app: App,
    session: Session,
    request: add_backup_keys_for_session::v3::Request,
) -> Result<Json<Value>, MatrixError> {
    let key = read_key(request.room_id.as_str(), &request.session_id, &request.session_data)?;
    Ok(held(app.key_backups.upload(session.recipient, &request.version, vec![key]).await?))
}

async fn get_all(
    app: App,
    session: Session,
    request: get_backup_keys::v3::Request,
) -> Result<Whole, MatrixError> {
    let backup = app.key_backups.version(session.recipient, &request.version).await?;
    Listing::new(&app, backup, None).answer().await
}

async fn get_room(
    app: App,
    session: Session,
    request: get_backup_keys_for_room::v3::Request,
) -> Result<Whole, MatrixError> {
    let backup = app.key_backups.version(session.recipient, &request.version).await?;
    Listing::new(&app, backup, Some(request.room_id.to_string())).answer().await
}

async fn get_session(
    app: App,
    session: Session,
    request: get_backup_keys_for_session::v3::Request,
) -> Result<Whole, MatrixError> {
    let room_id = request.room_id.as_str();
    let key = app.key_backups.key(session.recipient, &request.version, room_id, &request.session_id).await?;
    Ok(Whole(json_response(StatusCode::OK, written(&key))))
}

async fn delete_all(
    app: App,
    session: Session,
    request: delete_backup_keys::v3::Request,
) -> Result<Json<Value>, MatrixError> {
    Ok(held(app.key_backups.delete_keys(session.recipient, &request.version, Keys::All).await?))
}

async fn delete_room(
    app: App,
    session: Session,
    request: delete_backup_keys_for_room::v3::Request,
) -> Result<Json<Value>, MatrixError> {
    let which = Keys::Room(request.room_id.as_str());
    Ok(held(app.key_backups.delete_keys(session.recipient, &request.version, which).await?))
}

async fn delete_session(
    app: App,
    session: Session,
    request: delete_backup_keys_for_session::v3::Request,
) -> Result<Json<Value>, MatrixError> {
    let which = Keys::Session(request.room_id.as_str(), &request.session_id);
    Ok(held(app.key_backups.delete_keys(session.recipient, &request.version, which).await?))
}

/// A key as JSON.
fn written(key: &BackedUpKeyRow) -> String {
    format!(
        r#"{{"first_message_index":{},"forwarded_count":{},"is_verified":{},"session_data":{}}}"#,
        key.first_message_index, key.forwarded_count, key.is_verified, key.session_data
    )
}

/// Keys on their way into an answer, page by page: a backup may be larger than what anybody wants in memory.
struct Listing {
    backups: Arc<KeyBackups>,
    backup: BackupRow,
    /// The room whose keys are asked for, if not those of all.
    room: Option<String>,
    /// Room and session of the last key that was written, if one was.
    last: Option<(String, String)>,
    done: bool,
}

impl Listing {
    fn new(app: &App, backup: BackupRow, room: Option<String>) -> Self {
        Self { backups: Arc::clone(&app.key_backups), backup, room, last: None, done: false }
    }

    /// The next part of the answer.
    async fn next(&mut self) -> Result<String, Error> {
        let after = self.last.as_ref().map_or(("", ""), |(room, session)| (room.as_str(), session.as_str()));
        let keys = self.backups.page(&self.backup, self.room.as_deref(), after, PAGE).await?;
        let mut text = String::new();
        if self.last.is_none() {
            text.push_str(if self.room.is_some() { r#"{"sessions":{"# } else { r#"{"rooms":{"# });
        }
        for key in &keys {
            let before = self.last.as_ref().map(|(room, _)| room.as_str());
            if self.room.is_none() && before != Some(key.room_id.as_str()) {
                let end = if before.is_some() { "}}," } else { "" };
                // Writing into a text can't fail.
                let _ = write!(text, r#"{end}{}:{{"sessions":{{"#, Value::from(key.room_id.as_str()));
            } else if before.is_some() {
                text.push(',');
            }
            let _ = write!(text, "{}:{}", Value::from(key.session_id.as_str()), written(key));
            self.last = Some((key.room_id.clone(), key.session_id.clone()));
        }
        if (keys.len() as i64) < PAGE {
            self.done = true;
            text.push_str(if self.room.is_none() && self.last.is_some() { "}}}}" } else { "}}" });
        }
        Ok(text)
    }

    async fn answer(mut self) -> Result<Whole, MatrixError> {
        let first = self.next().await?;
        if self.done {
            return Ok(Whole(json_response(StatusCode::OK, first)));
        }
        let rest = stream::unfold(self, |mut listing| async move {
            if listing.done {
                return None;
            }
            let part = listing.next().await.map_err(|cause| {
                tracing::warn!(%cause, "an answer with keys of a backup ends early");
                listing.done = true;
                io::Error::other(cause)
            });
            Some((part.map(Bytes::from), listing))
        });
        let body = stream::iter([Ok(Bytes::from(first))]).chain(rest);
        Ok(Whole(json_response(StatusCode::OK, Body::from_stream(body))))
    }
}
