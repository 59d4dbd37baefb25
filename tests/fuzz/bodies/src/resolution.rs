//! State resolution of small rooms, held against the oracle of the protocol's own tests: ruma's `state-res` for versions 2 to
//! 12, the specification's sentences for version 1.
//!
//! The input is a list of choices: the room's version, and what people do in it, and after what.

use std::collections::BTreeSet;

use arbitrary::{Result, Unstructured};
use hearth_federation::{StateMap, resolve};
use ruma::{OwnedEventId, RoomVersionId};
use serde_json::{Value, json};

use crate::{
    dag::{ALICE, BOB, CAROL, DAVE, Dag, Verdict},
    oracle,
};

const USERS: [&str; 5] = [ALICE, BOB, CAROL, DAVE, "@erin:a"];
/// Events beside those of the beginning.
const MOST: usize = 40;

pub(crate) fn run(data: &[u8]) {
    let mut choices = Unstructured::new(data);
    let Ok(number) = choices.int_in_range(1..=12_u8) else { return };
    let version = RoomVersionId::try_from(number.to_string()).expect("there is such a version");
    let rule = if choices.ratio(1, 2).unwrap_or_default() { "public" } else { "invite" };
    let mut dag = Dag::new(version, rule);
    // Whoever runs out of bytes does nothing more.
    let _ = grow(&mut dag, &mut choices);
    let followed: BTreeSet<&OwnedEventId> =
        dag.events.values().flat_map(|event| &event.prev_events).collect();
    let mut ends: Vec<StateMap> = dag
        .events
        .keys()
        .filter(|id| !followed.contains(id))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .map(|id| dag.states_after[id].clone())
        .collect();
    agree(&dag, &ends);
    ends.reverse();
    agree(&dag, &ends);
    // Others of its states together are more often at odds.
    let mut all: Vec<_> = dag.states_after.iter().collect();
    all.sort();
    for nth in 0..all.len().min(6) {
        let pair = [all[nth].1.clone(), all[all.len() - 1 - nth].1.clone()];
        agree(&dag, &pair);
    }
}

fn agree(dag: &Dag, states: &[StateMap]) {
    let ours = resolve(&dag.version, states, |id| dag.find(id)).expect("the room is small");
    if states.is_empty() {
        return;
    }
    assert_eq!(ours, oracle::resolve(dag, states), "version {} of {:#?}", dag.version, dag.events);
    let twice = [states, states].concat();
    assert_eq!(ours, resolve(&dag.version, &twice, |id| dag.find(id)).expect("the room is small"));
}

fn grow(dag: &mut Dag, choices: &mut Unstructured<'_>) -> Result<()> {
    let mut names = vec!["rule".to_owned()];
    for nth in 0..MOST {
        // The name decides where all else is alike.
        let name = format!("e{}x{nth}", choices.int_in_range(0..=99_u8)?);
        let count = choices.int_in_range(1..=3_usize)?.min(names.len());
        let mut followed = BTreeSet::new();
        for _ in 0..count {
            // Mostly one of the last.
            let back = choices.int_in_range(0..=7_usize)?.min(names.len() - 1);
            followed.insert(names[names.len() - 1 - back].clone());
        }
        let refs: Vec<&str> = followed.iter().map(String::as_str).collect();
        let power_levels = dag.content_in(&dag.resolved(&refs), "m.room.power_levels");
        let (sender, kind, state_key, content) = action(power_levels, choices)?;
        let mut event = dag.event(&name, sender, kind, Some(&state_key), &content);
        event.timestamp = choices.int_in_range(0..=15_u8)?.into();
        dag.place(&mut event, &refs);
        // Where a room has lost its join rules, members may join again as Synapse has it; ruma lets nobody.
        let cites_rules =
            event.auth_events.iter().any(|id| dag.events[id].kind == "m.room.join_rules".into());
        if content["membership"] == "join" && !cites_rules {
            continue;
        }
        match dag.judge(&event) {
            Verdict::Allowed => names.push(name),
            Verdict::ByState(_) => event.rejected = true,
            Verdict::ByAuthEvents(_) => continue,
        }
        dag.adopt(event);
        if choices.is_empty() {
            break;
        }
    }
    Ok(())
}

/// Something that somebody may try; `power_levels` is what they are where it happens.
fn action(
    mut power_levels: Value,
    choices: &mut Unstructured<'_>,
) -> Result<(&'static str, &'static str, String, Value)> {
    let sender = *choices.choose(&USERS)?;
    let target = *choices.choose(&USERS)?;
    let member = |target: &str, membership: &str| {
        (sender, "m.room.member", target.to_owned(), json!({ "membership": membership }))
    };
    Ok(match choices.int_in_range(0..=17)? {
        0..=2 => member(sender, "join"),
        3 => member(sender, "leave"),
        4 => member(target, "leave"),
        5 => member(target, "ban"),
        6 => member(target, "invite"),
        7 => member(sender, "knock"),
        8 | 9 => {
            let rules = ["public", "public", "invite", "knock", "restricted", "knock_restricted", "own"];
            let rule = *choices.choose(&rules)?;
            (sender, "m.room.join_rules", String::new(), json!({ "join_rule": rule }))
        }
        10..=12 => {
            let user = *choices.choose(&[BOB, CAROL, DAVE])?;
            power_levels["users"][user] = json!(*choices.choose(&[0, 40, 50, 60, 100])?);
            power_levels["state_default"] = json!(*choices.choose(&[0, 50])?);
            (sender, "m.room.power_levels", String::new(), power_levels)
        }
        13 => (sender, "own", sender.to_owned(), json!({})),
        14 => {
            let mut content = json!({ "membership": "join" });
            content["join_authorised_via_users_server"] = json!(target);
            (sender, "m.room.member", sender.to_owned(), content)
        }
        15 => (sender, "m.room.third_party_invite", "token".to_owned(), json!({})),
        _ => (sender, "m.room.topic", String::new(), json!({ "topic": choices.int_in_range(0..=9_u8)? })),
    })
}
