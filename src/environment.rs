//! What the server takes from the outside world and a test wants to own: the time and randomness.
//!
//! Nothing else in the server asks the operating system for either.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rand::{TryRng as _, rngs::SysRng};
use ruma::{MilliSecondsSinceUnixEpoch, UInt};

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

/// Passed to every service that needs them.
#[derive(Clone)]
pub struct Environment {
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
}

impl Environment {
    /// The machine's own clock and random numbers.
    pub fn real() -> Self {
        Self { clock: Arc::new(SystemClock), entropy: Arc::new(SystemEntropy) }
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
