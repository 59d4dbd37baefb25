//! First answers that take long are not worked out twice.
//!
//! The answer to an initial sync is made by a task of its own. A client that gives up finds it when it tries again; one
//! that got it and asks again gets a new one.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use super::syncs::Error;

/// How long an answer waits for a client that gave up.
const KEPT: Duration = Duration::from_mins(2);

type Answer = Option<Result<Bytes, Arc<Error>>>;

/// The device, and all of the request that shapes the answer.
pub(super) type Key = (i64, String);

#[derive(Default)]
pub(super) struct InitialSyncs(Mutex<HashMap<Key, (watch::Receiver<Answer>, Instant)>>);

impl InitialSyncs {
    /// The answer of the attempt under way, or of one that nobody fetched, or else of `make`.
    pub(super) async fn answer<F>(&self, key: Key, make: impl FnOnce() -> F) -> Result<Bytes, Arc<Error>>
    where
        F: Future<Output = Result<Bytes, Error>> + Send + 'static,
    {
        let mut answer = {
            let mut kept = self.0.lock();
            kept.retain(|_, (_, since)| since.elapsed() < KEPT);
            if let Some((answer, _)) = kept.get(&key) {
                answer.clone()
            } else {
                let (sender, answer) = watch::channel(None);
                let work = make();
                tokio::spawn(async move {
                    let result = work.await.map_err(Arc::new);
                    sender.send_replace(Some(result));
                });
                kept.insert(key.clone(), (answer.clone(), Instant::now()));
                answer
            }
        };
        let result = match answer.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or_else(|| Err(Arc::new(Error::Gone))),
            // The task failed; its panic is in the log.
            Err(_) => Err(Arc::new(Error::Gone)),
        };
        // Reached only by a client that still waits: from here on it has the answer.
        self.0.lock().remove(&key);
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn an_answer_that_nobody_fetched_is_there_for_the_next_attempt() {
        let syncs = Arc::new(InitialSyncs::default());
        let attempts = Arc::new(AtomicUsize::new(0));
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let key = (1, String::new());

        let gave_up = {
            let (syncs, count, key) = (Arc::clone(&syncs), Arc::clone(&attempts), key.clone());
            tokio::spawn(async move {
                let make = || async move {
                    count.fetch_add(1, Ordering::SeqCst);
                    let _ = released.await;
                    Ok(Bytes::from_static(b"answer"))
                };
                syncs.answer(key, make).await
            })
        };
        while attempts.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        gave_up.abort();
        let _ = release.send(());

        let other = || async { Ok(Bytes::from_static(b"worked out twice")) };
        assert_eq!(syncs.answer(key.clone(), other).await.unwrap(), "answer");
        assert_eq!(syncs.answer(key, other).await.unwrap(), "worked out twice", "it was fetched");
    }
}
