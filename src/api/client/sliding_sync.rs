//! Sliding sync (MSC4186) in both forms: `POST /v4/sync`, as it was merged, and the one that clients in the field speak.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ruma::OwnedRoomId;
use serde::Deserialize;

use crate::api::bare::{Bare, Post};
use crate::{
    account::Session,
    app::App,
    http::{MatrixError, Routes, Whole, json_response},
    keys::to_device::PAGE,
    limits::Class,
    live::sliding::{
        Config, Extensions, Fields, Filters, Form, Key, List, Mail, Profiles, Request, Required, Scope,
        Wishes,
    },
    presence::State,
};

/// Lists and subscriptions of a request, and windows of a list.
const MOST: usize = 100;
/// The longest names of connections, lists and transactions, in bytes.
const MAX_NAME: usize = 255;
/// Elements of one `required_state`, and values of one filter.
const MAX_ELEMENTS: usize = 200;
/// Events of a timeline.
const MAX_TIMELINE: u64 = 200;
/// Changes of thread subscriptions: how many usually, and at most.
const THREADS: u64 = 100;
const MAX_THREADS: u64 = 500;

pub(super) fn routes() -> Routes {
    Routes::default().limited_alias(Class::Free, "/_matrix/client/v4/sync", merged).limited_alias(
        Class::Free,
        "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync",
        early,
    )
}

#[derive(Deserialize)]
struct Body<C, L> {
    conn_id: Option<String>,
    txn_id: Option<String>,
    pos: Option<String>,
    timeout: Option<u64>,
    set_presence: Option<String>,
    #[serde(default = "BTreeMap::new")]
    lists: BTreeMap<String, L>,
    #[serde(default = "BTreeMap::new")]
    room_subscriptions: BTreeMap<OwnedRoomId, C>,
    #[serde(default)]
    extensions: ExtensionsBody,
}

#[derive(Deserialize)]
struct MergedConfig {
    timeline_limit: u64,
    required_state: MergedRequired,
}

#[derive(Deserialize)]
struct MergedRequired {
    #[serde(default)]
    include: Vec<Element>,
    #[serde(default)]
    exclude: Vec<Element>,
    #[serde(default)]
    lazy_members: bool,
}

#[derive(Deserialize)]
struct Element {
    #[serde(rename = "type")]
    kind: Option<String>,
    state_key: Option<String>,
}

#[derive(Deserialize)]
struct MergedList {
    #[serde(flatten)]
    config: MergedConfig,
    range: Option<(u64, u64)>,
    #[serde(default)]
    filters: FiltersBody,
}

#[derive(Deserialize)]
struct EarlyConfig {
    timeline_limit: u64,
    #[serde(default)]
    required_state: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct EarlyList {
    #[serde(flatten)]
    config: EarlyConfig,
    ranges: Option<Vec<(u64, u64)>>,
    #[serde(default)]
    filters: Option<FiltersBody>,
}

#[derive(Default, Deserialize)]
struct FiltersBody {
    is_dm: Option<bool>,
    is_encrypted: Option<bool>,
    #[serde(alias = "is_invite")]
    is_invited: Option<bool>,
    room_types: Option<Vec<Option<String>>>,
    not_room_types: Option<Vec<Option<String>>>,
    spaces: Option<Vec<String>>,
    tags: Option<Vec<String>>,
    not_tags: Option<Vec<String>>,
}

/// What isn't known is left alone: extensions may be asked for that this server doesn't have.
#[derive(Default, Deserialize)]
struct ExtensionsBody {
    #[serde(default)]
    to_device: ToDevice,
    #[serde(default)]
    e2ee: ScopeBody,
    #[serde(default)]
    account_data: ScopeBody,
    #[serde(default)]
    receipts: ScopeBody,
    #[serde(default)]
    typing: ScopeBody,
    #[serde(default, rename = "io.element.msc4308.thread_subscriptions", alias = "thread_subscriptions")]
    threads: Threads,
    #[serde(default, rename = "org.matrix.msc4262.profiles", alias = "profiles")]
    profiles: ProfilesBody,
}

#[derive(Default, Deserialize)]
struct ToDevice {
    #[serde(default)]
    enabled: Option<bool>,
    since: Option<String>,
    limit: Option<u64>,
}

#[derive(Default, Deserialize)]
struct ScopeBody {
    enabled: Option<bool>,
    lists: Option<Vec<String>>,
    rooms: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
struct ProfilesBody {
    #[serde(flatten)]
    scope: ScopeBody,
    fields: Option<BTreeSet<String>>,
}

#[derive(Default, Deserialize)]
struct Threads {
    enabled: Option<bool>,
    limit: Option<u64>,
}

async fn merged(
    app: App,
    session: Session,
    request: Bare<Post, Body<MergedConfig, MergedList>>,
) -> Result<Whole, MatrixError> {
    let body = request.content;
    let seen_as = presence(body.set_presence.as_deref())?;
    answer(app, session, seen_as, read_merged(body)?).await
}

fn read_merged(body: Body<MergedConfig, MergedList>) -> Result<Request, MatrixError> {
    let (pos, timeout) = (body.pos.clone(), body.timeout.unwrap_or_default());
    let lists = |list: MergedList| {
        Ok(List {
            config: merged_config(list.config)?,
            ranges: ranges(list.range.map(|range| vec![range]))?,
            filters: filters(list.filters)?,
        })
    };
    read(Form::Merged, body, pos, timeout, lists, merged_config)
}

async fn early(
    app: App,
    session: Session,
    request: Bare<Post, Body<EarlyConfig, EarlyList>>,
) -> Result<Whole, MatrixError> {
    let seen_as = request.query("set_presence");
    let seen_as = presence(seen_as.as_deref().or(request.content.set_presence.as_deref()))?;
    let pos = request.query("pos");
    let timeout = request.query("timeout").map(|timeout| timeout.parse()).transpose();
    let timeout = timeout.map_err(|_| MatrixError::invalid_param("`timeout` is a number of milliseconds"))?;
    let request = read_early(request.content, pos, timeout, session.user_id.as_str())?;
    answer(app, session, seen_as, request).await
}

/// `pos` and `timeout` of the query come before those of the body.
fn read_early(
    body: Body<EarlyConfig, EarlyList>,
    pos: Option<String>,
    timeout: Option<u64>,
    me: &str,
) -> Result<Request, MatrixError> {
    let (pos, timeout) = (pos.or_else(|| body.pos.clone()), timeout.or(body.timeout).unwrap_or_default());
    let lists = |list: EarlyList| {
        Ok(List {
            config: early_config(list.config, me)?,
            ranges: ranges(list.ranges)?,
            filters: filters(list.filters.unwrap_or_default())?,
        })
    };
    read(Form::Early, body, pos, timeout, lists, |config| early_config(config, me))
}

/// What a body of that form asks for, of a user of that name. For tests of the reading alone.
pub fn sliding_request(form: Form, body: &[u8], me: &str) -> Result<Request, String> {
    let broken = |cause: serde_json::Error| cause.to_string();
    let request = match form {
        Form::Merged => read_merged(serde_json::from_slice(body).map_err(broken)?),
        Form::Early => read_early(serde_json::from_slice(body).map_err(broken)?, None, None, me),
    };
    request.map_err(|refused| format!("{refused:?}"))
}

async fn answer(app: App, session: Session, seen_as: State, request: Request) -> Result<Whole, MatrixError> {
    // For as long as the request waits.
    let _held = app.presence.hold(&session, seen_as).await;
    let body = Box::pin(app.sliding.sync(session, request)).await?;
    Ok(Whole(json_response(http::StatusCode::OK, body)))
}

fn read<C, L>(
    form: Form,
    body: Body<C, L>,
    pos: Option<String>,
    timeout: u64,
    list: impl Fn(L) -> Result<List, MatrixError>,
    config: impl Fn(C) -> Result<Config, MatrixError>,
) -> Result<Request, MatrixError> {
    at_most(MOST, body.lists.len(), "lists")?;
    at_most(MOST, body.room_subscriptions.len(), "subscriptions")?;
    let names = body.lists.keys().map(String::as_str);
    for name in names.chain(body.conn_id.as_deref()).chain(body.txn_id.as_deref()) {
        at_most(MAX_NAME, name.len(), "bytes of a name")?;
    }
    let lists = body.lists.into_iter().map(|(name, one)| Ok((name, list(one)?)));
    let subscriptions = body.room_subscriptions.into_iter().map(|(room, one)| Ok((room, config(one)?)));
    let mail = mail(&body.extensions.to_device)?;
    let wishes = Wishes {
        lists: lists.collect::<Result<_, MatrixError>>()?,
        subscriptions: subscriptions.collect::<Result<_, MatrixError>>()?,
        extensions: extensions(body.extensions)?,
    };
    Ok(Request {
        form,
        conn_id: body.conn_id.unwrap_or_default(),
        txn_id: body.txn_id.filter(|_| form == Form::Early),
        pos: pos.filter(|pos| !pos.is_empty()),
        timeout: Duration::from_millis(timeout),
        wishes,
        mail,
    })
}

fn at_most(most: usize, count: usize, what: &str) -> Result<(), MatrixError> {
    if count > most {
        return Err(MatrixError::invalid_param(format!("at most {most} {what}, not {count}")));
    }
    Ok(())
}

/// What a device is seen as: online, unless it says otherwise.
fn presence(name: Option<&str>) -> Result<State, MatrixError> {
    name.map_or(Some(State::Online), State::from_name)
        .ok_or_else(|| MatrixError::invalid_param("`set_presence`: there is no such presence"))
}

fn ranges(ranges: Option<Vec<(u64, u64)>>) -> Result<Vec<(u64, u64)>, MatrixError> {
    // Without windows the list is seen whole.
    let ranges = ranges.unwrap_or_else(|| vec![(0, u64::MAX)]);
    at_most(MOST, ranges.len(), "ranges")?;
    if ranges.iter().any(|(first, last)| first > last) {
        return Err(MatrixError::invalid_param("a range ends before it begins"));
    }
    Ok(ranges)
}

fn config(timeline_limit: u64, required: Required) -> Result<Config, MatrixError> {
    at_most(MAX_ELEMENTS, required.include.len() + required.exclude.len(), "elements of `required_state`")?;
    let timeline_limit = usize::try_from(timeline_limit.min(MAX_TIMELINE)).unwrap_or_default();
    Ok(Config { timeline_limit, state: vec![required] })
}

fn merged_config(body: MergedConfig) -> Result<Config, MatrixError> {
    let keys = |elements: Vec<Element>| {
        elements.into_iter().map(|element| Key { kind: element.kind, state_key: element.state_key }).collect()
    };
    let MergedRequired { include, exclude, lazy_members } = body.required_state;
    let required = Required { include: keys(include), exclude: keys(exclude), lazy_members };
    config(body.timeline_limit, required)
}

fn early_config(body: EarlyConfig, me: &str) -> Result<Config, MatrixError> {
    let mut required = Required::default();
    let any = |text: String| (text != "*").then_some(text);
    for (kind, state_key) in body.required_state {
        match (&*kind, &*state_key) {
            ("m.room.member", "$LAZY") => required.lazy_members = true,
            // It stands for members alone.
            (_, "$LAZY") => {}
            (_, "$ME") => required.include.push(Key { kind: any(kind), state_key: Some(me.to_owned()) }),
            _ => required.include.push(Key { kind: any(kind), state_key: any(state_key) }),
        }
    }
    config(body.timeline_limit, required)
}

fn filters(body: FiltersBody) -> Result<Filters, MatrixError> {
    let lists = [&body.spaces, &body.tags, &body.not_tags].map(|list| list.as_ref().map_or(0, Vec::len));
    let types = [&body.room_types, &body.not_room_types].map(|list| list.as_ref().map_or(0, Vec::len));
    for count in lists.into_iter().chain(types) {
        at_most(MAX_ELEMENTS, count, "values of a filter")?;
    }
    // What is no room is a space that nobody is in.
    let spaces = |spaces: Vec<String>| spaces.into_iter().filter_map(|space| space.try_into().ok()).collect();
    Ok(Filters {
        is_dm: body.is_dm,
        is_encrypted: body.is_encrypted,
        is_invite: body.is_invited,
        room_types: body.room_types,
        not_room_types: body.not_room_types,
        spaces: body.spaces.map(spaces),
        tags: body.tags,
        not_tags: body.not_tags,
    })
}

fn mail(body: &ToDevice) -> Result<Option<Mail>, MatrixError> {
    if body.enabled != Some(true) {
        return Ok(None);
    }
    let since = body.since.as_deref().filter(|since| !since.is_empty()).map(str::parse).transpose();
    let since = since.map_err(|_| {
        MatrixError::invalid_param("`since` of `to_device` is not a `next_batch` of this server")
    })?;
    let limit = body.limit.map_or(PAGE, |limit| usize::try_from(limit).unwrap_or(PAGE).clamp(1, PAGE));
    Ok(Some(Mail { since, limit }))
}

fn extensions(body: ExtensionsBody) -> Result<Extensions, MatrixError> {
    let scope = |body: ScopeBody| {
        let counts = [&body.lists, &body.rooms].map(|list| list.as_ref().map_or(0, Vec::len));
        counts
            .into_iter()
            .try_for_each(|count| at_most(MAX_ELEMENTS, count, "lists or rooms of an extension"))?;
        let scope = Scope { lists: body.lists, rooms: body.rooms };
        Ok::<_, MatrixError>((body.enabled == Some(true)).then_some(scope))
    };
    let ProfilesBody { scope: in_rooms, fields } = body.profiles;
    at_most(MAX_ELEMENTS, fields.as_ref().map_or(0, BTreeSet::len), "fields of profiles")?;
    let profiles = scope(in_rooms)?.map(|scope| Profiles { scope, fields: Fields(fields) });
    let threads = body.threads.limit.unwrap_or(THREADS).clamp(1, MAX_THREADS);
    Ok(Extensions {
        e2ee: body.e2ee.enabled == Some(true),
        account_data: scope(body.account_data)?,
        receipts: scope(body.receipts)?,
        typing: scope(body.typing)?,
        threads: (body.threads.enabled == Some(true)).then(|| i64::try_from(threads).unwrap_or(i64::MAX)),
        profiles,
    })
}
