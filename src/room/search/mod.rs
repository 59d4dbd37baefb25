//! Searching messages ("Server Side Search"): by their words, in the rooms that somebody is or was in.
//!
//! Words are compared without case and diacritics; all that are asked for have to be there. If nothing has them, the last
//! may be the beginning of a word. Which words a text has is the business of [`words`].
//!
//! An event gets into the index soon after it was sent, in bulk; whoever searches has what waits indexed first. It leaves
//! the index with its redaction.

mod words;

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use ruma::{OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};

use self::words::{beginning, highlights, key_of, key_word, question, rank, room_word, words_of_stored};
pub(super) use self::words::{has_text, words_of};
use super::{Error, Event, EventFilter, Reader, Room, Rooms, Sight};
use crate::{
    account::IgnoredUsers,
    store::search::{self as table, Hit, Word},
};

/// Events that are indexed in one step.
const CHUNK: i64 = 500;
/// Bytes of words that are written at a time: many short messages, few long ones.
const TOGETHER: usize = 256 * 1024;
/// Steps that somebody who searches waits for.
const PATIENCE: usize = 8;
/// How often to look for what waits.
const EVERY: Duration = Duration::from_secs(1);

/// Events that one answer looks at, at most.
const SCAN: usize = 2_000;
/// … and that are looked at together, at least.
const STRIDE: usize = 200;
/// The newest matches, among which the best are the best.
const RANKED: usize = 500;
/// Up to so many rooms the index is asked for them alone.
const ROOMS: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Recent,
    Rank,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GroupBy {
    Room,
    Sender,
}

/// What is searched for.
pub struct Query<'a> {
    pub term: &'a str,
    /// `content.body`, `content.name`, `content.topic`; none: all of them.
    pub keys: Vec<String>,
    pub filter: &'a EventFilter,
    pub order: Order,
    pub groups: Vec<GroupBy>,
    pub limit: usize,
    /// A token of an answer or of one of its groups.
    pub from: Option<&'a str>,
}

pub struct Match {
    pub room: Arc<Room>,
    pub sight: Arc<Sight>,
    pub event: Arc<Event>,
    position: i64,
    pub rank: f64,
}

/// The matches of one room or of one sender.
#[derive(Default)]
pub struct Group {
    /// Their places among all matches of the answer.
    pub matches: Vec<usize>,
    pub next_batch: Option<String>,
}

pub struct Searched {
    pub matches: Vec<Match>,
    /// About how many there are.
    pub count: usize,
    pub next_batch: Option<String>,
    pub groups: BTreeMap<GroupBy, BTreeMap<String, Group>>,
    /// The words to show as found.
    pub highlights: Vec<String>,
}

/// Where an answer goes on: below a position, after so many of them; in a group only its own.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Place {
    #[serde(rename = "p", skip_serializing_if = "Option::is_none")]
    before: Option<i64>,
    #[serde(rename = "n", default)]
    skip: usize,
    #[serde(rename = "r", skip_serializing_if = "Option::is_none")]
    room: Option<OwnedRoomId>,
    #[serde(rename = "s", skip_serializing_if = "Option::is_none")]
    sender: Option<OwnedUserId>,
    /// The last word is the beginning of one, on the pages that follow too.
    #[serde(rename = "b", default, skip_serializing_if = "std::ops::Not::not")]
    beginning: bool,
}

impl Place {
    fn parse(token: &str) -> Result<Self, Error> {
        let refused = || Error::InvalidParam("`next_batch` is not a token of a search".to_owned());
        let text = token.strip_prefix('q').ok_or_else(refused)?;
        serde_json::from_str(text).map_err(|_| refused())
    }

    fn token(&self) -> String {
        format!("q{}", serde_json::to_string(self).unwrap_or_default())
    }
}

/// The matches that a scan has found, and the position down to which it has looked, if there may be more below.
#[derive(Default)]
struct Found {
    matches: Vec<Match>,
    more: Option<i64>,
}

impl Rooms {
    /// Searches the messages that somebody may see.
    pub async fn search(&self, reader: Reader<'_>, query: Query<'_>) -> Result<Searched, Error> {
        for _ in 0..PATIENCE {
            match self.index_some().await {
                Ok(true) => {}
                Ok(false) => break,
                // Where nothing can be written, what is indexed can still be found. The indexer says what is wrong.
                Err(cause) => {
                    tracing::debug!(%cause, "searching without the latest messages");
                    break;
                }
            }
        }
        let mut place = query.from.map(Place::parse).transpose()?.unwrap_or_default();
        let mut words = question(query.term);
        if place.beginning {
            words = beginning(words).unwrap_or_default();
        }
        let mut answer = Searched {
            matches: Vec::new(),
            count: 0,
            next_batch: None,
            groups: BTreeMap::new(),
            highlights: highlights(query.term),
        };
        if words.is_empty() || query.filter.matches_nothing() {
            return Ok(answer);
        }
        let rooms = self.searched_rooms(reader, &query, &place).await?;
        let wanted = match query.order {
            Order::Recent => query.limit,
            Order::Rank => RANKED,
        };
        let mut found = self.scan(reader, &query, &place, &words, &rooms, wanted).await?;
        let nothing = found.matches.is_empty() && found.more.is_none() && place.before.is_none();
        if nothing
            && !place.beginning
            && let Some(words) = beginning(words)
        {
            place.beginning = true;
            found = self.scan(reader, &query, &place, &words, &rooms, wanted).await?;
        }
        let so_far = place.skip.saturating_add(found.matches.len());
        answer.count = so_far.saturating_add(usize::from(found.more.is_some()));
        // Those that are better than the page.
        let mut passed = Vec::new();
        match query.order {
            Order::Recent => {
                let next = |before| Place { before: Some(before), skip: so_far, ..place.clone() };
                let more = found.more.map(next);
                answer.next_batch = more.map(|place| place.token());
                answer.matches = found.matches;
            }
            Order::Rank => {
                found.matches.sort_by(|one, other| {
                    other.rank.total_cmp(&one.rank).then(other.position.cmp(&one.position))
                });
                answer.count = found.matches.len();
                let skip = place.skip.saturating_add(query.limit);
                if answer.count > skip {
                    answer.next_batch = Some(Place { skip, ..place.clone() }.token());
                }
                let rest = found.matches.split_off(place.skip.min(found.matches.len()));
                passed = found.matches;
                answer.matches = rest.into_iter().take(query.limit).collect();
            }
        }
        group(&mut answer, &passed, &query, &place);
        Ok(answer)
    }

    /// The rooms that are searched, by number.
    async fn searched_rooms(
        &self,
        reader: Reader<'_>,
        query: &Query<'_>,
        place: &Place,
    ) -> Result<HashMap<i64, OwnedRoomId>, Error> {
        let rows = self.core.store.memberships(reader.user_id.as_str()).await?.into_iter();
        let known = rows.filter(|row| matches!(row.membership.as_str(), "join" | "leave" | "ban"));
        let rooms = known.filter_map(|row| Some((row.room, OwnedRoomId::try_from(row.room_id).ok()?)));
        let wanted = rooms.filter(|(_, room_id)| {
            query.filter.room(room_id) && place.room.as_ref().is_none_or(|room| room == room_id)
        });
        Ok(wanted.collect())
    }

    /// Looks through the index from the newest event on.
    async fn scan(
        &self,
        reader: Reader<'_>,
        query: &Query<'_>,
        place: &Place,
        words: &[Word],
        rooms: &HashMap<i64, OwnedRoomId>,
        wanted: usize,
    ) -> Result<Found, Error> {
        let mut found = Found::default();
        if rooms.is_empty() {
            return Ok(found);
        }
        let mut words = words.to_vec();
        let keys: Vec<String> = query.keys.iter().filter_map(|key| key_word(key)).collect();
        if let [key] = &keys[..] {
            words.push(Word { text: key.clone(), prefix: false });
        }
        let or: Vec<String> = if rooms.len() <= ROOMS {
            rooms.keys().map(|room| room_word(*room)).collect()
        } else {
            Vec::new()
        };
        let ignored = self.core.accounts.ignored_users(reader.recipient).await?;
        let mut sights: HashMap<i64, (Arc<Room>, Arc<Sight>)> = HashMap::new();
        let (mut before, mut scanned) = (place.before.unwrap_or(i64::MAX), 0);
        // Each question to the index costs as much as all that begins with the last word: one has to do.
        let stride = STRIDE.max(wanted + 1);
        loop {
            let hits = self.core.store.search(&words, &or, before, stride as i64).await?;
            let last = hits.len() < stride;
            let events = self.hits(reader, &hits, rooms, &mut sights, (query.filter, &ignored)).await?;
            for (hit, event) in hits.iter().zip(events) {
                if found.matches.len() == wanted || scanned == SCAN {
                    found.more = Some(before);
                    return Ok(found);
                }
                scanned += 1;
                before = hit.position;
                let (Some(event), Some((room, sight))) = (event, sights.get(&hit.room)) else { continue };
                let wanted_key =
                    keys.is_empty() || keys.iter().any(|key| Some(key) == key_of(&event.pdu).as_ref());
                let wanted_sender = place.sender.as_ref().is_none_or(|sender| *sender == event.pdu.sender);
                if !wanted_key
                    || !wanted_sender
                    || ignored.contains(&event.pdu.sender)
                    || !query.filter.matches(&event)
                {
                    continue;
                }
                let rank = rank(&event.pdu, &words);
                let (room, sight) = (Arc::clone(room), Arc::clone(sight));
                found.matches.push(Match { room, sight, event, position: hit.position, rank });
            }
            if last {
                return Ok(found);
            }
        }
    }

    /// The events of hits, each in its place, as far as they are in these rooms and may be shown. One question a room.
    async fn hits(
        &self,
        reader: Reader<'_>,
        hits: &[Hit],
        rooms: &HashMap<i64, OwnedRoomId>,
        sights: &mut HashMap<i64, (Arc<Room>, Arc<Sight>)>,
        (filter, ignored): (&EventFilter, &IgnoredUsers),
    ) -> Result<Vec<Option<Arc<Event>>>, Error> {
        let mut wanted: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for hit in hits.iter().filter(|hit| rooms.contains_key(&hit.room)) {
            wanted.entry(hit.room).or_default().push(hit.seq);
        }
        let mut found: HashMap<(i64, i64), Arc<Event>> = HashMap::new();
        for (number, mut seqs) in wanted {
            let (room, sight) = match sights.entry(number) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let room = self.by_number(number).await?;
                    let sight = Arc::new(self.sight(&room, reader.user_id).await?);
                    place.insert((room, sight))
                }
            };
            seqs.retain(|seq| sight.may_see(*seq));
            let events = self.events(room, &seqs).await?.into_iter();
            let shown = events.filter(|event| event.is_visible() && event.redacted_by.is_none());
            let shown = self.related_as_asked(room, sight, filter, ignored, shown.collect()).await?;
            found.extend(shown.into_iter().map(|event| ((number, event.seq), event)));
        }
        Ok(hits.iter().map(|hit| found.remove(&(hit.room, hit.seq))).collect())
    }

    /// Indexes what waits, for as long as the server runs.
    pub async fn keep_indexed(&self) {
        let mut failing = false;
        loop {
            match self.index_some().await {
                Ok(true) => failing = false,
                Ok(false) => {
                    failing = false;
                    tokio::time::sleep(EVERY).await;
                }
                Err(cause) => {
                    if !failing {
                        tracing::error!(%cause, "messages can't be indexed for search; trying again");
                    }
                    failing = true;
                    tokio::time::sleep(10 * EVERY).await;
                }
            }
        }
    }

    /// Indexes some of what waits. Whether there may be more.
    async fn index_some(&self) -> Result<bool, Error> {
        let _alone = self.indexing.lock().await;
        let (indexed, waiting) = self.core.store.waiting_for_index(CHUNK).await?;
        let Some(last) = waiting.last() else { return Ok(false) };
        let more = waiting.len() == CHUNK as usize;
        let mut batch = vec![table::set_indexed(indexed, last.position)];
        let (mut together, mut bytes) = (Vec::new(), 0);
        for row in waiting {
            let Some(words) = words_of_stored(row.room, &row.pdu) else { continue };
            bytes += words.len();
            together.push((row.position, words));
            if bytes >= TOGETHER {
                batch.push(table::index(&together)?);
                (together, bytes) = (Vec::new(), 0);
            }
        }
        batch.push(table::index(&together)?);
        self.core.store.commit(batch).await?;
        Ok(more)
    }
}

/// SE-02: who of the matches belongs together, and where each group goes on. `passed` are the matches before them, where
/// these are counted.
fn group(answer: &mut Searched, passed: &[Match], query: &Query<'_>, place: &Place) {
    for by in &query.groups {
        let group_of = |found: &Match| match by {
            GroupBy::Room => found.room.room_id.to_string(),
            GroupBy::Sender => found.event.pdu.sender.to_string(),
        };
        let groups = answer.groups.entry(*by).or_default();
        for (at, found) in answer.matches.iter().enumerate() {
            groups.entry(group_of(found)).or_default().matches.push(at);
        }
        if answer.next_batch.is_none() {
            continue;
        }
        for (key, group) in groups {
            let Some(last) = group.matches.last().and_then(|at| answer.matches.get(*at)) else { continue };
            let mut next = Place { before: Some(last.position), skip: 0, ..place.clone() };
            if query.order == Order::Rank {
                let before = passed.iter().filter(|found| group_of(found) == *key).count();
                (next.before, next.skip) = (None, before + group.matches.len());
            }
            match by {
                GroupBy::Room => next.room = Some(last.room.room_id.clone()),
                GroupBy::Sender => next.sender = Some(last.event.pdu.sender.clone()),
            }
            group.next_batch = Some(next.token());
        }
    }
}
