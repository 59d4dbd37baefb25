//! What users keep on the server: profiles, account data, tags, filters and push rules. The names of tests begin with
//! the number of the requirement they hold the server to.

mod common;

use common::{Server, User};
use serde_json::{Value, json};

async fn server() -> Server {
    Server::start(toml::Table::new()).await
}

async fn server_with_alice() -> (Server, User) {
    let server = server().await;
    let alice = server.register("alice").await;
    (server, alice)
}

async fn private_room(user: &User) -> String {
    user.create_room(json!({ "preset": "private_chat" })).await
}

fn profile_path(user: &User, field: &str) -> String {
    format!("/v3/profile/{}/{field}", user.user_id)
}

#[tokio::test]
async fn pf_03_fields_are_set_read_and_deleted() {
    let (server, alice) = server_with_alice().await;
    let profile = format!("/v3/profile/{}", alice.user_id);
    assert_eq!(server.http().get(&profile, None).await.expect(200), json!({}));
    for (field, value) in [
        ("displayname", json!("Alice Ü.")),
        ("avatar_url", json!("mxc://localhost/abc")),
        ("m.tz", json!("Europe/Berlin")),
        ("com.example.pronouns", json!([{ "summary": "she" }])),
        ("com.example.nothing", Value::Null),
    ] {
        let path = profile_path(&alice, field);
        server.http().get(&path, None).await.expect_error(404, "M_NOT_FOUND");
        alice.put(&path, json!({ field: value })).await.expect(200);
        assert_eq!(server.http().get(&path, None).await.expect(200), json!({ field: value }));
    }
    let all = server.http().get(&profile, None).await.expect(200);
    assert_eq!(all.as_object().unwrap().len(), 5, "{all}");

    let path = profile_path(&alice, "com.example.pronouns");
    alice.delete(&path, None).await.expect(200);
    alice.delete(&path, None).await.expect(200);
    server.http().get(&path, None).await.expect_error(404, "M_NOT_FOUND");
    alice.put(&profile_path(&alice, "displayname"), json!({ "displayname": "" })).await.expect(200);
    let path = profile_path(&alice, "displayname");
    server.http().get(&path, None).await.expect_error(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn pf_02_bad_fields_are_refused() {
    let (_server, alice) = server_with_alice().await;
    let set = async |field: &str, body: Value| alice.put(&profile_path(&alice, field), body).await;
    set("displayname", json!({ "avatar_url": "mxc://a/b" })).await.expect_error(400, "M_MISSING_PARAM");
    set("displayname", json!({ "displayname": 5 })).await.expect_error(400, "M_INVALID_PARAM");
    set("displayname", json!([])).await.expect_error(400, "M_BAD_JSON");
    set("avatar_url", json!({ "avatar_url": "https://example.org/a.png" }))
        .await
        .expect_error(400, "M_INVALID_PARAM");
    set("Shouting", json!({ "Shouting": 1 })).await.expect_error(400, "M_INVALID_PARAM");
    let long = format!("com.{}", "a".repeat(300));
    set(&long, json!({ &long: 1 })).await.expect_error(400, "M_KEY_TOO_LARGE");
    set("displayname", json!({ "displayname": "x".repeat(500_000) })).await.expect_error(413, "M_TOO_LARGE");
    let half = json!({ "com.example.a": "x".repeat(40_000) });
    set("com.example.a", half).await.expect(200);
    set("com.example.b", json!({ "com.example.b": "x".repeat(40_000) }))
        .await
        .expect_error(400, "M_PROFILE_TOO_LARGE");
    set("com.example.a", json!({ "com.example.a": "x".repeat(60_000) })).await.expect(200);
}

#[tokio::test]
async fn pf_02_a_profile_is_its_owners() {
    let (server, alice) = server_with_alice().await;
    let bob = server.register("bob").await;
    let path = profile_path(&alice, "displayname");
    bob.put(&path, json!({ "displayname": "Mallory" })).await.expect_error(403, "M_FORBIDDEN");
    bob.delete(&path, None).await.expect_error(403, "M_FORBIDDEN");
    server.http().put(&path, None, json!({ "displayname": "x" })).await.expect_error(401, "M_MISSING_TOKEN");
    for unknown in ["@nobody:localhost", "@alice:elsewhere.org"] {
        bob.get(&format!("/v3/profile/{unknown}")).await.expect_error(404, "M_NOT_FOUND");
    }
}

#[tokio::test]
async fn ad_01_account_data_is_kept_by_room_and_type_for_its_owner() {
    let (server, alice) = server_with_alice().await;
    let bob = server.register("bob").await;
    let room = private_room(&alice).await;
    let global = format!("/v3/user/{}/account_data/org.example.a", alice.user_id);
    let in_room = format!("/v3/user/{}/rooms/{room}/account_data/org.example.a", alice.user_id);
    alice.get(&global).await.expect_error(404, "M_NOT_FOUND");
    alice.put(&global, json!({ "where": "everywhere" })).await.expect(200);
    alice.get(&in_room).await.expect_error(404, "M_NOT_FOUND");
    alice.put(&in_room, json!({ "where": "here" })).await.expect(200);
    assert_eq!(alice.get(&global).await.expect(200), json!({ "where": "everywhere" }));
    assert_eq!(alice.get(&in_room).await.expect(200), json!({ "where": "here" }));

    for path in [&global, &in_room] {
        bob.get(path).await.expect_error(403, "M_FORBIDDEN");
        bob.put(path, json!({})).await.expect_error(403, "M_FORBIDDEN");
    }
    let path = |room: &str| format!("/v3/user/{}/rooms/{room}/account_data/org.example.a", bob.user_id);
    let theirs = bob.put(&path(&room), json!({})).await.expect_error(404, "M_NOT_FOUND");
    let nowhere = bob.put(&path("!nowhere:localhost"), json!({})).await.expect_error(404, "M_NOT_FOUND");
    assert_eq!(theirs, nowhere, "a room that is none of theirs might not exist");
}

#[tokio::test]
async fn ad_01_what_the_server_manages_can_not_be_set() {
    let (_server, alice) = server_with_alice().await;
    let room = private_room(&alice).await;
    let rules = format!("/v3/user/{}/account_data/m.push_rules", alice.user_id);
    alice.put(&rules, json!({})).await.expect(405);
    assert!(alice.get(&rules).await.expect(200)["global"]["override"].is_array());
    let read = format!("/v3/user/{}/rooms/{room}/account_data/m.fully_read", alice.user_id);
    alice.put(&read, json!({})).await.expect(405);
}

#[tokio::test]
async fn msc3391_what_is_deleted_is_gone_and_other_devices_hear_of_it() {
    let (server, alice) = server_with_alice().await;
    let (phone, bob) = (server.login("alice").await, server.register("bob").await);
    let room = private_room(&alice).await;
    for (below, global) in [(String::new(), true), (format!("/rooms/{room}"), false)] {
        let path = format!("/user/{}{below}/account_data/org.example.a", alice.user_id);
        let (stable, delete) = (format!("/v3{path}"), format!("/unstable/org.matrix.msc3391{path}"));
        let events = |answer: &Value| {
            let list = if global { answer } else { &answer["rooms"]["join"][&room] };
            let events = list["account_data"]["events"].as_array().cloned().unwrap_or_default();
            events.into_iter().filter(|event| event["type"] == "org.example.a").collect::<Vec<_>>()
        };
        alice.put(&stable, json!({ "a": 1 })).await.expect(200);
        let since = phone.sync(None, 0).await["next_batch"].as_str().unwrap().to_owned();
        bob.delete(&delete, None).await.expect_error(403, "M_FORBIDDEN");
        alice.delete(&delete, None).await.expect(200);
        alice.get(&stable).await.expect_error(404, "M_NOT_FOUND");
        let news = phone.sync(Some(&since), 0).await;
        assert_eq!(json!(events(&news)), json!([{ "type": "org.example.a", "content": {} }]), "{news}");
        let first = phone.sync(None, 0).await;
        assert_eq!(json!(events(&first)), json!([]), "{first}");
        // Deleting it again changes nothing, and it can be set anew.
        alice.delete(&delete, None).await.expect(200);
        alice.put(&stable, json!({ "a": 2 })).await.expect(200);
        assert_eq!(alice.get(&stable).await.expect(200), json!({ "a": 2 }));
    }
    let of_server = async |below: &str| {
        alice.delete(&format!("/unstable/org.matrix.msc3391/user/{}{below}", alice.user_id), None).await
    };
    of_server("/account_data/m.push_rules").await.expect(405);
    of_server(&format!("/rooms/{room}/account_data/m.fully_read")).await.expect(405);
}

#[tokio::test]
async fn msc3391_deleting_a_list_of_ignored_users_ends_the_ignoring() {
    let (server, alice) = server_with_alice().await;
    let bob = server.register("bob").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let list = format!("/user/{}/account_data/m.ignored_user_list", alice.user_id);
    alice.put(&format!("/v3{list}"), json!({ "ignored_users": { &bob.user_id: {} } })).await.expect(200);
    let first = bob.send_text(&room, "first").await;
    let page = async || alice.get(&format!("/v3/rooms/{room}/messages?dir=b&limit=1")).await.expect(200);
    assert_ne!(page().await["chunk"][0]["event_id"], first);
    alice.delete(&format!("/unstable/org.matrix.msc3391{list}"), None).await.expect(200);
    assert_eq!(page().await["chunk"][0]["event_id"], first);
}

#[tokio::test]
async fn account_data_is_bounded_and_an_object() {
    let (_server, alice) = server_with_alice().await;
    let path = |kind: &str| format!("/v3/user/{}/account_data/{kind}", alice.user_id);
    let large = json!({ "text": "x".repeat(300_000) });
    alice.put(&path("org.example.a"), large).await.expect_error(413, "M_TOO_LARGE");
    alice.put(&path("org.example.a"), json!([1])).await.expect_error(400, "M_BAD_JSON");
    alice.put(&path(&"a".repeat(300)), json!({})).await.expect_error(413, "M_TOO_LARGE");
    let deep = "{\"a\":".repeat(10_000) + "1" + &"}".repeat(10_000);
    let token = format!("Bearer {}", alice.access_token);
    let headers = [(::http::header::AUTHORIZATION, token.parse().unwrap())].into_iter().collect();
    let answer = alice.http.send(::http::Method::PUT, &path("org.example.a"), headers, deep).await.unwrap();
    assert_eq!(answer.status, 400, "{}", answer.text());
    alice.get(&path("org.example.a")).await.expect_error(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn tg_01_tags_are_set_listed_and_removed() {
    let (_server, alice) = server_with_alice().await;
    let room = private_room(&alice).await;
    let tags = format!("/v3/user/{}/rooms/{room}/tags", alice.user_id);
    assert_eq!(alice.get(&tags).await.expect(200), json!({ "tags": {} }));
    alice.put(&format!("{tags}/m.favourite"), json!({ "order": 0.25 })).await.expect(200);
    alice.put(&format!("{tags}/u.Work%2FHome"), json!({})).await.expect(200);
    let both = json!({ "m.favourite": { "order": 0.25 }, "u.Work/Home": {} });
    assert_eq!(alice.get(&tags).await.expect(200), json!({ "tags": both }));
    let data = format!("/v3/user/{}/rooms/{room}/account_data/m.tag", alice.user_id);
    assert_eq!(alice.get(&data).await.expect(200), json!({ "tags": both }));
    alice.delete(&format!("{tags}/m.favourite"), None).await.expect(200);
    alice.delete(&format!("{tags}/m.favourite"), None).await.expect(200);
    assert_eq!(alice.get(&tags).await.expect(200), json!({ "tags": { "u.Work/Home": {} } }));

    let long = "t".repeat(300);
    alice.put(&format!("{tags}/{long}"), json!({})).await.expect_error(413, "M_TOO_LARGE");
    for order in [json!("high"), json!(1.5), json!(-0.1)] {
        alice
            .put(&format!("{tags}/m.favourite"), json!({ "order": order }))
            .await
            .expect_error(400, "M_INVALID_PARAM");
    }
}

#[tokio::test]
async fn tg_01_no_tag_is_lost_when_many_are_set_at_once() {
    let (_server, alice) = server_with_alice().await;
    let room = private_room(&alice).await;
    let tags = format!("/v3/user/{}/rooms/{room}/tags", alice.user_id);
    let sets = (0..32).map(|number| {
        let (alice, path) = (alice.clone(), format!("{tags}/u.{number}"));
        async move { alice.put(&path, json!({})).await.expect(200) }
    });
    futures_util::future::join_all(sets).await;
    let set = alice.get(&tags).await.expect(200);
    assert_eq!(set["tags"].as_object().unwrap().len(), 32, "{set}");
}

#[tokio::test]
async fn fi_01_equal_filters_have_one_id() {
    let (server, alice) = server_with_alice().await;
    let path = format!("/v3/user/{}/filter", alice.user_id);
    let filter = json!({ "room": { "timeline": { "limit": 5 } }, "org.example.unknown": true });
    let id = alice.post(&path, filter.clone()).await.expect(200)["filter_id"].as_str().unwrap().to_owned();
    assert!(!id.starts_with('{'));
    assert_eq!(alice.post(&path, filter.clone()).await.expect(200)["filter_id"], id.as_str());
    let other = alice.post(&path, json!({})).await.expect(200)["filter_id"].clone();
    assert_ne!(other, id.as_str());
    assert_eq!(alice.get(&format!("{path}/{id}")).await.expect(200), filter);
    for unknown in ["99", "x", "-1", "99999999999999999999"] {
        alice.get(&format!("{path}/{unknown}")).await.expect_error(404, "M_NOT_FOUND");
    }
    let bob = server.register("bob").await;
    bob.get(&format!("{path}/{id}")).await.expect_error(403, "M_FORBIDDEN");
    let bobs = format!("/v3/user/{}/filter/{id}", bob.user_id);
    bob.get(&bobs).await.expect_error(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn fi_08_malformed_filters_are_refused() {
    let (_server, alice) = server_with_alice().await;
    let path = format!("/v3/user/{}/filter", alice.user_id);
    for bad in [json!({ "room": 5 }), json!({ "room": { "timeline": { "limit": "many" } } }), json!("x")] {
        alice.post(&path, bad).await.expect_error(400, "M_BAD_JSON");
    }
}

#[tokio::test]
async fn pu_04_the_predefined_rules_are_those_of_the_specification() {
    let (_server, alice) = server_with_alice().await;
    // "Predefined Rules" of version 1.19.
    let text = include_str!("predefined_push_rules.json").replace("[the user's Matrix ID]", &alice.user_id);
    let expected: Value = serde_json::from_str(&text).unwrap();
    for path in ["/v3/pushrules/", "/v3/pushrules", "/r0/pushrules/"] {
        let global = alice.get(path).await.expect(200)["global"].clone();
        for kind in ["override", "content", "room", "sender", "underride"] {
            let id = |rule: &Value| rule["rule_id"].as_str().unwrap().to_owned();
            let (polls, mut rules): (Vec<Value>, Vec<Value>) = global[kind]
                .as_array()
                .unwrap()
                .iter()
                .cloned()
                .partition(|rule| id(rule).contains(".poll_"));
            // MSC4028: right behind the master, and off.
            if kind == "override" {
                let encrypted = rules.remove(1);
                assert_eq!(id(&encrypted), ".org.matrix.msc4028.encrypted_event");
                assert_eq!(encrypted["enabled"], false);
            }
            let specified = expected.get(kind).cloned().unwrap_or(json!([]));
            assert_eq!(Value::Array(rules), specified, "{kind}");
            // MSC3930, under either name.
            let polls: Vec<String> = polls.iter().map(id).collect();
            let names: &[&str] = match kind {
                "override" => &["response"],
                "underride" => &["start_one_to_one", "start", "end_one_to_one", "end"],
                _ => &[],
            };
            let named =
                |prefix: &str| names.iter().map(|name| format!("{prefix}.rule.poll_{name}")).collect();
            let expected: [Vec<String>; 2] = [named(".m"), named(".org.matrix.msc3930")];
            assert_eq!(polls, expected.concat(), "{kind}");
        }
        assert_eq!(alice.get("/v3/pushrules/global/").await.expect(200), global);
    }
}

/// MSC4306: a kind with predefined rules and no others.
#[tokio::test]
async fn msc4306_rules_after_the_content_can_be_disabled_but_not_added() {
    let (_server, alice) = server_with_alice().await;
    let list = async || alice.get("/v3/pushrules/global/").await.expect(200)["postcontent"].clone();
    let condition = |subscribed: bool| json!([{ "kind": "io.element.msc4306.thread_subscription", "subscribed": subscribed }]);
    let rule = |name: &str, subscribed: bool, actions: Value| {
        let rule_id = format!(".io.element.msc4306.rule.{name}");
        json!({ "rule_id": rule_id, "default": true, "enabled": true, "conditions": condition(subscribed), "actions": actions })
    };
    let sound = json!(["notify", { "set_tweak": "sound", "value": "default" }]);
    let mut expected =
        json!([rule("unsubscribed_thread", false, json!([])), rule("subscribed_thread", true, sound)]);
    assert_eq!(list().await, expected);

    for kind in ["postcontent", "io.element.msc4306.postcontent"] {
        let body = json!({ "actions": [], "conditions": [] });
        let answer = alice.put(&format!("/v3/pushrules/global/{kind}/mine"), body).await;
        answer.expect_error(400, "M_INVALID_PARAM");
    }
    let path = "/v3/pushrules/global/postcontent/.io.element.msc4306.rule.unsubscribed_thread";
    alice.delete(path, None).await.expect_error(400, "M_INVALID_PARAM");
    alice.put(&format!("{path}/enabled"), json!({ "enabled": false })).await.expect(200);
    expected[0]["enabled"] = json!(false);
    assert_eq!(list().await, expected);
    assert_eq!(alice.get(path).await.expect(200), expected[0]);
    assert_eq!(alice.get(&format!("{path}/enabled")).await.expect(200), json!({ "enabled": false }));
    alice.put(&format!("{path}/actions"), json!({ "actions": ["notify"] })).await.expect(200);
    expected[0]["actions"] = json!(["notify"]);
    assert_eq!(list().await, expected);
}

/// PU-02, PU-03, PU-10: what users of one room hear of a message by rules that agree, differ, or are about themselves.
#[tokio::test]
async fn pu_02_each_is_notified_by_their_own_rules() {
    let (server, alice) = server_with_alice().await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let mut others = Vec::new();
    for name in ["plain", "loud", "louder", "named", "quiet", "muting"] {
        let user = server.register(name).await;
        user.put(&profile_path(&user, "displayname"), json!({ "displayname": name })).await.expect(200);
        user.join(&room).await;
        others.push(user);
    }
    let [plain, loud, louder, named, quiet, muting] = &others[..] else { panic!("six users") };
    let cake = json!({ "pattern": "cake", "actions": ["notify", { "set_tweak": "highlight" }] });
    for user in [loud, louder] {
        user.put("/v3/pushrules/global/content/cake", cake.clone()).await.expect(200);
    }
    let by_name = json!({ "conditions": [{ "kind": "contains_display_name" }],
        "actions": ["notify", { "set_tweak": "highlight", "value": true }] });
    named.put("/v3/pushrules/global/override/by_name", by_name).await.expect(200);
    let master = "/v3/pushrules/global/override/.m.rule.master/enabled";
    quiet.put(master, json!({ "enabled": true })).await.expect(200);
    let mute = format!("/v3/pushrules/global/room/{room}");
    muting.put(&mute, json!({ "actions": ["dont_notify"] })).await.expect(200);

    let mention = json!({ "user_ids": [louder.user_id, muting.user_id, quiet.user_id] });
    for content in [
        json!({ "msgtype": "m.text", "body": "There is Cake, named!" }),
        json!({ "msgtype": "m.text", "body": "cupcakes", "m.mentions": mention }),
        json!({ "msgtype": "m.notice", "body": "cake" }),
    ] {
        alice.send_event(&room, "m.room.message", content).await;
    }
    for (user, notifications, highlights) in
        [(plain, 2, 0), (loud, 2, 1), (louder, 2, 2), (named, 2, 1), (quiet, 0, 0), (muting, 1, 1)]
    {
        let answer = user.sync(None, 0).await;
        let unread = &answer["rooms"]["join"][&room]["unread_notifications"];
        let expected = json!({ "notification_count": notifications, "highlight_count": highlights });
        assert_eq!(*unread, expected, "{}", user.user_id);
    }
}

#[tokio::test]
async fn pu_07_rules_are_made_ordered_changed_and_deleted() {
    let (_server, alice) = server_with_alice().await;
    let path = |rest: &str| format!("/v3/pushrules/global/{rest}");
    let body = json!({ "actions": ["notify"], "pattern": "cake" });
    for id in ["c", "b", "a"] {
        alice.put(&path(&format!("content/{id}")), body.clone()).await.expect(200);
    }
    alice.put(&path("content/d?after=c"), body.clone()).await.expect(200);
    alice.put(&path("content/e?before=b"), body.clone()).await.expect(200);
    // The last rule behind itself: nothing sensible, and nothing broken.
    alice.put(&path("content/d?after=d"), body.clone()).await.expect_error(400, "M_INVALID_PARAM");
    alice.put(&path("content/f?after=none"), body.clone()).await.expect_error(400, "M_INVALID_PARAM");
    let all = alice.get("/v3/pushrules/").await.expect(200);
    let content = all["global"]["content"].as_array().unwrap();
    let ids: Vec<&str> = content.iter().map(|rule| rule["rule_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["a", "e", "b", "c", "d"]);
    assert_eq!(
        alice.get(&path("content/a")).await.expect(200),
        json!({ "rule_id": "a", "default": false, "enabled": true, "actions": ["notify"], "pattern": "cake" })
    );

    alice.put(&path("content/a/enabled"), json!({ "enabled": false })).await.expect(200);
    assert_eq!(alice.get(&path("content/a/enabled")).await.expect(200), json!({ "enabled": false }));
    alice.put(&path("content/a/actions"), json!({ "actions": ["dont_notify"] })).await.expect(200);
    assert_eq!(alice.get(&path("content/a/actions")).await.expect(200), json!({ "actions": [] }));
    alice.delete(&path("content/a"), None).await.expect(200);
    alice.get(&path("content/a")).await.expect_error(404, "M_NOT_FOUND");
    alice.delete(&path("content/a"), None).await.expect_error(404, "M_NOT_FOUND");
    alice.put(&path("content/a/enabled"), json!({ "enabled": true })).await.expect_error(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn pu_08_predefined_rules_are_not_deleted_and_their_names_not_taken() {
    let (_server, alice) = server_with_alice().await;
    let path = |rest: &str| format!("/v3/pushrules/global/{rest}");
    alice.delete(&path("override/.m.rule.master"), None).await.expect_error(400, "M_INVALID_PARAM");
    let body = json!({ "actions": ["notify"], "conditions": [] });
    for id in [".mine", "a%2Fb", "a%5Cb"] {
        alice.put(&path(&format!("override/{id}")), body.clone()).await.expect_error(400, "M_INVALID_PARAM");
    }
    let many = json!({ "actions": ["notify"], "pattern": "*?".repeat(10_000) });
    alice.put(&path("content/x"), many).await.expect_error(400, "M_INVALID_PARAM");
    alice.put(&path("nonsense/x"), body).await.expect(400);
    alice.put(&path("override/.m.rule.master/enabled"), json!({ "enabled": true })).await.expect(200);
    let master = alice.get(&path("override/.m.rule.master")).await.expect(200);
    assert_eq!(master["enabled"], true);
}

#[tokio::test]
async fn pf_01_a_new_name_is_in_the_member_events_of_all_rooms() {
    let (_server, alice) = server_with_alice().await;
    let (one, two) = (private_room(&alice).await, private_room(&alice).await);
    alice.put(&profile_path(&alice, "displayname"), json!({ "displayname": "Alice" })).await.expect(200);
    for room in [one, two] {
        let path = format!("/v3/rooms/{room}/state/m.room.member/{}", alice.user_id);
        let member = alice.get(&path).await.expect(200);
        assert_eq!(member, json!({ "membership": "join", "displayname": "Alice" }));
    }
}

#[tokio::test]
async fn ad_01_a_change_reaches_other_devices_by_sync() {
    let (server, alice) = server_with_alice().await;
    let phone = server.login("alice").await;
    let since = phone.sync(None, 0).await["next_batch"].as_str().unwrap().to_owned();
    let path = format!("/v3/user/{}/account_data/org.example.a", alice.user_id);
    let (news, _) = tokio::join!(phone.sync(Some(&since), 30_000), alice.put(&path, json!({ "a": 1 })));
    let events = &news["account_data"]["events"];
    assert_eq!(*events, json!([{ "type": "org.example.a", "content": { "a": 1 } }]), "{news}");
}

#[tokio::test]
async fn pu_09_a_change_of_rules_is_account_data_for_other_devices() {
    let (server, alice) = server_with_alice().await;
    let phone = server.login("alice").await;
    let first = phone.sync(None, 0).await;
    let types = |sync: &Value| {
        let events = sync["account_data"]["events"].as_array().cloned().unwrap_or_default();
        events.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(types(&first), ["m.push_rules"], "clients need the predefined ones too");
    let since = first["next_batch"].as_str().unwrap();
    let rule = json!({ "actions": [] });
    alice.put("/v3/pushrules/global/sender/@bob:localhost", rule).await.expect(200);
    let news = phone.sync(Some(since), 30_000).await;
    assert_eq!(types(&news), ["m.push_rules"]);
    let rules = &news["account_data"]["events"][0]["content"]["global"];
    assert_eq!(rules["sender"][0]["rule_id"], "@bob:localhost");
    let path = format!("/v3/user/{}/account_data/m.push_rules", alice.user_id);
    assert_eq!(alice.get(&path).await.expect(200)["global"], *rules);
}

#[tokio::test]
async fn what_is_kept_outlives_a_restart() {
    let (mut server, alice) = server_with_alice().await;
    let path = "/v3/pushrules/global/content/cake";
    alice.put(path, json!({ "actions": ["notify"], "pattern": "cake" })).await.expect(200);
    alice.put(&profile_path(&alice, "displayname"), json!({ "displayname": "Alice" })).await.expect(200);
    server.restart().await;
    alice.get(path).await.expect(200);
    let name = alice.get(&profile_path(&alice, "displayname")).await.expect(200);
    assert_eq!(name, json!({ "displayname": "Alice" }));
}
