//! What is told of an event's children beside the event: `m.relations` in its `unsigned` ("Aggregations of child events").
//!
//! For all events of a page together, with a number of questions that doesn't grow with the page, and with none for events
//! that nobody can have related to yet. Nothing is told of children that the reader may not see, or whose sender they
//! ignore (RL-05).

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::REPLACE;
use crate::{
    account::IgnoredUsers,
    room::{Core, Error, Event, Reader, Room, Sight},
    store::relation::{Bundled, Shown, ThreadRow},
};

/// Bounds for numbers that go through JSON.
const EVER: i64 = 1 << 53;

/// What of a room's log a reader may be shown.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    Sight(&'a Sight),
    /// Events from the first to the last of these. It is all that is known.
    Span(i64, i64),
}

impl Scope<'_> {
    /// From the first to the last of these events.
    pub fn of(events: &[Arc<Event>]) -> Self {
        let seqs = events.iter().map(|event| event.seq);
        Self::Span(seqs.clone().min().unwrap_or(0), seqs.max().unwrap_or(-1))
    }

    /// Whether they may be shown all that lies between two events, with them.
    fn covers(&self, first: i64, last: i64) -> bool {
        match self {
            Self::Sight(sight) => sight.range_up_to(first).is_some_and(|(_, end)| last <= end),
            Self::Span(start, end) => *start <= first && last <= *end,
        }
    }

    /// As the store asks for it.
    pub(super) fn shown(&self, ignored: &IgnoredUsers) -> Result<Shown, Error> {
        let span;
        let ranges = match self {
            Self::Sight(sight) => sight.ranges(),
            Self::Span(first, last) => {
                span = [(*first, *last)];
                &span
            }
        };
        let bounded = |(first, last): &(i64, i64)| ((*first).max(-EVER), (*last).min(EVER));
        let ranges: Vec<(i64, i64)> = ranges.iter().map(bounded).collect();
        Ok(Shown {
            first: ranges.first().map_or(0, |(first, _)| *first),
            last: ranges.last().map_or(-1, |(_, last)| *last),
            parts: if ranges.len() > 1 { list(&ranges)? } else { String::new() },
            ignored: if ignored.is_empty() {
                String::new()
            } else {
                list(&ignored.iter().collect::<Vec<_>>())?
            },
        })
    }
}

pub(super) fn list<T: Serialize>(items: &[T]) -> Result<String, Error> {
    serde_json::to_string(items).map_err(|cause| Error::Internal(cause.to_string()))
}

/// What is told of the children of one event.
#[derive(Debug, Default)]
struct Aggregate {
    edit: Option<Arc<Event>>,
    /// In the order of the log.
    references: Vec<(i64, String)>,
    thread: Option<Thread>,
}

#[derive(Debug)]
struct Thread {
    latest: Arc<Event>,
    replies: i64,
    participated: bool,
}

/// What is told of the children of the events of a page, by the `seq` of these.
#[derive(Debug, Default)]
pub(in crate::room) struct Aggregates {
    of: HashMap<i64, Aggregate>,
    /// Of the events that are told of them.
    nested: HashMap<i64, Aggregate>,
}

/// An event as the reader gets it, with its `m.relations`.
type Render<'a> = dyn Fn(&Event, Option<Box<RawValue>>) -> Result<Box<RawValue>, Error> + 'a;

impl Aggregates {
    /// All events that are told of.
    pub(in crate::room) fn events(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.of.values().chain(self.nested.values()).flat_map(|aggregate| {
            aggregate.edit.iter().chain(aggregate.thread.as_ref().map(|thread| &thread.latest))
        })
    }

    /// The `m.relations` of an event.
    pub(in crate::room) fn relations(
        &self,
        event: &Event,
        render: &Render<'_>,
    ) -> Result<Option<Box<RawValue>>, Error> {
        Self::write(self.of.get(&event.seq), &|inner| {
            render(inner, Self::write(self.nested.get(&inner.seq), &|inner| render(inner, None))?)
        })
    }

    fn write(
        aggregate: Option<&Aggregate>,
        render: &dyn Fn(&Event) -> Result<Box<RawValue>, Error>,
    ) -> Result<Option<Box<RawValue>>, Error> {
        #[derive(Serialize)]
        struct Relations<'a> {
            #[serde(rename = "m.replace", skip_serializing_if = "Option::is_none")]
            replace: Option<Box<RawValue>>,
            #[serde(rename = "m.reference", skip_serializing_if = "Option::is_none")]
            reference: Option<References<'a>>,
            #[serde(rename = "m.thread", skip_serializing_if = "Option::is_none")]
            thread: Option<ThreadSummary>,
        }
        #[derive(Serialize)]
        struct References<'a> {
            chunk: Vec<Reference<'a>>,
        }
        #[derive(Serialize)]
        struct Reference<'a> {
            event_id: &'a str,
        }
        #[derive(Serialize)]
        struct ThreadSummary {
            latest_event: Box<RawValue>,
            count: i64,
            current_user_participated: bool,
        }
        let Some(aggregate) = aggregate else { return Ok(None) };
        let references = aggregate.references.iter();
        let chunk: Vec<Reference<'_>> = references.map(|(_, event_id)| Reference { event_id }).collect();
        let thread = |thread: &Thread| {
            Ok::<_, Error>(ThreadSummary {
                latest_event: render(&thread.latest)?,
                count: thread.replies,
                current_user_participated: thread.participated,
            })
        };
        let relations = Relations {
            replace: aggregate.edit.as_deref().map(render).transpose()?,
            reference: (!chunk.is_empty()).then_some(References { chunk }),
            thread: aggregate.thread.as_ref().map(thread).transpose()?,
        };
        if relations.replace.is_none() && relations.reference.is_none() && relations.thread.is_none() {
            return Ok(None);
        }
        to_raw_value(&relations).map(Some).map_err(|cause| Error::Internal(cause.to_string()))
    }
}

impl Core {
    /// What the reader is told of the children of these events.
    pub(in crate::room) async fn aggregates(
        &self,
        room: &Room,
        reader: Reader<'_>,
        events: &[Arc<Event>],
        scope: Scope<'_>,
    ) -> Result<Aggregates, Error> {
        let snapshot = room.snapshot();
        // RL-04
        let parents: Vec<&Arc<Event>> = events
            .iter()
            .filter(|event| !event.pdu.is_state() && snapshot.may_have_children(event, &self.server_name))
            .collect();
        if parents.is_empty() {
            return Ok(Aggregates::default());
        }
        let ignored = self.accounts.ignored_users(reader.recipient).await?;
        let shown = scope.shown(&ignored)?;
        let of = self.aggregate(room, reader, &parents, scope, &ignored, &shown, true).await?;
        let latest = of.values().filter_map(|aggregate| aggregate.thread.as_ref());
        let latest: Vec<&Arc<Event>> = latest.map(|thread| &thread.latest).collect();
        let nested = if latest.is_empty() {
            HashMap::new()
        } else {
            self.aggregate(room, reader, &latest, scope, &ignored, &shown, false).await?
        };
        Ok(Aggregates { of, nested })
    }

    /// `threads`: whether they are wanted too.
    #[expect(clippy::too_many_arguments, reason = "one question, asked in two places")]
    async fn aggregate(
        &self,
        room: &Room,
        reader: Reader<'_>,
        parents: &[&Arc<Event>],
        scope: Scope<'_>,
        ignored: &IgnoredUsers,
        shown: &Shown,
        threads: bool,
    ) -> Result<HashMap<i64, Aggregate>, Error> {
        let asked: Vec<(&str, &str, String)> = parents
            .iter()
            .map(|event| (event.id().as_str(), event.pdu.sender.as_str(), event.pdu.kind.to_string()))
            .collect();
        let rows = self.store.bundled(room.number, list(&asked)?, shown, reader.user_id.as_str()).await?;
        if rows.is_empty() {
            return Ok(HashMap::new());
        }
        let by_id: HashMap<&str, &Arc<Event>> =
            parents.iter().map(|event| (event.id().as_str(), *event)).collect();
        let (mut edits, mut references, mut whole) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            match row {
                Bundled::Edit { parent, seq } => edits.push((parent, seq)),
                Bundled::Reference { parent, seq, event_id } => references.push((parent, seq, event_id)),
                Bundled::Thread(thread) if threads => whole.push(thread),
                Bundled::Thread(_) => {}
            }
        }
        // Nothing that relates to another can begin a thread, nor can an edit be edited (RL-08). A redacted event keeps
        // its children but for its edits (RL-06).
        let relation = |parent: &str| by_id.get(parent).and_then(|parent| parent.relation());
        whole.retain(|thread| relation(&thread.root).is_none());
        edits.retain(|(parent, _)| {
            by_id.get(parent.as_str()).is_some_and(|parent| parent.redacted_by.is_none())
                && relation(parent).is_none_or(|relation| relation.rel_type != REPLACE)
        });
        let threads = self.threads(room, reader, scope, ignored, shown, whole).await?;
        let seqs: BTreeSet<i64> =
            edits.iter().map(|(_, child)| *child).chain(threads.iter().map(|thread| thread.latest)).collect();
        let seqs: Vec<i64> = seqs.into_iter().collect();
        let children = self.events(room.number, &room.version, &seqs).await?;
        // What was redacted since it was found is no child any more.
        let children: HashMap<i64, Arc<Event>> = children
            .into_iter()
            .filter(|event| event.redacted_by.is_none() && event.is_visible())
            .map(|event| (event.seq, event))
            .collect();

        let mut of: HashMap<i64, Aggregate> = HashMap::new();
        for (parent, child) in edits {
            if let (Some(parent), Some(edit)) = (by_id.get(parent.as_str()), children.get(&child)) {
                of.entry(parent.seq).or_default().edit = Some(Arc::clone(edit));
            }
        }
        for (parent, child, event_id) in references {
            if let Some(parent) = by_id.get(parent.as_str()) {
                of.entry(parent.seq).or_default().references.push((child, event_id));
            }
        }
        for aggregate in of.values_mut() {
            aggregate.references.sort_unstable();
        }
        for thread in threads {
            if let (Some(root), Some(latest)) =
                (by_id.get(thread.root.as_str()), children.get(&thread.latest))
            {
                of.entry(root.seq).or_default().thread = Some(Thread {
                    latest: Arc::clone(latest),
                    replies: thread.replies,
                    participated: thread.participated || root.pdu.sender == reader.user_id,
                });
            }
        }
        Ok(of)
    }

    /// What the reader sees of these threads.
    pub(super) async fn threads(
        &self,
        room: &Room,
        reader: Reader<'_>,
        scope: Scope<'_>,
        ignored: &IgnoredUsers,
        shown: &Shown,
        whole: Vec<ThreadRow>,
    ) -> Result<Vec<ThreadRow>, Error> {
        // Most readers see all of a thread, which is counted already.
        let is_whole = |thread: &ThreadRow| ignored.is_empty() && scope.covers(thread.oldest, thread.latest);
        let (mut threads, part): (Vec<_>, Vec<_>) = whole.into_iter().partition(is_whole);
        if !part.is_empty() {
            let roots: Vec<&str> = part.iter().map(|thread| thread.root.as_str()).collect();
            let roots = list(&roots)?;
            threads
                .extend(self.store.threads_shown(room.number, roots, shown, reader.user_id.as_str()).await?);
        }
        Ok(threads)
    }

    /// Events of a room by their ids, in no order.
    pub(super) async fn events_by_id(
        &self,
        room: &Room,
        ids: &[&str],
    ) -> Result<HashMap<String, Arc<Event>>, Error> {
        let rows = self.store.events_by_id(room.number, list(ids)?).await?;
        let event = |row| {
            let event = Arc::new(Event::from_stored(row, &room.version)?);
            Ok((event.id().to_string(), event))
        };
        rows.into_iter().map(event).collect()
    }
}
