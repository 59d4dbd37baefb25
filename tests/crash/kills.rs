//! `kill -9` at any moment, also while starting, of either of two servers that share rooms.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use toml::Table;

use crate::{
    Starts, assert_intact, assert_no_panic,
    common::federating::{Authority, Federating},
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
