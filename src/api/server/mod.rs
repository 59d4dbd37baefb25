//! The server-server API: what other homeservers ask. One file per section of the specification.

mod devices;
mod events;
mod handshakes;
mod keys;
mod media;
mod openid;
mod policy;
mod query;
mod third_party;
mod transactions;
mod version;

use crate::http::Routes;

pub(super) fn routes() -> Routes {
    let all = [
        devices::routes(),
        events::routes(),
        handshakes::routes(),
        keys::routes(),
        media::routes(),
        openid::routes(),
        policy::routes(),
        query::routes(),
        third_party::routes(),
        transactions::routes(),
        version::routes(),
    ];
    all.into_iter().fold(Routes::default(), Routes::merge)
}
