//! The tables `one_time_key` and `fallback_key`: what devices leave here for others to begin a conversation with.

use super::{Arg, Batch, Error, Statement, Store, statement};

/// A device here, as others name it.
#[derive(Clone, Debug)]
pub struct NamedDevice {
    pub user_id: String,
    pub device_id: String,
    pub recipient: i64,
    /// The device's number.
    pub device: i64,
}

/// A key that can be handed out.
#[derive(Clone, Debug)]
pub struct HandoutRow {
    /// The device's number.
    pub device: i64,
    pub key_id: String,
    /// JSON
    pub key: String,
    /// Of a fallback key: whether it has been handed out before.
    pub used: bool,
}

type HandoutColumns = (i64, String, String, bool);

impl From<HandoutColumns> for HandoutRow {
    fn from((device, key_id, key, used): HandoutColumns) -> Self {
        Self { device, key_id, key, used }
    }
}

/// Takes a key out of what can be handed out. Conflicts if it isn't there (any more), or if another has its name.
pub fn claim(row: &HandoutRow, algorithm: &str) -> Statement {
    statement!(
        "UPDATE one_time_key SET claimed = TRUE
         WHERE device = $1 AND algorithm = $2 AND key_id = $3 AND key = $4 AND NOT claimed",
        row.device,
        algorithm,
        &row.key_id,
        &row.key,
    )
    .expecting(1)
}

/// A fallback key was handed out. Conflicts if it isn't there any more.
pub fn use_fallback(device: i64, algorithm: &str, key_id: &str) -> Statement {
    statement!(
        "UPDATE fallback_key SET used = TRUE WHERE device = $1 AND algorithm = $2 AND key_id = $3",
        device,
        algorithm,
        key_id,
    )
    .expecting(1)
}

/// A new one-time key.
#[derive(Clone, Debug)]
pub struct PlacedKey<'a> {
    /// The device's number.
    pub device: i64,
    pub algorithm: &'a str,
    pub key_id: &'a str,
    /// Keys are handed out in the order of their steps, and within a step of their places, which are below 1,000.
    pub step: u32,
    pub place: i64,
    /// JSON
    pub key: String,
}

/// Adds a key. Conflicts if the device is gone, or if it has a key of that name; but one that is claimed is replaced, if
/// that is said.
pub fn add_one_time_key(batch: &mut Batch, key: PlacedKey<'_>, replace: bool) {
    if replace {
        batch.push(statement!(
            "DELETE FROM one_time_key WHERE device = $1 AND algorithm = $2 AND key_id = $3 AND claimed",
            key.device,
            key.algorithm,
            key.key_id,
        ));
    }
    batch.push(
        statement!(
            "INSERT INTO one_time_key (device, algorithm, key_id, place, key)
             SELECT $1, $2, $3, $4 * 1000 + $5, $6 FROM device WHERE id = $1",
            key.device,
            key.algorithm,
            key.key_id,
            Arg::Position(key.step),
            key.place,
            key.key,
        )
        .expecting(1),
    );
}

/// Of the keys that were handed out only the newest `kept` are remembered.
pub fn forget_claimed(device: i64, algorithm: &str, kept: i64) -> Statement {
    statement!(
        "DELETE FROM one_time_key
         WHERE device = $1 AND algorithm = $2 AND claimed AND place < (
             SELECT place FROM one_time_key WHERE device = $1 AND algorithm = $2 AND claimed
             ORDER BY place DESC LIMIT 1 OFFSET $3
         )",
        device,
        algorithm,
        kept,
    )
}

/// All one-time keys of a device.
pub fn forget_one_time_keys(device: i64) -> Statement {
    statement!("DELETE FROM one_time_key WHERE device = $1", device)
}

/// The fallback key of an algorithm, in place of the one before. Conflicts if the device is gone.
pub fn set_fallback_key(device: i64, algorithm: &str, key_id: &str, key: String) -> Statement {
    statement!(
        "INSERT INTO fallback_key (device, algorithm, key_id, key, used)
         SELECT $1, $2, $3, $4, FALSE FROM device WHERE id = $1
         ON CONFLICT (device, algorithm)
         DO UPDATE SET key_id = excluded.key_id, key = excluded.key, used = FALSE",
        device,
        algorithm,
        key_id,
        key,
    )
    .expecting(1)
}

/// All fallback keys of a device.
pub fn forget_fallback_keys(device: i64) -> Statement {
    statement!("DELETE FROM fallback_key WHERE device = $1", device)
}

/// A one-time key that is stored.
#[derive(Clone, Debug)]
pub struct OneTimeKeyRow {
    pub algorithm: String,
    pub key_id: String,
    /// JSON
    pub key: String,
    pub claimed: bool,
}

impl Store {
    /// The one-time keys of a device with one of these ids (a JSON array).
    pub async fn one_time_keys_named(&self, device: i64, ids: &str) -> Result<Vec<OneTimeKeyRow>, Error> {
        let rows: Vec<(String, String, String, bool)> = self
            .all(statement!(
                "SELECT algorithm, key_id, key, claimed FROM one_time_key
                 WHERE device = $1 AND key_id IN (SELECT value FROM json_each($2))",
                device,
                ids,
            ))
            .await?;
        let row = |(algorithm, key_id, key, claimed)| OneTimeKeyRow { algorithm, key_id, key, claimed };
        Ok(rows.into_iter().map(row).collect())
    }

    /// All devices of these users, if they are here. `users` is a JSON array.
    pub async fn devices_of(&self, users: &str) -> Result<Vec<NamedDevice>, Error> {
        let rows: Vec<(String, String, i64, i64)> = self
            .all(statement!(
                "SELECT a.user_id, d.device_id, d.recipient, d.id
                 FROM account a JOIN device d ON d.recipient = a.recipient
                 WHERE a.user_id IN (SELECT value FROM json_each($1))",
                users,
            ))
            .await?;
        let named =
            |(user_id, device_id, recipient, device)| NamedDevice { user_id, device_id, recipient, device };
        Ok(rows.into_iter().map(named).collect())
    }

    /// The next one-time key of each device that has one. `devices` is a JSON array of numbers.
    pub async fn next_one_time_key(&self, devices: &str, algorithm: &str) -> Result<Vec<HandoutRow>, Error> {
        let rows: Vec<HandoutColumns> = self
            .all(statement!(
                "SELECT k.device, k.key_id, k.key, FALSE
                 FROM json_each($1) d JOIN one_time_key k ON k.device = d.value
                 WHERE k.algorithm = $2 AND NOT k.claimed
                   AND k.place = (
                       SELECT MIN(n.place) FROM one_time_key n
                       WHERE n.device = d.value AND n.algorithm = $2 AND NOT n.claimed
                   )",
                devices,
                algorithm,
            ))
            .await?;
        Ok(rows.into_iter().map(HandoutRow::from).collect())
    }

    /// The next one-time keys of a device, in the order in which they are to be handed out.
    pub async fn next_one_time_keys(
        &self,
        device: i64,
        algorithm: &str,
        limit: i64,
    ) -> Result<Vec<HandoutRow>, Error> {
        let rows: Vec<HandoutColumns> = self
            .all(statement!(
                "SELECT device, key_id, key, FALSE FROM one_time_key
                 WHERE device = $1 AND algorithm = $2 AND NOT claimed ORDER BY place LIMIT $3",
                device,
                algorithm,
                limit,
            ))
            .await?;
        Ok(rows.into_iter().map(HandoutRow::from).collect())
    }

    /// The fallback keys of these devices. `devices` is a JSON array of numbers.
    pub async fn fallback_keys(&self, devices: &str, algorithm: &str) -> Result<Vec<HandoutRow>, Error> {
        let rows: Vec<HandoutColumns> = self
            .all(statement!(
                "SELECT device, key_id, key, used FROM fallback_key
                 WHERE device IN (SELECT value FROM json_each($1)) AND algorithm = $2",
                devices,
                algorithm,
            ))
            .await?;
        Ok(rows.into_iter().map(HandoutRow::from).collect())
    }
}

impl Store {
    /// How many one-time keys of a device can be handed out, by algorithm.
    pub async fn count_one_time_keys(&self, device: i64) -> Result<Vec<(String, u64)>, Error> {
        let rows: Vec<(String, i64)> = self
            .all(statement!(
                "SELECT algorithm, COUNT(*) FROM one_time_key WHERE device = $1 AND NOT claimed
                 GROUP BY algorithm",
                device,
            ))
            .await?;
        Ok(rows.into_iter().map(|(algorithm, count)| (algorithm, count.unsigned_abs())).collect())
    }

    /// Algorithms whose fallback key was never handed out.
    pub async fn unused_fallback_keys(&self, device: i64) -> Result<Vec<String>, Error> {
        let rows: Vec<(String,)> = self
            .all(statement!(
                "SELECT algorithm FROM fallback_key WHERE device = $1 AND NOT used ORDER BY algorithm",
                device,
            ))
            .await?;
        Ok(rows.into_iter().map(|(algorithm,)| algorithm).collect())
    }
}
