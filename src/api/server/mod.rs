//! The server-server API: what other homeservers ask. One file per section of the specification.

mod handshakes;
mod keys;
mod query;
mod version;

use crate::http::Routes;

pub(super) fn routes() -> Routes {
    [handshakes::routes(), keys::routes(), query::routes(), version::routes()]
        .into_iter()
        .fold(Routes::default(), Routes::merge)
}
