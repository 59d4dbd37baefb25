//! The authorisation rules over a small room, in every version.

use std::collections::HashMap;

use hearth_federation::{
    Draft, Limits, Pdu, Position, Rejected, auth_types, authorize, authorize_built, authorize_received,
};
use ruma::{
    EventId, OwnedEventId, OwnedRoomId, RoomVersionId, UserId, events::StateEventType, owned_event_id,
    owned_user_id,
};
use serde_json::{Value, json};

use crate::common::{create, draft, key, now, number, server, versions};

pub(crate) const ALICE: &str = "@alice:domain";
pub(crate) const BOB: &str = "@bob:domain";

/// A room as its server holds it.
pub(crate) struct Room {
    pub(crate) version: RoomVersionId,
    pub(crate) id: OwnedRoomId,
    pub(crate) events: HashMap<OwnedEventId, Pdu>,
    pub(crate) state: HashMap<(StateEventType, String), OwnedEventId>,
    pub(crate) last: OwnedEventId,
}

impl Room {
    /// With its creator Alice in it, her power levels, and a join rule.
    pub(crate) fn new(version: RoomVersionId, join_rule: &str) -> Self {
        let mut room = Self::bare(create(&version), version);
        room.levels(&json!({})).unwrap();
        room.send(ALICE, "m.room.join_rules", Some(""), &json!({ "join_rule": join_rule })).unwrap();
        room
    }

    /// With its creator Alice in it, and nothing else.
    pub(crate) fn bare(create: Pdu, version: RoomVersionId) -> Self {
        let (id, last) = (create.room_id.clone(), create.event_id.clone());
        let mut room = Self { version, id, events: HashMap::new(), state: HashMap::new(), last };
        authorize_built(&room.version, &create, |_, _| None::<&Pdu>).unwrap();
        room.adopt(create);
        room.send(ALICE, "m.room.member", Some(ALICE), &json!({ "membership": "join" })).unwrap();
        room
    }

    /// Alice sets power levels. Her own are 100, where she has no more.
    pub(crate) fn levels(&mut self, levels: &Value) -> Result<(), Rejected> {
        self.levels_by(ALICE, levels)
    }

    pub(crate) fn levels_by(&mut self, sender: &str, levels: &Value) -> Result<(), Rejected> {
        let mut levels = levels.clone();
        let users = levels.as_object_mut().unwrap().entry("users").or_insert_with(|| json!({}));
        if number(&self.version) < 12 && users.get(ALICE).is_none() && users.is_object() {
            users[ALICE] = json!(100);
        }
        self.send(sender, "m.room.power_levels", Some(""), &levels)
    }

    pub(crate) fn adopt(&mut self, pdu: Pdu) {
        self.last = pdu.event_id.clone();
        if let Some((kind, state_key)) = pdu.state() {
            self.state.insert((kind.to_string().into(), state_key.to_owned()), pdu.event_id.clone());
        }
        self.events.insert(pdu.event_id.clone(), pdu);
    }

    pub(crate) fn state(&self, kind: &StateEventType, state_key: &str) -> Option<&Pdu> {
        let id = self.state.get(&(kind.clone(), state_key.to_owned()))?;
        self.events.get(id)
    }

    pub(crate) fn event(&self, id: &EventId) -> Option<&Pdu> {
        self.events.get(id)
    }

    pub(crate) fn draft(&self, sender: &str, kind: &str, state_key: Option<&str>, content: &Value) -> Draft {
        let mut draft = draft(kind, state_key, content);
        draft.sender = UserId::parse(sender).unwrap();
        draft.room_id = Some(self.id.clone());
        draft
    }

    pub(crate) fn auth_events(&self, draft: &Draft) -> Result<Vec<OwnedEventId>, Rejected> {
        let types = draft.auth_types(&self.version)?;
        Ok(types
            .into_iter()
            .filter_map(|(kind, key)| Some(self.state(&kind, &key)?.event_id.clone()))
            .collect())
    }

    pub(crate) fn build(&self, draft: Draft, auth_events: Vec<OwnedEventId>) -> Pdu {
        let mut position = Position::new(vec![self.last.clone()], auth_events, 2, now());
        let named = position.prev_events.iter().chain(&position.auth_events);
        position.reference_hashes = named.map(|id| (id.clone(), "h".repeat(43))).collect();
        let pdu = draft.build(&self.version, position, server(), &key(), Limits::FEDERATED).unwrap();
        // As a server holds it that has received it.
        Pdu::from_stored(pdu.event_id, pdu.json.get().to_owned(), &self.version).unwrap()
    }

    /// By its `auth_events` alone and by the state. Where they were selected from the state these must agree.
    pub(crate) fn authorize(&self, pdu: &Pdu) -> Result<(), Rejected> {
        let verdict = authorize(&self.version, pdu, |id| self.event(id), |kind, key| self.state(kind, key));
        let selected =
            auth_types(&self.version, &pdu.kind, &pdu.sender, pdu.state_key.as_deref(), &pdu.content);
        let from_state = selected.is_ok_and(|types| {
            let ids: Vec<_> = types.iter().filter_map(|key| self.state.get(key)).collect();
            ids.len() == pdu.auth_events.len() && ids.iter().all(|id| pdu.auth_events.contains(*id))
        });
        if from_state {
            assert_eq!(authorize_received(&self.version, pdu, |id| self.event(id)), verdict);
        }
        verdict
    }

    /// Build and authorise an event both ways, which must agree, and take it into the room if it is allowed.
    pub(crate) fn send(
        &mut self,
        sender: &str,
        kind: &str,
        state_key: Option<&str>,
        content: &Value,
    ) -> Result<(), Rejected> {
        let draft = self.draft(sender, kind, state_key, content);
        let auth_events = self.auth_events(&draft)?;
        let pdu = self.build(draft, auth_events);
        let verdict = self.authorize(&pdu);
        assert_eq!(authorize_built(&self.version, &pdu, |kind, key| self.state(kind, key)), verdict);
        if verdict.is_ok() {
            self.adopt(pdu);
        }
        verdict
    }

    pub(crate) fn member(&mut self, sender: &str, target: &str, membership: &str) -> Result<(), Rejected> {
        self.send(sender, "m.room.member", Some(target), &json!({ "membership": membership }))
    }

    pub(crate) fn message(&mut self, sender: &str) -> Result<(), Rejected> {
        self.send(sender, "m.room.message", None, &json!({ "body": "x" }))
    }
}

pub(crate) fn reason(verdict: Result<(), Rejected>) -> String {
    verdict.unwrap_err().to_string()
}

/// AR-06, AR-07, AR-15, AR-17
#[test]
fn people_join_public_rooms_and_talk() {
    for version in versions() {
        let mut room = Room::new(version, "public");
        assert_eq!(reason(room.message(BOB)), "sender's membership is not `join`");
        room.member(BOB, BOB, "join").unwrap();
        room.message(BOB).unwrap();
        let topic = room.send(BOB, "m.room.topic", Some(""), &json!({ "topic": "x" }));
        assert_eq!(reason(topic), "sender does not have enough power to send event of type `m.room.topic`");
        room.send(ALICE, "m.room.topic", Some(""), &json!({ "topic": "x" })).unwrap();
    }
}

/// AR-07, AR-09, AR-11 to AR-13
#[test]
fn people_are_invited_kicked_and_banned() {
    for version in versions() {
        let mut room = Room::new(version, "invite");
        assert!(room.member(BOB, BOB, "join").is_err());
        room.member(ALICE, BOB, "invite").unwrap();
        room.member(BOB, BOB, "join").unwrap();
        assert!(room.member(BOB, ALICE, "leave").is_err());
        room.member(ALICE, BOB, "leave").unwrap();
        assert!(room.message(BOB).is_err());
        room.member(ALICE, BOB, "ban").unwrap();
        assert!(room.member(ALICE, BOB, "invite").is_err());
        assert!(room.member(BOB, BOB, "leave").is_err());
        room.member(ALICE, BOB, "leave").unwrap();
        room.member(ALICE, BOB, "invite").unwrap();
        room.member(BOB, BOB, "leave").unwrap();
    }
}

/// RV-15, AR-14
#[test]
fn people_knock_from_version_7() {
    for version in versions() {
        let knocks = number(&version) >= 7;
        let mut room = Room::new(version, "knock");
        assert_eq!(room.member(BOB, BOB, "knock").is_ok(), knocks);
    }
}

/// RV-18, RV-19
#[test]
fn power_levels_are_integers_from_version_10() {
    for version in versions() {
        let strings = number(&version) < 10;
        let mut room = Room::new(version, "public");
        let users =
            if number(&room.version) < 12 { json!({ ALICE: 100, BOB: " 07 " }) } else { json!({ BOB: "7" }) };
        let verdict = room.send(ALICE, "m.room.power_levels", Some(""), &json!({ "users": users }));
        assert_eq!(verdict.is_ok(), strings, "{}: {verdict:?}", room.version);
    }
}

/// RV-20: the builder makes none, but older servers have.
#[test]
fn power_levels_may_be_fractions_before_version_6() {
    for version in versions().filter(|version| number(version) < 6) {
        let mut room = Room::new(version, "public");
        room.member(BOB, BOB, "join").unwrap();
        let content = json!({ "users": { ALICE: 100, BOB: 50 }, "state_default": 51 });
        let draft = room.draft(ALICE, "m.room.power_levels", Some(""), &content);
        let auth_events = room.auth_events(&draft).unwrap();
        let pdu = room.build(draft, auth_events);
        // 50.9 is not enough for 51, but 0.51e2 is.
        for (level, enough) in [("50.9", false), ("0.51e2", true)] {
            let text = pdu.json.get().replace(r#""@bob:domain":50"#, &format!(r#""@bob:domain":{level}"#));
            assert_ne!(text, pdu.json.get());
            let levels = Pdu::from_stored(pdu.event_id.clone(), text, &room.version).unwrap();
            assert!(levels.content.get().contains(level), "what is stored stays");
            room.authorize(&levels).unwrap();
            room.adopt(levels);
            assert_eq!(room.send(BOB, "m.room.topic", Some(""), &json!({})).is_ok(), enough, "{level}");
        }
    }
}

/// RV-31, RV-32
#[test]
fn creators_have_no_power_level_from_version_12() {
    for version in versions() {
        let listed = number(&version) < 12;
        let mut room = Room::new(version, "public");
        let content = json!({ "users": { ALICE: 100 } });
        assert_eq!(room.send(ALICE, "m.room.power_levels", Some(""), &content).is_ok(), listed);
    }
}

/// RV-09
#[test]
fn redactions_need_power_in_versions_1_and_2() {
    for version in versions() {
        let allowed = number(&version) >= 3;
        let mut room = Room::new(version, "public");
        room.member(BOB, BOB, "join").unwrap();
        let mut draft = room.draft(BOB, "m.room.redaction", None, &json!({}));
        draft.redacts = Some(owned_event_id!("$x:elsewhere"));
        let auth_events = room.auth_events(&draft).unwrap();
        let pdu = room.build(draft, auth_events);
        assert_eq!(room.authorize(&pdu).is_ok(), allowed, "{}", room.version);
    }
}

/// AR-18
#[test]
fn state_keys_of_other_users_are_theirs() {
    for version in versions() {
        let mut room = Room::new(version, "public");
        assert!(room.send(ALICE, "x", Some(BOB), &json!({})).is_err());
        room.send(ALICE, "x", Some(ALICE), &json!({})).unwrap();
    }
}

/// AR-01
#[test]
fn auth_events_are_selected_by_the_rules() {
    for version in versions() {
        let selected = |kind: &str, state_key: Option<&str>, content: &Value| {
            let draft = draft(kind, state_key, content);
            let types = auth_types(
                &version,
                &draft.kind,
                &owned_user_id!("@alice:domain"),
                state_key,
                &draft.content,
            );
            let mut types: Vec<_> =
                types.unwrap().into_iter().map(|(kind, key)| format!("{kind}/{key}")).collect();
            types.sort();
            types.retain(|of| of != "m.room.create/");
            types.join(" ")
        };
        let has_create = auth_types(
            &version,
            &"x".into(),
            &owned_user_id!("@alice:domain"),
            None,
            &draft("x", None, &json!({})).content,
        );
        let create = (StateEventType::RoomCreate, String::new());
        assert_eq!(has_create.unwrap().contains(&create), number(&version) < 12, "RV-27");

        let alice = "m.room.member/@alice:domain";
        let bob = "m.room.member/@bob:domain";
        assert_eq!(selected("m.room.message", None, &json!({})), format!("{alice} m.room.power_levels/"));
        assert_eq!(
            selected("m.room.member", Some(BOB), &json!({ "membership": "invite" })),
            format!("m.room.join_rules/ {alice} {bob} m.room.power_levels/")
        );
        assert_eq!(
            selected("m.room.member", Some(BOB), &json!({ "membership": "ban" })),
            format!("{alice} {bob} m.room.power_levels/")
        );
        let restricted = json!({ "membership": "join", "join_authorised_via_users_server": BOB });
        let authorised_by = if number(&version) >= 8 { format!(" {bob}") } else { String::new() };
        assert_eq!(
            selected("m.room.member", Some(ALICE), &restricted),
            format!("m.room.join_rules/ {alice}{authorised_by} m.room.power_levels/")
        );
    }
}

/// AR-02, PD-05, RV-27: what a peer may put into `auth_events`, and mustn't.
#[test]
fn wrong_auth_events_are_rejected() {
    for version in versions() {
        let mut room = Room::new(version, "public");
        let draft = room.draft(ALICE, "m.room.message", None, &json!({ "body": "x" }));
        let right = room.auth_events(&draft).unwrap();
        let with = |extra: OwnedEventId| [right.clone(), vec![extra]].concat();
        let check =
            |room: &Room, auth_events| reason(room.authorize(&room.build(draft.clone(), auth_events)));

        let join_rules = room.state(&StateEventType::RoomJoinRules, "").unwrap().event_id.clone();
        assert!(check(&room, with(join_rules)).starts_with("unexpected auth event"));
        assert!(check(&room, with(right[0].clone())).starts_with("duplicate auth event"));
        assert!(
            check(&room, with(owned_event_id!("$unknown:domain"))).starts_with("failed to find auth event")
        );

        room.message(ALICE).unwrap();
        let message = room.last.clone();
        assert!(check(&room, with(message)).ends_with("has no `state_key`"));

        let elsewhere =
            Room { id: "!other:domain".try_into().unwrap(), ..Room::new(room.version.clone(), "public") };
        let foreign = elsewhere.draft(ALICE, "m.room.power_levels", Some(""), &json!({}));
        let foreign = elsewhere.build(foreign, Vec::new());
        let foreign_id = foreign.event_id.clone();
        room.events.insert(foreign_id.clone(), foreign);
        assert!(check(&room, with(foreign_id)).ends_with("not in the same room"));

        if number(&room.version) < 12 {
            let create = room.state(&StateEventType::RoomCreate, "").unwrap().event_id.clone();
            let without = right.iter().filter(|id| **id != create).cloned().collect();
            assert_eq!(check(&room, without), "no `m.room.create` event in auth events");
        }

        let rejected = room.events.get_mut(&right[0]).unwrap();
        rejected.rejected = true;
        assert!(check(&room, right.clone()).starts_with("rejected auth event"));
    }
}

/// RV-29
#[test]
fn version_12_rooms_need_their_create_event() {
    let mut room = Room::new(RoomVersionId::V12, "public");
    let draft = room.draft(ALICE, "m.room.message", None, &json!({ "body": "x" }));
    let auth_events = room.auth_events(&draft).unwrap();
    let pdu = room.build(draft, auth_events);
    room.authorize(&pdu).unwrap();
    let create = room.state(&StateEventType::RoomCreate, "").unwrap().event_id.clone();
    room.events.get_mut(&create).unwrap().rejected = true;
    assert!(reason(room.authorize(&pdu)).starts_with("rejected `m.room.create` event"));
    room.events.remove(&create);
    assert!(reason(room.authorize(&pdu)).starts_with("failed to find `m.room.create` event"));
}

/// RV-01
#[test]
fn unknown_versions_have_no_rules() {
    let version = RoomVersionId::try_from("99").unwrap();
    let pdu = create(&RoomVersionId::V12);
    let verdict = authorize_built(&version, &pdu, |_, _| None::<&Pdu>);
    assert!(matches!(verdict, Err(Rejected::Version(_))));
}
