//! Whose devices a client has to look at anew: those that changed, and those of people who come near; whose no longer: of
//! people who are gone.

use std::collections::{BTreeMap, BTreeSet};

use common::rounds;

use super::*;

impl User {
    /// Something about this user's device becomes another.
    async fn change_device(&self) {
        let name = common::transaction_id();
        let path = format!("/v3/devices/{}", self.device_id);
        self.put(&path, json!({ "display_name": name })).await.expect(200);
    }

    async fn encrypt(&self, room: &str) {
        let content = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
        self.send_state(room, "m.room.encryption", "", content).await;
    }

    async fn key_changes(&self, from: &str, to: &str) -> Value {
        self.get(&format!("/v3/keys/changes?from={}&to={}", encoded(from), encoded(to))).await.expect(200)
    }
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().map(|user| user.as_str().expect("a user")).collect()
}

/// Who has changed and who is gone by an answer.
#[track_caller]
fn lists(answer: &Value) -> (Vec<&str>, Vec<&str>) {
    let lists = &answer["device_lists"];
    (names(&lists["changed"]), names(&lists["left"]))
}

#[tokio::test]
async fn ok_05_a_changed_device_wakes_all_who_share_a_room_once() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let stranger = server.register("stranger").await;
    for _ in 0..3 {
        public_room(&alice, &[&bob]).await;
    }
    let mut own = Device::ready(&server.login("alice").await).await;
    let (mut near, mut far) = (Device::ready(&bob).await, Device::ready(&stranger).await);
    let seen = |answer: &Value| (!lists(answer).0.is_empty()).then(|| answer.clone());
    let answer = near.woken_by(alice.change_device(), seen).await;
    assert_eq!(lists(&answer), (vec![&*alice.user_id], vec![]));
    assert_eq!(lists(&own.next().await), (vec![&*alice.user_id], vec![]), "one's own devices too");
    for device in [&mut near, &mut own, &mut far] {
        assert_eq!(device.next().await["device_lists"], Value::Null);
    }
    let again = server.login("alice").await;
    assert_eq!(lists(&near.next().await).0, [&*alice.user_id], "a new device");
    again.post("/v3/logout", json!({})).await.expect(200);
    assert_eq!(lists(&near.next().await).0, [&*alice.user_id], "one less");
    server.login("alice").await;
    server.login("alice").await;
    assert_eq!(lists(&near.next().await).0, [&*alice.user_id]);
    alice.post("/v3/logout/all", json!({})).await.expect(200);
    assert_eq!(lists(&near.next().await).0, [&*alice.user_id]);
    assert_eq!(far.next().await["device_lists"], Value::Null);
}

#[tokio::test]
async fn ok_05_first_answers_speak_of_nobody() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    public_room(&alice, &[&bob]).await;
    bob.change_device().await;
    assert_eq!(alice.sync(None, 0).await["device_lists"], Value::Null);
}

#[tokio::test]
async fn ok_05_who_comes_is_new_and_who_goes_is_gone() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[]).await;
    let mut device = Device::ready(&alice).await;
    let mut other = Device::ready(&bob).await;
    for way in ["leave", "kick", "ban"] {
        bob.join(&room).await;
        assert_eq!(lists(&device.next().await), (vec![&*bob.user_id], vec![]));
        let all = vec![&*alice.user_id, &*bob.user_id];
        assert_eq!(lists(&other.next().await), (all, vec![]), "whoever comes is told of all who are in");
        match way {
            "leave" => bob.leave(&room).await,
            way => alice.act_on(way, &room, &bob).await,
        }
        assert_eq!(lists(&device.next().await), (vec![], vec![&*bob.user_id]), "{way}");
        assert_eq!(lists(&other.next().await), (vec![], vec![&*alice.user_id]), "{way}");
    }
    alice.act_on("unban", &room, &bob).await;
    alice.invite(&room, &bob.user_id).await;
    assert_eq!(
        lists(&device.next().await),
        (vec![], vec![]),
        "an invitation isn't yet a room that is shared"
    );
    bob.join(&room).await;
    bob.leave(&room).await;
    assert_eq!(lists(&device.next().await), (vec![], vec![]), "who came and went is as they were");
    bob.join(&room).await;
    bob.change_device().await;
    bob.leave(&room).await;
    assert_eq!(lists(&device.next().await), (vec![], vec![]), "whatever they did meanwhile");
}

#[tokio::test]
async fn ok_05_another_room_that_is_shared_keeps_people_near() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (one, two) = (public_room(&alice, &[&bob]).await, public_room(&alice, &[&bob]).await);
    let mut device = Device::ready(&alice).await;
    bob.leave(&one).await;
    assert_eq!(lists(&device.next().await), (vec![], vec![]));
    bob.join(&one).await;
    assert_eq!(lists(&device.next().await), (vec![], vec![]), "nobody new");
    alice.leave(&two).await;
    assert_eq!(lists(&device.next().await), (vec![], vec![]));
    alice.leave(&one).await;
    assert_eq!(lists(&device.next().await), (vec![], vec![&*bob.user_id]));
    let three = public_room(&alice, &[]).await;
    bob.join(&three).await;
    alice.join(&one).await;
    assert_eq!(lists(&device.next().await), (vec![&*alice.user_id, &*bob.user_id], vec![]));
}

/// Nobody is told of a change at the time of whoever shares nothing with them.
#[tokio::test]
async fn ok_05_who_changed_while_they_were_apart_has_changed_when_they_meet_again() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let carol = server.register("carol").await;
    let room = public_room(&alice, &[&bob, &carol]).await;
    alice.encrypt(&room).await;
    let mut device = Device::ready(&alice).await;
    bob.leave(&room).await;
    bob.change_device().await;
    bob.join(&room).await;
    assert_eq!(lists(&device.next().await), (vec![&*bob.user_id], vec![]), "they were away");
    alice.leave(&room).await;
    bob.change_device().await;
    alice.join(&room).await;
    assert_eq!(lists(&device.next().await), (vec![&*bob.user_id], vec![]), "the reader was away");
    bob.leave(&room).await;
    bob.join(&room).await;
    alice.leave(&room).await;
    alice.join(&room).await;
    assert_eq!(lists(&device.next().await), (vec![], vec![]), "nothing changed meanwhile");
}

#[tokio::test]
async fn ok_05_encrypted_rooms_count_for_themselves() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (plain, secret) = (public_room(&alice, &[&bob]).await, public_room(&alice, &[&bob]).await);
    let mut device = Device::ready(&alice).await;
    alice.encrypt(&secret).await;
    assert_eq!(lists(&device.next().await), (vec![&*bob.user_id], vec![]), "the first encrypted room");
    bob.leave(&secret).await;
    assert_eq!(lists(&device.next().await), (vec![], vec![&*bob.user_id]), "the last encrypted room");
    bob.join(&secret).await;
    assert_eq!(lists(&device.next().await), (vec![&*bob.user_id], vec![]));
    bob.leave(&plain).await;
    assert_eq!(lists(&device.next().await), (vec![], vec![]));
}

/// What the database has by now is further than an answer that ends earlier.
#[tokio::test]
async fn ok_05_what_comes_later_plays_no_part() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (one, two) = (public_room(&alice, &[]).await, public_room(&alice, &[]).await);
    let token = async || next_batch(&alice.sync(None, 0).await).to_owned();
    let start = token().await;
    bob.join(&one).await;
    let first = token().await;
    bob.join(&two).await;
    let second = token().await;
    bob.leave(&one).await;
    let third = token().await;
    bob.leave(&two).await;
    let end = token().await;
    let bob = &*bob.user_id;
    for (from, to, changed, left) in [
        (&start, &first, vec![bob], vec![]),
        (&first, &second, vec![], vec![]),
        (&second, &third, vec![], vec![]),
        (&first, &third, vec![], vec![]),
        (&third, &end, vec![], vec![bob]),
        (&start, &third, vec![bob], vec![]),
        (&first, &end, vec![], vec![bob]),
        (&start, &end, vec![], vec![]),
        (&end, &end, vec![], vec![]),
        (&end, &start, vec![], vec![]),
    ] {
        let answer = alice.key_changes(from, to).await;
        assert_eq!((names(&answer["changed"]), names(&answer["left"])), (changed, left), "{from} {to}");
    }
    for (query, errcode) in [
        ("", "M_MISSING_PARAM"),
        (&*format!("?from=x&to={}", encoded(&end)), "M_INVALID_PARAM"),
        (&*format!("?from={}&to=x", encoded(&end)), "M_INVALID_PARAM"),
    ] {
        alice.get(&format!("/v3/keys/changes{query}")).await.expect_error(400, errcode);
    }
}

/// The world as a reader of everything would know it.
#[derive(Default)]
struct Truth {
    /// Who is in which room.
    members: BTreeMap<String, BTreeSet<usize>>,
    encrypted: BTreeSet<String>,
}

impl Truth {
    /// The rooms that somebody is in.
    fn rooms(&self, user: usize) -> BTreeSet<String> {
        let rooms = self.members.iter().filter(|(_, users)| users.contains(&user));
        rooms.map(|(room, _)| room.clone()).collect()
    }

    /// What two share: nothing, a room, an encrypted room.
    fn shared(&self, one: usize, other: usize) -> u8 {
        let shared = self.members.iter().filter(|(_, users)| users.contains(&one) && users.contains(&other));
        shared.map(|(room, _)| if self.encrypted.contains(room) { 2 } else { 1 }).max().unwrap_or(0)
    }
}

/// Whatever happens between two answers, they say what is another than it was, in every room and of everybody.
#[tokio::test]
async fn ok_05_whatever_happens_the_lists_are_exact() {
    let server = server().await;
    let mut users = Vec::new();
    for name in ["alice", "bob", "carol", "dave", "erin"] {
        users.push(server.register(name).await);
    }
    let owner = server.register("owner").await;
    let mut truth = Truth::default();
    let mut rooms = Vec::new();
    for _ in 0..5 {
        let room = public_room(&owner, &[]).await;
        truth.members.insert(room.clone(), BTreeSet::new());
        rooms.push(room);
    }
    let mut devices = Vec::new();
    for user in &users {
        devices.push(Device::ready(user).await);
    }
    let mut before = vec![vec![0_u8; users.len()]; users.len()];
    let mut own = vec![BTreeSet::new(); users.len()];
    let mut changed = vec![BTreeSet::new(); users.len()];
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7_u64);
    let mut state = seed;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for step in 0..rounds(150, 3000) {
        let who = random(users.len());
        let room = rooms[random(rooms.len())].clone();
        let (user, members) = (&users[who], truth.members.get_mut(&room).expect("it is one of them"));
        match random(20) {
            0..12 if members.contains(&who) => {
                if random(2) == 0 {
                    user.leave(&room).await;
                } else {
                    owner.act_on("kick", &room, user).await;
                }
                members.remove(&who);
            }
            0..12 => {
                user.join(&room).await;
                members.insert(who);
            }
            12..14 if truth.encrypted.len() < 3 => {
                owner.encrypt(&room).await;
                truth.encrypted.insert(room);
            }
            14 => {
                let body = json!({ "displayname": common::transaction_id() });
                user.put(&format!("/v3/profile/{}/displayname", user.user_id), body).await.expect(200);
            }
            15 => drop(owner.send_text(&room, "words").await),
            _ => {
                user.change_device().await;
                for changed in &mut changed {
                    changed.insert(who);
                }
            }
        }
        let reader = random(users.len());
        if random(2) == 0 {
            continue;
        }
        let from = devices[reader].since.clone().expect("it is ready");
        let answer = devices[reader].next().await;
        let of = |user: &usize| users[*user].user_id.clone();
        let now: Vec<u8> = (0..users.len()).map(|other| truth.shared(reader, other)).collect();
        let was = std::mem::replace(&mut before[reader], now.clone());
        let rooms = truth.rooms(reader);
        let entered = !rooms.is_subset(&std::mem::replace(&mut own[reader], rooms.clone()));
        let noted = std::mem::take(&mut changed[reader]);
        let left: BTreeSet<String> = (0..users.len())
            .filter(|other| *other != reader && now[*other] < was[*other])
            .map(|user| of(&user))
            .collect();
        let expected: BTreeSet<String> = (0..users.len())
            .filter(|other| {
                let noted = noted.contains(other);
                let stayed = now[*other] > 0 && now[*other] == was[*other];
                if *other == reader {
                    noted || entered
                } else {
                    now[*other] > was[*other] || (noted && stayed)
                }
            })
            .map(|user| of(&user))
            .collect();
        let asked = users[reader].key_changes(&from, next_batch(&answer)).await;
        let owned = |list: &Value| -> Vec<String> {
            names(list).into_iter().filter(|name| *name != owner.user_id).map(ToOwned::to_owned).collect()
        };
        for lists in [&answer["device_lists"], &asked] {
            assert_eq!(
                owned(&lists["changed"]),
                Vec::from_iter(expected.clone()),
                "step {step}, seed {seed}"
            );
            assert_eq!(owned(&lists["left"]), Vec::from_iter(left.clone()), "step {step}, seed {seed}");
        }
    }
}
