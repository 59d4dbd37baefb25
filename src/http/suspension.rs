//! What a suspended account may still do ("Account suspension"): look at anything, keep its own affairs, and leave.
//!
//! Reading is free. Of the requests that change something these alone are open, so a new one is closed until it is listed
//! here. Where it depends on what is sent, the handler looks again ([`MatrixError::suspended`]). Verifying devices and
//! backing up keys are to be open too.

use http::Method;

/// Method and path, without the version and with parameters unnamed.
const OPEN: &[(Method, &str)] = &[
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
    // To those who suspended it.
    (Method::POST, "rooms/{}/report"),
    (Method::POST, "rooms/{}/report/{}"),
    (Method::POST, "users/{}/report"),
];

/// Whether a suspended account may make requests to a route.
pub(super) fn is_open(method: &Method, path: &str) -> bool {
    if method == Method::GET {
        return true;
    }
    let name = name(path);
    OPEN.iter().any(|(open, path)| open == method && *path == name)
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
    use std::collections::BTreeSet;

    use super::*;
    use crate::{api::routes, config::Api};

    /// A misspelt line would open nothing, and one of a route that is gone would open whatever takes its place.
    #[test]
    fn every_open_route_is_there() {
        let routes = routes(&BTreeSet::from([Api::Client]), None);
        let served: BTreeSet<(String, String)> =
            routes.served().iter().map(|(method, path)| (method.clone(), name(path))).collect();
        for (method, path) in OPEN {
            assert!(served.contains(&(method.to_string(), (*path).to_owned())), "{method} {path}");
        }
    }

    #[test]
    fn lk_02_a_route_that_is_not_listed_is_closed() {
        assert!(!is_open(&Method::POST, "/_matrix/client/v3/something/{new}"));
        assert!(!is_open(&Method::POST, "/_matrix/client/v3/join/{room}"));
        assert!(!is_open(&Method::PUT, "/_matrix/client/v3/rooms/{id}/leave"));
        assert!(is_open(&Method::POST, "/_matrix/client/r0/rooms/{id}/leave"));
        assert!(is_open(&Method::GET, "/_matrix/client/v3/something/{new}"));
    }
}
