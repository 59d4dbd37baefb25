//! Stories about many people and long times, on a clock that the test owns.

use std::sync::Arc;

use ruma::{OwnedUserId, UserId};

use super::{
    State, Times,
    board::{Board, Past, Round, User},
};
use crate::queue::{Tail, Tails};

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const TIMES: Times = Times { idle: 5 * MINUTE, grace: 30 * SECOND };

struct World {
    tails: Arc<Tails>,
    board: Board,
    now: i64,
    /// What rounds did so far.
    total: Round,
}

fn name(number: i64) -> OwnedUserId {
    UserId::parse(format!("@user{number}:localhost")).unwrap()
}

impl World {
    fn new() -> Self {
        let tails = Arc::new(Tails::new(1));
        Self { board: Board::new(Arc::clone(&tails), TIMES), tails, now: 0, total: Round::default() }
    }

    fn enter(&self, number: i64, rooms: &[i64]) -> Arc<User> {
        self.board.enter(number, name(number), Past::default(), rooms.to_vec(), self.now)
    }

    /// A device of the user, with the number of the user, begins a request.
    fn hold(&self, number: i64, rooms: &[i64]) -> Arc<User> {
        let user = self.enter(number, rooms);
        assert!(self.board.hold(&user, number, State::Online, self.now));
        user
    }

    /// Lets time pass, with a round whenever one is due.
    fn pass(&mut self, time: i64) {
        let end = self.now + time;
        while let Some(wait) = self.board.until_round(self.now)
            && self.now + wait <= end
        {
            self.now += wait;
            let round = self.board.round(self.now);
            self.total.told += round.told;
            self.total.readers += round.readers;
        }
        self.now = end;
    }

    /// What a reader hears of somebody after a number.
    fn heard(&self, reader: i64, after: u64, of: i64) -> Option<State> {
        let news = self.board.news(reader, after, self.tails.fading()).expect("known");
        news.into_iter().find(|seen| seen.recipient == of).map(|seen| seen.told.state)
    }
}

#[test]
fn pr_02_an_open_socket_is_idle_after_five_minutes_and_stays_there_for_days() {
    let mut world = World::new();
    world.hold(1, &[7]);
    world.hold(2, &[7]);
    world.pass(0);
    assert_eq!(world.heard(1, 2, 2), Some(State::Online));

    let before = world.tails.fading();
    world.pass(4 * MINUTE);
    assert_eq!(world.heard(1, before, 2), None);
    world.board.active(2, world.now);
    world.pass(2 * MINUTE);
    assert_eq!(world.heard(1, before, 2), None, "active four minutes after they came");
    world.pass(3 * MINUTE + 5 * SECOND);
    assert_eq!(world.heard(1, before, 2), Some(State::Unavailable));

    let (before, told) = (world.tails.fading(), world.total.told);
    world.pass(3 * 24 * 60 * MINUTE);
    assert_eq!((world.tails.fading(), world.total.told), (before, told), "nothing happens to who stays");
    assert_eq!(world.board.until_round(world.now), None, "nor is there anything to wait for");
    world.board.active(2, world.now);
    world.pass(SECOND);
    assert_eq!(world.heard(1, before, 2), Some(State::Online));
}

#[test]
fn a_beat_costs_nothing() {
    let mut world = World::new();
    let user = world.hold(1, &[7]);
    world.hold(2, &[7]);
    world.pass(0);
    let (before, told) = (world.tails.fading(), world.total.told);
    for _ in 0..10_000 {
        world.board.release(&user, 1, world.now);
        assert!(world.board.hold(&user, 1, State::Online, world.now));
        world.board.active(1, world.now);
        world.board.active(2, world.now);
        world.pass(100);
    }
    assert_eq!((world.tails.fading(), world.total.told), (before, told), "a thousand seconds of polling");
    // Where a device was held at the end of its grace time, a look for the end of the idle time stays.
    let looks = world.board.agenda.looks() as i64;
    assert!(looks <= TIMES.idle / TIMES.grace + 3, "{looks} looks are planned");
}

#[test]
fn who_is_gone_is_remembered_for_a_while_and_then_takes_no_memory() {
    let mut world = World::new();
    let user = world.hold(1, &[7]);
    world.hold(2, &[7]);
    world.pass(0);
    let before = world.tails.fading();
    world.board.release(&user, 1, world.now);
    world.pass(32 * SECOND);
    assert_eq!(world.heard(2, before, 1), Some(State::Offline));
    world.pass(9 * MINUTE);
    assert_eq!(world.heard(2, before, 1), Some(State::Offline));
    world.pass(2 * MINUTE);
    assert_eq!(world.board.users(), 1);
    assert!(!world.board.hold(&user, 1, State::Online, world.now), "whoever had them has to look again");
    assert!(
        world.board.news(2, before, world.tails.fading()).is_none(),
        "what isn't known is said to be unknown"
    );
    assert!(world.board.news(2, world.tails.fading(), world.tails.fading()).is_some());
}

#[test]
fn who_enters_a_room_and_who_is_in_it_hear_of_each_other_once() {
    let mut world = World::new();
    world.hold(1, &[7]);
    world.hold(2, &[8]);
    world.hold(3, &[]);
    world.pass(0);
    let before = world.tails.fading();
    world.board.set_rooms(3, vec![7, 8]);
    world.pass(SECOND);
    assert_eq!(world.heard(3, before, 1), Some(State::Online));
    assert_eq!(world.heard(3, before, 2), Some(State::Online));
    assert_eq!(world.heard(1, before, 3), Some(State::Online));
    assert_eq!(world.heard(1, before, 2), None);
    let before = world.tails.fading();
    world.board.set_rooms(3, vec![8, 7]);
    world.pass(SECOND);
    assert_eq!(world.tails.fading(), before);
}

#[test]
fn somebody_who_changes_all_the_time_is_told_now_and_then_and_the_last_always_is() {
    let mut world = World::new();
    let user = world.hold(1, &[7]);
    world.hold(2, &[7]);
    world.pass(0);
    let told = world.total.told;
    for number in 0..600 {
        let state = if number % 2 == 0 { State::Unavailable } else { State::Online };
        world.board.say(&user, 1, state, None, world.now);
        world.pass(100);
    }
    let before = world.tails.fading();
    world.board.say(&user, 1, State::Offline, None, world.now);
    world.pass(30 * SECOND);
    assert_eq!(world.heard(2, before, 1), Some(State::Offline));
    let told = world.total.told - told;
    assert!(told <= 10, "told {told} times in ninety seconds");
}

/// Trap 11: two thousand people in rooms of a hundred come and go within a minute.
#[test]
fn a_storm_of_comings_and_goings_wakes_a_bounded_number_of_readers() {
    const PEOPLE: i64 = 2000;
    let mut world = World::new();
    let tails: Vec<Arc<Tail>> = (0..PEOPLE).map(|number| world.tails.of(number)).collect();
    let rooms = |number: i64| [number / 100, 100 + number % 20];
    let mut users = Vec::new();
    for number in 0..PEOPLE {
        users.push(world.hold(number, &rooms(number)));
        world.pass(MINUTE / PEOPLE);
    }
    world.pass(10 * SECOND);
    let bound = |world: &World, since: i64| 500 * (world.now - since) / SECOND + PEOPLE;
    let came = std::mem::take(&mut world.total);
    assert_eq!(came.told as i64, PEOPLE);
    // Each has some two hundred peers: uncoalesced there would be four hundred thousand.
    assert!((came.readers as i64) <= bound(&world, 0), "{came:?}");

    let start = world.now;
    for user in &users {
        world.board.release(user, user.recipient, world.now);
        world.pass(MINUTE / PEOPLE);
    }
    world.pass(40 * SECOND);
    let went = std::mem::take(&mut world.total);
    assert_eq!(went.told as i64, PEOPLE);
    assert!((went.readers as i64) <= bound(&world, start), "{went:?}");
    let offline =
        world.board.everybody(0, world.now).iter().filter(|seen| seen.told.state == State::Offline).count();
    assert_eq!(offline, world.board.everybody(0, world.now).len(), "the last state is what everybody hears");
    drop(tails);
    world.pass(11 * MINUTE);
    assert_eq!(world.board.users(), 0);
}

/// Users of other servers are what these say, idle or not, and gone when these fall silent.
#[test]
fn pr_02_users_of_other_servers_are_what_these_say_until_they_fall_silent() {
    let mut world = World::new();
    world.hold(1, &[7]);
    world.hold(2, &[8]);
    let number = i64::MIN / 2 - 1;
    let hear = |world: &World, state: State| {
        let user = world.enter(number, &[7]);
        let until = world.now + 30 * MINUTE;
        assert!(world.board.set_elsewhere(&user, state, None, world.now, world.now, until));
    };
    hear(&world, State::Online);
    let before = world.tails.fading();
    world.pass(SECOND);
    assert_eq!(world.heard(1, before, number), Some(State::Online));
    assert_eq!(world.heard(2, before, number), None, "they share no room");

    let before = world.tails.fading();
    world.pass(20 * MINUTE);
    assert_eq!(world.heard(1, before, number), None, "their server would say so");
    hear(&world, State::Online);
    world.pass(20 * MINUTE);
    assert_eq!(world.heard(1, before, number), None, "it has said it again");
    world.pass(11 * MINUTE);
    assert_eq!(world.heard(1, before, number), Some(State::Offline));
    world.pass(11 * MINUTE);
    assert_eq!(world.board.users(), 2, "and then nobody remembers them");
}

/// Others have more users than we have: for none of them anything is put down that nobody reads.
#[test]
fn nobody_reads_for_users_of_other_servers() {
    let mut world = World::new();
    world.hold(1, &[7]);
    for n in 1..1_000 {
        let user = world.enter(i64::MIN / 2 - n, &[7]);
        assert!(world.board.set_elsewhere(&user, State::Online, None, 0, 0, 30 * MINUTE));
    }
    world.pass(MINUTE);
    assert!(world.total.told >= 1_000 && world.total.readers < 20, "{:?}", world.total);
}
