//! The table `device_list_change`: changes of somebody's devices and keys.

use super::{Arg, Error, Statement, Store, statement};

/// A change at the position of the batch's step of that number; without a device, of the user's own keys.
#[allow(dead_code)]
pub fn insert_change(step: u32, user_id: &str, device_id: Option<&str>) -> Statement {
    statement!(
        "INSERT INTO device_list_change (position, user_id, device_id, previous)
         VALUES ($1, $2, $3, (SELECT MAX(position) FROM device_list_change WHERE user_id = $2))",
        Arg::Position(step),
        user_id,
        device_id,
    )
}

impl Store {
    /// Users here who share a room with somebody, and they themselves if they are here.
    #[allow(dead_code)]
    pub async fn recipients_near(&self, user_id: &str) -> Result<Vec<i64>, Error> {
        let rows: Vec<(i64,)> = self
            .all(statement!(
                "SELECT recipient FROM account WHERE user_id = $1
                 UNION
                 SELECT a.recipient FROM membership own
                 JOIN membership near ON near.room = own.room AND near.membership = 'join'
                 JOIN account a ON a.user_id = near.user_id
                 WHERE own.user_id = $1 AND own.membership = 'join'",
                user_id,
            ))
            .await?;
        Ok(rows.into_iter().map(|(recipient,)| recipient).collect())
    }
}
