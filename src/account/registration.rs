//! Making accounts, and the tokens that invite people to.

use ruma::{OwnedUserId, UserId};

use super::{Accounts, DeviceRequest, Error, Login, Session, name::new_user_id};
use crate::{
    config::RegistrationMode,
    store::{
        Batch, Error as StoreError,
        account::{AccountRow, add_account, register_guest},
        registration_token::{
            RegistrationTokenRow, add_registration_token, delete_registration_token, use_registration_token,
        },
    },
};

/// Longer registration tokens can't be ("Token-authenticated registration").
const MAX_TOKEN: usize = 64;

/// An account to be made.
#[derive(Clone, Debug)]
pub struct NewAccount {
    pub user_id: OwnedUserId,
    /// `None`: nobody can log in by password.
    pub password: Option<String>,
    pub admin: bool,
    /// The registration token that pays for it.
    pub token: Option<String>,
    /// `None`: no session begins.
    pub device: Option<DeviceRequest>,
}

/// An account that was made.
#[derive(Clone, Debug)]
pub struct Registered {
    pub user_id: OwnedUserId,
    pub login: Option<Login>,
}

impl Accounts {
    pub fn registration(&self) -> RegistrationMode {
        self.registration
    }

    /// The id that an account of this name would have: the name is valid and free at the moment. Without a name, one is
    /// made up.
    pub async fn available(&self, name: Option<&str>) -> Result<OwnedUserId, Error> {
        let user_id = match name {
            Some(name) => new_user_id(name, &self.server_name)?,
            None => new_user_id(&self.made_up_name(), &self.server_name)?,
        };
        let reserved = self.reserved.as_ref() == Some(&user_id);
        if reserved || self.store.account_of(user_id.as_str()).await?.is_some() {
            return Err(Error::UserInUse);
        }
        Ok(user_id)
    }

    fn made_up_name(&self) -> String {
        format!("u{}", self.environment.entropy.token(12).to_lowercase())
    }

    /// Makes an account, pays for it and opens its first session: all of it or nothing.
    pub async fn register(&self, new: NewAccount) -> Result<Registered, Error> {
        self.make(new, None).await
    }

    /// Makes an account, or one of a guest's.
    pub(super) async fn make(&self, new: NewAccount, guest: Option<Session>) -> Result<Registered, Error> {
        let now = self.environment.clock.now_ms();
        let mut admin = new.admin;
        let mut statements = Vec::new();
        if let Some(token) = &new.token {
            let row = self.store.registration_token(token).await?.ok_or(Error::BadRegistrationToken)?;
            admin |= row.makes_admin;
            statements.push(use_registration_token(token, now));
        }
        let password_hash = match new.password {
            Some(password) => Some(self.passwords.hash(password).await?),
            None => None,
        };
        match &guest {
            Some(guest) => {
                statements.push(register_guest(guest.recipient, password_hash, admin));
                statements.extend(self.end_guest(guest.recipient, new.device.as_ref()).await?);
            }
            None => statements.push(add_account(new.user_id.as_str(), password_hash, admin, now)),
        }
        let login = match new.device {
            Some(device) => {
                let (login, session) = self.open_session(new.user_id.clone(), device)?;
                statements.extend(session);
                Some(login)
            }
            None => None,
        };
        let mut batch = match &guest {
            Some(guest) => self.sessions.ending(guest.recipient, statements),
            None => Batch::from(statements),
        };
        if let (Some(guest), Some(login)) = (&guest, &login) {
            let mut others = self.store.devices(guest.recipient).await?;
            others.retain(|device| device.device_id != login.device_id.as_str());
            let others: Vec<i64> = others.iter().map(|device| device.id).collect();
            self.note_gone(&mut batch, guest.recipient, &others).await?;
        }
        match self.store.commit(batch).await {
            Ok(_) => Ok(Registered { user_id: new.user_id, login }),
            // Somebody else took the name or the last use of the token since they were checked.
            Err(StoreError::Conflict) => {
                let account = self.store.account_of(new.user_id.as_str()).await?;
                let taken = account.is_some_and(|account| guest.is_none() || !account.guest);
                Err(if taken { Error::UserInUse } else { Error::BadRegistrationToken })
            }
            Err(cause) => Err(cause.into()),
        }
    }

    /// Whether an account could be made with this token now.
    pub async fn is_registration_token(&self, token: &str) -> Result<bool, Error> {
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Ok(false);
        }
        let row = self.store.registration_token(token).await?;
        Ok(row.is_some_and(|row| row.is_valid(self.environment.clock.now_ms())))
    }

    /// A new registration token. `expires_in` is in milliseconds.
    pub async fn create_registration_token(
        &self,
        uses: Option<i64>,
        expires_in: Option<i64>,
        makes_admin: bool,
    ) -> Result<String, Error> {
        let now = self.environment.clock.now_ms();
        let token = self.environment.entropy.token(16);
        let expires = expires_in.map(|wait| now.saturating_add(wait));
        self.store.commit(add_registration_token(&token, uses, expires, makes_admin, now)).await?;
        Ok(token)
    }

    pub async fn registration_tokens(&self) -> Result<Vec<RegistrationTokenRow>, Error> {
        Ok(self.store.registration_tokens().await?)
    }

    pub async fn revoke_registration_token(&self, token: &str) -> Result<(), Error> {
        match self.store.commit(delete_registration_token(token)).await {
            Err(StoreError::Conflict) => Err(Error::NotFound("registration token")),
            other => Ok(other.map(drop)?),
        }
    }

    /// The token with which the first account, an administrator's, can be made; `None` once there is an account.
    pub async fn first_token(&self) -> Result<Option<String>, Error> {
        if self.store.has_accounts().await? {
            return Ok(None);
        }
        let now = self.environment.clock.now_ms();
        let tokens = self.store.registration_tokens().await?;
        if let Some(row) = tokens.into_iter().find(|row| row.makes_admin && row.is_valid(now)) {
            return Ok(Some(row.token));
        }
        self.create_registration_token(Some(1), None, true).await.map(Some)
    }

    /// All accounts, oldest first.
    pub async fn list(&self) -> Result<Vec<AccountRow>, Error> {
        Ok(self.store.accounts().await?)
    }

    /// The account of a local user, by localpart or full id.
    pub async fn find(&self, user: &str) -> Result<(AccountRow, OwnedUserId), Error> {
        let user_id = super::name::meant_by(user, &self.server_name).ok_or(Error::NotFound("user"))?;
        let account = self.store.account_of(user_id.as_str()).await?.ok_or(Error::NotFound("user"))?;
        Ok((account, user_id))
    }

    /// The number of a local user's account, if there is one.
    pub async fn recipient(&self, user_id: &UserId) -> Result<Option<i64>, StoreError> {
        let account = self.store.account_of(user_id.as_str()).await?;
        Ok(account.map(|account| account.recipient))
    }
}
