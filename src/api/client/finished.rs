//! Work that is finished whether the client that asked for it waits or not.

use crate::http::MatrixError;

/// Does something in a task of its own. What another server has taken, a join, an invite, has to be done here too, and
/// what is stored has to reach those whom it concerns; a handler is dropped when its client hangs up.
pub(super) async fn finished<T: Send + 'static>(
    work: impl Future<Output = Result<T, MatrixError>> + Send + 'static,
) -> Result<T, MatrixError> {
    tokio::spawn(work).await.map_err(|cause| MatrixError::internal(&cause))?
}
