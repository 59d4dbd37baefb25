//! The table `device`: where a user is logged in.

use super::{Error, Statement, Store, statement};

#[derive(Clone, Debug)]
pub struct DeviceRow {
    /// Its number, for rows that mention it. Never given out again.
    pub id: i64,
    pub device_id: String,
    pub display_name: Option<String>,
    pub last_seen_ts: Option<i64>,
    pub last_seen_ip: Option<String>,
    pub last_seen_agent: Option<String>,
}

type Columns = (i64, String, Option<String>, Option<i64>, Option<String>, Option<String>);

impl From<Columns> for DeviceRow {
    fn from(row: Columns) -> Self {
        let (id, device_id, display_name, last_seen_ts, last_seen_ip, last_seen_agent) = row;
        Self { id, device_id, display_name, last_seen_ts, last_seen_ip, last_seen_agent }
    }
}

/// A device of that name, unless the user has it already: then it stays as it is.
pub fn add_device(user_id: &str, device_id: &str, display_name: Option<String>, now: i64) -> [Statement; 2] {
    [
        statement!("UPDATE counter SET value = value + 1 WHERE name = 'device'").expecting(1),
        statement!(
            "INSERT INTO device (recipient, device_id, id, display_name, created_ts)
             SELECT a.recipient, $2, c.value, $3, $4 FROM account a, counter c
             WHERE a.user_id = $1 AND c.name = 'device'
             ON CONFLICT (recipient, device_id) DO NOTHING",
            user_id,
            device_id,
            display_name,
            now,
        ),
    ]
}

/// Conflicts if there is no such device.
pub fn rename_device(recipient: i64, device_id: &str, display_name: Option<String>) -> Statement {
    statement!(
        "UPDATE device SET display_name = $3 WHERE recipient = $1 AND device_id = $2",
        recipient,
        device_id,
        display_name,
    )
    .expecting(1)
}

/// Devices with all that belongs to them; `ids` is a JSON array of their numbers.
pub fn delete_devices(recipient: i64, ids: &str) -> [Statement; 11] {
    delete_those(recipient, ids, true)
}

/// All devices that a user has by then, with all that belongs to them, but for `kept`: a JSON array of numbers.
pub fn delete_devices_but(recipient: i64, kept: &str) -> [Statement; 11] {
    delete_those(recipient, kept, false)
}

/// The user's devices that are in a list, or those that aren't.
fn delete_those(recipient: i64, ids: &str, listed: bool) -> [Statement; 11] {
    /// What begins so, for these devices: `$1` is the recipient, `$2` the list, `$3` whether they are in it.
    macro_rules! of_those {
        ($start:literal, $column:literal) => {
            statement!(
                concat!(
                    $start,
                    " IN (SELECT ",
                    $column,
                    " FROM device
                     WHERE recipient = $1 AND (id IN (SELECT value FROM json_each($2))) = $3)"
                ),
                recipient,
                ids,
                listed,
            )
        };
    }
    [
        of_those!("DELETE FROM dehydrated_device WHERE device", "id"),
        of_those!("DELETE FROM one_time_key WHERE device", "id"),
        of_those!("DELETE FROM fallback_key WHERE device", "id"),
        of_those!(
            "DELETE FROM key_signature
             WHERE user_id = (SELECT user_id FROM account WHERE recipient = $1) AND signed",
            "device_id"
        ),
        of_those!(
            "DELETE FROM key_signature
             WHERE signer = (SELECT user_id FROM account WHERE recipient = $1) AND signer_key",
            "'ed25519:' || device_id"
        ),
        of_those!(
            "DELETE FROM device_key
             WHERE user_id = (SELECT user_id FROM account WHERE recipient = $1) AND device_id",
            "device_id"
        ),
        of_those!("DELETE FROM access_token WHERE recipient = $1 AND device", "id"),
        of_those!("DELETE FROM refresh_token WHERE recipient = $1 AND device", "id"),
        of_those!("DELETE FROM txn WHERE device", "id"),
        of_those!("DELETE FROM to_device WHERE mailbox", "id"),
        of_those!("DELETE FROM device WHERE recipient = $1 AND id", "id"),
    ]
}

pub fn device_seen(id: i64, at: i64, ip: String, agent: Option<String>) -> Statement {
    statement!(
        "UPDATE device SET last_seen_ts = $2, last_seen_ip = $3, last_seen_agent = $4 WHERE id = $1",
        id,
        at,
        ip,
        agent,
    )
}

impl Store {
    /// A user's devices, oldest first.
    pub async fn devices(&self, recipient: i64) -> Result<Vec<DeviceRow>, Error> {
        let rows: Vec<Columns> = self
            .all(statement!(
                "SELECT id, device_id, display_name, last_seen_ts, last_seen_ip, last_seen_agent
                 FROM device WHERE recipient = $1 ORDER BY id",
                recipient,
            ))
            .await?;
        Ok(rows.into_iter().map(DeviceRow::from).collect())
    }

    pub async fn device(&self, recipient: i64, device_id: &str) -> Result<Option<DeviceRow>, Error> {
        let row: Option<Columns> = self
            .optional(statement!(
                "SELECT id, device_id, display_name, last_seen_ts, last_seen_ip, last_seen_agent
                 FROM device WHERE recipient = $1 AND device_id = $2",
                recipient,
                device_id,
            ))
            .await?;
        Ok(row.map(DeviceRow::from))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        queue::Tails,
        store::{
            Batch, Durability,
            account::add_account,
            device_key::{SignatureRow, add_signature, set_device_keys},
            one_time_key::{PlacedKey, add_one_time_key, set_fallback_key},
        },
    };

    /// OK-12: nobody can ask for what is left of a device that is gone, so nothing would ever take it away.
    #[tokio::test]
    async fn ok_12_nothing_of_a_devices_keys_outlives_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hearth.db");
        let (store, _) = Store::open(&path, Durability::Normal, Arc::new(Tails::new(1))).await.unwrap();
        store.commit(add_account("@a:x", None, false, 0)).await.unwrap();
        let mut devices = Vec::new();
        for device_id in ["A", "B"] {
            store.commit(Vec::from(add_device("@a:x", device_id, None, 0))).await.unwrap();
            let device = store.device(1, device_id).await.unwrap().unwrap().id;
            devices.push(device);
            let mut batch = Batch::new();
            let (step, key) = (batch.step(), "{}".to_owned());
            let placed = PlacedKey { device, algorithm: "m", key_id: "K", step, place: 0, key };
            add_one_time_key(&mut batch, placed, false);
            batch.push(set_fallback_key(device, "m", "F", "{}".to_owned()));
            batch.push(set_device_keys(device, "@a:x", device_id, "{}".to_owned()));
            for (signed, signer_key) in [(device_id, "ed25519:U"), ("U", &*format!("ed25519:{device_id}"))] {
                batch.push(add_signature(&SignatureRow {
                    user_id: "@a:x".to_owned(),
                    signed: signed.to_owned(),
                    signer: "@a:x".to_owned(),
                    signer_key: signer_key.to_owned(),
                    signature: "s".to_owned(),
                }));
            }
            store.commit(batch).await.unwrap();
        }
        let left = async |device: i64, device_id: &str| {
            let signatures = store.signatures(r#"["@a:x"]"#, None).await.unwrap();
            let by = format!("ed25519:{device_id}");
            (
                store.count_one_time_keys(device).await.unwrap().len(),
                store.unused_fallback_keys(device).await.unwrap().len(),
                store.keys_of_device("@a:x", device_id).await.unwrap().is_some(),
                signatures.iter().filter(|row| row.signed == device_id || row.signer_key == by).count(),
            )
        };
        assert_eq!(left(devices[0], "A").await, (1, 1, true, 2));
        store.commit(Vec::from(delete_devices(1, &format!("[{}]", devices[0])))).await.unwrap();
        assert_eq!(left(devices[0], "A").await, (0, 0, false, 0));
        assert_eq!(left(devices[1], "B").await, (1, 1, true, 2));
    }
}
