//! The authorisation rules that depend on state, sentence by sentence from the specification of room versions 1 to 12.
//!
//! `None`: the specification doesn't say, because something in the state isn't of the form that the rules take for granted,
//! or because its sentence can be read in two ways. Every `reject` and `allow` of the text is a `Some`.

use std::collections::BTreeMap;

use ruma::{ServerName, UserId};
use serde_json::{Map, Value};

/// The events of a state by type and state key.
pub(crate) type State = BTreeMap<(String, String), Value>;

/// Power that no number is: that of creators from version 12 on.
const INFINITE: i64 = i64::MAX;

const NUMBERS: [(&str, i64); 7] = [
    ("users_default", 0),
    ("events_default", 0),
    ("state_default", 50),
    ("ban", 50),
    ("redact", 50),
    ("kick", 50),
    ("invite", 0),
];

pub(crate) struct Room<'a> {
    pub(crate) version: u32,
    pub(crate) state: &'a State,
}

fn server_of(user: &str) -> Option<&ServerName> {
    <&UserId>::try_from(user).ok().map(UserId::server_name)
}

impl<'a> Room<'a> {
    fn event(&self, kind: &str, state_key: &str) -> Option<&'a Value> {
        self.state.get(&(kind.to_owned(), state_key.to_owned()))
    }

    fn membership(&self, user: &str) -> Option<&'a str> {
        match self.event("m.room.member", user) {
            None => Some("leave"),
            Some(event) => event["content"]["membership"].as_str(),
        }
    }

    /// `None` in it: the room has none, or none that is a text.
    fn join_rule(&self) -> Option<&'a str> {
        self.event("m.room.join_rules", "")?["content"]["join_rule"].as_str()
    }

    fn creators(&self, create: &'a Value) -> Option<Vec<&'a str>> {
        let content = &create["content"];
        let first = if self.version >= 11 { &create["sender"] } else { &content["creator"] };
        let mut creators = vec![first.as_str().filter(|user| server_of(user).is_some())?];
        if self.version >= 12 && !content["additional_creators"].is_null() {
            for creator in content["additional_creators"].as_array()? {
                creators.push(creator.as_str().filter(|user| server_of(user).is_some())?);
            }
        }
        Some(creators)
    }

    /// A power level: `None` if it isn't one.
    fn level(&self, value: &Value) -> Option<i64> {
        let is_exact = |level: &i64| (1 - (1 << 53)..1 << 53).contains(level);
        match value {
            Value::Number(number) => match number.as_i64() {
                Some(level) => Some(level).filter(is_exact),
                None if self.version <= 5 => {
                    number.as_f64().filter(|level| level.abs() < 9e15).map(|level| level as i64)
                }
                None => None,
            },
            Value::String(text) if self.version <= 9 => {
                let text = text.trim();
                let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
                let is_level = !digits.is_empty()
                    && digits.bytes().all(|byte| byte.is_ascii_digit())
                    && digits.len() < 16;
                is_level.then(|| text.parse().ok()).flatten().filter(is_exact)
            }
            _ => None,
        }
    }

    /// All levels of an event's content, or `None` if it has something that isn't one.
    fn levels(&self, content: &Value) -> Option<Levels> {
        let content = content.as_object()?;
        let mut levels = Levels::default();
        for (name, _) in NUMBERS {
            if let Some(value) = content.get(name) {
                levels.numbers.insert(name, self.level(value)?);
            }
        }
        for (name, map) in [
            ("users", &mut levels.users),
            ("events", &mut levels.events),
            ("notifications", &mut levels.notifications),
        ] {
            let empty = Map::new();
            let given = content.get(name).map_or(Some(&empty), Value::as_object)?;
            for (key, value) in given {
                map.insert(key.clone(), self.level(value)?);
            }
        }
        levels.users.keys().all(|user| server_of(user).is_some()).then_some(levels)
    }

    pub(crate) fn allows(&self, event: &Value) -> Option<bool> {
        let kind = event["type"].as_str()?;
        let sender = event["sender"].as_str()?;
        let state_key = event.get("state_key").and_then(Value::as_str);
        if kind == "m.room.create" {
            return Some(true);
        }
        let Some(create) = self.event("m.room.create", "") else { return Some(false) };
        let may_federate = match &create["content"]["m.federate"] {
            Value::Null => true,
            value => value.as_bool()?,
        };
        if !may_federate && server_of(sender)? != server_of(create["sender"].as_str()?)? {
            return Some(false);
        }
        if self.version <= 5 && kind == "m.room.aliases" {
            return Some(state_key == Some(server_of(sender)?.as_str()));
        }
        let creators = self.creators(create)?;
        let current = self.event("m.room.power_levels", "");
        let power = Power {
            room: self,
            creators: &creators,
            levels: match current {
                None => None,
                Some(event) => Some(self.levels(&event["content"])?),
            },
        };
        if kind == "m.room.member" {
            return self.member(event, sender, state_key, &creators, &power);
        }
        if self.membership(sender)? != "join" {
            return Some(false);
        }
        let own = power.of(sender);
        if kind == "m.room.third_party_invite" {
            return Some(own >= power.number("invite"));
        }
        if power.to_send(kind, state_key) > own {
            return Some(false);
        }
        if state_key.is_some_and(|key| key.starts_with('@') && key != sender) {
            return Some(false);
        }
        if kind == "m.room.power_levels" {
            return power.change(event, sender, own);
        }
        if self.version <= 2 && kind == "m.room.redaction" {
            let server = |id: &Value| {
                id.as_str().and_then(|id| id.split_once(':')).map(|(_, server)| server.to_owned())
            };
            let (ours, theirs) = (server(&event["event_id"]), server(&event["redacts"]));
            if own >= power.number("redact") {
                return Some(true);
            }
            return Some(ours? == theirs?);
        }
        Some(true)
    }

    fn member(
        &self,
        event: &Value,
        sender: &str,
        state_key: Option<&str>,
        creators: &[&str],
        power: &Power<'_>,
    ) -> Option<bool> {
        let content = &event["content"];
        let Some(target) = state_key else { return Some(false) };
        server_of(target)?;
        let membership = match content.get("membership") {
            None => return Some(false),
            Some(membership) => membership.as_str()?,
        };
        let (own, theirs) = (self.membership(sender)?, self.membership(target)?);
        match membership {
            "join" => self.join(event, sender, target, creators, power),
            "invite" if !content["third_party_invite"].is_null() => None,
            "invite" => Some(
                own == "join"
                    && !matches!(theirs, "join" | "ban")
                    && power.of(sender) >= power.number("invite"),
            ),
            "leave" if sender == target => {
                Some(matches!(own, "invite" | "join") || (self.version >= 7 && own == "knock"))
            }
            "leave" => {
                let level = power.of(sender);
                let unbans = theirs != "ban" || level >= power.number("ban");
                Some(own == "join" && unbans && level >= power.number("kick") && power.of(target) < level)
            }
            "ban" => {
                let level = power.of(sender);
                Some(own == "join" && level >= power.number("ban") && power.of(target) < level)
            }
            "knock" if self.version >= 7 => {
                let rule = self.join_rule();
                let allows =
                    rule == Some("knock") || (self.version >= 10 && rule == Some("knock_restricted"));
                Some(allows && sender == target && !matches!(own, "ban" | "invite" | "join"))
            }
            _ => Some(false),
        }
    }

    fn join(
        &self,
        event: &Value,
        sender: &str,
        target: &str,
        creators: &[&str],
        power: &Power<'_>,
    ) -> Option<bool> {
        let create = self.event("m.room.create", "")?;
        let only = event["prev_events"].as_array().filter(|ids| ids.len() == 1).map(|ids| &ids[0]);
        let follows_create = only.is_some_and(|id| *id == create["event_id"] || id[0] == create["event_id"]);
        if follows_create && target == creators[0] {
            return Some(true);
        }
        if sender != target {
            return Some(false);
        }
        let own = self.membership(sender)?;
        if own == "ban" {
            return Some(false);
        }
        let here = matches!(own, "invite" | "join");
        let Some(rule) = self.join_rule() else {
            // Without join rules it is as if they were `invite`, as it is everywhere else; what isn't text is unclear.
            return self.event("m.room.join_rules", "").is_none().then_some(here);
        };
        match rule {
            "invite" => Some(here),
            "knock" if self.version >= 7 => Some(here),
            "restricted" if self.version >= 8 => self.restricted(event, here, power),
            "knock_restricted" if self.version >= 10 => self.restricted(event, here, power),
            "public" => Some(true),
            _ => Some(false),
        }
    }

    fn restricted(&self, event: &Value, here: bool, power: &Power<'_>) -> Option<bool> {
        if here {
            return Some(true);
        }
        let Some(voucher) = event["content"].get("join_authorised_via_users_server") else {
            return Some(false);
        };
        let voucher = voucher.as_str().filter(|user| server_of(user).is_some())?;
        Some(self.membership(voucher)? == "join" && power.of(voucher) >= power.number("invite"))
    }
}

#[derive(Default)]
struct Levels {
    numbers: BTreeMap<&'static str, i64>,
    users: BTreeMap<String, i64>,
    events: BTreeMap<String, i64>,
    notifications: BTreeMap<String, i64>,
}

struct Power<'a> {
    room: &'a Room<'a>,
    creators: &'a [&'a str],
    levels: Option<Levels>,
}

impl Power<'_> {
    fn of(&self, user: &str) -> i64 {
        let is_creator = self.creators.contains(&user);
        if is_creator && self.room.version >= 12 {
            return INFINITE;
        }
        match &self.levels {
            None => {
                if is_creator {
                    100
                } else {
                    0
                }
            }
            Some(levels) => levels.users.get(user).copied().unwrap_or_else(|| self.number("users_default")),
        }
    }

    fn number(&self, name: &str) -> i64 {
        let usual = NUMBERS.iter().find(|(other, _)| *other == name).map(|(_, usual)| *usual);
        let own = self.levels.as_ref().and_then(|levels| levels.numbers.get(name).copied());
        own.or(usual).expect("there is such a level")
    }

    fn to_send(&self, kind: &str, state_key: Option<&str>) -> i64 {
        let own = self.levels.as_ref().and_then(|levels| levels.events.get(kind).copied());
        own.unwrap_or_else(|| {
            self.number(if state_key.is_some() { "state_default" } else { "events_default" })
        })
    }

    /// "If type is `m.room.power_levels`".
    fn change(&self, event: &Value, sender: &str, own: i64) -> Option<bool> {
        let content = event["content"].as_object()?;
        let new = match self.room.levels(&event["content"]) {
            Some(new) => new,
            // From version 10 on each of them has to be a number.
            None if self.room.version >= 10 => return Some(false),
            // Before that the rules speak of users alone.
            None => {
                let users = content
                    .get("users")
                    .map_or(Some(Vec::new()), |users| users.as_object().map(|users| users.iter().collect()));
                let is_user = |(user, level): &(&String, &Value)| {
                    server_of(user).is_some() && self.room.level(level).is_some()
                };
                return if users.is_none_or(|users| !users.iter().all(is_user)) { Some(false) } else { None };
            }
        };
        if self.room.version >= 12 && self.creators.iter().any(|creator| new.users.contains_key(*creator)) {
            return Some(false);
        }
        // The room's power levels are those of the empty key: others change nothing of these.
        let Some(old) = self.levels.as_ref().filter(|_| event["state_key"] == "") else { return Some(true) };
        for (name, _) in NUMBERS {
            let (before, after) = (old.numbers.get(name).copied(), new.numbers.get(name).copied());
            if before == after {
                continue;
            }
            if before.is_some_and(|before| before > own) || after.is_some_and(|after| after > own) {
                return Some(false);
            }
        }
        let mut maps = vec![(&old.events, &new.events)];
        if self.room.version >= 6 {
            maps.push((&old.notifications, &new.notifications));
        }
        for (before, after) in maps {
            for key in before.keys().chain(after.keys()) {
                let (before, after) = (before.get(key), after.get(key));
                if before != after && before.into_iter().chain(after).any(|level| *level > own) {
                    return Some(false);
                }
            }
        }
        for user in old.users.keys().chain(new.users.keys()) {
            let (before, after) = (old.users.get(user), new.users.get(user));
            if before == after {
                continue;
            }
            let takes = user != sender && before.is_some_and(|before| *before >= own);
            if takes || after.is_some_and(|after| *after > own) {
                return Some(false);
            }
        }
        Some(true)
    }
}
