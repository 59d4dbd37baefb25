//! Registration by whoever knows the server's shared secret, as Synapse has it: the tools of operators use it.
//!
//! A request names a nonce of ours and proves knowledge of the secret by a MAC over nonce, name, password and rank.

use hmac::{Hmac, KeyInit as _, Mac as _};
use parking_lot::Mutex;
use sha1::Sha1;

use super::{Accounts, DeviceRequest, Error, NewAccount, Registered, name::new_user_id};
use crate::environment::Environment;

/// How long a nonce is good.
const NONCE_MS: i64 = 60_000;

/// Nonces at a time; the oldest goes first.
const NONCES: usize = 1_024;

/// The nonces that were given out and not used.
pub(super) struct Nonces {
    environment: Environment,
    given: Mutex<Vec<(String, i64)>>,
}

impl Nonces {
    pub(super) fn new(environment: Environment) -> Self {
        Self { environment, given: Mutex::new(Vec::new()) }
    }

    fn give(&self) -> String {
        let now = self.environment.clock.now_ms();
        let nonce = self.environment.entropy.token(64);
        let mut given = self.given.lock();
        given.retain(|(_, at)| now - at < NONCE_MS);
        if given.len() == NONCES {
            given.remove(0);
        }
        given.push((nonce.clone(), now));
        nonce
    }

    /// Whether it was given out lately. Never true twice.
    fn take(&self, nonce: &str) -> bool {
        let now = self.environment.clock.now_ms();
        let mut given = self.given.lock();
        given.retain(|(_, at)| now - at < NONCE_MS);
        let found = given.iter().position(|(known, _)| known == nonce);
        found.map(|index| given.remove(index)).is_some()
    }
}

#[derive(Clone, Debug, serde::Deserialize)]
pub struct SharedSecretRequest {
    pub nonce: String,
    pub username: String,
    pub password: String,
    #[serde(default)]
    pub admin: bool,
    /// Not kept, but part of what the MAC covers.
    #[serde(default)]
    pub user_type: Option<String>,
    /// HMAC-SHA1 in hexadecimal.
    pub mac: String,
    #[serde(default)]
    pub inhibit_login: bool,
}

impl Accounts {
    pub fn has_shared_secret(&self) -> bool {
        self.shared_secret.is_some()
    }

    /// A nonce for one registration within a minute; `None` if the server has no shared secret.
    pub fn nonce(&self) -> Option<String> {
        self.shared_secret.as_ref().map(|_| self.nonces.give())
    }

    pub async fn register_by_secret(&self, request: SharedSecretRequest) -> Result<Registered, Error> {
        let secret = self.shared_secret.as_deref().ok_or(Error::RegistrationClosed)?;
        if [&request.nonce, &request.username, &request.password].iter().any(|text| text.contains('\0')) {
            return Err(Error::Invalid("NUL characters are not allowed".to_owned()));
        }
        if !self.nonces.take(&request.nonce) {
            return Err(Error::Invalid("unrecognised nonce".to_owned()));
        }
        if !proves(secret, &request) {
            return Err(Error::BadMac);
        }
        let user_id = new_user_id(&request.username, &self.server_name)?;
        self.register(NewAccount {
            user_id,
            password: Some(request.password),
            admin: request.admin,
            token: None,
            device: (!request.inhibit_login).then(DeviceRequest::default),
        })
        .await
    }
}

fn proves(secret: &str, request: &SharedSecretRequest) -> bool {
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(secret.as_bytes()) else { return false };
    let rank = if request.admin { "admin" } else { "notadmin" };
    let mut parts = vec![request.nonce.as_str(), &request.username, &request.password, rank];
    parts.extend(request.user_type.as_deref());
    mac.update(parts.join("\0").as_bytes());
    from_hex(&request.mac).is_some_and(|given| mac.verify_slice(&given).is_ok())
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).map(|value| value as u8)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(mac: &str) -> SharedSecretRequest {
        serde_json::from_value(serde_json::json!({
            "nonce": "thisisanonce", "username": "pepper_roni", "password": "pizza", "admin": true, "mac": mac,
        }))
        .unwrap()
    }

    #[test]
    fn the_mac_covers_the_request() {
        // Made with Python's hmac module from the documented layout.
        let right = request("48715842ad67d5dc9a9ee938a3bda4fcfae8d7c7");
        assert!(proves("shared_secret", &right));
        assert!(!proves("other_secret", &right));
        assert!(!proves("shared_secret", &SharedSecretRequest { admin: false, ..right.clone() }));
        assert!(!proves("shared_secret", &SharedSecretRequest { password: "pasta".to_owned(), ..right }));
        assert!(!proves("shared_secret", &request("zz")));
        assert!(!proves("shared_secret", &request("")));
    }

    #[test]
    fn a_nonce_is_good_once() {
        let nonces = Nonces::new(Environment::real());
        let nonce = nonces.give();
        assert!(nonces.take(&nonce));
        assert!(!nonces.take(&nonce));
        assert!(!nonces.take("made up"));
    }
}
