//! [Transactions](https://spec.matrix.org/v1.19/server-server-api/#transactions): what other servers send by themselves.

use http::StatusCode;

use crate::{
    api::bare::{Bare, Put},
    app::App,
    http::{MatrixError, Origin, Routes, Whole, json_response},
    inbound::{Error, Transaction},
    limits::Class,
};

pub(super) fn routes() -> Routes {
    Routes::default().limited_alias(Class::Free, "/_matrix/federation/v1/send/{txnId}", send)
}

async fn send(app: App, origin: Origin, request: Bare<Put, Transaction>) -> Result<Whole, MatrixError> {
    let [txn_id] = request.parameters()?;
    let (txn_id, transaction) = (txn_id.to_owned(), request.content);
    let answer = app.inbound.take(&origin, &txn_id, transaction).await.map_err(|cause| match cause {
        Error::Id => MatrixError::invalid_param(cause.to_string()),
        Error::Busy => MatrixError::limit_exceeded(std::time::Duration::from_secs(1)),
        Error::Failed(_) => MatrixError::internal(&cause),
    })?;
    Ok(Whole(json_response(StatusCode::OK, answer.to_string())))
}
