//! `GET /versions` ("API Versions"): what clients choose their paths by.

use std::collections::BTreeMap;

use ruma::api::client::discovery::get_supported_versions::{Request, Response};

use super::rendezvous;
use crate::{
    app::App,
    http::{Anonymous, MatrixError, Routes},
};

pub(super) fn routes() -> Routes {
    Routes::default().add::<Request, Anonymous, _, _, _>(versions)
}

/// Versions by which clients choose paths: what each of them added for rooms and accounts is here. That calls, media,
/// encryption or OAuth are missing, clients find out by the answer of the endpoint in question, whatever the version.
/// `r0.6.1` is for those from before the numbers.
const VERSIONS: [&str; 20] = [
    "r0.6.1", "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11",
    "v1.12", "v1.13", "v1.14", "v1.15", "v1.16", "v1.17", "v1.18", "v1.19",
];

/// Features that some clients know only by the names they had as proposals.
const FEATURES: &[&str] = &[
    // The stream (api-spec/stream.md).
    "hearth.stream.v1",
    // Private read receipts, threaded receipts, unread counts by thread.
    "org.matrix.msc2285.stable",
    // Thread subscriptions; clients look for one or the other.
    "io.element.msc4306",
    "org.matrix.msc4306",
    // Profiles in sliding sync.
    "org.matrix.msc4262",
    // A push rule for all encrypted events, off until a client turns it on.
    "org.matrix.msc4028",
    // Threads.
    "org.matrix.msc3440.stable",
    "org.matrix.msc3771",
    "org.matrix.msc3773",
    // Filters by how events relate to others.
    "org.matrix.msc3874",
    // Relations of relations.
    "org.matrix.msc3981",
    // Deleting account data.
    "org.matrix.msc3391",
    // Types of rooms in the public directory.
    "org.matrix.msc3827.stable",
    // Delayed events.
    "org.matrix.msc4140",
    "org.matrix.msc4140.stable",
    // A device that nobody is logged in on.
    "org.matrix.msc3814",
    // Redactions by `/send`.
    "org.matrix.msc4169",
    // Sliding sync: clients look for it here alone.
    "org.matrix.simplified_msc3575",
    // `state_after` in `/sync`.
    "org.matrix.msc4222",
    // Invite filtering, invite blocking.
    "org.matrix.msc4155",
    "org.matrix.msc4380",
    "org.matrix.msc4380.stable",
    // Rooms in common.
    "uk.half-shot.msc2666.query_mutual_rooms",
    "uk.half-shot.msc2666.query_mutual_rooms.stable",
    // Locking and suspending accounts.
    "uk.timedout.msc4323",
    // Profiles with fields of any name.
    "uk.tcpip.msc4133",
    "uk.tcpip.msc4133.stable",
];

async fn versions(app: App, _: Anonymous, _: Request) -> Result<Response, MatrixError> {
    let open_to = app.config.qr_sign_in.rendezvous;
    let features =
        FEATURES.iter().chain(rendezvous::features(open_to)).map(|name| ((*name).to_owned(), true));
    let mut response = Response::new(VERSIONS.into_iter().map(str::to_owned).collect());
    response.unstable_features = features.collect::<BTreeMap<_, _>>();
    Ok(response)
}
