//! Disks that are full, fail, or write less than they are told to, and then work again.

use std::{fs, io::Write as _, process::Command, time::Instant};

use rand::{SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use toml::Table;

use crate::{
    assert_intact, assert_no_panic,
    common::{
        Server, eventually,
        history::{Reader, ids, whole_log},
        transaction_id,
    },
    disk::{Disk, EIO, ENOSPC, Left, Word},
    load::{Load, Party},
};

const ROUNDS: usize = 3;

/// One that works on such a disk, with people in a room and a load, and others who read only now and then.
async fn at_work() -> (Server, Disk, Load, Vec<Reader>) {
    let mut server = Server::start(Table::new()).await;
    let party = Party::gather(&[(&server, "localhost")], 3, 1).await;
    let mut readers = Vec::new();
    for number in 0..ROUNDS {
        let user = server.register(&format!("reader{number}")).await;
        user.join(&party.rooms[0]).await;
        let mut reader = Reader::new(&user, &party.rooms[0]);
        reader.first_page_only().await;
        readers.push(reader);
    }
    server.stop().await;
    let disk = Disk::below(&mut server);
    server.start_again().await;
    let load = Load::start(&party, 1).await;
    load.progress.more(20).await;
    (server, disk, load, readers)
}

/// While the disk fails: sends are refused in Matrix's way, and whatever is there can be read.
async fn assert_refuses_writes_and_answers_reads(load: &Load) {
    let (reader, room) = (&load.party.people[0].user, &load.party.rooms[0]);
    let path = format!("/v3/rooms/{room}/send/m.room.message/{}", transaction_id());
    let refused = reader.put(&path, json!({ "msgtype": "m.text", "body": "refused" })).await;
    assert_eq!(refused.status, 500, "{}", refused.text());
    assert!(refused.json["errcode"].is_string(), "{}", refused.text());
    let page = reader.get(&format!("/v3/rooms/{room}/messages?dir=b&limit=5")).await.expect(200);
    assert_eq!(page["chunk"].as_array().unwrap().len(), 5);
    reader.sync(None, 0).await;
}

async fn some_are_refused(load: &Load) {
    let before = load.progress.refused();
    eventually("people are refused", async || (load.progress.refused() > before + 3).then_some(())).await;
}

/// A fault comes, the operator reads of it, it goes, and the server goes on by itself; then the power goes as well.
async fn comes_and_goes(fault: Word, value: i64, said: &str) {
    let (mut server, mut disk, load, mut readers) = at_work().await;
    let begin = Instant::now();
    for (round, reader) in readers.iter_mut().enumerate() {
        disk.set(Word::WritesLeft, round as i64 * 7);
        disk.set(fault, value);
        some_are_refused(&load).await;
        assert_refuses_writes_and_answers_reads(&load).await;
        // Whoever comes back now isn't told less than all, though queues can't be put in order.
        reader.advance(0).await;
        let log = ids(&Value::Array(whole_log(&load.party.people[0].user, &load.party.rooms[0]).await));
        assert_eq!(reader.events.last(), log.last());
        let place = log.iter().position(|id| *id == reader.events[0]).unwrap();
        assert_eq!(reader.events, log[place..], "I5");
        disk.set(fault, 0);
        load.progress.more(30).await;
    }
    let log = server.log();
    let lines = log.lines().filter(|line| line.contains(said)).count();
    assert!(lines > 0, "{said:?} is said:\n{log}");
    let (refused, passed) = (load.progress.refused(), begin.elapsed());
    // By several parts of the server, each of which says it once in ten seconds.
    let most = 12 + 3 * passed.as_secs() / 10;
    assert!((lines as u64) < most, "{said:?} is said {lines} times in {passed:?}, for {refused} refusals");

    // What a fsync that failed has lost isn't what later ones vouch for.
    disk.set(fault, value);
    some_are_refused(&load).await;
    disk.set(fault, 0);
    load.progress.more(30).await;
    server.kill().await;
    disk.lose_power(Left::Nothing, &mut StdRng::seed_from_u64(1));
    assert_intact(&server);
    server.start_again().await;
    load.progress.more(10).await;
    load.end().await;
    assert_no_panic(&server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_and_the_server_goes_on_when_there_is_room() {
    comes_and_goes(Word::WriteError, ENOSPC, "free some space").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_a_disk_that_fails_to_write_loses_nothing_that_was_acknowledged() {
    comes_and_goes(Word::WriteError, EIO, "the disk").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_a_disk_that_fails_to_sync_loses_nothing_that_was_acknowledged() {
    comes_and_goes(Word::SyncError, EIO, "the disk").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_write_only_half_are_finished() {
    let (mut server, disk, load, _) = at_work().await;
    disk.set(Word::ShortWrites, 1);
    load.progress.more(100).await;
    disk.set(Word::ShortWrites, 0);
    load.end().await;
    assert_no_panic(&server);
    server.kill().await;
    assert_intact(&server);
}

/// A file system that really is full, where the test may make one.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_without_room_refuses_writes_until_there_is_some() {
    let own_mounts = Command::new("unshare").args(["-Urm", "true"]).status();
    if !own_mounts.is_ok_and(|status| status.success()) {
        eprintln!("no file systems of one's own can be mounted here: not tried");
        return;
    }
    let mut server = Server::start(Table::new()).await;
    server.stop().await;
    let mount =
        format!("mount -t tmpfs -o size=12m tmpfs {} && exec \"$0\" \"$@\"", server.data_dir().display());
    server.prefix = ["unshare", "-Urm", "sh", "-c", &mount].map(str::to_owned).to_vec();
    server.start_again().await;
    let party = Party::gather(&[(&server, "localhost")], 3, 1).await;
    let load = Load::start(&party, 1).await;
    load.progress.more(20).await;
    let data = server.data_dir();
    let filler = format!("/proc/{}/root{}/filler", server.pid(), data.display());
    for _ in 0..3 {
        let mut file = fs::File::create(&filler).unwrap();
        while file.write_all(&[7; 4096]).is_ok() {}
        some_are_refused(&load).await;
        assert_refuses_writes_and_answers_reads(&load).await;
        fs::remove_file(&filler).unwrap();
        drop(file);
        load.progress.more(20).await;
    }
    load.end().await;
    assert!(server.log().contains("free some space"), "{}", server.log());
    assert_no_panic(&server);
}

/// Who can't start says why, and what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_disk_that_is_full_says_so_or_works() {
    let mut server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let said = alice.send_text(&room, "before").await;
    server.kill().await;
    let disk = Disk::below(&mut server);
    for left in [0, 1, 3, 10] {
        disk.set(Word::WriteError, ENOSPC);
        disk.set(Word::WritesLeft, left);
        server.spawn();
        match server.opened().await {
            Ok(()) => {
                alice.get(&format!("/v3/rooms/{room}/event/{said}")).await.expect(200);
                server.kill().await;
            }
            Err(status) => {
                assert_eq!(status.code(), Some(1), "{}", server.log());
                assert!(server.log().contains("full"), "{}", server.log());
            }
        }
    }
    disk.set(Word::WriteError, 0);
    server.start_again().await;
    alice.get(&format!("/v3/rooms/{room}/event/{said}")).await.expect(200);
    alice.send_text(&room, "after").await;
    assert_no_panic(&server);
}
