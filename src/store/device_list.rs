//! The table `device_list_change`: changes of somebody's devices and keys; and who shares rooms with whom, which decides
//! who hears of them.

use super::{Arg, Error, Statement, Store, statement};

/// What other servers are told of a change: with what is there by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncedRow {
    pub position: i64,
    pub user_id: String,
    /// None: the user's own keys.
    pub device_id: Option<String>,
    /// The change of a device of theirs before.
    pub previous: Option<i64>,
    /// Whether the device is still there.
    pub exists: bool,
    pub display_name: Option<String>,
    /// JSON: the object as the device signed it.
    pub keys: Option<String>,
}

type AnnouncedColumns = (i64, String, Option<String>, Option<i64>, bool, Option<String>, Option<String>);

impl From<AnnouncedColumns> for AnnouncedRow {
    fn from(row: AnnouncedColumns) -> Self {
        let (position, user_id, device_id, previous, exists, display_name, keys) = row;
        Self { position, user_id, device_id, previous, exists, display_name, keys }
    }
}

/// A change at the position of the batch's step of that number; without a device, of the user's own keys. Those of devices
/// form a chain; what is sent of the others has no number, so nobody could miss it by that.
pub fn insert_change(step: u32, user_id: &str, device_id: Option<&str>) -> Statement {
    statement!(
        "INSERT INTO device_list_change (position, user_id, device_id, previous)
         VALUES ($1, $2, $3, (SELECT MAX(position) FROM device_list_change
                              WHERE user_id = $2 AND device_id IS NOT NULL))",
        Arg::Position(step),
        user_id,
        device_id,
    )
}

/// Changes up to a position are forgotten, but for each user's last of a device and last of the keys.
pub fn trim_changes(horizon: i64) -> Statement {
    statement!(
        "DELETE FROM device_list_change WHERE position <= $1 AND EXISTS (
             SELECT 1 FROM device_list_change later
             WHERE later.user_id = device_list_change.user_id AND later.position > device_list_change.position
               AND (later.device_id IS NULL) = (device_list_change.device_id IS NULL)
         )",
        horizon,
    )
}

impl Store {
    /// Users here who share a room with somebody, and they themselves if they are here; `servers` that share a room with
    /// them too, if that is wanted. In order.
    pub async fn recipients_near(&self, user_id: &str, servers: bool) -> Result<Vec<i64>, Error> {
        let rows: Vec<(i64,)> = self
            .all(statement!(
                "WITH near AS (
                     SELECT DISTINCT other.user_id FROM membership own
                     JOIN membership other ON other.room = own.room AND other.membership = 'join'
                     WHERE own.user_id = $1 AND own.membership = 'join'
                 )
                 SELECT recipient FROM account WHERE user_id = $1
                 UNION
                 SELECT a.recipient FROM near JOIN account a ON a.user_id = near.user_id
                 UNION
                 SELECT d.recipient FROM (
                     SELECT DISTINCT substr(user_id, instr(user_id, ':') + 1) AS server FROM near WHERE $2
                 ) s JOIN destination d ON d.server = s.server
                 ORDER BY 1",
                user_id,
                servers,
            ))
            .await?;
        Ok(rows.into_iter().map(|(recipient,)| recipient).collect())
    }

    /// The users whom these changes are about, each once.
    pub async fn users_of_changes(&self, positions: &[i64]) -> Result<Vec<String>, Error> {
        let rows: Vec<(String,)> = self
            .all(statement!(
                "SELECT DISTINCT c.user_id FROM json_each($1) p
                 JOIN device_list_change c ON c.position = p.value",
                format!("{positions:?}"),
            ))
            .await?;
        Ok(rows.into_iter().map(|(user_id,)| user_id).collect())
    }

    /// Those of these users (a JSON list) who changed after a position and up to another.
    pub async fn changed_of(&self, users: String, (after, to): (i64, i64)) -> Result<Vec<String>, Error> {
        let rows: Vec<(String,)> = self
            .all(statement!(
                "SELECT DISTINCT c.user_id FROM json_each($1) u
                 JOIN device_list_change c ON c.user_id = u.value
                 WHERE c.position > $2 AND c.position <= $3",
                users,
                after,
                to,
            ))
            .await?;
        Ok(rows.into_iter().map(|(user_id,)| user_id).collect())
    }

    /// These changes, in order, as far as they are of users here.
    pub async fn announced(&self, positions: &[i64]) -> Result<Vec<AnnouncedRow>, Error> {
        let rows: Vec<AnnouncedColumns> = self
            .all(statement!(
                "SELECT c.position, c.user_id, c.device_id, c.previous, d.id IS NOT NULL, d.display_name, k.keys
                 FROM json_each($1) p
                 JOIN device_list_change c ON c.position = p.value
                 JOIN account a ON a.user_id = c.user_id
                 LEFT JOIN device d ON d.recipient = a.recipient AND d.device_id = c.device_id
                 LEFT JOIN device_key k ON k.user_id = c.user_id AND k.device_id = c.device_id
                 ORDER BY c.position",
                format!("{positions:?}"),
            ))
            .await?;
        Ok(rows.into_iter().map(AnnouncedRow::from).collect())
    }

    /// The last change of a device, and of the keys, of each user here who shares a room with a server and changed after a
    /// position and up to another: their positions, in order.
    pub async fn last_changes_for(&self, server: &str, after: i64, to: i64) -> Result<Vec<i64>, Error> {
        let rows: Vec<(i64,)> = self
            .all(statement!(
                "SELECT MAX(c.position) FROM device_list_change c JOIN account a ON a.user_id = c.user_id
                 WHERE c.position > $2 AND c.position <= $3 AND EXISTS (
                     SELECT 1 FROM membership own
                     JOIN membership other ON other.room = own.room AND other.membership = 'join'
                       AND substr(other.user_id, instr(other.user_id, ':') + 1) = $1
                     WHERE own.user_id = c.user_id AND own.membership = 'join'
                 )
                 GROUP BY c.user_id, c.device_id IS NULL ORDER BY 1",
                server,
                after,
                to,
            ))
            .await?;
        Ok(rows.into_iter().map(|(position,)| position).collect())
    }

    /// Of some users here and some servers (JSON lists; of numbers and names) that share a room since a position, those that
    /// shared none before: the last change of a device of the user, and the number of the server.
    pub async fn new_to_each_other(
        &self,
        users: String,
        servers: String,
        room: i64,
        since: i64,
    ) -> Result<Vec<(i64, i64)>, Error> {
        self.all(statement!(
            "SELECT c.position, s.value ->> 0
             FROM json_each($1) u
             JOIN device_list_change c ON c.position = (
                 SELECT MAX(position) FROM device_list_change WHERE user_id = u.value AND device_id IS NOT NULL
             )
             JOIN json_each($2) s
             WHERE NOT EXISTS (
                 SELECT 1 FROM membership own
                 JOIN membership other ON other.room = own.room AND other.membership = 'join'
                   AND substr(other.user_id, instr(other.user_id, ':') + 1) = s.value ->> 1
                 JOIN event came ON came.room = own.room AND came.seq = own.event
                 JOIN event other_came ON other_came.room = own.room AND other_came.seq = other.event
                 WHERE own.user_id = u.value AND own.membership = 'join' AND own.room <> $3
                   AND came.position < $4 AND other_came.position < $4
             )",
            users,
            servers,
            room,
            since,
        ))
        .await
    }

    /// What changed of who is in a room and of its encryption after event `after`, up to and with event `to`: types and keys.
    pub async fn moves_between(
        &self,
        room: i64,
        after: i64,
        to: i64,
    ) -> Result<Vec<(String, String)>, Error> {
        self.all(statement!(
            "SELECT DISTINCT type, state_key FROM state_log
             WHERE room = $1 AND seq > $2 AND seq <= $3 AND type IN ('m.room.member', 'm.room.encryption')",
            room,
            after,
            to,
        ))
        .await
    }

    /// Those of these users (a JSON list) with whom a user shares a room but for `rooms` (a JSON list of numbers), and
    /// whether one of them is encrypted.
    pub async fn sharing_elsewhere(
        &self,
        user_id: &str,
        others: String,
        rooms: String,
    ) -> Result<Vec<(String, bool)>, Error> {
        self.all(statement!(
            "SELECT other.user_id, MAX(EXISTS (
                 SELECT 1 FROM state_log s
                 WHERE s.room = own.room AND s.type = 'm.room.encryption' AND s.state_key = '' AND s.event <> 0
             ))
             FROM json_each($2) c
             JOIN membership other ON other.user_id = c.value AND other.membership = 'join'
             JOIN membership own ON own.room = other.room AND own.user_id = $1 AND own.membership = 'join'
             WHERE own.room NOT IN (SELECT value FROM json_each($3))
             GROUP BY other.user_id",
            user_id,
            others,
            rooms,
        ))
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        queue::Tails,
        store::{Batch, Durability, account::add_account, room::set_membership},
    };

    /// DL-04: a server that was away for longer than changes are kept has no other way to know of new keys, since they are no
    /// link of the chain.
    #[tokio::test]
    async fn dl_04_the_last_change_of_the_devices_and_that_of_the_keys_outlive_the_horizon() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hearth.db");
        let (store, _) = Store::open(&path, Durability::Normal, Arc::new(Tails::new(1))).await.unwrap();
        store.commit(add_account("@a:x", None, false, 0)).await.unwrap();
        for user_id in ["@a:x", "@b:y"] {
            store.commit(set_membership(user_id, 1, "join", 1)).await.unwrap();
        }
        let mut positions = Vec::new();
        for device_id in [Some("A"), None, None, Some("B")] {
            let mut batch = Batch::new();
            let step = batch.step();
            batch.push(insert_change(step, "@a:x", device_id));
            positions.push(store.commit(batch).await.unwrap().base + i64::from(step));
        }
        let kept = positions[2..].to_vec();
        assert_eq!(store.last_changes_for("y", 0, i64::MAX).await.unwrap(), kept);
        store.commit(trim_changes(positions[3])).await.unwrap();
        assert_eq!(store.last_changes_for("y", 0, i64::MAX).await.unwrap(), kept);
        let left = store.announced(&positions).await.unwrap();
        assert_eq!(left.iter().map(|row| row.position).collect::<Vec<_>>(), kept);
    }
}
