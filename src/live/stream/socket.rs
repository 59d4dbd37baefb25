//! The wire of one socket: WebSocket messages in both directions (RFC 6455), with what may wait in memory bounded.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::Sink;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};
use yawc::{Frame, OpCode, Options, Role, WebSocket, WebSocketError};

use super::close::Close;

/// A connection that can become a [`Socket`].
pub trait Connected: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connected for T {}

/// An open WebSocket.
pub struct Socket {
    socket: WebSocket<Shared>,
    line: Arc<Line>,
}

impl Socket {
    /// `extensions` are those that the handshake agreed on, as in its header.
    pub fn open(
        connected: Box<dyn Connected>,
        extensions: Option<&str>,
        options: Options,
    ) -> Result<Self, WebSocketError> {
        let line = Arc::new(Line { connected: Mutex::new(connected), written: AtomicU64::new(0) });
        let io = Shared(Arc::clone(&line));
        let socket = WebSocket::from_stream_with_extensions(io, Role::Server, extensions, options)?;
        Ok(Self { socket, line })
    }
}

/// The connection below a WebSocket, of use when that reads no more. Counts the bytes that the other side takes: slow is not
/// the same as stuck.
struct Line {
    connected: Mutex<Box<dyn Connected>>,
    written: AtomicU64,
}

impl Line {
    fn poll<T>(&self, poll: impl FnOnce(Pin<&mut dyn Connected>) -> Poll<T>) -> Poll<T> {
        poll(Pin::new(&mut **self.connected.lock()))
    }

    /// Reads and throws away what the other side still sends, as far as is reasonable.
    async fn pass_over(&self) {
        let mut buffer = vec![0; 8 * 1024];
        let mut left = MOST_PASSED_OVER;
        while left > 0 {
            let mut read = ReadBuf::new(&mut buffer);
            let done =
                poll_fn(|context| self.poll(|connected| connected.poll_read(context, &mut read))).await;
            let length = read.filled().len();
            if done.is_err() || length == 0 {
                return;
            }
            left = left.saturating_sub(length);
        }
    }
}

/// The WebSocket's hold on its line.
struct Shared(Arc<Line>);

impl AsyncRead for Shared {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.poll(|connected| connected.poll_read(context, buffer))
    }
}

impl AsyncWrite for Shared {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.0.poll(|connected| connected.poll_write(context, bytes));
        if let Poll::Ready(Ok(bytes)) = &written {
            self.0.written.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll(|connected| connected.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll(|connected| connected.poll_shutdown(context))
    }
}

/// Messages and pongs that may wait to be written. A client that leaves more where they are isn't read until it has taken
/// them: whatever it asks for, its answers don't pile up here.
const UNSENT: u32 = 64;

/// How long the other side may take to read why it is closed.
const FAREWELL: Duration = Duration::from_secs(1);

/// What is read and thrown away meanwhile, in bytes: several times the largest frame.
const MOST_PASSED_OVER: usize = 8 * 1024 * 1024;

/// What happened on the wire.
#[derive(Debug)]
pub(super) enum Heard {
    /// A message. Not known to be UTF-8.
    Text(Bytes),
    /// A sign of life without content.
    Beat,
    /// All that was sent has been handed to the network.
    Flushed,
}

pub(super) struct Wire {
    socket: WebSocket<Shared>,
    line: Arc<Line>,
    /// What waits to be handed to the network.
    unsent: u32,
}

impl Wire {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket: socket.socket, line: socket.line, unsent: 0 }
    }

    /// How many bytes the other side has taken so far.
    pub(super) fn written(&self) -> u64 {
        self.line.written.load(Ordering::Relaxed)
    }

    /// Whether something that was sent still waits for a client that doesn't read. Nothing more should be sent then.
    pub(super) fn is_busy(&self) -> bool {
        self.unsent > 0
    }

    /// Sends a message. It goes out while [`Self::turn`] is waited for.
    pub(super) fn send(&mut self, text: impl Into<Bytes>) -> Result<(), Close> {
        self.unsent += 1;
        Pin::new(&mut self.socket).start_send(Frame::text(text.into())).map_err(|_| Close::Gone)
    }

    /// Sends and receives until there is something to tell; that all was sent is told only where somebody waits for it.
    /// Losing the future loses nothing.
    pub(super) async fn turn(&mut self, read: bool, waits: bool) -> Result<Heard, Close> {
        poll_fn(|context| {
            if self.unsent > 0 {
                match self.poll_flush(context) {
                    Poll::Ready(Ok(())) => {
                        self.unsent = 0;
                        if waits {
                            return Poll::Ready(Ok(Heard::Flushed));
                        }
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Close::Gone)),
                    Poll::Pending => {}
                }
            }
            if !read || self.unsent >= UNSENT {
                return Poll::Pending;
            }
            self.socket
                .poll_next_frame(context)
                .map(|frame| self.heard(frame.map_err(|cause| explain(&cause))?))
        })
        .await
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        // Only the first sends the pongs that wait.
        match Pin::new(&mut self.socket).poll_ready(context) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.socket).poll_flush(context),
            waiting => waiting,
        }
    }

    fn heard(&mut self, frame: Frame) -> Result<Heard, Close> {
        match frame.opcode() {
            OpCode::Text => Ok(Heard::Text(frame.into_payload())),
            OpCode::Ping => {
                // Its pong waits to be written.
                self.unsent += 1;
                Ok(Heard::Beat)
            }
            OpCode::Pong => Ok(Heard::Beat),
            OpCode::Close => Err(Close::Gone),
            OpCode::Binary | OpCode::Continuation => Err(Close::Protocol(1003, "frames are text".to_owned())),
        }
    }

    /// Says why, and waits a moment for the other side to have read it.
    pub(super) async fn close(&mut self, close: Close) {
        let _ = timeout(FAREWELL, self.say(close)).await;
    }

    async fn say(&mut self, close: Close) {
        let Some((code, reason)) = close.told() else {
            // A client that closes hears that it was heard.
            let _ = poll_fn(|context| self.poll_flush(context)).await;
            return;
        };
        if Pin::new(&mut self.socket).start_send(Frame::close(code.into(), reason)).is_err() {
            return;
        }
        if poll_fn(|context| Pin::new(&mut self.socket).poll_close(context)).await.is_err() {
            return;
        }
        // Whoever is cut off while they still write may never read what was said.
        self.line.pass_over().await;
    }
}

/// What a client is told that doesn't speak the protocol.
fn explain(cause: &WebSocketError) -> Close {
    let code = match cause {
        // A payload that can't be inflated is an error of this kind, too; a connection has none such.
        WebSocketError::IoError(cause) if cause.kind() == io::ErrorKind::InvalidInput => 1007,
        WebSocketError::ConnectionClosed | WebSocketError::IoError(_) => return Close::Gone,
        WebSocketError::FrameTooLarge => 1009,
        WebSocketError::InvalidUTF8 => 1007,
        _ => 1002,
    };
    Close::Protocol(code, cause.to_string())
}
