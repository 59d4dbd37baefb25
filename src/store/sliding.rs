//! Questions of sliding sync: all rooms of a user at once, as far as lists of rooms need them.

use std::collections::HashMap;

use super::{
    Error, Statement, Store,
    account_data::{AccountDataRow, DELETED},
    receipt::ReceiptRow,
    statement,
};

/// A room in which a user has a membership that is not forgotten.
pub struct ListedRow {
    pub room: i64,
    pub room_id: String,
    pub membership: String,
    /// The position of the room's last event; of a room that they aren't in, of their member event.
    pub position: i64,
    /// The member event, of a room that they aren't in.
    pub member: Option<String>,
    /// The `m.room.create` event.
    pub create: Option<String>,
    /// While they were in the room, if they aren't any more.
    pub encrypted: bool,
    /// What others said of the room, as JSON, if that is what the user is told of it.
    pub hearsay: Option<String>,
}

/// A connection of sliding sync that a run has left to the next.
pub struct ConnectionRow {
    pub device: i64,
    pub conn_id: String,
    /// JSON.
    pub state: String,
}

pub fn insert_connection(device: i64, conn_id: &str, state: String) -> Statement {
    statement!(
        "INSERT INTO sliding_connection (device, conn_id, place, state)
         SELECT $1, $2, COALESCE(MAX(place), 0) + 1, $3 FROM sliding_connection",
        device,
        conn_id,
        state,
    )
}

pub fn delete_connections() -> Statement {
    statement!("DELETE FROM sliding_connection")
}

impl Store {
    /// The connections that the run before has left, in the order in which they were written.
    pub async fn sliding_connections(&self) -> Result<Vec<ConnectionRow>, Error> {
        let rows: Vec<(i64, String, String)> = self
            .all(statement!("SELECT device, conn_id, state FROM sliding_connection ORDER BY place"))
            .await?;
        let row = |(device, conn_id, state)| ConnectionRow { device, conn_id, state };
        Ok(rows.into_iter().map(row).collect())
    }

    pub async fn listed_rooms(&self, user_id: &str) -> Result<Vec<ListedRow>, Error> {
        type Row = (i64, String, String, i64, Option<String>, Option<String>, bool, Option<String>);
        let rows: Vec<Row> = self
            .all(statement!(
                "SELECT m.room, r.room_id, m.membership, e.position,
                        CASE WHEN m.membership <> 'join' THEN e.pdu END,
                        (SELECT b.pdu FROM state_log c JOIN event b ON b.room = c.room AND b.seq = c.event
                         WHERE c.room = m.room AND c.type = 'm.room.create' AND c.state_key = ''),
                        EXISTS (
                            SELECT 1 FROM state_log s
                            WHERE s.room = m.room AND s.type = 'm.room.encryption' AND s.state_key = ''
                              AND (m.membership NOT IN ('leave', 'ban') OR s.seq <= m.event)
                        ),
                        CASE WHEN m.membership IN ('invite', 'knock') OR NOT EXISTS (
                            SELECT 1 FROM state_log c
                            WHERE c.room = m.room AND c.type = 'm.room.create' AND c.state_key = ''
                        ) THEN r.hearsay END
                 FROM membership m
                 JOIN room r ON r.id = m.room
                 JOIN event e ON e.room = m.room AND e.seq = CASE m.membership
                     WHEN 'join' THEN (SELECT MAX(l.seq) FROM event l WHERE l.room = m.room)
                     ELSE m.event
                 END
                 WHERE m.user_id = $1 AND NOT m.forgotten",
                user_id,
            ))
            .await?;
        let row = |(room, room_id, membership, position, member, create, encrypted, hearsay)| ListedRow {
            room,
            room_id,
            membership,
            position,
            member,
            create,
            encrypted,
            hearsay,
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// Every member event that a user ever had in these rooms.
    pub async fn member_events(&self, user_id: &str, rooms: &[i64]) -> Result<Vec<(i64, String)>, Error> {
        let list = serde_json::to_string(rooms).map_err(|cause| Error::Encoding(cause.to_string()))?;
        self.all(statement!(
            "SELECT s.room, e.pdu FROM json_each($1) q
             JOIN state_log s ON s.room = q.value AND s.type = 'm.room.member' AND s.state_key = $2
             JOIN event e ON e.room = s.room AND e.seq = s.event",
            list,
            user_id,
        ))
        .await
    }

    /// All account data of a user in these rooms.
    pub async fn account_data_of_rooms(
        &self,
        recipient: i64,
        rooms: &[i64],
    ) -> Result<HashMap<i64, Vec<AccountDataRow>>, Error> {
        let list = serde_json::to_string(rooms).map_err(|cause| Error::Encoding(cause.to_string()))?;
        let rows: Vec<(i64, String, String)> = self
            .all(statement!(
                "SELECT a.room, a.type, a.content FROM json_each($2) q
                 JOIN account_data a ON a.recipient = $1 AND a.room = q.value
                 WHERE a.content <> $3 ORDER BY a.type",
                recipient,
                list,
                DELETED,
            ))
            .await?;
        let mut by_room: HashMap<i64, Vec<AccountDataRow>> = HashMap::new();
        for (room, kind, content) in rows {
            by_room.entry(room).or_default().push(AccountDataRow { kind, content });
        }
        Ok(by_room)
    }

    /// All receipts of these rooms, the private ones of everybody among them.
    pub async fn receipts_of_rooms(&self, rooms: &[i64]) -> Result<HashMap<i64, Vec<ReceiptRow>>, Error> {
        let list = serde_json::to_string(rooms).map_err(|cause| Error::Encoding(cause.to_string()))?;
        let rows: Vec<(i64, String, String, String, String, i64)> = self
            .all(statement!(
                "SELECT r.room, r.user_id, r.type, r.thread, r.event_id, r.ts FROM json_each($1) q
                 JOIN receipt r ON r.room = q.value ORDER BY r.changed",
                list,
            ))
            .await?;
        let mut by_room: HashMap<i64, Vec<ReceiptRow>> = HashMap::new();
        for (room, user_id, kind, thread, event_id, ts) in rows {
            by_room.entry(room).or_default().push(ReceiptRow { user_id, kind, thread, event_id, ts });
        }
        Ok(by_room)
    }

    /// The content of one type of account data in every room that has it.
    pub async fn account_data_by_room(
        &self,
        recipient: i64,
        kind: &str,
    ) -> Result<Vec<(i64, String)>, Error> {
        self.all(statement!(
            "SELECT room, content FROM account_data WHERE recipient = $1 AND type = $2 AND content <> $3",
            recipient,
            kind,
            DELETED,
        ))
        .await
    }

    /// The position at which an event was accepted; of one that was purged, that of the last before it that is left.
    pub async fn event_position(&self, room: i64, seq: i64) -> Result<Option<i64>, Error> {
        let row: Option<(i64,)> = self
            .optional(statement!(
                "SELECT position FROM event WHERE room = $1 AND seq <= $2 ORDER BY seq DESC LIMIT 1",
                room,
                seq,
            ))
            .await?;
        Ok(row.map(|(position,)| position))
    }
}
