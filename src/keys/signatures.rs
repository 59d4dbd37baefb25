//! Signatures under keys that are there already: of a device by its user, of a user by their device, of one user by another
//! ("Publishing signatures").
//!
//! A user can only add signatures of their own, and each is verified with the key that it says it is by. What is wrong with
//! one key stops no other.

use std::collections::BTreeMap;

use ruma::{OwnedUserId, UserId};
use serde_json::Value;

use super::{
    Error, Keys,
    cross_signing::note_privately,
    query::list,
    shape::{ED25519, Object, Verifier, signatures_by, signed_text},
};
use crate::store::{
    self, Batch, Statement,
    device_key::{
        CrossSigningKeyRow, DeviceKeyRow, SignatureRow, add_signature, has_cross_signing_key, has_device_keys,
    },
};

/// Keys in one upload.
const MAX_KEYS: usize = 1_000;

const ATTEMPTS: usize = 8;

/// By user, and by device id or public key.
pub type ByKey<T> = BTreeMap<String, BTreeMap<String, T>>;

/// What is known of the keys that sign and are signed.
struct Known {
    devices: Vec<DeviceKeyRow>,
    users: Vec<CrossSigningKeyRow>,
}

/// Signatures of a key that are right.
struct Signed {
    rows: Vec<SignatureRow>,
    /// Conflict if one of the keys isn't there any more.
    conditions: Vec<Statement>,
    what: Target,
}

enum Target {
    OwnDevice,
    OwnMaster,
    OtherMaster(OwnedUserId),
}

impl Known {
    fn user_key(&self, user_id: &UserId, usage: &str) -> Option<&CrossSigningKeyRow> {
        self.users.iter().find(|row| row.user_id == user_id.as_str() && row.usage == usage)
    }

    fn device(&self, device_id: &str) -> Option<&DeviceKeyRow> {
        self.devices.iter().find(|row| row.device_id == device_id)
    }
}

impl Keys {
    /// Adds signatures by a user to keys; which of them were refused, and why.
    pub async fn upload_signatures(
        &self,
        signer: &UserId,
        recipient: i64,
        signed: &ByKey<Value>,
    ) -> Result<ByKey<Error>, Error> {
        if signed.values().map(BTreeMap::len).sum::<usize>() > MAX_KEYS {
            return Err(Error::TooMany { what: "the keys of an upload", limit: MAX_KEYS });
        }
        let mut attempt = 1;
        loop {
            let (failures, batch) = self.check_signatures(signer, recipient, signed).await?;
            if batch.is_empty() {
                return Ok(failures);
            }
            match self.store.commit(batch).await {
                Ok(_) => return Ok(failures),
                // A key went: it is a failure of its own when it is looked at again.
                Err(store::Error::Conflict) if attempt < ATTEMPTS => attempt += 1,
                Err(cause) => return Err(cause.into()),
            }
        }
    }

    async fn check_signatures(
        &self,
        signer: &UserId,
        recipient: i64,
        signed: &ByKey<Value>,
    ) -> Result<(ByKey<Error>, Batch), Error> {
        let owners = signed.keys().filter_map(|user_id| OwnedUserId::try_from(user_id.as_str()).ok());
        let owners: Vec<OwnedUserId> = owners.chain([signer.to_owned()]).collect();
        let users = list(owners.iter());
        let known = Known {
            devices: self.store.device_keys(&list([signer.to_owned()].iter())).await?,
            users: self.store.cross_signing_keys(&users).await?,
        };
        let stored = self.store.signatures(&users, Some(signer.as_str())).await?;

        let mut failures = ByKey::new();
        let mut batch = Batch::new();
        let (mut devices, mut master) = (Vec::new(), false);
        for (user_id, keys) in signed {
            for (key, object) in keys {
                let checked = match check(&known, signer, user_id, key, object) {
                    Ok(checked) => checked,
                    Err(cause) => {
                        failures.entry(user_id.clone()).or_default().insert(key.clone(), cause);
                        continue;
                    }
                };
                let new: Vec<SignatureRow> =
                    checked.rows.into_iter().filter(|row| !stored.contains(row)).collect();
                if new.is_empty() {
                    continue;
                }
                batch.extend(checked.conditions.into_iter().chain(new.iter().map(add_signature)));
                match checked.what {
                    Target::OwnDevice => devices.push(key.as_str().into()),
                    Target::OwnMaster => master = true,
                    Target::OtherMaster(about) => note_privately(&mut batch, recipient, &about),
                }
            }
        }
        if !devices.is_empty() {
            self.lists.note(&mut batch, signer, &devices).await?;
        }
        if master {
            self.lists.note(&mut batch, signer, &[]).await?;
        }
        Ok((failures, batch))
    }
}

/// The signatures by `signer` of the key that `object` is, or why there is none that counts.
fn check(known: &Known, signer: &UserId, user_id: &str, key: &str, object: &Value) -> Result<Signed, Error> {
    let Value::Object(object) = object else {
        return Err(Error::Invalid("a signed key is an object".to_owned()));
    };
    let Ok(user_id) = <&UserId>::try_from(user_id) else { return Err(Error::NotFound("user")) };
    if user_id != signer {
        let master = known.user_key(user_id, "master").filter(|row| row.public_key == key);
        let master = master.ok_or(Error::NotFound("master key"))?;
        let by =
            known.user_key(signer, "user_signing").ok_or(Error::NotFound("user-signing key of yours"))?;
        return Ok(Signed {
            rows: vec![signature(object, &master.key, user_id, key, signer, &of_user(by)?)?],
            conditions: vec![of_key(master), of_key(by)],
            what: Target::OtherMaster(user_id.to_owned()),
        });
    }
    if let Some(device) = known.device(key) {
        let by =
            known.user_key(signer, "self_signing").ok_or(Error::NotFound("self-signing key of yours"))?;
        return Ok(Signed {
            rows: vec![signature(object, &device.keys, user_id, key, signer, &of_user(by)?)?],
            conditions: vec![of_device(device), of_key(by)],
            what: Target::OwnDevice,
        });
    }
    let master = known.user_key(signer, "master").filter(|row| row.public_key == key);
    let master = master.ok_or(Error::NotFound("device or master key"))?;
    let mut signed = Signed { rows: Vec::new(), conditions: vec![of_key(master)], what: Target::OwnMaster };
    for (name, _) in signatures_by(object, signer) {
        let device = name.strip_prefix(ED25519).and_then(|id| known.device(id));
        let Some(device) = device else { continue };
        let keys: Object = serde_json::from_str(&device.keys)?;
        let Some(verifier) = Verifier::of_device(&keys, &device.device_id) else { continue };
        signed.rows.push(signature(object, &master.key, user_id, key, signer, &verifier)?);
        signed.conditions.push(of_device(device));
    }
    if signed.rows.is_empty() {
        return Err(Error::Signature("there is no signature by a device of yours".to_owned()));
    }
    Ok(signed)
}

/// The signature by one key, of an object that has to be what is stored.
fn signature(
    object: &Object,
    stored: &str,
    user_id: &UserId,
    key: &str,
    signer: &UserId,
    verifier: &Verifier,
) -> Result<SignatureRow, Error> {
    let text = signed_text(object)?;
    if text != signed_text(&serde_json::from_str(stored)?)? {
        return Err(Error::Invalid("this is not the key that is stored here".to_owned()));
    }
    verifier.check(object, signer, &text)?;
    let found = signatures_by(object, signer).find(|(name, _)| *name == verifier.name);
    let (name, signature) = found.ok_or(Error::NotFound("signature"))?;
    Ok(SignatureRow {
        user_id: user_id.to_string(),
        signed: key.to_owned(),
        signer: signer.to_string(),
        signer_key: name.to_owned(),
        signature: signature.to_owned(),
    })
}

fn of_user(row: &CrossSigningKeyRow) -> Result<Verifier, Error> {
    Verifier::of_user(&row.public_key).ok_or(Error::NotFound("usable key"))
}

fn of_key(row: &CrossSigningKeyRow) -> Statement {
    has_cross_signing_key(&row.user_id, &row.public_key)
}

fn of_device(row: &DeviceKeyRow) -> Statement {
    has_device_keys(&row.user_id, &row.device_id, &row.keys)
}
