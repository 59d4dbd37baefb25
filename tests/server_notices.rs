//! Server notices: what the server itself says to its users.

mod common;

use common::{Answer, PASSWORD, Server, User};
use serde_json::{Value, json};
use toml::{Table, toml};

const PATH: &str = "/_synapse/admin/v1/send_server_notice";

fn config() -> Table {
    toml! {
        [server_notices]
        localpart = "notices"
        display_name = "The Server"
        room_name = "News"
    }
}

/// An administrator, made by the operator.
async fn admin(server: &Server) -> User {
    let made = server.run(&["user", "create", "root", "--admin"]);
    let output = String::from_utf8(made.stdout).unwrap_or_default();
    let password = output.lines().find_map(|line| line.strip_prefix("password: "));
    let identifier = json!({ "type": "m.id.user", "user": "root" });
    let body = json!({ "type": "m.login.password", "identifier": identifier, "password": password });
    let answer = server.http().post("/v3/login", None, body).await.expect(200);
    User::new(server.http().clone(), &answer)
}

fn notice(to: &str, body: &str) -> Value {
    json!({ "user_id": to, "content": { "msgtype": "m.server_notice", "body": body } })
}

async fn send(admin: &User, to: &User, body: &str) -> Answer {
    admin.post(PATH, notice(&to.user_id, body)).await
}

/// The rooms to which a user is invited.
async fn invites(user: &User) -> Vec<String> {
    let sync = user.sync(None, 0).await;
    sync["rooms"]["invite"].as_object().into_iter().flatten().map(|(room, _)| room.clone()).collect()
}

async fn texts(user: &User, room: &str) -> Vec<String> {
    let page = user.get(&format!("/v3/rooms/{room}/messages?dir=f&limit=100")).await.expect(200);
    let events = page["chunk"].as_array().into_iter().flatten();
    events.filter_map(|event| event["content"]["body"].as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn sn_01_a_user_is_invited_to_one_room_of_notices() {
    let mut server = Server::start(config()).await;
    let (root, alice) = (admin(&server).await, server.register("alice").await);
    // Whoever turns invites away hears the server even so.
    let blocking = json!({ "default_action": "block" });
    let path = format!("/v3/user/{}/account_data/m.invite_permission_config", alice.user_id);
    alice.put(&path, blocking).await.expect(200);
    let first = send(&root, &alice, "one").await.expect(200);
    let invited = invites(&alice).await;
    let [room] = &invited[..] else { panic!("{invited:?}") };

    // The invite can't be rejected.
    let error = "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM";
    alice.post(&format!("/v3/rooms/{room}/leave"), json!({})).await.expect_error(403, error);
    let path = format!("/v3/rooms/{room}/state/m.room.member/{}", alice.user_id);
    alice.put(&path, json!({ "membership": "leave" })).await.expect_error(403, error);

    alice.join(room).await;
    server.restart().await;
    send(&root, &alice, "two").await.expect(200);
    assert_eq!(texts(&alice, room).await, ["one", "two"]);
    let event = alice.get(&format!("/v3/rooms/{room}/event/{}", first["event_id"].as_str().unwrap())).await;
    let event = event.expect(200);
    assert_eq!(
        (&event["sender"], &event["content"]["msgtype"]),
        (&json!("@notices:localhost"), &json!("m.server_notice"))
    );
    let name = alice.get(&format!("/v3/rooms/{room}/state/m.room.name")).await.expect(200);
    assert_eq!(name["name"], "News");
    let member = alice.get(&format!("/v3/rooms/{room}/state/m.room.member/@notices:localhost")).await;
    assert_eq!(member.expect(200)["displayname"], "The Server");
    // Clients know it by its tag, and nobody answers.
    let sync = alice.sync(None, 0).await;
    let data = sync["rooms"]["join"][room]["account_data"]["events"].as_array().unwrap();
    let tags = data.iter().find(|event| event["type"] == "m.tag").unwrap();
    assert_eq!(tags["content"], json!({ "tags": { "m.server_notice": {} } }));
    let path = format!("/v3/rooms/{room}/send/m.room.message/t");
    let text = json!({ "msgtype": "m.text", "body": "hello?" });
    alice.put(&path, text).await.expect_error(403, "M_FORBIDDEN");

    // Whoever is in may leave, and is invited to the same room by the next notice.
    alice.post(&format!("/v3/rooms/{room}/leave"), json!({})).await.expect(200);
    send(&root, &alice, "three").await.expect(200);
    assert_eq!(invites(&alice).await, invited);

    // The end of an account is not held up by it.
    let auth = json!({ "type": "m.login.password", "password": PASSWORD,
        "identifier": { "type": "m.id.user", "user": "alice" } });
    alice.post("/v3/account/deactivate", json!({ "auth": auth })).await.expect(200);
    send(&root, &alice, "four").await.expect_error(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn sn_01_a_notice_is_sent_once_however_often_it_is_tried() {
    let server = Server::start(config()).await;
    let (root, alice) = (admin(&server).await, server.register("alice").await);
    let path = format!("{PATH}/t1");
    // At once too: there is still one room.
    let tries = (0..8).map(|_| root.put(&path, notice(&alice.user_id, "once")));
    let answers = futures_util::future::join_all(tries).await;
    let ids: Vec<Value> = answers.into_iter().map(|answer| answer.expect(200)["event_id"].clone()).collect();
    assert!(ids[0].is_string() && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let invited = invites(&alice).await;
    assert_eq!(invited.len(), 1);
    alice.join(&invited[0]).await;
    assert_eq!(texts(&alice, &invited[0]).await, ["once"]);
}

#[tokio::test]
async fn sn_01_only_administrators_speak_for_the_server() {
    let server = Server::start(config()).await;
    let (root, alice) = (admin(&server).await, server.register("alice").await);
    for to in [&alice.user_id, "@unknown:localhost"] {
        alice.post(PATH, notice(to, "x")).await.expect_error(403, "M_FORBIDDEN");
    }
    for (body, status, errcode) in [
        (notice("@unknown:localhost", "x"), 404, "M_NOT_FOUND"),
        (notice("@far:elsewhere", "x"), 400, "M_UNKNOWN"),
        (notice("nonsense", "x"), 400, "M_INVALID_PARAM"),
        (json!({ "content": {} }), 400, "M_MISSING_PARAM"),
        (json!({ "user_id": alice.user_id }), 400, "M_MISSING_PARAM"),
        (json!({ "user_id": alice.user_id, "content": [] }), 400, "M_BAD_JSON"),
        (json!({ "user_id": alice.user_id, "content": {} }), 400, "M_BAD_JSON"),
    ] {
        root.post(PATH, body).await.expect_error(status, errcode);
    }
    assert_eq!(invites(&alice).await, Vec::<String>::new());
    // The name is the server's.
    let body = json!({ "username": "notices", "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
    server.http().post("/v3/register", None, body).await.expect_error(400, "M_USER_IN_USE");
}

#[tokio::test]
async fn sn_01_without_a_name_there_are_no_notices() {
    let server = Server::start(Table::new()).await;
    let (root, alice) = (admin(&server).await, server.register("alice").await);
    send(&root, &alice, "x").await.expect_error(400, "M_UNKNOWN");
}
