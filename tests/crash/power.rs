//! Power that goes: what wasn't synced is gone, or there, or any of its sectors are.

use std::sync::atomic::Ordering;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rustix::process::Signal;
use toml::Table;

use crate::{
    Starts, assert_intact, assert_no_panic,
    common::{
        Server,
        federating::{Authority, Federating},
    },
    disk::{Disk, Left, Word},
    freeze,
    load::{Load, Party},
    seed, times,
};

/// A server on a disk of ours, with people in two rooms.
async fn server(config: Table) -> (Server, Disk, Party) {
    let mut server = Server::start(config).await;
    let party = Party::gather(&[(&server, "localhost")], 3, 2).await;
    server.stop().await;
    let disk = Disk::below(&mut server);
    server.start_again().await;
    (server, disk, party)
}

/// Takes the power away instead of some change of a file, and gives it back.
async fn unplug(server: &mut Server, disk: &mut Disk, chance: &mut StdRng, starts: &mut Starts) {
    // Mostly amid commits and checkpoints, now and then right after the start.
    let reach = if chance.random_bool(0.25) { 40 } else { 1500 };
    disk.set(Word::DieAfter, disk.get(Word::Changes) + chance.random_range(1..reach));
    server.ended().await;
    disk.lose_power(Left::any(chance), chance);
    assert_intact(server);
    // Now and then once more while what is left is put in order.
    if chance.random_bool(0.25) {
        disk.set(Word::DieAfter, chance.random_range(1..10));
        server.spawn();
        if server.opened().await.is_ok() {
            server.kill().await;
        }
        disk.lose_power(Left::any(chance), chance);
        assert_intact(server);
    }
    starts.again(server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_what_was_acknowledged_is_there_whatever_the_power_leaves() {
    let (losses, seed) = (times("LOSSES", 16), seed());
    let mut chance = StdRng::seed_from_u64(seed);
    let (mut server, mut disk, party) = server(Table::new()).await;
    let load = Load::start(&party, seed).await;
    let mut starts = Starts::default();
    for _ in 0..losses {
        unplug(&mut server, &mut disk, &mut chance, &mut starts).await;
        load.progress.more(5).await;
    }
    let acknowledged = load.end().await;
    assert_no_panic(&server);
    eprintln!("{losses} losses of power, {acknowledged} acts acknowledged, none lost");
    starts.report("after losses of power");
}

/// What another server was told has arrived, and what it was told has been said, too.
#[tokio::test(flavor = "multi_thread")]
async fn servers_agree_though_the_power_of_one_goes() {
    let (losses, seed) = (times("LOSSES", 16).div_ceil(4), seed());
    let mut chance = StdRng::seed_from_u64(seed);
    let authority = Authority::new();
    let mut here = Federating::start(&authority, Table::new()).await;
    let there = Federating::start(&authority, Table::new()).await;
    let homes = [(&here.server, here.name.as_str()), (&there.server, there.name.as_str())];
    let party = Party::gather(&homes, 2, 2).await;
    here.server.stop().await;
    let mut disk = Disk::below(&mut here.server);
    here.start_again().await;
    let load = Load::start(&party, seed).await;
    let mut starts = Starts::default();
    for _ in 0..losses {
        unplug(&mut here.server, &mut disk, &mut chance, &mut starts).await;
        load.progress.more(20).await;
    }
    let acknowledged = load.end().await;
    assert_no_panic(&here.server);
    eprintln!("{losses} losses of power of one of two, {acknowledged} acts acknowledged, none lost");
    starts.report("after losses of power of one of two");
}

/// The first start writes keys and a database; whatever of these is left, the next one works.
#[tokio::test(flavor = "multi_thread")]
async fn power_that_goes_during_the_first_start_leaves_a_server_that_starts() {
    let (losses, seed) = (times("LOSSES", 16).div_ceil(4), seed());
    let mut chance = StdRng::seed_from_u64(seed);
    let mut server = Server::start(Table::new()).await;
    for loss in 0..losses {
        server.stop().await;
        std::fs::remove_dir_all(server.data_dir()).unwrap();
        let mut disk = Disk::below(&mut server);
        disk.set(Word::DieAfter, chance.random_range(1..400));
        server.spawn();
        if server.opened().await.is_ok() {
            server.kill().await;
        }
        disk.lose_power(Left::any(&mut chance), &mut chance);
        server.start_again().await;
        server.register(&format!("person{loss}")).await;
    }
    assert_no_panic(&server);
}

/// That the disk forgets what wasn't synced, and that it is found out if that was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_lies_loses_what_was_acknowledged_and_so_does_a_server_that_does_not_sync() {
    for lies in [true, false] {
        let config = if lies {
            Table::new()
        } else {
            toml::toml! { database.synchronous = "normal" }
        };
        let (mut server, mut disk, party) = server(config).await;
        let load = Load::start(&party, 1).await;
        load.progress.more(20).await;
        disk.set(Word::SyncLies, i64::from(lies));
        load.progress.more(60).await;
        // What was said before a checkpoint isn't lost: some has to have been said since.
        loop {
            let before = disk.get(Word::Syncs);
            load.progress.more(10).await;
            freeze(&server).await;
            if lies || disk.get(Word::Syncs) == before {
                break;
            }
            server.signal(Signal::CONT);
        }
        load.progress.forgetful.store(true, Ordering::SeqCst);
        server.kill().await;
        disk.set(Word::SyncLies, 0);
        disk.lose_power(Left::Nothing, &mut StdRng::seed_from_u64(1));
        server.start_again().await;
        let lost = load.lost().await;
        assert!(!lost.is_empty(), "lies: {lies}");
        eprintln!("{} acknowledged messages were lost, lies: {lies}", lost.len());
    }
}
