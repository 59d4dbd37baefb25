//! The tables `searchable` and `message_index`: which events have which words.
//!
//! The index is SQLite's own full-text search; its dialect stays in this file.

use super::{Error, Parts, Statement, Store, statement};

/// An event that can be found by its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    pub position: i64,
    pub room: i64,
    pub seq: i64,
}

/// An event that waits to be indexed.
pub struct Waiting {
    pub position: i64,
    pub room: i64,
    pub pdu: String,
}

impl Store {
    /// At most `limit` events that aren't indexed yet, oldest first, and the position up to which all others are.
    pub async fn waiting_for_index(&self, limit: i64) -> Result<(i64, Vec<Waiting>), Error> {
        // All that lies below one of them is there too.
        self.settled(Parts::EVENTS).await?;
        let (indexed,): (i64,) = self.one(statement!("SELECT indexed FROM head WHERE id = 1")).await?;
        let rows: Vec<(i64, i64, String)> = self
            .all(statement!(
                "SELECT s.position, s.room, e.pdu
                 FROM searchable s JOIN event e ON e.room = s.room AND e.seq = s.seq
                 WHERE s.position > $1 ORDER BY s.position LIMIT $2",
                indexed,
                limit,
            ))
            .await?;
        let rows = rows.into_iter().map(|(position, room, pdu)| Waiting { position, room, pdu });
        Ok((indexed, rows.collect()))
    }

    /// At most `limit` events below position `before` that have all of `words`, the newest first. With `or`, they also have
    /// one of these.
    pub async fn search(
        &self,
        words: &[Word],
        or: &[String],
        before: i64,
        limit: i64,
    ) -> Result<Vec<Hit>, Error> {
        let mut question: Vec<String> = words.iter().map(Word::quoted).collect();
        if !or.is_empty() {
            let any: Vec<String> = or.iter().map(|word| quoted(word)).collect();
            question.push(format!("({})", any.join(" OR ")));
        }
        let rows: Vec<(i64, i64, i64)> = self
            .all(statement!(
                "SELECT s.position, s.room, s.seq
                 FROM message_index m JOIN searchable s ON s.position = m.rowid
                 WHERE m.message_index MATCH $1 AND m.rowid < $2
                 ORDER BY m.rowid DESC LIMIT $3",
                question.join(" AND "),
                before,
                limit,
            ))
            .await?;
        Ok(rows.into_iter().map(|(position, room, seq)| Hit { position, room, seq }).collect())
    }
}

/// What an event has to have: a word, or one that begins so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    pub text: String,
    pub prefix: bool,
}

impl Word {
    fn quoted(&self) -> String {
        let quoted = quoted(&self.text);
        if self.prefix { format!("{quoted} *") } else { quoted }
    }
}

/// Between quotes nothing is an operator.
fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('"', "\"\""))
}

/// Puts the words of events into the index, each at the event's position, unless it was redacted meanwhile.
///
/// In one statement, since the index writes out what it has gathered before the next one begins.
pub fn index(words: &[(i64, String)]) -> Result<Statement, Error> {
    let words = serde_json::to_string(words).map_err(|cause| Error::Encoding(cause.to_string()))?;
    Ok(statement!(
        "INSERT INTO message_index (rowid, words)
         SELECT w.value ->> 0, w.value ->> 1 FROM json_each($1) w
         WHERE EXISTS (SELECT 1 FROM searchable s WHERE s.position = w.value ->> 0) ORDER BY 1",
        words,
    ))
}

/// All up to a position is indexed; conflicts unless that was so up to `from`.
pub fn set_indexed(from: i64, to: i64) -> Statement {
    statement!("UPDATE head SET indexed = $2 WHERE id = 1 AND indexed = $1", from, to).expecting(1)
}

/// Takes an event out, whose words these are (if it has any). What was delivered before has to be settled.
pub fn remove(room: i64, seq: i64, words: Option<String>) -> Vec<Statement> {
    let forget = statement!(
        "DELETE FROM searchable WHERE position = (SELECT position FROM event WHERE room = $1 AND seq = $2)
           AND room = $1 AND seq = $2",
        room,
        seq,
    );
    let Some(words) = words else { return vec![forget] };
    let remove = statement!(
        "INSERT INTO message_index (message_index, rowid, words)
         SELECT 'delete', s.position, $3 FROM searchable s, head h
         WHERE s.position = (SELECT position FROM event WHERE room = $1 AND seq = $2)
           AND s.room = $1 AND s.seq = $2 AND s.position <= h.indexed",
        room,
        seq,
        words,
    );
    vec![remove, forget]
}
