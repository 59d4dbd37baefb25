//! Events that a filter picks by what relates to them (MSC3440). One question for all events of a page, and none about events
//! that nobody can have related to yet.

use std::{collections::HashSet, sync::Arc};

use super::bundle::{Scope, list};
use crate::{
    account::IgnoredUsers,
    room::{Error, Event, EventFilter, Room, Rooms, Sight},
};

impl Rooms {
    /// Those of `events` that a filter lets through for what relates to them. What the reader may not see, and what those
    /// said whom they ignore, relates to nothing (RL-05).
    pub async fn related_as_asked(
        &self,
        room: &Room,
        sight: &Sight,
        filter: &EventFilter,
        ignored: &IgnoredUsers,
        mut events: Vec<Arc<Event>>,
    ) -> Result<Vec<Arc<Event>>, Error> {
        if !filter.asks_for_children() {
            return Ok(events);
        }
        let snapshot = room.snapshot();
        events.retain(|event| snapshot.may_have_children(event, &self.core.server_name));
        if events.is_empty() {
            return Ok(events);
        }
        let parents: Vec<&str> = events.iter().map(|event| event.id().as_str()).collect();
        let as_list = |asked: Option<&[String]>| asked.map(list).transpose();
        let (rel_types, senders) = filter.children();
        let (rel_types, senders) = (as_list(rel_types)?, as_list(senders)?);
        let shown = Scope::Sight(sight).shown(ignored)?;
        let related: HashSet<String> =
            self.core.store.related_by(room.number, list(&parents)?, &shown, rel_types, senders).await?;
        events.retain(|event| related.contains(event.id().as_str()));
        Ok(events)
    }
}
