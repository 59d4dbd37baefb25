//! Logging in and out: giving tokens out, exchanging them and taking them back.

use ruma::{DeviceId, OwnedDeviceId, OwnedUserId};

use super::{
    Accounts, Error, Session,
    name::meant_by,
    session::{encode, hash},
};
use crate::store::{
    Batch, Statement,
    account::{AccountRow, still_password},
    device::{add_device, delete_devices, delete_devices_but},
    token::{add_access_token, add_refresh_token, exchange_refresh_token, revoke_tokens, revoke_tokens_of},
};

/// How long an access token that comes with a refresh token is good: an hour.
const ACCESS_MS: i64 = 60 * 60 * 1000;

/// About 256 random bits.
const TOKEN_LENGTH: usize = 43;

/// Bytes of a device's id, and of its name.
const MAX_DEVICE_ID: usize = 255;
const MAX_DISPLAY_NAME: usize = 1024;

/// What a client wants to call itself.
#[derive(Clone, Debug, Default)]
pub struct DeviceRequest {
    pub device_id: Option<OwnedDeviceId>,
    /// Ignored if the device exists.
    pub display_name: Option<String>,
    /// Whether the client can refresh its access token.
    pub refresh: bool,
}

/// A session that has just begun, with its secrets.
#[derive(Clone, Debug)]
pub struct Login {
    pub user_id: OwnedUserId,
    pub device_id: OwnedDeviceId,
    pub tokens: Tokens,
}

#[derive(Clone, Debug)]
pub struct Tokens {
    pub access: String,
    pub refresh: Option<String>,
    /// Milliseconds.
    pub expires_in: Option<i64>,
}

impl Accounts {
    /// Login by password. `user` is a localpart or a full user id.
    pub async fn login(&self, user: &str, password: String, device: DeviceRequest) -> Result<Login, Error> {
        let account = self.check_password(user, password).await?;
        self.log_in(account, device).await
    }

    /// The rest of [`Self::login`], of an account whose password was checked.
    pub(super) async fn log_in(&self, account: AccountRow, device: DeviceRequest) -> Result<Login, Error> {
        // LK-01: it would be of no use.
        if account.locked {
            return Err(Error::Locked);
        }
        let user_id = Self::user_id(&account)?;
        let (login, session) = self.open_session(user_id, device)?;
        // Whoever changes the password ends all sessions that it opened.
        let mut statements = vec![still_password(account.recipient, account.password_hash)];
        statements.extend(session);
        let mut batch = self.sessions.changing(account.recipient, statements);
        if self.store.device(account.recipient, login.device_id.as_str()).await?.is_none() {
            // OK-06
            if self.store.is_public_key(login.user_id.as_str(), login.device_id.as_str()).await? {
                return Err(Error::NotAllowed("the device's id is one of your public keys"));
            }
            self.sessions.device_lists().note(&mut batch, &login.user_id, &[&login.device_id]).await?;
        }
        match self.store.commit(batch).await {
            Err(crate::store::Error::Conflict) => {
                let dehydrated = self.store.dehydrated_device(account.recipient).await?;
                return Err(match dehydrated {
                    Some(device) if device.device_id == login.device_id => {
                        Error::Invalid("nobody can log in on a dehydrated device".to_owned())
                    }
                    // Since the password was checked.
                    _ => match self.store.account(account.recipient).await? {
                        Some(account) if account.deactivated_ts.is_none() => Error::BadCredentials,
                        _ => Error::Deactivated,
                    },
                });
            }
            other => other?,
        };
        Ok(login)
    }

    /// The account that somebody wants to log in to, in one form however they wrote it.
    pub fn login_name(&self, user: &str) -> String {
        meant_by(user, &self.server_name).map_or_else(|| user.to_owned(), |user_id| user_id.to_string())
    }

    /// The account whose password this is.
    pub(super) async fn check_password(&self, user: &str, password: String) -> Result<AccountRow, Error> {
        let account = match meant_by(user, &self.server_name) {
            Some(user_id) => self.store.account_of(user_id.as_str()).await?,
            None => None,
        };
        let stored = account.as_ref().and_then(|account| account.password_hash.clone());
        let right = self.passwords.verify(password, stored).await?;
        match account {
            // Deactivation takes the password away, so nobody could prove that they had it.
            Some(account) if account.deactivated_ts.is_some() => Err(Error::Deactivated),
            Some(account) if right => Ok(account),
            _ => Err(Error::BadCredentials),
        }
    }

    /// What has to be written for a new session. Tokens that the device had before end.
    pub(super) fn open_session(
        &self,
        user_id: OwnedUserId,
        device: DeviceRequest,
    ) -> Result<(Login, Vec<Statement>), Error> {
        if device.device_id.as_ref().is_some_and(|id| {
            id.as_str().is_empty() || id.as_str().len() > MAX_DEVICE_ID || id.as_str().contains('\0')
        }) {
            return Err(Error::Invalid(format!("a device id has 1 to {MAX_DEVICE_ID} bytes and no NUL")));
        }
        let display_name = device.display_name.as_deref().map(checked_display_name).transpose()?;
        let now = self.environment.clock.now_ms();
        let device_id =
            device.device_id.unwrap_or_else(|| self.environment.entropy.token(10).to_uppercase().into());
        let tokens = self.tokens(device.refresh);
        let (user, name) = (user_id.as_str(), device_id.as_str());
        let mut statements = Vec::from(revoke_tokens_of(user, name));
        statements.extend(add_device(user, name, display_name, now));
        statements.extend(tokens.statements(user, name, now));
        Ok((Login { user_id, device_id, tokens }, statements))
    }

    fn tokens(&self, refresh: bool) -> Tokens {
        let token = |prefix: &str| format!("{prefix}{}", self.environment.entropy.token(TOKEN_LENGTH));
        Tokens {
            access: token("hat_"),
            refresh: refresh.then(|| token("hrt_")),
            expires_in: refresh.then_some(ACCESS_MS),
        }
    }

    /// New tokens for a refresh token. The old ones are good until one of the new ones is used.
    pub async fn refresh(&self, token: &str) -> Result<Tokens, Error> {
        let token_hash = encode(hash(token));
        let now = self.environment.clock.now_ms();
        let unknown = Error::UnknownToken { soft_logout: false };
        let Some(row) = self.store.refresh_token(&token_hash).await? else { return Err(unknown) };
        if row.spent {
            // Either the client lost its state or somebody else has the token: nobody can tell, so all of them end.
            tracing::warn!(user = row.user_id, device = row.device_id, "a spent refresh token was used");
            let ends = Vec::from(revoke_tokens(row.device));
            self.store.commit(self.sessions.changing(row.recipient, ends)).await?;
            return Err(unknown);
        }
        if row.locked {
            return Err(Error::Locked);
        }
        self.sessions.confirm(row.recipient, row.device, &token_hash, now).await?;
        let tokens = self.tokens(true);
        let next = tokens.refresh.as_deref().map(|refresh| encode(hash(refresh))).unwrap_or_default();
        let mut statements = Vec::from(exchange_refresh_token(&token_hash, row.device, &next));
        statements.extend(tokens.statements(&row.user_id, &row.device_id, now));
        let batch = self.sessions.changing(row.recipient, statements);
        self.store.commit(batch).await.map_err(|cause| match cause {
            crate::store::Error::Conflict => unknown,
            cause => cause.into(),
        })?;
        Ok(tokens)
    }

    /// Ends the session and its device.
    pub async fn logout(&self, session: &Session) -> Result<(), Error> {
        self.drop_devices(session.recipient, &[session.device]).await
    }

    /// Ends all sessions of the account.
    pub async fn logout_all(&self, recipient: i64) -> Result<(), Error> {
        self.commit_without_devices(Vec::new(), recipient, None).await
    }

    /// Does something to an account and deletes, in the same commit, all devices that it has by then but one.
    pub(super) async fn commit_without_devices(
        &self,
        mut statements: Vec<Statement>,
        recipient: i64,
        kept: Option<i64>,
    ) -> Result<(), Error> {
        let mut doomed: Vec<i64> = self.store.devices(recipient).await?.iter().map(|row| row.id).collect();
        doomed.retain(|id| Some(*id) != kept);
        let kept = serde_json::json!(Vec::from_iter(kept)).to_string();
        statements.extend(delete_devices_but(recipient, &kept));
        self.end_devices(statements, recipient, &doomed).await
    }

    pub(super) async fn drop_devices(&self, recipient: i64, devices: &[i64]) -> Result<(), Error> {
        let ids = serde_json::json!(devices).to_string();
        self.end_devices(Vec::from(delete_devices(recipient, &ids)), recipient, devices).await
    }

    /// Commits what deletes devices, and tells of these.
    async fn end_devices(
        &self,
        statements: Vec<Statement>,
        recipient: i64,
        devices: &[i64],
    ) -> Result<(), Error> {
        let mut batch = self.sessions.ending(recipient, statements);
        self.note_gone(&mut batch, recipient, devices).await?;
        self.store.commit(batch).await?;
        Ok(())
    }
}

impl Accounts {
    /// Adds to a batch which deletes devices that these did.
    pub(super) async fn note_gone(
        &self,
        batch: &mut Batch,
        recipient: i64,
        devices: &[i64],
    ) -> Result<(), Error> {
        let mut gone = self.store.devices(recipient).await?;
        gone.retain(|row| devices.contains(&row.id));
        let Some(account) = self.store.account(recipient).await?.filter(|_| !gone.is_empty()) else {
            return Ok(());
        };
        let gone: Vec<&DeviceId> = gone.iter().map(|row| row.device_id.as_str().into()).collect();
        Ok(self.sessions.device_lists().note(batch, &Self::user_id(&account)?, &gone).await?)
    }
}

impl Tokens {
    fn statements(&self, user_id: &str, device_id: &str, now: i64) -> Vec<Statement> {
        let refresh = self.refresh.as_deref().map(|refresh| encode(hash(refresh)));
        let access = encode(hash(&self.access));
        let expires = self.expires_in.map(|wait| now + wait);
        let mut statements = vec![add_access_token(&access, user_id, device_id, expires, refresh.as_deref())];
        statements.extend(refresh.map(|refresh| add_refresh_token(&refresh, user_id, device_id, now)));
        statements
    }
}

/// A device's display name as it may be stored.
pub fn checked_display_name(name: &str) -> Result<String, Error> {
    if name.len() > MAX_DISPLAY_NAME {
        return Err(Error::TooLarge { what: "the display name", limit: MAX_DISPLAY_NAME });
    }
    Ok(name.replace('\0', ""))
}
