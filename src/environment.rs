//! What the server takes from the outside world and a test wants to own: the time, randomness, and the machine with its
//! threads, its disk and its network.
//!
//! Nothing else in the server asks the operating system for the first two.

use std::{
    pin::Pin,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rand::{TryRng as _, rngs::SysRng};
use ruma::{MilliSecondsSinceUnixEpoch, UInt};
use tokio::task::{JoinError, spawn_blocking};

use crate::peers::Network;

tokio::task_local! {
    static STEP: ();
}

/// What a room's writer does: until it is done, the room goes no further.
pub fn step<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    STEP.scope((), work)
}

/// Whether whoever asks is at work in a room's writer, where nothing may wait for another server or for long calculations
/// (I6).
pub fn in_step() -> bool {
    STEP.try_with(|()| ()).is_ok()
}

/// Wall-clock time.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> i64;

    fn now(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(UInt::try_from(self.now_ms()).unwrap_or_default())
    }
}

/// Cryptographically secure random bytes.
pub trait Entropy: Send + Sync {
    fn fill(&self, bytes: &mut [u8]);

    /// `length` characters of `[A-Za-z0-9]`, about 5.95 bits each.
    fn token(&self, length: usize) -> String {
        const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let mut token = String::with_capacity(length);
        let mut bytes = [0; 64];
        while token.len() < length {
            self.fill(&mut bytes);
            // Values above the largest multiple of 62 are thrown away, so that no character is likelier than another.
            let fair = bytes.iter().filter(|byte| **byte < 248);
            token.extend(
                fair.take(length - token.len()).map(|byte| char::from(ALPHABET[usize::from(byte % 62)])),
            );
        }
        token
    }

    fn number(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// What a machine is at work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Something is read from the database.
    Reading,
    /// A group of writes becomes durable.
    Writing,
    /// Much is calculated.
    Calculating,
}

/// A machine that is simulated. On it one thread does everything, one thing after another, and time passes only where
/// somebody waits: the same run again is the same in everything.
pub trait Machine: Send + Sync {
    /// SQLite's name for the file system that the database is in.
    fn file_system(&self) -> &str;
    /// How other servers are reached from here.
    fn network(&self) -> Arc<dyn Network>;
    /// Passes before a piece of work, and again after it, before anybody hears that it is done.
    fn pause(&self, work: Work) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Passed to every service that needs them.
#[derive(Clone)]
pub struct Environment {
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    /// In place of the one that this runs on.
    pub machine: Option<Arc<dyn Machine>>,
}

impl Environment {
    /// The machine's own clock and random numbers.
    pub fn real() -> Self {
        Self { clock: Arc::new(SystemClock), entropy: Arc::new(SystemEntropy), machine: None }
    }

    /// Does what keeps a core busy for so long that nothing else may wait for it: on a thread for such work.
    pub async fn calculate<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let Some(machine) = &self.machine else {
            return spawn_blocking(work).await;
        };
        machine.pause(Work::Calculating).await;
        let done = work();
        machine.pause(Work::Calculating).await;
        Ok(done)
    }
}

struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
    }
}

struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        // Without random numbers no token or key is safe: there is nothing better to do than to stop.
        #[expect(clippy::expect_used, reason = "see above")]
        SysRng.try_fill_bytes(bytes).expect("the operating system gives no random numbers");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_the_length_asked_for_and_differ() {
        let entropy = SystemEntropy;
        let (one, two) = (entropy.token(43), entropy.token(43));
        assert_eq!(one.len(), 43);
        assert_ne!(one, two);
        assert!(one.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }
}
