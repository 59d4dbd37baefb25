//! The devices of one user, and what they come to together.
//!
//! Nothing here knows of others or waits for anything. Times are milliseconds on the server's own clock, which no change
//! of the system's time moves.

use serde::Deserialize;

/// What others see of somebody. The greatest of several devices counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Offline,
    Unavailable,
    Online,
}

impl State {
    /// As the specification names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Unavailable => "unavailable",
            Self::Online => "online",
        }
    }

    /// `None` for what the specification doesn't know.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Offline, Self::Unavailable, Self::Online].into_iter().find(|state| state.name() == name)
    }

    /// As it is stored.
    pub(super) fn number(self) -> i64 {
        self as i64
    }

    pub(super) fn from_number(number: i64) -> Self {
        match number {
            2 => Self::Online,
            1 => Self::Unavailable,
            _ => Self::Offline,
        }
    }
}

/// When a user last did what, see [`Devices::state`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Activity {
    /// Came, or did something.
    pub(super) last: i64,
    /// Did something.
    pub(super) acted: i64,
}

/// How long things take, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// From a user's last activity until they are idle.
    pub idle: i64,
    /// From the end of a device's last request or socket until it counts as gone.
    pub grace: i64,
}

/// The device of those who were there when the server stopped: it keeps them until their clients come back.
const BEFORE_THE_START: i64 = i64::MIN;

/// The one that stands for all those that a user has elsewhere.
const ELSEWHERE: i64 = i64::MIN + 1;

struct Device {
    number: i64,
    /// What its requests say of it. What a user says through it otherwise counts until its requests say something new.
    requests: Option<State>,
    wanted: State,
    /// When it said what is wanted.
    said: i64,
    /// Its requests and sockets at the moment.
    held: u32,
    /// With none of them: until when it counts.
    until: i64,
    /// It stands for all devices of a user of another server, which knows itself when they are idle.
    elsewhere: bool,
}

impl Device {
    fn is_there(&self, now: i64) -> bool {
        self.held > 0 || now < self.until
    }

    fn state(&self, now: i64, activity: Activity, times: Times) -> State {
        let fresh = now - activity.last < times.idle;
        match self.wanted {
            _ if !self.is_there(now) => State::Offline,
            State::Offline => State::Offline,
            wanted if self.elsewhere => wanted,
            State::Online if fresh => State::Online,
            // Whoever does something after all is back ("Idle timeout").
            State::Unavailable if fresh && activity.acted > self.said => State::Online,
            State::Online | State::Unavailable => State::Unavailable,
        }
    }
}

#[derive(Default)]
pub(super) struct Devices(Vec<Device>);

impl Devices {
    /// Those of somebody who was in this state when the server stopped.
    pub(super) fn before_the_start(state: State, now: i64, until: i64) -> Self {
        let number = BEFORE_THE_START;
        Self(vec![Device {
            number,
            requests: None,
            wanted: state,
            said: now,
            held: 0,
            until,
            elsewhere: false,
        }])
    }

    /// A request or socket of a device begins, or says something new of it. Whether that is activity of its user: they
    /// come, or come back. Say so with [`Self::release`] when it ends.
    pub(super) fn hold(&mut self, number: i64, wanted: State, now: i64) -> bool {
        let activity = self.requests(number, wanted, now);
        if let Some(device) = self.find(number) {
            device.held += 1;
        }
        activity
    }

    pub(super) fn requests(&mut self, number: i64, wanted: State, now: i64) -> bool {
        // Those who were there before the start of the server don't come: they are still there.
        let back = self.find(BEFORE_THE_START).is_some();
        self.0.retain(|device| device.number != BEFORE_THE_START && device.is_there(now));
        if let Some(device) = self.find(number) {
            let before = device.requests.replace(wanted);
            if before.is_none_or(|before| before == wanted) {
                return false;
            }
            (device.wanted, device.said) = (wanted, now);
            return wanted == State::Online;
        }
        self.0.push(Device {
            number,
            requests: Some(wanted),
            wanted,
            said: now,
            held: 0,
            until: now,
            elsewhere: false,
        });
        wanted == State::Online && !back
    }

    /// One request or socket of a device has ended.
    pub(super) fn release(&mut self, number: i64, now: i64, times: Times) {
        if let Some(device) = self.find(number) {
            device.held = device.held.saturating_sub(1);
            device.until = now + times.grace;
        }
    }

    /// What the user says of themselves through a device.
    pub(super) fn say(&mut self, number: i64, wanted: State, now: i64, times: Times) {
        self.0.retain(|device| device.number != BEFORE_THE_START && device.is_there(now));
        let until = now + times.grace;
        match self.find(number) {
            Some(device) => {
                (device.wanted, device.said) = (wanted, now);
                device.until = device.until.max(until);
            }
            None => self.0.push(Device {
                number,
                requests: None,
                wanted,
                said: now,
                held: 0,
                until,
                elsewhere: false,
            }),
        }
    }

    /// Those of a user of another server, as that says.
    pub(super) fn set_elsewhere(&mut self, wanted: State, now: i64, until: i64) {
        let until = if wanted == State::Offline { now } else { until };
        let (number, requests) = (ELSEWHERE, None);
        self.0 = vec![Device { number, requests, wanted, said: now, held: 0, until, elsewhere: true }];
    }

    /// What they come to.
    pub(super) fn state(&self, now: i64, activity: Activity, times: Times) -> State {
        let states = self.0.iter().map(|device| device.state(now, activity, times));
        states.max().unwrap_or(State::Offline)
    }

    /// When that changes if nothing happens.
    pub(super) fn next_change(&self, now: i64, activity: Activity, times: Times) -> Option<i64> {
        let there = self.0.iter().filter(|device| device.is_there(now));
        let changes = there.flat_map(|device| {
            let gone = (device.held == 0).then_some(device.until);
            let idle = !device.elsewhere && device.state(now, activity, times) == State::Online;
            [gone, idle.then_some(activity.last + times.idle)]
        });
        changes.flatten().min()
    }

    /// Forgets those that are gone; whether there are any left.
    pub(super) fn prune(&mut self, now: i64) -> bool {
        self.0.retain(|device| device.is_there(now));
        !self.0.is_empty()
    }

    pub(super) fn is_one(&self) -> bool {
        self.0.len() == 1
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&mut self, number: i64) -> Option<&mut Device> {
        self.0.iter_mut().find(|device| device.number == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times { idle: 300_000, grace: 30_000 };
    const MINUTE: i64 = 60_000;

    fn at(time: i64) -> Activity {
        Activity { last: time, acted: time }
    }

    fn state(devices: &Devices, now: i64, last_active: i64) -> State {
        devices.state(now, at(last_active), TIMES)
    }

    #[test]
    fn pr_01_a_device_is_there_while_it_is_held_and_for_a_while_after() {
        let mut devices = Devices::default();
        assert_eq!(state(&devices, 0, 0), State::Offline);
        assert!(devices.hold(1, State::Online, 0), "to come is activity");
        assert_eq!(state(&devices, 4 * MINUTE, 0), State::Online);
        devices.release(1, 4 * MINUTE, TIMES);
        assert_eq!(devices.next_change(4 * MINUTE, at(0), TIMES), Some(4 * MINUTE + TIMES.grace));
        assert_eq!(state(&devices, 4 * MINUTE + TIMES.grace - 1, 0), State::Online);
        assert_eq!(state(&devices, 4 * MINUTE + TIMES.grace, 0), State::Offline);
    }

    #[test]
    fn pr_01_the_most_present_device_counts() {
        let mut devices = Devices::default();
        devices.hold(1, State::Offline, 0);
        assert_eq!(state(&devices, 0, 0), State::Offline, "it hides");
        devices.hold(2, State::Unavailable, 0);
        assert_eq!(state(&devices, 0, 0), State::Unavailable);
        devices.hold(3, State::Online, 0);
        assert_eq!(state(&devices, 0, 0), State::Online);
        devices.release(3, 0, TIMES);
        assert_eq!(state(&devices, TIMES.grace, 0), State::Unavailable);
    }

    #[test]
    fn a_device_with_two_sockets_stays_until_both_have_ended() {
        let mut devices = Devices::default();
        devices.hold(1, State::Online, 0);
        assert!(!devices.hold(1, State::Online, 0), "it was there");
        devices.release(1, 0, TIMES);
        assert_eq!(state(&devices, TIMES.grace, 0), State::Online);
        devices.release(1, 0, TIMES);
        assert_eq!(state(&devices, TIMES.grace, 0), State::Offline);
    }

    #[test]
    fn pr_02_five_minutes_without_activity_are_idle_and_activity_is_back() {
        let mut devices = Devices::default();
        devices.hold(1, State::Online, 0);
        assert_eq!(devices.next_change(0, at(0), TIMES), Some(5 * MINUTE));
        assert_eq!(state(&devices, 5 * MINUTE - 1, 0), State::Online);
        assert_eq!(state(&devices, 5 * MINUTE, 0), State::Unavailable);
        assert_eq!(devices.next_change(5 * MINUTE, at(0), TIMES), None, "it may stay so for days");
        assert_eq!(state(&devices, 6 * MINUTE, 6 * MINUTE), State::Online);
    }

    #[test]
    fn pr_02_who_said_to_be_idle_is_back_by_what_they_do() {
        let mut devices = Devices::default();
        devices.hold(1, State::Online, 0);
        devices.say(1, State::Unavailable, MINUTE, TIMES);
        assert_eq!(state(&devices, MINUTE, MINUTE), State::Unavailable, "saying so is no activity after it");
        assert_eq!(state(&devices, 2 * MINUTE, 2 * MINUTE), State::Online);
        assert_eq!(state(&devices, 7 * MINUTE, 2 * MINUTE), State::Unavailable);
        let came = Activity { last: 2 * MINUTE, acted: 0 };
        assert_eq!(devices.state(2 * MINUTE, came, TIMES), State::Unavailable, "another device came");
    }

    #[test]
    fn what_a_user_says_holds_until_the_requests_of_the_device_say_something_else() {
        let mut devices = Devices::default();
        devices.hold(1, State::Online, 0);
        devices.say(1, State::Offline, 0, TIMES);
        assert!(!devices.requests(1, State::Online, 1), "as before");
        assert_eq!(state(&devices, 1, 1), State::Offline);
        devices.requests(1, State::Unavailable, 2);
        assert_eq!(state(&devices, 2, 1), State::Unavailable);
        assert!(devices.requests(1, State::Online, 3), "it changed its mind");
        assert_eq!(state(&devices, 3, 1), State::Online);

        let mut devices = Devices::default();
        devices.say(1, State::Unavailable, 0, TIMES);
        assert!(!devices.hold(1, State::Online, 1), "its first request doesn't take it back");
        assert_eq!(state(&devices, 1, 0), State::Unavailable);
    }

    #[test]
    fn who_was_there_before_a_restart_still_is_and_did_nothing() {
        let mut devices = Devices::before_the_start(State::Online, 0, TIMES.grace);
        assert_eq!(state(&devices, 1, 0), State::Online);
        assert_eq!(state(&devices, TIMES.grace, 0), State::Offline);
        assert!(!devices.hold(1, State::Online, 2), "a client that comes back is no activity");
        devices.say(1, State::Offline, 3, TIMES);
        assert_eq!(state(&devices, 3, 3), State::Offline, "nothing is left of before");
    }
}
