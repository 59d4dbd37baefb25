//! Rate limits: a token bucket for each class of request and caller. They say how long to wait; what a client is told is
//! for the HTTP side.

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    state::keyed::HashMapStateStore,
};

use crate::config;

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

/// Whose budget it is. An IPv6 address counts as its /64, for that is what one customer of a provider has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitKey {
    Account(i64),
    Address(IpAddr),
}

type Buckets = RateLimiter<LimitKey, HashMapStateStore<LimitKey>, DefaultClock>;

/// All budgets. Those that are full again are forgotten by [`Limits::sweep`].
pub struct Limits {
    enabled: bool,
    default: Buckets,
    message: Buckets,
    login: Buckets,
    registration: Buckets,
}

impl Limits {
    pub fn new(config: &config::Limits) -> Self {
        let buckets = |rate: &config::Rate| {
            // Zeros are refused where the configuration is read.
            let per_second = NonZeroU32::new(rate.per_second).unwrap_or(NonZeroU32::MIN);
            let burst = NonZeroU32::new(rate.burst).unwrap_or(NonZeroU32::MIN);
            RateLimiter::hashmap(Quota::per_second(per_second).allow_burst(burst))
        };
        Self {
            enabled: config.enabled,
            default: buckets(&config.default),
            message: buckets(&config.message),
            login: buckets(&config.login),
            registration: buckets(&config.registration),
        }
    }

    /// Takes one from the budget. The error is how long it takes until there is one to take.
    pub fn check(&self, class: Class, key: LimitKey) -> Result<(), Duration> {
        if !self.enabled {
            return Ok(());
        }
        let Some(buckets) = self.buckets(class) else {
            return Ok(());
        };
        buckets
            .check_key(&key.shared())
            .map_err(|refused| refused.wait_time_from(DefaultClock::default().now()))
    }

    /// Forgets the budgets that are full, so that memory is bounded by the callers of the last moments.
    pub fn sweep(&self) {
        for buckets in [&self.default, &self.message, &self.login, &self.registration] {
            buckets.retain_recent();
            buckets.shrink_to_fit();
        }
    }

    fn buckets(&self, class: Class) -> Option<&Buckets> {
        match class {
            Class::Free => None,
            Class::Default => Some(&self.default),
            Class::Message => Some(&self.message),
            Class::Login => Some(&self.login),
            Class::Registration => Some(&self.registration),
        }
    }
}

impl LimitKey {
    fn shared(self) -> Self {
        match self {
            Self::Address(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
                Some(address) => Self::Address(address.into()),
                None => Self::Address(std::net::Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into()),
            },
            key => key,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Rate;

    fn limits(burst: u32) -> Limits {
        let rate = Rate { per_second: 1, burst };
        Limits::new(&config::Limits { message: rate, ..config::Limits::default() })
    }

    #[test]
    fn a_burst_is_let_in_and_the_next_is_told_when_to_come_back() {
        let limits = limits(3);
        for _ in 0..3 {
            limits.check(Class::Message, LimitKey::Account(1)).unwrap();
        }
        let wait = limits.check(Class::Message, LimitKey::Account(1)).unwrap_err();
        assert!(!wait.is_zero() && wait <= Duration::from_secs(1), "{wait:?}");
        limits.check(Class::Message, LimitKey::Account(2)).unwrap();
        limits.check(Class::Default, LimitKey::Account(1)).unwrap();
    }

    #[test]
    fn the_addresses_of_one_customer_share_a_budget() {
        let limits = limits(1);
        let key = |address: &str| LimitKey::Address(address.parse().unwrap());
        limits.check(Class::Message, key("2001:db8::1")).unwrap();
        assert!(limits.check(Class::Message, key("2001:db8::2:3")).is_err());
        limits.check(Class::Message, key("2001:db8:0:1::1")).unwrap();
        limits.check(Class::Message, key("192.0.2.1")).unwrap();
        assert!(limits.check(Class::Message, key("::ffff:192.0.2.1")).is_err());
    }

    #[test]
    fn nothing_is_limited_when_limits_are_off() {
        let limits = Limits::new(&config::Limits { enabled: false, ..config::Limits::default() });
        for _ in 0..1000 {
            limits.check(Class::Login, LimitKey::Account(1)).unwrap();
        }
    }
}
