//! The tables `device_key`, `cross_signing_key` and `key_signature`: public keys of devices and users, and what was signed
//! of them later.

use super::{Error, Statement, Store, statement};

/// The keys of a device.
#[derive(Clone, Debug)]
pub struct DeviceKeyRow {
    pub user_id: String,
    pub device_id: String,
    /// JSON: the object as its device signed it.
    pub keys: String,
    pub display_name: Option<String>,
}

type DeviceKeyColumns = (String, String, String, Option<String>);

impl From<DeviceKeyColumns> for DeviceKeyRow {
    fn from((user_id, device_id, keys, display_name): DeviceKeyColumns) -> Self {
        Self { user_id, device_id, keys, display_name }
    }
}

/// A key of a user.
#[derive(Clone, Debug)]
pub struct CrossSigningKeyRow {
    pub user_id: String,
    /// `master`, `self_signing` or `user_signing`.
    pub usage: String,
    /// In unpadded base64.
    pub public_key: String,
    /// JSON: the object.
    pub key: String,
}

type CrossSigningKeyColumns = (String, String, String, String);

impl From<CrossSigningKeyColumns> for CrossSigningKeyRow {
    fn from((user_id, usage, public_key, key): CrossSigningKeyColumns) -> Self {
        Self { user_id, usage, public_key, key }
    }
}

/// A signature of somebody's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureRow {
    /// Whose key is signed.
    pub user_id: String,
    /// A device's id, or a public key.
    pub signed: String,
    pub signer: String,
    /// `ed25519:…`
    pub signer_key: String,
    pub signature: String,
}

type SignatureColumns = (String, String, String, String, String);

impl From<SignatureColumns> for SignatureRow {
    fn from((user_id, signed, signer, signer_key, signature): SignatureColumns) -> Self {
        Self { user_id, signed, signer, signer_key, signature }
    }
}

/// The keys of a device here. Conflicts if the device is gone.
pub fn set_device_keys(device: i64, user_id: &str, device_id: &str, keys: String) -> Statement {
    statement!(
        "INSERT INTO device_key (user_id, device_id, keys)
         SELECT $2, $3, $4 FROM device WHERE id = $1
         ON CONFLICT (user_id, device_id) DO UPDATE SET keys = excluded.keys",
        device,
        user_id,
        device_id,
        keys,
    )
    .expecting(1)
}

/// Signatures of a device's keys, and those that it made.
pub fn forget_signatures_of_device(user_id: &str, device_id: &str) -> Statement {
    statement!(
        "DELETE FROM key_signature
         WHERE user_id = $1 AND (signed = $2 OR (signer = $1 AND signer_key = 'ed25519:' || $2))",
        user_id,
        device_id,
    )
}

/// A user's key for a use. Conflicts if there is one.
pub fn add_cross_signing_key(row: &CrossSigningKeyRow) -> Statement {
    statement!(
        "INSERT INTO cross_signing_key (user_id, usage, public_key, key) VALUES ($1, $2, $3, $4)",
        &row.user_id,
        &row.usage,
        &row.public_key,
        &row.key,
    )
}

/// Another key in the place of one. Conflicts if that isn't there any more.
pub fn replace_cross_signing_key(old: &str, row: &CrossSigningKeyRow) -> Statement {
    statement!(
        "UPDATE cross_signing_key SET public_key = $4, key = $5
         WHERE user_id = $1 AND usage = $2 AND public_key = $3",
        &row.user_id,
        &row.usage,
        old,
        &row.public_key,
        &row.key,
    )
    .expecting(1)
}

/// Conflicts if the key isn't there any more.
pub fn forget_cross_signing_key(row: &CrossSigningKeyRow) -> Statement {
    statement!(
        "DELETE FROM cross_signing_key WHERE user_id = $1 AND usage = $2 AND public_key = $3",
        &row.user_id,
        &row.usage,
        &row.public_key,
    )
    .expecting(1)
}

/// Changes nothing; conflicts if a user has no such key.
pub fn has_cross_signing_key(user_id: &str, public_key: &str) -> Statement {
    statement!(
        "UPDATE cross_signing_key SET public_key = public_key WHERE user_id = $1 AND public_key = $2",
        user_id,
        public_key,
    )
    .expecting(1)
}

/// Changes nothing; conflicts if a device has other keys, or none.
pub fn has_device_keys(user_id: &str, device_id: &str, keys: &str) -> Statement {
    statement!(
        "UPDATE device_key SET keys = keys WHERE user_id = $1 AND device_id = $2 AND keys = $3",
        user_id,
        device_id,
        keys,
    )
    .expecting(1)
}

pub fn add_signature(row: &SignatureRow) -> Statement {
    statement!(
        "INSERT INTO key_signature (user_id, signed, signer, signer_key, signature)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (user_id, signed, signer, signer_key) DO UPDATE SET signature = excluded.signature",
        &row.user_id,
        &row.signed,
        &row.signer,
        &row.signer_key,
        &row.signature,
    )
}

/// Signatures of a user's key, and those that it made.
pub fn forget_signatures_of_key(user_id: &str, public_key: &str) -> [Statement; 2] {
    [
        statement!("DELETE FROM key_signature WHERE user_id = $1 AND signed = $2", user_id, public_key),
        statement!(
            "DELETE FROM key_signature WHERE signer = $1 AND signer_key = 'ed25519:' || $2",
            user_id,
            public_key,
        ),
    ]
}

impl Store {
    /// Whether something is one of a user's public keys.
    pub async fn is_public_key(&self, user_id: &str, text: &str) -> Result<bool, Error> {
        let (found,): (bool,) = self
            .one(statement!(
                "SELECT EXISTS (SELECT 1 FROM cross_signing_key WHERE user_id = $1 AND public_key = $2)",
                user_id,
                text,
            ))
            .await?;
        Ok(found)
    }

    /// The keys of a device, JSON.
    pub async fn keys_of_device(&self, user_id: &str, device_id: &str) -> Result<Option<String>, Error> {
        let row: Option<(String,)> = self
            .optional(statement!(
                "SELECT keys FROM device_key
                 WHERE user_id = $1 AND device_id = $2 AND keys IS NOT NULL",
                user_id,
                device_id,
            ))
            .await?;
        Ok(row.map(|(keys,)| keys))
    }

    /// Which of these users have an account here. `users` is a JSON array.
    pub async fn known_here(&self, users: &str) -> Result<Vec<String>, Error> {
        let rows: Vec<(String,)> = self
            .all(statement!(
                "SELECT user_id FROM account WHERE user_id IN (SELECT value FROM json_each($1))",
                users,
            ))
            .await?;
        Ok(rows.into_iter().map(|(user_id,)| user_id).collect())
    }

    /// The position of the last change of a device of somebody here; 0 if there was none.
    pub async fn last_device_change(&self, user_id: &str) -> Result<i64, Error> {
        let (position,): (i64,) = self
            .one(statement!(
                "SELECT COALESCE(MAX(position), 0) FROM device_list_change
                 WHERE user_id = $1 AND device_id IS NOT NULL",
                user_id,
            ))
            .await?;
        Ok(position)
    }

    /// The keys of all devices of these users, here and elsewhere. `users` is a JSON array.
    pub async fn device_keys(&self, users: &str) -> Result<Vec<DeviceKeyRow>, Error> {
        let rows: Vec<DeviceKeyColumns> = self
            .all(statement!(
                "SELECT k.user_id, k.device_id, k.keys, COALESCE(d.display_name, k.display_name)
                 FROM device_key k
                 LEFT JOIN account a ON a.user_id = k.user_id
                 LEFT JOIN device d ON d.recipient = a.recipient AND d.device_id = k.device_id
                 WHERE k.user_id IN (SELECT value FROM json_each($1)) AND k.keys IS NOT NULL",
                users,
            ))
            .await?;
        Ok(rows.into_iter().map(DeviceKeyRow::from).collect())
    }

    /// The keys of these users. `users` is a JSON array.
    pub async fn cross_signing_keys(&self, users: &str) -> Result<Vec<CrossSigningKeyRow>, Error> {
        let rows: Vec<CrossSigningKeyColumns> = self
            .all(statement!(
                "SELECT user_id, usage, public_key, key FROM cross_signing_key
                 WHERE user_id IN (SELECT value FROM json_each($1))",
                users,
            ))
            .await?;
        Ok(rows.into_iter().map(CrossSigningKeyRow::from).collect())
    }

    /// Signatures of keys of these users: by themselves and by `witness`. `users` is a JSON array.
    pub async fn signatures(&self, users: &str, witness: Option<&str>) -> Result<Vec<SignatureRow>, Error> {
        let rows: Vec<SignatureColumns> = self
            .all(statement!(
                "SELECT user_id, signed, signer, signer_key, signature FROM key_signature
                 WHERE user_id IN (SELECT value FROM json_each($1)) AND (signer = user_id OR signer = $2)",
                users,
                witness,
            ))
            .await?;
        Ok(rows.into_iter().map(SignatureRow::from).collect())
    }
}
