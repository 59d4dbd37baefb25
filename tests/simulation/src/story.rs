//! A run: servers with people and devices, things that happen and things that go wrong, all by one seed; then everything is
//! healed, and the judge looks.

use std::{path::Path, sync::Arc, time::Duration};

use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    actor::Actor,
    checker::Judge,
    client::{Answer, Client},
    device::Device,
    disk::{Faults, Loss},
    host::Host,
    kept::Kept,
    network::{Link, Net},
    trace::note,
    world::{Person, World},
};

/// How long a run may take in its own time, whatever goes wrong in it.
const LONGEST: Duration = Duration::from_hours(24);

/// What a run is like.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// By the seed, if it isn't said.
    pub(crate) servers: Option<usize>,
    /// How much each person does.
    pub(crate) acts: usize,
    /// Servers crash, and disks fail.
    pub(crate) crashes: bool,
    /// Say what the servers have in the end.
    pub(crate) dump: bool,
    /// Disks lie about what they have synced.
    pub(crate) lying: bool,
    /// A server panics while it answers another.
    pub(crate) panics: bool,
}

pub(crate) const SETTINGS: &str = r#"
[registration]
mode = "open"
[limits]
enabled = false
[federation]
verify_tls = false
notaries = []
"#;

const NAMES: [&str; 4] = ["alpha", "beta", "gamma", "delta"];

/// Plays a run. What was wrong in it; an empty list is what is hoped for.
pub(crate) async fn play(plan: &Plan, dir: &Path) -> Vec<String> {
    let mut chance = StdRng::seed_from_u64(plan.seed);
    let count = plan.servers.unwrap_or_else(|| chance.random_range(1..=3)).clamp(1, NAMES.len());
    let net = Net::new(chance.next_u64());
    let hosts: Vec<Arc<Host>> = (0..count)
        .map(|index| {
            let (dir, skew) = (dir.join(NAMES[index]), chance.random_range(-1500..1500));
            Host::new(index, NAMES[index], &net, dir, chance.next_u64(), skew)
        })
        .collect();
    let world = World::new(chance.next_u64(), net, hosts);
    let run = timeout(LONGEST, run(plan, &world, &mut chance)).await;
    match run {
        Ok(Ok(())) => {}
        Ok(Err(cause)) => world.wrong(cause),
        Err(_) => world.wrong("it never ends".to_owned()),
    }
    if plan.dump {
        dump(&world);
    }
    world.all_wrong()
}

fn dump(world: &World) {
    for host in &world.hosts {
        match Kept::read(host) {
            Ok(kept) => eprintln!("{}\n{kept}", host.name),
            Err(cause) => eprintln!("{}: {cause}", host.name),
        }
    }
}

async fn run(plan: &Plan, world: &Arc<World>, chance: &mut StdRng) -> Result<(), String> {
    for host in &world.hosts {
        host.prepare(SETTINGS)?;
        host.start().await?;
    }
    let mut people = Vec::new();
    for host in &world.hosts {
        for number in 0..chance.random_range(1..=3) {
            people.push(person(world, host, number, chance).await?);
        }
    }
    *world.people.lock() = Arc::new(people);

    let mut readers = JoinSet::new();
    let people = world.people();
    for person in people.iter() {
        for (device_id, token) in &person.devices {
            let who = format!("{} {device_id}", person.user_id);
            let client = Client::new(world, &person.host, who, Some(token.clone()));
            let device = Device::new(world, client, person.user_id.clone(), device_id.clone());
            readers.spawn(device.run());
        }
    }
    // While nothing goes wrong yet: some rooms that most are in.
    let mut actors: Vec<Actor> = (0..people.len()).map(|me| Actor::new(world, me)).collect();
    for _ in 0..chance.random_range(1..=3) {
        let index = chance.random_range(0..actors.len());
        actors[index].create().await;
    }
    let rooms = world.plot.lock().rooms.clone();
    for actor in &mut actors {
        for room in &rooms {
            actor.join_this(room).await;
        }
    }

    world.set_trouble([0, 20, 80].choose(chance).copied().unwrap_or(0));
    if plan.lying {
        for host in &world.hosts {
            host.disk.set(Faults { lying: true, ..Faults::default() });
        }
    }
    if plan.panics {
        world.net.plant_panic();
    }
    let mut trouble = JoinSet::new();
    if world.hosts.len() > 1 {
        trouble.spawn(break_network(Arc::clone(world), StdRng::seed_from_u64(chance.next_u64())));
    }
    if plan.crashes {
        for host in &world.hosts {
            let chance = StdRng::seed_from_u64(chance.next_u64());
            trouble.spawn(break_host(Arc::clone(world), Arc::clone(host), plan.lying, chance));
        }
    }
    let mut acting = JoinSet::new();
    for actor in actors {
        acting.spawn(actor.run(plan.acts));
    }
    while let Some(done) = acting.join_next().await {
        done.map_err(|cause| format!("an actor: {cause}"))?;
    }
    note!("all is done");
    if plan.dump {
        dump(world);
    }
    for host in &world.hosts {
        note!("the disk of {}: {:?}", host.name, host.disk.counts());
    }
    trouble.shutdown().await;
    world.set_trouble(0);
    world.net.heal();
    for host in &world.hosts {
        host.set(None);
        host.slow(1);
        if !host.is_up() {
            revive(world, host).await;
        }
    }
    let mut judge = Judge::new(world);
    judge.settle().await;
    world.end();
    let mut devices = Vec::new();
    while let Some(done) = readers.join_next().await {
        devices.push(done.map_err(|cause| format!("a reader: {cause}"))?);
    }
    devices.sort_by(|one, other| (&one.user_id, &one.device_id).cmp(&(&other.user_id, &other.device_id)));
    for device in &mut devices {
        device.finish().await;
    }
    judge.judge(&mut devices).await;
    Ok(())
}

/// Somebody who registers, with one device that acts and one or two that read.
pub(crate) async fn person(
    world: &Arc<World>,
    host: &Arc<Host>,
    number: usize,
    chance: &mut StdRng,
) -> Result<Person, String> {
    let localpart = format!("{}{number}", ["ann", "bob", "cyn", "dan"][host.index]);
    let mut client = Client::new(world, host, localpart.clone(), None);
    let body = json!({
        "username": localpart, "password": "a good password", "device_id": "ACTOR",
        "auth": { "type": "m.login.dummy" },
    });
    let answer = client.ask("POST", "/v3/register", Some(&body)).await;
    let answer = answer.filter(Answer::is_ok).ok_or("nobody can register")?;
    let (user_id, token) = (answer.text("user_id"), answer.text("access_token"));
    let mut devices = Vec::new();
    for number in 0..chance.random_range(1..=2) {
        let device_id = format!("READER{number}");
        let body = json!({
            "type": "m.login.password", "password": "a good password", "device_id": device_id,
            "identifier": { "type": "m.id.user", "user": user_id },
        });
        let answer = client.ask("POST", "/v3/login", Some(&body)).await;
        let answer = answer.filter(Answer::is_ok).ok_or("nobody can log in")?;
        devices.push((device_id, answer.text("access_token")));
    }
    Ok(Person { user_id, host: Arc::clone(host), token, devices })
}

async fn break_network(world: Arc<World>, mut chance: StdRng) {
    let count = world.hosts.len();
    loop {
        let pause = chance.random_range(200..8000);
        sleep(Duration::from_millis(pause)).await;
        let from = chance.random_range(0..count);
        let to = (from + chance.random_range(1..count)) % count;
        let cut = Link { cut: true, ..Link::FINE };
        let bad = Link {
            cut: false,
            lossy: chance.random_range(0..300),
            doubled: chance.random_range(0..300),
            delay: [20, 500, 5000].choose(&mut chance).copied().unwrap_or(20),
        };
        match chance.random_range(0..6) {
            // One way.
            0 => world.net.set(from, to, cut),
            1 => {
                world.net.set(from, to, cut);
                world.net.set(to, from, cut);
            }
            // One is alone.
            2 => {
                for other in (0..count).filter(|other| *other != from) {
                    world.net.set(from, other, cut);
                    world.net.set(other, from, cut);
                }
            }
            3 => world.net.set(from, to, bad),
            4 => world.net.set(from, to, Link::FINE),
            _ => world.net.heal(),
        }
    }
}

async fn break_host(world: Arc<World>, host: Arc<Host>, lying: bool, mut chance: StdRng) {
    loop {
        let pause = chance.random_range(1000..40_000);
        sleep(Duration::from_millis(pause)).await;
        match chance.random_range(0..10) {
            0..5 => {
                let losses = [Loss::Nothing, Loss::Everything, Loss::Some, Loss::Some];
                let loss = losses.choose(&mut chance).copied().unwrap_or(Loss::Nothing);
                host.crash(loss);
                let pause = chance.random_range(0..15_000);
                sleep(Duration::from_millis(pause)).await;
                // Now and then another time, while it starts.
                if chance.random_range(0..5) == 0 {
                    let pause = chance.random_range(0..30);
                    let _ = timeout(Duration::from_millis(pause), host.start()).await;
                    host.crash(loss);
                }
                revive(&world, &host).await;
            }
            5 => {
                if let Err(cause) = host.stop().await {
                    world.wrong(cause);
                }
                revive(&world, &host).await;
            }
            6 => {
                let times = chance.random_range(2..60);
                host.slow(times);
            }
            7 => host.slow(1),
            _ if lying => {}
            _ => {
                let mut often = || if chance.random::<bool>() { 0 } else { chance.random_range(1..200) };
                let (sync, write) = (often(), often());
                let read = often() / 10;
                let (full, forgetful) = (chance.random_range(0..3) == 0, chance.random());
                host.set(Some(Faults { sync, write, read, full, forgetful, lying: false }));
                let pause = chance.random_range(0..15_000);
                sleep(Duration::from_millis(pause)).await;
                host.set(None);
            }
        }
    }
}

/// Starts a server again. It has to start from whatever a crash has left.
async fn revive(world: &Arc<World>, host: &Arc<Host>) {
    if let Err(cause) = host.start().await {
        world.wrong(format!("{} can't start: {cause}", host.name));
    }
}
