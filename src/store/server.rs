//! The table `server`: whose database this is.

use super::{Error, Store, statement};

impl Store {
    /// The name of the server that owns this database, if it has been asked for its identity before.
    pub async fn owner(&self) -> Result<Option<String>, Error> {
        let row: Option<(String,)> =
            self.optional(statement!("SELECT value FROM server WHERE name = 'server_name'")).await?;
        Ok(row.map(|(name,)| name))
    }

    /// The name of the server that owns this database and its epoch. The first to ask sets both.
    ///
    /// Tokens carry the epoch, so that those of another database are known for what they are.
    pub async fn identity(&self, server_name: &str, epoch: u64) -> Result<(String, u64), Error> {
        let insert = |name: &'static str, value: String| {
            statement!(
                "INSERT INTO server (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
                name,
                value,
            )
        };
        let given = vec![insert("server_name", server_name.to_owned()), insert("epoch", epoch.to_string())];
        self.commit(given).await?;
        let (name,): (String,) =
            self.one(statement!("SELECT value FROM server WHERE name = 'server_name'")).await?;
        let (epoch,): (String,) =
            self.one(statement!("SELECT value FROM server WHERE name = 'epoch'")).await?;
        let epoch = epoch.parse().map_err(|_| Error::Corrupt("server.epoch".to_owned()))?;
        Ok((name, epoch))
    }
}
