//! What several received events need of the database, read at once: which of them are here, what they name, which of them
//! are to be redacted. Fifty events of one transaction ask two questions instead of hundreds.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hearth_federation::Pdu;
use ruma::{EventId, OwnedEventId};
use serde_json::json;

use super::{Error, Event, work::Work};

/// What was read. It is as of before the batch: what the batch itself has made comes first, wherever one looks.
#[derive(Default)]
pub(super) struct Fetched {
    events: HashMap<OwnedEventId, Arc<Event>>,
    /// Those that are in other rooms.
    elsewhere: HashSet<OwnedEventId>,
    /// All that were asked for.
    asked: HashSet<OwnedEventId>,
    /// Those of them for which a redaction waits.
    awaited: HashSet<OwnedEventId>,
}

/// What is known of an event.
pub(super) enum Found {
    Here(Arc<Event>),
    Elsewhere,
    Nowhere,
    /// Nobody has looked.
    Unasked,
}

impl Fetched {
    pub(super) fn find(&self, event_id: &EventId) -> Found {
        match self.events.get(event_id) {
            Some(event) => Found::Here(Arc::clone(event)),
            None if self.elsewhere.contains(event_id) => Found::Elsewhere,
            None if self.asked.contains(event_id) => Found::Nowhere,
            None => Found::Unasked,
        }
    }

    /// Whether nothing is stored that waits for an event.
    pub(super) fn is_unawaited(&self, event_id: &EventId) -> bool {
        self.asked.contains(event_id) && !self.awaited.contains(event_id)
    }
}

impl Work<'_> {
    /// Reads what these events will need.
    pub(super) async fn prefetch(&mut self, pdus: &[Pdu]) -> Result<(), Error> {
        let (number, version) = (self.snapshot.number, self.snapshot.version.clone());
        let mut unknown: HashSet<&OwnedEventId> = HashSet::new();
        for pdu in pdus {
            for id in pdu.auth_events.iter().chain(&pdu.prev_events).chain([&pdu.event_id]) {
                if !self.fetched.asked.contains(id) {
                    match self.core.events.find(number, id) {
                        Some(event) => drop(self.fetched.events.insert(id.clone(), event)),
                        None => drop(unknown.insert(id)),
                    }
                }
            }
        }
        for row in self.core.store.events_by_ids(json!(unknown).to_string()).await? {
            if row.room == number {
                let event = Arc::new(Event::from_stored(row, &version)?);
                self.fetched.events.insert(event.pdu.event_id.clone(), event);
            } else if let Ok(id) = OwnedEventId::try_from(row.event_id) {
                self.fetched.elsewhere.insert(id);
            }
        }
        let new: Vec<&OwnedEventId> = pdus.iter().map(|pdu| &pdu.event_id).collect();
        if self.snapshot.early_redactions {
            let awaited = self.core.store.awaited_by_redactions(number, json!(new).to_string()).await?;
            self.fetched.awaited.extend(awaited.into_iter().filter_map(|id| OwnedEventId::try_from(id).ok()));
        }
        self.fetched.asked.extend(unknown.into_iter().chain(new).cloned());
        Ok(())
    }
}
