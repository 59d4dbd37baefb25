//! The names that users choose: what a new account may be called ("User Identifiers" of the appendices).

use ruma::{OwnedUserId, ServerName, UserId};

use super::Error;

/// The largest user id, `@` and server name included.
const MAX_BYTES: usize = 255;

/// The id of a new account, from what somebody typed: case is folded, everything else has to be right already.
pub fn new_user_id(localpart: &str, server: &ServerName) -> Result<OwnedUserId, Error> {
    let localpart = localpart.to_lowercase();
    if localpart.is_empty() {
        return Err(Error::InvalidUsername("the user name is empty".to_owned()));
    }
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._=-/+".contains(&byte);
    if !localpart.bytes().all(allowed) {
        return Err(Error::InvalidUsername("a user name may have a-z, 0-9 and . _ = - / + only".to_owned()));
    }
    // As others do: such names stand for guests and for people of other networks.
    if localpart.starts_with('_') || localpart.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::InvalidUsername(
            "a user name can't begin with an underscore or consist of digits only".to_owned(),
        ));
    }
    let id = format!("@{localpart}:{server}");
    if id.len() > MAX_BYTES {
        return Err(Error::InvalidUsername(format!(
            "the whole user id would be longer than {MAX_BYTES} bytes"
        )));
    }
    UserId::parse(id).map_err(|cause| Error::InvalidUsername(cause.to_string()))
}

/// The account that somebody means who logs in by localpart or by full id. `None`: none of this server.
pub fn meant_by(user: &str, server: &ServerName) -> Option<OwnedUserId> {
    let localpart = match user.strip_prefix('@').and_then(|rest| rest.split_once(':')) {
        Some((localpart, host)) if host == server.as_str() => localpart,
        Some(_) => return None,
        None => user,
    };
    UserId::parse(format!("@{}:{server}", localpart.to_lowercase())).ok()
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    #[test]
    fn au_12_names_are_folded_and_their_grammar_enforced() {
        let server = server_name!("example.org");
        assert_eq!(new_user_id("Alice.O-1/x=_+", server).unwrap(), "@alice.o-1/x=_+:example.org");
        for bad in ["", "a b", "a/../:x", "@a", "a:example.org", "ä", "a\0", "_irc_bob", "12345", "a#"] {
            assert!(matches!(new_user_id(bad, server), Err(Error::InvalidUsername(_))), "{bad:?}");
        }
    }

    #[test]
    fn au_12_the_whole_id_has_255_bytes() {
        let server = server_name!("example.org");
        let most = 255 - "@:example.org".len();
        assert!(new_user_id(&"a".repeat(most), server).is_ok());
        assert!(new_user_id(&"a".repeat(most + 1), server).is_err());
    }

    #[test]
    fn au_09_a_login_names_the_localpart_or_the_full_id() {
        let server = server_name!("example.org:8448");
        for user in ["alice", "Alice", "@alice:example.org:8448"] {
            assert_eq!(meant_by(user, server).unwrap(), "@alice:example.org:8448", "{user}");
        }
        assert_eq!(meant_by("@alice:evil.org", server), None);
    }
}
