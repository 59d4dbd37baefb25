//! The table `filter`.

use super::{Error, Statement, Store, statement};

/// The content of a row that is no filter, and only holds the highest id that may have been given out. No JSON is empty.
pub(super) const PLACE: &str = "";

/// A filter with the user's next number, unless they have one of that content already.
pub fn add_filter(recipient: i64, content: &str) -> Statement {
    statement!(
        "INSERT INTO filter (recipient, id, content)
         SELECT $1, COALESCE(MAX(id), 0) + 1, $2 FROM filter WHERE recipient = $1
         ON CONFLICT (recipient, content) DO NOTHING",
        recipient,
        content,
    )
}

impl Store {
    /// The content of a filter, as JSON.
    pub async fn filter(&self, recipient: i64, id: i64) -> Result<Option<String>, Error> {
        let row: Option<(String,)> = self
            .optional(statement!(
                "SELECT content FROM filter WHERE recipient = $1 AND id = $2 AND content <> $3",
                recipient,
                id,
                PLACE
            ))
            .await?;
        Ok(row.map(|(content,)| content))
    }

    /// The number of the filter with this content.
    pub async fn filter_id(&self, recipient: i64, content: &str) -> Result<Option<i64>, Error> {
        let row: Option<(i64,)> = self
            .optional(statement!(
                "SELECT id FROM filter WHERE recipient = $1 AND content = $2",
                recipient,
                content
            ))
            .await?;
        Ok(row.map(|(id,)| id))
    }

    pub async fn filter_count(&self, recipient: i64) -> Result<i64, Error> {
        let (count,): (i64,) = self
            .one(statement!(
                "SELECT COUNT(*) FROM filter WHERE recipient = $1 AND content <> $2",
                recipient,
                PLACE
            ))
            .await?;
        Ok(count)
    }
}
