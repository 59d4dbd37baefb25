//! A device that long-polls, and the place up to which it has heard.

use serde_json::Value;

use super::User;

/// Longer than the harness waits for any answer: a request that says this is answered in time only if something wakes it.
pub(crate) const FOR_EVER: u64 = 110_000;

/// A device and the place up to which it has heard.
pub(crate) struct Device {
    pub(crate) user: User,
    pub(crate) since: Option<String>,
    /// More of the query, for each request.
    pub(crate) more: String,
}

impl Device {
    pub(crate) fn new(user: &User) -> Self {
        Self { user: user.clone(), since: None, more: String::new() }
    }

    pub(crate) fn with(user: &User, more: &str) -> Self {
        Self { more: more.to_owned(), ..Self::new(user) }
    }

    /// A device that has made its initial sync.
    pub(crate) async fn ready(user: &User) -> Self {
        let mut device = Self::new(user);
        device.next().await;
        device
    }

    /// What is new, without waiting.
    pub(crate) async fn next(&mut self) -> Value {
        self.next_with("").await
    }

    pub(crate) async fn next_with(&mut self, more: &str) -> Value {
        self.ask(0, &format!("{}{more}", self.more)).await
    }

    /// What is new, as soon as there is something.
    pub(crate) async fn wait(&mut self) -> Value {
        let more = self.more.clone();
        self.ask(FOR_EVER, &more).await
    }

    async fn ask(&mut self, timeout: u64, more: &str) -> Value {
        let answer = self.user.sync_with(self.since.as_deref(), timeout, more).await;
        self.since = Some(next_batch(&answer).to_owned());
        answer
    }

    /// Waits, while `change` happens, until an answer has what `wanted` looks for, and gives that.
    pub(crate) async fn woken_by<T>(
        &mut self,
        change: impl Future<Output = ()>,
        mut wanted: impl FnMut(&Value) -> Option<T>,
    ) -> T {
        let mut poll = self.poll();
        change.await;
        loop {
            let answer = poll.await.expect("a request");
            self.since = Some(next_batch(&answer).to_owned());
            if let Some(found) = wanted(&answer) {
                return found;
            }
            poll = self.poll();
        }
    }

    /// A request that waits for as long as it may.
    pub(crate) fn poll(&self) -> tokio::task::JoinHandle<Value> {
        let (user, since, more) = (self.user.clone(), self.since.clone(), self.more.clone());
        tokio::spawn(async move { user.sync_with(since.as_deref(), FOR_EVER, &more).await })
    }
}

#[track_caller]
pub(crate) fn next_batch(answer: &Value) -> &str {
    answer["next_batch"].as_str().unwrap_or_else(|| panic!("no next_batch in {answer}"))
}
