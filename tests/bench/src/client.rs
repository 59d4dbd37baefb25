//! The client-server calls that a load needs, one method each, over one connection a virtual user.
//!
//! Everything here is the public interface of Matrix v1.19 but for registration with a shared secret, which tools for
//! Synapse use and which spares a benchmark the interactive flow. It keeps no state of a room; scenarios do.

use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde_json::json;
use sha1::Sha1;

use crate::connection::Connection;
use crate::sync::{Event, SyncBody};

/// An account and one access token of it.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) id: Rc<str>,
    pub(crate) token: Rc<str>,
}

impl User {
    pub(crate) fn server_name(&self) -> Option<&str> {
        Some(self.id.split_once(':')?.1)
    }
}

/// The password of every account that the benchmark makes.
const PASSWORD: &str = "correct-horse-battery-staple";

/// A user at a connection of their own.
pub(crate) struct Session {
    pub(crate) user: User,
    connection: Connection,
    transactions: u64,
}

#[derive(Deserialize)]
struct Registered {
    user_id: String,
    access_token: String,
}

#[derive(Deserialize)]
struct EventId {
    event_id: Box<str>,
}

/// One page of `/messages`: the benchmark's own messages in it, and where the next page begins.
pub(crate) struct Page {
    pub(crate) messages: Vec<Message>,
    pub(crate) end: Option<String>,
}

pub(crate) struct Message {
    pub(crate) event_id: Box<str>,
    pub(crate) sender: Box<str>,
    /// The number that its sender gave it.
    pub(crate) number: usize,
}

impl Session {
    pub(crate) fn new(address: SocketAddr, user: User) -> Self {
        Self { user, connection: Connection::new(address), transactions: 0 }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.connection.address()
    }

    async fn post(&mut self, target: &str, body: &serde_json::Value) -> Result<&[u8]> {
        let body = body.to_string();
        let token = Rc::clone(&self.user.token);
        succeed(&mut self.connection, "POST", target, Some(&token), Some(body.as_bytes())).await
    }

    async fn get(&mut self, target: &str) -> Result<&[u8]> {
        let token = Rc::clone(&self.user.token);
        succeed(&mut self.connection, "GET", target, Some(&token), None).await
    }

    /// A room that anybody of the server can join. Returns its id.
    pub(crate) async fn create_room(&mut self, name: &str) -> Result<Rc<str>> {
        self.create_room_of_version(name, None).await
    }

    /// The same, of another version than the server's own choice.
    pub(crate) async fn create_room_of_version(
        &mut self,
        name: &str,
        version: Option<&str>,
    ) -> Result<Rc<str>> {
        #[derive(Deserialize)]
        struct Created {
            room_id: String,
        }
        let mut body = json!({ "preset": "public_chat", "name": name });
        if let Some(version) = version {
            body["room_version"] = json!(version);
        }
        let answer = self.post("/_matrix/client/v3/createRoom", &body).await?;
        Ok(serde_json::from_slice::<Created>(answer)?.room_id.into())
    }

    pub(crate) async fn join(&mut self, room: &str) -> Result<()> {
        self.post(&format!("/_matrix/client/v3/join/{}", encode(room)), &json!({})).await.map(drop)
    }

    /// Joins a room that another server has.
    pub(crate) async fn join_by_way_of(&mut self, room: &str, server: &str) -> Result<()> {
        // The second parameter is the older name of the first.
        let (room, server) = (encode(room), encode(server));
        let target = format!("/_matrix/client/v3/join/{room}?via={server}&server_name={server}");
        self.post(&target, &json!({})).await.map(drop)
    }

    /// Stores a filter that asks for up to `limit` events a room, as a client does at its start. Returns the filter's id.
    pub(crate) async fn timeline_filter(&mut self, limit: u32) -> Result<String> {
        #[derive(Deserialize)]
        struct Stored {
            filter_id: String,
        }
        let target = format!("/_matrix/client/v3/user/{}/filter", encode(&self.user.id));
        let answer = self.post(&target, &json!({ "room": { "timeline": { "limit": limit } } })).await?;
        Ok(serde_json::from_slice::<Stored>(answer)?.filter_id)
    }

    /// Sends a message under a fresh transaction id. Returns the event's id.
    pub(crate) async fn send(&mut self, room: &str, content: &str) -> Result<Box<str>> {
        self.transactions += 1;
        self.send_as(room, content, self.transactions).await
    }

    /// Sends the last message's transaction id again, as a client does that never got the answer.
    pub(crate) async fn send_again(&mut self, room: &str, content: &str) -> Result<Box<str>> {
        self.send_as(room, content, self.transactions).await
    }

    /// Sends a message under a transaction id of the caller's, which may have been used for the same message before.
    pub(crate) async fn send_as(&mut self, room: &str, content: &str, transaction: u64) -> Result<Box<str>> {
        let target = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/b{transaction}", encode(room));
        let token = Rc::clone(&self.user.token);
        let answer =
            succeed(&mut self.connection, "PUT", &target, Some(&token), Some(content.as_bytes())).await?;
        Ok(serde_json::from_slice::<EventId>(answer)?.event_id)
    }

    /// Says that everything up to `event` has been read.
    pub(crate) async fn receipt(&mut self, room: &str, event: &str) -> Result<()> {
        let target = format!("/_matrix/client/v3/rooms/{}/receipt/m.read/{}", encode(room), encode(event));
        self.post(&target, &json!({})).await.map(drop)
    }

    pub(crate) async fn typing(&mut self, room: &str, typing: bool) -> Result<()> {
        let user = Rc::clone(&self.user.id);
        let target = format!("/_matrix/client/v3/rooms/{}/typing/{}", encode(room), encode(&user));
        let body = json!({ "typing": typing, "timeout": 20_000 }).to_string();
        let token = Rc::clone(&self.user.token);
        succeed(&mut self.connection, "PUT", &target, Some(&token), Some(body.as_bytes())).await.map(drop)
    }

    pub(crate) async fn leave(&mut self, room: &str) -> Result<()> {
        self.post(&format!("/_matrix/client/v3/rooms/{}/leave", encode(room)), &json!({})).await.map(drop)
    }

    /// Closes the connection, as somebody does who loses it; the next request opens another. Needed after a request that was
    /// given up before its answer.
    pub(crate) fn hang_up(&mut self) {
        self.connection.hang_up();
    }

    /// Sets a state event whose content is a number.
    pub(crate) async fn set_state(&mut self, room: &str, kind: &str, key: &str, number: usize) -> Result<()> {
        let target =
            format!("/_matrix/client/v3/rooms/{}/state/{}/{}", encode(room), encode(kind), encode(key));
        let body = json!({ "number": number }).to_string();
        let token = Rc::clone(&self.user.token);
        succeed(&mut self.connection, "PUT", &target, Some(&token), Some(body.as_bytes())).await.map(drop)
    }

    /// An event with `limit` others around it and the state there. Returns the token of the place before all of them.
    pub(crate) async fn context(&mut self, room: &str, event: &str, limit: u32) -> Result<String> {
        #[derive(Deserialize)]
        struct Answer {
            start: String,
        }
        let target =
            format!("/_matrix/client/v3/rooms/{}/context/{}?limit={limit}", encode(room), encode(event));
        Ok(serde_json::from_slice::<Answer>(self.get(&target).await?)?.start)
    }

    /// `/sync` from `since` (`None`: initial). Returns the raw body, for the caller to borrow from.
    pub(crate) async fn sync_raw(
        &mut self,
        since: Option<&str>,
        filter: Option<&str>,
        timeout_ms: u32,
    ) -> Result<&[u8]> {
        let mut target = format!("/_matrix/client/v3/sync?timeout={timeout_ms}");
        for (name, value) in [("since", since), ("filter", filter)] {
            if let Some(value) = value {
                target.push('&');
                target.push_str(name);
                target.push('=');
                target.push_str(&encode(value));
            }
        }
        self.get(&target).await
    }

    /// Sliding sync in the form from before it was merged, from `pos` (`None`: a new connection).
    pub(crate) async fn sliding_raw(&mut self, pos: Option<&str>, body: &serde_json::Value) -> Result<&[u8]> {
        let pos = pos.map(|pos| format!("&pos={}", encode(pos))).unwrap_or_default();
        let target = format!("/_matrix/client/unstable/org.matrix.simplified_msc3575/sync?timeout=0{pos}");
        self.post(&target, body).await
    }

    /// The cheapest request that needs a token.
    pub(crate) async fn who_am_i(&mut self) -> Result<()> {
        self.get("/_matrix/client/v3/account/whoami").await.map(drop)
    }

    /// As [`Self::sync_raw`], for callers who want the next token alone.
    pub(crate) async fn sync_token(&mut self, since: Option<&str>) -> Result<String> {
        let body = self.sync_raw(since, None, 0).await?;
        Ok(SyncBody::parse(body)?.next_batch.into_owned())
    }

    /// One page of a room's messages from `from` (`None`: from the end of the direction), `direction` "b" or "f".
    pub(crate) async fn messages(
        &mut self,
        room: &str,
        direction: &str,
        from: Option<&str>,
        limit: u32,
    ) -> Result<Page> {
        #[derive(Deserialize)]
        struct Answer<'a> {
            #[serde(borrow)]
            chunk: Vec<Event<'a>>,
            end: Option<String>,
        }
        let mut target =
            format!("/_matrix/client/v3/rooms/{}/messages?dir={direction}&limit={limit}", encode(room));
        if let Some(from) = from {
            target.push_str("&from=");
            target.push_str(&encode(from));
        }
        let answer: Answer<'_> = serde_json::from_slice(self.get(&target).await?)?;
        let messages = answer.chunk.iter().filter_map(|event| {
            let number = event.number()?;
            Some(Message { event_id: (&*event.id).into(), sender: (&*event.sender).into(), number })
        });
        Ok(Page { messages: messages.collect(), end: answer.end })
    }
}

/// Registers `localpart`: with the shared secret when there is one and the server knows the way, else with the dummy stage.
pub(crate) async fn register(
    connection: &mut Connection,
    secret: Option<&str>,
    localpart: &str,
) -> Result<User> {
    if let Some(secret) = secret
        && let Some(user) = register_with_secret(connection, secret, localpart).await?
    {
        return Ok(user);
    }
    let body = json!({
        "username": localpart,
        "password": PASSWORD,
        "auth": { "type": "m.login.dummy" },
    });
    let answer =
        succeed(connection, "POST", "/_matrix/client/v3/register", None, Some(body.to_string().as_bytes()))
            .await?;
    user_of(answer)
}

/// `None` when the server does not have the endpoint.
async fn register_with_secret(
    connection: &mut Connection,
    secret: &str,
    localpart: &str,
) -> Result<Option<User>> {
    #[derive(Deserialize)]
    struct Nonce {
        nonce: String,
    }
    const TARGET: &str = "/_synapse/admin/v1/register";
    let response = connection.request("GET", TARGET, None, None).await?;
    if matches!(response.status, 400 | 403 | 404 | 405) {
        return Ok(None);
    }
    let nonce = serde_json::from_slice::<Nonce>(response.success()?)?.nonce;
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes())?;
    mac.update([&nonce, localpart, PASSWORD, "notadmin"].join("\0").as_bytes());
    let mac = hexadecimal(&mac.finalize().into_bytes());
    let body = json!({
        "nonce": nonce,
        "username": localpart,
        "password": PASSWORD,
        "admin": false,
        "mac": mac,
    });
    user_of(succeed(connection, "POST", TARGET, None, Some(body.to_string().as_bytes())).await?).map(Some)
}

fn user_of(answer: &[u8]) -> Result<User> {
    let registered: Registered = serde_json::from_slice(answer)?;
    if registered.access_token.is_empty() {
        bail!("registration gave no access token");
    }
    Ok(User { id: registered.user_id.into(), token: registered.access_token.into() })
}

async fn succeed<'a>(
    connection: &'a mut Connection,
    method: &str,
    target: &str,
    token: Option<&str>,
    body: Option<&[u8]>,
) -> Result<&'a [u8]> {
    let response = connection.request(method, target, token, body).await?;
    let status = response.status;
    if (200..300).contains(&status) {
        return Ok(response.body);
    }
    response.success().with_context(|| format!("{method} {target}"))?;
    bail!("{method} {target}: status {status}")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| digits(*byte)).collect()
}

/// The two hexadecimal digits of a byte.
fn digits(byte: u8) -> [char; 2] {
    [byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
}

/// Percent-encodes everything but the unreserved characters (RFC 3986, 2.3): right for a path segment and for a query value.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.extend(digits(byte).map(|digit| digit.to_ascii_uppercase()));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_two_lower_case_digits_each() {
        assert_eq!(hexadecimal(&[0, 0x9f, 0xff]), "009fff");
    }

    #[test]
    fn identifiers_survive_a_path_segment() {
        assert_eq!(encode("!a/b:example.org?x#y z~"), "%21a%2Fb%3Aexample.org%3Fx%23y%20z~");
    }
}
