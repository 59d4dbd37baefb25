//! The table `followed_list`: users elsewhere whose devices are known here, with what is known of them.
//!
//! A list is followed as long as its user shares a room with somebody here: only then does their server tell us of changes.
//! That a list isn't followed any more is written with what ends it.

use super::{Error, Statement, Store, device_key::CrossSigningKeyRow, statement};

/// Devices that somebody elsewhere may have. Who has more has a server that is out of its mind.
pub const MOST_DEVICES: i64 = 1_000;

/// A list that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowedRow {
    /// The last change that is known, as its server numbers them.
    pub stream_id: i64,
    /// Something was missed: the list isn't to be shown.
    pub stale: bool,
}

/// What a user elsewhere is to this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandingRow {
    pub user_id: String,
    /// Whether their list is followed, and everything of it is known.
    pub fresh: bool,
    /// Whether they share a room with somebody here.
    pub near: bool,
}

/// Begins to follow a list of which nothing is known, unless nobody here shares a room with its user.
pub fn follow(user_id: &str) -> Statement {
    statement!(
        "INSERT INTO followed_list (user_id, stream_id, stale)
         SELECT $1, 0, TRUE WHERE EXISTS (
             SELECT 1 FROM membership own
             JOIN membership near ON near.room = own.room AND near.membership = 'join'
             JOIN account a ON a.user_id = near.user_id
             WHERE own.user_id = $1 AND own.membership = 'join'
         )
         ON CONFLICT (user_id) DO NOTHING",
        user_id,
    )
}

pub fn mark_stale(user_id: &str) -> Statement {
    statement!("UPDATE followed_list SET stale = TRUE WHERE user_id = $1", user_id)
}

/// Another change is known. Conflicts if it doesn't follow the last one.
pub fn advance(user_id: &str, from: i64, to: i64) -> Statement {
    statement!(
        "UPDATE followed_list SET stream_id = $3 WHERE user_id = $1 AND stream_id = $2 AND NOT stale",
        user_id,
        from,
        to,
    )
    .expecting(1)
}

/// All is known up to a change. Conflicts if the list isn't followed.
pub fn refreshed(user_id: &str, stream_id: i64, stale: bool) -> Statement {
    statement!(
        "UPDATE followed_list SET stream_id = $2, stale = $3 WHERE user_id = $1",
        user_id,
        stream_id,
        stale,
    )
    .expecting(1)
}

/// A device elsewhere, unless there are too many.
pub fn set_foreign_device(
    user_id: &str,
    device_id: &str,
    keys: Option<String>,
    display_name: Option<String>,
) -> Statement {
    statement!(
        "INSERT INTO device_key (user_id, device_id, keys, display_name)
         SELECT $1, $2, $3, $4 WHERE (SELECT COUNT(*) FROM device_key WHERE user_id = $1) < $5
             OR EXISTS (SELECT 1 FROM device_key WHERE user_id = $1 AND device_id = $2)
         ON CONFLICT (user_id, device_id) DO UPDATE SET keys = excluded.keys, display_name = excluded.display_name",
        user_id,
        device_id,
        keys,
        display_name,
        MOST_DEVICES,
    )
}

pub fn delete_foreign_device(user_id: &str, device_id: &str) -> Statement {
    statement!("DELETE FROM device_key WHERE user_id = $1 AND device_id = $2", user_id, device_id)
}

/// What is known of a user elsewhere goes. What users here have signed of it stays.
pub fn delete_foreign_keys(user_id: &str) -> [Statement; 2] {
    [
        statement!("DELETE FROM device_key WHERE user_id = $1", user_id),
        statement!("DELETE FROM cross_signing_key WHERE user_id = $1", user_id),
    ]
}

pub fn set_foreign_key(row: &CrossSigningKeyRow) -> Statement {
    statement!(
        "INSERT INTO cross_signing_key (user_id, usage, public_key, key) VALUES ($1, $2, $3, $4)
         ON CONFLICT (user_id, usage) DO UPDATE SET public_key = excluded.public_key, key = excluded.key",
        &row.user_id,
        &row.usage,
        &row.public_key,
        &row.key,
    )
}

pub fn delete_foreign_key(user_id: &str, usage: &str) -> Statement {
    statement!("DELETE FROM cross_signing_key WHERE user_id = $1 AND usage = $2", user_id, usage)
}

/// A list isn't followed any more.
pub fn unfollow(user_id: &str) -> [Statement; 3] {
    let [devices, keys] = delete_foreign_keys(user_id);
    [statement!("DELETE FROM followed_list WHERE user_id = $1", user_id), devices, keys]
}

/// Somebody elsewhere has left a room: unless they share another with somebody here, their list isn't followed any more.
pub fn unfollow_who_left(user_id: &str) -> [Statement; 3] {
    [
        statement!(
            "DELETE FROM followed_list WHERE user_id = $1 AND NOT EXISTS (
                 SELECT 1 FROM membership own
                 JOIN membership near ON near.room = own.room AND near.membership = 'join'
                 JOIN account a ON a.user_id = near.user_id
                 WHERE own.user_id = $1 AND own.membership = 'join'
             )",
            user_id,
        ),
        statement!(
            "DELETE FROM device_key
             WHERE user_id = $1 AND NOT EXISTS (SELECT 1 FROM followed_list WHERE user_id = $1)",
            user_id,
        ),
        statement!(
            "DELETE FROM cross_signing_key
             WHERE user_id = $1 AND NOT EXISTS (SELECT 1 FROM followed_list WHERE user_id = $1)",
            user_id,
        ),
    ]
}

/// Somebody here has left a room. If they were the last, the same for all who are in.
pub fn unfollow_who_stay(room: i64) -> [Statement; 3] {
    [
        statement!(
            "DELETE FROM followed_list
             WHERE NOT EXISTS (
                 SELECT 1 FROM membership m JOIN account a ON a.user_id = m.user_id
                 WHERE m.room = $1 AND m.membership = 'join'
             ) AND user_id IN (SELECT user_id FROM membership WHERE room = $1 AND membership = 'join')
             AND NOT EXISTS (
                 SELECT 1 FROM membership own
                 JOIN membership near ON near.room = own.room AND near.membership = 'join'
                 JOIN account a ON a.user_id = near.user_id
                 WHERE own.user_id = followed_list.user_id AND own.membership = 'join'
             )",
            room,
        ),
        statement!(
            "DELETE FROM device_key
             WHERE NOT EXISTS (
                 SELECT 1 FROM membership m JOIN account a ON a.user_id = m.user_id
                 WHERE m.room = $1 AND m.membership = 'join'
             ) AND user_id IN (SELECT user_id FROM membership WHERE room = $1 AND membership = 'join')
             AND NOT EXISTS (SELECT 1 FROM followed_list f WHERE f.user_id = device_key.user_id)",
            room,
        ),
        statement!(
            "DELETE FROM cross_signing_key
             WHERE NOT EXISTS (
                 SELECT 1 FROM membership m JOIN account a ON a.user_id = m.user_id
                 WHERE m.room = $1 AND m.membership = 'join'
             ) AND user_id IN (SELECT user_id FROM membership WHERE room = $1 AND membership = 'join')
             AND NOT EXISTS (SELECT 1 FROM followed_list f WHERE f.user_id = cross_signing_key.user_id)",
            room,
        ),
    ]
}

impl Store {
    pub async fn followed(&self, user_id: &str) -> Result<Option<FollowedRow>, Error> {
        let row: Option<(i64, bool)> = self
            .optional(statement!("SELECT stream_id, stale FROM followed_list WHERE user_id = $1", user_id))
            .await?;
        Ok(row.map(|(stream_id, stale)| FollowedRow { stream_id, stale }))
    }

    /// Whose lists have to be asked for: all.
    pub async fn stale_lists(&self) -> Result<Vec<String>, Error> {
        let rows: Vec<(String,)> =
            self.all(statement!("SELECT user_id FROM followed_list WHERE stale ORDER BY user_id")).await?;
        Ok(rows.into_iter().map(|(user_id,)| user_id).collect())
    }

    /// What these users (a JSON list) are to this server.
    pub async fn standings(&self, users: String) -> Result<Vec<StandingRow>, Error> {
        let rows: Vec<(String, bool, bool)> = self
            .all(statement!(
                "SELECT u.value,
                        EXISTS (SELECT 1 FROM followed_list f WHERE f.user_id = u.value AND NOT f.stale),
                        EXISTS (
                            SELECT 1 FROM membership own
                            JOIN membership near ON near.room = own.room AND near.membership = 'join'
                            JOIN account a ON a.user_id = near.user_id
                            WHERE own.user_id = u.value AND own.membership = 'join'
                        )
                 FROM json_each($1) u",
                users,
            ))
            .await?;
        Ok(rows.into_iter().map(|(user_id, fresh, near)| StandingRow { user_id, fresh, near }).collect())
    }

    /// Whether somebody elsewhere shares a room with somebody here.
    pub async fn is_near(&self, user_id: &str) -> Result<bool, Error> {
        let users = serde_json::json!([user_id]).to_string();
        Ok(self.standings(users).await?.iter().any(|row| row.near))
    }
}
