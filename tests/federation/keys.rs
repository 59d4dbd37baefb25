//! Devices and keys of people on the other server: seen, claimed, signed, and gone again.

use serde_json::{Value, json};

use crate::{
    CURVE,
    common::{PASSWORD, User},
    identity::{Identity, Signer, name, sign},
    world::{Case, Played, ensure, ok, until},
};

/// Another device of a user.
async fn login(user: &User) -> Result<User, String> {
    let body = json!({
        "type": "m.login.password", "password": PASSWORD,
        "identifier": { "type": "m.id.user", "user": user.user_id },
    });
    let answer = ok(user.http.post("/v3/login", None, body).await)?;
    Ok(User::new(user.http.clone(), &answer))
}

/// Another device of a user, with keys.
pub(crate) async fn another(user: &User, seed: u8) -> Result<Identity, String> {
    Ok(Identity::published(&login(user).await?, seed).await)
}

async fn query(reader: &User, other: &User) -> Value {
    let wanted = json!({ "device_keys": { &other.user_id: [] } });
    reader.post("/v3/keys/query", wanted).await.json
}

/// The keys that `reader` finds are those of these devices.
pub(crate) async fn sees(reader: &User, devices: &[&Identity]) -> Played {
    let other = &devices[0].user;
    until(&format!("{} sees {} devices of {}", reader.user_id, devices.len(), other.user_id), async || {
        let found = query(reader, other).await;
        let found = found["device_keys"][&other.user_id].as_object()?;
        let same = devices.iter().all(|device| {
            let keys = device.device_keys();
            let found = found.get(&device.user.device_id);
            let signature = |keys: &Value| keys["signatures"][&other.user_id][&device.signer.name].clone();
            found.is_some_and(|found| found["keys"] == keys["keys"] && signature(found) == signature(&keys))
        });
        (same && found.len() == devices.len()).then_some(())
    })
    .await
}

/// The place up to which somebody has heard.
struct Ear<'a> {
    reader: &'a User,
    since: String,
}

impl<'a> Ear<'a> {
    async fn new(reader: &'a User) -> Self {
        let since = next_batch(&reader.sync(None, 0).await);
        Self { reader, since }
    }

    /// Waits for word that somebody's devices or keys changed.
    async fn hears_of(&mut self, other: &User) -> Played {
        until(&format!("{} hears that {} changed", self.reader.user_id, other.user_id), async || {
            let answer = self.reader.sync(Some(&self.since), 1_000).await;
            self.since = next_batch(&answer);
            let changed = answer["device_lists"]["changed"].as_array()?;
            changed.contains(&json!(other.user_id)).then_some(())
        })
        .await
    }
}

fn next_batch(answer: &Value) -> String {
    answer["next_batch"].as_str().unwrap_or_default().to_owned()
}

/// Both ways.
pub(crate) async fn keys(case: &Case) -> Played {
    case.shared().await?;
    follow(&case.owner, &case.guest, 1).await?;
    follow(&case.guest, &case.owner, 101).await
}

async fn follow(reader: &User, other: &User, seed: u8) -> Played {
    let mut ear = Ear::new(reader).await;
    let first = Identity::published(other, seed).await;
    ear.hears_of(other).await?;
    sees(reader, &[&first]).await?;

    first.add([1, 2]).await;
    for number in [1, 2] {
        let wanted = json!({ "one_time_keys": { &other.user_id: { &other.device_id: CURVE } } });
        let claimed = ok(reader.post("/v3/keys/claim", wanted).await)?;
        let keys = &claimed["one_time_keys"][&other.user_id][&other.device_id];
        ensure(
            keys[name(number)]["key"] == first.key(number)["key"],
            &format!("the keys in their order: {claimed}"),
        )?;
    }

    let second = another(other, seed + 1).await?;
    ear.hears_of(other).await?;
    sees(reader, &[&first, &second]).await?;

    let own = Own::published(other, seed + 50).await?;
    ear.hears_of(other).await?;
    let shown = async |usage: &str, signer: &Signer| {
        until(&format!("{} sees the {usage} key", reader.user_id), async || {
            let found = query(reader, other).await;
            let keys = &found[format!("{usage}_keys")][&other.user_id]["keys"];
            (keys[&signer.name] == signer.public()).then_some(())
        })
        .await
    };
    shown("master", &own.master).await?;
    shown("self_signing", &own.self_signing).await?;

    let mut keys = second.device_keys();
    sign(&mut keys, &other.user_id, &own.self_signing);
    let body = json!({ &other.user_id: { &second.user.device_id: keys } });
    let answer = ok(other.post("/v3/keys/signatures/upload", body).await)?;
    ensure(answer["failures"] == json!({}), &format!("the device is signed: {answer}"))?;
    ear.hears_of(other).await?;
    until("the signature is seen", async || {
        let found = query(reader, other).await;
        let device = &found["device_keys"][&other.user_id][&second.user.device_id];
        device["signatures"][&other.user_id][&own.self_signing.name].is_string().then_some(())
    })
    .await?;

    ok(second.user.post("/v3/logout", json!({})).await)?;
    ear.hears_of(other).await?;
    sees(reader, &[&first]).await
}

/// A user's own keys.
struct Own {
    master: Signer,
    self_signing: Signer,
}

impl Own {
    async fn published(user: &User, seed: u8) -> Result<Self, String> {
        let [master, self_signing, user_signing] = [0, 1, 2].map(|number| Signer::of_user(seed + number));
        let by_master = |signer: &Signer, usage: &str| {
            let mut key = signer.object(&user.user_id, usage);
            sign(&mut key, &user.user_id, &master);
            key
        };
        let body = json!({
            "master_key": master.object(&user.user_id, "master"),
            "self_signing_key": by_master(&self_signing, "self_signing"),
            "user_signing_key": by_master(&user_signing, "user_signing"),
        });
        ok(user.post("/v3/keys/device_signing/upload", body).await)?;
        Ok(Self { master, self_signing })
    }
}
