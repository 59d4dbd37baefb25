//! Keys of users, and who may change them.

use super::*;
use common::PASSWORD;

const UPLOAD: &str = "/v3/keys/device_signing/upload";

/// The keys of a user: master, self-signing, user-signing.
pub(crate) struct Trio {
    pub(crate) master: Signer,
    pub(crate) self_signing: Signer,
    pub(crate) user_signing: Signer,
    user_id: String,
}

impl Trio {
    pub(crate) fn new(user: &User, seed: u8) -> Self {
        Self {
            master: Signer::of_user(seed),
            self_signing: Signer::of_user(seed + 1),
            user_signing: Signer::of_user(seed + 2),
            user_id: user.user_id.clone(),
        }
    }

    pub(crate) async fn published(user: &User, seed: u8) -> Self {
        let trio = Self::new(user, seed);
        user.post(UPLOAD, trio.body()).await.expect(200);
        trio
    }

    pub(crate) fn by_master(&self, signer: &Signer, usage: &str) -> Value {
        let mut key = signer.object(&self.user_id, usage);
        sign(&mut key, &self.user_id, &self.master);
        key
    }

    pub(crate) fn body(&self) -> Value {
        json!({
            "master_key": self.master.object(&self.user_id, "master"),
            "self_signing_key": self.by_master(&self.self_signing, "self_signing"),
            "user_signing_key": self.by_master(&self.user_signing, "user_signing"),
        })
    }
}

/// The body with the user's password.
fn with_password(user: &User, mut body: Value, session: &Value) -> Value {
    body["auth"] = json!({
        "type": "m.login.password", "password": PASSWORD, "session": session,
        "identifier": { "type": "m.id.user", "user": user.user_id },
    });
    body
}

/// OK-08
#[tokio::test]
async fn ok_08_everybody_sees_a_users_keys_and_only_they_the_one_they_sign_others_with() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let trio = Trio::published(&alice, 10).await;
    let body = trio.body();
    let own = query(&alice, &alice.user_id).await;
    assert_eq!(own["master_keys"], json!({ &alice.user_id: body["master_key"] }));
    assert_eq!(own["self_signing_keys"], json!({ &alice.user_id: body["self_signing_key"] }));
    assert_eq!(own["user_signing_keys"], json!({ &alice.user_id: body["user_signing_key"] }));
    let seen = query(&bob, &alice.user_id).await;
    assert_eq!(seen["master_keys"], own["master_keys"]);
    assert_eq!(seen["self_signing_keys"], own["self_signing_keys"]);
    assert_eq!(seen.get("user_signing_keys"), None);
}

/// OK-09, MSC3967
#[tokio::test]
async fn ok_09_the_first_keys_and_the_same_again_need_no_password_and_others_do() {
    let server = server().await;
    let alice = server.register("alice").await;
    let first = Trio::new(&alice, 10);
    alice.post("/unstable/keys/device_signing/upload", first.body()).await.expect(200);
    alice.post(UPLOAD, first.body()).await.expect(200);
    let some = json!({ "self_signing_key": first.body()["self_signing_key"] });
    alice.post(UPLOAD, some).await.expect(200);

    let others = Trio::new(&alice, 20);
    let challenge = alice.post(UPLOAD, others.body()).await.expect(401);
    assert_eq!(challenge["flows"], json!([{ "stages": ["m.login.password"] }]));
    let mut one_new = first.body();
    one_new["user_signing_key"] = first.by_master(&others.user_signing, "user_signing");
    alice.post(UPLOAD, one_new.clone()).await.expect(401);
    assert_eq!(
        query(&alice, &alice.user_id).await["master_keys"][&alice.user_id],
        first.body()["master_key"]
    );

    // What was proved for one set of keys opens no other.
    let mut mixed = with_password(&alice, one_new, &challenge["session"]);
    alice.post(UPLOAD, mixed.clone()).await.expect(401);
    mixed["auth"]["password"] = json!("wrong");
    alice.post(UPLOAD, mixed).await.expect(401);

    alice.post(UPLOAD, with_password(&alice, others.body(), &challenge["session"])).await.expect(200);
    let seen = query(&alice, &alice.user_id).await;
    assert_eq!(seen["master_keys"][&alice.user_id], others.body()["master_key"]);
    assert_eq!(seen["self_signing_keys"][&alice.user_id], others.body()["self_signing_key"]);
}

#[tokio::test]
async fn a_new_master_key_takes_what_the_old_one_signed_with_it() {
    let server = server().await;
    let alice = server.register("alice").await;
    Trio::published(&alice, 10).await;
    let other = Signer::of_user(20);
    let body = json!({ "master_key": other.object(&alice.user_id, "master") });
    let challenge = alice.post(UPLOAD, body.clone()).await.expect(401);
    alice.post(UPLOAD, with_password(&alice, body, &challenge["session"])).await.expect(200);
    let seen = query(&alice, &alice.user_id).await;
    assert_eq!(seen["master_keys"][&alice.user_id], other.object(&alice.user_id, "master"));
    assert_eq!((seen.get("self_signing_keys"), seen.get("user_signing_keys")), (None, None));
}

/// Two sessions at once can't both be the first.
#[tokio::test(flavor = "multi_thread")]
async fn ok_09_of_many_first_keys_at_once_one_set_wins() {
    let server = server().await;
    let alice = server.register("alice").await;
    let uploads = (0..10).map(|number| {
        let alice = alice.clone();
        tokio::spawn(async move {
            let trio = Trio::new(&alice, 10 * number + 1);
            (alice.post(UPLOAD, trio.body()).await.status, trio)
        })
    });
    let mut won = Vec::new();
    for upload in uploads.collect::<Vec<_>>() {
        match upload.await.unwrap() {
            (200, trio) => won.push(trio),
            (status, _) => assert_eq!(status, 401),
        }
    }
    assert_eq!(won.len(), 1);
    let seen = query(&alice, &alice.user_id).await;
    assert_eq!(seen["self_signing_keys"][&alice.user_id], won[0].body()["self_signing_key"]);
}

/// OK-10, and the wrong shapes that the specification names.
#[tokio::test]
async fn ok_10_keys_of_wrong_shape_or_signature_are_refused() {
    let server = server().await;
    let alice = server.register("alice").await;
    let trio = Trio::new(&alice, 10);
    let missing = json!({ "self_signing_key": trio.body()["self_signing_key"] });
    alice.post(UPLOAD, missing).await.expect_error(400, "M_MISSING_PARAM");
    alice.post(UPLOAD, json!({})).await.expect_error(400, "M_MISSING_PARAM");

    let device = Identity::published(&alice, 1).await;
    let mut forged_by_device = trio.master.object(&alice.user_id, "master");
    sign(&mut forged_by_device, &alice.user_id, &Signer::of_device(&device.user.device_id, 99));
    let mut forged = trio.self_signing.object(&alice.user_id, "self_signing");
    sign(&mut forged, &alice.user_id, &trio.master);
    forged["usage"] = json!(["self_signing", "x"]);
    let changed = |path: &str, value: Value| {
        let mut key = trio.by_master(&trio.user_signing, "user_signing");
        *key.pointer_mut(path).unwrap() = value;
        key
    };
    let padded = json!({ "ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" });
    let two = json!({ "ed25519:A": "A", "ed25519:B": "B" });
    let refused = [
        ("self_signing_key", trio.self_signing.object(&alice.user_id, "self_signing"), "M_INVALID_SIGNATURE"),
        ("self_signing_key", Trio::new(&alice, 30).body()["self_signing_key"].clone(), "M_INVALID_SIGNATURE"),
        ("self_signing_key", forged, "M_INVALID_SIGNATURE"),
        ("master_key", forged_by_device, "M_INVALID_SIGNATURE"),
        ("master_key", trio.master.object("@bob:localhost", "master"), "M_INVALID_PARAM"),
        ("master_key", trio.master.object(&alice.user_id, "self_signing"), "M_INVALID_PARAM"),
        ("self_signing_key", trio.by_master(&trio.master, "self_signing"), "M_INVALID_PARAM"),
        ("user_signing_key", changed("/keys", json!({})), "M_INVALID_PARAM"),
        ("user_signing_key", changed("/keys", two), "M_INVALID_PARAM"),
        ("user_signing_key", changed("/keys", padded), "M_INVALID_PARAM"),
        ("user_signing_key", changed("/keys", json!({ "ed25519:x": "y" })), "M_INVALID_PARAM"),
        ("user_signing_key", changed("/usage", json!("user_signing")), "M_INVALID_PARAM"),
        ("user_signing_key", json!("text"), "M_BAD_JSON"),
    ];
    for (name, key, errcode) in refused {
        let mut body = trio.body();
        body[name] = key.clone();
        let answer = alice.post(UPLOAD, body).await;
        let got = (answer.status, &answer.json["errcode"]);
        assert_eq!(got, (400, &json!(errcode)), "{name} {key}: {}", answer.text());
    }
    assert_eq!(query(&alice, &alice.user_id).await.get("master_keys"), None);
}

/// OK-06
#[tokio::test]
async fn ok_06_no_device_is_called_like_a_key() {
    let server = server().await;
    let alice = server.register("alice").await;
    let trio = Trio::new(&alice, 10);
    let login = async |device_id: &str| {
        let body = json!({
            "type": "m.login.password", "password": PASSWORD, "device_id": device_id,
            "identifier": { "type": "m.id.user", "user": "alice" },
        });
        server.http().post("/v3/login", None, body).await
    };
    login(&trio.self_signing.public()).await.expect(200);
    alice.post(UPLOAD, trio.body()).await.expect_error(403, "M_FORBIDDEN");
    let other = Trio::published(&alice, 20).await;
    login(&other.master.public()).await.expect_error(403, "M_FORBIDDEN");
    login("ANOTHER").await.expect(200);
}

#[tokio::test]
async fn new_keys_of_a_user_are_news_to_those_near() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let (mut own, mut near) = (Device::ready(&alice).await, Device::ready(&bob).await);
    let trio = Trio::published(&alice, 10).await;
    let changed = json!([alice.user_id]);
    assert_eq!(near.next().await["device_lists"]["changed"], changed);
    assert_eq!(own.next().await["device_lists"]["changed"], changed);

    // What a user signs others with is their own affair.
    let body = json!({ "user_signing_key": trio.by_master(&Signer::of_user(50), "user_signing") });
    let challenge = alice.post(UPLOAD, body.clone()).await.expect(401);
    alice.post(UPLOAD, with_password(&alice, body, &challenge["session"])).await.expect(200);
    assert_eq!(near.next().await.get("device_lists"), None);
    assert_eq!(own.next().await["device_lists"]["changed"], changed);
}
