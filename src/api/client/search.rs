//! `POST /search` ("Server Side Search").

use std::collections::BTreeMap;

use ruma::api::client::search::search_events::v3::{GroupingKey, OrderBy, Request};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    history::token,
    with::{Also, OfSearch, With},
};
use crate::{
    account::Session,
    app::App,
    http::{Json, MatrixError, Routes},
    room::{Direction, EventFilter, GroupBy, Match, Order, Paging, Query, Reader, Searched},
};

/// Results of a page if the client doesn't say, and the most.
const USUAL: usize = 10;
const MOST: usize = 100;
/// Events before and after a result, at most.
const MOST_AROUND: usize = 25;

pub(super) fn routes() -> Routes {
    Routes::default().add(search)
}

#[derive(Serialize)]
struct Answer {
    search_categories: Categories,
}

#[derive(Default, Serialize)]
struct Categories {
    #[serde(skip_serializing_if = "Option::is_none")]
    room_events: Option<RoomEvents>,
}

#[derive(Serialize)]
struct RoomEvents {
    count: usize,
    highlights: Vec<String>,
    results: Vec<SearchResult>,
    groups: BTreeMap<&'static str, BTreeMap<String, Value>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    state: BTreeMap<String, Vec<Box<RawValue>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

#[derive(Serialize)]
struct SearchResult {
    rank: f64,
    result: Option<Box<RawValue>>,
    context: Context,
}

#[derive(Serialize)]
struct Context {
    start: String,
    end: String,
    events_before: Vec<Box<RawValue>>,
    events_after: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile_info: Option<BTreeMap<String, Value>>,
}

async fn search(
    app: App,
    session: Session,
    request: With<Request, Also<OfSearch>>,
) -> Result<Json<Answer>, MatrixError> {
    let (request, relations) = (request.request, request.more.0.relations());
    let Some(criteria) = request.search_categories.room_events else {
        return Ok(Json(Answer { search_categories: Categories::default() }));
    };
    let order = match criteria.order_by {
        None | Some(OrderBy::Rank) => Order::Rank,
        Some(OrderBy::Recent) => Order::Recent,
        Some(other) => return Err(MatrixError::invalid_param(format!("`order_by`: `{other}` is not known"))),
    };
    let mut groups = Vec::new();
    for grouping in &criteria.groupings.group_by {
        let by = match &grouping.key {
            Some(GroupingKey::RoomId) => GroupBy::Room,
            Some(GroupingKey::Sender) => GroupBy::Sender,
            _ => return Err(MatrixError::invalid_param("`group_by`: a key is `room_id` or `sender`")),
        };
        if !groups.contains(&by) {
            groups.push(by);
        }
    }
    let filter = EventFilter::new(&criteria.filter).with(relations);
    let query = Query {
        term: &criteria.search_term,
        keys: criteria.keys.unwrap_or_default().iter().map(ToString::to_string).collect(),
        filter: &filter,
        order,
        groups,
        limit: filter.limit.unwrap_or(USUAL).clamp(1, MOST),
        from: request.next_batch.as_deref().filter(|from| !from.is_empty()),
    };
    let reader = Reader::of(&session);
    let found = app.rooms.search(reader, query).await?;

    // IG-01
    let heard = EventFilter::default().without(app.accounts.ignored_users(session.recipient).await?);
    let context = &criteria.event_context;
    let around = |limit| usize::try_from(limit).unwrap_or(MOST_AROUND).min(MOST_AROUND);
    let (before, after) = (around(context.before_limit), around(context.after_limit));
    let mut results = Vec::with_capacity(found.matches.len());
    for found in &found.matches {
        results.push(result(&app, reader, found, (before, after, &heard), context.include_profile).await?);
    }
    let state = if criteria.include_state == Some(true) {
        state(&app, reader, &found).await?
    } else {
        BTreeMap::new()
    };
    let room_events = RoomEvents {
        count: found.count,
        groups: group(&found),
        results,
        state,
        highlights: found.highlights,
        next_batch: found.next_batch,
    };
    Ok(Json(Answer { search_categories: Categories { room_events: Some(room_events) } }))
}

async fn result(
    app: &App,
    reader: Reader<'_>,
    found: &Match,
    (before, after, filter): (usize, usize, &EventFilter),
    include_profile: bool,
) -> Result<SearchResult, MatrixError> {
    let (room, sight, seq) = (&found.room, &found.sight, found.event.seq);
    let (mut start, mut end) = (seq - 1, seq);
    let (mut events_before, mut events_after) = (Vec::new(), Vec::new());
    for (direction, limit, place, events) in [
        (Direction::Backwards, before, &mut start, &mut events_before),
        (Direction::Forwards, after, &mut end, &mut events_after),
    ] {
        if limit > 0 {
            let paging = Paging { direction, from: Some(*place), to: None, limit, filter };
            *events = app.rooms.page(room, sight, paging).await?.events;
            if let Some(last) = events.last() {
                *place = if direction == Direction::Backwards { last.seq - 1 } else { last.seq };
            }
        }
    }
    let profile_info = if include_profile {
        let shown: Vec<_> =
            events_before.iter().chain(&events_after).chain([&found.event]).cloned().collect();
        let members = app.rooms.senders(room, &shown).await?;
        let profiles = members.into_iter().filter_map(|member| {
            let content: Value = member.pdu.content_as().ok()?;
            let profile =
                json!({ "displayname": content["displayname"], "avatar_url": content["avatar_url"] });
            Some((member.pdu.state_key.clone()?, profile))
        });
        Some(profiles.collect())
    } else {
        None
    };
    let sight = Some(&**sight);
    let result =
        app.rooms.client_events(room, reader, std::slice::from_ref(&found.event), sight).await?.pop();
    Ok(SearchResult {
        rank: found.rank,
        result,
        context: Context {
            start: token(start),
            end: token(end),
            events_before: app.rooms.client_events(room, reader, &events_before, sight).await?,
            events_after: app.rooms.client_events(room, reader, &events_after, sight).await?,
            profile_info,
        },
    })
}

/// The state that the reader may read of each room in the answer.
async fn state(
    app: &App,
    reader: Reader<'_>,
    found: &Searched,
) -> Result<BTreeMap<String, Vec<Box<RawValue>>>, MatrixError> {
    let mut state = BTreeMap::new();
    for Match { room, sight, .. } in &found.matches {
        if state.contains_key(room.room_id.as_str()) {
            continue;
        }
        let view = app.rooms.view(room, reader.user_id).await?;
        let events: Vec<_> = app.rooms.state_at(room, view.at).await?.iter().cloned().collect();
        let events = app.rooms.client_events(room, reader, &events, Some(sight)).await?;
        state.insert(room.room_id.to_string(), events);
    }
    Ok(state)
}

fn group(found: &Searched) -> BTreeMap<&'static str, BTreeMap<String, Value>> {
    let named = found.groups.iter().map(|(by, groups)| {
        let groups = groups.iter().enumerate().map(|(order, (key, group))| {
            let ids = group.matches.iter().filter_map(|at| found.matches.get(*at));
            let ids: Vec<&str> = ids.map(|found| found.event.id().as_str()).collect();
            let mut value = json!({ "order": order + 1, "results": ids });
            if let Some(next_batch) = &group.next_batch {
                value["next_batch"] = json!(next_batch);
            }
            (key.clone(), value)
        });
        let name = match by {
            GroupBy::Room => "room_id",
            GroupBy::Sender => "sender",
        };
        (name, groups.collect())
    });
    named.collect()
}
