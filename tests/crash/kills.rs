//! `kill -9` at any moment, also while starting, of either of two servers that share rooms.

use std::{fs, time::Duration};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use toml::Table;

use crate::{
    Starts, assert_intact, assert_no_panic,
    common::{
        Server,
        federating::{Authority, Federating},
    },
    disk::{Disk, Left, Word},
    load::{Load, Party},
    seed, times,
};

/// Then it is held against what was acknowledged, and new servers begin.
const OF_A_PAIR: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn i1_i3_i4_i5_servers_that_are_killed_at_any_moment_lose_nothing_and_agree() {
    let (kills, first) = (times("KILLS", 16), seed());
    let (mut starts, mut acknowledged, mut done) = (Starts::default(), 0, 0);
    for pair in 0.. {
        if done == kills {
            break;
        }
        let mut chance = StdRng::seed_from_u64(first + pair);
        let authority = Authority::new();
        let mut servers = [
            Federating::start(&authority, Table::new()).await,
            Federating::start(&authority, Table::new()).await,
        ];
        let homes: Vec<_> = servers.iter().map(|one| (&one.server, one.name.as_str())).collect();
        let party = Party::gather(&homes, 2, 3).await;
        let load = Load::start(&party, first + pair).await;
        for _ in 0..OF_A_PAIR.min(kills - done) {
            load.progress.more(chance.random_range(1..60)).await;
            let victim = &mut servers[chance.random_range(0..2)].server;
            victim.kill().await;
            assert_intact(victim);
            while chance.random_bool(0.1) {
                victim.spawn();
                tokio::time::sleep(Duration::from_millis(chance.random_range(0..60))).await;
                victim.kill().await;
                assert_intact(victim);
            }
            starts.again(victim).await;
            done += 1;
        }
        acknowledged += load.end().await;
        for one in &mut servers {
            assert_no_panic(&one.server);
            one.server.stop().await;
            assert_intact(&one.server);
        }
        eprintln!("{done} kills, {acknowledged} acts acknowledged, none lost");
    }
    starts.report("after kills");
}

/// A first start that was killed, or lost its power, has left no server that has lost its database.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_that_is_cut_short_is_followed_by_another() {
    let (kills, seed) = (times("FIRST_STARTS", 12), seed());
    let mut chance = StdRng::seed_from_u64(seed);
    let mut server = Server::start(Table::new()).await;
    server.stop().await;
    let mut disk = Disk::below(&mut server);
    // The first is left alone, to see how many changes there are.
    let mut changes = 0;
    for number in 0..=kills {
        fs::remove_dir_all(server.data_dir()).unwrap();
        fs::create_dir(server.data_dir()).unwrap();
        disk.begin();
        if changes > 0 {
            disk.set(Word::DieAfter, chance.random_range(1..=changes));
        }
        server.spawn();
        if server.opened().await.is_err() {
            if number % 2 == 0 {
                disk.lose_power(Left::any(&mut chance), &mut chance);
            }
            disk.set(Word::DieAfter, 0);
            server.start_again().await;
        }
        changes = changes.max(disk.get(Word::Changes));
        server.kill().await;
    }
    assert_no_panic(&server);
}
