//! Which servers a room lets speak to it (`m.room.server_acl`).
//!
//! It is asked by whatever takes something of a room from another server, or gives it something. It never judges events:
//! whatever comes by the way of a server that is let in is judged by the rules of the room alone.
//!
//! Specification: [Server Access Control Lists](https://spec.matrix.org/v1.19/client-server-api/#server-access-control-lists-acls-for-rooms).

use ruma::{ServerName, events::StateEventType};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Error, Snapshot};

/// A list as it is in the room. What isn't as it should be there counts as not being there.
#[derive(Deserialize)]
struct Lists<'a> {
    #[serde(default, borrow)]
    allow: Option<&'a RawValue>,
    #[serde(default, borrow)]
    deny: Option<&'a RawValue>,
    #[serde(default, borrow)]
    allow_ip_literals: Option<&'a RawValue>,
}

/// The strings of an array, whatever else is in it.
struct Strings(Vec<String>);

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Item {
            Pattern(String),
            Other(serde::de::IgnoredAny),
        }
        let items = Vec::<Item>::deserialize(deserializer)?.into_iter();
        let patterns = items.filter_map(|item| match item {
            Item::Pattern(pattern) => Some(pattern),
            Item::Other(_) => None,
        });
        Ok(Self(patterns.collect()))
    }
}

fn patterns(list: Option<&RawValue>) -> Vec<String> {
    let strings = list.and_then(|list| serde_json::from_str::<Strings>(list.get()).ok());
    strings.map_or_else(Vec::new, |strings| strings.0)
}

impl Snapshot {
    /// Whether the room's access control list lets a server in (AC-03).
    pub fn lets_in(&self, server: &ServerName) -> bool {
        self.state.get(&StateEventType::RoomServerAcl, "").is_none_or(|acl| allows(&acl.pdu.content, server))
    }

    /// [`Self::lets_in`], as an error (AC-01).
    pub fn check_acl(&self, server: &ServerName) -> Result<(), Error> {
        if self.lets_in(server) {
            return Ok(());
        }
        Err(Error::forbidden("the room's access control list doesn't let your server in"))
    }
}

/// Whether a list, as text, lets a server in. For tests of the reading alone.
pub fn acl_allows(content: &str, server: &ServerName) -> bool {
    serde_json::from_str::<&RawValue>(content).is_ok_and(|content| allows(content, server))
}

fn allows(content: &RawValue, server: &ServerName) -> bool {
    let lists: Lists<'_> = match serde_json::from_str(content.get()) {
        Ok(lists) => lists,
        // AC-05
        Err(_) => return false,
    };
    // AC-06
    let no_literals = lists.allow_ip_literals.is_some_and(|allowed| allowed.get().trim() == "false");
    if no_literals && server.is_ip_literal() {
        return false;
    }
    let host = server.host().to_ascii_lowercase();
    let on = |list: Vec<String>| list.iter().any(|pattern| matches(&pattern.to_ascii_lowercase(), &host));
    !on(patterns(lists.deny)) && on(patterns(lists.allow))
}

/// Whether a glob matches all of a text. Each part between two stars is taken where it first fits, so nothing is tried
/// again from the start.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, mut rest) = (pattern.as_bytes(), text.as_bytes());
    if pattern.iter().filter(|byte| **byte != b'*').count() > rest.len() {
        return false;
    }
    let mut parts = pattern.split(|byte| *byte == b'*');
    let first = parts.next().unwrap_or_default();
    let Some(last) = parts.next_back() else {
        return first.len() == rest.len() && fits(first, rest);
    };
    if !fits(first, rest) {
        return false;
    }
    rest = &rest[first.len()..];
    for part in parts.filter(|part| !part.is_empty()) {
        let Some(at) = rest.windows(part.len()).position(|window| fits(part, window)) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.len() >= last.len() && fits(last, &rest[rest.len() - last.len()..])
}

/// Whether a text begins with a part of a pattern.
fn fits(part: &[u8], text: &[u8]) -> bool {
    part.len() <= text.len()
        && part.iter().zip(text).all(|(wanted, found)| *wanted == b'?' || wanted == found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::needless_pass_by_value)]

    use serde_json::{Value, json, value::to_raw_value};

    use super::*;

    fn lets_in(acl: Value, server: &str) -> bool {
        allows(&to_raw_value(&acl).unwrap(), <&ServerName>::try_from(server).unwrap())
    }

    #[test]
    fn ac_03_what_is_denied_is_denied_whatever_is_allowed() {
        let acl = json!({ "allow": ["*"], "deny": ["*.evil.com", "evil.com"], "allow_ip_literals": false });
        assert!(lets_in(acl.clone(), "good.com"));
        assert!(lets_in(acl.clone(), "evil.com.org"));
        for server in ["evil.com", "a.evil.com", "a.b.evil.com", "1.2.3.4", "[::1]", "[2001:db8::1]:8448"] {
            assert!(!lets_in(acl.clone(), server), "{server}");
        }
        let few = json!({ "allow": ["good.com", "also.good.com"] });
        assert!(lets_in(few.clone(), "also.good.com"));
        assert!(!lets_in(few, "other.com"));
    }

    #[test]
    fn ac_04_the_port_and_the_case_dont_count() {
        let acl = json!({ "allow": ["*"], "deny": ["EVIL.com", "?.four.com"] });
        for server in ["evil.com:1234", "Evil.Com", "x.four.com:80", "X.FOUR.com"] {
            assert!(!lets_in(acl.clone(), server), "{server}");
        }
        for server in ["xx.four.com", ".four.com", "evil.comm"] {
            assert!(ServerName::parse(server).is_err() || lets_in(acl.clone(), server), "{server}");
        }
    }

    #[test]
    fn ac_05_without_anybody_who_is_allowed_nobody_is() {
        for acl in [json!({}), json!({ "allow": [] }), json!({ "allow": "*" }), json!({ "deny": [] })] {
            assert!(!lets_in(acl.clone(), "good.com"), "{acl}");
        }
        let mixed = json!({ "allow": [1, null, ["*"], "good.com", { "a": "*" }], "deny": 7 });
        assert!(lets_in(mixed.clone(), "good.com"));
        assert!(!lets_in(mixed, "other.com"));
    }

    #[test]
    fn ac_06_only_false_keeps_ip_literals_out() {
        for value in [json!(true), json!(0), json!("false"), json!(null), json!([false])] {
            assert!(
                lets_in(json!({ "allow": ["*"], "allow_ip_literals": value }), "1.2.3.4:8448"),
                "{value}"
            );
        }
        assert!(lets_in(json!({ "allow": ["1.2.3.*"] }), "1.2.3.4"));
    }

    #[test]
    fn globs_match_the_whole_name() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("*", "", true),
            ("", "a", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("*ab*ab", "ab", false),
            ("*ab*ab", "abab", true),
            ("**a**", "bab", true),
            ("a?c*", "abcd", true),
            ("?", "", false),
            ("a*a", "a", false),
            ("*.com", "com", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
        }
    }
}
