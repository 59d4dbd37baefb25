//! The tables `one_time_key` and `fallback_key`: what devices leave here for others to begin a conversation with.

use super::{Error, Statement, Store, statement};

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

/// Takes a key out of what can be handed out. Conflicts if it isn't there (any more).
pub fn claim(device: i64, algorithm: &str, key_id: &str) -> Statement {
    statement!(
        "UPDATE one_time_key SET claimed = TRUE
         WHERE device = $1 AND algorithm = $2 AND key_id = $3 AND NOT claimed",
        device,
        algorithm,
        key_id,
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

impl Store {
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
    #[allow(dead_code)]
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
    #[allow(dead_code)]
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
