//! The line between two servers: a relay on loopback that can be cut, or fall silent, as networks do. It carries bytes and
//! knows nothing of what they say.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const BUFFER: usize = 16 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Open,
    /// Connections are closed, and new ones closed at once.
    Cut,
    /// Connections stay, and nothing comes through.
    Silent,
}

pub(crate) struct Link {
    state: watch::Sender<State>,
}

impl Link {
    /// Relays what connects to `listener` to `target`, for as long as this process lives.
    pub(crate) fn new(listener: TcpListener, target: SocketAddr) -> Self {
        let (state, watched) = watch::channel(State::Open);
        tokio::task::spawn_local(async move {
            loop {
                // Out of file descriptors, perhaps: the other end tries again.
                let Ok((near, _)) = listener.accept().await else {
                    tokio::task::yield_now().await;
                    continue;
                };
                let watched = watched.clone();
                tokio::task::spawn_local(async move {
                    // A connection that ends, ends at both ends: that is all that is to be done about it.
                    let _ = relay(near, target, watched).await;
                });
            }
        });
        Self { state }
    }

    pub(crate) fn set(&self, state: State) {
        self.state.send_replace(state);
    }
}

async fn relay(near: TcpStream, target: SocketAddr, mut state: watch::Receiver<State>) -> Result<()> {
    let far = TcpStream::connect(target).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((near_reads, near_writes), (far_reads, far_writes)) = (near.into_split(), far.into_split());
    let (there, back) = (state.clone(), state.clone());
    let both = async {
        tokio::try_join!(forward(near_reads, far_writes, there), forward(far_reads, near_writes, back))
    };
    tokio::select! {
        ended = both => ended.map(drop),
        _ = state.wait_for(|state| *state == State::Cut) => Ok(()),
    }
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await.map_err(Into::into);
        }
        state.wait_for(|state| *state != State::Silent).await?;
        to.write_all(&buffer[..count]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn linked() -> (Link, SocketAddr, TcpListener) {
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap();
        let link = Link::new(listener, target.local_addr().unwrap());
        (link, port, target)
    }

    #[tokio::test]
    async fn a_line_carries_both_ways_and_ends_with_either_end() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let (_link, port, target) = linked().await;
                let mut near = TcpStream::connect(port).await.unwrap();
                let (mut far, _) = target.accept().await.unwrap();
                near.write_all(b"there").await.unwrap();
                far.write_all(b"back").await.unwrap();
                let mut bytes = [0; 5];
                far.read_exact(&mut bytes).await.unwrap();
                near.read_exact(&mut bytes[..4]).await.unwrap();
                assert_eq!(&bytes, b"backe");
                drop(near);
                assert_eq!(far.read(&mut bytes).await.unwrap(), 0);
            })
            .await;
    }

    #[tokio::test]
    async fn a_cut_ends_what_is_there_and_a_silence_keeps_it() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let (link, port, target) = linked().await;
                let mut near = TcpStream::connect(port).await.unwrap();
                let (mut far, _) = target.accept().await.unwrap();
                let mut bytes = [0; 4];

                link.set(State::Silent);
                near.write_all(b"late").await.unwrap();
                let early = tokio::time::timeout(Duration::from_millis(50), far.read_exact(&mut bytes)).await;
                assert!(early.is_err(), "{early:?}");
                link.set(State::Open);
                far.read_exact(&mut bytes).await.unwrap();
                assert_eq!(&bytes, b"late");

                link.set(State::Cut);
                let ended = tokio::time::timeout(Duration::from_mins(1), near.read(&mut bytes)).await;
                assert_eq!(ended.expect("the cut was felt").unwrap_or(0), 0);
                let mut refused = TcpStream::connect(port).await.unwrap();
                assert_eq!(refused.read(&mut bytes).await.unwrap_or(0), 0);
                link.set(State::Open);
                let _near = TcpStream::connect(port).await.unwrap();
                target.accept().await.unwrap();
            })
            .await;
    }
}
