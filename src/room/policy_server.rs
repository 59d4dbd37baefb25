//! Rooms that ask a policy server whether they want an event (`m.room.policy`).
//!
//! It says so by a signature, with a key that the room's state names. Who sends an event asks first, and doesn't send what is
//! refused; who gets one without that signature asks once more, before the room's writer hears of it, which then soft-fails
//! what still has none. It changes nothing of what the rules of the room allow (PS-07).
//!
//! Specification: [Policy Servers](https://spec.matrix.org/v1.19/server-server-api/#policy-servers).

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::{StreamExt as _, stream};
use hearth_federation::{Pdu, Task};
use ruma::{
    OwnedServerName, RoomVersionId, ServerName,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
    serde::{Base64, base64::Standard},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Appended, Error, NewEvent, Outcome, Room, Rooms, Snapshot, Txn, work::Work, writer};

/// PS-05
const KEY_ID: &str = "ed25519:policy_server";

/// Events for which a policy server is asked at the same time.
const AT_ONCE: usize = 8;

/// Who asks policy servers.
pub trait AskPolicy: Send + Sync {
    /// The server's signature of an event, by its key's id.
    fn ask<'a>(&'a self, via: &'a ServerName, event: &'a RawValue) -> Task<'a, Result<String, Refusal>>;
}

/// Why a policy server hasn't signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the room's policy server doesn't recommend the event: {error}")]
pub struct Refusal {
    /// The server's own words (PS-03), or ours if it has said nothing.
    pub errcode: String,
    pub error: String,
    /// It wasn't asked, or didn't answer: it may be better later.
    pub is_silence: bool,
}

impl Refusal {
    fn of_ours(error: &str) -> Self {
        Self { errcode: "M_FORBIDDEN".to_owned(), error: error.to_owned(), is_silence: false }
    }
}

/// A room's policy server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyServer {
    pub via: OwnedServerName,
    /// `None`: none that could be used, so it can't recommend anything.
    key: Option<[u8; 32]>,
}

impl PolicyServer {
    fn recommends(&self, version: &RoomVersionId, pdu: &Pdu) -> bool {
        is_exempt(&pdu.kind, pdu.state_key.as_deref())
            || self.key.is_some_and(|key| pdu.is_signed_with(version, &self.via, KEY_ID, &key))
    }
}

impl Snapshot {
    /// PS-01
    pub fn policy_server(&self) -> Option<PolicyServer> {
        #[derive(Deserialize)]
        struct Content {
            via: OwnedServerName,
            public_keys: BTreeMap<String, serde_json::Value>,
        }
        let content: Content = self.state.content(&StateEventType::from("m.room.policy"))?;
        let key = content.public_keys.get("ed25519")?.as_str()?;
        let mut members = self.state.of_type(&StateEventType::RoomMember);
        let is_there = members.any(|(user_id, member)| {
            user_id.split_once(':').is_some_and(|(_, server)| server == content.via)
                && member.pdu.membership() == Some(MembershipState::Join)
        });
        is_there.then(|| PolicyServer { via: content.via, key: key_of(key) })
    }

    /// Whether an event may be shown, for all that the room's policy server says.
    pub(super) fn recommends(&self, pdu: &Pdu) -> bool {
        self.policy_server().is_none_or(|policy| policy.recommends(&self.version, pdu))
    }
}

/// A key in base64 of either alphabet, with padding or without.
fn key_of(key: &str) -> Option<[u8; 32]> {
    let key = key.replace('-', "+").replace('_', "/");
    Base64::<Standard>::parse(key).ok()?.as_bytes().try_into().ok()
}

/// PS-02
fn is_exempt(kind: &TimelineEventType, state_key: Option<&str>) -> bool {
    state_key == Some("") && kind.to_string() == "m.room.policy"
}

impl Rooms {
    /// To be called once, before events come.
    pub fn ask_policy_servers_by(&self, ask: Arc<dyn AskPolicy>) {
        let _ = self.core.ask_policy.set(ask);
    }

    /// An event with the signature of the room's policy server, if the room has one (PS-04, PS-06).
    pub async fn signed_by_policy(&self, room: &Room, pdu: Pdu) -> Result<Pdu, Error> {
        let Some(policy) = room.snapshot().policy_server() else { return Ok(pdu) };
        if policy.recommends(&room.version, &pdu) {
            return Ok(pdu);
        }
        let nobody = || Refusal::of_ours("policy servers can't be asked");
        let ask = self.core.ask_policy.get().ok_or_else(nobody)?;
        let signature = ask.ask(&policy.via, &pdu.json).await?;
        let signed = pdu.with_signature(&room.version, &policy.via, KEY_ID, &signature)?;
        if policy.recommends(&room.version, &signed) {
            return Ok(signed);
        }
        Err(Refusal::of_ours("its signature is not by the key that the room names").into())
    }

    /// Received events, each with the signature of the room's policy server if it can be had.
    pub async fn asked_of_policy(&self, room: &Room, pdus: Vec<Pdu>) -> Vec<Pdu> {
        if room.snapshot().policy_server().is_none() {
            return pdus;
        }
        let silent = AtomicBool::new(false);
        let silent = &silent;
        let signed = pdus.into_iter().map(|pdu| async move {
            if silent.load(Ordering::Relaxed) {
                return pdu;
            }
            match self.signed_by_policy(room, pdu.clone()).await {
                Ok(signed) => signed,
                Err(cause) => {
                    let is_silence = matches!(&cause, Error::Policy(refusal) if refusal.is_silence);
                    // The others wouldn't be told anything either.
                    silent.fetch_or(is_silence, Ordering::Relaxed);
                    tracing::info!(room_id = %room.room_id, event_id = %pdu.event_id, %cause, "not recommended");
                    pdu
                }
            }
        });
        let asked: Vec<Task<'_, Pdu>> = signed.map(|one| -> Task<'_, Pdu> { Box::pin(one) }).collect();
        stream::iter(asked).buffered(AT_ONCE).collect().await
    }

    /// Appends events that are made here to a room whose policy server has to be asked first, one after the other: each is
    /// made, signed, and then brought to the room's writer as it is.
    pub(super) async fn append_by_policy(
        &self,
        room: &Arc<Room>,
        events: Vec<NewEvent>,
        txn: Option<Txn>,
    ) -> Result<Vec<Appended>, Error> {
        let mut appended = Vec::with_capacity(events.len());
        let last = events.len().saturating_sub(1);
        for (index, event) in events.into_iter().enumerate() {
            let txn = txn.clone().filter(|_| index == last);
            if let Some(txn) = &txn
                && let Some(event_id) =
                    writer::sent_before(&self.core, std::iter::once(txn)).await?.remove(txn)
            {
                appended.push(Appended { event_id });
                continue;
            }
            let mut work = Work::start(&self.core, Snapshot::clone(&room.snapshot())).await?;
            let made = work.append_all(&[event], txn.as_ref()).await?;
            let Some(Appended { mut event_id }) = made.into_iter().next() else { continue };
            let pdu =
                work.events.iter().find(|event| *event.id() == *event_id).map(|event| event.pdu.clone());
            drop(work);
            // Without one, the room is so already.
            if let Some(pdu) = pdu {
                let pdu = self.signed_by_policy(room, pdu).await?;
                let outcome;
                (event_id, outcome) = writer::append_made(&self.core, room, pdu, txn).await?;
                match outcome {
                    Outcome::Accepted | Outcome::Known => {}
                    Outcome::Rejected(why) | Outcome::Refused(why) => return Err(Error::Forbidden(why)),
                    Outcome::SoftFailed | Outcome::Missing(_) => {
                        return Err(Error::forbidden("the room has changed and doesn't allow it any more"));
                    }
                }
            }
            appended.push(Appended { event_id });
        }
        Ok(appended)
    }
}
