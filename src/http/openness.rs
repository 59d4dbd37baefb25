//! What accounts may ask for that may not ask for everything.
//!
//! A *suspended* account may look at anything, keep its own affairs, and leave ("Account suspension"): reading is free, and
//! of the requests that change something those of [`SUSPENDED`] are open. A *guest* may use what "Guest Access" lists and
//! nothing else ([`GUESTS`]). So a new route is closed to both until it is listed here. Where it depends on what is sent,
//! the handler looks again ([`MatrixError::suspended`], [`MatrixError::guest`]).
//!
//! Every session is checked when it is identified, whatever the handler is: [`check`] looks at what the route has put into
//! the request.

use http::{Method, request::Parts};

use super::MatrixError;
use crate::account::Session;

/// Method and path, without the version and with parameters unnamed.
type Open = (Method, &'static str);

const SUSPENDED: &[Open] = &[
    // Ends of sessions and of the account.
    (Method::POST, "logout"),
    (Method::POST, "logout/all"),
    (Method::DELETE, "devices/{}"),
    (Method::POST, "delete_devices"),
    (Method::POST, "account/password"),
    (Method::POST, "account/deactivate"),
    // Leaving; what one has said oneself may be redacted.
    (Method::POST, "rooms/{}/leave"),
    (Method::POST, "rooms/{}/forget"),
    (Method::PUT, "rooms/{}/redact/{}/{}"),
    (Method::PUT, "rooms/{}/send/{}/{}"),
    (Method::PUT, "rooms/{}/state/{}"),
    (Method::PUT, "rooms/{}/state/{}/{}"),
    // Reading that is asked for with a body, or leaves a trace.
    (Method::POST, "user/{}/filter"),
    (Method::POST, "search"),
    (Method::POST, "sync"),
    (Method::POST, "user_directory/search"),
    (Method::POST, "publicRooms"),
    (Method::POST, "rooms/{}/receipt/{}/{}"),
    (Method::POST, "rooms/{}/read_markers"),
    // What nobody else sees.
    (Method::PUT, "user/{}/account_data/{}"),
    (Method::DELETE, "user/{}/account_data/{}"),
    (Method::PUT, "user/{}/rooms/{}/account_data/{}"),
    (Method::DELETE, "user/{}/rooms/{}/account_data/{}"),
    (Method::PUT, "user/{}/rooms/{}/tags/{}"),
    (Method::DELETE, "user/{}/rooms/{}/tags/{}"),
    (Method::PUT, "pushrules/global/{}/{}"),
    (Method::DELETE, "pushrules/global/{}/{}"),
    (Method::PUT, "pushrules/global/{}/{}/actions"),
    (Method::PUT, "pushrules/global/{}/{}/enabled"),
    (Method::PUT, "rooms/{}/thread/{}/subscription"),
    (Method::DELETE, "rooms/{}/thread/{}/subscription"),
    // Backups of keys.
    (Method::POST, "room_keys/version"),
    (Method::PUT, "room_keys/version/{}"),
    (Method::DELETE, "room_keys/version/{}"),
    (Method::PUT, "room_keys/keys"),
    (Method::PUT, "room_keys/keys/{}"),
    (Method::PUT, "room_keys/keys/{}/{}"),
    (Method::DELETE, "room_keys/keys"),
    (Method::DELETE, "room_keys/keys/{}"),
    (Method::DELETE, "room_keys/keys/{}/{}"),
    // Verifying the user's own devices, and reading what is encrypted. Messages go to no others.
    (Method::POST, "keys/upload"),
    (Method::POST, "keys/query"),
    (Method::POST, "keys/claim"),
    (Method::POST, "keys/signatures/upload"),
    (Method::POST, "keys/device_signing/upload"),
    (Method::PUT, "sendToDevice/{}/{}"),
    // To those who suspended it.
    (Method::POST, "rooms/{}/report"),
    (Method::POST, "rooms/{}/report/{}"),
    (Method::POST, "users/{}/report"),
];

/// The order is the specification's.
const GUESTS: &[Open] = &[
    // Events and media.
    (Method::GET, "rooms/{}/state"),
    (Method::GET, "rooms/{}/context/{}"),
    (Method::GET, "rooms/{}/event/{}"),
    (Method::GET, "rooms/{}/state/{}"),
    (Method::GET, "rooms/{}/state/{}/{}"),
    (Method::GET, "rooms/{}/messages"),
    (Method::GET, "rooms/{}/members"),
    (Method::GET, "rooms/{}/initialSync"),
    (Method::GET, "sync"),
    (Method::GET, "events"),
    (Method::GET, "media/download/{}/{}"),
    (Method::GET, "media/download/{}/{}/{}"),
    (Method::GET, "media/thumbnail/{}/{}"),
    // Sending.
    (Method::POST, "rooms/{}/join"),
    (Method::POST, "rooms/{}/leave"),
    (Method::PUT, "rooms/{}/send/{}/{}"),
    (Method::PUT, "rooms/{}/state/{}"),
    (Method::PUT, "rooms/{}/state/{}/{}"),
    (Method::PUT, "sendToDevice/{}/{}"),
    // Their own account.
    (Method::PUT, "profile/{}/{}"),
    (Method::DELETE, "profile/{}/{}"),
    (Method::GET, "devices"),
    (Method::GET, "devices/{}"),
    (Method::PUT, "devices/{}"),
    (Method::GET, "account/whoami"),
    // End-to-end encryption.
    (Method::POST, "keys/upload"),
    (Method::POST, "keys/query"),
    (Method::POST, "keys/claim"),
    // MSC4186: `sync` in windows.
    (Method::POST, "sync"),
    // Hearth's own: another way to `sync`, and to requests that are checked for what they are.
    (Method::GET, "v1/stream"),
];

/// To whom a route is open beside those who may use all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Openness {
    suspended: bool,
    guests: bool,
}

impl Openness {
    pub(super) fn of(method: &Method, path: &str) -> Self {
        let name = name(path);
        let listed = |table: &[Open]| table.iter().any(|(open, path)| open == method && *path == name);
        Self { suspended: method == Method::GET || listed(SUSPENDED), guests: listed(GUESTS) }
    }
}

/// Whether a session may make a request. A request that came by no route is open to nobody who may not do everything.
pub fn check(parts: &Parts, session: &Session) -> Result<(), MatrixError> {
    let open = parts.extensions.get::<Openness>().copied().unwrap_or_default();
    if session.guest && !open.guests {
        return Err(MatrixError::guest());
    }
    if session.suspended && !open.suspended { Err(MatrixError::suspended()) } else { Ok(()) }
}

/// `/_matrix/client/v3/rooms/{room_id}/leave` and `/_matrix/client/unstable/org.example/rooms/{id}/leave` are both
/// `rooms/{}/leave`.
fn name(path: &str) -> String {
    let mut segments = path.trim_start_matches("/_matrix/client/").split('/');
    if segments.next() == Some("unstable") {
        segments.next();
    }
    let unnamed = segments.map(|segment| if segment.starts_with('{') { "{}" } else { segment });
    unnamed.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::PathBuf};

    use super::*;
    use crate::{api::routes, config::Api};

    fn served() -> BTreeSet<(String, String)> {
        let routes = routes(&BTreeSet::from([Api::Client]), None);
        routes.served().iter().map(|(method, path)| (method.clone(), name(path))).collect()
    }

    fn listed(table: &[Open]) -> BTreeSet<(String, String)> {
        table.iter().map(|(method, path)| (method.to_string(), (*path).to_owned())).collect()
    }

    /// A misspelt line would open nothing, and one of a route that is gone would open whatever takes its place.
    #[test]
    fn every_route_that_is_open_to_the_suspended_is_there() {
        let missing: Vec<_> = listed(SUSPENDED).difference(&served()).cloned().collect();
        assert_eq!(missing, []);
    }

    /// `api-spec/guests.txt` has the endpoints that the specification (v1.19) lists.
    #[test]
    fn gu_01_open_to_guests_is_what_the_specification_lists() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("api-spec/guests.txt");
        let text = fs::read_to_string(path).unwrap();
        let mut specified: BTreeSet<(String, String)> = text
            .lines()
            .map(|line| line.split_once(' ').unwrap())
            .map(|(method, path)| (method.to_owned(), name(path)))
            .collect();
        assert_eq!(specified.len(), 26);
        // GN-15: an empty state key may be left out.
        for method in ["GET", "PUT"] {
            specified.insert((method.to_owned(), "rooms/{}/state/{}".to_owned()));
        }
        // What has come since: other forms of `/sync`.
        specified.insert(("GET".to_owned(), "v1/stream".to_owned()));
        specified.insert(("POST".to_owned(), "sync".to_owned()));
        assert_eq!(listed(GUESTS), specified);
    }

    fn suspended(method: &Method, path: &str) -> bool {
        Openness::of(method, path).suspended
    }

    #[test]
    fn lk_02_a_route_that_is_not_listed_is_closed() {
        assert!(!suspended(&Method::POST, "/_matrix/client/v3/something/{new}"));
        assert!(!suspended(&Method::POST, "/_matrix/client/v3/join/{room}"));
        assert!(!suspended(&Method::PUT, "/_matrix/client/v3/rooms/{id}/leave"));
        assert!(suspended(&Method::POST, "/_matrix/client/r0/rooms/{id}/leave"));
        assert!(suspended(&Method::GET, "/_matrix/client/v3/something/{new}"));
    }

    #[test]
    fn gu_01_a_route_that_is_not_listed_is_closed() {
        let guests = |method: &Method, path: &str| Openness::of(method, path).guests;
        assert!(!guests(&Method::GET, "/_matrix/client/v3/something/{new}"));
        assert!(!guests(&Method::POST, "/_matrix/client/v3/rooms/{id}/invite"));
        assert!(!guests(&Method::DELETE, "/_matrix/client/v3/rooms/{id}/messages"));
        assert!(guests(&Method::GET, "/_matrix/client/r0/rooms/{id}/messages"));
    }
}
