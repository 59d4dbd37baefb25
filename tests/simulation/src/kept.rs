//! What a server has in its database, read past it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::{
    device::{list, text},
    host::Host,
    os,
};

/// The verdict on events that are shown.
pub(crate) const SHOWN: i64 = 0;

pub(crate) struct Kept {
    pub(crate) rooms: BTreeMap<String, KeptRoom>,
    head: i64,
    integrity: String,
    /// For people: what waits for others.
    waiting: Vec<String>,
}

pub(crate) struct KeptEvent {
    pub(crate) seq: i64,
    pub(crate) id: String,
    position: i64,
    pub(crate) verdict: i64,
    pub(crate) kind: String,
    pub(crate) state_key: Option<String>,
    pub(crate) sender: String,
    /// Of a message that isn't redacted.
    pub(crate) body: Option<String>,
    /// Who sent it, and what is in it.
    what: String,
    /// It came to a place before others that were there; or it waited for what it redacts, unseen.
    pub(crate) late: bool,
    pub(crate) redacts: Option<String>,
    /// When it was made, by its own account.
    pub(crate) time: i64,
    /// What it follows.
    previous: Vec<String>,
}

#[derive(Default)]
pub(crate) struct KeptRoom {
    /// By `seq`.
    pub(crate) events: Vec<KeptEvent>,
    pub(crate) ids: BTreeMap<String, usize>,
    pub(crate) state: BTreeMap<(String, String), String>,
    pub(crate) joined: BTreeSet<String>,
    /// Each change of a membership: when, whose, what.
    members: Vec<(i64, String, String)>,
    /// Whose membership has ever changed otherwise than by the event at that place.
    silent: BTreeSet<String>,
    has_holes: bool,
    /// Where its history goes on after what couldn't be had.
    holes: Vec<i64>,
    /// The last event under each key of the state, whether it is the state or not.
    pub(crate) last: BTreeMap<(String, String), String>,
}

impl Kept {
    pub(crate) fn read(host: &Host) -> Result<Self, rusqlite::Error> {
        let database =
            Connection::open_with_flags_and_vfs(host.database(), OpenFlags::default(), os::FILE_SYSTEM)?;
        let integrity = database.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        let head = database.query_row("SELECT position FROM head", [], |row| row.get(0))?;
        let mut rooms = BTreeMap::new();
        let mut question = database.prepare("SELECT id, room_id FROM room ORDER BY id")?;
        let found = question.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
        for room in found {
            let (number, room_id) = room?;
            rooms.insert(room_id, KeptRoom::read(&database, number)?);
        }
        let mut waiting = Vec::new();
        for table in ["destination", "to_device", "delivery"] {
            let mut question = database.prepare(&format!("SELECT * FROM {table}"))?;
            let columns = question.column_count();
            let row = |row: &rusqlite::Row<'_>| {
                (0..columns).map(|at| row.get::<_, rusqlite::types::Value>(at)).collect::<Result<Vec<_>, _>>()
            };
            for row in question.query_map([], row)? {
                waiting.push(format!("{table} {:?}", row?));
            }
        }
        Ok(Self { rooms, head, integrity, waiting })
    }

    /// What the database itself shows to be wrong.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.integrity != "ok" {
            problems.push(format!("the database is damaged: {}", self.integrity));
        }
        for (room_id, room) in &self.rooms {
            let log = || room.events.iter().filter(|event| event.seq > 0);
            if !room.has_holes {
                for (event, seq) in log().zip(1..) {
                    if event.seq != seq {
                        problems.push(format!("I2: {room_id} has no event {seq} but {}", event.seq));
                        break;
                    }
                }
            }
            let mut last = 0;
            for event in log().filter(|event| !event.late) {
                if event.position <= last || event.position > self.head {
                    let (seq, position, head) = (event.seq, event.position, self.head);
                    problems.push(format!(
                        "I2: {room_id} has at {seq} the position {position}, after {last}, of {head} in all"
                    ));
                }
                last = last.max(event.position);
            }
        }
        problems
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (room_id, room) in &self.rooms {
            writeln!(out, "  {room_id} holes {:?}", room.holes)?;
            for KeptEvent { seq, id, position, verdict, kind, what, .. } in &room.events {
                writeln!(out, "    {seq:>9} at {position:>4} {verdict} {id} {kind} {what}")?;
            }
            writeln!(out, "    members {:?}", room.members)?;
        }
        for row in &self.waiting {
            writeln!(out, "  {row}")?;
        }
        Ok(())
    }
}

impl KeptRoom {
    fn read(database: &Connection, number: i64) -> Result<Self, rusqlite::Error> {
        let mut room = Self::default();
        let text_of = "SELECT seq, event_id, position, verdict, pdu FROM event WHERE room = ?1 ORDER BY seq";
        let mut question = database.prepare(text_of)?;
        let rows = question.query_map([number], |row| {
            let pdu: String = row.get(4)?;
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, pdu))
        })?;
        let mut members = BTreeMap::new();
        for row in rows {
            let (seq, id, position, verdict, pdu): (i64, String, i64, i64, String) = row?;
            let pdu: Value = serde_json::from_str(&pdu).unwrap_or_default();
            let (kind, content) = (text(&pdu["type"]), &pdu["content"]);
            let body = content["body"].as_str().map(str::to_owned);
            if kind == "m.room.member" {
                members.insert(seq, (text(&pdu["state_key"]), text(&content["membership"])));
            }
            room.ids.insert(id.clone(), room.events.len());
            if let Some(key) = pdu["state_key"].as_str().filter(|_| verdict == SHOWN) {
                room.last.insert((kind.clone(), key.to_owned()), id.clone());
            }
            let what = format!("{} {:?} {content}", text(&pdu["sender"]), pdu["state_key"]);
            let redacts = pdu["redacts"].as_str().or(content["redacts"].as_str()).map(str::to_owned);
            room.events.push(KeptEvent {
                seq,
                id,
                position,
                verdict,
                kind,
                state_key: pdu["state_key"].as_str().map(str::to_owned),
                sender: text(&pdu["sender"]),
                body,
                what,
                late: false,
                redacts,
                time: pdu["origin_server_ts"].as_i64().unwrap_or_default(),
                previous: list(&pdu["prev_events"]).iter().map(text).collect(),
            });
        }
        // What came later than what is after it was put before that.
        let mut least = i64::MAX;
        for event in room.events.iter_mut().rev() {
            event.late = event.position >= least;
            least = least.min(event.position);
        }
        // A redaction waits, unseen, for a target that comes after it, or that came to a place before others.
        let targets: BTreeMap<String, (i64, bool)> =
            room.events.iter().map(|event| (event.id.clone(), (event.seq, event.late))).collect();
        for event in &mut room.events {
            let target = event.redacts.as_ref().and_then(|target| targets.get(target));
            event.late |= target.is_some_and(|(seq, late)| *late || *seq > event.seq);
        }
        let text_of =
            "SELECT type, state_key, seq, event FROM state_log WHERE room = ?1 ORDER BY seq, type, state_key";
        let mut question = database.prepare(text_of)?;
        let rows =
            question.query_map([number], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
        let mut state: BTreeMap<(String, String), i64> = BTreeMap::new();
        for row in rows {
            let (kind, key, seq, event): (String, String, i64, i64) = row?;
            if kind == "m.room.member" {
                let membership =
                    members.get(&event).map_or_else(String::new, |(_, membership)| membership.clone());
                room.members.push((seq, key.clone(), membership));
                if seq != event {
                    room.silent.insert(key.clone());
                }
            }
            state.insert((kind, key), event);
        }
        let by_seq: BTreeMap<i64, &KeptEvent> = room.events.iter().map(|event| (event.seq, event)).collect();
        for (key, event) in state {
            let Some(event) = by_seq.get(&event) else { continue };
            if key.0 == "m.room.member" && members.get(&event.seq).is_some_and(|(_, is)| is == "join") {
                room.joined.insert(key.1.clone());
            }
            room.state.insert(key, event.id.clone());
        }
        let mut question = database.prepare("SELECT seq FROM hole WHERE room = ?1 ORDER BY seq")?;
        let holes = question.query_map([number], |row| row.get(0))?;
        room.holes = holes.collect::<Result<_, _>>()?;
        room.has_holes = !room.holes.is_empty() || room.events.iter().any(|event| event.seq >= 1 << 20);
        Ok(room)
    }

    pub(crate) fn event(&self, id: &str) -> Option<&KeptEvent> {
        self.ids.get(id).map(|place| &self.events[*place])
    }

    pub(crate) fn joined_of<'a>(&'a self, server: &str) -> impl Iterator<Item = &'a String> {
        let end = format!(":{server}");
        self.joined.iter().filter(move |user| user.ends_with(&end))
    }

    /// Whether somebody of a server is in the room.
    pub(crate) fn is_inside(&self, server: &str) -> bool {
        self.joined_of(server).next().is_some()
    }

    /// Since when somebody of a server has been in the room, without an end.
    pub(crate) fn inside_since(&self, server: &str) -> Option<i64> {
        let (end, mut inside, mut since) = (format!(":{server}"), BTreeSet::new(), None);
        for (seq, user, membership) in self.members.iter().filter(|(_, user, _)| user.ends_with(&end)) {
            if membership == "join" {
                if inside.is_empty() {
                    since = Some(*seq);
                }
                inside.insert(user);
            } else {
                inside.remove(user);
            }
        }
        since.filter(|_| !inside.is_empty())
    }

    /// Since when somebody has been in the room, if all that happened meanwhile came in its order.
    pub(crate) fn joined_since(&self, user: &str) -> Option<i64> {
        if self.has_holes || self.silent.contains(user) {
            return None;
        }
        let own = self.members.iter().filter(|(_, whose, _)| whose == user);
        let path: Vec<(i64, bool)> = own.map(|(seq, _, is)| (*seq, is == "join")).collect();
        let out = path.iter().rposition(|(_, joined)| !joined).map_or(0, |at| at + 1);
        path.get(out).map(|(seq, _)| *seq)
    }

    /// When a server came into the room where it is now, by its own account.
    pub(crate) fn came(&self, server: &str) -> Option<i64> {
        let since = self.inside_since(server)?;
        self.events.iter().find(|event| event.seq >= since).map(|event| event.time)
    }

    /// What another server has that comes before the holes of this log.
    pub(crate) fn missing<'a>(&'a self, other: &'a Self) -> BTreeSet<&'a str> {
        let above = self.events.iter().filter(|event| self.holes.contains(&event.seq));
        let (mut wave, mut missing) = (above.collect::<Vec<_>>(), BTreeSet::new());
        while let Some(event) = wave.pop() {
            let before = event.previous.iter().filter_map(|id| other.event(id));
            wave.extend(before.filter(|event| missing.insert(event.id.as_str())));
        }
        missing
    }

    /// The first event of a log since which a server has been in the room by its own account, and lacks nothing.
    pub(crate) fn whole_since(&self, server: &str) -> Option<&KeptEvent> {
        let since = self.inside_since(server)?.max(self.holes.last().copied().unwrap_or(0));
        self.events.iter().find(|event| event.seq >= since && event.verdict == SHOWN)
    }

    /// Whether somebody may see an event of the log. The room's history is and has been for these, but that until it said so
    /// it was for all who would ever come in.
    pub(crate) fn shows(&self, user: &str, event: &KeptEvent, visibility: &str) -> bool {
        let own = event.kind == "m.room.member" && event.state_key.as_deref() == Some(user);
        let rule = self.events.iter().find(|event| event.kind == "m.room.history_visibility");
        let ruled = rule.is_none_or(|rule| rule.seq < event.seq);
        let visibility = if ruled { visibility } else { "shared" };
        let change = event.state_key.is_some() && self.may_see(user, event.seq - 1, visibility);
        own || change || self.may_see(user, event.seq, visibility)
    }

    /// Whether somebody may see what is at a place, where the history is and has been for these ("Server behaviour" of history
    /// visibility).
    fn may_see(&self, user: &str, seq: i64, visibility: &str) -> bool {
        let own = || self.members.iter().filter(|(_, whose, _)| whose == user);
        let at = own().take_while(|(since, ..)| *since <= seq).last().map_or("", |(_, _, is)| is);
        let later = || own().any(|(since, _, is)| *since > seq && is == "join");
        match visibility {
            "world_readable" => true,
            "joined" => at == "join",
            "invited" => at == "join" || at == "invite",
            _ => at == "join" || later(),
        }
    }
}
