//! [Content repository](https://spec.matrix.org/v1.19/server-server-api/#content-repository): this server has no media yet,
//! and says so of each.

use crate::{
    api::bare::{Bare, Get},
    app::App,
    http::{Json, MatrixError, Origin, Routes},
    limits::Class,
};

pub(super) fn routes() -> Routes {
    let free = Class::Free;
    Routes::default()
        .limited_alias(free, "/_matrix/federation/v1/media/download/{mediaId}", missing)
        .limited_alias(free, "/_matrix/federation/v1/media/thumbnail/{mediaId}", missing)
}

async fn missing(_: App, _: Origin, _: Bare<Get>) -> Result<Json<()>, MatrixError> {
    Err(MatrixError::not_found("there is no such media here"))
}
