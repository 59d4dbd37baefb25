//! What other servers get of the keys here.

use super::{cross_signing::Trio, identity::name, *};
use common::federating::{Authority, Federating};
use http::Method;

/// DL-05
#[tokio::test(flavor = "multi_thread")]
async fn dl_05_other_servers_get_the_keys_of_users_here() {
    let authority = Authority::new();
    let here = Federating::start(&authority, toml::Table::new()).await;
    let there = Federating::start(&authority, toml::Table::new()).await;
    let (alice, bob) = (here.server.register("alice").await, here.server.register("bob").await);
    let stranger = there.server.register("stranger").await;
    let device = Identity::published(&alice, 1).await;
    let trio = Trio::published(&alice, 10).await;
    device.add([1]).await;
    let of_bob = Trio::published(&bob, 30).await;
    let id = alice.user_id.as_str();
    let path = format!("/v3/devices/{}", alice.device_id);
    alice.put(&path, json!({ "display_name": "Phone" })).await.expect(200);
    // Bob's trust is his own affair.
    let mut signed = trio.master.object(id, "master");
    sign(&mut signed, &bob.user_id, &of_bob.user_signing);
    let body = json!({ id: { trio.master.public(): signed } });
    let answer = bob.post("/v3/keys/signatures/upload", body).await.expect(200);
    assert_eq!(answer["failures"], json!({}));

    let ask = async |method: Method, path: &str, body: Option<Value>| {
        let uri = format!("/_matrix/federation/v1/user/{path}");
        here.signed(&there.name, &there.key(), method, &uri, body.as_ref()).await
    };
    let list = ask(Method::GET, &format!("devices/{id}"), None).await.expect(200);
    assert!(list["stream_id"].as_u64().unwrap() > 0);
    let devices = json!([{
        "device_id": alice.device_id, "keys": device.device_keys(), "device_display_name": "Phone",
    }]);
    assert_eq!(list["devices"], devices);
    assert_eq!(list["user_id"], id);
    assert_eq!(list["master_key"], trio.body()["master_key"]);
    assert_eq!(list["self_signing_key"], trio.body()["self_signing_key"]);
    for other in ["@nobody:localhost", &format!("@nobody:{}", here.name), &stranger.user_id] {
        ask(Method::GET, &format!("devices/{other}"), None).await.expect_error(404, "M_NOT_FOUND");
    }

    let asked = json!({ "device_keys": { id: [], &stranger.user_id: [], "what": [] } });
    let seen = ask(Method::POST, "keys/query", Some(asked)).await.expect(200);
    let mut expected = device.device_keys();
    expected["unsigned"] = json!({ "device_display_name": "Phone" });
    assert_eq!(seen["device_keys"], json!({ id: { &alice.device_id: expected } }));
    assert_eq!(seen["master_keys"], json!({ id: trio.body()["master_key"] }));
    assert_eq!(seen["self_signing_keys"], json!({ id: trio.body()["self_signing_key"] }));
    assert_eq!(seen.get("user_signing_keys"), None);

    let wanted =
        json!({ "one_time_keys": { id: { &alice.device_id: CURVE }, &stranger.user_id: { "X": CURVE } } });
    let taken = ask(Method::POST, "keys/claim", Some(wanted.clone())).await.expect(200);
    assert_eq!(taken["one_time_keys"], json!({ id: { &alice.device_id: { name(1): device.key(1) } } }));
    let taken = ask(Method::POST, "keys/claim", Some(wanted)).await.expect(200);
    assert_eq!(taken["one_time_keys"], json!({}));
    for path in ["keys/query", "keys/claim"] {
        ask(Method::POST, path, Some(json!({}))).await.expect_error(400, "M_BAD_JSON");
    }
}
