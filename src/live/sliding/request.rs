//! What a sliding sync request asks, whichever of the two forms it came in.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ruma::{OwnedRoomId, RoomId};
use serde::{Deserialize, Serialize};

use crate::queue::Token;

/// How a request was written, and how its answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As MSC4186 was merged.
    Merged,
    /// As clients in the field speak it, from before that.
    Early,
}

#[derive(Debug)]
pub struct Request {
    pub form: Form,
    /// Empty: the connection without a name.
    pub conn_id: String,
    /// Given back in the answer (early form).
    pub txn_id: Option<String>,
    pub pos: Option<String>,
    pub timeout: Duration,
    pub wishes: Wishes,
    /// Apart from what stays the same from request to request.
    pub mail: Option<Mail>,
}

#[cfg(test)]
impl Request {
    /// One of a connection without a name, that doesn't wait.
    pub(crate) fn new(wishes: Wishes, pos: Option<&str>) -> Self {
        Self {
            form: Form::Merged,
            conn_id: String::new(),
            txn_id: None,
            pos: pos.map(str::to_owned),
            timeout: Duration::ZERO,
            wishes,
            mail: None,
        }
    }
}

/// What the client wants to be told of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wishes {
    pub lists: BTreeMap<String, List>,
    pub subscriptions: BTreeMap<OwnedRoomId, Config>,
    pub extensions: Extensions,
}

#[cfg(test)]
impl Wishes {
    /// The rooms up to the index `last`.
    pub(crate) fn rooms(config: Config, last: u64) -> Self {
        let list = List { config, ranges: vec![(0, last)], filters: Filters::default() };
        Self { lists: BTreeMap::from([("all".to_owned(), list)]), ..Self::default() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    pub config: Config,
    /// First and last index of each window.
    pub ranges: Vec<(u64, u64)>,
    pub filters: Filters,
}

impl List {
    pub(super) fn shows(&self, index: u64) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&index))
    }

    /// The last index of all windows.
    pub(super) fn last(&self) -> Option<u64> {
        self.ranges.iter().map(|(_, last)| *last).max()
    }

    /// Whether the windows show a whole list of that length.
    pub(super) fn shows_all(&self, count: u64) -> bool {
        let mut next = 0;
        let mut ranges = self.ranges.clone();
        ranges.sort_unstable();
        for (first, last) in ranges {
            if first <= next && last >= next {
                next = last.saturating_add(1);
            }
        }
        next >= count
    }
}

/// Which rooms are in a list: those that meet every condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filters {
    pub is_dm: Option<bool>,
    pub is_encrypted: Option<bool>,
    pub is_invite: Option<bool>,
    /// `None` in it is a room without a type.
    pub room_types: Option<Vec<Option<String>>>,
    pub not_room_types: Option<Vec<Option<String>>>,
    pub spaces: Option<Vec<OwnedRoomId>>,
    pub tags: Option<Vec<String>>,
    pub not_tags: Option<Vec<String>>,
}

/// What to tell of a room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    pub timeline_limit: usize,
    /// State that one of these asks for.
    pub state: Vec<Required>,
}

impl Config {
    /// What asks for all that either asks for.
    pub(super) fn join(&mut self, other: &Self) {
        self.timeline_limit = self.timeline_limit.max(other.timeline_limit);
        for required in &other.state {
            if !self.state.contains(required) {
                self.state.push(required.clone());
            }
        }
    }

    pub fn wants(&self, kind: &str, state_key: &str) -> bool {
        self.state.iter().any(|required| required.wants(kind, state_key))
    }

    pub(super) fn lazy_members(&self) -> bool {
        self.state.iter().any(|required| required.lazy_members)
    }

    pub(super) fn wants_state(&self) -> bool {
        self.state.iter().any(|required| !required.include.is_empty())
    }
}

/// A part of a room's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Required {
    pub include: Vec<Key>,
    pub exclude: Vec<Key>,
    /// Of the members only those whom the timeline speaks of, and those who are included by their ids.
    pub lazy_members: bool,
}

impl Required {
    fn wants(&self, kind: &str, state_key: &str) -> bool {
        let lazy = self.lazy_members && kind == "m.room.member";
        self.include.iter().any(|key| key.fits(kind, state_key) && !(lazy && key.state_key.is_none()))
            && !self.exclude.iter().any(|key| key.fits(kind, state_key))
    }
}

/// `None` stands for any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub kind: Option<String>,
    pub state_key: Option<String>,
}

impl Key {
    fn fits(&self, kind: &str, state_key: &str) -> bool {
        self.kind.as_deref().is_none_or(|own| own == kind)
            && self.state_key.as_deref().is_none_or(|own| own == state_key)
    }
}

/// What is wanted beside rooms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extensions {
    pub e2ee: bool,
    pub account_data: Option<Scope>,
    pub receipts: Option<Scope>,
    pub typing: Option<Scope>,
    /// The most changes of thread subscriptions an answer.
    pub threads: Option<i64>,
    pub profiles: Option<Profiles>,
}

/// Which profiles are wanted: of the people in these rooms, and of everybody when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profiles {
    pub scope: Scope,
    pub fields: Fields,
}

/// Fields of profiles; `None`: all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fields(pub Option<BTreeSet<String>>);

impl Fields {
    pub(super) fn has(&self, field: &str) -> bool {
        self.0.as_ref().is_none_or(|own| own.contains(field))
    }

    /// Whether all of the others are among them.
    pub(super) fn cover(&self, others: &Self) -> bool {
        match (&self.0, &others.0) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(others)) => own.is_superset(others),
        }
    }
}

/// Which messages to the device are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mail {
    /// The client has all up to here. Without it: all that it hasn't acknowledged.
    pub since: Option<Token>,
    pub limit: usize,
}

/// The rooms that an extension is wanted for; `None`: all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    pub lists: Option<Vec<String>>,
    /// Those that are subscribed to (`*`), or these.
    pub rooms: Option<Vec<String>>,
}

impl Scope {
    /// Whether a room of these lists is among them.
    pub(super) fn covers(&self, room_id: &RoomId, lists: &[&str], subscribed: bool) -> bool {
        let listed = match &self.lists {
            None => !lists.is_empty(),
            Some(wanted) => {
                lists.iter().any(|list| wanted.iter().any(|wanted| wanted == list || wanted == "*"))
            }
        };
        let named = match &self.rooms {
            None => subscribed,
            Some(wanted) => {
                wanted.iter().any(|wanted| wanted == room_id.as_str() || (wanted == "*" && subscribed))
            }
        };
        listed || named
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: Option<&str>, state_key: Option<&str>) -> Key {
        Key { kind: kind.map(str::to_owned), state_key: state_key.map(str::to_owned) }
    }

    #[test]
    fn required_state_is_included_unless_it_is_excluded() {
        let all_but_one = Required {
            include: vec![Key::default()],
            exclude: vec![key(Some("m.room.create"), Some(""))],
            lazy_members: false,
        };
        assert!(all_but_one.wants("m.room.name", "") && all_but_one.wants("m.room.member", "@a:b"));
        assert!(!all_but_one.wants("m.room.create", ""));
        assert!(!Required::default().wants("m.room.name", ""));
    }

    #[test]
    fn lazy_members_are_left_out_unless_they_are_named() {
        let lazy = Required {
            include: vec![Key::default(), key(Some("m.room.member"), Some("@me:b"))],
            lazy_members: true,
            ..Required::default()
        };
        assert!(lazy.wants("m.room.name", "") && lazy.wants("m.room.member", "@me:b"));
        assert!(!lazy.wants("m.room.member", "@a:b"));
        let mut both = Config { timeline_limit: 1, state: vec![lazy] };
        both.join(&Config {
            timeline_limit: 5,
            state: vec![Required { include: vec![Key::default()], ..Required::default() }],
        });
        assert!(both.wants("m.room.member", "@a:b"), "the other one asks for all");
        assert_eq!(both.timeline_limit, 5);
    }

    #[test]
    fn windows_show_a_list_whole_if_nothing_is_between_them() {
        let list = |ranges: &[(u64, u64)]| List {
            config: Config::default(),
            ranges: ranges.to_vec(),
            filters: Filters::default(),
        };
        assert!(list(&[(0, 9)]).shows_all(10) && !list(&[(0, 9)]).shows_all(11));
        assert!(list(&[(5, 9), (0, 4)]).shows_all(10));
        assert!(!list(&[(0, 3), (5, 9)]).shows_all(10));
        assert!(!list(&[(1, 9)]).shows_all(1) && list(&[]).shows_all(0));
        assert!(list(&[(0, u64::MAX)]).shows_all(u64::MAX));
    }

    #[test]
    fn an_extension_covers_what_its_scope_names() {
        let (one, two) = (ruma::room_id!("!one:b"), ruma::room_id!("!two:b"));
        let all = Scope::default();
        assert!(all.covers(one, &["a"], false) && all.covers(one, &[], true) && !all.covers(one, &[], false));
        let some = Scope { lists: Some(vec!["a".to_owned()]), rooms: Some(vec![one.to_string()]) };
        assert!(some.covers(two, &["b", "a"], false) && some.covers(one, &["b"], false));
        assert!(!some.covers(two, &["b"], true));
        let nothing = Scope { lists: Some(vec![]), rooms: Some(vec![]) };
        assert!(!nothing.covers(one, &["a"], true));
    }
}
