//! One keep-alive HTTP/1.1 connection: what a virtual user has in place of a browser.
//!
//! The load generator shares the machine with the server it measures, so a request costs it one write, one or two reads
//! and no allocation in the steady state; that is why this is not a general client. It owns the socket and its buffers.
//! It never follows redirects, never compresses, never pools, and speaks to one address only.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// No answer of a homeserver that is alive takes this long, long-polls included.
const PATIENCE: Duration = Duration::from_mins(3);

/// Bytes asked for in one read; most answers are smaller.
const READ_SIZE: usize = 4096;

pub(crate) struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    /// The request as it goes out, reused.
    outgoing: Vec<u8>,
    /// The response as it comes in, reused.
    incoming: Vec<u8>,
    /// The body of a chunked response put together, reused.
    unchunked: Vec<u8>,
}

pub(crate) struct Response<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

impl Response<'_> {
    /// The body of a 2xx answer; anything else is an error that quotes the beginning of the body.
    pub(crate) fn success(&self) -> Result<&[u8]> {
        if (200..300).contains(&self.status) {
            return Ok(self.body);
        }
        let end = self.body.len().min(300);
        bail!("status {}: {}", self.status, String::from_utf8_lossy(&self.body[..end]));
    }
}

/// How the end of a body is found (RFC 9112, 6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

struct Head {
    status: u16,
    /// Bytes of the status line and headers, the empty line included.
    size: usize,
    framing: Framing,
    closes: bool,
}

impl Connection {
    /// Opens nothing yet: the first request connects.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, stream: None, outgoing: Vec::new(), incoming: Vec::new(), unchunked: Vec::new() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the connection; the next request opens another.
    pub(crate) fn hang_up(&mut self) {
        self.stream = None;
    }

    /// Sends one request and reads its whole answer. `target` is the path with its query, already encoded.
    ///
    /// A connection that the server closed while it was idle is opened again, once, and only if not one byte of an
    /// answer had come.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        target: &str,
        token: Option<&str>,
        body: Option<&[u8]>,
    ) -> Result<Response<'_>> {
        self.outgoing.clear();
        write_request(&mut self.outgoing, self.address, method, target, token, body);
        let Ok(answered) = tokio::time::timeout(PATIENCE, self.exchange()).await else {
            self.stream = None;
            bail!("{method} {target}: no answer within {} s", PATIENCE.as_secs());
        };
        let head = answered.with_context(|| format!("{method} {target}"))?;
        if head.closes {
            self.stream = None;
        }
        let body = match head.framing {
            Framing::Length(length) => &self.incoming[head.size..head.size + length],
            Framing::Chunked => &self.unchunked[..],
            Framing::UntilClose => &self.incoming[head.size..],
        };
        Ok(Response { status: head.status, body })
    }

    async fn exchange(&mut self) -> Result<Head> {
        let reused = self.stream.is_some();
        match self.exchange_once().await {
            Err(_) if reused && self.incoming.is_empty() => {
                self.stream = None;
                self.exchange_once().await
            }
            other => other,
        }
        .inspect_err(|_| self.stream = None)
    }

    async fn exchange_once(&mut self) -> Result<Head> {
        self.incoming.clear();
        self.unchunked.clear();
        let stream = if let Some(stream) = &mut self.stream {
            stream
        } else {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            self.stream.insert(stream)
        };
        stream.write_all(&self.outgoing).await?;
        let head = loop {
            read_more(stream, &mut self.incoming).await?.context("closed before the answer")?;
            match parse_head(&self.incoming)? {
                // 1xx answers precede the real one.
                Some(head) if head.status < 200 => {
                    self.incoming.drain(..head.size);
                }
                Some(head) => break head,
                None => {}
            }
        };
        match head.framing {
            Framing::Length(length) => {
                self.incoming.reserve((head.size + length).saturating_sub(self.incoming.len()));
                while self.incoming.len() < head.size + length {
                    read_more(stream, &mut self.incoming).await?.context("closed within the body")?;
                }
            }
            Framing::Chunked => {
                let mut chunks = Chunks { next: head.size };
                while !chunks.advance(&self.incoming, &mut self.unchunked)? {
                    read_more(stream, &mut self.incoming).await?.context("closed within a chunk")?;
                }
            }
            Framing::UntilClose => while read_more(stream, &mut self.incoming).await?.is_some() {},
        }
        Ok(head)
    }
}

/// Appends what is there, or returns `None` at the end of the stream.
async fn read_more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Option<()>> {
    buffer.reserve(READ_SIZE);
    Ok((stream.read_buf(buffer).await? > 0).then_some(()))
}

fn write_request(
    out: &mut Vec<u8>,
    address: SocketAddr,
    method: &str,
    target: &str,
    token: Option<&str>,
    body: Option<&[u8]>,
) {
    for part in [method, " ", target, " HTTP/1.1\r\nHost: "] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(address.to_string().as_bytes());
    if let Some(token) = token {
        out.extend_from_slice(b"\r\nAuthorization: Bearer ");
        out.extend_from_slice(token.as_bytes());
    }
    if let Some(body) = body {
        out.extend_from_slice(b"\r\nContent-Type: application/json\r\nContent-Length: ");
        out.extend_from_slice(body.len().to_string().as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(body);
    } else {
        out.extend_from_slice(b"\r\n\r\n");
    }
}

fn parse_head(bytes: &[u8]) -> Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let size = match response.parse(bytes)? {
        httparse::Status::Complete(size) => size,
        httparse::Status::Partial => return Ok(None),
    };
    let status = response.code.context("no status")?;
    let mut framing = Framing::UntilClose;
    let mut closes = response.version == Some(0);
    if status < 200 || status == 204 || status == 304 {
        framing = Framing::Length(0);
    }
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") && framing != Framing::Chunked {
            framing = Framing::Length(std::str::from_utf8(header.value)?.trim().parse()?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            framing = Framing::Chunked;
        } else if header.name.eq_ignore_ascii_case("connection") {
            closes = header.value.eq_ignore_ascii_case(b"close");
        }
    }
    Ok(Some(Head { status, size, framing, closes: closes || framing == Framing::UntilClose }))
}

/// Takes a chunked body apart as it arrives (RFC 9112, 7.1).
struct Chunks {
    /// Where the next chunk's size line begins.
    next: usize,
}

impl Chunks {
    /// Copies every chunk that is whole; true when the last one has been seen.
    fn advance(&mut self, raw: &[u8], body: &mut Vec<u8>) -> Result<bool> {
        loop {
            let rest = &raw[self.next..];
            let Ok(parsed) = httparse::parse_chunk_size(rest) else { bail!("bad chunk size") };
            let httparse::Status::Complete((line, size)) = parsed else { return Ok(false) };
            let size = usize::try_from(size)?;
            // The chunk's own line end follows its bytes; after the last chunk it ends the (empty) trailer section.
            let end = line + size + 2;
            if rest.len() < end {
                return Ok(false);
            }
            body.extend_from_slice(&rest[line..line + size]);
            self.next += end;
            if size == 0 {
                return Ok(true);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers each request on a connection with its next answer, then closes.
    pub(crate) async fn scripted(connections: Vec<Vec<impl AsRef<[u8]> + Send + 'static>>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for answers in connections {
                let (mut socket, _) = listener.accept().await.unwrap();
                for answer in answers {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        assert!(socket.read_buf(&mut request).await.unwrap() > 0);
                    }
                    // Byte by byte, so that no boundary of reads can be relied on.
                    for byte in answer.as_ref() {
                        socket.write_all(&[*byte]).await.unwrap();
                        socket.flush().await.unwrap();
                        tokio::task::yield_now().await;
                    }
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn bodies_end_where_their_framing_says() {
        let address = scripted(vec![vec![
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\nuntil the end",
        ]])
        .await;
        let mut connection = Connection::new(address);
        for (status, body) in [(200, "hello"), (404, "hello"), (204, ""), (200, "until the end")] {
            let response = connection.request("GET", "/", None, None).await.unwrap();
            assert_eq!((response.status, std::str::from_utf8(response.body).unwrap()), (status, body));
        }
    }

    #[tokio::test]
    async fn an_idle_connection_that_was_closed_is_opened_again() {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        let address = scripted(vec![vec![answer], vec![answer]]).await;
        let mut connection = Connection::new(address);
        for _ in 0..2 {
            assert_eq!(connection.request("GET", "/", Some("t"), None).await.unwrap().body, b"{}");
        }
    }

    #[tokio::test]
    async fn half_an_answer_is_an_error() {
        let address = scripted(vec![vec!["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"]]).await;
        let mut connection = Connection::new(address);
        assert!(connection.request("GET", "/", None, None).await.is_err());
    }
}
