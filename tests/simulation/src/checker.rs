//! The judge. Once everything is healed and has been told to everybody, it holds what the servers have, and what their
//! clients were told, against each other and against what was acknowledged.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use tokio::time::sleep;

use crate::{
    client::{Answer, Client, encoded},
    device::{Device, Style, list, text},
    kept::{Kept, KeptEvent, KeptRoom, SHOWN},
    keys, receipts,
    trace::note,
    world::{Room, World},
};

/// How often servers may be spoken to until they agree.
const ROUNDS: u64 = 24;

/// Where each room is in use: by host, one of its people who is in there.
type Members = BTreeMap<String, BTreeMap<usize, usize>>;

pub(crate) struct Judge {
    world: Arc<World>,
    clients: Vec<Client>,
}

impl Judge {
    pub(crate) fn new(world: &Arc<World>) -> Self {
        let people = world.people();
        let client = |person: &crate::world::Person| {
            let who = format!("the judge as {}", person.user_id);
            Client::new(world, &person.host, who, Some(person.token.clone()))
        };
        Self { world: Arc::clone(world), clients: people.iter().map(client).collect() }
    }

    fn wrong(&self, what: String) {
        self.world.wrong(what);
    }

    async fn members(&mut self) -> Members {
        let people = self.world.people();
        let mut members = Members::new();
        for (index, client) in self.clients.iter_mut().enumerate() {
            let Some(answer) = client.get("/v3/joined_rooms").await else { continue };
            for room in list(&answer.json["joined_rooms"]) {
                members.entry(text(room)).or_default().insert(people[index].host.index, index);
            }
        }
        members
    }

    /// All servers speak to each other, and in all rooms, until they agree and everything has come.
    pub(crate) async fn settle(&mut self) {
        let mut differences = Vec::new();
        for round in 0..ROUNDS {
            self.greet().await;
            let members = self.members().await;
            let mut said = Vec::new();
            for (room, hosts) in &members {
                for member in hosts.values() {
                    let path = format!("/v3/rooms/{}/send/m.room.message/healed-{round}", encoded(room));
                    let body = json!({ "msgtype": "m.text", "body": format!("healed {round} {member}") });
                    let answer = self.clients[*member].ask("PUT", &path, Some(&body)).await;
                    note!(
                        "healed {round} in {room} by {member}: {:?}",
                        answer.as_ref().map(|answer| answer.status)
                    );
                    let event = answer.filter(Answer::is_ok).map(|answer| answer.text("event_id"));
                    said.extend(event.map(|event| (room, event)));
                }
            }
            sleep(Duration::from_secs(10 + round * round * 2)).await;
            let mut ghosts = Vec::new();
            differences = self.differences(&mut ghosts);
            differences.extend(self.unheard(&members, &said));
            if differences.is_empty() {
                note!("the servers agree after {} rounds", round + 1);
                return;
            }
            // Their own server was told to have them join, and never heard that they have. They try again.
            for (user, room) in ghosts {
                self.join(&user, &room).await;
            }
        }
        for difference in differences {
            self.wrong(difference);
        }
    }

    /// Somebody of each server looks at somebody of each other: so all know that all are there.
    async fn greet(&mut self) {
        let people = self.world.people();
        for from in 0..self.world.hosts.len() {
            for to in (0..self.world.hosts.len()).filter(|to| *to != from) {
                let of = |index: usize| people.iter().position(|person| person.host.index == index);
                let (Some(who), Some(whom)) = (of(from), of(to)) else { continue };
                let path = format!("/v3/profile/{}", encoded(&people[whom].user_id));
                self.clients[who].get(&path).await;
            }
        }
    }

    async fn join(&mut self, user: &str, room: &str) {
        let people = self.world.people();
        let Some(index) = people.iter().position(|person| person.user_id == user) else { return };
        let via: Vec<String> =
            self.world.hosts.iter().map(|host| format!("via={}", encoded(&host.name))).collect();
        let path = format!("/v3/join/{}?{}", encoded(room), via.join("&"));
        self.clients[index].ask("POST", &path, Some(&json!({}))).await;
    }

    /// What hasn't come yet of what was said last.
    fn unheard(&self, members: &Members, said: &[(&String, String)]) -> Vec<String> {
        let kept: Vec<_> = self.world.hosts.iter().map(|host| Kept::read(host).ok()).collect();
        let has = |host: usize, room: &String, event: &String| {
            kept[host]
                .as_ref()
                .and_then(|kept| kept.rooms.get(room))
                .is_some_and(|room| room.ids.contains_key(event))
        };
        let mut unheard = Vec::new();
        for (room, event) in said {
            let lack = members[*room].keys().filter(|host| !has(**host, room, event));
            unheard.extend(lack.map(|host| format!("server {host} hasn't heard {event} in {room}")));
        }
        unheard
    }

    /// On what the servers don't agree.
    fn differences(&self, ghosts: &mut Vec<(String, String)>) -> Vec<String> {
        let mut found = Vec::new();
        {
            let plot = self.world.plot.lock();
            let missing = plot.mail.iter().filter(|(.., body)| !plot.delivered.contains(body));
            found.extend(missing.map(|(user, device, from, body)| {
                format!("the message {body} of {from} never came to {user} {device}")
            }));
        }
        let kept = self.world.hosts.iter().map(|host| Kept::read(host)).collect::<Result<Vec<_>, _>>();
        let kept = match kept {
            Ok(kept) => kept,
            Err(cause) => return vec![format!("a database can't be read: {cause}")],
        };
        let rooms: BTreeSet<&String> = kept.iter().flat_map(|kept| kept.rooms.keys()).collect();
        for room_id in rooms {
            let inside: Vec<(usize, &KeptRoom)> = kept
                .iter()
                .enumerate()
                .filter_map(|(index, kept)| Some((index, kept.rooms.get(room_id)?)))
                .filter(|(index, room)| room.is_inside(&self.world.hosts[*index].name))
                .collect();
            for (one, room) in &inside {
                let name = &self.world.hosts[*one].name;
                // Who is in a room for one server is in it for their own.
                for (other, host) in self.world.hosts.iter().enumerate() {
                    let there = kept[other].rooms.get(room_id);
                    for user in room.joined_of(&host.name) {
                        if !there.is_some_and(|there| there.joined.contains(user)) {
                            let key = ("m.room.member".to_owned(), user.clone());
                            let out = there.and_then(|there| there.event(there.state.get(&key)?));
                            // Whoever has left doesn't hear who comes after that, and tells them nothing.
                            if out.map(|event| event.time) < room.came(name)
                                && there.is_some_and(|there| !there.is_inside(&host.name))
                            {
                                continue;
                            }
                            let known = room.state.get(&key).zip(there);
                            if !known.is_some_and(|(id, there)| there.ids.contains_key(id)) {
                                ghosts.push((user.clone(), room_id.clone()));
                            }
                            found.push(format!(
                                "{user} is in {room_id} for server {one}, but not for their own"
                            ));
                        }
                    }
                }
            }
            for pair in inside.windows(2) {
                let [(one, first), (other, second)] = pair else { continue };
                if first.state != second.state {
                    let keys: BTreeSet<_> = first.state.keys().chain(second.state.keys()).collect();
                    let differs =
                        keys.into_iter().filter(|key| first.state.get(*key) != second.state.get(*key));
                    let differs: Vec<_> =
                        differs.map(|key| (key, first.state.get(key), second.state.get(key))).collect();
                    found.push(format!(
                        "servers {one} and {other} have other states of {room_id}: {differs:?}"
                    ));
                }
            }
            for (one, room) in &inside {
                for (other, there) in &inside {
                    if one == other {
                        continue;
                    }
                    // What was before that, it fetches when somebody looks.
                    let since = there.whole_since(&self.world.hosts[*other].name);
                    // Where the other has it without a place, nothing is before or after it.
                    let since = since.and_then(|event| room.event(&event.id)).filter(|event| event.seq > 0);
                    let Some(since) = since else { continue };
                    let since = since.seq;
                    // An invite whose answer was lost is known to the invited server alone: its own has given it up.
                    let is_given_up = |event: &&KeptEvent| {
                        let own = self
                            .world
                            .hosts
                            .iter()
                            .position(|host| event.sender.ends_with(&format!(":{}", host.name)));
                        let own = own.and_then(|own| kept[own].rooms.get(room_id));
                        event.kind == "m.room.member"
                            && !own.is_some_and(|own| own.ids.contains_key(&event.id))
                    };
                    let missing = there.missing(room);
                    let lacks: Vec<&String> = room
                        .events
                        .iter()
                        .filter(|event| event.seq > since && event.verdict == SHOWN && !is_given_up(event))
                        .map(|event| &event.id)
                        .filter(|id| !there.ids.contains_key(*id) && !missing.contains(id.as_str()))
                        .collect();
                    if !lacks.is_empty() {
                        found.push(format!(
                            "server {other} lacks events of {room_id} that {one} has: {lacks:?}"
                        ));
                    }
                }
            }
        }
        found
    }

    /// Everything else.
    pub(crate) async fn judge(&mut self, devices: &mut [Device]) {
        // Whoever reads a log may have history fetched, so that comes first.
        let mut logs = Vec::new();
        for device in devices.iter_mut() {
            logs.push(self.logs(device).await);
        }
        let mut kept = Vec::new();
        for host in &self.world.hosts {
            match Kept::read(host) {
                Ok(found) => kept.push(found),
                Err(cause) => return self.wrong(format!("a database can't be read: {cause}")),
            }
        }
        for (host, kept) in self.world.hosts.iter().zip(&kept) {
            for problem in kept.problems() {
                self.wrong(format!("{}: {problem}", host.name));
            }
        }
        self.acknowledged(&kept);
        self.mail(devices);
        let people = self.world.people();
        keys::judge(&self.world, &people, &mut self.clients).await;
        for (device, logs) in devices.iter_mut().zip(logs) {
            self.device(device, &logs, &kept).await;
        }
    }

    /// The logs of all rooms that a device's user is in, as its user finds them.
    async fn logs(&self, device: &mut Device) -> BTreeMap<String, Vec<String>> {
        let mut logs = BTreeMap::new();
        let Some(answer) = device.client.get("/v3/joined_rooms").await else { return logs };
        for room in list(&answer.json["joined_rooms"]) {
            let (room, mut log, mut from) = (text(room), Vec::new(), String::new());
            // More pages than there can be.
            for _ in 0..1000 {
                let path = format!("/v3/rooms/{}/messages?dir=b&limit=50{from}", encoded(&room));
                let Some(page) = device.client.get(&path).await else { break };
                log.extend(list(&page.json["chunk"]).iter().map(|event| text(&event["event_id"])));
                match page.json["end"].as_str() {
                    Some(end) => from = format!("&from={end}"),
                    None => break,
                }
            }
            log.reverse();
            logs.insert(room, log);
        }
        logs
    }

    /// I1, I3, I9: what was acknowledged is there, once, and what was redacted isn't.
    fn acknowledged(&self, kept: &[Kept]) {
        let people = self.world.people();
        let plot = self.world.plot.lock();
        let mut bodies: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
        for sent in &plot.sent {
            let home = people[sent.by].host.index;
            let event = kept[home].rooms.get(&sent.room).and_then(|room| room.event(&sent.event));
            match event {
                None => {
                    self.wrong(format!("I1: {} was acknowledged by server {home} and is lost", sent.event));
                }
                Some(event) if event.verdict != SHOWN => {
                    self.wrong(format!("I1: {} was acknowledged, and isn't shown", sent.event));
                }
                Some(_) => {}
            }
            if let Some(body) = &sent.body {
                bodies.entry((&sent.room, body)).or_default().insert(&sent.event);
            }
        }
        for ((room, body), events) in bodies {
            if events.len() > 1 {
                self.wrong(format!("I3: {body} in {room} is several events: {events:?}"));
            }
        }
        for (index, kept) in kept.iter().enumerate() {
            for (room_id, room) in &kept.rooms {
                let mut bodies: BTreeMap<&str, &str> = BTreeMap::new();
                for event in room.events.iter().filter(|event| event.verdict == SHOWN) {
                    let Some(body) = event.body.as_deref().filter(|body| !body.starts_with("healed")) else {
                        continue;
                    };
                    if let Some(twin) = bodies.insert(body, &event.id) {
                        self.wrong(format!(
                            "I3: {body} is twice in {room_id} on server {index}: {twin} {}",
                            event.id
                        ));
                    }
                }
            }
        }
        for (room, target, redaction) in &plot.redacted {
            for (index, kept) in kept.iter().enumerate() {
                let Some(room) = kept.rooms.get(room) else { continue };
                // Whoever wasn't there may have been given it without what it redacts.
                let accepted = room
                    .event(redaction)
                    .is_some_and(|event| event.verdict == SHOWN && event.redacts.is_some());
                if let Some(event) = room.event(target).filter(|event| accepted && event.verdict == SHOWN)
                    && event.body.is_some()
                {
                    self.wrong(format!("I9: {target} was redacted, and server {index} has its content"));
                }
            }
        }
    }

    /// What one device was told in all.
    async fn device(&mut self, device: &mut Device, logs: &BTreeMap<String, Vec<String>>, kept: &[Kept]) {
        let who = format!("{} {}", device.user_id, device.device_id);
        let index = device.client.host.index;
        let joined: BTreeSet<String> = logs.keys().cloned().collect();
        let known = device.rooms.iter().filter(|(_, view)| view.joined).map(|(room, _)| room.clone());
        let known: BTreeSet<String> = known.collect();
        if known != joined {
            self.wrong(format!("{who} knows of rooms {known:?} and is in {joined:?}"));
        }
        // Those that its user has left among them.
        if device.listed.is_some_and(|count| count != device.told.len() as u64) {
            let (listed, told) = (device.listed, &device.told);
            self.wrong(format!("the list of {who} has {listed:?} rooms, and it was told of {told:?}"));
        }
        for room in known.intersection(&joined) {
            self.room(device, room, &logs[room], &kept[index]).await;
        }
        self.seen(device, &kept[index]);
        let plot = self.world.plot.lock();
        for ((_, kind), value) in plot
            .account_data
            .range((device.user_id.clone(), String::new())..)
            .take_while(|((user, _), _)| *user == device.user_id)
        {
            let has = device.account_data.get(kind).map(|content| text(&content["value"]));
            if has.as_ref() != Some(value) {
                self.world.wrong(format!("{who} has {has:?} as {kind}, and not {value}"));
            }
        }
    }

    /// I4, I5, and the state.
    async fn room(&self, device: &mut Device, room: &str, log: &[String], kept: &Kept) {
        let who = format!("{} {} in {room}", device.user_id, device.device_id);
        let path = format!("/v3/rooms/{}/state", encoded(room));
        let Some(answer) = device.client.get(&path).await else { return };
        let mut state = BTreeMap::new();
        for event in list(&answer.json) {
            state.insert((text(&event["type"]), text(&event["state_key"])), text(&event["event_id"]));
        }
        let Some(stored) = kept.rooms.get(room) else {
            return self.wrong(format!("{who}: the server doesn't have it"));
        };
        let view = &device.rooms[room];
        let keys: BTreeSet<_> = view.state.keys().chain(state.keys()).collect();
        let differs = keys.into_iter().filter(|key| view.state.get(*key) != state.get(*key));
        // What a timeline says last needn't be the state where branches were joined: `state_after` is for that.
        // Nor can `/sync` say, in whichever form, that there is nothing under a key any more: only an event could.
        let differs = differs.filter(|key| match device.style {
            Style::Plain => stored.last.get(*key) == state.get(*key),
            Style::After | Style::Sliding | Style::Stream => {
                state.contains_key(*key) || view.state.get(*key).is_none_or(|id| stored.event(id).is_none())
            }
        });
        let differs: Vec<_> = differs.map(|key| (key, view.state.get(key), state.get(key))).collect();
        if !differs.is_empty() {
            self.wrong(format!(
                "the state as known by {who} ({:?}), and as it is: {differs:?}",
                device.style
            ));
        }
        let unique: BTreeSet<&String> = log.iter().collect();
        if unique.len() != log.len() {
            self.wrong(format!("I4: {who}: an event is twice in the log"));
        }
        for id in log {
            if stored.event(id).is_none_or(|event| event.verdict != SHOWN) {
                self.wrong(format!("I9: {who} is shown {id}, which isn't accepted"));
            }
        }
        let view = &device.rooms[room];
        let seen: BTreeSet<&String> = view.log.iter().collect();
        if seen.len() != view.log.len() {
            let mut again = BTreeSet::new();
            let again: Vec<_> = view.log.iter().filter(|id| !again.insert(*id)).collect();
            self.wrong(format!("I4: {who} was shown events twice: {again:?}"));
        }
        let lost: Vec<&String> = seen.difference(&unique).copied().collect();
        if !lost.is_empty() {
            self.wrong(format!("I4: {who} was shown what is not in the log: {lost:?}"));
        }
        let order: Vec<&String> = log.iter().filter(|id| seen.contains(id)).collect();
        if lost.is_empty() && seen.len() == view.log.len() && !order.into_iter().eq(&view.log) {
            self.wrong(format!("I4: {who} was shown another order\nsaw {:?}\nof  {log:?}", view.log));
        }
        // From the first event on that it was shown, it was shown all; but for those that came to a place before others.
        let after = log.iter().skip_while(|id| Some(*id) != view.log.first());
        let skipped =
            after.filter(|id| !seen.contains(id) && stored.event(id).is_some_and(|event| !event.late));
        let skipped: Vec<_> = skipped.collect();
        receipts::judge(&self.world, device, room, stored);
        if !skipped.is_empty() {
            self.wrong(format!("I5: {who} was not shown {skipped:?}\nsaw {:?}\nof  {log:?}", view.log));
        }
    }

    /// I10: whatever it was shown of a room, it might see by what the server has of the room.
    fn seen(&self, device: &Device, kept: &Kept) {
        let plot = self.world.plot.lock();
        let rooms: BTreeMap<&str, &Room> = plot.rooms.iter().map(|room| (&*room.room_id, room)).collect();
        for (room_id, id) in &device.seen {
            let Some(room) = rooms.get(&**room_id) else { continue };
            let Some(stored) = kept.rooms.get(room_id) else { continue };
            let Some(event) = stored.event(id) else {
                self.wrong(format!("I10: {} was shown {id}, which isn't there", device.user_id));
                continue;
            };
            if !stored.shows(&device.user_id, event, room.visibility) {
                self.wrong(format!(
                    "I10: {} was shown {id}, {} of {room_id}, a room with history for {}",
                    device.user_id, event.kind, room.visibility
                ));
            }
        }
    }

    /// Messages to devices: each that was acknowledged comes once, and those of one sender in their order.
    fn mail(&self, devices: &[Device]) {
        let plot = self.world.plot.lock();
        for device in devices {
            let who = format!("{} {}", device.user_id, device.device_id);
            let mut times: BTreeMap<&str, usize> = BTreeMap::new();
            for body in &device.mail {
                *times.entry(body).or_default() += 1;
            }
            for (body, count) in &times {
                if *count > 1 {
                    self.wrong(format!("{who} has the message {body} {count} times"));
                }
            }
            let due =
                plot.mail.iter().filter(|(user, id, ..)| *user == device.user_id && *id == device.device_id);
            let mut places: BTreeMap<&str, usize> = BTreeMap::new();
            for (_, _, from, body) in due {
                match device.mail.iter().position(|has| has == body) {
                    None => self.wrong(format!("{who} never got the message {body} of {from}")),
                    Some(place) => {
                        let last = places.insert(from, place);
                        if last.is_some_and(|last| last > place) {
                            self.wrong(format!(
                                "{who} got the message {body} of {from} before an earlier one"
                            ));
                        }
                    }
                }
            }
        }
    }
}
