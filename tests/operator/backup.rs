//! Backups made while the server works, and servers that go on from one while clients and other servers are ahead of it.

use std::{collections::BTreeSet, fs, path::PathBuf};

use http::Method;
use serde_json::json;
use toml::Table;

use crate::common::{
    User, eventually,
    federating::{Authority, Federating},
    history::whole_log,
};

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
}

impl Federating {
    /// A backup in the server's folder, made now.
    fn backup(&self, name: &str) -> PathBuf {
        let folder = self.folder().join(name);
        let made = self.run(&["backup", folder.to_str().unwrap()]);
        assert!(made.status.success(), "{made:?}");
        folder
    }

    /// The machine is gone, with all that it had.
    async fn lose_everything(&mut self) {
        self.server.kill().await;
        fs::remove_dir_all(self.server.data_dir()).unwrap();
    }

    fn restore(&self, folder: &std::path::Path) {
        let restored = self.run(&["restore", folder.to_str().unwrap()]);
        assert!(restored.status.success(), "{restored:?}");
    }
}

async fn bodies(user: &User, room: &str) -> BTreeSet<String> {
    let log = whole_log(user, room).await;
    log.iter().filter_map(|event| event["content"]["body"].as_str()).map(str::to_owned).collect()
}

async fn joined(user: &User, room: &str) -> BTreeSet<String> {
    let members = user.get(&format!("/v3/rooms/{room}/joined_members")).await.expect(200);
    members["joined"].as_object().unwrap().keys().cloned().collect()
}

/// What was said before the backup is in it, what is said meanwhile may be, and nothing of it waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_made_while_messages_are_sent() {
    let authority = Authority::new();
    let mut here = Federating::start(&authority, Table::new()).await;
    let alice = here.server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let mut before = Vec::new();
    for number in 0..50 {
        before.push(alice.send_text(&room, &format!("before {number}")).await);
    }
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let sender = tokio::spawn({
        let (alice, room) = (alice.clone(), room.clone());
        async move {
            let mut sent = 0;
            while stopped.try_recv().is_err() {
                alice.send_text(&room, &format!("meanwhile {sent}")).await;
                sent += 1;
            }
            sent
        }
    });
    let folders = ["first", "second", "third"].map(|name| here.backup(name));
    stop.send(()).unwrap();
    assert!(sender.await.unwrap() > 0, "messages are sent while backups are made");

    for folder in folders {
        here.lose_everything().await;
        here.restore(&folder);
        here.start_again().await;
        let log = whole_log(&alice, &room).await;
        let ids: Vec<&str> = log.iter().filter_map(|event| event["event_id"].as_str()).collect();
        let place = ids.iter().position(|id| *id == before[0]).unwrap();
        assert_eq!(ids[place..place + 50], before, "all that was acknowledged, in its order");
        let meanwhile: Vec<usize> = log
            .iter()
            .filter_map(|event| event["content"]["body"].as_str()?.strip_prefix("meanwhile ")?.parse().ok())
            .collect();
        assert_eq!(meanwhile, (0..meanwhile.len()).collect::<Vec<_>>(), "and of the rest the beginning");
        alice.send_text(&room, "after").await;
    }
}

/// A server goes on from a backup: nobody waits for what it has forgotten, no number is given out twice, and the rooms
/// that it shares become one again.
#[tokio::test(flavor = "multi_thread")]
async fn i3_a_restored_server_is_behind_its_clients_and_its_peers() {
    let authority = Authority::new();
    let mut here = Federating::start(&authority, Table::new()).await;
    let there = Federating::start(&authority, Table::new()).await;
    let (alice, bob) = (here.server.register("alice").await, there.server.register("bob").await);
    let anna = here.server.register("anna").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.post(&format!("/v3/join/{room}?via={}", here.name), json!({})).await.expect(200);
    alice.send_text(&room, "before").await;
    let folder = here.backup("backup");

    // All of this is lost here, and known there or to clients.
    anna.post(&format!("/v3/join/{room}"), json!({})).await.expect(200);
    alice.put(&format!("/v3/rooms/{room}/state/m.room.topic"), json!({ "topic": "since" })).await.expect(200);
    for number in 0..20 {
        alice.send_text(&room, &format!("since {number}")).await;
    }
    let last = alice.send_text(&room, "the last word").await;
    eventually("the other server has it", async || {
        let answer = bob.get(&format!("/v3/rooms/{room}/event/{last}")).await;
        (answer.status == 200).then_some(())
    })
    .await;
    let ahead = alice.sync(None, 0).await["next_batch"].as_str().unwrap().to_owned();
    let backed_up = json!({ "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": { "public_key": "abc" } });
    let version = alice.post("/v3/room_keys/version", backed_up.clone()).await.expect(200)["version"].clone();

    here.lose_everything().await;
    here.restore(&folder);
    here.start_again().await;

    // Clients: a token of then is answered with everything, at once.
    let answer = alice.sync(Some(&ahead), 30_000).await;
    let timeline = answer["rooms"]["join"][&room]["timeline"]["events"].as_array().unwrap();
    assert!(timeline.iter().any(|event| event["content"]["body"] == "before"), "{answer}");
    let position = |token: &str| token.split('_').nth(1).unwrap().parse::<i64>().unwrap();
    let next_batch = answer["next_batch"].as_str().unwrap();
    assert!(position(next_batch) > position(&ahead), "{next_batch} comes after {ahead}");
    let again = alice.post("/v3/room_keys/version", backed_up).await.expect(200)["version"].clone();
    let number = |version: &serde_json::Value| version.as_str().unwrap().parse::<i64>().unwrap();
    assert!(number(&again) > number(&version), "{again} was given out once: after {version}");

    // Servers: both go on at once, and what is lost comes back.
    let (ours, theirs) =
        tokio::join!(alice.send_text(&room, "from the backup"), bob.send_text(&room, "from beyond"));
    for (user, event) in [(&alice, &theirs), (&bob, &ours)] {
        eventually("each has what the other says", async || {
            let answer = user.get(&format!("/v3/rooms/{room}/event/{event}")).await;
            (answer.status == 200).then_some(())
        })
        .await;
    }
    let everything = bodies(&bob, &room).await;
    assert!(everything.contains("the last word") && everything.contains("from the backup"));
    assert_eq!(bodies(&alice, &room).await, everything);
    assert_eq!(joined(&alice, &room).await, joined(&bob, &room).await);
    assert_eq!(joined(&alice, &room).await.len(), 3, "anna too");
    for user in [&alice, &bob] {
        let topic = user.get(&format!("/v3/rooms/{room}/state/m.room.topic")).await.expect(200);
        assert_eq!(topic["topic"], "since");
    }
    // Whoever came back by way of another server is no less a member.
    anna.send_text(&room, "still here").await;
    anna.sync(None, 0).await["rooms"]["join"][&room]["timeline"]["events"].as_array().unwrap();
}

/// What is left of a lost database is never taken for part of the one that takes its place.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_restored_beside_what_a_killed_server_left() {
    let authority = Authority::new();
    let mut here = Federating::start(&authority, Table::new()).await;
    let alice = here.server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let folder = here.backup("backup");
    alice.send_text(&room, "since").await;
    here.server.kill().await;
    let (data, kept) = (here.server.data_dir(), here.folder());
    let left = ["hearth.db", "hearth.db-wal", "hearth.db-shm"];
    assert!(left.iter().all(|name| data.join(name).exists()), "a killed server leaves three files");

    for name in left {
        let refused = here.run(&["restore", folder.to_str().unwrap()]);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(said(&refused).contains(name), "{name} in {}", said(&refused));
        fs::rename(data.join(name), kept.join(name)).unwrap();
    }
    here.restore(&folder);
    here.start_again().await;
    assert!(!bodies(&alice, &room).await.contains("since"));
    assert!(here.server.log().contains("restored"), "{}", here.server.log());
    alice.send_text(&room, "after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_backup_is_not_restored_and_nothing_is_overwritten() {
    let authority = Authority::new();
    let mut here = Federating::start(&authority, Table::new()).await;
    let other = Federating::start(&authority, Table::new()).await;
    here.server.register("alice").await;
    let folder = here.backup("backup");
    let refused = |here: &Federating, command: &str, folder: &std::path::Path, word: &str| {
        let output = here.run(&[command, folder.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(said(&output).contains(word), "{word:?} in {}", said(&output));
    };

    refused(&here, "backup", &folder, "exists");
    refused(&here, "restore", &folder, "stop it first");
    here.server.stop().await;
    refused(&here, "restore", &folder, "exists");
    refused(&other, "restore", &folder, "stop it first");

    let mut other = other;
    other.server.stop().await;
    fs::remove_dir_all(other.server.data_dir()).unwrap();
    refused(&other, "backup", &other.folder().join("nothing"), "no database");
    refused(&other, "restore", &folder, "`server_name`");

    let copied = here.folder().join("copied");
    fs::create_dir(&copied).unwrap();
    fs::copy(here.server.data_dir().join("hearth.db"), copied.join("hearth.db")).unwrap();
    fs::remove_dir_all(here.server.data_dir()).unwrap();
    refused(&here, "restore", &copied, "hearth backup");
    refused(&here, "restore", &here.folder(), "isn't a backup");
    let damaged = here.folder().join("damaged");
    fs::create_dir(&damaged).unwrap();
    let mut bytes = fs::read(folder.join("hearth.db")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8192].fill(7);
    fs::write(damaged.join("hearth.db"), bytes).unwrap();
    refused(&here, "restore", &damaged, "damaged");

    // A backup that can't be finished leaves nothing behind.
    fs::remove_dir_all(here.server.data_dir()).ok();
    fs::create_dir(here.server.data_dir()).unwrap();
    fs::write(here.server.data_dir().join("hearth.db"), [7; 8192]).unwrap();
    fs::copy(folder.join("signing.key"), here.server.data_dir().join("signing.key")).unwrap();
    refused(&here, "backup", &here.folder().join("half"), "damaged");
    assert!(!here.folder().join("half").exists() && !here.folder().join("half.partial").exists());
    fs::remove_dir_all(here.server.data_dir()).unwrap();

    // After all that, it is still restored, by somebody who then finds their account.
    here.restore(&folder);
    here.start_again().await;
    let body = json!({ "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "alice" }, "password": crate::common::PASSWORD });
    here.server.http().request(Method::POST, "/v3/login", None, Some(body)).await.expect(200);
}

/// Without its key a server is nobody to others, so what holds no key is no backup.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_has_the_signing_key() {
    let authority = Authority::new();
    let mut here = Federating::start(&authority, Table::new()).await;
    let folder = here.backup("backup");
    // As for a job that finds the database, but by another `data_dir`.
    let (key, aside) = (here.server.data_dir().join("signing.key"), here.folder().join("aside.key"));
    fs::rename(&key, &aside).unwrap();
    let lacking = here.folder().join("lacking");
    let refused = here.run(&["backup", lacking.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(
        said(&refused).contains("signing.key") && said(&refused).contains("data_dir"),
        "{}",
        said(&refused)
    );
    assert!(!lacking.exists(), "nothing is left that looks like a backup");

    here.lose_everything().await;
    fs::rename(folder.join("signing.key"), folder.join("elsewhere")).unwrap();
    let refused = here.run(&["restore", folder.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(said(&refused).contains("signing.key"), "{}", said(&refused));
    assert!(!here.server.data_dir().join("hearth.db").exists());
    fs::rename(folder.join("elsewhere"), folder.join("signing.key")).unwrap();
    here.restore(&folder);
    here.start_again().await;
}
