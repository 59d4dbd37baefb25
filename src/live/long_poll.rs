//! `/sync`: reading a user's queue from a token on, and waiting for its next entry.
//!
//! A waiting request holds no room, no transaction and no database connection: it waits on the end of one queue.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::syncs::{Error, Place, Syncs, Wanted, encode};
use crate::{account::Session, queue::Token};

/// The longest that a request waits, whatever it asks for: proxies cut longer ones.
const LONGEST: Duration = Duration::from_mins(2);

/// Room for an answer with a message.
pub(super) const BRIEF: usize = 1536;

/// What `/sync` was asked.
pub struct Request {
    pub since: Option<Token>,
    pub timeout: Duration,
    pub wanted: Wanted,
}

impl Syncs {
    /// The answer to one request, at the latest when its time is up.
    pub async fn sync(self: &Arc<Self>, session: Session, request: Request) -> Result<Bytes, Error> {
        let Some(place) = self.place(request.since) else {
            let wanted = Arc::new(request.wanted);
            return Box::pin(self.first(&session, &wanted)).await;
        };
        self.queues.present(session.device, place.position);
        self.next(session, request, place).await
    }

    async fn next(&self, session: Session, request: Request, from: Place) -> Result<Bytes, Error> {
        let deadline = Instant::now() + request.timeout.min(LONGEST);
        let wanted = request.wanted;
        let tail = self.queues.tail(session.recipient);
        let mut from = from;
        Box::pin(self.to_device.acknowledge(session.device, from.mail)).await;
        loop {
            let woken = tail.woken();
            // At first too: nobody woke a request that wasn't waiting yet when its session ended.
            Box::pin(self.sessions.still(&session)).await?;
            let to = self.now();
            // Boxed: what a waiting request keeps is small, however much its answer needs while it is made.
            if wanted.full_state {
                let body = Box::pin(self.whole(&session, &wanted, from, to)).await?;
                return encode(&body);
            }
            if from.has_mail() || tail.has_news(from.position, from.fading) {
                let (mut brief, next) = (Vec::with_capacity(BRIEF), self.token(to));
                if Box::pin(self.brief(&session, &wanted, &tail, (from, to), &next, &mut brief)).await? {
                    return Ok(brief.into());
                }
                let body = Box::pin(self.changes(&session, &wanted, from, to)).await?;
                if !body.is_empty() {
                    return encode(&body);
                }
            }
            // Nothing up to here is for this client: it need not be looked at again.
            from = to;
            if Instant::now() >= deadline || self.shutdown.is_set() {
                return encode(&Box::pin(self.body(&session, to)).await?);
            }
            tokio::select! {
                biased;
                () = woken => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        account,
        live::brief_tests::{log_in, syncs_of, wanted},
        room::tests::World,
    };

    #[tokio::test]
    async fn a_session_that_ends_before_its_request_waits_is_told_so() {
        let world = World::new(&[]).await;
        let session = log_in(&world, "alice").await;
        let syncs = syncs_of(&world);
        let since = syncs.token_of_now().parse().ok();
        world.accounts.logout(&session).await.unwrap();
        let request = Request { since, timeout: Duration::from_secs(1), wanted: wanted(json!({})) };
        let answer = syncs.sync(session, request).await;
        assert!(matches!(answer, Err(Error::Account(account::Error::UnknownToken { .. }))), "{answer:?}");
    }

    /// What a waiting client costs is mostly this.
    #[test]
    fn a_request_that_waits_is_small() {
        fn size<F: Future>(_: impl FnOnce(Arc<Syncs>, Session, Request) -> F) -> usize {
            size_of::<F>()
        }
        let waiting = size(|syncs, session, request| async move { syncs.sync(session, request).await });
        assert!(waiting <= 1280, "{waiting} bytes");
    }
}
