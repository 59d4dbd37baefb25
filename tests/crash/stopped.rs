//! A process that the system stops for a while, as it does with a machine that is suspended or moved.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use toml::Table;

use crate::{
    Starts, assert_intact, assert_no_panic,
    common::{Server, rounds},
    freeze,
    load::{Load, Party},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_stopped_for_a_while_goes_on_where_it_was() {
    let mut server = Server::start(Table::new()).await;
    let party = Party::gather(&[(&server, "localhost")], 3, 2).await;
    let load = Load::start(&party, 1).await;
    let mut starts = Starts::default();
    for _ in 0..2 {
        load.progress.more(20).await;
        freeze(&server).await;
        let (begin, before) = (Instant::now(), load.progress.count());
        while begin.elapsed() < Duration::from_secs(rounds(2, 30) as u64) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(load.progress.count() <= before + 3, "who is stopped acknowledges nothing");
        server.signal(Signal::CONT);
        load.progress.more(20).await;
        server.kill().await;
        assert_intact(&server);
        starts.again(&mut server).await;
    }
    load.progress.more(20).await;
    load.end().await;
    assert_no_panic(&server);
    server.stop().await;
    assert_intact(&server);
    starts.report("after stops");
}
