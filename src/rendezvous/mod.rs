//! Places where two devices of one person meet, so that one signs the other in by a QR code: each is one payload that
//! whoever knows its name reads and replaces. What is in it the devices have encrypted for each other.
//!
//! In memory alone, of bounded number and size, and gone after some minutes. It never looks into a payload, and knows
//! nothing of accounts.
//!
//! Proposals: MSC4108 (the form of 2024) and MSC4388, which differ in their HTTP only.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{environment::Environment, limits::LimitKey};

/// Bytes of a payload: both proposals say so.
pub const MAX_PAYLOAD: usize = 4096;

/// Both proposals allow for two to five minutes. People have to find the other device first.
const LIFETIME_MS: i64 = 5 * 60 * 1000;

/// Characters of a name, which is all that somebody has to know, and of a revision.
const ID: usize = 32;
const REVISION: usize = 22;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("there is no such rendezvous, or no longer")]
    NotFound,
    #[error("the payload was replaced since: read it again")]
    ConcurrentWrite,
    #[error("the payload is larger than the limit of {MAX_PAYLOAD} bytes")]
    TooLarge,
    /// Until the next one expires, in milliseconds.
    #[error("there are too many rendezvous at the moment")]
    TooMany { wait_ms: i64 },
}

/// Rendezvous at a time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub all: usize,
    /// That one address (or account) has opened: nobody can take all.
    pub one: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { all: 2_000, one: 40 }
    }
}

/// Which protocol a rendezvous was opened by, and is used by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// MSC4108, any bytes.
    Msc4108,
    /// MSC4388, a text.
    Msc4388,
}

/// What is at a rendezvous.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    pub data: Bytes,
    /// Another with each write, whatever was written.
    pub revision: String,
    /// Unix milliseconds.
    pub modified_ts: i64,
    pub expires_ts: i64,
}

struct Place {
    opener: LimitKey,
    payload: Payload,
}

type Name = (Form, String);

#[derive(Default)]
struct Places {
    open: HashMap<Name, Place>,
    /// The same, the next to expire first. Closing looks through it: it isn't long.
    order: VecDeque<(i64, Name)>,
    openers: HashMap<LimitKey, usize>,
}

impl Places {
    fn close(&mut self, name: &Name) -> bool {
        let Some(place) = self.open.remove(name) else { return false };
        self.order.retain(|(_, other)| other != name);
        if let Some(count) = self.openers.get_mut(&place.opener) {
            *count -= 1;
            if *count == 0 {
                self.openers.remove(&place.opener);
            }
        }
        true
    }

    fn expire(&mut self, now: i64) {
        while let Some((_, name)) = self.order.pop_front_if(|(expires, _)| *expires <= now) {
            self.close(&name);
        }
    }
}

pub struct Rendezvous {
    environment: Environment,
    limits: Limits,
    places: Mutex<Places>,
}

impl Rendezvous {
    pub fn new(environment: Environment, limits: Limits) -> Self {
        Self { environment, limits, places: Mutex::default() }
    }

    /// Opens one; its name.
    pub fn open(&self, form: Form, opener: LimitKey, data: Bytes) -> Result<(String, Payload), Error> {
        check(&data)?;
        let (mut places, now) = self.places();
        let opener = opener.shared();
        let count = places.openers.get(&opener).copied().unwrap_or(0);
        if places.open.len() >= self.limits.all || count >= self.limits.one {
            let next = places.order.front().map_or(now + LIFETIME_MS, |(expires, _)| *expires);
            return Err(Error::TooMany { wait_ms: next - now });
        }
        let id = self.environment.entropy.token(ID);
        let payload = Payload {
            data,
            revision: self.environment.entropy.token(REVISION),
            modified_ts: now,
            expires_ts: now + LIFETIME_MS,
        };
        let name = (form, id.clone());
        places.order.push_back((payload.expires_ts, name.clone()));
        places.open.insert(name, Place { opener, payload: payload.clone() });
        *places.openers.entry(opener).or_default() += 1;
        Ok((id, payload))
    }

    pub fn read(&self, form: Form, id: &str) -> Result<Payload, Error> {
        let (places, _) = self.places();
        let place = places.open.get(&(form, id.to_owned())).ok_or(Error::NotFound)?;
        Ok(place.payload.clone())
    }

    /// Puts a payload in place of the one that had this revision. Writing what is there is no error, whatever revision
    /// the writer knows, and changes nothing: they had no answer the first time.
    pub fn replace(&self, form: Form, id: &str, revision: &str, data: Bytes) -> Result<Payload, Replaced> {
        check(&data)?;
        let (mut places, now) = self.places();
        let place = places.open.get_mut(&(form, id.to_owned())).ok_or(Error::NotFound)?;
        if place.payload.revision != revision {
            if form == Form::Msc4388 && place.payload.data == data {
                return Ok(place.payload.clone());
            }
            return Err(Replaced { error: Error::ConcurrentWrite, payload: Some(place.payload.clone()) });
        }
        place.payload.data = data;
        place.payload.revision = self.environment.entropy.token(REVISION);
        place.payload.modified_ts = now;
        Ok(place.payload.clone())
    }

    pub fn close(&self, form: Form, id: &str) -> Result<(), Error> {
        let (mut places, _) = self.places();
        if places.close(&(form, id.to_owned())) { Ok(()) } else { Err(Error::NotFound) }
    }

    /// Those that haven't expired, and the time.
    fn places(&self) -> (parking_lot::MutexGuard<'_, Places>, i64) {
        let now = self.environment.clock.now_ms();
        let mut places = self.places.lock();
        places.expire(now);
        (places, now)
    }
}

/// Why a payload wasn't replaced, with what is there if it is another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    pub error: Error,
    pub payload: Option<Payload>,
}

impl From<Error> for Replaced {
    fn from(error: Error) -> Self {
        Self { error, payload: None }
    }
}

fn check(data: &Bytes) -> Result<(), Error> {
    if data.len() > MAX_PAYLOAD { Err(Error::TooLarge) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::{
        net::IpAddr,
        sync::{
            Arc,
            atomic::{AtomicI64, Ordering},
        },
    };

    use super::*;
    use crate::environment::Clock;

    #[derive(Default)]
    struct Hands(AtomicI64);

    impl Clock for Hands {
        fn now_ms(&self) -> i64 {
            self.0.load(Ordering::SeqCst)
        }
    }

    struct World {
        rendezvous: Rendezvous,
        clock: Arc<Hands>,
    }

    impl World {
        fn new(limits: Limits) -> Self {
            let clock = Arc::new(Hands::default());
            let environment = Environment { clock: clock.clone(), ..Environment::real() };
            Self { rendezvous: Rendezvous::new(environment, limits), clock }
        }

        fn open(&self, opener: &str) -> Result<String, Error> {
            let opener = LimitKey::Address(opener.parse::<IpAddr>().unwrap());
            self.rendezvous.open(Form::Msc4388, opener, Bytes::from_static(b"x")).map(|(id, _)| id)
        }

        fn pass(&self, ms: i64) {
            self.clock.0.fetch_add(ms, Ordering::SeqCst);
        }

        fn kept(&self) -> (usize, usize, usize) {
            let places = self.rendezvous.places.lock();
            (places.open.len(), places.order.len(), places.openers.len())
        }
    }

    #[test]
    fn one_expires_after_its_time_however_often_it_is_written() {
        let world = World::new(Limits::default());
        let (form, old) = (Form::Msc4388, world.open("192.0.2.1").unwrap());
        world.pass(LIFETIME_MS - 1);
        let payload = world.rendezvous.read(form, &old).unwrap();
        let data = Bytes::from_static(b"y");
        let replaced = world.rendezvous.replace(form, &old, &payload.revision, data.clone()).unwrap();
        assert_eq!(replaced.expires_ts, payload.expires_ts);
        let young = world.open("192.0.2.1").unwrap();

        world.pass(1);
        assert_eq!(world.rendezvous.read(form, &old), Err(Error::NotFound));
        let late = world.rendezvous.replace(form, &old, &replaced.revision, data);
        assert_eq!(late, Err(Error::NotFound.into()));
        assert_eq!(world.rendezvous.close(form, &old), Err(Error::NotFound));
        world.rendezvous.read(form, &young).unwrap();
        assert_eq!(world.kept(), (1, 1, 1), "nothing stays of what has expired");
    }

    #[test]
    fn there_is_a_bounded_number_and_nobody_can_take_all() {
        let world = World::new(Limits { all: 5, one: 2 });
        let first = world.open("192.0.2.1").unwrap();
        world.pass(1000);
        world.open("192.0.2.1").unwrap();
        assert_eq!(world.open("192.0.2.1"), Err(Error::TooMany { wait_ms: LIFETIME_MS - 1000 }));
        // Whoever has one IPv6 address has many.
        for opener in ["2001:db8::1", "2001:db8::2"] {
            world.open(opener).unwrap();
        }
        assert!(world.open("2001:db8::3").is_err());
        world.open("2001:db8:0:1::3").unwrap();
        assert!(world.open("192.0.2.9").is_err(), "five are all");
        world.rendezvous.close(Form::Msc4388, &first).unwrap();
        world.open("192.0.2.1").unwrap();
        world.pass(LIFETIME_MS);
        world.open("192.0.2.1").unwrap();
        assert_eq!(world.kept(), (1, 1, 1));
    }

    /// What was closed leaves no trace: opening and closing all day takes no memory.
    #[test]
    fn those_that_were_closed_are_forgotten() {
        let world = World::new(Limits::default());
        let kept = world.open("192.0.2.1").unwrap();
        for _ in 0..100 {
            let id = world.open("192.0.2.1").unwrap();
            world.rendezvous.close(Form::Msc4388, &id).unwrap();
        }
        assert_eq!(world.kept(), (1, 1, 1));
        world.rendezvous.close(Form::Msc4388, &kept).unwrap();
        assert_eq!(world.kept(), (0, 0, 0));
    }

    #[test]
    fn each_form_has_its_own() {
        let world = World::new(Limits::default());
        let id = world.open("192.0.2.1").unwrap();
        assert_eq!(world.rendezvous.read(Form::Msc4108, &id), Err(Error::NotFound));
        assert_eq!(world.rendezvous.close(Form::Msc4108, &id), Err(Error::NotFound));
    }
}
