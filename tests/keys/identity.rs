//! Keys as a client's cryptography makes them.

use hearth_federation::{SigningKey, json::canonical};
use serde_json::{Value, json};

use super::{Answer, CURVE, User};

/// An ed25519 key with the name that signatures call it by.
pub(crate) struct Signer {
    key: SigningKey,
    pub(crate) name: String,
}

impl Signer {
    /// The key of a device.
    pub(crate) fn of_device(device_id: &str, seed: u8) -> Self {
        Self { key: SigningKey::new("x", [seed; 32]).unwrap(), name: format!("ed25519:{device_id}") }
    }

    /// A user's key, which is called by itself.
    pub(crate) fn of_user(seed: u8) -> Self {
        let key = SigningKey::new("x", [seed; 32]).unwrap();
        let name = format!("ed25519:{}", key.public_key_text());
        Self { key, name }
    }

    pub(crate) fn public(&self) -> String {
        self.key.public_key_text()
    }

    /// A user's key as it is uploaded.
    pub(crate) fn object(&self, user_id: &str, usage: &str) -> Value {
        json!({ "user_id": user_id, "usage": [usage], "keys": { &self.name: self.public() } })
    }
}

/// Signs an object as `user_id`.
pub(crate) fn sign(object: &mut Value, user_id: &str, signer: &Signer) {
    let mut bare = object.clone();
    bare.as_object_mut().unwrap().retain(|key, _| key != "signatures" && key != "unsigned");
    let text = canonical(&bare.to_string()).unwrap();
    object["signatures"][user_id][&signer.name] = signer.key.sign(text.as_bytes()).into();
}

/// A device with its keys.
pub(crate) struct Identity {
    pub(crate) user: User,
    pub(crate) signer: Signer,
    seed: u8,
}

impl Identity {
    pub(crate) fn new(user: &User, seed: u8) -> Self {
        Self { user: user.clone(), signer: Signer::of_device(&user.device_id, seed), seed }
    }

    /// One whose keys are uploaded.
    pub(crate) async fn published(user: &User, seed: u8) -> Self {
        let identity = Self::new(user, seed);
        identity.upload(json!({ "device_keys": identity.device_keys() })).await.expect(200);
        identity
    }

    /// Any 32 bytes that differ by number.
    pub(crate) fn curve(&self, number: u32) -> String {
        let mut seed = [self.seed; 32];
        seed[..4].copy_from_slice(&number.to_le_bytes());
        SigningKey::new("x", seed).unwrap().public_key_text()
    }

    pub(crate) fn device_keys(&self) -> Value {
        let User { user_id, device_id, .. } = &self.user;
        let mut keys = json!({
            "user_id": user_id,
            "device_id": device_id,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": {
                format!("curve25519:{device_id}"): self.curve(0),
                &self.signer.name: self.signer.public(),
            },
        });
        sign(&mut keys, user_id, &self.signer);
        keys
    }

    /// A signed one-time key.
    pub(crate) fn key(&self, number: u32) -> Value {
        let mut key = json!({ "key": self.curve(number) });
        sign(&mut key, &self.user.user_id, &self.signer);
        key
    }

    pub(crate) fn fallback(&self, number: u32) -> Value {
        let mut key = json!({ "key": self.curve(number), "fallback": true });
        sign(&mut key, &self.user.user_id, &self.signer);
        key
    }

    /// One-time keys of these numbers by their names.
    pub(crate) fn keys(&self, numbers: impl IntoIterator<Item = u32>) -> Value {
        let keys = numbers.into_iter().map(|number| (name(number), self.key(number)));
        Value::Object(keys.collect())
    }

    pub(crate) async fn upload(&self, body: Value) -> Answer {
        self.user.post("/v3/keys/upload", body).await
    }

    /// Uploads one-time keys; how many there are then.
    pub(crate) async fn add(&self, numbers: impl IntoIterator<Item = u32>) -> u64 {
        let answer = self.upload(json!({ "one_time_keys": self.keys(numbers) })).await.expect(200);
        answer["one_time_key_counts"][CURVE].as_u64().unwrap()
    }
}

/// The name of a one-time key.
pub(crate) fn name(number: u32) -> String {
    format!("{CURVE}:K{number:05}")
}
