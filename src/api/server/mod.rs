//! The server-server API: what other homeservers ask. One file per section of the specification.

mod devices;
mod events;
mod handshakes;
mod keys;
mod media;
mod openid;
mod query;
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
        query::routes(),
        transactions::routes(),
        version::routes(),
    ];
    all.into_iter().fold(Routes::default(), Routes::merge)
}
