//! The end of a server, announced: one flag that anybody can look at or wait for.

use tokio::sync::watch;

/// A handle on the flag; clones share it.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Sender<bool>);

impl Default for Shutdown {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Shutdown {
    /// Announces the end. Whoever waits for news of a client should look at [`Self::is_set`] when it wakes, and answer.
    pub fn set(&self) {
        self.0.send_replace(true);
    }

    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves when the end was announced, at once if it was before.
    pub async fn wait(&self) {
        let mut flag = self.0.subscribe();
        // The sender lives as long as `self`, so there is no error to handle.
        let _ = flag.wait_for(|set| *set).await;
    }
}
