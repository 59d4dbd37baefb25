//! What other servers are told of devices and keys of people here: of a device, as it is by now, under the number of its
//! change and with that of the change before; of a user's own keys all that others may know.
//!
//! Specification: [Device Management](https://spec.matrix.org/v1.19/server-server-api/#device-management) (DL-01, DL-03,
//! DL-04).

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value, json};

use super::backlog::{Item, Waiting};
use crate::{
    keys::add_signature,
    store::{self, Store, device_key::SignatureRow, device_list::AnnouncedRow},
};

/// The data for the changes among some items, in order.
pub(super) async fn edus(store: &Store, items: &[Waiting]) -> Result<Vec<Value>, store::Error> {
    let changes = items.iter().filter_map(|(_, item)| match item {
        Item::Devices(position) => Some(*position),
        _ => None,
    });
    let changes: BTreeSet<i64> = changes.collect();
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let rows = store.announced(&changes.into_iter().collect::<Vec<_>>()).await?;
    let users = json!(rows.iter().map(|row| &row.user_id).collect::<BTreeSet<_>>()).to_string();
    let signatures = store.signatures(&users, None).await?;
    let mut signed: HashMap<(&str, &str), Vec<&SignatureRow>> = HashMap::new();
    for row in &signatures {
        signed.entry((&row.user_id, &row.signed)).or_default().push(row);
    }
    let mut own_keys: HashMap<String, Map<String, Value>> = HashMap::new();
    for row in store.cross_signing_keys(&users).await? {
        let name = match row.usage.as_str() {
            "master" => "master_key",
            "self_signing" => "self_signing_key",
            _ => continue,
        };
        let Ok(mut key) = serde_json::from_str::<Value>(&row.key) else { continue };
        add_all(&mut key, signed.get(&(&*row.user_id, &*row.public_key)));
        own_keys.entry(row.user_id).or_default().insert(name.to_owned(), key);
    }
    let edus = rows.iter().filter_map(|row| match &row.device_id {
        Some(device_id) => Some(of_device(row, device_id, signed.get(&(&*row.user_id, &**device_id)))),
        None => Some(of_keys(row, own_keys.get(&row.user_id)?)),
    });
    Ok(edus.collect())
}

fn of_device(row: &AnnouncedRow, device_id: &str, signatures: Option<&Vec<&SignatureRow>>) -> Value {
    let mut content = json!({
        "user_id": row.user_id,
        "device_id": device_id,
        "stream_id": row.position,
        "prev_id": row.previous.iter().collect::<Vec<_>>(),
    });
    if !row.exists {
        content["deleted"] = json!(true);
    }
    if let Some(name) = &row.display_name {
        content["device_display_name"] = json!(name);
    }
    let keys = row.keys.as_ref().filter(|_| row.exists);
    if let Some(mut keys) = keys.and_then(|keys| serde_json::from_str::<Value>(keys).ok()) {
        add_all(&mut keys, signatures);
        content["keys"] = keys;
    }
    json!({ "edu_type": "m.device_list_update", "content": content })
}

fn of_keys(row: &AnnouncedRow, keys: &Map<String, Value>) -> Value {
    let mut content = keys.clone();
    content.insert("user_id".to_owned(), json!(row.user_id));
    json!({ "edu_type": "m.signing_key_update", "content": content })
}

fn add_all(key: &mut Value, signatures: Option<&Vec<&SignatureRow>>) {
    for signature in signatures.into_iter().flatten() {
        add_signature(key, signature);
    }
}
