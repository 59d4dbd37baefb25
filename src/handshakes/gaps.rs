//! What a state that came with a join cites, and doesn't have.
//!
//! An event is judged by those that it cites. One whose citations aren't known can't be judged, and would be missing from
//! the room here and nowhere else: such a room would go its own way. So what an answer lacks is asked for, and a server that
//! doesn't give it is of no help with the room.

use std::collections::{BTreeSet, HashSet};

use futures_util::{StreamExt as _, stream};
use hearth_federation::{Pdu, References, Task};
use ruma::{OwnedEventId, RoomVersionId, ServerName};
use serde_json::value::RawValue;

use super::{Error, Handshakes};
use crate::peers::AskError;

/// Events that are asked for one by one, and how many at the same time.
const MOST_LACKING: usize = 200;
const AT_ONCE: usize = 8;

impl Handshakes {
    /// Adds to events of a room what they and `citing` cite, and so on, but for what the server has `given` already. What it
    /// gives and isn't valid is left out, here as everywhere.
    pub(super) async fn close_gaps(
        &self,
        server: &ServerName,
        version: &RoomVersionId,
        citing: &Pdu,
        events: &mut Vec<Pdu>,
        given: HashSet<OwnedEventId>,
    ) -> Result<(), Error> {
        let mut known = given;
        let mut left = MOST_LACKING;
        let mut from = 0;
        loop {
            let cited = events[from..].iter().chain((from == 0).then_some(citing));
            let cited = cited.flat_map(|event| &event.auth_events);
            let lacking: BTreeSet<OwnedEventId> = cited.filter(|id| !known.contains(*id)).cloned().collect();
            let lacking = match self.rooms.by_id(&citing.room_id).await {
                Ok(room) => self.rooms.unknown(&room, &lacking.into_iter().collect::<Vec<_>>()).await?,
                Err(_) => lacking.into_iter().collect(),
            };
            if lacking.is_empty() {
                return Ok(());
            }
            left = left.checked_sub(lacking.len()).ok_or_else(|| {
                Error::Answer(format!("its state cites more than {MOST_LACKING} events that it lacks"))
            })?;
            tracing::info!(%server, room_id = %citing.room_id, count = lacking.len(), "what a state cites is asked for");
            let asked: Vec<Task<'_, Result<Box<RawValue>, AskError>>> =
                lacking.iter().map(|id| Box::pin(self.peers.event(server, id)) as Task<'_, _>).collect();
            let answers: Vec<_> = stream::iter(asked).buffered(AT_ONCE).collect().await;
            let mut texts = Vec::with_capacity(answers.len());
            for (id, answer) in lacking.iter().zip(answers) {
                texts.push(answer.map_err(|cause| {
                    Error::Answer(format!("the room's state cites {id}, which can't be had: {cause}"))
                })?);
            }
            let texts: Vec<&str> = texts.iter().map(|text| text.get()).collect();
            from = events.len();
            for event in self.peers.verified(version, &texts, References::Limited).await {
                match event {
                    Ok(event) => events.push(event),
                    Err(cause) => tracing::info!(%server, %cause, "an event of a room's state is dropped"),
                }
            }
            // What didn't come for what was asked isn't asked for again.
            known.extend(lacking);
            known.extend(events[from..].iter().map(|event| event.event_id.clone()));
        }
    }
}
