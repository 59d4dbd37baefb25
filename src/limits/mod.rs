//! Limits: a token bucket for each class of request and caller, and so many requests at work for each other server. They say how long to wait; what a client is told is
//! for the HTTP side.
//!
//! The configuration has a rate for each class; the operator can give single accounts rates of their own, which are in
//! the database and, all of them, in memory.

mod places;

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::IpAddr,
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    state::keyed::HashMapStateStore,
};
use parking_lot::RwLock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::places::Places;
pub use self::places::{Activity, Held, Place};
use crate::{
    config::{self, Rate},
    store::{self, Store, user_limit::UserLimitRow},
};

/// Requests that share a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Not limited.
    Free,
    /// What the specification marks as rate-limited and no other class names.
    Default,
    /// Sending events.
    Message,
    Invite,
    /// Joining and knocking.
    Join,
    RoomCreation,
    /// Attempts to log in: they cost a password hash.
    Login,
    /// The same, counted for the account that somebody wants to log in to.
    LoginAccount,
    /// Creating accounts.
    Registration,
    /// What other servers ask: for the server that asks and, before it is known who that is, for its address.
    Federation,
}

impl Class {
    /// Those with a budget.
    pub const LIMITED: [Self; 9] = [
        Self::Default,
        Self::Message,
        Self::Invite,
        Self::Join,
        Self::RoomCreation,
        Self::Login,
        Self::LoginAccount,
        Self::Registration,
        Self::Federation,
    ];

    /// What the configuration calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Default => "default",
            Self::Message => "message",
            Self::Invite => "invite",
            Self::Join => "join",
            Self::RoomCreation => "room_creation",
            Self::Login => "login",
            Self::LoginAccount => "login_account",
            Self::Registration => "registration",
            Self::Federation => "federation",
        }
    }

    /// Those that count for an account, so that one can have a rate of its own.
    pub fn of_accounts() -> impl Iterator<Item = Self> {
        let others = [Self::LoginAccount, Self::Registration, Self::Federation];
        Self::LIMITED.into_iter().filter(move |class| !others.contains(class))
    }
}

/// Whose budget it is: an account, an address, or a name. An IPv6 address counts as its /64, for that is what one customer of a provider has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitKey {
    Account(i64),
    Address(IpAddr),
    /// Of an account that may not exist or another server, by a hash of its name.
    Name(u64),
}

/// All large bodies together that are kept before it is known whose they are, in KiB.
const UNPROVEN_KIB: usize = 128 * 1024;
/// Bytes of a body that needs none of that. Most transactions are smaller.
const SMALL_BODY: usize = 256 * 1024;

type Buckets = RateLimiter<LimitKey, HashMapStateStore<LimitKey>, DefaultClock>;

/// What single accounts have in place of the budget of a class. `None`: no limit.
type Overrides = HashMap<(i64, Class), (UserLimitRow, Option<DefaultDirectRateLimiter>)>;

/// All budgets. Those that are full again are forgotten by [`Limits::sweep`].
pub struct Limits {
    enabled: bool,
    /// In the order of [`Class::LIMITED`].
    classes: [Buckets; Class::LIMITED.len()],
    overrides: RwLock<Arc<Overrides>>,
    places: Arc<Places>,
    /// Kibibytes for large bodies of requests of which it isn't known whose they are.
    memory: Arc<Semaphore>,
}

impl Limits {
    pub fn new(config: &config::Limits) -> Self {
        let buckets = |class| RateLimiter::hashmap(quota(config.of(class)));
        let (overrides, places) = (RwLock::default(), Arc::default());
        let memory = Arc::new(Semaphore::new(UNPROVEN_KIB));
        Self { enabled: config.enabled, classes: Class::LIMITED.map(buckets), overrides, places, memory }
    }

    /// Reads the rates of single accounts. What is left of a budget whose rate hasn't changed stays as it is.
    pub async fn load(&self, store: &Store) -> Result<(), store::Error> {
        let rows = store.user_limits().await?;
        let mut overrides = Overrides::new();
        for row in rows {
            let Some(class) = Class::of_accounts().find(|class| class.name() == row.class) else { continue };
            let bucket = row.rate.map(|(per_1000s, burst)| {
                let (per_second, burst) = (per_1000s as f64 / 1000.0, burst.clamp(1, i64::from(u32::MAX)));
                RateLimiter::direct(quota(&Rate { per_second, burst: burst as u32 }))
            });
            overrides.insert((row.recipient, class), (row, bucket));
        }
        let mut current = self.overrides.write();
        // Nobody else holds it for longer than a moment; if somebody does, budgets begin anew.
        if let Some(before) = Arc::get_mut(&mut current) {
            for (key, (row, bucket)) in &mut overrides {
                if let Some((_, kept)) = before.remove(key).filter(|(before, _)| before == row) {
                    *bucket = kept;
                }
            }
        }
        *current = Arc::new(overrides);
        Ok(())
    }

    /// Takes one from the budget. The error is how long it takes until there is one to take.
    pub fn check(&self, class: Class, key: LimitKey) -> Result<(), Duration> {
        self.take(class, key, 1)
    }

    /// Takes several at once, or as many as there can ever be.
    pub fn take(&self, class: Class, key: LimitKey, count: usize) -> Result<(), Duration> {
        let place = Class::LIMITED.into_iter().position(|limited| limited == class);
        let count = u32::try_from(count).ok().and_then(NonZeroU32::new);
        let (true, Some(place), Some(count)) = (self.enabled, place, count) else {
            return Ok(());
        };
        let now = DefaultClock::default().now();
        if let LimitKey::Account(recipient) = key {
            let overrides = Arc::clone(&self.overrides.read());
            if let Some((row, bucket)) = overrides.get(&(recipient, class)) {
                let Some(bucket) = bucket else { return Ok(()) };
                let most = row.rate.map_or(1, |(_, burst)| burst.clamp(1, i64::from(u32::MAX)) as u32);
                let count = count.min(NonZeroU32::new(most).unwrap_or(NonZeroU32::MIN));
                // The inner error is for counts beyond the burst, which the line above prevents.
                return match bucket.check_n(count) {
                    Ok(Err(refused)) => Err(refused.wait_time_from(now)),
                    _ => Ok(()),
                };
            }
        }
        let buckets = &self.classes[place];
        let checked = match buckets.check_key_n(&key.shared(), count) {
            Ok(checked) => checked,
            Err(most) => {
                let most = NonZeroU32::new(most.0).unwrap_or(NonZeroU32::MIN);
                buckets.check_key_n(&key.shared(), most).unwrap_or(Ok(()))
            }
        };
        checked.map_err(|refused| refused.wait_time_from(now))
    }

    /// A place among the requests that are at work for a caller, until it is dropped. The error is when to try again, which
    /// is a guess. `None` if there are no limits.
    pub fn enter(&self, activity: Activity, key: LimitKey) -> Result<Option<Place>, Duration> {
        if !self.enabled {
            return Ok(None);
        }
        self.places.take(activity, key).map(Some).ok_or(Duration::from_secs(1))
    }

    /// Memory for a body of so many bytes, from anybody, until it is dropped. Small ones need none. The error is when to try
    /// again. This holds whether limits are on or not.
    pub fn memory_for(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, Duration> {
        if bytes <= SMALL_BODY {
            return Ok(None);
        }
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let memory = Arc::clone(&self.memory).try_acquire_many_owned(kib);
        memory.map(Some).map_err(|_| Duration::from_secs(2))
    }

    /// Forgets the budgets that are full, so that memory is bounded by the callers of the last moments.
    pub fn sweep(&self) {
        for buckets in &self.classes {
            buckets.retain_recent();
            buckets.shrink_to_fit();
        }
    }
}

fn quota(rate: &Rate) -> Quota {
    // Zeros are refused where the configuration is read.
    let burst = NonZeroU32::new(rate.burst).unwrap_or(NonZeroU32::MIN);
    let period = Duration::try_from_secs_f64(1.0 / rate.per_second).ok();
    let period = period.filter(|period| !period.is_zero()).unwrap_or(Duration::from_nanos(1));
    Quota::with_period(period).map_or(Quota::per_second(burst), |quota| quota.allow_burst(burst))
}

impl LimitKey {
    /// That of an account by its name, whether it exists or not.
    pub fn named(name: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        Self::Name(hasher.finish())
    }

    /// The same for all addresses that one customer of a provider has.
    pub fn shared(self) -> Self {
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

    fn limits(burst: u32) -> Limits {
        let rate = Rate { per_second: 0.001, burst };
        Limits::new(&config::Limits { message: rate, ..config::Limits::default() })
    }

    #[test]
    fn a_burst_is_let_in_and_the_next_is_told_when_to_come_back() {
        let limits = limits(3);
        for _ in 0..3 {
            limits.check(Class::Message, LimitKey::Account(1)).unwrap();
        }
        let wait = limits.check(Class::Message, LimitKey::Account(1)).unwrap_err();
        assert!(!wait.is_zero() && wait <= Duration::from_secs(1000), "{wait:?}");
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
    fn large_bodies_of_anybody_share_a_bounded_memory() {
        let limits = limits(1);
        let most = 12 * 1024 * 1024;
        let mut held: Vec<_> = std::iter::from_fn(|| limits.memory_for(most).ok()).take(100).collect();
        assert_eq!(held.len(), 10);
        assert!(limits.memory_for(SMALL_BODY).unwrap().is_none(), "small ones go on");
        held.pop();
        assert!(limits.memory_for(most).unwrap().is_some());
    }

    #[test]
    fn nothing_is_limited_when_limits_are_off() {
        let limits = Limits::new(&config::Limits { enabled: false, ..config::Limits::default() });
        for _ in 0..1000 {
            limits.check(Class::Login, LimitKey::Account(1)).unwrap();
        }
    }
}
