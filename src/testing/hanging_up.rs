//! Work whose client hangs up: it is dropped wherever it waits.

use std::{
    future::poll_fn,
    pin::pin,
    task::{Context, Poll},
};

use crate::store::{Batch, Store};

/// Does some work until it waits for the time of that number, and drops it there. What it has come to, if it is done before.
pub(crate) async fn until_wait<T>(number: usize, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let mut left = number;
    poll_fn(|context: &mut Context<'_>| {
        left -= 1;
        match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// All that was to be written is, whether anybody waits for it or not: writes are done in their order.
pub(crate) async fn written(store: &Store) {
    let mut last = Batch::new();
    last.step();
    store.commit(last).await.unwrap();
}
