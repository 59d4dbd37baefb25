//! Who hears of changed devices, where only the order of commits decides; and what that costs.

use std::fs;

use ruma::{OwnedUserId, device_id};

use super::DeviceLists;
use crate::{
    room::{
        Preset,
        tests::{World, user},
    },
    shutdown::Shutdown,
    store::{Batch, Kind, account::add_account, destination::insert_destination, room::set_membership},
};

impl World {
    fn lists(&self) -> &DeviceLists {
        self.sessions.device_lists()
    }

    /// Has somebody look after those who come.
    fn watched(&self) -> Shutdown {
        self.rooms.count_arrivals_in(self.lists().arrivals());
        let shutdown = Shutdown::default();
        tokio::spawn(self.lists().clone().run(self.rooms.arrivals(), shutdown.clone()));
        shutdown
    }

    /// How many changes of devices are in a queue.
    async fn heard(&self, recipient: i64) -> usize {
        let entries = self.store.first_of_queue(recipient, 0, i64::MAX, i64::MAX).await.unwrap();
        entries.iter().filter(|entry| entry.kind == Kind::DeviceList).count()
    }

    async fn heard_soon(&self, recipient: i64) -> usize {
        for _ in 0..1_000 {
            if let count @ 1.. = self.heard(recipient).await {
                return count;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        0
    }

    async fn recipient(&self, user_id: &OwnedUserId) -> i64 {
        self.accounts.recipient(user_id).await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn ok_05_whoever_joins_while_a_change_is_written_hears_of_it_once() {
    let people = ["alice", "bob", "carol", "dora"].map(user);
    let world = World::new(&people.each_ref().map(|user_id| user_id.as_str())).await;
    let [alice, bob, carol, dora] = &people;
    let room = world.room_of(alice, Preset::PublicChat).await;
    world.rooms.join(&room, bob, None).await.unwrap();
    let _shutdown = world.watched();
    let mut batch = Batch::new();
    world.lists().note(&mut batch, alice, &[device_id!("A"), device_id!("B")]).await.unwrap();
    world.rooms.join(&room, carol, None).await.unwrap();
    world.store.commit(batch).await.unwrap();
    assert_eq!(world.heard_soon(world.recipient(carol).await).await, 1);
    for user_id in [alice, bob] {
        assert_eq!(world.heard(world.recipient(user_id).await).await, 1, "{user_id}");
    }
    // Whoever joins later doesn't: that they are near now is what they hear.
    world.rooms.join(&room, dora, None).await.unwrap();
    let mut batch = Batch::new();
    world.lists().note(&mut batch, bob, &[device_id!("A")]).await.unwrap();
    world.store.commit(batch).await.unwrap();
    assert_eq!(world.heard(world.recipient(dora).await).await, 1);
    assert_eq!(world.heard(world.recipient(carol).await).await, 2);
}

/// What this process has used, in milliseconds.
fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    fields[11..13].iter().map(|field| field.parse::<f64>().unwrap() * 10.0).sum()
}

/// A user in 500 rooms of a hundred changes a device: 2,000 others hear of it, once each.
#[tokio::test]
#[ignore = "a benchmark"]
async fn what_a_change_costs() {
    const ROOMS: i64 = 500;
    const MEMBERS: i64 = 100;
    const TIMES: usize = 20;
    for (here, elsewhere) in [(2_000, 0), (1_000, 1_000), (0, 2_000)] {
        let alice = user("alice");
        let world = World::new(&[alice.as_str()]).await;
        let _shutdown = world.watched();
        let name = |number: i64| {
            let server =
                if number < here { "localhost".to_owned() } else { format!("server{number}.example.org") };
            format!("@user{number}:{server}")
        };
        let mut batch = Batch::new();
        for number in 0..here {
            batch.push(add_account(&name(number), None, false, 0));
        }
        for number in here..here + elsewhere {
            batch.push(insert_destination(&format!("server{number}.example.org"), -1_000 - number));
        }
        for room in 1..=ROOMS {
            batch.push(set_membership(alice.as_str(), room, "join", 1));
            for place in 1..MEMBERS {
                let number = (room * (MEMBERS - 1) + place) % (here + elsewhere);
                batch.push(set_membership(&name(number), room, "join", 1));
            }
        }
        world.store.commit(batch).await.unwrap();
        let before = cpu();
        for _ in 0..TIMES {
            let mut batch = Batch::new();
            world.lists().note(&mut batch, &alice, &[device_id!("A")]).await.unwrap();
            world.store.commit(batch).await.unwrap();
        }
        let used = (cpu() - before) / TIMES as f64;
        println!("a change told to {here} users here and {elsewhere} servers: {used:.1} ms CPU");
        for number in 0..here {
            let recipient = world.recipient(&name(number).try_into().unwrap()).await;
            assert_eq!(world.heard(recipient).await, TIMES);
        }
        for number in here..here + elsewhere {
            assert_eq!(world.heard(-1_000 - number).await, TIMES);
        }
    }
}
