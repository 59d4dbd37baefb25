//! [Policy servers](https://spec.matrix.org/v1.19/server-server-api/#policy-servers): Hearth heeds them, and is none.

use crate::{
    api::bare::{Bare, Post},
    app::App,
    http::{Json, MatrixError, Origin, Routes},
    limits::Class,
};

pub(super) fn routes() -> Routes {
    Routes::default().limited_alias(Class::Free, "/_matrix/policy/v1/sign", sign)
}

async fn sign(_: App, _: Origin, _: Bare<Post>) -> Result<Json<()>, MatrixError> {
    Err(MatrixError::not_found("this server is the policy server of no room"))
}
