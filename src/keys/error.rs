//! What can go wrong with keys.

use crate::store;

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The form of something is wrong.
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Missing(&'static str),
    /// A signature is missing or wrong.
    #[error("{0}")]
    Signature(String),
    #[error("{0}")]
    Forbidden(&'static str),
    #[error("there is no such {0}")]
    NotFound(&'static str),
    #[error("{what} are more than the limit of {limit}")]
    TooMany { what: &'static str, limit: usize },
    #[error("stored keys can't be read: {0}")]
    Damaged(std::sync::Arc<serde_json::Error>),
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl From<serde_json::Error> for Error {
    fn from(cause: serde_json::Error) -> Self {
        Self::Damaged(std::sync::Arc::new(cause))
    }
}
