//! The ways between servers of one machine: each may be slow or cut, in one direction of one pair.
//!
//! A server is reached by way of a port of the test, whoever comes. Who that is isn't said before TLS begins, so it is looked
//! up: the process that has the other end of the connection.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
};

/// Nothing comes through, and what was on its way is lost.
pub(crate) const CUT: u64 = u64::MAX;

/// The ways between some servers, known by their numbers.
pub(crate) struct Ways {
    /// How late each way is, in milliseconds; by who goes it, and then by where it leads.
    late: Vec<Vec<AtomicU64>>,
    changed: watch::Sender<u64>,
}

/// A server that is reached by way of another port.
pub(crate) struct Reached {
    pub(crate) from: TcpListener,
    pub(crate) port: u16,
    pub(crate) process: u32,
}

impl Ways {
    pub(crate) fn new(servers: Vec<Reached>) -> Arc<Self> {
        let row = || servers.iter().map(|_| AtomicU64::new(0)).collect();
        let ways = Self { late: servers.iter().map(|_| row()).collect(), changed: watch::Sender::new(0) };
        let ways = Arc::new(ways);
        let processes: Vec<u32> = servers.iter().map(|server| server.process).collect();
        for (to, server) in servers.into_iter().enumerate() {
            tokio::spawn(Arc::clone(&ways).serve(to, server, processes.clone()));
        }
        ways
    }

    pub(crate) fn set(&self, from: usize, to: usize, late: u64) {
        self.late[from][to].store(late, Ordering::Relaxed);
        self.changed.send_modify(|changes| *changes += 1);
    }

    async fn serve(self: Arc<Self>, to: usize, server: Reached, processes: Vec<u32>) {
        let here = server.from.local_addr().unwrap().port();
        while let Ok((client, address)) = server.from.accept().await {
            // Whoever has hung up by now is nobody's.
            let Some(from) = owner(address.port(), here, &processes) else { continue };
            tokio::spawn(Arc::clone(&self).pass(from, to, client, server.port));
        }
    }

    async fn pass(self: Arc<Self>, from: usize, to: usize, client: TcpStream, port: u16) {
        let late = &self.late[from][to];
        let mut changed = self.changed.subscribe();
        let cut = async { while late.load(Ordering::Relaxed) != CUT && changed.changed().await.is_ok() {} };
        let passed = async {
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::join!(copy(from_client, to_server, late), copy(from_server, to_client, late));
        };
        // Whoever comes while it is cut is turned away at once: what takes a minute to fail is tested elsewhere.
        tokio::select! {
            biased;
            () = cut => {}
            () = passed => {}
        }
    }
}

async fn copy(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, late: &AtomicU64) {
    let mut piece = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        match late.load(Ordering::Relaxed) {
            0 | CUT => {}
            late => tokio::time::sleep(Duration::from_millis(late)).await,
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// Which of some processes has the other end of a connection between two ports.
fn owner(local: u16, remote: u16, processes: &[u32]) -> Option<usize> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let (local, remote) = (format!(":{local:04X}"), format!(":{remote:04X}"));
    let socket = table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields.get(1)?.ends_with(&local) && fields.get(2)?.ends_with(&remote);
        is_it.then(|| format!("socket:[{}]", fields[9]))
    })?;
    processes.iter().position(|process| {
        let files = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
        files
            .into_iter()
            .any(|file| fs::read_link(file.path()).is_ok_and(|link| link.to_str() == Some(&socket)))
    })
}
