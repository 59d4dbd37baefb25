//! The table `server_key`.

use super::{Error, Statement, Store, statement};

pub fn set_server_keys(server: &str, keys: String) -> Statement {
    statement!(
        "INSERT INTO server_key (server, keys) VALUES ($1, $2)
         ON CONFLICT (server) DO UPDATE SET keys = excluded.keys",
        server,
        keys,
    )
}

impl Store {
    /// What is known of a server's keys, as JSON.
    pub async fn server_keys(&self, server: &str) -> Result<Option<String>, Error> {
        let row: Option<(String,)> =
            self.optional(statement!("SELECT keys FROM server_key WHERE server = $1", server)).await?;
        Ok(row.map(|(keys,)| keys))
    }
}
