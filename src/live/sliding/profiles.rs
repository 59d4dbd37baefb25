//! Profiles (MSC4262): those of the people in a room once with the room, of whoever is shown in it later with that, and
//! every change of somebody who shares a room with the user. Of people of other servers it says nothing: their profiles
//! are theirs to ask for.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use super::{
    body::RoomBody,
    connection::{Draft, Sent, told},
    extensions::Extending,
    request::Fields,
};
use crate::{live::syncs::Error, store::profile::ProfileRow};

/// Bytes of profiles with which an answer has enough. The rooms beyond come with the next one.
const ENOUGH: usize = 512 * 1024;

/// What changed of a profile.
#[derive(Default, Serialize)]
struct Changed {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    updated: BTreeMap<String, Box<RawValue>>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    removed: BTreeSet<String>,
}

/// By user; `None`: they share no room with the user any more.
#[derive(Default)]
struct Users {
    changed: BTreeMap<String, Option<Changed>>,
    bytes: usize,
}

impl Users {
    fn add(&mut self, rows: Vec<ProfileRow>, fields: &Fields) -> Result<(), Error> {
        for row in rows.into_iter().filter(|row| fields.has(&row.field)) {
            let changed = self.changed.entry(row.user_id).or_default().get_or_insert_default();
            match row.value {
                Some(value) => {
                    self.bytes += row.field.len() + value.len();
                    changed.removed.remove(&row.field);
                    changed.updated.insert(row.field, RawValue::from_string(value)?);
                }
                None => drop(changed.removed.insert(row.field)),
            }
        }
        Ok(())
    }
}

impl Extending<'_> {
    pub(super) async fn profiles(&self, draft: &mut Draft) -> Result<Option<Value>, Error> {
        let Some(wish) = &self.wishes.profiles else {
            draft.rest.profiles = None;
            return Ok(None);
        };
        let had = draft.rest.profiles.replace(wish.fields.clone());
        if !had.is_some_and(|had| had.cover(&wish.fields)) {
            self.forget_profiles(draft);
        }
        let (lacking, _) = self.divide(draft, Some(&wish.scope), told::PROFILES, |_| false);
        let lacking: HashSet<i64> = lacking.iter().map(|chosen| chosen.room).collect();
        let (store, mut users) = (&self.syncs.store, Users::default());
        if !self.changes.profiles.is_empty() {
            users.add(store.profiles_changed(&self.changes.profiles).await?, &wish.fields)?;
        }
        let mut asked = HashSet::new();
        for chosen in self.chosen {
            let Some(sent) = self.sent(draft, chosen.room).filter(|sent| sent.told & told::PROFILES != 0)
            else {
                continue;
            };
            let (all, body) = (lacking.contains(&chosen.room), self.rooms.get(&chosen.room_id));
            if !sent.joined || (!all && body.is_none()) {
                continue;
            }
            if users.bytes >= ENOUGH {
                let sent = Sent { told: sent.told & !told::PROFILES, ..sent.clone() };
                draft.rooms.insert(chosen.room, sent);
                // So that all rooms are looked at again.
                draft.rest.settled = None;
                continue;
            }
            let shown = body.map(shown).unwrap_or_default();
            let all = all && (body.is_none() || !chosen.config.lazy_members());
            let room = self.syncs.rooms.by_number(chosen.room).await?;
            let people: Vec<i64> = room
                .snapshot()
                .local
                .iter()
                .filter(|member| all || shown.contains(&member.user_id))
                .map(|member| member.recipient)
                .filter(|recipient| asked.insert(*recipient))
                .collect();
            if !people.is_empty() {
                users.add(store.profiles(&people).await?, &wish.fields)?;
            }
        }
        let gone = Box::pin(self.syncs.device_lists(self.session, self.changes, self.span)).await?.left;
        let here = self.session.user_id.server_name();
        for user_id in gone.into_iter().filter(|user_id| user_id.server_name() == here) {
            users.changed.insert(user_id.into(), None);
        }
        Ok((!users.changed.is_empty()).then(|| json!({ "users": users.changed })))
    }

    /// The client has no room's profiles any more, or not all that it asks for now.
    fn forget_profiles(&self, draft: &mut Draft) {
        for (room, sent) in &self.known.rooms {
            draft.rooms.entry(*room).or_insert_with(|| sent.clone());
        }
        for sent in draft.rooms.values_mut() {
            sent.told &= !told::PROFILES;
        }
    }
}

/// Whom the answer shows: by a member event, or in the name of the room.
fn shown(body: &RoomBody) -> BTreeSet<OwnedUserId> {
    #[derive(Deserialize)]
    struct Shown {
        r#type: String,
        state_key: Option<OwnedUserId>,
    }
    let events = body.required_state.iter().chain(&body.timeline);
    let members = events
        .filter_map(|event| serde_json::from_str::<Shown>(event.get()).ok())
        .filter(|event| event.r#type == "m.room.member")
        .filter_map(|event| event.state_key);
    let heroes = body.heroes.iter().flatten().map(|hero| hero.user_id.clone());
    members.chain(heroes).collect()
}
