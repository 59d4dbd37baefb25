//! The events of a transaction: grouped by their rooms, verified, and brought to their rooms' writers.
//!
//! Specification: [PDUs](https://spec.matrix.org/v1.19/server-server-api/#pdus), [Checks performed on receipt of a
//! PDU](https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu).

use std::{collections::HashMap, sync::Arc, time::Duration};

use hearth_federation::{Pdu, Received, References, VerifyError, json};
use parking_lot::Mutex;
use ruma::{OwnedRoomId, RoomId, ServerName, UserId, events::room::member::MembershipState};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::task::JoinSet;

use super::{Inbound, Verdicts};
use crate::{
    room::{self, Hearsay, Outcome, Room},
    store,
};

/// After this a transaction is answered whatever is still at work, which goes on: a server's other rooms must not wait
/// for one.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// What is known so far, for whoever answers when not all is done.
pub(super) type Shared = Arc<Mutex<Verdicts>>;

impl Inbound {
    /// Judges events of any rooms. Only what would fail for any event is an error.
    pub(super) async fn events(
        self: &Arc<Self>,
        origin: &ServerName,
        pdus: Vec<Box<RawValue>>,
    ) -> Result<Verdicts, store::Error> {
        let mut rooms: Vec<(OwnedRoomId, Vec<Box<RawValue>>)> = Vec::new();
        let mut places: HashMap<OwnedRoomId, usize> = HashMap::new();
        for pdu in pdus {
            // Nothing else is known of it, not even its id, which its room's version decides.
            let Some(room_id) = room_of(&pdu) else {
                tracing::debug!(%origin, "an event without a room is dropped");
                continue;
            };
            let place = *places.entry(room_id.clone()).or_insert(rooms.len());
            if place == rooms.len() {
                rooms.push((room_id, Vec::new()));
            }
            rooms[place].1.push(pdu);
        }
        let verdicts = Shared::default();
        let mut tasks = JoinSet::new();
        for (room_id, pdus) in rooms {
            let (inbound, origin, verdicts) = (Arc::clone(self), origin.to_owned(), Arc::clone(&verdicts));
            tasks.spawn(async move {
                let judged = inbound.events_of(&origin, &room_id, &pdus, &verdicts).await;
                match judged {
                    Err(room::Error::Store(cause)) => Err(cause),
                    Err(cause) => {
                        tracing::warn!(%origin, %room_id, %cause, "a room's events are dropped");
                        Ok(())
                    }
                    Ok(()) => Ok(()),
                }
            });
        }
        let all = async {
            let mut failed = None;
            while let Some(done) = tasks.join_next().await {
                match done {
                    Ok(Ok(())) => {}
                    Ok(Err(cause)) => failed = Some(cause),
                    Err(cause) => tracing::error!(%cause, "the task of a room's events failed"),
                }
            }
            failed
        };
        let failed = tokio::time::timeout(self.deadline, all).await;
        // What isn't done goes on.
        tasks.detach_all();
        if let Ok(Some(cause)) = failed {
            return Err(cause);
        }
        Ok(verdicts.lock().clone())
    }

    /// Judges events that say they are of one room.
    async fn events_of(
        self: &Arc<Self>,
        origin: &ServerName,
        room_id: &RoomId,
        pdus: &[Box<RawValue>],
        verdicts: &Shared,
    ) -> Result<(), room::Error> {
        let Some(room) = self.room(room_id).await? else {
            tracing::debug!(%origin, %room_id, "events of a room that isn't here are dropped");
            return Ok(());
        };
        let received: Vec<Received<'_>> = pdus
            .iter()
            .filter_map(|pdu| match Received::parse(pdu.get(), &room.version, References::Limited) {
                Ok(event) => Some(event),
                Err(cause) => {
                    tracing::debug!(%origin, %room_id, %cause, "an event is dropped");
                    None
                }
            })
            .collect();
        let ids: Vec<_> = received.iter().map(|event| event.event_id().clone()).collect();
        let say = |why: &str| {
            let mut verdicts = verdicts.lock();
            verdicts.extend(ids.iter().map(|id| (id.clone(), Some(why.to_owned()))));
        };
        say("it is still at work");
        let snapshot = room.snapshot();
        if !snapshot.lets_in(origin) {
            say("the room's access control list doesn't let your server in");
            return Ok(());
        }
        let verified = self.peers.verify(received.into_iter().map(Ok).collect()).await;
        let mut events: Vec<Pdu> = Vec::with_capacity(verified.len());
        for (event_id, event) in ids.iter().zip(verified) {
            match event {
                Ok(event) => events.push(event),
                Err(cause) => drop(verdicts.lock().insert(event_id.clone(), Some(why_dropped(&cause)))),
            }
        }
        if snapshot.local.is_empty() {
            for event in events {
                let heard = self.hear(origin, &room, &event).await?;
                let verdict = (!heard).then(|| "nobody of this server is in the room".to_owned());
                verdicts.lock().insert(event.event_id, verdict);
            }
            return Ok(());
        }
        let ids: Vec<_> = events.iter().map(|event| event.event_id.clone()).collect();
        let judged = self.judged(origin, &room, events).await;
        let outcomes = judged.inspect_err(|_| say("it failed here"))?;
        let mut verdicts = verdicts.lock();
        for (event_id, outcome) in ids.into_iter().zip(outcomes) {
            verdicts.insert(event_id, dropped(origin, room_id, outcome));
        }
        Ok(())
    }

    /// A room, if this server is in it or knows of it; as it is when nobody is about to come in any more.
    async fn room(&self, room_id: &RoomId) -> Result<Option<Arc<Room>>, room::Error> {
        let known = async || match self.rooms.by_id(room_id).await {
            Ok(room) => Ok(Some(room)),
            Err(room::Error::NotFound(_)) => Ok(None),
            Err(cause) => Err(cause),
        };
        let room = known().await?;
        if room.as_ref().is_some_and(|room| room.snapshot().is_resident())
            || !self.rooms.entered(room_id).await
        {
            return Ok(room);
        }
        known().await
    }

    /// Takes the end of somebody's invite or knock to a room that this server isn't in. It can't be judged, but it cites
    /// that one, of which only servers know that are in the room. Who of these has the power to end an invite isn't known
    /// here, but for whoever made it.
    async fn hear(&self, origin: &ServerName, room: &Arc<Room>, event: &Pdu) -> Result<bool, room::Error> {
        let snapshot = room.snapshot();
        let Some(user_id) = event.state_key.as_deref().and_then(|key| <&UserId>::try_from(key).ok()) else {
            return Ok(false);
        };
        let ends = matches!(event.membership(), Some(MembershipState::Leave | MembershipState::Ban));
        let Some(before) = snapshot.member(user_id).filter(|_| ends) else { return Ok(false) };
        let may_end = match before.membership() {
            MembershipState::Invite => event.sender == before.pdu.sender,
            MembershipState::Knock => true,
            _ => false,
        };
        let believable = may_end
            && event.room_id == room.room_id
            && event.sender.server_name() == origin
            && event.auth_events.contains(&before.pdu.event_id);
        if !believable {
            return Ok(false);
        }
        let (room_id, version, event) = (room.room_id.clone(), room.version.clone(), event.clone());
        match self.rooms.hear(Hearsay { room_id, version, event, about: None }).await {
            Ok(_) => Ok(true),
            // Somebody of this server has come into the room meanwhile.
            Err(room::Error::BadState(_)) => Ok(false),
            Err(cause) => Err(cause),
        }
    }
}

/// Why an event was dropped, if it was; what was judged, with whatever result, was not (PD-04).
fn dropped(origin: &ServerName, room_id: &RoomId, outcome: Outcome) -> Option<String> {
    match outcome {
        Outcome::Accepted | Outcome::Known | Outcome::SoftFailed => None,
        Outcome::Rejected(why) => {
            tracing::info!(%origin, %room_id, %why, "an event is rejected");
            None
        }
        Outcome::Missing(ids) => {
            tracing::info!(%origin, %room_id, missing = ids.len(), "what an event names can't be had");
            Some(format!("{} events that it names aren't here and can't be had", ids.len()))
        }
        Outcome::Refused(why) => Some(why),
    }
}

/// For the other server's log.
fn why_dropped(cause: &VerifyError) -> String {
    cause.to_string()
}

/// The room that an event says it is in.
fn room_of(pdu: &RawValue) -> Option<OwnedRoomId> {
    #[derive(Deserialize)]
    struct Head {
        room_id: OwnedRoomId,
    }
    if let Ok(head) = serde_json::from_str::<Head>(pdu.get()) {
        return Some(head.room_id);
    }
    // One that names it twice, perhaps: the last name counts, as for the hash.
    let event = json::parse_object(pdu.get()).ok()?;
    event.get("room_id")?.as_str()?.try_into().ok()
}
