//! How far people have read: what others hear of it, and what is unread then.

use std::collections::BTreeSet;

use crate::{
    device::{Device, Style},
    kept::{KeptEvent, KeptRoom, SHOWN},
    world::World,
};

pub(crate) const PUBLIC: &str = "m.read";
pub(crate) const PRIVATE: &str = "m.read.private";

/// Somebody said that they have read up to an event.
pub(crate) struct Mark {
    pub(crate) user: String,
    pub(crate) room: String,
    pub(crate) event: String,
    pub(crate) kind: &'static str,
    pub(crate) acknowledged: bool,
}

/// What a device was told of who has read how far in a room, and of what its user hasn't.
pub(crate) fn judge(world: &World, device: &Device, room: &str, stored: &KeptRoom) {
    let who = format!("{} {} in {room}", device.user_id, device.device_id);
    let view = &device.rooms[room];
    let plot = world.plot.lock();
    for ((user, kind), event) in &view.receipts {
        if kind == PRIVATE && *user != device.user_id {
            world.wrong(format!("I10: {who} is told of a private receipt of {user}"));
        }
        let of = |mark: &&Mark| mark.room == room && mark.user == *user && mark.kind == kind;
        if !plot.marks.iter().filter(of).any(|mark| mark.event == *event) {
            world.wrong(format!("{who} is told that {user} has read {event} ({kind}), which nobody said"));
        }
    }
    let place = |event: &str| stored.event(event).map_or(0, |event| event.seq);
    let told = |user: &str, kind: &str| {
        view.receipts.get(&(user.to_owned(), kind.to_owned())).map_or(0, |event| place(event))
    };
    // Those of the same server, who stand in the same log. By sliding sync a device has its user's own for sure.
    let server = |user: &str| user.split_once(':').map(|(_, server)| server.to_owned());
    let near = |user: &str| {
        user == device.user_id
            || (device.style != Style::Sliding
                && server(user) == server(&device.user_id)
                && stored.joined.contains(user))
    };
    for mark in plot.marks.iter().filter(|mark| mark.acknowledged && mark.room == room && near(&mark.user)) {
        let known = mark.kind == PUBLIC || mark.user == device.user_id;
        if known && told(&mark.user, mark.kind) < place(&mark.event) {
            world.wrong(format!(
                "{who} isn't told that {} has read {} ({})",
                mark.user, mark.event, mark.kind
            ));
        }
    }
    // Who says something has read what was said before.
    let own = |event: &&KeptEvent| event.kind == "m.room.message" && event.sender == device.user_id;
    let said = stored.events.iter().filter(own).map(|event| event.seq).max().unwrap_or_default();
    let read = told(&device.user_id, PUBLIC).max(told(&device.user_id, PRIVATE)).max(said);
    let Some(since) = stored.joined_since(&device.user_id) else { return };
    // One that came with nothing in it was said all the same; one that was redacted here is no more.
    let shown = || stored.events.iter().filter(|event| event.verdict == SHOWN);
    let redacted: BTreeSet<&str> = shown().filter_map(|event| event.redacts.as_deref()).collect();
    let unread = shown().filter(|event| {
        event.seq > read.max(since)
            && event.kind == "m.room.message"
            && !redacted.contains(&*event.id)
            && event.sender != device.user_id
    });
    let unread = unread.count() as u64;
    if view.unread != unread {
        world.wrong(format!("{who} is told of {} unread messages, and has {unread}", view.unread));
    }
}
