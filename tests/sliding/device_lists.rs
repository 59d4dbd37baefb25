//! Whose devices changed, for a client that asks for what belongs to encryption.

use super::*;

fn request(enabled: bool) -> Value {
    json!({ "conn_id": "encryption", "extensions": { "e2ee": { "enabled": enabled } } })
}

fn lists(answer: &Value) -> &Value {
    &answer["extensions"]["e2ee"]["device_lists"]
}

fn changed(users: &[&User]) -> Value {
    let users: Vec<&str> = users.iter().map(|user| &*user.user_id).collect();
    json!({ "changed": users, "left": [] })
}

#[tokio::test]
async fn ok_05_a_connection_is_told_whose_devices_changed() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[&bob]).await;
    let mut sliding = Sliding::new(&alice, request(true));
    assert_eq!(
        lists(&sliding.next().await),
        &Value::Null,
        "it begins with nothing that it could have from before"
    );
    let change = async { drop(server.login("bob").await) };
    let told =
        sliding.woken_by(change, |answer| Some(lists(answer).clone()).filter(|lists| !lists.is_null())).await;
    assert_eq!(told, changed(&[&bob]));
    assert_eq!(lists(&sliding.next().await), &Value::Null);
    bob.leave(&room).await;
    let answer = sliding.next().await;
    assert_eq!(lists(&answer), &json!({ "changed": [], "left": [bob.user_id] }));
    bob.join(&room).await;
    assert_eq!(lists(&sliding.next().await), &changed(&[&bob]));
    alice.leave(&room).await;
    assert_eq!(lists(&sliding.next().await), &json!({ "changed": [], "left": [bob.user_id] }));
    alice.join(&room).await;
    assert_eq!(lists(&sliding.next().await), &changed(&[&alice, &bob]), "of all who are in it");
}

#[tokio::test]
async fn ok_05_what_changed_while_a_connection_didnt_ask_is_told_when_it_does() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    public_room(&alice, &[&bob]).await;
    let mut sliding = Sliding::new(&alice, request(true));
    sliding.next().await;
    sliding.body = request(false);
    server.login("bob").await;
    assert_eq!(lists(&sliding.next().await), &Value::Null);
    assert_eq!(lists(&sliding.next().await), &Value::Null);
    sliding.body = request(true);
    // The answer got lost: the same again.
    let answer = sliding.ask(0).await.expect(200);
    assert_eq!(lists(&answer), &changed(&[&bob]));
    assert_eq!(lists(&sliding.next().await), &changed(&[&bob]));
    assert_eq!(lists(&sliding.next().await), &Value::Null);
}
