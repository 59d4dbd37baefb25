//! Messages that another server brings (`m.direct_to_device`): each is taken once (TD-04), for devices of users here.
//!
//! Specification: [Send-to-device messaging](https://spec.matrix.org/v1.19/server-server-api/#send-to-device-messaging).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ruma::{OwnedUserId, ServerName, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{LONGEST_NAME, MOST_BYTES, MOST_NAMED, Mail, Messages, ToDevice};
use crate::store::{self, to_device::insert_heard};

/// Attempts, if transactions of one server bring the same message at the same time.
const ATTEMPTS: usize = 4;

/// One write has no more, but for the last message of it: others wait for the end of a write.
const DELIVERED_AT_ONCE: usize = 1_000;
const BYTES_AT_ONCE: usize = 4 * 1024 * 1024;

/// A message of another server.
#[derive(Deserialize)]
pub struct DirectToDevice {
    sender: OwnedUserId,
    #[serde(rename = "type")]
    kind: String,
    message_id: String,
    messages: BTreeMap<String, BTreeMap<String, Box<RawValue>>>,
}

impl ToDevice {
    /// Takes messages of another server, in their order; what isn't as it should be is passed over.
    pub async fn hear(
        self: &Arc<Self>,
        origin: &ServerName,
        messages: &[DirectToDevice],
    ) -> Result<(), store::Error> {
        let valid = messages.iter().filter(|message| {
            let names = [&message.kind, &message.message_id];
            message.sender.server_name() == origin
                && names.iter().all(|name| !name.is_empty() && name.len() <= LONGEST_NAME)
        });
        let mut ids = BTreeSet::new();
        let valid: Vec<&DirectToDevice> =
            valid.filter(|message| ids.insert(message.message_id.as_str())).collect();
        if valid.len() < messages.len() {
            tracing::debug!(%origin, "messages to devices that aren't as they should be are passed over");
        }
        let mut rest = &*valid;
        while !rest.is_empty() {
            rest = self.hear_first(origin, rest).await?;
        }
        Ok(())
    }

    /// Takes the first of some messages, as many as make one write. Returns the others.
    async fn hear_first<'m>(
        self: &Arc<Self>,
        origin: &ServerName,
        messages: &'m [&'m DirectToDevice],
    ) -> Result<&'m [&'m DirectToDevice], store::Error> {
        let ids: Vec<&str> = messages.iter().map(|message| message.message_id.as_str()).collect();
        let ids = serde_json::json!(ids).to_string();
        for _ in 0..ATTEMPTS {
            let heard = self.store.heard_messages(origin.as_str(), ids.clone()).await?;
            let (mut mail, mut taken) = (Mail::default(), 0);
            let mut in_all = (0, 0);
            for message in messages {
                taken += 1;
                if !heard.contains(&message.message_id) {
                    self.add_heard(&mut mail, origin, message).await?;
                }
                // What bounds a message doesn't bound those that happen to come with it.
                in_all = (in_all.0 + mail.delivered, in_all.1 + mail.bytes);
                (mail.delivered, mail.bytes) = (0, 0);
                if in_all.0 >= DELIVERED_AT_ONCE || in_all.1 >= BYTES_AT_ONCE {
                    break;
                }
            }
            let rest = messages.get(taken..).unwrap_or_default();
            if mail.batch.is_empty() {
                return Ok(rest);
            }
            match self.store.commit(mail.batch).await {
                Ok(_) => {
                    self.keep_bounded_soon(mail.mailboxes);
                    return Ok(rest);
                }
                // Another transaction has brought one of them meanwhile.
                Err(store::Error::Conflict) => {}
                Err(cause) => return Err(cause),
            }
        }
        Err(store::Error::Conflict)
    }

    /// Adds a message that wasn't heard before, and that it was. Of one that nobody here gets nothing is kept.
    async fn add_heard(
        &self,
        mail: &mut Mail,
        origin: &ServerName,
        message: &DirectToDevice,
    ) -> Result<(), store::Error> {
        let now = self.environment.clock.now_ms();
        let local = self.local(message);
        match self.add_local(mail, &message.sender, &message.kind, &local, now).await {
            Ok(()) => {}
            Err(super::Error::Store(cause)) => return Err(cause),
            Err(cause) => tracing::warn!(%origin, %cause, "messages to devices are dropped"),
        }
        if mail.delivered > 0 {
            mail.batch.push(insert_heard(origin.as_str(), &message.message_id, now));
        }
        Ok(())
    }

    /// What of a message is for users here.
    fn local(&self, message: &DirectToDevice) -> Messages {
        let mut left = MOST_NAMED;
        let mut local = Messages::new();
        for (user_id, devices) in &message.messages {
            let Ok(user_id) = UserId::parse(user_id) else { continue };
            if user_id.server_name() != self.server_name {
                continue;
            }
            let devices = devices
                .iter()
                .filter(|(_, content)| content.get().starts_with('{') && content.get().len() <= MOST_BYTES);
            let devices: BTreeMap<String, Box<RawValue>> = devices
                .take(left)
                .map(|(device_id, content)| (device_id.clone(), content.to_owned()))
                .collect();
            left -= devices.len();
            local.insert(user_id, devices);
        }
        local
    }
}
