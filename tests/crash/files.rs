//! A process that may open no more files: requests are answered or wait, nothing is lost, nothing turns in circles, and it ends by
//! itself when others give some back.

use std::{
    fs,
    time::{Duration, Instant},
};

use tokio::net::TcpStream;
use toml::Table;

use crate::{
    assert_intact, assert_no_panic,
    common::{Server, eventually},
    load::{Load, Party},
};

/// A server needs some forty for itself and the load.
const FILES: usize = 80;

/// The time on a processor that a process has used, in hundredths of a second.
fn used(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn open_files(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_free_files_nothing_is_lost_and_it_passes() {
    let mut server = Server::start(Table::new()).await;
    let party = Party::gather(&[(&server, "localhost")], 3, 2).await;
    let idle = party.people[0].user.clone();
    server.stop().await;
    let limit = format!("ulimit -n {FILES}; exec \"$0\" \"$@\"");
    server.prefix = ["sh", "-c", &limit].map(str::to_owned).to_vec();
    server.start_again().await;
    idle.sync(None, 0).await;

    // Nobody but those who hold connections: it waits, and does nothing else.
    let sockets = hold(&server).await;
    let (before, begin) = (used(server.pid()), Instant::now());
    while begin.elapsed() < Duration::from_secs(1) {
        // Whoever is connected is answered as ever.
        idle.get("/v3/account/whoami").await.expect(200);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (spent, passed) = (used(server.pid()) - before, begin.elapsed().as_millis() as u64 / 10);
    assert!(spent * 4 < passed, "{spent} of {passed} hundredths of a second for doing nothing");
    drop(sockets);

    // The same amid a load, which gets what is left between those who come and go.
    let load = Load::start(&party, 1).await;
    for _ in 0..3 {
        load.progress.more(20).await;
        let sockets = hold(&server).await;
        load.progress.more(20).await;
        drop(sockets);
    }
    load.end().await;
    eventually("all connections are over", async || (open_files(server.pid()) < FILES - 20).then_some(()))
        .await;
    let log = server.log();
    let said = log.lines().filter(|line| line.contains("no connection can be accepted")).count();
    assert!((1..5).contains(&said), "said {said} times:\n{log}");
    assert!(log.lines().count() < 60, "{log}");
    server.kill().await;
    assert_intact(&server);
    server.start_again().await;
    idle.get("/v3/account/whoami").await.expect(200);
    assert_no_panic(&server);
}

/// Where the system allows more than it gives at first, a server takes it.
#[tokio::test(flavor = "multi_thread")]
async fn as_many_files_may_be_open_as_the_system_allows() {
    let mut server = Server::start(Table::new()).await;
    server.stop().await;
    let limit = "ulimit -Sn 80; ulimit -Hn 500; exec \"$0\" \"$@\"";
    server.prefix = ["sh", "-c", limit].map(str::to_owned).to_vec();
    server.start_again().await;
    let mut sockets = Vec::new();
    for _ in 0..200 {
        sockets.push(TcpStream::connect(("127.0.0.1", server.port())).await.unwrap());
    }
    eventually("all are accepted", async || (open_files(server.pid()) > 200).then_some(())).await;
    server.register("alice").await;
}

/// Takes all files that the server has left, and more.
async fn hold(server: &Server) -> Vec<TcpStream> {
    let mut sockets = Vec::new();
    for _ in 0..FILES + 20 {
        sockets.push(TcpStream::connect(("127.0.0.1", server.port())).await.unwrap());
    }
    eventually("no file is left", async || (open_files(server.pid()) >= FILES - 1).then_some(())).await;
    sockets
}
