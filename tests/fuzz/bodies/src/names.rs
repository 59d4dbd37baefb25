//! Names of servers, users, rooms and aliases, by the grammar of the specification's appendices.
//!
//! Hearth reads them by ruma, whose grammar of ports is wider: a plus sign and any number of zeros may be before the digits.
//! Such a server is as unreachable as any that isn't there, so that is left as it is, and said here.

use std::net::{Ipv4Addr, Ipv6Addr};

use hearth::testing::reading::{meant_by, new_user_id};
use ruma::{RoomAliasId, RoomId, ServerName, UserId, server_name};

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let server = ServerName::parse(text);
    assert_eq!(server.is_ok(), is_server_name(text), "{text:?} as a server name: {server:?}");
    if let Ok(server) = server {
        let host = server.host();
        let port = server.port().map_or_else(String::new, |port| format!(":{port}"));
        let rest = text.strip_prefix(host).expect("a name begins with its host");
        assert_eq!(rest.is_empty(), port.is_empty());
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_literal = host.parse::<Ipv4Addr>().is_ok()
            || bracketed.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
        assert_eq!(server.is_ip_literal(), is_literal, "{text:?}");
    }
    for (sigil, ok) in
        [('@', <&UserId>::try_from(text).is_ok()), ('#', <&RoomAliasId>::try_from(text).is_ok())]
    {
        assert_eq!(ok, is_id(text, sigil), "{text:?} as an id with {sigil}");
    }
    // The id of a room of version 12 has no server, and nothing before a server's name is looked at.
    let is_room = text.starts_with('!') && text.len() <= 255 && !text.contains('\0');
    assert_eq!(<&RoomId>::try_from(text).is_ok(), is_room, "{text:?} as a room's id");
    account(text);
}

fn is_server_name(text: &str) -> bool {
    let (host, port) = if text.starts_with('[') {
        match text.find(']') {
            Some(end) => (&text[..=end], &text[end + 1..]),
            None => return false,
        }
    } else {
        let end = text.find(':').unwrap_or(text.len());
        text.split_at(end)
    };
    let is_host = match host.strip_prefix('[') {
        Some(address) => address.trim_end_matches(']').parse::<Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
        }
    };
    let is_port = match port.strip_prefix(':') {
        None => port.is_empty(),
        Some(port) => {
            let digits = port.strip_prefix('+').unwrap_or(port);
            let value = digits.trim_start_matches('0');
            !digits.is_empty()
                && digits.bytes().all(|byte| byte.is_ascii_digit())
                && value.len() <= 5
                && value.parse::<u32>().unwrap_or_default() <= 65_535
        }
    };
    is_host && is_port && text.len() <= 261
}

fn is_id(text: &str, sigil: char) -> bool {
    let Some((localpart, server)) = text.strip_prefix(sigil).and_then(|rest| rest.split_once(':')) else {
        return false;
    };
    text.len() <= 255 && !localpart.contains('\0') && is_server_name(server)
}

/// What is typed as a user's name, at registration and at login.
fn account(text: &str) {
    let server = server_name!("example.org");
    let made = new_user_id(text, server);
    let lower = text.to_lowercase();
    let is_name = !lower.is_empty()
        && lower
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._=-/+".contains(&byte))
        && !lower.starts_with('_')
        && !lower.bytes().all(|byte| byte.is_ascii_digit())
        && lower.len() + "@:example.org".len() <= 255;
    assert_eq!(made.is_some(), is_name, "{text:?} as a new user's name: {made:?}");
    if let Some(made) = made {
        assert_eq!(meant_by(text, server).as_ref(), Some(&made), "who registered can log in");
        assert_eq!(meant_by(made.as_str(), server).as_ref(), Some(&made));
    }
    if let Some(meant) = meant_by(text, server) {
        assert_eq!(meant.server_name(), server, "nobody of another server logs in here");
    }
}
