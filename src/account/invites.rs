//! Whose invites somebody takes: the account data `m.invite_permission_config` ("Invite permission") and, finer, that of
//! MSC4155, which allows, ignores or blocks users and servers by lists of globs.

use std::{collections::HashSet, sync::Arc};

use ruma::{OwnedUserId, UserId};
use serde::Deserialize;

use super::{Accounts, Error};
use crate::store::{self, account_data::GLOBAL};

/// The types of the account data: `default_action`, in the specification and as it was proposed.
const PERMISSION: [&str; 2] = ["m.invite_permission_config", "org.matrix.msc4380.invite_permission_config"];
/// The lists.
const LISTS: &str = "org.matrix.msc4155.invite_permission_config";

/// Bytes of all patterns with wildcards in the lists of one user: each is held against every invite.
const MAX_GLOBS: usize = 16 * 1024;

/// What becomes of an invite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InviteVerdict {
    Allowed,
    /// It is made, but the invited user never hears of it.
    Ignored,
    /// Whoever invites is told that it isn't taken.
    Blocked,
}

/// Whose invites somebody takes. Most take everybody's.
#[derive(Clone, Debug, Default)]
pub struct InvitePermissions(Option<Arc<Rules>>);

#[derive(Debug)]
struct Rules {
    /// SN-01: the account by which the server itself speaks, which nobody turns away.
    always: Option<OwnedUserId>,
    all_blocked: bool,
    lists: Option<Lists>,
}

/// MSC4155, with what it is called there.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Lists {
    enabled: Option<bool>,
    allowed_users: Patterns,
    ignored_users: Patterns,
    blocked_users: Patterns,
    allowed_servers: Patterns,
    ignored_servers: Patterns,
    blocked_servers: Patterns,
}

/// Globs, and the many among them that are none. A list that is null is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "Option<Vec<String>>")]
struct Patterns {
    exact: HashSet<String>,
    globs: Vec<String>,
}

impl From<Option<Vec<String>>> for Patterns {
    fn from(patterns: Option<Vec<String>>) -> Self {
        let (globs, exact): (Vec<_>, Vec<_>) =
            patterns.unwrap_or_default().into_iter().partition(|pattern| pattern.contains(['*', '?']));
        Self { exact: exact.into_iter().collect(), globs }
    }
}

impl Patterns {
    fn hold(&self, text: &str) -> bool {
        self.exact.contains(text) || self.globs.iter().any(|glob| matches(glob, text))
    }

    fn glob_bytes(&self) -> usize {
        self.globs.iter().map(String::len).sum()
    }
}

impl Lists {
    /// The first list that the inviter is in decides; those of users come before those of servers.
    fn verdict(&self, inviter: &UserId) -> InviteVerdict {
        use InviteVerdict::{Allowed, Blocked, Ignored};
        let (user, server) = (inviter.as_str(), inviter.server_name().as_str());
        let lists = [
            (&self.allowed_users, user, Allowed),
            (&self.ignored_users, user, Ignored),
            (&self.blocked_users, user, Blocked),
            (&self.allowed_servers, server, Allowed),
            (&self.ignored_servers, server, Ignored),
            (&self.blocked_servers, server, Blocked),
        ];
        let deciding = lists.into_iter().find(|(list, text, _)| list.hold(text));
        deciding.map_or(Allowed, |(_, _, verdict)| verdict)
    }

    fn glob_bytes(&self) -> usize {
        let users = [&self.allowed_users, &self.ignored_users, &self.blocked_users];
        let servers = [&self.allowed_servers, &self.ignored_servers, &self.blocked_servers];
        users.into_iter().chain(servers).map(Patterns::glob_bytes).sum()
    }
}

impl InvitePermissions {
    pub fn verdict(&self, inviter: &UserId) -> InviteVerdict {
        match &self.0 {
            None => InviteVerdict::Allowed,
            Some(rules) if rules.always.as_deref() == Some(inviter) => InviteVerdict::Allowed,
            Some(rules) if rules.all_blocked => InviteVerdict::Blocked,
            Some(rules) => {
                rules.lists.as_ref().map_or(InviteVerdict::Allowed, |lists| lists.verdict(inviter))
            }
        }
    }
}

/// Whether a type of account data says whose invites are taken.
pub(super) fn is_about_invites(kind: &str) -> bool {
    kind == LISTS || PERMISSION.contains(&kind)
}

/// Refuses lists that would cost too much to apply.
pub(super) fn check(kind: &str, content: &str) -> Result<(), Error> {
    if kind == LISTS
        && let Ok(lists) = serde_json::from_str::<Lists>(content)
        && lists.glob_bytes() > MAX_GLOBS
    {
        return Err(Error::TooLarge { what: "the length of all patterns with wildcards", limit: MAX_GLOBS });
    }
    Ok(())
}

impl Accounts {
    /// Whose invites an account of this server takes.
    pub async fn invite_permissions(&self, recipient: i64) -> Result<InvitePermissions, store::Error> {
        self.invites.get(recipient, self.stored_invite_permissions(recipient)).await
    }

    async fn stored_invite_permissions(&self, recipient: i64) -> Result<InvitePermissions, store::Error> {
        #[derive(Deserialize)]
        struct Permission {
            default_action: Option<String>,
            /// The proposal had this at first.
            block_all: Option<bool>,
        }
        // Clients write what they like: what can't be read forbids nothing.
        let mut all_blocked = false;
        for kind in PERMISSION {
            let content = self.store.account_data(recipient, GLOBAL, kind).await?;
            let content = content.and_then(|content| serde_json::from_str::<Permission>(&content).ok());
            all_blocked |= content.is_some_and(|content| {
                content.default_action.as_deref() == Some("block") || content.block_all == Some(true)
            });
        }
        let lists = self.store.account_data(recipient, GLOBAL, LISTS).await?;
        let lists = lists.and_then(|content| serde_json::from_str::<Lists>(&content).ok());
        let lists = lists.filter(|lists| lists.enabled != Some(false));
        let takes_all = !all_blocked && lists.is_none();
        let always = self.reserved.clone();
        Ok(InvitePermissions((!takes_all).then(|| Arc::new(Rules { always, all_blocked, lists }))))
    }
}

/// Whether `text` is like `glob`, in which `*` stands for any characters and `?` for one. Takes at most as many steps as
/// the product of their lengths.
fn matches(glob: &str, text: &str) -> bool {
    let (glob, text): (Vec<char>, Vec<char>) = (glob.chars().collect(), text.chars().collect());
    let (mut at_glob, mut at_text) = (0, 0);
    // Where the last star is, and up to where in the text it stands for.
    let mut star: Option<(usize, usize)> = None;
    while at_text < text.len() {
        match glob.get(at_glob) {
            Some('*') => {
                star = Some((at_glob, at_text));
                at_glob += 1;
            }
            Some(character) if *character == '?' || *character == text[at_text] => {
                at_glob += 1;
                at_text += 1;
            }
            _ => {
                let Some((glob_of_star, covered)) = star else { return false };
                star = Some((glob_of_star, covered + 1));
                at_glob = glob_of_star + 1;
                at_text = covered + 1;
            }
        }
    }
    glob[at_glob..].iter().all(|character| *character == '*')
}

#[cfg(test)]
mod tests {
    use ruma::user_id;
    use serde_json::{Value, json};

    use super::{
        InviteVerdict::{Allowed, Blocked, Ignored},
        *,
    };

    #[test]
    fn globs_are_matched_whole_and_in_bounded_time() {
        for (glob, text, fits) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*:x.org", "@a:y.org:x.org", true),
            ("a", "ab", false),
            ("?", "ü", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(glob, text), fits, "{glob} {text}");
        }
        // Backtracking over all stars would never end.
        let (glob, text) = (format!("{}b", "*a".repeat(200)), "a".repeat(255));
        assert!(!matches(&glob, &text));
    }

    #[test]
    fn msc4155_the_first_list_that_holds_the_inviter_decides() {
        let verdict =
            |lists: Value| serde_json::from_value::<Lists>(lists).unwrap().verdict(user_id!("@eve:evil.org"));
        for (lists, expected) in [
            (json!({}), Allowed),
            (json!({ "blocked_servers": ["*"] }), Blocked),
            (json!({ "blocked_servers": ["evil.???"], "ignored_servers": ["evil.org"] }), Ignored),
            (json!({ "blocked_servers": ["*"], "allowed_servers": ["evil.org"] }), Allowed),
            (json!({ "allowed_servers": ["*"], "blocked_users": ["@eve:*"] }), Blocked),
            (json!({ "blocked_users": ["*"], "ignored_users": ["@eve:evil.org"] }), Ignored),
            (json!({ "blocked_users": ["*"], "allowed_users": ["@eve:evil.org"] }), Allowed),
            (json!({ "blocked_users": ["eve"], "blocked_servers": ["evil"] }), Allowed),
        ] {
            assert_eq!(verdict(lists.clone()), expected, "{lists}");
        }
    }

    #[test]
    fn msc4155_lists_are_bounded() {
        let lists = |length: usize| json!({ "blocked_users": ["*".repeat(length)] }).to_string();
        assert!(check(LISTS, &lists(MAX_GLOBS)).is_ok());
        assert!(matches!(check(LISTS, &lists(MAX_GLOBS + 1)), Err(Error::TooLarge { .. })));
        assert!(check("com.example", &lists(MAX_GLOBS + 1)).is_ok());
    }
}
