//! The table `presence`, and who may hear of whom.

use super::{Error, Statement, Store, statement};

/// What a user was last seen as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceRow {
    pub recipient: i64,
    pub user_id: String,
    /// 0 offline, 1 unavailable, 2 online.
    pub state: i64,
    pub last_active_ts: i64,
    pub status_msg: Option<String>,
}

type Columns = (i64, String, i64, i64, Option<String>);

impl From<Columns> for PresenceRow {
    fn from((recipient, user_id, state, last_active_ts, status_msg): Columns) -> Self {
        Self { recipient, user_id, state, last_active_ts, status_msg }
    }
}

/// Does nothing for an account that was deactivated.
pub fn set_presence(
    recipient: i64,
    state: i64,
    last_active_ts: i64,
    status_msg: Option<String>,
) -> Statement {
    statement!(
        "INSERT INTO presence (recipient, state, last_active_ts, status_msg)
         SELECT recipient, $2, $3, $4 FROM account WHERE recipient = $1 AND deactivated_ts IS NULL
         ON CONFLICT (recipient) DO UPDATE SET state = excluded.state, last_active_ts = excluded.last_active_ts,
             status_msg = excluded.status_msg",
        recipient,
        state,
        last_active_ts,
        status_msg,
    )
}

pub fn delete_presence(recipient: i64) -> Statement {
    statement!("DELETE FROM presence WHERE recipient = $1", recipient)
}

impl Store {
    pub async fn presence(&self, recipient: i64) -> Result<Option<PresenceRow>, Error> {
        let row: Option<Columns> = self
            .optional(statement!(
                "SELECT p.recipient, a.user_id, p.state, p.last_active_ts, p.status_msg
                 FROM presence p JOIN account a ON a.recipient = p.recipient WHERE p.recipient = $1",
                recipient,
            ))
            .await?;
        Ok(row.map(PresenceRow::from))
    }

    /// All who are stored as being there.
    pub async fn present_users(&self) -> Result<Vec<PresenceRow>, Error> {
        let rows: Vec<Columns> = self
            .all(statement!(
                "SELECT p.recipient, a.user_id, p.state, p.last_active_ts, p.status_msg
                 FROM presence p JOIN account a ON a.recipient = p.recipient
                 WHERE p.state > 0 ORDER BY p.recipient"
            ))
            .await?;
        Ok(rows.into_iter().map(PresenceRow::from).collect())
    }

    /// At most `limit` of those who share a room with a user, and the user, as they were last seen: those with the
    /// latest activity.
    pub async fn presence_of_peers(&self, user_id: &str, limit: i64) -> Result<Vec<PresenceRow>, Error> {
        let rows: Vec<Columns> = self
            .all(statement!(
                "SELECT p.recipient, a.user_id, p.state, p.last_active_ts, p.status_msg
                 FROM presence p JOIN account a ON a.recipient = p.recipient
                 WHERE a.user_id = $1 OR a.user_id IN (
                     SELECT other.user_id FROM membership own
                     JOIN membership other ON other.room = own.room AND other.membership = 'join'
                     WHERE own.user_id = $1 AND own.membership = 'join'
                 )
                 ORDER BY p.last_active_ts DESC LIMIT $2",
                user_id,
                limit,
            ))
            .await?;
        Ok(rows.into_iter().map(PresenceRow::from).collect())
    }

    /// The rooms that a user is joined to.
    pub async fn joined_rooms(&self, user_id: &str) -> Result<Vec<i64>, Error> {
        let rows: Vec<(i64,)> = self
            .all(statement!(
                "SELECT room FROM membership WHERE user_id = $1 AND membership = 'join' ORDER BY room",
                user_id,
            ))
            .await?;
        Ok(rows.into_iter().map(|(room,)| room).collect())
    }

    /// Whether both are joined to one room.
    pub async fn share_a_room(&self, one: &str, other: &str) -> Result<bool, Error> {
        let row: Option<(i64,)> = self
            .optional(statement!(
                "SELECT one.room FROM membership one JOIN membership other ON other.room = one.room
                 WHERE one.user_id = $1 AND one.membership = 'join'
                   AND other.user_id = $2 AND other.membership = 'join' LIMIT 1",
                one,
                other,
            ))
            .await?;
        Ok(row.is_some())
    }
}
