//! Whose keys changed between two tokens ("Tracking the device list for a user").

use ruma::api::client::keys::get_key_changes::v3 as key_changes;

use crate::{
    account::Session,
    app::App,
    http::{MatrixError, Routes},
};

pub(super) fn routes() -> Routes {
    Routes::default().add(changes)
}

async fn changes(
    app: App,
    session: Session,
    request: key_changes::Request,
) -> Result<key_changes::Response, MatrixError> {
    let lists = Box::pin(app.syncs.key_changes(&session, &request.from, &request.to)).await?;
    let (changed, left) = (lists.changed.into_iter().collect(), lists.left.into_iter().collect());
    Ok(key_changes::Response::new(changed, left))
}
