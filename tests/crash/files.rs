//! A process that may open no more files: requests are answered or wait, nothing is lost, nothing turns in circles, and it ends by
//! itself when others give some back.

use std::{
    fs,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use toml::Table;

use crate::{
    assert_intact, assert_no_panic,
    common::{PATIENCE, Server, User, eventually},
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
    let mut connected = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    assert_answered(&mut connected, &idle).await;

    // Nobody but those who hold connections: it waits, and does nothing else.
    let first = Instant::now();
    let sockets = hold(&server).await;
    let mut looks: Vec<(u64, u64)> = Vec::new();
    // What it still has to do at first is no fault.
    while looks.last().is_none_or(|(spent, passed)| spent * 4 >= *passed) {
        assert!(looks.len() < 3, "{looks:?}: hundredths of a second for doing nothing, and how many passed");
        let (before, begin) = (used(server.pid()), Instant::now());
        while begin.elapsed() < Duration::from_secs(1) {
            // Whoever is connected is answered as ever.
            assert_answered(&mut connected, &idle).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        looks.push((used(server.pid()) - before, begin.elapsed().as_millis() as u64 / 10));
    }
    drop((sockets, connected));

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
    let said = log.lines().filter(|line| line.contains("no connection can be accepted")).count() as u64;
    let most = 2 + first.elapsed().as_secs() / 10;
    assert!((1..=most).contains(&said), "said {said} times:\n{log}");
    // But for statements that took long.
    assert!(log.lines().filter(|line| !line.contains("slow")).count() < 60, "{log}");
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

/// That a connection is served.
async fn assert_answered(connected: &mut TcpStream, user: &User) {
    let (path, token) = ("/_matrix/client/v3/account/whoami", &user.access_token);
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
    connected.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        let read = timeout(PATIENCE, connected.read_buf(&mut answer)).await.expect("an answer").unwrap();
        assert!(read > 0, "it was closed after {:?}", String::from_utf8_lossy(&answer));
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&answer));
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
