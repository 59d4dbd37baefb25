//! Edits beside the event that they replace.

use super::*;

#[tokio::test]
async fn rl_07_the_latest_edit_is_bundled_and_the_original_stays_as_it_was() {
    let (_server, alice, bob, room) = two().await;
    let message = alice.send_text(&room, "helo").await;
    assert_eq!(bob.bundle(&room, &message).await, Value::Null);
    alice.edit(&room, &message, "hallo").await;
    let last = alice.edit(&room, &message, "hello").await;

    let event = bob.event(&room, &message).await;
    assert_eq!(event["content"], text("helo"));
    let edit = &event["unsigned"]["m.relations"]["m.replace"];
    assert_eq!(edit["event_id"], json!(last));
    assert_eq!(edit["content"], edit_of(&message, "hello"));
    for key in ["sender", "type", "room_id", "origin_server_ts", "unsigned"] {
        assert!(!edit[key].is_null(), "no {key} in {edit}");
    }
    // EV-08
    assert_eq!(edit["unsigned"]["transaction_id"], Value::Null);
    let own = alice.bundle(&room, &message).await;
    assert!(own["m.replace"]["unsigned"]["transaction_id"].is_string(), "{own}");
}

#[tokio::test]
async fn rl_07_the_one_before_it_counts_again_when_an_edit_is_redacted() {
    let (mut server, alice, bob, room) = two().await;
    let message = alice.send_text(&room, "one").await;
    let second = alice.edit(&room, &message, "two").await;
    let third = alice.edit(&room, &message, "three").await;
    let edited = async || bob.bundle(&room, &message).await["m.replace"]["event_id"].clone();
    assert_eq!(edited().await, json!(third));
    alice.redact(&room, &third).await;
    assert_eq!(edited().await, json!(second));
    server.restart().await;
    assert_eq!(edited().await, json!(second));
    alice.redact(&room, &second).await;
    assert_eq!(bob.bundle(&room, &message).await, Value::Null);
}

#[tokio::test]
async fn rl_08_only_a_valid_edit_is_one() {
    let (_server, alice, bob, room) = two().await;
    let message = alice.send_text(&room, "mine").await;
    let elsewhere = room_of(&[&alice, &bob]).await;

    // By somebody else, of another type, without a new content, from another room, of nothing.
    bob.edit(&room, &message, "ours").await;
    alice.send_event(&room, "org.example.message", edit_of(&message, "typed")).await;
    alice.send_event(&room, "m.room.message", with(text("* nothing"), "m.replace", &message)).await;
    let mut odd = edit_of(&message, "odd");
    odd["m.new_content"] = json!("odd");
    alice.send_event(&room, "m.room.message", odd).await;
    alice.edit(&elsewhere, &message, "elsewhere").await;
    alice.edit(&room, "$nothing", "of nothing").await;
    // As state.
    alice.send_state(&room, "m.room.message", "", edit_of(&message, "state")).await;
    assert_eq!(bob.bundle(&room, &message).await, Value::Null);

    // An edit can't be edited.
    let edit = alice.edit(&room, &message, "better").await;
    alice.edit(&room, &edit, "best").await;
    assert_eq!(bob.bundle(&room, &edit).await, Value::Null);
    let bundle = bob.bundle(&room, &message).await;
    assert_eq!(bundle["m.replace"]["event_id"], json!(edit));
}

#[tokio::test]
async fn rl_08_an_encrypted_edit_has_its_new_content_where_nobody_sees_it() {
    let (_server, alice, bob, room) = two().await;
    let secret = |text: &str| json!({ "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": text });
    let message = alice.send_event(&room, "m.room.encrypted", secret("x")).await;
    let edit = with(secret("y"), "m.replace", &message);
    let edit = alice.send_event(&room, "m.room.encrypted", edit).await;
    assert_eq!(bob.bundle(&room, &message).await["m.replace"]["event_id"], json!(edit));
    // RL-08: the original isn't encrypted, so this replaces nothing.
    let plain = alice.send_text(&room, "plain").await;
    alice.send_event(&room, "m.room.encrypted", with(secret("z"), "m.replace", &plain)).await;
    assert_eq!(bob.bundle(&room, &plain).await, Value::Null);
}

#[tokio::test]
async fn rl_06_a_redacted_event_has_no_edits_but_keeps_its_other_children() {
    let (_server, alice, bob, room) = two().await;
    let message = alice.send_text(&room, "one").await;
    alice.edit(&room, &message, "two").await;
    let reference = bob.refer(&room, &message).await;
    let reply = bob.reply(&room, &message, "reply").await;
    alice.redact(&room, &message).await;
    let event = bob.event(&room, &message).await;
    assert_eq!(event["content"], json!({}));
    let bundle = &event["unsigned"]["m.relations"];
    assert_eq!(bundle["m.replace"], Value::Null);
    assert_eq!(bundle["m.reference"]["chunk"], json!([{ "event_id": reference }]));
    assert_eq!(bundle["m.thread"]["latest_event"]["event_id"], json!(reply));
    alice.edit(&room, &message, "three").await;
    assert_eq!(bob.bundle(&room, &message).await["m.replace"], Value::Null);
}
