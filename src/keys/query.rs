//! Public keys of devices and users, for whoever asks.

use std::collections::BTreeMap;

use ruma::{OwnedDeviceId, OwnedUserId, UserId};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Error, Keys};
use crate::store::device_key::SignatureRow;

/// Whose keys are wanted, and of which devices; with none named, of all.
pub type WantedDevices = BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>;

/// Keys of devices and users, as `/keys/query` and its federated form have them.
#[expect(clippy::struct_field_names, reason = "the specification's names")]
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PublicKeys {
    /// A user that is known is here, without any device too.
    pub device_keys: BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, Value>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub master_keys: BTreeMap<OwnedUserId, Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub self_signing_keys: BTreeMap<OwnedUserId, Value>,
    /// Only the viewer's own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub user_signing_keys: BTreeMap<OwnedUserId, Value>,
}

impl Keys {
    /// The keys of users of this server; others are passed over. `viewer` is a user of this server, `None` another server.
    pub async fn query_local(
        &self,
        viewer: Option<&UserId>,
        wanted: &WantedDevices,
    ) -> Result<PublicKeys, Error> {
        let here: WantedDevices =
            wanted.iter().filter(|(user_id, _)| self.is_local(user_id)).map(owned).collect();
        if here.is_empty() {
            return Ok(PublicKeys::default());
        }
        let known = self.store.known_here(&list(here.keys())).await?;
        let mut answer = self.query_stored(viewer, &here).await?;
        for user_id in known.into_iter().filter_map(|user_id| UserId::parse(user_id).ok()) {
            answer.device_keys.entry(user_id).or_default();
        }
        Ok(answer)
    }

    /// All that other servers are told of a user of this server, and which change of the devices was the last (its
    /// `stream_id`). Nothing, if there is no such user.
    pub async fn list_of(&self, user_id: &UserId) -> Result<(i64, PublicKeys), Error> {
        // Read first: a change that is missed here is announced with a number above this one.
        let stream_id = self.store.last_device_change(user_id.as_str()).await?;
        let wanted = WantedDevices::from([(user_id.to_owned(), Vec::new())]);
        Ok((stream_id, self.query_local(None, &wanted).await?))
    }

    /// The keys of any users, as far as they are stored here.
    pub async fn query_stored(
        &self,
        viewer: Option<&UserId>,
        wanted: &WantedDevices,
    ) -> Result<PublicKeys, Error> {
        let users = list(wanted.keys());
        let mut answer = PublicKeys::default();
        for row in self.store.device_keys(&users).await? {
            let Ok(user_id) = OwnedUserId::try_from(row.user_id) else { continue };
            let device_id = OwnedDeviceId::from(row.device_id);
            let named = wanted.get(&user_id);
            if !named.is_some_and(|named| named.is_empty() || named.contains(&device_id)) {
                continue;
            }
            let mut keys: Value = serde_json::from_str(&row.keys)?;
            keys["unsigned"] = match row.display_name {
                Some(name) => json!({ "device_display_name": name }),
                None => json!({}),
            };
            answer.device_keys.entry(user_id).or_default().insert(device_id, keys);
        }
        for row in self.store.cross_signing_keys(&users).await? {
            let Ok(user_id) = OwnedUserId::try_from(row.user_id) else { continue };
            let keys = match row.usage.as_str() {
                "master" => &mut answer.master_keys,
                "self_signing" => &mut answer.self_signing_keys,
                // OK-08
                "user_signing" if viewer == Some(&user_id) => &mut answer.user_signing_keys,
                _ => continue,
            };
            keys.insert(user_id, serde_json::from_str(&row.key)?);
        }
        self.add_signatures(viewer, &mut answer).await?;
        Ok(answer)
    }

    /// Adds to keys, wherever they are from, the signatures that are stored here and that `viewer` may see: those by the
    /// keys' owners and by the viewer.
    pub async fn add_signatures(
        &self,
        viewer: Option<&UserId>,
        answer: &mut PublicKeys,
    ) -> Result<(), Error> {
        let users = list(answer.device_keys.keys().chain(answer.master_keys.keys()));
        for row in self.store.signatures(&users, viewer.map(UserId::as_str)).await? {
            let Ok(user_id) = UserId::parse(&row.user_id) else { continue };
            if let Some(key) = answer.signed_key(&user_id, &row.signed) {
                add_signature(key, &row);
            }
        }
        Ok(())
    }
}

impl PublicKeys {
    /// What is signed: a device by its id, or a user by the public key.
    fn signed_key(&mut self, user_id: &UserId, signed: &str) -> Option<&mut Value> {
        let device = self.device_keys.get_mut(user_id).and_then(|devices| devices.get_mut(signed));
        if device.is_some() {
            return device;
        }
        let name = format!("ed25519:{signed}");
        let all = [&mut self.master_keys, &mut self.self_signing_keys, &mut self.user_signing_keys];
        let mut keys = all.into_iter().filter_map(|keys| keys.get_mut(user_id));
        keys.find(|key| key.get("keys").is_some_and(|keys| keys.get(&name).is_some()))
    }
}

/// Adds a signature to the object that it is of.
pub fn add_signature(key: &mut Value, row: &SignatureRow) {
    let Some(key) = key.as_object_mut() else { return };
    let all = key.entry("signatures").or_insert_with(|| Map::new().into());
    let Some(all) = all.as_object_mut() else { return };
    let of_signer = all.entry(&row.signer).or_insert_with(|| Map::new().into());
    if let Some(of_signer) = of_signer.as_object_mut() {
        of_signer.insert(row.signer_key.clone(), row.signature.clone().into());
    }
}

fn owned((user_id, devices): (&OwnedUserId, &Vec<OwnedDeviceId>)) -> (OwnedUserId, Vec<OwnedDeviceId>) {
    (user_id.clone(), devices.clone())
}

/// A JSON array.
pub(super) fn list<'a>(users: impl Iterator<Item = &'a OwnedUserId>) -> String {
    json!(users.collect::<std::collections::BTreeSet<_>>()).to_string()
}
