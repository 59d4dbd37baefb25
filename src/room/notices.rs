//! Server notices: what the operator has to tell a user, said by an account of the server's own in a room for the two
//! ("Server Notices"). A user has one such room. They are invited, can't reject the invite, and may leave once they are in;
//! the next notice invites them again.

use std::sync::Arc;

use ruma::{
    OwnedEventId, OwnedUserId, UserId,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};
use serde_json::{Map, Value, json, value::RawValue, value::to_raw_value};
use tokio::sync::Mutex;

use super::{Error, NewEvent, NewRoom, Preset, Room, Rooms, Txn, content};
use crate::{
    account::{self, Accounts, NewAccount},
    store::{Store, notice_room},
};

/// The tag by which clients know the room.
const TAG: &str = "m.server_notice";

/// Who speaks, and where.
#[derive(Clone, Debug)]
pub struct Settings {
    pub user_id: OwnedUserId,
    pub display_name: String,
    pub avatar_url: Option<String>,
    pub room_name: String,
}

/// What is said.
#[derive(Clone, Debug)]
pub struct Notice {
    pub kind: String,
    pub state_key: Option<String>,
    pub content: Box<RawValue>,
}

#[derive(Debug, thiserror::Error)]
pub enum NoticeError {
    #[error("server notices are not enabled: set `server_notices.localpart`")]
    Disabled,
    #[error("server notices go to users of this server only")]
    NotLocal,
    #[error("there is no such user")]
    NoUser,
    /// The configured account is somebody's.
    #[error("the account {0} of server notices can be logged in to: configure another name")]
    Taken(OwnedUserId),
    #[error(transparent)]
    Account(#[from] account::Error),
    #[error(transparent)]
    Room(#[from] Error),
}

pub struct Notices {
    store: Store,
    accounts: Arc<Accounts>,
    rooms: Arc<Rooms>,
    settings: Option<Settings>,
    /// Held while rooms are made and people invited; inside is whether the account is as it should be.
    ready: Mutex<bool>,
}

impl Notices {
    pub fn new(store: Store, accounts: Arc<Accounts>, rooms: Arc<Rooms>, settings: Option<Settings>) -> Self {
        Self { store, accounts, rooms, settings, ready: Mutex::new(false) }
    }

    /// Says something to a user of this server.
    pub async fn send(
        &self,
        user_id: &UserId,
        notice: Notice,
        txn: Option<Txn>,
    ) -> Result<OwnedEventId, NoticeError> {
        let settings = self.settings.as_ref().ok_or(NoticeError::Disabled)?;
        if user_id.server_name() != self.accounts.server_name() {
            return Err(NoticeError::NotLocal);
        }
        let account = self.store.account_of(user_id.as_str()).await.map_err(Error::from)?;
        let account = account.filter(|account| account.deactivated_ts.is_none());
        let account = account.ok_or(NoticeError::NoUser)?;
        if notice.kind == "m.room.message" {
            content::check_message(&notice.content)?;
        }
        let room = self.room(settings, account.recipient, user_id).await?;
        let event = NewEvent {
            sender: settings.user_id.clone(),
            kind: TimelineEventType::from(notice.kind),
            state_key: notice.state_key,
            content: notice.content,
            redacts: None,
        };
        Ok(self.rooms.append_one(&room, event, txn).await?.event_id)
    }

    /// The room of a user, in which they are or to which they are invited.
    async fn room(
        &self,
        settings: &Settings,
        recipient: i64,
        user_id: &UserId,
    ) -> Result<Arc<Room>, NoticeError> {
        let mut ready = self.ready.lock().await;
        if !*ready {
            self.prepare(settings).await?;
            *ready = true;
        }
        let room = match self.store.notice_room(recipient).await.map_err(Error::from)? {
            Some(number) => self.rooms.by_number(number).await?,
            None => self.make(settings, recipient).await?,
        };
        if room.snapshot().membership(user_id) == MembershipState::Leave {
            // First, so that the room is marked when the user sees it. Other tags that they gave it stay.
            self.accounts.set_tag(recipient, room.number, TAG, Map::new()).await?;
            // Not `Rooms::invite`: nobody can turn the server away.
            let content = self.rooms.core.member_content(user_id, "invite").await?;
            let invite = NewEvent {
                sender: settings.user_id.clone(),
                kind: TimelineEventType::RoomMember,
                state_key: Some(user_id.to_string()),
                content: raw(&content)?,
                redacts: None,
            };
            self.rooms.append_one(&room, invite, None).await?;
        }
        Ok(room)
    }

    async fn make(&self, settings: &Settings, recipient: i64) -> Result<Arc<Room>, Error> {
        let mut state = Vec::new();
        if let Some(url) = &settings.avatar_url {
            state.push((StateEventType::RoomAvatar, String::new(), json!({ "url": url })));
        }
        let object = |value: Value| match value {
            Value::Object(object) => object,
            _ => Map::new(),
        };
        let new = NewRoom {
            creator: settings.user_id.clone(),
            version: self.rooms.policy().default_version.clone(),
            preset: Preset::PrivateChat,
            published: false,
            alias: None,
            name: Some(settings.room_name.clone()),
            topic: None,
            creation_content: object(json!({ "m.federate": false })),
            // The user listens.
            power_levels: object(json!({ "users_default": -10, "invite": 50 })),
            initial_state: state,
            invites: Vec::new(),
            is_direct: false,
        };
        let room_id =
            self.rooms.create_with(new, |number| vec![notice_room::insert(recipient, number)]).await?;
        self.rooms.by_id(&room_id).await
    }

    /// Makes the account if it isn't there, and gives it its name and picture.
    async fn prepare(&self, settings: &Settings) -> Result<(), NoticeError> {
        let user_id = &settings.user_id;
        let found = self.store.account_of(user_id.as_str()).await.map_err(Error::from)?;
        match found {
            Some(account) if account.password_hash.is_some() || account.deactivated_ts.is_some() => {
                return Err(NoticeError::Taken(user_id.clone()));
            }
            Some(_) => {}
            None => {
                let new = NewAccount {
                    user_id: user_id.clone(),
                    password: None,
                    admin: false,
                    token: None,
                    device: None,
                };
                self.accounts.register(new).await?;
            }
        }
        let Some(recipient) = self.accounts.recipient(user_id).await.map_err(Error::from)? else {
            return Err(NoticeError::NoUser);
        };
        // Only if they are others: everybody's room of notices is one of the rooms that are told.
        let before = self.accounts.member_profile(user_id).await.map_err(Error::from)?;
        let (name, picture) = (json!(settings.display_name), json!(settings.avatar_url));
        let _ = self.accounts.set_profile_field(recipient, "displayname", name).await?;
        let _ = self.accounts.set_profile_field(recipient, "avatar_url", picture).await?;
        if self.accounts.member_profile(user_id).await.map_err(Error::from)? != before {
            self.rooms.update_profile(user_id).await?;
        }
        Ok(())
    }
}

fn raw(content: &Value) -> Result<Box<RawValue>, Error> {
    to_raw_value(content).map_err(|cause| Error::BadJson(cause.to_string()))
}

impl Rooms {
    /// SN-01: an invite to the room of server notices can't be rejected.
    pub(super) fn check_rejectable(&self, room: &Room, user_id: &UserId) -> Result<(), Error> {
        let snapshot = room.snapshot();
        let invited_by = snapshot.member(user_id).map(|event| &event.pdu.sender);
        let by_server = self.core.policy.notices.as_ref().is_some_and(|notices| Some(notices) == invited_by);
        if by_server && snapshot.membership(user_id) == MembershipState::Invite {
            return Err(Error::CannotLeaveNotices);
        }
        Ok(())
    }
}
