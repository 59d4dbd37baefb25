//! What may be sent, and to whom it goes.

use serde_json::{Value, json};

use crate::{common::device::Device, numbers, send_to, server, to_all};

#[tokio::test]
async fn td_03_a_message_has_its_sender_type_and_content_and_nothing_else() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let body = json!({ "messages": { &bob.user_id: { &bob.device_id: { "key": [1, 2.5, null] } } } });
    alice.put("/v3/sendToDevice/org.example.%C3%A4/1", body).await.expect(200);
    let answer = bob.sync(None, 0).await;
    let event =
        json!({ "type": "org.example.ä", "sender": alice.user_id, "content": { "key": [1, 2.5, null] } });
    assert_eq!(answer["to_device"], json!({ "events": [event] }));
}

#[tokio::test]
async fn td_03_messages_go_to_the_devices_named_and_to_nobody_else() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (second, carol) = (server.login("bob").await, server.register("carol").await);
    send_to(&alice, json!({ &bob.user_id: { &second.device_id: { "n": 1 } } })).await;
    send_to(&alice, json!({ &bob.user_id: { "*": { "n": 2 } } })).await;
    // Who isn't there is passed over.
    let nobody = json!({ "@nobody:localhost": { "*": { "n": 3 } }, &bob.user_id: { "NONE": { "n": 4 } } });
    send_to(&alice, nobody).await;
    // Also to oneself, but not to the device that sends.
    let other = server.login("alice").await;
    send_to(&alice, json!({ &alice.user_id: { &other.device_id: { "n": 5 } } })).await;
    for (device, expected) in
        [(&bob, vec![2]), (&second, vec![1, 2]), (&carol, vec![]), (&alice, vec![]), (&other, vec![5])]
    {
        assert_eq!(numbers(&device.sync(None, 0).await), expected);
    }
}

#[tokio::test]
async fn td_05_a_transaction_counts_once_for_its_device_and_type_also_after_a_restart() {
    let mut server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let second = server.login("alice").await;
    let to_bob = |n: u64| json!({ "messages": { &bob.user_id: { "*": { "n": n } } } });
    let put = async |user: &crate::User, kind: &str, n: u64| {
        user.put(&format!("/v3/sendToDevice/{kind}/same"), to_bob(n)).await.expect(200);
    };
    put(&alice, "m.one", 1).await;
    put(&alice, "m.one", 2).await;
    put(&alice, "m.two", 3).await;
    put(&second, "m.one", 4).await;
    server.restart().await;
    put(&alice, "m.one", 5).await;
    put(&second, "m.one", 6).await;
    let many = (0..20).map(|n| {
        let (alice, body) = (alice.clone(), to_bob(10 + n));
        tokio::spawn(async move { alice.put("/v3/sendToDevice/m.many/1", body).await.expect(200) })
    });
    for put in many.collect::<Vec<_>>() {
        put.await.unwrap();
    }
    let mut bob = Device::new(&bob);
    let got = numbers(&bob.next().await);
    assert_eq!(got[..3], [1, 3, 4]);
    assert_eq!(got.len(), 4, "{got:?}");
}

#[tokio::test]
async fn gn_04_what_is_not_as_it_should_be_is_refused_whole() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let path = "/v3/sendToDevice/m.test/1";
    let good = json!({ "n": 1 });
    let bad = async |body: Value| alice.put(path, body).await;
    bad(json!({})).await.expect_error(400, "M_BAD_JSON");
    bad(json!({ "messages": [] })).await.expect_error(400, "M_BAD_JSON");
    bad(json!({ "messages": { "bob": { "*": good } } })).await.expect_error(400, "M_BAD_JSON");
    for content in [json!(7), json!("text"), json!([]), json!(null)] {
        let messages = json!({ &bob.user_id: { &bob.device_id: good, "OTHER": content } });
        bad(json!({ "messages": messages })).await.expect_error(400, "M_BAD_JSON");
    }
    let large = json!({ "text": "x".repeat(65_536) });
    let messages = json!({ &bob.user_id: { &bob.device_id: good, "*": large } });
    bad(json!({ "messages": messages })).await.expect_error(413, "M_TOO_LARGE");
    let many: serde_json::Map<String, Value> = (0..2_001).map(|n| (n.to_string(), json!({}))).collect();
    bad(json!({ "messages": { &bob.user_id: many } })).await.expect_error(400, "M_INVALID_PARAM");
    let long = format!("/v3/sendToDevice/{}/1", "x".repeat(256));
    let messages = json!({ &bob.user_id: { "*": good } });
    alice.put(&long, json!({ "messages": messages })).await.expect_error(400, "M_INVALID_PARAM");
    let long = format!("/v3/sendToDevice/m.test/{}", "x".repeat(256));
    alice.put(&long, json!({ "messages": messages })).await.expect_error(400, "M_INVALID_PARAM");
    // What other servers are sent is signed, and only whole numbers can be.
    let fraction = json!({ "@rita:elsewhere.example": { "*": { "n": 1.5 } } });
    bad(json!({ "messages": fraction })).await.expect_error(400, "M_BAD_JSON");
    alice.http.put(path, None, json!({ "messages": {} })).await.expect_error(401, "M_MISSING_TOKEN");
    assert!(numbers(&bob.sync(None, 0).await).is_empty());
    bad(json!({ "messages": {} })).await.expect(200);
}

/// As in rooms.
#[tokio::test]
async fn messages_of_ignored_users_are_not_delivered() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let path = format!("/v3/user/{}/account_data/m.ignored_user_list", bob.user_id);
    bob.put(&path, json!({ "ignored_users": { &alice.user_id: {} } })).await.expect(200);
    send_to(&alice, to_all([bob.user_id.as_str()], &json!({ "n": 1 }))).await;
    assert!(numbers(&bob.sync(None, 0).await).is_empty());
    bob.put(&path, json!({ "ignored_users": {} })).await.expect(200);
    send_to(&alice, to_all([bob.user_id.as_str()], &json!({ "n": 2 }))).await;
    assert_eq!(numbers(&bob.sync(None, 0).await), [2]);
}

/// LK-02
#[tokio::test(flavor = "multi_thread")]
async fn lk_02_a_suspended_account_may_write_to_its_own_devices_only() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let other = server.login("alice").await;
    let suspended = tokio::task::block_in_place(|| server.run(&["user", "suspend", "alice"]));
    assert!(suspended.status.success(), "{suspended:?}");
    crate::common::eventually("it is suspended", || async {
        let body = json!({ "messages": { &bob.user_id: { "*": { "n": 1 } } } });
        let answer = alice.put(&format!("/v3/sendToDevice/m.test/{}", crate::transaction_id()), body).await;
        (answer.status == 403).then(|| answer.expect_error(403, "M_USER_SUSPENDED"))
    })
    .await;
    send_to(&alice, json!({ &alice.user_id: { &other.device_id: { "n": 2 } } })).await;
    assert_eq!(numbers(&other.sync(None, 0).await), [2]);
}
