//! One request and its answer over one connection.
//!
//! Owns how much of an answer is read, and how slowly it may come.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::{Body as _, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time};
use tokio_rustls::client::TlsStream;

use super::pool::Sender;

/// Bytes of an answer that have to come within the time for stalls. An honest server sends more, or is done.
const LEAST_PROGRESS: usize = 1024;
/// Bytes of the head of an answer.
const MAX_HEAD: usize = 64 * 1024;
/// An answer with an error is read up to this, whatever the limit for good ones.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer on a connection.
#[derive(Debug)]
pub(super) enum ExchangeError {
    /// The connection was closed before the request was sent.
    NotSent,
    /// The connection was closed instead of an answer. Whether the request was taken, nobody knows.
    Closed,
    /// The connection broke, or what came isn't HTTP.
    Broken(String),
    /// Too little came for too long.
    Stalled,
    /// The answer is longer than that.
    TooLarge(usize),
}

/// Make a connection ready for requests.
pub(super) async fn open(stream: TlsStream<TcpStream>) -> Result<Sender, ExchangeError> {
    let handshake = http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(|error| ExchangeError::Broken(told(&error)))?;
    // It ends with the connection, which ends when the sender is dropped. What is wrong with it, requests are told.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// Send a request and read its answer. The connection comes back if it can take another request.
pub(super) async fn exchange(
    mut sender: Sender,
    request: Request<Full<Bytes>>,
    limit: usize,
    stall: Duration,
) -> Result<(Response, Option<Sender>), ExchangeError> {
    // `ready` says whether it was closed meanwhile.
    if sender.ready().await.is_err() {
        return Err(ExchangeError::NotSent);
    }
    let answer = sender.try_send_request(request).await.map_err(|mut error| {
        if error.take_message().is_some() {
            ExchangeError::NotSent
        } else if error.error().is_incomplete_message() {
            ExchangeError::Closed
        } else {
            ExchangeError::Broken(told(error.error()))
        }
    })?;
    let (head, body) = answer.into_parts();
    let limit = if head.status.is_success() { limit } else { limit.min(MAX_ERROR_BYTES) };
    let body = read(body, limit, stall).await?;
    let again = (!sender.is_closed()).then_some(sender);
    Ok((Response { status: head.status, headers: head.headers, body }, again))
}

async fn read(mut body: Incoming, limit: usize, stall: Duration) -> Result<Bytes, ExchangeError> {
    if body.size_hint().lower() > limit as u64 {
        return Err(ExchangeError::TooLarge(limit));
    }
    let mut all = BytesMut::new();
    loop {
        let start = all.len();
        // Until enough of it has come: single bytes don't count as progress.
        let progress = async {
            while all.len() - start < LEAST_PROGRESS {
                let Some(frame) = body.frame().await else { return Ok(true) };
                let frame = frame.map_err(|error| ExchangeError::Broken(told(&error)))?;
                let Ok(data) = frame.into_data() else { continue };
                if all.len() + data.len() > limit {
                    return Err(ExchangeError::TooLarge(limit));
                }
                all.extend_from_slice(&data);
            }
            Ok(false)
        };
        if time::timeout(stall, progress).await.unwrap_or(Err(ExchangeError::Stalled))? {
            return Ok(all.freeze());
        }
    }
}

/// An error with what caused it, which hyper leaves out.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
