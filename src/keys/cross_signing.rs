//! The keys with which users sign for themselves and each other ("Cross-signing").
//!
//! Whoever has a session can publish the first set of keys; after that only somebody who authenticates can change it, or
//! others would believe in a thief's keys. The same keys once more are no change.

use ruma::UserId;
use serde_json::Value;

use super::{
    Error, Keys,
    query::list,
    shape::{ED25519, Object, Verifier, canonical, keep_signatures, public_key, signed_text},
};
use crate::{
    queue::{Kind, pointer},
    store::{
        self, Batch,
        device_key::{
            CrossSigningKeyRow, add_cross_signing_key, forget_cross_signing_key, forget_signatures_of_key,
            has_cross_signing_key, replace_cross_signing_key,
        },
        device_list::insert_change,
    },
};

/// What a user publishes; each is an object as the specification has it.
#[expect(clippy::struct_field_names, reason = "the specification's names")]
#[derive(Clone, Debug, Default)]
pub struct SigningKeys {
    pub master_key: Option<Object>,
    pub self_signing_key: Option<Object>,
    pub user_signing_key: Option<Object>,
}

/// What an upload would change.
#[derive(Debug)]
pub struct SigningChange {
    stored: Vec<CrossSigningKeyRow>,
    new: Vec<CrossSigningKeyRow>,
}

const MASTER: &str = "master";
const SELF_SIGNING: &str = "self_signing";
const USER_SIGNING: &str = "user_signing";

impl SigningChange {
    pub fn is_empty(&self) -> bool {
        self.new.is_empty()
    }

    /// Whether keys are there already, so that it takes the user themself to change them (OK-09).
    pub fn replaces(&self) -> bool {
        !self.is_empty() && self.stored(MASTER).is_some()
    }

    fn stored(&self, usage: &str) -> Option<&CrossSigningKeyRow> {
        self.stored.iter().find(|row| row.usage == usage)
    }

    fn is_new(&self, usage: &str) -> bool {
        self.new.iter().any(|row| row.usage == usage)
    }
}

impl Keys {
    /// Checks what a user wants to publish against what is there.
    pub async fn check_signing_keys(
        &self,
        user_id: &UserId,
        recipient: i64,
        keys: &SigningKeys,
    ) -> Result<SigningChange, Error> {
        let users = list([user_id.to_owned()].iter());
        let stored = self.store.cross_signing_keys(&users).await?;
        let given = [
            (MASTER, &keys.master_key),
            (SELF_SIGNING, &keys.self_signing_key),
            (USER_SIGNING, &keys.user_signing_key),
        ];
        let mut new: Vec<(&str, String, Object)> = Vec::new();
        for (usage, key) in given {
            let Some(key) = key else { continue };
            let public = check_shape(user_id, usage, key)?;
            if new.iter().any(|(_, other, _)| *other == public) {
                return Err(Error::Invalid("a key can't have two uses".to_owned()));
            }
            new.push((usage, public, key.clone()));
        }
        let mut change = SigningChange { stored, new: Vec::new() };
        let given_master =
            new.iter().find(|(usage, ..)| *usage == MASTER).map(|(_, public, _)| public.clone());
        let stored_master = change.stored(MASTER).map(|row| row.public_key.clone());
        let Some(master) = given_master.as_ref().or(stored_master.as_ref()) else {
            return Err(Error::Missing("there is no master key, and none comes with these"));
        };
        let same_master = stored_master.as_ref() == Some(master);
        let master =
            Verifier::of_user(master).ok_or_else(|| Error::Invalid("the master key is broken".to_owned()))?;

        let devices = self.store.devices(recipient).await?;
        let device_keys = self.store.device_keys(&users).await?;
        for (usage, public, mut object) in new {
            let before = change.stored(usage);
            if same_master && before.is_some_and(|row| row.public_key == public) {
                continue;
            }
            let name = format!("{ED25519}{public}");
            // OK-06
            if devices.iter().any(|device| device.device_id == public) {
                return Err(Error::Forbidden("Key ID in use: a device of yours has that id"));
            }
            if change
                .stored
                .iter()
                .any(|row| row.usage != usage && row.public_key == public && given_master.is_none())
            {
                return Err(Error::Invalid("a key can't have two uses".to_owned()));
            }
            let text = signed_text(&object)?;
            if usage != MASTER {
                master.check(&object, user_id, &text)?;
            }
            keep_signatures(&mut object, user_id, |key, signature| {
                let verifier = if key == master.name && key != name {
                    Some(master.clone())
                } else {
                    let id = key.strip_prefix(ED25519).unwrap_or_default();
                    let device = device_keys.iter().find(|device| device.device_id == id);
                    let keys =
                        device.map(|device| serde_json::from_str::<Object>(&device.keys)).transpose()?;
                    keys.and_then(|keys| Verifier::of_device(&keys, id))
                };
                match verifier {
                    Some(verifier) if !verifier.verifies(signature, &text) => {
                        Err(Error::Signature(format!("the signature by {key:.100} is wrong")))
                    }
                    // Nobody could check a signature by a key that isn't known here.
                    known => Ok(known.is_some()),
                }
            })?;
            let key = canonical(&Value::Object(object))?;
            let (user_id, usage) = (user_id.to_string(), usage.to_owned());
            change.new.push(CrossSigningKeyRow { user_id, usage, public_key: public, key });
        }
        Ok(change)
    }

    /// Makes a change that was checked. Whether it could: `false` if the keys were changed in the meantime.
    pub async fn change_signing_keys(
        &self,
        user_id: &UserId,
        recipient: i64,
        change: &SigningChange,
    ) -> Result<bool, Error> {
        if change.is_empty() {
            return Ok(true);
        }
        let mut batch = Batch::new();
        for row in &change.new {
            match change.stored(&row.usage) {
                Some(old) => {
                    batch.push(replace_cross_signing_key(&old.public_key, row));
                    if old.public_key != row.public_key {
                        batch.extend(forget_signatures_of_key(&old.user_id, &old.public_key));
                    }
                }
                None => batch.push(add_cross_signing_key(row)),
            }
        }
        let new_master = change.is_new(MASTER);
        for old in &change.stored {
            if change.is_new(&old.usage) {
                continue;
            }
            if new_master {
                // Signed by a master key that is no more.
                batch.push(forget_cross_signing_key(old));
                batch.extend(forget_signatures_of_key(&old.user_id, &old.public_key));
            } else if old.usage == MASTER {
                batch.push(has_cross_signing_key(&old.user_id, &old.public_key));
            }
        }
        if new_master || change.is_new(SELF_SIGNING) {
            self.lists.note(&mut batch, user_id, &[]).await?;
        } else {
            note_privately(&mut batch, recipient, user_id);
        }
        match self.store.commit(batch).await {
            Ok(_) => Ok(true),
            Err(store::Error::Conflict) => Ok(false),
            Err(cause) => Err(cause.into()),
        }
    }
}

/// Tells one user alone, all of their devices, that they see other keys of somebody than before.
pub(super) fn note_privately(batch: &mut Batch, recipient: i64, about: &UserId) {
    let step = batch.step();
    batch.push(insert_change(step, about.as_str(), None));
    batch.deliver(pointer([recipient], step, Kind::DeviceList, 0));
}

/// The public key in a user's key object, which has the form of one for this use.
pub(super) fn check_shape(user_id: &UserId, usage: &str, key: &Object) -> Result<String, Error> {
    let invalid = |text: &str| Error::Invalid(format!("the {usage} key: {text}"));
    if key.get("user_id").and_then(Value::as_str) != Some(user_id.as_str()) {
        return Err(invalid("`user_id` is another user"));
    }
    let uses = key.get("usage").and_then(Value::as_array);
    if !uses.is_some_and(|uses| uses.iter().all(Value::is_string) && uses.iter().any(|one| one == usage)) {
        return Err(invalid("`usage` doesn't name its use"));
    }
    let keys = key.get("keys").and_then(Value::as_object).filter(|keys| keys.len() == 1);
    let (name, public) = keys
        .and_then(|keys| keys.iter().next())
        .and_then(|(name, public)| Some((name, public.as_str()?)))
        .ok_or_else(|| invalid("`keys` has to hold exactly one key"))?;
    if name.strip_prefix(ED25519) != Some(public) || public_key(public).is_none() || public.ends_with('=') {
        return Err(invalid("`keys` has to be a public key in unpadded base64 under `ed25519:` and itself"));
    }
    Ok(public.to_owned())
}
