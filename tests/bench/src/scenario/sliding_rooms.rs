//! `sliding-rooms`: what sliding sync costs a member of few rooms and a member of many.
//!
//! For each number of rooms: the first answer with a window of twenty, from a server that was just started and from one
//! that knows the user; then the window grows over all rooms, and answers bring one message, each chained from the last.
//! Their CPU is taken from asking again by the same `pos`, as a client does that lost the answer.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Bench, mebibytes,
    sync_rooms::{SETTLING, Settings, TALKED_IN, make_rooms},
};
use crate::client::Session;
use crate::content;
use crate::latency::Latencies;
use crate::report::Better;

const NAME: &str = "sliding-rooms";
const FIRST_ANSWERS: usize = 5;

/// Rooms by which the window grows, as that of matrix-sdk-ui does.
const STEP: usize = 100;

#[derive(Deserialize)]
struct Answer {
    pos: String,
    #[serde(default)]
    rooms: serde_json::Map<String, Value>,
}

/// What a client such as Element X asks for, with a window of that many rooms.
fn wishes(rooms: usize) -> Value {
    let state = [
        ["m.room.name", ""],
        ["m.room.encryption", ""],
        ["m.room.member", "$LAZY"],
        ["m.room.member", "$ME"],
        ["m.room.topic", ""],
        ["m.room.canonical_alias", ""],
        ["m.room.power_levels", ""],
        ["m.room.create", ""],
    ];
    json!({
        "conn_id": "room-list",
        "lists": { "all_rooms": {
            "ranges": [[0, rooms - 1]], "timeline_limit": 1, "required_state": state,
            "filters": { "not_room_types": ["m.space"] },
        } },
        "extensions": {
            "account_data": { "enabled": true },
            "receipts": { "enabled": true, "rooms": ["*"] },
            "typing": { "enabled": true },
        },
    })
}

async fn ask(session: &mut Session, pos: Option<&str>, window: usize) -> Result<(Answer, usize)> {
    let body = session.sliding_raw(pos, &wishes(window)).await?;
    Ok((serde_json::from_slice(body).context("an answer of sliding sync that is not one")?, body.len()))
}

pub(crate) async fn run(bench: &mut Bench, settings: &Settings) -> Result<()> {
    bench.size(NAME, format!("{} rooms", settings.sizes()));
    let mut all = Vec::new();
    for (index, count) in settings.counts.iter().enumerate() {
        all.push(member_of(bench, *count, settings.duration, 3_000_000 + index as u64).await?);
    }
    if let ([(few_p50, few_cpu), .., (many_p50, many_cpu)], [few, .., many]) = (&*all, &*settings.counts) {
        for (what, many_costs, few_costs) in
            [("one-message answer p50", many_p50, few_p50), ("one-message answer CPU", many_cpu, few_cpu)]
        {
            let ratio =
                many_costs.zip(*few_costs).map(|(many, few)| many / few).filter(|ratio| ratio.is_finite());
            bench.report.add(NAME, format!("{what}, {many} rooms to {few}"), "×", Better::Lower, ratio);
        }
    }
    bench.add_memory(NAME);
    Ok(())
}

/// The median and the CPU of an answer with one message.
async fn member_of(
    bench: &mut Bench,
    count: usize,
    duration: Duration,
    seed: u64,
) -> Result<(Option<f64>, Option<f64>)> {
    let address = bench.address();
    let mut users = bench.users(2).await?;
    let (talker, member) = users.pop().zip(users.pop()).context("two users were made")?;
    let rooms = make_rooms(bench, &member, &talker, count).await?;
    let mut cold = None;
    if bench.server.can_restart() {
        bench.server.restart().await?;
        let mut session = Session::new(address, member.clone());
        // The connection and the session are known then, the rooms aren't.
        session.who_am_i().await?;
        let began = Instant::now();
        ask(&mut session, None, 20).await?;
        cold = Some(began.elapsed().as_secs_f64() * 1000.0);
    }
    let mut talker = Session::new(address, talker);
    let mut session = Session::new(address, member);
    let (mut first, mut size, mut pos) = (Latencies::default(), 0, String::new());
    for _ in 0..FIRST_ANSWERS {
        let began = Instant::now();
        let (answer, bytes) = ask(&mut session, None, 20).await?;
        first.record(began.elapsed());
        ensure!(answer.rooms.len() == count.min(20), "the first window has {} rooms", answer.rooms.len());
        (pos, size) = (answer.pos, bytes);
    }
    let mut window = 20;
    let mut growth = Latencies::default();
    while window < count {
        window = count.min(window + STEP);
        let began = Instant::now();
        pos = ask(&mut session, Some(&pos), window).await?.0.pos;
        growth.record(began.elapsed());
    }
    pos = ask(&mut session, Some(&pos), window).await?.0.pos;
    tokio::time::sleep(SETTLING).await;

    let (mut message, mut sent, mut before_last) = (Latencies::default(), 0, pos.clone());
    let end = Instant::now() + duration;
    while Instant::now() < end {
        let room = &rooms[sent % rooms.len().min(TALKED_IN)];
        talker.send(room, &content::message(seed, sent)).await?;
        sent += 1;
        before_last.clone_from(&pos);
        let began = Instant::now();
        let (answer, _) = ask(&mut session, Some(&pos), window).await?;
        message.record(began.elapsed());
        ensure!(answer.rooms.contains_key(&**room), "a message was not in the next answer");
        pos = answer.pos;
    }
    tokio::time::sleep(SETTLING).await;
    let (spent, end, mut repeats) = (bench.window(), Instant::now() + duration, 0);
    while Instant::now() < end {
        ask(&mut session, Some(&before_last), window).await?;
        repeats += 1;
    }
    let cpu = spent.close(&bench.servers()).server_each(repeats);
    let mut add = |what: &str, unit: &str, value: Option<f64>| {
        bench.report.add(NAME, format!("{what}, {count} rooms"), unit, Better::Lower, value);
    };
    add("first answer after a start", "ms", cold);
    add("first answer (median of 5)", "ms", first.percentile(50));
    add("first answer's size", "MiB", Some(mebibytes(size as u64)));
    add("a hundred rooms more (median)", "ms", growth.percentile(50));
    add("one-message answer p50", "ms", message.percentile(50));
    add("one-message answer p99", "ms", message.percentile(99));
    add("one-message answer CPU", "ms/answer", cpu);
    Ok((message.percentile(50), cpu))
}
