//! Rate limits: a token bucket for each class of request and caller.

use std::{net::IpAddr, num::NonZeroU32};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    state::keyed::HashMapStateStore,
};

use super::MatrixError;

/// Requests that share a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Not limited.
    Free,
    /// What the specification marks as rate-limited and no other class names.
    Default,
    /// Sending events.
    Message,
    /// Attempts to log in: they cost a password hash.
    Login,
    /// Creating accounts.
    Registration,
}

/// Whose budget it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitKey {
    Account(i64),
    Address(IpAddr),
}

type Buckets = RateLimiter<(Class, LimitKey), HashMapStateStore<(Class, LimitKey)>, DefaultClock>;

pub struct Limits {
    enabled: bool,
    buckets: Vec<(Class, Buckets)>,
}

impl Limits {
    pub fn new(enabled: bool) -> Self {
        let quota = |per_second: u32, burst: u32| {
            let per_second = NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
            let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
            RateLimiter::hashmap(Quota::per_second(per_second).allow_burst(burst))
        };
        let buckets = vec![
            (Class::Default, quota(10, 100)),
            (Class::Message, quota(10, 50)),
            (Class::Login, quota(1, 10)),
            (Class::Registration, quota(1, 10)),
        ];
        Self { enabled, buckets }
    }

    pub fn check(&self, class: Class, key: LimitKey) -> Result<(), MatrixError> {
        if !self.enabled {
            return Ok(());
        }
        let Some((_, buckets)) = self.buckets.iter().find(|(limited, _)| *limited == class) else {
            return Ok(());
        };
        buckets.check_key(&(class, key)).map_err(|refused| {
            MatrixError::limit_exceeded(refused.wait_time_from(DefaultClock::default().now()))
        })
    }
}
