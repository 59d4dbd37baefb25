//! Servers that speak while what is sent to them fails.

use std::time::Instant;

use super::*;

/// Times of attempts are taken by another clock than that of pauses, which counts whole milliseconds.
const ROUNDED_MS: u128 = 10;

fn elsewhere() -> OwnedServerName {
    owned_server_name!("elsewhere")
}

impl Sending {
    /// `elsewhere` speaks all the time, until something is so.
    async fn speaking_until(&self, what: &str, so: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !so().await {
            assert!(Instant::now() < deadline, "{what}");
            self.peers.heard_from(&elsewhere());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn tx_06_a_server_that_speaks_and_refuses_is_tried_more_and_more_seldom() {
    let sending = Sending::new().await;
    sending.there.script.lock().busy = true;
    sending.say([0]).await;
    let tried = async |times: usize| sending.there.script.lock().times.len() >= times;
    sending.speaking_until("it is tried again and again", async || tried(4).await).await;
    let times = sending.there.script.lock().times.clone();
    let destination = sending.destination().await;
    assert!(!destination.behind, "it may be well soon");
    // As if a minute had passed.
    let past = |peer: &mut Peer| peer.failing_since -= SPEAKER_BEHIND_AFTER.as_millis() as i64;
    past(sending.outbound.inner.lock().peers.get_mut(&destination.recipient).unwrap());
    sending.speaking_until("it is behind", async || sending.destination().await.behind).await;
    let elapsed = (times[times.len() - 1] - times[0]).as_millis();
    // At once, again at the first word, and then after pauses of 1, 2, 4 … seconds.
    let pauses = times.len().saturating_sub(2);
    assert!(elapsed + ROUNDED_MS >= ((1 << pauses) - 1) * 1000, "{} attempts in {elapsed} ms", times.len());
    sending.there.script.lock().busy = false;
    sending.until("it is sent all the same", |script| !script.taken.is_empty()).await;
}

#[tokio::test]
async fn a_server_that_says_when_to_try_again_is_not_tried_before_whatever_it_says() {
    let sending = Sending::new().await;
    {
        let mut script = sending.there.script.lock();
        (script.busy, script.retry_after_ms) = (true, Some(3000));
    }
    sending.say([0]).await;
    let tried = async |times: usize| sending.there.script.lock().times.len() >= times;
    sending.speaking_until("it is tried again", async || tried(2).await).await;
    let times = sending.there.script.lock().times.clone();
    assert!((times[1] - times[0]).as_millis() + ROUNDED_MS >= 3000, "{times:?}");
}

#[tokio::test]
async fn a_server_that_speaks_amid_an_attempt_that_fails_is_tried_again_at_once() {
    let sending = Sending::new().await;
    let gate = Arc::new(Semaphore::new(0));
    {
        let mut script = sending.there.script.lock();
        (script.down, script.gate) = (true, Some(Arc::clone(&gate)));
    }
    sending.say([0]).await;
    sending.until("it is tried", |script| !script.attempts.is_empty()).await;
    // As if it had failed for an hour: left alone, it would wait for another.
    let recipient = sending.destination().await.recipient;
    let spoken = || sending.outbound.inner.lock().peers[&recipient].spoken;
    sending.outbound.inner.lock().peers.get_mut(&recipient).unwrap().failures = 12;
    sending.peers.heard_from(&elsewhere());
    let deadline = Instant::now() + Duration::from_secs(30);
    while !spoken() {
        assert!(Instant::now() < deadline, "nobody hears it");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    gate.add_permits(1);
    sending.until("it is tried again", |script| script.attempts.len() == 2).await;
    sending.there.script.lock().down = false;
    gate.add_permits(100);
    sending.until("it is taken", |script| script.taken.len() == 1).await;
}
