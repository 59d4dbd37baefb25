//! The client-server API: one file per module of the specification.

mod capabilities;
mod versions;
mod well_known;

use crate::http::Routes;

pub(super) fn routes() -> Routes {
    [capabilities::routes(), versions::routes(), well_known::routes()]
        .into_iter()
        .fold(Routes::default(), Routes::merge)
}
