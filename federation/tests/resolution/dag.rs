//! A room as a graph of events with names that a test can read, each judged as a server would.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use hearth_federation::{StateEvent, StateMap, auth_types, authorize, authorize_by_state, resolve};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, UInt,
    UserId,
    events::{StateEventType, TimelineEventType},
    state_res::Event,
};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

pub(crate) const ALICE: &str = "@alice:a";
pub(crate) const BOB: &str = "@bob:b";
pub(crate) const CAROL: &str = "@carol:c";
pub(crate) const DAVE: &str = "@dave:d";

/// Versions 1 to 12.
pub(crate) fn versions() -> impl Iterator<Item = RoomVersionId> {
    (1..=12).map(|number: u8| RoomVersionId::try_from(number.to_string()).unwrap())
}

/// An event with whatever fields a test likes.
#[derive(Debug, Clone)]
pub(crate) struct TestEvent {
    pub(crate) id: OwnedEventId,
    pub(crate) room_id: Option<OwnedRoomId>,
    pub(crate) sender: OwnedUserId,
    pub(crate) kind: TimelineEventType,
    pub(crate) state_key: Option<String>,
    pub(crate) content: Box<RawValue>,
    pub(crate) timestamp: u32,
    pub(crate) depth: i64,
    pub(crate) prev_events: Vec<OwnedEventId>,
    pub(crate) auth_events: Vec<OwnedEventId>,
    pub(crate) rejected: bool,
}

impl Event for TestEvent {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        &self.id
    }

    fn room_id(&self) -> Option<&RoomId> {
        self.room_id.as_deref()
    }

    fn sender(&self) -> &UserId {
        &self.sender
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(UInt::from(self.timestamp))
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.kind
    }

    fn content(&self) -> &RawValue {
        &self.content
    }

    fn state_key(&self) -> Option<&str> {
        self.state_key.as_deref()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.prev_events.iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.auth_events.iter())
    }

    fn redacts(&self) -> Option<&OwnedEventId> {
        None
    }

    fn rejected(&self) -> bool {
        self.rejected
    }
}

impl StateEvent for TestEvent {
    fn depth(&self) -> i64 {
        self.depth
    }
}

/// The id of the event of that name.
pub(crate) fn id(name: &str) -> OwnedEventId {
    OwnedEventId::try_from(format!("${name}")).unwrap()
}

pub(crate) fn key(kind: &str, state_key: &str) -> (StateEventType, String) {
    (kind.into(), state_key.to_owned())
}

/// Why an event was rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    /// By the state of its `auth_events`.
    ByAuthEvents(String),
    /// By the state before it.
    ByState(String),
}

/// A room.
#[derive(Clone)]
pub(crate) struct Dag {
    pub(crate) version: RoomVersionId,
    pub(crate) events: HashMap<OwnedEventId, Arc<TestEvent>>,
    pub(crate) states_after: HashMap<OwnedEventId, StateMap>,
    room_id: OwnedRoomId,
    clock: u32,
}

impl Dag {
    /// Nothing but a create event by Alice, named `create`, and what she makes of it: `alice`, her joining; `power`, her
    /// power levels, in which Bob has 50; `rule`, a join rule.
    pub(crate) fn new(version: RoomVersionId, join_rule: &str) -> Self {
        let mut dag = Self::bare(version);
        dag.member("alice", &["create"], ALICE, ALICE, "join");
        dag.power("power", &["alice"], ALICE, &[(BOB, 50)]);
        dag.join_rule("rule", &["power"], ALICE, join_rule);
        dag
    }

    /// Nothing but a create event by Alice, named `create`.
    pub(crate) fn bare(version: RoomVersionId) -> Self {
        let is_v12 = version == RoomVersionId::V12;
        let room_id = OwnedRoomId::try_from(if is_v12 { "!create" } else { "!room:a" }).unwrap();
        let content = json!({ "room_version": version.as_str(), "creator": ALICE });
        let mut dag =
            Self { version, events: HashMap::new(), states_after: HashMap::new(), room_id, clock: 0 };
        let mut create = dag.event("create", ALICE, "m.room.create", Some(""), &content);
        if is_v12 {
            create.room_id = None;
        }
        create.depth = 1;
        dag.adopt(create);
        dag
    }

    pub(crate) fn has_privileged_creators(&self) -> bool {
        self.version == RoomVersionId::V12
    }

    /// Sets the clock of whoever sends the next event.
    pub(crate) fn at(&mut self, timestamp: u32) -> &mut Self {
        self.clock = timestamp - 1;
        self
    }

    /// An event that follows and cites nothing yet.
    pub(crate) fn event(
        &mut self,
        name: &str,
        sender: &str,
        kind: &str,
        state_key: Option<&str>,
        content: &Value,
    ) -> TestEvent {
        self.clock += 1;
        TestEvent {
            id: id(name),
            room_id: Some(self.room_id.clone()),
            sender: UserId::parse(sender).unwrap(),
            kind: kind.into(),
            state_key: state_key.map(str::to_owned),
            content: to_raw_value(content).unwrap(),
            timestamp: self.clock,
            depth: 0,
            prev_events: Vec::new(),
            auth_events: Vec::new(),
            rejected: false,
        }
    }

    /// Give an event its place behind others: what it cites comes from the state before it.
    pub(crate) fn place(&self, event: &mut TestEvent, prev_events: &[&str]) {
        event.prev_events = prev_events.iter().map(|name| id(name)).collect();
        let depths = event.prev_events.iter().map(|id| self.events[id].depth);
        event.depth = depths.max().unwrap_or_default() + 1;
        let before = self.state_before(&event.prev_events);
        let types =
            auth_types(&self.version, &event.kind, &event.sender, event.state_key.as_deref(), &event.content);
        event.auth_events = types.unwrap().iter().filter_map(|key| before.get(key)).cloned().collect();
    }

    /// Take an event in as it is, with a verdict of its own or not.
    pub(crate) fn adopt(&mut self, event: TestEvent) {
        let mut state = self.state_before(&event.prev_events);
        if let Some(state_key) = &event.state_key
            && !event.rejected
        {
            state.insert(key(&event.kind.to_string(), state_key), event.id.clone());
        }
        self.states_after.insert(event.id.clone(), state);
        assert!(self.events.insert(event.id.clone(), Arc::new(event)).is_none(), "a name was used twice");
    }

    pub(crate) fn judge(&self, event: &TestEvent) -> Verdict {
        let cited = |kind: &StateEventType, state_key: &str| {
            let create = key("m.room.create", "");
            event
                .auth_events
                .iter()
                .chain(self.has_privileged_creators().then_some(&id("create")))
                .filter_map(|id| self.events.get(id))
                .find(|event| {
                    (kind, state_key)
                        == (&StateEventType::from(event.kind.to_string()), event.state_key().unwrap_or("?"))
                        || (*kind == create.0 && event.id == id("create"))
                })
                .cloned()
        };
        let fetch = |id: &EventId| self.events.get(id).cloned();
        if let Err(rejected) = authorize(&self.version, event, fetch, cited) {
            return Verdict::ByAuthEvents(rejected.to_string());
        }
        let before = self.state_before(&event.prev_events);
        let in_state = |kind: &StateEventType, state_key: &str| {
            self.events.get(before.get(&(kind.clone(), state_key.to_owned()))?).cloned()
        };
        match authorize_by_state(&self.version, event, in_state) {
            Ok(()) => Verdict::Allowed,
            Err(rejected) => Verdict::ByState(rejected.to_string()),
        }
    }

    /// A state event that has to be allowed.
    pub(crate) fn state(
        &mut self,
        name: &str,
        prev_events: &[&str],
        sender: &str,
        kind: &str,
        state_key: &str,
        content: &Value,
    ) {
        let mut event = self.event(name, sender, kind, Some(state_key), content);
        self.place(&mut event, prev_events);
        assert_eq!(self.judge(&event), Verdict::Allowed, "{name}");
        self.adopt(event);
    }

    pub(crate) fn member(
        &mut self,
        name: &str,
        prev_events: &[&str],
        sender: &str,
        target: &str,
        membership: &str,
    ) {
        self.state(name, prev_events, sender, "m.room.member", target, &json!({ "membership": membership }));
    }

    pub(crate) fn topic(&mut self, name: &str, prev_events: &[&str], sender: &str) {
        self.state(name, prev_events, sender, "m.room.topic", "", &json!({}));
    }

    pub(crate) fn join_rule(&mut self, name: &str, prev_events: &[&str], sender: &str, rule: &str) {
        self.state(name, prev_events, sender, "m.room.join_rules", "", &json!({ "join_rule": rule }));
    }

    /// Power levels of users: Alice's 100 is added where she hasn't more anyway.
    pub(crate) fn power(&mut self, name: &str, prev_events: &[&str], sender: &str, users: &[(&str, i32)]) {
        let mut users: BTreeMap<_, _> = users.iter().copied().collect();
        if !self.has_privileged_creators() {
            users.insert(ALICE, 100);
        }
        self.state(name, prev_events, sender, "m.room.power_levels", "", &json!({ "users": users }));
    }

    pub(crate) fn find(&self, id: &EventId) -> Option<Arc<TestEvent>> {
        self.events.get(id).cloned()
    }

    pub(crate) fn state_before(&self, prev_events: &[OwnedEventId]) -> StateMap {
        let states: Vec<_> = prev_events.iter().map(|id| self.states_after[id].clone()).collect();
        resolve(&self.version, &states, |id| self.find(id)).unwrap()
    }

    /// The state where these events are the last.
    pub(crate) fn resolved(&self, last: &[&str]) -> StateMap {
        self.state_before(&last.iter().map(|name| id(name)).collect::<Vec<_>>())
    }

    /// The content of a state's event of that type and the empty state key.
    pub(crate) fn content_in(&self, state: &StateMap, kind: &str) -> Value {
        let event = state.get(&key(kind, "")).map(|id| &self.events[id]);
        event.map_or_else(|| json!({}), |event| serde_json::from_str(event.content.get()).unwrap())
    }

    /// The name of a key's event in the state where these events are the last.
    pub(crate) fn current(&self, last: &[&str], kind: &str, state_key: &str) -> Option<String> {
        self.resolved(last).get(&key(kind, state_key)).map(|id| id.as_str()[1..].to_owned())
    }
}
