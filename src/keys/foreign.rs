//! Keys as other servers send them. They are their users' word, so what a key says of itself is checked, and the signature
//! by which a device says that its keys are its own; who else has signed them is for clients to look at.

use ruma::{DeviceId, UserId};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{
    Error,
    shape::{ED25519, Object, Verifier, canonical, keep_signatures, public_key, signed_text},
};
use crate::store::device_key::CrossSigningKeyRow;

/// Bytes of a device's id, and of its name.
const MAX_DEVICE_ID: usize = 255;
const MAX_DISPLAY_NAME: usize = 1024;

/// Bytes of a key as it is sent. What is kept is less.
const MAX_SENT: usize = 32 * 1024;

pub(super) const MASTER: &str = "master";
pub(super) const SELF_SIGNING: &str = "self_signing";

/// A device, as it was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ForeignDevice {
    pub(super) device_id: String,
    /// JSON. `None`: a device without encryption.
    pub(super) keys: Option<String>,
    pub(super) display_name: Option<String>,
}

/// A device in a list.
#[derive(Deserialize)]
struct Listed {
    device_id: String,
    #[serde(default)]
    keys: Option<Value>,
    #[serde(default)]
    device_display_name: Option<String>,
}

/// A device in the list of a user; `None` if it can't be one.
pub(super) fn listed_device(user_id: &UserId, device: &RawValue) -> Option<ForeignDevice> {
    if device.get().len() > MAX_SENT {
        return None;
    }
    let listed: Listed = serde_json::from_str(device.get()).ok()?;
    let keys = match listed.keys {
        Some(keys) => Some(device_keys(user_id, listed.device_id.as_str().into(), keys).ok()?),
        None => None,
    };
    is_device_id(&listed.device_id).then(|| ForeignDevice {
        device_id: listed.device_id,
        keys: keys.map(|keys| keys.to_string()),
        display_name: listed.device_display_name.as_deref().and_then(display_name),
    })
}

pub(super) fn is_device_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_DEVICE_ID && !id.contains('\0')
}

/// A name as it is kept; one that nobody could show isn't.
pub(super) fn display_name(name: &str) -> Option<String> {
    (name.len() <= MAX_DISPLAY_NAME).then(|| name.replace('\0', ""))
}

/// The keys of a device, as they are kept and shown: with the signatures by their owner, the device's own among them.
pub(super) fn device_keys(user_id: &UserId, device_id: &DeviceId, keys: Value) -> Result<Value, Error> {
    let invalid = |text: &str| Error::Invalid(format!("keys of a device of {user_id}: {text}"));
    let Value::Object(mut keys) = keys else { return Err(invalid("they are no object")) };
    let text = |key: &str| keys.get(key).and_then(Value::as_str);
    if text("user_id") != Some(user_id.as_str()) || text("device_id") != Some(device_id.as_str()) {
        return Err(invalid("they are of another device"));
    }
    let algorithms = keys.get("algorithms").and_then(Value::as_array);
    if !algorithms.is_some_and(|algorithms| algorithms.iter().all(Value::is_string)) {
        return Err(invalid("`algorithms` is not a list of names"));
    }
    let all = keys.get("keys").and_then(Value::as_object);
    if !all.is_some_and(|all| all.values().all(Value::is_string)) {
        return Err(invalid("`keys` aren't names and keys"));
    }
    let own = Verifier::of_device(&keys, device_id.as_str()).ok_or_else(|| invalid("none of them signs"))?;
    own.check(&keys, user_id, &signed_text(&keys)?)?;
    keep_signatures(&mut keys, user_id, |_, _| Ok(true))?;
    kept(keys)
}

/// A user's own key for a use, as it is kept. `master` has signed one that isn't the master key.
pub(super) fn own_key(
    user_id: &UserId,
    usage: &str,
    key: Value,
    master: Option<&str>,
) -> Result<CrossSigningKeyRow, Error> {
    let invalid = |text: &str| Error::Invalid(format!("the {usage} key of {user_id}: {text}"));
    let Value::Object(mut key) = key else { return Err(invalid("it is no object")) };
    if key.get("user_id").and_then(Value::as_str) != Some(user_id.as_str()) {
        return Err(invalid("it is somebody else's"));
    }
    let uses = key.get("usage").and_then(Value::as_array);
    if !uses.is_some_and(|uses| uses.iter().any(|other| other == usage)) {
        return Err(invalid("it is for another use"));
    }
    let public = only_key(&key).ok_or_else(|| invalid("it isn't one key that is called by itself"))?;
    if usage != MASTER {
        let master = master.and_then(Verifier::of_user).ok_or_else(|| invalid("there is no master key"))?;
        master.check(&key, user_id, &signed_text(&key)?)?;
    }
    keep_signatures(&mut key, user_id, |_, _| Ok(true))?;
    let (user_id, usage) = (user_id.to_string(), usage.to_owned());
    Ok(CrossSigningKeyRow { user_id, usage, public_key: public, key: kept(key)?.to_string() })
}

/// The one key of an object, by itself.
fn only_key(key: &Object) -> Option<String> {
    let keys = key.get("keys")?.as_object().filter(|keys| keys.len() == 1)?;
    let (name, public) = keys.iter().next()?;
    let public = public.as_str().filter(|public| public_key(public).is_some())?;
    (name.strip_prefix(ED25519) == Some(public)).then(|| public.to_owned())
}

/// The master and the self-signing key that a server gives, as far as they are right.
pub(super) fn own_keys(
    user_id: &UserId,
    master: Option<Value>,
    self_signing: Option<Value>,
) -> Vec<CrossSigningKeyRow> {
    let master = master.and_then(|key| own_key(user_id, MASTER, key, None).ok());
    let public = master.as_ref().map(|row| row.public_key.as_str());
    let self_signing = self_signing.and_then(|key| own_key(user_id, SELF_SIGNING, key, public).ok());
    master.into_iter().chain(self_signing).collect()
}

/// An object that isn't larger than one may be.
fn kept(object: Object) -> Result<Value, Error> {
    let value = Value::Object(object);
    canonical(&value)?;
    Ok(value)
}

/// A one-time key as another server hands it out, for an algorithm that was asked for.
pub(super) fn is_one_time_key(name: &str, algorithm: &str, key: &Value) -> bool {
    let named = name.split_once(':').is_some_and(|(of, id)| of == algorithm && !id.is_empty());
    let is_key = match key {
        Value::String(_) => !algorithm.starts_with("signed_"),
        Value::Object(key) => key.get("key").is_some_and(Value::is_string),
        _ => false,
    };
    named && is_key && name.len() <= MAX_DEVICE_ID && key.to_string().len() <= MAX_SENT
}
