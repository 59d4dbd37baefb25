//! `sockets`: many idle sockets of the stream: what one of them holds of the server's memory and time with heartbeats on,
//! and how long it takes until all of them are back when all are cut at once, each with what it missed, and with that once.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::{Bench, in_parallel, mebibytes, room_of};
use crate::checker::compare;
use crate::client::{Session, User};
use crate::content;
use crate::report::Better;
use crate::socket::Socket;
use crate::sync::SyncBody;

const NAME: &str = "sockets";
const MEMBERS: usize = 10;

/// A little over one heartbeat.
const WATCHED: Duration = Duration::from_secs(35);

/// Until a message counts as lost.
const DELIVERY_PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Settings {
    pub(crate) sockets: usize,
    /// Accounts that the sockets are spread over.
    pub(crate) users: usize,
    /// Sockets that are cut and come back.
    pub(crate) cut: usize,
}

pub(crate) async fn run(bench: &mut Bench, settings: &Settings) -> Result<()> {
    let address = bench.address();
    let users = bench.users(settings.users).await?;
    let groups: Vec<_> = users.chunks(MEMBERS).map(<[_]>::to_vec).collect();
    let rooms = in_parallel(groups.clone(), move |members| room_of(address, members)).await?;
    if bench.server.can_restart() {
        bench.server.restart().await?;
    }
    let initial = users.iter().cloned().map(|user| Session::new(address, user)).collect();
    let known = in_parallel(initial, |mut session: Session| async move {
        let since = session.sync_token(None).await?;
        Ok((session.user, since))
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = bench.server.memory();

    let wanted = (0..settings.sockets).map(|index| known[index % known.len()].clone()).collect();
    let open =
        move |(user, since): (User, String)| async move { Socket::open(address, &user, Some(&since)).await };
    let opened = in_parallel(wanted, open).await?;
    let mut sockets = JoinSet::new();
    for socket in opened {
        sockets.spawn_local(socket.idle());
    }
    let window = bench.window();
    tokio::time::sleep(WATCHED).await;
    let spent = window.close(&bench.servers());
    let with = bench.server.memory();
    if let Some(ended) = sockets.try_join_next() {
        ended??;
    }
    sockets.shutdown().await;

    let count = settings.sockets as f64;
    let each = before
        .zip(with)
        .map(|(before, with)| (with.proportional as f64 - before.proportional as f64) / 1024.0 / count);
    let cpu = spent.server_each(settings.sockets).map(|each| each * 1000.0 / spent.elapsed.as_secs_f64());
    let memory = with.map(|memory| mebibytes(memory.proportional));
    bench.size(
        NAME,
        format!("{} sockets of {} users, {} cut", settings.sockets, settings.users, settings.cut),
    );
    let report = &mut bench.report;
    report.add(NAME, "memory with", "MiB", Better::Lower, memory);
    report.add(NAME, "memory a socket", "KiB", Better::Lower, each);
    report.add(NAME, "server CPU a socket", "µs/s", Better::Lower, cpu);
    storm(bench, settings, &known, &groups, &rooms).await
}

/// Cuts sockets all at once, says something in each room, and waits until each is back and has heard it. Then says something
/// more: what came twice came before that.
async fn storm(
    bench: &mut Bench,
    settings: &Settings,
    known: &[(User, String)],
    groups: &[Vec<User>],
    rooms: &[Rc<str>],
) -> Result<()> {
    let address = bench.address();
    let wanted: Vec<_> = (0..settings.cut).map(|index| index % known.len()).collect();
    let known = Rc::new(known.to_vec());
    let open = move |place: usize| {
        let (user, since) = known[place].clone();
        async move {
            let socket = Socket::open(address, &user, Some(&since)).await?;
            Ok((place / MEMBERS, user, socket))
        }
    };
    let opened = in_parallel(wanted, open).await?;
    let cut: Vec<_> =
        opened.into_iter().map(|(group, user, socket)| (group, user, socket.position.clone())).collect();
    let missed = say(address, groups, rooms, 0).await?;
    let window = bench.window();
    let began = Instant::now();
    let mut coming = JoinSet::new();
    for (group, user, position) in cut {
        let missed = missed[group].clone();
        coming.spawn_local(async move {
            let mut returned = Returned::new(Socket::open(address, &user, Some(&position)).await?);
            returned.read_to(&missed).await?;
            anyhow::Ok((group, returned))
        });
    }
    let mut back = Vec::new();
    while let Some(returned) = coming.join_next().await {
        back.push(returned??);
    }
    let seconds = began.elapsed().as_secs_f64();
    let spent = window.close(&bench.servers());
    let last = say(address, groups, rooms, 1).await?;
    for (group, mut returned) in back {
        returned.read_to(&last[group]).await?;
        bench.report.verdict.add(&compare([&*missed[group], &*last[group]], returned.received()));
    }
    let label = format!("{} back after a cut, each with what it missed", settings.cut);
    bench.report.add(NAME, label, "s", Better::Lower, Some(seconds));
    bench.report.add(NAME, "server CPU a resume", "ms", Better::Lower, spent.server_each(settings.cut));
    Ok(())
}

/// Says something in each room. Returns the events.
async fn say(
    address: SocketAddr,
    groups: &[Vec<User>],
    rooms: &[Rc<str>],
    number: usize,
) -> Result<Vec<Box<str>>> {
    let mut said = Vec::new();
    for (members, room) in groups.iter().zip(rooms) {
        let mut session = Session::new(address, members[0].clone());
        let content = content::message(2_000_000, number);
        // Each session is new, and would give each message the same transaction id.
        said.push(session.send_as(room, &content, number as u64).await?);
    }
    Ok(said)
}

/// A socket that has come back, and the events that it was sent since, in all its rooms.
struct Returned {
    socket: Socket,
    received: Vec<Box<str>>,
}

impl Returned {
    fn new(socket: Socket) -> Self {
        Self { socket, received: Vec::new() }
    }

    fn received(&self) -> impl Iterator<Item = &str> {
        self.received.iter().map(|event| &**event)
    }

    /// Reads until that event has come.
    async fn read_to(&mut self, event: &str) -> Result<()> {
        let reading = async {
            while self.received.iter().all(|received| **received != *event) {
                let body = SyncBody::parse(self.socket.sync().await?)?;
                let events = body.rooms.join.values().flat_map(|room| &room.timeline.events);
                self.received.extend(events.map(|event| Box::<str>::from(&*event.id)));
            }
            anyhow::Ok(())
        };
        let read = tokio::time::timeout(DELIVERY_PATIENCE, reading).await;
        read.with_context(|| {
            format!("{event} has not come to a socket within {} s", DELIVERY_PATIENCE.as_secs())
        })?
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::checker::Verdict;

    /// A socket of a server that sends these frames, whatever it is asked.
    async fn told(frames: Vec<String>) -> Returned {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut line, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                assert!(line.read_buf(&mut request).await.unwrap() > 0);
            }
            let mut answer = b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec();
            for frame in frames {
                answer.extend([0x81, 126]);
                answer.extend((frame.len() as u16).to_be_bytes());
                answer.extend(frame.as_bytes());
            }
            line.write_all(&answer).await.unwrap();
            // Until the socket is closed.
            while line.read_buf(&mut request).await.is_ok_and(|length| length > 0) {}
        });
        let user = User { id: "@a:b".into(), token: "t".into() };
        Returned::new(Socket::open(address, &user, Some("s0")).await.unwrap())
    }

    fn sync(events: &[&str]) -> String {
        let events = events.iter().map(|id| {
            format!(
                r#"{{"event_id":"{id}","sender":"@a:b","type":"m.room.message","content":{{"bench.n":0}}}}"#
            )
        });
        let events = events.collect::<Vec<_>>().join(",");
        format!(
            r#"{{"type":"sync","from":"s0","to":"s1","body":{{"next_batch":"s1","rooms":{{"join":{{"!r":{{"timeline":{{"events":[{events}]}}}}}}}}}}}}"#
        )
    }

    fn authenticated() -> String {
        r#"{"id":"b1","result":{}}"#.to_owned()
    }

    #[tokio::test]
    async fn a_socket_is_back_when_it_has_what_it_missed_and_not_before() {
        let mut returned =
            told(vec![authenticated(), sync(&[]), sync(&["$other"]), sync(&["$missed"])]).await;
        returned.read_to("$missed").await.unwrap();
        assert_eq!(returned.received().collect::<Vec<_>>(), ["$other", "$missed"]);
    }

    #[tokio::test]
    async fn what_comes_twice_to_a_socket_that_is_back_is_seen() {
        let frames = vec![authenticated(), sync(&["$missed"]), sync(&["$missed"]), sync(&["$last"])];
        let mut returned = told(frames).await;
        returned.read_to("$missed").await.unwrap();
        returned.read_to("$last").await.unwrap();
        let verdict = compare(["$missed", "$last"], returned.received());
        assert_eq!(verdict, Verdict { due: 2, duplicated: 1, ..Verdict::default() });
    }
}
