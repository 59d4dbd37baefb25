//! What people do in rooms that they share with people of another server. Each play begins with two people and no room.

use std::{future::Future, pin::Pin};

use serde_json::{Value, json};

use crate::{
    keys::keys,
    world::{Case, Played, World, becomes, ensure, hears, history, messages, ok, sees, texts, until},
};

type Play = for<'a> fn(&'a World, &'a Case) -> Pin<Box<dyn Future<Output = Played> + 'a>>;

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) versions: &'static [&'static str],
    pub(crate) play: Play,
}

const ALL: &[&str] = &["6", "10", "11", "12"];
/// … and those in which events carry their own ids, of which some rooms are left.
const EVEN_OLD: &[&str] = &["1", "2", "6", "10", "11", "12"];
/// Those in which one may knock.
const KNOCKABLE: &[&str] = &["10", "11", "12"];
/// What has nothing to do with the rules of a room.
const NEWEST: &[&str] = &["12"];

macro_rules! scenarios {
    ($($name:literal, $versions:expr, $play:ident;)*) => {
        pub(crate) const SCENARIOS: &[Scenario] = &[$(
            Scenario { name: $name, versions: $versions, play: |_, case| Box::pin($play(case)) },
        )*];
    };
}
scenarios! {
    "join a public room", EVEN_OLD, join;
    "invite and accept", EVEN_OLD, invite_and_accept;
    "invite and reject", EVEN_OLD, invite_and_reject;
    "take an invite back", ALL, take_back;
    "invite when the room is made", NEWEST, invite_at_once;
    "knock and be let in", KNOCKABLE, knock;
    "join for being in another room", KNOCKABLE, restricted;
    "kick, and come back", ALL, kick;
    "ban, and no coming back", ALL, ban;
    "leave, and come back", EVEN_OLD, leave;
    "messages both ways at once", EVEN_OLD, both_ways;
    "page back to the first event", ALL, first_event;
    "edit", ALL, edit;
    "thread", ALL, thread;
    "reaction", ALL, reaction;
    "redaction", EVEN_OLD, redaction;
    "change of a name", ALL, rename;
    "upgrade", ALL, upgrade;
    "server ACL", ALL, acl;
    "jump to a date", NEWEST, date;
    "typing", NEWEST, typing;
    "receipts", NEWEST, receipts;
    "presence", NEWEST, presence;
    "profile", NEWEST, profile;
    "join by an alias", NEWEST, alias;
    "public rooms", NEWEST, public_rooms;
    "spaces", NEWEST, spaces;
    "keys of devices and users", NEWEST, keys;
}

async fn join(case: &Case) -> Played {
    let room = case.shared().await?;
    becomes(&case.owner, &room, &case.guest, "join").await?;
    let state = ok(case.guest.get(&format!("/v3/rooms/{room}/state")).await)?;
    let of = |kind: &str| state.as_array().is_some_and(|all| all.iter().any(|event| event["type"] == kind));
    ensure(of("m.room.create") && of("m.room.power_levels"), "the guest has the room's state")?;
    let event = case.owner.send_text(&room, "welcome").await;
    sees(&case.guest, &room, &event).await
}

async fn invite(case: &Case, room: &str) -> Played {
    ok(case.owner.post(&format!("/v3/rooms/{room}/invite"), json!({ "user_id": case.guest.user_id })).await)?;
    let invited = hears(&case.guest, "the invite", |answer| {
        answer["rooms"]["invite"][room]["invite_state"]["events"].as_array().cloned()
    })
    .await?;
    let names = invited.iter().any(|event| event["type"] == "m.room.name");
    ensure(names, "the invite says what the room is called")
}

async fn invite_and_accept(case: &Case) -> Played {
    let room = case.room("private_chat", json!({ "name": "Cellar" })).await?;
    invite(case, &room).await?;
    ok(case.guest.post(&format!("/v3/rooms/{room}/join"), json!({})).await)?;
    becomes(&case.owner, &room, &case.guest, "join").await?;
    let event = case.guest.send_text(&room, "here").await;
    sees(&case.owner, &room, &event).await
}

async fn invite_and_reject(case: &Case) -> Played {
    let room = case.room("private_chat", json!({ "name": "Cellar" })).await?;
    invite(case, &room).await?;
    ok(case.guest.post(&format!("/v3/rooms/{room}/leave"), json!({})).await)?;
    becomes(&case.owner, &room, &case.guest, "leave").await?;
    let answer = case.guest.sync(None, 0).await;
    ensure(answer["rooms"]["invite"][&room].is_null(), "the invite is gone")
}

async fn take_back(case: &Case) -> Played {
    let room = case.room("private_chat", json!({ "name": "Cellar" })).await?;
    invite(case, &room).await?;
    ok(case.owner.post(&format!("/v3/rooms/{room}/kick"), json!({ "user_id": case.guest.user_id })).await)?;
    until("the invite is gone", async || {
        case.guest.sync(None, 0).await["rooms"]["invite"][&room].is_null().then_some(())
    })
    .await
}

async fn invite_at_once(case: &Case) -> Played {
    let more = json!({ "invite": [case.guest.user_id], "is_direct": true });
    let room = case.room("private_chat", more).await?;
    let direct = hears(&case.guest, "the invite", |answer| {
        let events = answer["rooms"]["invite"][&room]["invite_state"]["events"].as_array()?;
        Some(events.iter().any(|event| event["content"]["is_direct"] == true))
    })
    .await?;
    ensure(direct, "it is known to be for the two")
}

async fn knock(case: &Case) -> Played {
    let rule = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
    let room = case.room("private_chat", json!({ "initial_state": [rule] })).await?;
    let path = format!("/v3/knock/{room}?via={via}&server_name={via}", via = case.via);
    ok(case.guest.post(&path, json!({})).await)?;
    becomes(&case.owner, &room, &case.guest, "knock").await?;
    ok(case.owner.post(&format!("/v3/rooms/{room}/invite"), json!({ "user_id": case.guest.user_id })).await)?;
    case.enter(&case.guest, &room).await?;
    becomes(&case.owner, &room, &case.guest, "join").await
}

async fn restricted(case: &Case) -> Played {
    let lobby = case.room("public_chat", json!({})).await?;
    let allow = json!([{ "type": "m.room_membership", "room_id": lobby }]);
    let content = json!({ "join_rule": "restricted", "allow": allow });
    let rule = json!({ "type": "m.room.join_rules", "content": content });
    let room = case.room("private_chat", json!({ "initial_state": [rule] })).await?;
    let path = format!("/v3/join/{room}?via={via}&server_name={via}", via = case.via);
    let refused = case.guest.post(&path, json!({})).await;
    ensure(refused.status == 403, &format!("who isn't in the lobby isn't let in: {refused:?}"))?;
    case.enter(&case.guest, &lobby).await?;
    case.enter(&case.guest, &room).await?;
    becomes(&case.owner, &room, &case.guest, "join").await
}

async fn kick(case: &Case) -> Played {
    let room = case.shared().await?;
    ok(case.owner.post(&format!("/v3/rooms/{room}/kick"), json!({ "user_id": case.guest.user_id })).await)?;
    until("the guest is out", async || {
        let joined = case.guest.get("/v3/joined_rooms").await.json;
        (!joined["joined_rooms"].as_array()?.contains(&json!(room))).then_some(())
    })
    .await?;
    case.enter(&case.guest, &room).await?;
    let event = case.owner.send_text(&room, "you again").await;
    sees(&case.guest, &room, &event).await
}

async fn ban(case: &Case) -> Played {
    let room = case.shared().await?;
    ok(case.owner.post(&format!("/v3/rooms/{room}/ban"), json!({ "user_id": case.guest.user_id })).await)?;
    until("the guest is out", async || {
        let joined = case.guest.get("/v3/joined_rooms").await.json;
        (!joined["joined_rooms"].as_array()?.contains(&json!(room))).then_some(())
    })
    .await?;
    let path = format!("/v3/join/{room}?via={via}&server_name={via}", via = case.via);
    let refused = case.guest.post(&path, json!({})).await;
    ensure(refused.status == 403, &format!("who is banned isn't let in: {refused:?}"))
}

async fn leave(case: &Case) -> Played {
    let room = case.shared().await?;
    ok(case.guest.post(&format!("/v3/rooms/{room}/leave"), json!({})).await)?;
    becomes(&case.owner, &room, &case.guest, "leave").await?;
    for number in 0..5 {
        case.owner.send_text(&room, &format!("alone {number}")).await;
    }
    case.enter(&case.guest, &room).await?;
    let event = case.guest.send_text(&room, "back").await;
    sees(&case.owner, &room, &event).await?;
    // What was said meanwhile is there for those who come back, in its place.
    until("the guest reads what was said meanwhile", async || {
        let events = messages(&case.guest, &room).await;
        let expected = ["alone 0", "alone 1", "alone 2", "alone 3", "alone 4", "back"];
        (texts(&events) == expected).then_some(())
    })
    .await
}

async fn both_ways(case: &Case) -> Played {
    let room = case.shared().await?;
    let say = async |user: &crate::common::User, name: &str| {
        for number in 0..20 {
            user.send_text(&room, &format!("{name} {number}")).await;
        }
    };
    tokio::join!(say(&case.owner, "owner"), say(&case.guest, "guest"));
    until("both have all of it, once", async || {
        let (one, other) = (messages(&case.owner, &room).await, messages(&case.guest, &room).await);
        let (mut one, mut other) = (texts(&one), texts(&other));
        one.sort_unstable();
        other.sort_unstable();
        let count = one.len();
        one.dedup();
        (count == 40 && one.len() == 40 && one == other).then_some(())
    })
    .await
}

async fn first_event(case: &Case) -> Played {
    let room = case.room("public_chat", json!({ "name": "Old" })).await?;
    for number in 0..120 {
        case.owner.send_text(&room, &number.to_string()).await;
    }
    case.enter(&case.guest, &room).await?;
    let events = history(&case.guest, &room).await;
    let first = events.first().map(|event| event["type"].clone());
    ensure(first == Some(json!("m.room.create")), &format!("the first event is {first:?}"))?;
    let mut said = events.clone();
    said.retain(|event| event["type"] == "m.room.message");
    let expected: Vec<String> = (0..120).map(|number| number.to_string()).collect();
    ensure(texts(&said) == expected, &format!("in order: {:?}", texts(&said)))
}

/// An event that relates to one of the owner's, and what the owner finds bundled with theirs.
async fn relates(case: &Case, kind: &str, relates_to: impl Fn(&str) -> Value, bundled: &str) -> Played {
    let room = case.shared().await?;
    let event = case.owner.send_text(&room, "first").await;
    sees(&case.guest, &room, &event).await?;
    let mut content = relates_to(&event);
    if kind == "m.room.message" {
        content["msgtype"] = json!("m.text");
        content["body"] = json!("second");
    }
    case.guest.send_event(&room, kind, content).await;
    let path = format!("/v3/rooms/{room}/event/{event}");
    until(&format!("{bundled} is bundled"), async || {
        let event = case.owner.get(&path).await.json;
        (!event["unsigned"]["m.relations"][bundled].is_null()).then_some(())
    })
    .await
}

async fn edit(case: &Case) -> Played {
    let room = case.shared().await?;
    let event = case.owner.send_text(&room, "first").await;
    let new = json!({ "msgtype": "m.text", "body": "second" });
    let content = json!({
        "msgtype": "m.text", "body": "* second", "m.new_content": new,
        "m.relates_to": { "rel_type": "m.replace", "event_id": event },
    });
    case.owner.send_event(&room, "m.room.message", content).await;
    let path = format!("/v3/rooms/{room}/event/{event}");
    until("the guest sees the edit", async || {
        let event = case.guest.get(&path).await.json;
        (event["unsigned"]["m.relations"]["m.replace"]["content"]["m.new_content"] == new).then_some(())
    })
    .await
}

async fn thread(case: &Case) -> Played {
    let relates_to = |event: &str| json!({ "m.relates_to": { "rel_type": "m.thread", "event_id": event } });
    relates(case, "m.room.message", relates_to, "m.thread").await
}

async fn reaction(case: &Case) -> Played {
    let room = case.shared().await?;
    let event = case.owner.send_text(&room, "first").await;
    sees(&case.guest, &room, &event).await?;
    let content = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": event, "key": "+" } });
    case.guest.send_event(&room, "m.reaction", content).await;
    let path = format!("/v1/rooms/{room}/relations/{event}/m.annotation");
    until("the owner sees the reaction", async || {
        let relations = case.owner.get(&path).await.json;
        (relations["chunk"].as_array()?.len() == 1).then_some(())
    })
    .await
}

async fn redaction(case: &Case) -> Played {
    let room = case.shared().await?;
    let event = case.guest.send_text(&room, "regretted").await;
    sees(&case.owner, &room, &event).await?;
    let path = format!("/v3/rooms/{room}/redact/{event}/{}", crate::common::transaction_id());
    ok(case.owner.put(&path, json!({ "reason": "no" })).await)?;
    let path = format!("/v3/rooms/{room}/event/{event}");
    until("it is redacted for its author", async || {
        let event = case.guest.get(&path).await.json;
        (event["content"] == json!({}) && !event["unsigned"]["redacted_because"].is_null()).then_some(())
    })
    .await
}

async fn rename(case: &Case) -> Played {
    let room = case.shared().await?;
    let path = format!("/v3/profile/{}/displayname", case.guest.user_id);
    ok(case.guest.put(&path, json!({ "displayname": "Another" })).await)?;
    let path = format!("/v3/rooms/{room}/state/m.room.member/{}", case.guest.user_id);
    until("the owner sees the new name", async || {
        (case.owner.get(&path).await.json["displayname"] == "Another").then_some(())
    })
    .await
}

async fn upgrade(case: &Case) -> Played {
    let room = case.shared().await?;
    let answer =
        ok(case.owner.post(&format!("/v3/rooms/{room}/upgrade"), json!({ "new_version": "12" })).await)?;
    let new = answer["replacement_room"].as_str().unwrap_or_default().to_owned();
    until("the guest learns of the new room", async || {
        let tombstone = case.guest.get(&format!("/v3/rooms/{room}/state/m.room.tombstone/")).await.json;
        (tombstone["replacement_room"] == new).then_some(())
    })
    .await?;
    case.enter(&case.guest, &new).await?;
    becomes(&case.owner, &new, &case.guest, "join").await
}

async fn acl(case: &Case) -> Played {
    let room = case.shared().await?;
    let host = case.from.split(':').next().unwrap_or_default();
    let content = json!({ "allow": ["*"], "deny": [host], "allow_ip_literals": true });
    case.owner.send_state(&room, "m.room.server_acl", "", content).await;
    // AC-07: they hear of it, and of all that follows.
    until("the guest's server hears of the list", async || {
        let path = format!("/v3/rooms/{room}/state/m.room.server_acl/");
        case.guest.get(&path).await.status.eq(&200).then_some(())
    })
    .await?;
    let shut_out = case.guest.send_text(&room, "is anybody there?").await;
    // Another room, which the message would have come to after the first.
    let other = case.shared().await?;
    let event = case.guest.send_text(&other, "here").await;
    sees(&case.owner, &other, &event).await?;
    let answer = case.owner.get(&format!("/v3/rooms/{room}/event/{shut_out}")).await;
    ensure(answer.status == 404, "the message of a server that is shut out isn't taken")
}

async fn date(case: &Case) -> Played {
    let room = case.room("public_chat", json!({})).await?;
    let first = case.owner.send_text(&room, "first").await;
    let event = ok(case.owner.get(&format!("/v3/rooms/{room}/event/{first}")).await)?;
    let ts = event["origin_server_ts"].as_i64().unwrap_or_default();
    for number in 0..3 {
        case.owner.send_text(&room, &number.to_string()).await;
    }
    case.enter(&case.guest, &room).await?;
    let path = format!("/v1/rooms/{room}/timestamp_to_event?ts={ts}&dir=f");
    let answer = ok(case.guest.get(&path).await)?;
    ensure(answer["event_id"] == first, &format!("of before the guest came: {answer}"))
}

async fn typing(case: &Case) -> Played {
    let room = case.shared().await?;
    for (one, other) in [(&case.owner, &case.guest), (&case.guest, &case.owner)] {
        let path = format!("/v3/rooms/{room}/typing/{}", one.user_id);
        // A server that has only just come in passes over who types, so they have to go on for a while.
        until(&format!("{} hears of typing", other.user_id), async || {
            let (stop, start) = (json!({ "typing": false }), json!({ "typing": true, "timeout": 60_000 }));
            one.put(&path, stop).await;
            one.put(&path, start).await;
            let answer = other.sync(None, 0).await;
            let events = answer["rooms"]["join"][&room]["ephemeral"]["events"].as_array()?;
            let typing = events.iter().find(|event| event["type"] == "m.typing")?;
            typing["content"]["user_ids"].as_array()?.contains(&json!(one.user_id)).then_some(())
        })
        .await?;
    }
    Ok(())
}

async fn receipts(case: &Case) -> Played {
    let room = case.shared().await?;
    for (one, other) in [(&case.owner, &case.guest), (&case.guest, &case.owner)] {
        let event = other.send_text(&room, "read me").await;
        sees(one, &room, &event).await?;
        ok(one.post(&format!("/v3/rooms/{room}/receipt/m.read/{event}"), json!({})).await)?;
        hears(other, "a receipt", |answer| {
            let events = answer["rooms"]["join"][&room]["ephemeral"]["events"].as_array()?;
            let receipts = events.iter().filter(|event| event["type"] == "m.receipt");
            let mut receipts = receipts.map(|receipts| &receipts["content"][&event]["m.read"]);
            receipts.any(|read| !read[&one.user_id].is_null()).then_some(())
        })
        .await?;
    }
    Ok(())
}

async fn presence(case: &Case) -> Played {
    let room = case.shared().await?;
    becomes(&case.owner, &room, &case.guest, "join").await?;
    for (one, other) in [(&case.owner, &case.guest), (&case.guest, &case.owner)] {
        other.sync(None, 0).await;
        let path = format!("/v3/presence/{}/status", one.user_id);
        ok(one.put(&path, json!({ "presence": "unavailable", "status_msg": "at lunch" })).await)?;
        hears(other, "presence", |answer| {
            let events = answer["presence"]["events"].as_array()?;
            let mut of_one = events.iter().filter(|event| event["sender"] == one.user_id);
            of_one.any(|event| event["content"]["status_msg"] == "at lunch").then_some(())
        })
        .await?;
    }
    Ok(())
}

async fn profile(case: &Case) -> Played {
    let path = format!("/v3/profile/{}/displayname", case.owner.user_id);
    ok(case.owner.put(&path, json!({ "displayname": "Olga" })).await)?;
    let answer = ok(case.guest.get(&format!("/v3/profile/{}", case.owner.user_id)).await)?;
    ensure(answer["displayname"] == "Olga", &format!("{answer}"))
}

async fn alias(case: &Case) -> Played {
    let local = case.owner.user_id.split(':').next().unwrap_or_default().trim_start_matches('@').to_owned();
    let room = case.room("public_chat", json!({ "room_alias_name": local })).await?;
    let alias = format!("%23{local}:{}", case.via);
    let answer = ok(case.guest.get(&format!("/v3/directory/room/{alias}")).await)?;
    ensure(answer["room_id"] == room, &format!("{answer}"))?;
    ok(case.guest.post(&format!("/v3/join/{alias}"), json!({})).await)?;
    becomes(&case.owner, &room, &case.guest, "join").await
}

async fn public_rooms(case: &Case) -> Played {
    let room = case.room("public_chat", json!({ "visibility": "public", "name": "Square" })).await?;
    let body = json!({ "filter": { "generic_search_term": "square" } });
    let answer = ok(case.guest.post(&format!("/v3/publicRooms?server={}", case.via), body).await)?;
    let rooms = answer["chunk"].as_array().cloned().unwrap_or_default();
    ensure(rooms.iter().any(|found| found["room_id"] == room), &format!("{answer}"))
}

async fn spaces(case: &Case) -> Played {
    let space = case.room("public_chat", json!({ "creation_content": { "type": "m.space" } })).await?;
    let child = case.room("public_chat", json!({ "name": "Below" })).await?;
    case.owner.send_state(&space, "m.space.child", &child, json!({ "via": [case.via] })).await;
    case.enter(&case.guest, &space).await?;
    let answer = ok(case.guest.get(&format!("/v1/rooms/{space}/hierarchy")).await)?;
    let rooms = answer["rooms"].as_array().cloned().unwrap_or_default();
    ensure(rooms.iter().any(|found| found["room_id"] == child), &format!("the rooms of the space: {answer}"))
}
