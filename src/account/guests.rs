//! Guests: accounts that nobody has registered, and how one is registered after all ("Guest Access").
//!
//! What guests may ask for is said by the routes (`http::openness`), which rooms they may be in by those who order the
//! rooms. A guest has one device, which the server names, and no password.

use ruma::{OwnedUserId, UserId};

use super::{Accounts, DeviceRequest, Error, NewAccount, Origin, Registered, Session};
use crate::store::{
    self, Error as StoreError, Statement, account::add_guest, device::delete_devices, token::revoke_tokens,
};

/// Names of guests are numbers up to this: so many that the next one can't be guessed, nor how many there are.
const NAMES: u64 = 1_000_000_000_000;

/// How many names are tried. A second is hardly ever needed.
const ATTEMPTS: usize = 16;

impl Accounts {
    /// Makes an account for a guest. The client says nothing but what its device is called.
    pub async fn register_guest(&self, display_name: Option<String>) -> Result<Registered, Error> {
        if !self.guests {
            return Err(Error::NoGuests);
        }
        let now = self.environment.clock.now_ms();
        for _ in 0..ATTEMPTS {
            let user_id = self.guest_id()?;
            let device =
                DeviceRequest { display_name: display_name.clone(), device_id: None, refresh: false };
            let (login, session) = self.open_session(user_id.clone(), device)?;
            let mut statements = vec![add_guest(user_id.as_str(), now)];
            statements.extend(session);
            match self.store.commit(statements).await {
                Ok(_) => return Ok(Registered { user_id, login: Some(login) }),
                Err(StoreError::Conflict) => {}
                Err(cause) => return Err(cause.into()),
            }
        }
        Err(Error::UserInUse)
    }

    /// A name that nobody can choose.
    fn guest_id(&self) -> Result<OwnedUserId, Error> {
        let number = self.environment.entropy.number() % NAMES;
        let user_id = UserId::parse(format!("@{number}:{}", self.server_name));
        user_id.map_err(|cause| Error::InvalidUsername(cause.to_string()))
    }

    /// Whether somebody here is a guest.
    pub async fn is_guest(&self, user_id: &UserId) -> Result<bool, Error> {
        let Some(recipient) = self.recipient(user_id).await? else { return Ok(false) };
        Ok(self.store.account(recipient).await?.is_some_and(|account| account.guest))
    }

    /// The guest of an access token, if that is the user of this name: who shows both may register the account (GU-05).
    pub async fn guest(&self, token: &str, name: &str, origin: &Origin) -> Result<Session, Error> {
        let refused = || Error::NotAllowed("this isn't the name and the access token of one guest");
        let session = match self.sessions.authenticate(token, origin).await {
            Err(Error::UnknownToken { .. }) => return Err(refused()),
            other => other?,
        };
        if session.guest && session.user_id.localpart() == name { Ok(session) } else { Err(refused()) }
    }

    /// [`Self::register`], of a guest: the account keeps its name, its rooms and its queue. No session goes on that began
    /// without a password. The device stays if the client goes on with it, which it does unless it names another.
    pub async fn register_as(&self, mut new: NewAccount, guest: Session) -> Result<Registered, Error> {
        if let Some(device) = &mut new.device {
            device.device_id.get_or_insert_with(|| guest.device_id.clone());
        }
        self.make(new, Some(guest)).await
    }

    /// Ends the sessions of a guest, and the devices but for `kept`.
    pub(super) async fn end_guest(
        &self,
        recipient: i64,
        kept: Option<&DeviceRequest>,
    ) -> Result<Vec<Statement>, store::Error> {
        let devices = self.store.devices(recipient).await?;
        let mut statements: Vec<_> = devices.iter().flat_map(|device| revoke_tokens(device.id)).collect();
        // Without a new session the client logs in later, perhaps with the device that it has.
        let kept = kept.and_then(|device| device.device_id.as_ref());
        if let Some(kept) = kept {
            let others = devices.iter().filter(|device| device.device_id != kept.as_str());
            let others = serde_json::json!(others.map(|device| device.id).collect::<Vec<_>>()).to_string();
            statements.extend(delete_devices(recipient, &others));
        }
        Ok(statements)
    }
}
