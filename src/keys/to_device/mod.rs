//! Messages from device to device. Each is kept until the device that it is for has said that it has it, and is handed out
//! by whatever reader the device uses, in the order in which they came.
//!
//! A device has a *mailbox*, and so has each other server that messages wait for; the entry that a message puts into a queue
//! wakes its reader and says that there is something, no more. This module owns the mailboxes: what is put in, from here
//! ([`ToDevice::send`]) and from other servers ([`hear`]), what is read and taken out ([`mailbox`]), and how full one may
//! become ([`bounds`]). What is in a message is nobody's business here.
//!
//! Specification: [Send-to-Device messaging](https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging).

mod bounds;
mod hear;
mod mailbox;

#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hearth_federation::json::strictly_canonical;
use ruma::{OwnedServerName, OwnedUserId, UserId};
use serde::Serialize;
use serde_json::value::RawValue;

use self::{bounds::Bounds, mailbox::Acknowledged};
pub use self::{
    hear::DirectToDevice,
    mailbox::{PAGE, Page},
};
use crate::{
    account::Accounts,
    environment::Environment,
    outbound::Destinations,
    peers::Peers,
    queue::{Kind, Queues, pointer},
    room::Txn,
    store::{
        self, Batch, Store, TxnRow,
        to_device::{AddressRow, insert_message, insert_message_for_server},
    },
};

/// Bytes of one message's content: more than any that clients send.
pub const MOST_BYTES: usize = 65_536;
/// Messages of one request, as they are named and as they are with every device that `*` stands for …
pub const MOST_NAMED: usize = 2_000;
const MOST_DELIVERED: usize = 10_000;
/// … and bytes of the latter.
const MOST_BYTES_DELIVERED: usize = 32 * 1024 * 1024;
/// Servers that one request may reach.
const MOST_SERVERS: usize = 200;
/// Bytes of a name: a type, a device's id.
const LONGEST_NAME: usize = 255;
/// Bytes of messages that go to another server as one.
const BYTES_OF_EDU: usize = 48 * 1024;
/// It stands for all devices of a user.
const ALL: &str = "*";

/// Messages by user and device, or `*`: their contents.
pub type Messages = BTreeMap<OwnedUserId, BTreeMap<String, Box<RawValue>>>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a name has at most {LONGEST_NAME} bytes")]
    Name,
    #[error("the content of a message has to be an object")]
    NotAnObject,
    /// Nothing else can be signed.
    #[error("what goes to other servers has to be canonical JSON: {0}")]
    NotCanonical(String),
    #[error("the content of a message has {0} bytes, more than the {MOST_BYTES} allowed")]
    TooLarge(usize),
    #[error("these are more messages than one request may send")]
    TooMany,
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// All mailboxes.
pub struct ToDevice {
    server_name: OwnedServerName,
    store: Store,
    accounts: Arc<Accounts>,
    peers: Arc<Peers>,
    destinations: Arc<Destinations>,
    queues: Queues,
    environment: Environment,
    acknowledged: Acknowledged,
    bounds: Bounds,
}

/// A message as its device gets it.
#[derive(Serialize)]
struct Event<'a> {
    content: &'a RawValue,
    sender: &'a UserId,
    #[serde(rename = "type")]
    kind: &'a str,
}

/// A write of messages on its way, and the mailboxes that they are for.
#[derive(Default)]
struct Mail {
    batch: Batch,
    mailboxes: BTreeSet<i64>,
    delivered: usize,
    bytes: usize,
}

impl ToDevice {
    pub fn new(
        server_name: OwnedServerName,
        store: Store,
        accounts: Arc<Accounts>,
        peers: Arc<Peers>,
        destinations: Arc<Destinations>,
        queues: Queues,
        environment: Environment,
    ) -> Arc<Self> {
        let (acknowledged, bounds) = (Acknowledged::new(), Bounds::new());
        Arc::new(Self {
            server_name,
            store,
            accounts,
            peers,
            destinations,
            queues,
            environment,
            acknowledged,
            bounds,
        })
    }

    /// Sends messages of one type, all of them or none, once however often the transaction comes (TD-05). Users and devices
    /// that don't exist get nothing, and neither does who ignores the sender; nobody learns of either.
    pub async fn send(
        self: &Arc<Self>,
        sender: &UserId,
        kind: &str,
        messages: Messages,
        txn: Txn,
    ) -> Result<(), Error> {
        check(kind, &messages)?;
        if self.was_sent(&txn).await? {
            return Ok(());
        }
        let now = self.environment.clock.now_ms();
        let (local, remote): (Messages, Messages) =
            messages.into_iter().partition(|(user_id, _)| user_id.server_name() == self.server_name);
        let mut mail = Mail::default();
        self.add_local(&mut mail, sender, kind, &local, now).await?;
        self.add_remote(&mut mail, sender, kind, remote, now).await?;
        let Txn { device, path, txn_id } = txn;
        mail.batch.txn(TxnRow { device, path, txn_id, event: String::new(), created_ts: now });
        match self.store.commit(mail.batch).await {
            // The same request has come a second time meanwhile, and that one was it.
            Err(store::Error::Conflict) => return Ok(()),
            other => other?,
        };
        self.keep_bounded_soon(mail.mailboxes);
        Ok(())
    }

    async fn was_sent(&self, txn: &Txn) -> Result<bool, store::Error> {
        let key = serde_json::json!([[txn.device, txn.path, txn.txn_id]]).to_string();
        Ok(!self.store.txns(key).await?.is_empty())
    }

    /// Adds messages to devices here.
    async fn add_local(
        &self,
        mail: &mut Mail,
        sender: &UserId,
        kind: &str,
        messages: &Messages,
        now: i64,
    ) -> Result<(), Error> {
        if messages.is_empty() {
            return Ok(());
        }
        let users = serde_json::json!(messages.keys().collect::<Vec<_>>()).to_string();
        let addresses = self.store.addresses(users).await?;
        for of_user in addresses.chunk_by(|one, next| one.recipient == next.recipient) {
            let Some(first) = of_user.first() else { continue };
            let ignored = self.accounts.ignored_users(first.recipient).await?;
            if ignored.contains(sender) {
                continue;
            }
            let Some(contents) = messages.iter().find(|(user_id, _)| **user_id == *first.user_id) else {
                continue;
            };
            mail.add(sender, kind, contents.1, of_user, now)?;
        }
        Ok(())
    }

    /// Adds messages for other servers, for each in as many parts as it takes.
    async fn add_remote(
        &self,
        mail: &mut Mail,
        sender: &UserId,
        kind: &str,
        messages: Messages,
        now: i64,
    ) -> Result<(), Error> {
        let mut servers: BTreeMap<OwnedServerName, Vec<(OwnedUserId, String, Box<RawValue>)>> =
            BTreeMap::new();
        for (user_id, devices) in messages {
            if !self.peers.allows(user_id.server_name()) {
                continue;
            }
            let of_server = servers.entry(user_id.server_name().to_owned()).or_default();
            for (device_id, content) in devices {
                let content = canonical(&content)?;
                of_server.push((user_id.clone(), device_id, content));
            }
        }
        if servers.len() > MOST_SERVERS {
            return Err(Error::TooMany);
        }
        for (server, messages) in servers {
            let Some(recipient) = self.destinations.number_unless_strange(&server).await? else {
                tracing::info!(%server, "too many servers that nobody here knows: messages to one more are dropped");
                continue;
            };
            for part in parts(&messages) {
                let step = mail.batch.step();
                let message = self.edu(sender, kind, part);
                mail.batch.push(insert_message_for_server(recipient, step, message, now));
                mail.batch.deliver(pointer([recipient], step, Kind::ToDevice, 0));
            }
            mail.mailboxes.insert(recipient);
        }
        Ok(())
    }

    /// The content of an `m.direct_to_device` (TD-04).
    fn edu(&self, sender: &UserId, kind: &str, messages: &[(OwnedUserId, String, Box<RawValue>)]) -> String {
        let mut by_user: BTreeMap<&UserId, BTreeMap<&str, &RawValue>> = BTreeMap::new();
        for (user_id, device_id, content) in messages {
            by_user.entry(user_id).or_default().insert(device_id, content);
        }
        let message_id = self.environment.entropy.token(24);
        serde_json::json!({ "sender": sender, "type": kind, "message_id": message_id, "messages": by_user })
            .to_string()
    }
}

impl Mail {
    /// Adds what devices of one user are to get of these contents.
    fn add(
        &mut self,
        sender: &UserId,
        kind: &str,
        contents: &BTreeMap<String, Box<RawValue>>,
        devices: &[AddressRow],
        now: i64,
    ) -> Result<(), Error> {
        let event = |content: &RawValue| -> Result<Arc<str>, Error> {
            let event = serde_json::to_string(&Event { content, sender, kind });
            Ok(event.map_err(|cause| store::Error::Encoding(cause.to_string()))?.into())
        };
        // TD-03. A message that names a device is more to it than one to all.
        let to_all = contents.get(ALL).map(|content| event(content)).transpose()?;
        for device in devices {
            let message = match contents.get(&device.device_id) {
                Some(content) => event(content)?,
                None => match &to_all {
                    Some(message) => Arc::clone(message),
                    None => continue,
                },
            };
            self.delivered += 1;
            self.bytes += message.len();
            if self.delivered > MOST_DELIVERED || self.bytes > MOST_BYTES_DELIVERED {
                return Err(Error::TooMany);
            }
            let step = self.batch.step();
            self.batch.push(insert_message(device.device, step, message, now));
            self.batch.deliver(pointer([device.recipient], step, Kind::ToDevice, device.device));
            self.mailboxes.insert(device.device);
        }
        Ok(())
    }
}

fn check(kind: &str, messages: &Messages) -> Result<(), Error> {
    if kind.len() > LONGEST_NAME {
        return Err(Error::Name);
    }
    let mut named = 0;
    for (device_id, content) in messages.values().flatten() {
        named += 1;
        if named > MOST_NAMED {
            return Err(Error::TooMany);
        }
        if device_id.len() > LONGEST_NAME {
            return Err(Error::Name);
        }
        if !content.get().starts_with('{') {
            return Err(Error::NotAnObject);
        }
        if content.get().len() > MOST_BYTES {
            return Err(Error::TooLarge(content.get().len()));
        }
    }
    Ok(())
}

fn canonical(content: &RawValue) -> Result<Box<RawValue>, Error> {
    let text = strictly_canonical(content.get()).map_err(|cause| Error::NotCanonical(cause.to_string()))?;
    RawValue::from_string(text).map_err(|cause| Error::NotCanonical(cause.to_string()))
}

/// Messages in as many parts as it takes for none to be too large, each with one message at least.
fn parts(
    mut messages: &[(OwnedUserId, String, Box<RawValue>)],
) -> impl Iterator<Item = &[(OwnedUserId, String, Box<RawValue>)]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = messages.iter().take_while(|(user_id, device_id, content)| {
            bytes += user_id.as_str().len() + device_id.len() + content.get().len();
            bytes <= BYTES_OF_EDU
        });
        let (part, rest) = messages.split_at(fits.count().max(1).min(messages.len()));
        messages = rest;
        (!part.is_empty()).then_some(part)
    })
}
