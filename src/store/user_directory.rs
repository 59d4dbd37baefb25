//! Questions about people, for those who look for them: `account`, `user_name` and `membership` together.

use super::{Error, Statement, Store, statement};

/// Somebody whose name or id may be the one that is looked for.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub user_id: String,
    /// The display name in lower case.
    pub name: Option<String>,
}

impl Store {
    /// At most `limit` users of this server whose id or name contains a text in lower case; whoever is called just so
    /// or begins so comes first.
    pub async fn people(&self, text: &str, limit: i64) -> Result<Vec<Candidate>, Error> {
        let text = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        let rows: Vec<(String, Option<String>)> = self
            .all(statement!(
                "SELECT a.user_id, n.name
                 FROM account a LEFT JOIN user_name n ON n.recipient = a.recipient
                 WHERE a.deactivated_ts IS NULL
                   AND (a.user_id LIKE '%' || $1 || '%' ESCAPE '\\' OR n.name LIKE '%' || $1 || '%' ESCAPE '\\')
                 ORDER BY CASE
                     WHEN a.user_id LIKE '@' || $1 || ':%' ESCAPE '\\' OR n.name LIKE $1 ESCAPE '\\' THEN 0
                     WHEN a.user_id LIKE '@' || $1 || '%' ESCAPE '\\' OR n.name LIKE $1 || '%' ESCAPE '\\' THEN 1
                     ELSE 2 END, a.recipient
                 LIMIT $2",
                text,
                limit,
            ))
            .await?;
        Ok(rows.into_iter().map(|(user_id, name)| Candidate { user_id, name }).collect())
    }

    /// Those of these users (a JSON list of ids) whom a user may know of: they share a room, or the other is in one that
    /// is open to strangers.
    pub async fn acquaintances(&self, user_id: &str, others: String) -> Result<Vec<String>, Error> {
        let rows: Vec<(String,)> = self
            .all(statement!(
                "SELECT DISTINCT o.user_id
                 FROM json_each($2) c JOIN membership o ON o.user_id = c.value AND o.membership = 'join'
                 WHERE EXISTS (
                     SELECT 1 FROM membership m
                     WHERE m.user_id = $1 AND m.room = o.room AND m.membership = 'join'
                 ) OR EXISTS (SELECT 1 FROM room r WHERE r.id = o.room AND r.open)",
                user_id,
                others,
            ))
            .await?;
        Ok(rows.into_iter().map(|(user_id,)| user_id).collect())
    }

    /// The rooms that both users are in, by number above `after`.
    pub async fn mutual_rooms(
        &self,
        one: &str,
        other: &str,
        after: i64,
        limit: i64,
    ) -> Result<Vec<(i64, String)>, Error> {
        self.all(statement!(
            "SELECT r.id, r.room_id
             FROM membership m JOIN membership o ON o.room = m.room AND o.user_id = $2 AND o.membership = 'join'
             JOIN room r ON r.id = m.room
             WHERE m.user_id = $1 AND m.membership = 'join' AND m.room > $3 ORDER BY m.room LIMIT $4",
            one,
            other,
            after,
            limit,
        ))
        .await
    }

    /// How many rooms both users are in.
    pub async fn mutual_count(&self, one: &str, other: &str) -> Result<i64, Error> {
        let (count,): (i64,) = self
            .one(statement!(
                "SELECT COUNT(*)
                 FROM membership m JOIN membership o ON o.room = m.room AND o.user_id = $2 AND o.membership = 'join'
                 WHERE m.user_id = $1 AND m.membership = 'join'",
                one,
                other,
            ))
            .await?;
        Ok(count)
    }
}

/// Sets the name under which somebody is found.
pub fn set_name(recipient: i64, name: &str) -> Statement {
    statement!(
        "INSERT INTO user_name (recipient, name) VALUES ($1, $2)
         ON CONFLICT (recipient) DO UPDATE SET name = excluded.name",
        recipient,
        name.to_lowercase(),
    )
}

pub fn delete_name(recipient: i64) -> Statement {
    statement!("DELETE FROM user_name WHERE recipient = $1", recipient)
}
