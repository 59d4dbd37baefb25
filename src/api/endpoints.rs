//! The table of every Matrix endpoint (`api-spec/endpoints.csv`) against the routes that there are.
//!
//! `UPDATE=1 cargo test endpoints` writes the table's last column anew.

use std::{collections::BTreeSet, fs, path::PathBuf};

use super::{Api, routes};

/// Routes below `/_matrix` that the specification doesn't have, or has only as proposals.
const EXTRAS: &[(&str, &str)] = &[
    // The specification describes the fallback pages in its prose alone.
    ("GET", "/_matrix/client/r0/auth/{}/fallback/web"),
    ("GET", "/_matrix/client/v3/auth/{}/fallback/web"),
    ("POST", "/_matrix/client/r0/auth/{}/fallback/web"),
    ("POST", "/_matrix/client/v3/auth/{}/fallback/web"),
    // Hearth's own: `api-spec/stream.md`.
    ("GET", "/_matrix/client/unstable/hearth/v1/gateway"),
    ("GET", "/_matrix/client/unstable/hearth/v1/stream"),
    // An empty state key may be left out.
    ("GET", "/_matrix/client/r0/rooms/{}/state/{}"),
    ("GET", "/_matrix/client/v3/rooms/{}/state/{}"),
    ("PUT", "/_matrix/client/r0/rooms/{}/state/{}"),
    ("PUT", "/_matrix/client/v3/rooms/{}/state/{}"),
    // Delayed events: accepted (MSC4140), and in no version yet.
    ("GET", "/_matrix/client/unstable/org.matrix.msc4140/delayed_events"),
    ("GET", "/_matrix/client/unstable/org.matrix.msc4140/delayed_events/{}"),
    ("GET", "/_matrix/client/v1/delayed_events"),
    ("GET", "/_matrix/client/v1/delayed_events/{}"),
    ("POST", "/_matrix/client/unstable/org.matrix.msc4140/delayed_events/{}"),
    ("POST", "/_matrix/client/unstable/org.matrix.msc4140/delayed_events/{}/{}"),
    ("POST", "/_matrix/client/v1/delayed_events/{}/{}"),
    ("PUT", "/_matrix/client/unstable/org.matrix.msc4140/rooms/{}/delayed_event/{}/{}"),
    ("PUT", "/_matrix/client/v3/rooms/{}/delayed_event/{}/{}"),
    // Dehydrated devices are a proposal, with two ways to get their messages: MSC3814.
    ("DELETE", "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"),
    ("GET", "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"),
    ("GET", "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{}/events"),
    ("POST", "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{}/events"),
    ("PUT", "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"),
    // Rendezvous for signing in by a QR code are proposals: MSC4108 in its form of 2024, MSC4388.
    ("DELETE", "/_matrix/client/unstable/io.element.msc4388/rendezvous/{}"),
    ("DELETE", "/_matrix/client/unstable/org.matrix.msc4108/rendezvous/{}"),
    ("GET", "/_matrix/client/unstable/io.element.msc4388/rendezvous"),
    ("GET", "/_matrix/client/unstable/io.element.msc4388/rendezvous/{}"),
    ("GET", "/_matrix/client/unstable/org.matrix.msc4108/rendezvous/{}"),
    ("POST", "/_matrix/client/unstable/io.element.msc4388/rendezvous"),
    ("POST", "/_matrix/client/unstable/org.matrix.msc4108/rendezvous"),
    ("PUT", "/_matrix/client/unstable/io.element.msc4388/rendezvous/{}"),
    ("PUT", "/_matrix/client/unstable/org.matrix.msc4108/rendezvous/{}"),
    // Thread subscriptions are proposals: MSC4306, MSC4308.
    ("DELETE", "/_matrix/client/unstable/io.element.msc4306/rooms/{}/thread/{}/subscription"),
    ("GET", "/_matrix/client/unstable/io.element.msc4306/rooms/{}/thread/{}/subscription"),
    ("GET", "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions"),
    ("PUT", "/_matrix/client/unstable/io.element.msc4306/rooms/{}/thread/{}/subscription"),
    // Sliding sync: MSC4186 as it was merged, and as clients spoke it before.
    ("POST", "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"),
    ("POST", "/_matrix/client/v4/sync"),
    // How long history is kept is a proposal: MSC1763.
    ("GET", "/_matrix/client/unstable/org.matrix.msc1763/retention/configuration"),
    // Deleting account data is a proposal: MSC3391.
    ("DELETE", "/_matrix/client/unstable/org.matrix.msc3391/user/{}/account_data/{}"),
    ("DELETE", "/_matrix/client/unstable/org.matrix.msc3391/user/{}/rooms/{}/account_data/{}"),
    // The proposal had two forms, one after the other.
    ("GET", "/_matrix/client/unstable/im.nheko.summary/rooms/{}/summary"),
    ("GET", "/_matrix/client/unstable/im.nheko.summary/summary/{}"),
    ("GET", "/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms"),
    // The stage had a prefix of its own while it was a proposal.
    (
        "GET",
        "/_matrix/client/unstable/org.matrix.msc3231/register/org.matrix.msc3231.login.registration_token/validity",
    ),
];

struct Row {
    start: String,
    method: String,
    path: String,
    served: bool,
}

fn table() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("api-spec/endpoints.csv")
}

fn rows() -> (String, Vec<Row>) {
    let text = fs::read_to_string(table()).unwrap();
    let (head, lines) = text.split_once('\n').unwrap();
    assert_eq!(head, "api,operationId,method,path,module,served");
    let row = |line: &str| {
        let (start, served) = line.rsplit_once(',').unwrap();
        let fields: Vec<&str> = start.split(',').collect();
        assert!(fields.len() == 5 && matches!(served, "yes" | "no"), "{line}");
        Row {
            start: start.to_owned(),
            method: fields[2].to_owned(),
            path: unnamed(fields[3]),
            served: served == "yes",
        }
    };
    (head.to_owned(), lines.lines().map(row).collect())
}

/// Names of parameters differ; so do slashes at the end, which mean nothing here.
fn unnamed(path: &str) -> String {
    let segments = path
        .trim_end_matches('/')
        .split('/')
        .map(|segment| if segment.starts_with('{') { "{}" } else { segment });
    segments.collect::<Vec<_>>().join("/")
}

/// What an endpoint is called in every version: `/_matrix/client/v3/sync` and `/_matrix/client/r0/sync` are both
/// `client/sync`, and so is `/_matrix/client/unstable/org.example/sync`.
fn names(path: &str) -> Vec<String> {
    let parts: Vec<&str> = path.trim_start_matches("/_matrix/").splitn(3, '/').collect();
    let [api, version, rest] = parts[..] else {
        return vec![path.to_owned()];
    };
    let mut names = vec![format!("{api}/{rest}")];
    if version == "unstable"
        && let Some((_, rest)) = rest.split_once('/')
    {
        names.push(format!("{api}/{rest}"));
    }
    names
}

/// All (method, path) that are served, the paths with unnamed parameters.
fn served() -> BTreeSet<(String, String)> {
    let apis = BTreeSet::from([Api::Client, Api::Federation]);
    routes(&apis, None).served().iter().map(|(method, path)| (method.clone(), unnamed(path))).collect()
}

#[test]
fn endpoints_that_are_called_served_are_routed_and_no_others() {
    let served = served();
    let (head, mut rows) = rows();
    let routed = |row: &Row| served.contains(&(row.method.clone(), row.path.clone()));
    if std::env::var_os("UPDATE").is_some() {
        let lines = rows.iter_mut().map(|row| {
            row.served = routed(row);
            format!("{},{}\n", row.start, if row.served { "yes" } else { "no" })
        });
        let text: String = std::iter::once(format!("{head}\n")).chain(lines).collect();
        // The other tests may be reading it.
        let new = table().with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, table()).unwrap();
    }
    let wrong = rows.iter().filter(|row| row.served != routed(row));
    let wrong: Vec<_> = wrong.map(|row| format!("{} {}", row.method, row.path)).collect();
    assert!(wrong.is_empty(), "the table's last column is wrong (see this file's head) for {wrong:#?}");
}

#[test]
fn endpoints_that_are_routed_are_in_the_table() {
    let listed: BTreeSet<(String, String)> = rows()
        .1
        .iter()
        .flat_map(|row| names(&row.path).into_iter().map(|name| (row.method.clone(), name)))
        .collect();
    let is_extra = |method: &str, path: &str| EXTRAS.contains(&(method, path));
    let unlisted: Vec<_> = served()
        .into_iter()
        .filter(|(_, path)| path.starts_with("/_matrix/"))
        .filter(|(method, path)| {
            !names(path).into_iter().any(|name| listed.contains(&(method.clone(), name)))
        })
        .filter(|(method, path)| !is_extra(method, path))
        .collect();
    assert!(unlisted.is_empty(), "neither in the table nor an extra: {unlisted:#?}");
}

#[test]
fn every_extra_is_routed() {
    let served = served();
    for (method, path) in EXTRAS {
        assert!(
            served.contains(&((*method).to_owned(), (*path).to_owned())),
            "{method} {path} isn't there any more"
        );
    }
}

/// GN-04: what the specification marks as rate-limited (v1.19; a list of its own, `api-spec/rate-limited.txt`).
#[test]
fn gn_04_what_is_marked_as_rate_limited_is() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("api-spec/rate-limited.txt");
    let marked = fs::read_to_string(path).unwrap();
    let apis = BTreeSet::from([Api::Client, Api::Federation]);
    let routes = routes(&apis, None);
    let limited: BTreeSet<(String, String)> =
        routes.limited_paths().iter().map(|(method, path)| (method.clone(), unnamed(path))).collect();
    let served = served();
    let (mut checked, mut unlimited) = (0, Vec::new());
    for line in marked.lines() {
        let (method, path) = line.split_once(' ').unwrap();
        for path in [unnamed(path), unnamed(path).replace("/client/v3/", "/client/r0/")] {
            let route = (method.to_owned(), path);
            if served.contains(&route) {
                checked += 1;
                if !limited.contains(&route) {
                    unlimited.push(route);
                }
            }
        }
    }
    assert!(checked > 40, "{checked}");
    assert_eq!(unlimited, []);
}
