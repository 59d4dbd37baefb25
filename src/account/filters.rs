//! Filters that clients store to name them later ("Filtering"). What they mean is for their readers.

use super::{Accounts, Error};
use crate::store::filter::add_filter;

/// Bytes of one filter, as JSON.
const MAX_CONTENT: usize = 64 * 1024;
/// Of one user. Equal filters count once.
const MAX_FILTERS: i64 = 1_000;

impl Accounts {
    /// Keeps a filter (JSON that was checked to be one); equal ones have the same id.
    pub async fn add_filter(&self, recipient: i64, content: &str) -> Result<String, Error> {
        if content.len() > MAX_CONTENT {
            return Err(Error::TooLarge { what: "the filter", limit: MAX_CONTENT });
        }
        if let Some(id) = self.store.filter_id(recipient, content).await? {
            return Ok(id.to_string());
        }
        if self.store.filter_count(recipient).await? >= MAX_FILTERS {
            return Err(Error::TooLarge { what: "the number of filters", limit: MAX_FILTERS as usize });
        }
        self.store.commit(add_filter(recipient, content)).await?;
        let id = self.store.filter_id(recipient, content).await?;
        id.map(|id| id.to_string()).ok_or(Error::NotFound("filter"))
    }

    /// A filter, as the JSON that was given.
    pub async fn filter(&self, recipient: i64, id: &str) -> Result<String, Error> {
        let id: i64 = id.parse().map_err(|_| Error::NotFound("filter"))?;
        self.store.filter(recipient, id).await?.ok_or(Error::NotFound("filter"))
    }
}
