//! A socket's requests at work. Those about one room are done in the order they came in; others don't wait for them.

use std::collections::{HashMap, VecDeque};

use futures_util::future::BoxFuture;
use tokio::task::JoinSet;

use super::Answered;

/// Requests that a socket may have at work. A client that sends more isn't read until some are done.
const MOST: usize = 32;

/// A request, ready to begin.
type Call = BoxFuture<'static, Answered>;

/// The answer to the request with this id.
pub(super) struct Done {
    pub(super) id: String,
    pub(super) answer: Answered,
}

#[derive(Default)]
pub(super) struct Calls {
    /// Each in a task of its own: one that holds a connection to the database goes on while the socket waits for one.
    at_work: JoinSet<(Option<String>, Done)>,
    /// What waits for the request before it, by room. A room is here while one of its requests is at work.
    waiting: HashMap<String, VecDeque<(String, Call)>>,
    count: usize,
}

impl Calls {
    pub(super) fn is_full(&self) -> bool {
        self.count >= MOST
    }

    pub(super) fn is_idle(&self) -> bool {
        self.count == 0
    }

    pub(super) fn begin(&mut self, room: Option<String>, id: String, call: Call) {
        self.count += 1;
        if let Some(room) = &room {
            if let Some(waiting) = self.waiting.get_mut(room) {
                waiting.push_back((id, call));
                return;
            }
            self.waiting.insert(room.clone(), VecDeque::new());
        }
        self.spawn(room, id, call);
    }

    fn spawn(&mut self, room: Option<String>, id: String, call: Call) {
        self.at_work.spawn(async move { (room, Done { id, answer: call.await }) });
    }

    /// The next request that is done. `None` if none is at work, or if one panicked: its client never gets to know.
    pub(super) async fn next(&mut self) -> Option<Done> {
        let joined = self.at_work.join_next().await?;
        self.count -= 1;
        let (room, done) = joined.ok()?;
        if let Some(room) = room {
            match self.waiting.get_mut(&room).and_then(VecDeque::pop_front) {
                Some((id, call)) => self.spawn(Some(room), id, call),
                None => {
                    self.waiting.remove(&room);
                }
            }
        }
        Some(done)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::value::to_raw_value;
    use tokio::sync::Notify;

    use super::*;

    fn call(gate: &Arc<Notify>) -> Call {
        let gate = Arc::clone(gate);
        Box::pin(async move {
            gate.notified().await;
            Ok(to_raw_value(&()).unwrap())
        })
    }

    #[tokio::test]
    async fn requests_about_one_room_keep_their_order_and_others_pass_them() {
        let mut calls = Calls::default();
        let (first, second, other) = (Arc::default(), Arc::default(), Arc::default());
        calls.begin(Some("!a".to_owned()), "1".to_owned(), call(&first));
        calls.begin(Some("!a".to_owned()), "2".to_owned(), call(&second));
        calls.begin(Some("!b".to_owned()), "3".to_owned(), call(&other));
        second.notify_one();
        other.notify_one();
        assert_eq!(calls.next().await.unwrap().id, "3");
        first.notify_one();
        assert_eq!(calls.next().await.unwrap().id, "1");
        assert_eq!(calls.next().await.unwrap().id, "2");
        assert!(calls.is_idle() && calls.waiting.is_empty());
    }
}
