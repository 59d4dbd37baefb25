//! What a device publishes of itself: its keys, one-time keys and fallback keys ("Uploading keys").
//!
//! Each key is checked as those who will trust it check it, so that what is wrong is told to the client that made it and not
//! to everybody else. A device that comes with another identity begins anew: what was signed with the old one goes.

use std::collections::{BTreeMap, HashMap};

use ruma::{DeviceId, UserId};
use serde_json::Value;

use super::{
    Error, Keys,
    shape::{Object, Verifier, canonical, keep_signatures, public_key, signatures_by, signed_text},
};
use crate::store::{
    self, Batch,
    device_key::{forget_signatures_of_device, set_device_keys},
    one_time_key::{
        PlacedKey, add_one_time_key, forget_claimed, forget_fallback_keys, forget_one_time_keys,
        set_fallback_key,
    },
};

/// Keys in one upload. Clients upload some fifty at a time.
const MAX_UPLOAD: usize = 1_000;

/// One-time keys of a device and algorithm that are kept.
const MAX_KEPT: u64 = 1_000;

/// The longest name of a key with its algorithm, in bytes.
const MAX_NAME: usize = 255;

/// How often it is begun anew when another request of the same device writes at the same time.
const ATTEMPTS: usize = 8;

/// A device here.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    pub user_id: &'a UserId,
    pub device_id: &'a DeviceId,
    /// The account's number.
    pub recipient: i64,
    /// The device's number.
    pub device: i64,
}

/// What a device publishes.
#[expect(clippy::struct_field_names, reason = "the specification's names")]
#[derive(Clone, Debug, Default)]
pub struct Upload {
    pub device_keys: Option<Object>,
    /// By `<algorithm>:<key id>`.
    pub one_time_keys: BTreeMap<String, Value>,
    pub fallback_keys: BTreeMap<String, Value>,
}

/// A key with the parts of its name.
struct NamedKey {
    algorithm: String,
    key_id: String,
    key: Value,
    text: String,
}

/// What was checked of an upload.
#[expect(clippy::struct_field_names, reason = "the specification's names")]
struct Checked {
    device_keys: Option<Object>,
    one_time_keys: Vec<NamedKey>,
    fallback_keys: Vec<NamedKey>,
}

impl Keys {
    /// Publishes keys of a device; how many one-time keys it has then, by algorithm. All of an upload is taken or nothing.
    pub async fn upload(&self, holder: Holder<'_>, upload: Upload) -> Result<BTreeMap<String, u64>, Error> {
        let mut attempt = 1;
        loop {
            let mut batch = Batch::new();
            self.add_upload(&mut batch, holder, &upload, false).await?;
            if batch.is_empty() {
                break;
            }
            match self.store.commit(batch).await {
                Ok(_) => break,
                Err(store::Error::Conflict) if attempt < ATTEMPTS => attempt += 1,
                Err(cause) => return Err(cause.into()),
            }
            if self.store.device(holder.recipient, holder.device_id.as_str()).await?.is_none() {
                return Err(Error::NotFound("device"));
            }
        }
        Ok(self.left(holder.device).await?.one_time.clone())
    }

    /// Adds to a batch what has to be written for an upload, if anything. `new`: the batch adds the device too, so
    /// what is stored under its number, if that was given out meanwhile, is somebody else's.
    pub(super) async fn add_upload(
        &self,
        batch: &mut Batch,
        holder: Holder<'_>,
        upload: &Upload,
        new: bool,
    ) -> Result<(), Error> {
        if upload.one_time_keys.len() + upload.fallback_keys.len() > MAX_UPLOAD {
            return Err(Error::TooMany { what: "the keys of an upload", limit: MAX_UPLOAD });
        }
        let stored = self.stored_device_keys(holder.user_id, holder.device_id).await?;
        let users =
            self.store.cross_signing_keys(&super::query::list([holder.user_id.to_owned()].iter())).await?;
        // OK-06
        if users.iter().any(|key| key.public_key == holder.device_id.as_str()) {
            return Err(Error::Forbidden("the device's id is one of the user's public keys"));
        }
        let self_signing = users.iter().find(|key| key.usage == "self_signing");
        let self_signing = self_signing.and_then(|key| Verifier::of_user(&key.public_key));
        let checked = {
            let (user_id, device_id) = (holder.user_id.to_owned(), holder.device_id.to_owned());
            let (upload, stored) = (upload.clone(), stored.clone());
            // A thousand signatures take a while.
            let check = move || check(&user_id, &device_id, upload, stored.as_ref(), self_signing.as_ref());
            tokio::task::spawn_blocking(check).await.map_err(|_| Error::Store(store::Error::Closed))??
        };

        let mut anew = new;
        if let Some(keys) = checked.device_keys {
            if stored.as_ref().is_some_and(|stored| stored.get("keys") != keys.get("keys")) {
                anew = true;
                batch.push(forget_one_time_keys(holder.device));
                batch.push(forget_fallback_keys(holder.device));
                batch.push(forget_signatures_of_device(holder.user_id.as_str(), holder.device_id.as_str()));
            }
            if stored.as_ref() != Some(&keys) {
                let text = canonical(&Value::Object(keys))?;
                batch.push(set_device_keys(
                    holder.device,
                    holder.user_id.as_str(),
                    holder.device_id.as_str(),
                    text,
                ));
                self.lists.note(batch, holder.user_id, &[holder.device_id]).await?;
            }
        }
        self.add_one_time_keys(batch, holder.device, checked.one_time_keys, anew).await?;
        self.set_fallback_keys(batch, holder.device, checked.fallback_keys, anew).await?;
        if !batch.is_empty() {
            self.counts.forget_on_commit(batch, vec![holder.device]);
        }
        Ok(())
    }

    /// The keys of a device, as they are stored.
    pub(super) async fn stored_device_keys(
        &self,
        user_id: &UserId,
        device_id: &DeviceId,
    ) -> Result<Option<Object>, Error> {
        let text = self.store.keys_of_device(user_id.as_str(), device_id.as_str()).await?;
        Ok(text.map(|text| serde_json::from_str(&text)).transpose()?)
    }

    async fn add_one_time_keys(
        &self,
        batch: &mut Batch,
        device: i64,
        keys: Vec<NamedKey>,
        anew: bool,
    ) -> Result<(), Error> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut stored = HashMap::new();
        let mut kept = HashMap::new();
        if !anew {
            let ids = keys.iter().map(|key| key.key_id.as_str()).collect::<Value>().to_string();
            for row in self.store.one_time_keys_named(device, &ids).await? {
                stored.insert((row.algorithm, row.key_id), (row.key, row.claimed));
            }
            kept.extend(self.store.count_one_time_keys(device).await?);
        }
        let step = batch.step();
        for (place, new) in keys.into_iter().enumerate() {
            let name = (new.algorithm, new.key_id);
            let before = stored
                .get(&name)
                .map(|(key, claimed)| Ok::<_, Error>((serde_json::from_str::<Value>(key)?, *claimed)));
            let replace = match before.transpose()? {
                Some((old, _)) if is_same(&old, &new.key) => continue,
                Some((old, false)) => {
                    // Clients know this sentence, and what has gone wrong, by these words.
                    let text = format!(
                        "One time key {}:{} already exists. Old key: {old}; new key: {}",
                        name.0, name.1, new.key
                    );
                    return Err(Error::Invalid(text));
                }
                Some((_, true)) => true,
                None => false,
            };
            let kept = kept.entry(name.0.clone()).or_insert(0);
            *kept += 1;
            if *kept > MAX_KEPT {
                return Err(Error::TooMany {
                    what: "the one-time keys of a device",
                    limit: MAX_KEPT as usize,
                });
            }
            let key = PlacedKey {
                device,
                algorithm: &name.0,
                key_id: &name.1,
                step,
                place: place as i64,
                key: new.text,
            };
            add_one_time_key(batch, key, replace);
        }
        for algorithm in kept.into_keys() {
            batch.push(forget_claimed(device, &algorithm, MAX_KEPT as i64));
        }
        Ok(())
    }

    async fn set_fallback_keys(
        &self,
        batch: &mut Batch,
        device: i64,
        keys: Vec<NamedKey>,
        anew: bool,
    ) -> Result<(), Error> {
        for new in keys {
            let rows = self.store.fallback_keys(&format!("[{device}]"), &new.algorithm).await?;
            if let Some(row) = rows.first().filter(|_| !anew) {
                let old: Value = serde_json::from_str(&row.key)?;
                // One that was handed out stays handed out (OK-03).
                if row.key_id == new.key_id && is_same(&old, &new.key) {
                    continue;
                }
            }
            batch.push(set_fallback_key(device, &new.algorithm, &new.key_id, new.text));
        }
        Ok(())
    }
}

/// Whether two keys are one, by whatever it was signed.
fn is_same(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let rest = |object: &Object| {
                let mut object = object.clone();
                object.remove("signatures");
                object
            };
            rest(old) == rest(new)
        }
        (old, new) => old == new,
    }
}

fn check(
    user_id: &UserId,
    device_id: &DeviceId,
    upload: Upload,
    stored: Option<&Object>,
    self_signing: Option<&Verifier>,
) -> Result<Checked, Error> {
    let device_keys = upload
        .device_keys
        .map(|keys| check_device_keys(user_id, device_id, keys, stored, self_signing))
        .transpose()?;
    let known = device_keys.as_ref().or(stored);
    let signer = known.and_then(|keys| Verifier::of_device(keys, device_id.as_str()));
    let check_all = |keys: BTreeMap<String, Value>| -> Result<Vec<NamedKey>, Error> {
        keys.into_iter().map(|(name, key)| check_key(user_id, signer.as_ref(), &name, key)).collect()
    };
    let one_time_keys = check_all(upload.one_time_keys)?;
    let fallback_keys = check_all(upload.fallback_keys)?;
    for (place, key) in fallback_keys.iter().enumerate() {
        if fallback_keys[..place].iter().any(|other| other.algorithm == key.algorithm) {
            return Err(Error::Invalid(format!("there is one fallback key for {}, not two", key.algorithm)));
        }
    }
    Ok(Checked { device_keys, one_time_keys, fallback_keys })
}

/// The keys of a device as they are stored: with the signatures that are right, and with those that it had before.
fn check_device_keys(
    user_id: &UserId,
    device_id: &DeviceId,
    mut keys: Object,
    stored: Option<&Object>,
    self_signing: Option<&Verifier>,
) -> Result<Object, Error> {
    let invalid = |text: &str| Error::Invalid(format!("`device_keys`: {text}"));
    let text = |key: &str| keys.get(key).and_then(Value::as_str);
    if text("user_id") != Some(user_id.as_str()) {
        return Err(invalid("`user_id` is not who is logged in"));
    }
    if text("device_id") != Some(device_id.as_str()) {
        return Err(invalid("`device_id` is not the device that is logged in"));
    }
    let algorithms = keys.get("algorithms").and_then(Value::as_array);
    if !algorithms.is_some_and(|algorithms| algorithms.iter().all(Value::is_string)) {
        return Err(invalid("`algorithms` is not a list of names"));
    }
    let all = keys.get("keys").and_then(Value::as_object).ok_or_else(|| invalid("`keys` is missing"))?;
    for (name, key) in all {
        let key = key.as_str().ok_or_else(|| invalid("a key is not a string"))?;
        let Some((algorithm, device)) = name.split_once(':') else {
            return Err(invalid("a key's name is not `<algorithm>:<device id>`"));
        };
        if device != device_id.as_str() {
            return Err(invalid("a key's name ends with another device id"));
        }
        if matches!(algorithm, "ed25519" | "curve25519") && public_key(key).is_none() {
            return Err(invalid(&format!("the {algorithm} key is not 32 bytes in base64")));
        }
    }
    let signer = Verifier::of_device(&keys, device_id.as_str())
        .ok_or_else(|| invalid("there is no ed25519 key of this device"))?;
    let text = signed_text(&keys)?;
    signer.check(&keys, user_id, &text)?;
    keep_signatures(&mut keys, user_id, |key, signature| {
        let by_user = self_signing.filter(|verifier| verifier.name == key);
        match by_user {
            Some(verifier) if !verifier.verifies(signature, &text) => {
                Err(Error::Signature(format!("the signature by {key:.100} is wrong")))
            }
            Some(_) => Ok(true),
            None => Ok(key == signer.name),
        }
    })?;
    if let Some(stored) = stored.filter(|stored| signed_text(stored).is_ok_and(|stored| stored == text)) {
        let had: Vec<_> = signatures_by(stored, user_id).collect();
        if let Some(signatures) = keys.get_mut("signatures").and_then(|all| all.get_mut(user_id.as_str())) {
            for (key, signature) in had {
                if signatures.get(key).is_none() {
                    signatures[key] = signature.into();
                }
            }
        }
    }
    Ok(keys)
}

fn check_key(
    user_id: &UserId,
    signer: Option<&Verifier>,
    name: &str,
    mut key: Value,
) -> Result<NamedKey, Error> {
    let invalid = |text: &str| Error::Invalid(format!("the key {name:.100}: {text}"));
    let parts =
        name.split_once(':').filter(|(algorithm, key_id)| !algorithm.is_empty() && !key_id.is_empty());
    let Some((algorithm, key_id)) = parts.filter(|_| name.len() <= MAX_NAME && !name.contains('\0')) else {
        return Err(invalid("its name is not `<algorithm>:<key id>`"));
    };
    let is_public = |key: Option<&str>| key.and_then(public_key).is_some();
    match (algorithm, &mut key) {
        (algorithm, Value::Object(object)) if algorithm.starts_with("signed_") => {
            let key = object.get("key").and_then(Value::as_str);
            if key.is_none() || (algorithm == "signed_curve25519" && !is_public(key)) {
                return Err(invalid("`key` is not a public key in base64"));
            }
            let signer =
                signer.ok_or_else(|| invalid("the device has no keys that it could be signed by"))?;
            let text = signed_text(object)?;
            signer.check(object, user_id, &text).map_err(|cause| match cause {
                Error::Signature(text) => Error::Signature(format!("the key {name:.100}: {text}")),
                cause => cause,
            })?;
            keep_signatures(object, user_id, |key, _| Ok(key == signer.name))?;
        }
        ("curve25519", Value::String(key)) => {
            if !is_public(Some(key)) {
                return Err(invalid("it is not a public key in base64"));
            }
        }
        ("curve25519", _) => return Err(invalid("it is not a string")),
        (algorithm, _) if algorithm.starts_with("signed_") => return Err(invalid("it is not an object")),
        (_, Value::String(_) | Value::Object(_)) => {}
        _ => return Err(invalid("it is neither a string nor an object")),
    }
    let text = canonical(&key)?;
    Ok(NamedKey { algorithm: algorithm.to_owned(), key_id: key_id.to_owned(), key, text })
}
