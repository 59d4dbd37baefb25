//! What a reader has seen of a room: a chain of `/sync` answers with every gap closed, to be held against what was
//! acknowledged to the senders.

use super::User;
use serde_json::Value;
use std::collections::HashSet;

/// A device that follows a room by `/sync`, as a client does.
pub(crate) struct Reader {
    user: User,
    room: String,
    since: Option<String>,
    /// Ids of the events of the room, in the order in which they were shown.
    pub(crate) events: Vec<String>,
}

impl Reader {
    pub(crate) fn new(user: &User, room: &str) -> Self {
        Self { user: user.clone(), room: room.to_owned(), since: None, events: Vec::new() }
    }

    /// The initial `/sync` alone: what came before its timeline isn't fetched.
    pub(crate) async fn first_page_only(&mut self) {
        let answer = self.user.sync(None, 0).await;
        self.events = ids(&answer["rooms"]["join"][&self.room]["timeline"]["events"]);
        self.since = Some(answer["next_batch"].as_str().expect("next_batch").to_owned());
    }

    /// One `/sync`, and the pages that close its gap. Returns how many events were new.
    pub(crate) async fn advance(&mut self, timeout: u64) -> usize {
        let answer = self.user.sync(self.since.as_deref(), timeout).await;
        let timeline = &answer["rooms"]["join"][&self.room]["timeline"];
        let mut new = Vec::new();
        if timeline["limited"] == true {
            let prev_batch = timeline["prev_batch"].as_str().expect("a limited timeline has a prev_batch");
            new = self.gap(prev_batch).await;
        }
        new.extend(ids(&timeline["events"]));
        self.since = Some(answer["next_batch"].as_str().expect("next_batch").to_owned());
        let count = new.len();
        self.events.extend(new);
        count
    }

    /// Syncs until `event` was shown.
    pub(crate) async fn read_until(&mut self, event: &str) {
        while !self.events.iter().any(|seen| seen == event) {
            self.advance(1000).await;
        }
    }

    /// What lies between the last token and a timeline, oldest first.
    async fn gap(&self, prev_batch: &str) -> Vec<String> {
        let mut events = Vec::new();
        let mut from = prev_batch.to_owned();
        let to = self.since.as_ref().map(|since| format!("&to={since}")).unwrap_or_default();
        loop {
            let path = format!("/v3/rooms/{}/messages?dir=b&limit=100&from={from}{to}", self.room);
            let page = self.user.get(&path).await.expect(200);
            events.extend(ids(&page["chunk"]));
            match page["end"].as_str() {
                Some(end) => end.clone_into(&mut from),
                None => break,
            }
        }
        events.reverse();
        events
    }
}

/// The whole log of a room as one reader pages through it, oldest first.
pub(crate) async fn whole_log(user: &User, room: &str) -> Vec<Value> {
    let mut events = Vec::new();
    let mut from = String::new();
    loop {
        let page = user.get(&format!("/v3/rooms/{room}/messages?dir=f&limit=100{from}")).await.expect(200);
        events.extend(page["chunk"].as_array().expect("chunk").iter().cloned());
        match page["end"].as_str() {
            Some(end) => from = format!("&from={end}"),
            None => return events,
        }
    }
}

/// The ids of events, in their order.
pub(crate) fn ids(events: &Value) -> Vec<String> {
    let events = events.as_array().map(Vec::as_slice).unwrap_or_default();
    events.iter().map(|event| event["event_id"].as_str().expect("event_id").to_owned()).collect()
}

/// I1, I4, I5: `seen` has every event of `acknowledged`, none twice, and nothing that the log hasn't, in the log's order.
#[track_caller]
pub(crate) fn check(seen: &[String], log: &[String], acknowledged: &[String]) {
    let unique: HashSet<&String> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len(), "an event was shown twice");
    for event in acknowledged {
        assert!(unique.contains(event), "{event} was acknowledged and is lost");
    }
    let in_order: Vec<&String> = log.iter().filter(|event| unique.contains(event)).collect();
    assert!(in_order.iter().copied().eq(seen), "a reader saw another order than the log's, or more than it");
}
