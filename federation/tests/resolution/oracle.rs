//! The same by other means: ruma's resolution of version 2 and 2.1, fed with sets that are computed here from their
//! definitions, and version 1 word for word.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use hearth_federation::{StateMap, rules};
use ruma::{
    OwnedEventId,
    events::StateEventType,
    room_version_rules::StateResolutionVersion,
    state_res::{check_state_dependent_auth_rules, utils::event_id_set::EventIdSet},
};
use sha1::{Digest, Sha1};

use crate::dag::{Dag, TestEvent};

pub(crate) fn resolve(dag: &Dag, states: &[StateMap]) -> StateMap {
    match rules(&dag.version).unwrap().state_res {
        StateResolutionVersion::V2(_) => by_ruma(dag, states),
        _ => by_version_1(dag, states),
    }
}

/// "The set containing all of E's auth events, all of their auth events, and so on recursively."
fn auth_chain(dag: &Dag, id: &OwnedEventId, chain: &mut BTreeSet<OwnedEventId>) {
    for cited in &dag.events[id].auth_events {
        if chain.insert(cited.clone()) {
            auth_chain(dag, cited, chain);
        }
    }
}

fn chain_of(dag: &Dag, id: &OwnedEventId) -> BTreeSet<OwnedEventId> {
    let mut chain = BTreeSet::new();
    auth_chain(dag, id, &mut chain);
    chain
}

fn by_ruma(dag: &Dag, states: &[StateMap]) -> StateMap {
    let rules = rules(&dag.version).unwrap();
    let maps: Vec<HashMap<_, _>> = states.iter().map(|state| state.clone().into_iter().collect()).collect();
    let chains = states
        .iter()
        .map(|state| {
            // With the state's events themselves.
            let mut chain: BTreeSet<_> = state.values().cloned().collect();
            for id in state.values() {
                auth_chain(dag, id, &mut chain);
            }
            chain.into_iter().collect::<EventIdSet<_>>()
        })
        .collect();
    let resolved = ruma::state_res::resolve(
        &rules.authorization,
        rules.state_res.v2_rules().unwrap(),
        &maps,
        chains,
        |id| dag.find(id),
        |conflicted| {
            // All events on a way from one conflicted event to another.
            let conflicted: BTreeSet<_> = conflicted.values().flatten().cloned().collect();
            let below: BTreeSet<_> = conflicted.iter().flat_map(|id| chain_of(dag, id)).collect();
            let between = |id: &OwnedEventId| chain_of(dag, id).intersection(&conflicted).next().is_some();
            Some(conflicted.iter().cloned().chain(below.into_iter().filter(between)).collect())
        },
    );
    resolved.unwrap().into_iter().collect()
}

/// "State resolution" of version 1, sentence by sentence.
fn by_version_1(dag: &Dag, states: &[StateMap]) -> StateMap {
    let rules = rules(&dag.version).unwrap().authorization;
    let mut ids: BTreeMap<(StateEventType, String), BTreeSet<OwnedEventId>> = BTreeMap::new();
    for (key, id) in states.iter().flatten() {
        ids.entry(key.clone()).or_default().insert(id.clone());
    }
    // "Start by setting R to the union of the states to be resolved, excluding any conflicting events."
    let mut r: StateMap = ids
        .iter()
        .filter(|(_, ids)| ids.len() == 1)
        .map(|(key, ids)| (key.clone(), ids.first().unwrap().clone()))
        .collect();
    ids.retain(|_, ids| ids.len() > 1);

    let allowed = |event: &TestEvent, r: &StateMap| {
        check_state_dependent_auth_rules(&rules, event, |kind, state_key| {
            dag.find(r.get(&(kind.clone(), state_key.to_owned()))?)
        })
        .is_ok()
    };
    let sorted = |ids: &BTreeSet<OwnedEventId>| {
        // "Sort the list by ascending depth then descending sha1(event_id)."
        let mut list: Vec<_> = ids.iter().map(|id| dag.events[id].clone()).collect();
        list.sort_by_key(|event| (event.depth, Reverse(Sha1::digest(event.id.as_bytes()).to_vec())));
        list
    };
    for kind in ["m.room.power_levels", "m.room.join_rules", "m.room.member"] {
        let before = r.clone();
        for (key, ids) in ids.iter().filter(|(key, _)| key.0.to_string() == kind) {
            let mut r_of_key = before.clone();
            for (nth, event) in sorted(ids).into_iter().enumerate() {
                if nth > 0 && !allowed(&event, &r_of_key) {
                    break;
                }
                r_of_key.insert(key.clone(), event.id.clone());
            }
            r.insert(key.clone(), r_of_key[key].clone());
        }
        ids.retain(|key, _| key.0.to_string() != kind);
    }
    let before = r.clone();
    for (key, ids) in ids {
        let list = sorted(&ids);
        // "Pick the event with the highest depth and lowest sha1(event_id) that passes authentication in R."
        let picked = list.iter().rev().find(|event| allowed(event, &before)).unwrap_or(&list[0]);
        r.insert(key, picked.id.clone());
    }
    r
}
