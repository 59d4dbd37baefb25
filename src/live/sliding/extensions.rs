//! What a sliding sync answer has beside rooms: account data, receipts, who types, thread subscriptions (MSC3959, MSC3960,
//! MSC3961, MSC4308), and what belongs to encryption (MSC3884, MSC3885).

use std::collections::{BTreeMap, HashMap};

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde_json::{Map, Value, json};

use super::{
    Form,
    body::RoomBody,
    connection::{Draft, Known, Sent, told},
    request::{Extensions, Mail, Scope},
    room::Chosen,
};
use crate::{
    account::{IgnoredUsers, Session},
    keys::to_device::Page,
    live::{
        answer::account_data_events,
        changes::{Changes, RoomChanges},
        device_lists::DeviceListsBody,
        room::receipt_event,
        syncs::{Error, Place, Syncs},
    },
    queue::Span,
    store::{account_data::AccountDataRow, receipt::ReceiptRow},
};

pub(super) struct Extending<'a> {
    pub(super) syncs: &'a Syncs,
    pub(super) session: &'a Session,
    pub(super) form: Form,
    pub(super) wishes: &'a Extensions,
    pub(super) mail: Option<&'a Mail>,
    pub(super) known: &'a Known,
    pub(super) changes: &'a Changes,
    /// All who type, by the rooms where that changed.
    pub(super) typing: HashMap<i64, Vec<OwnedUserId>>,
    pub(super) ignored: &'a IgnoredUsers,
    pub(super) chosen: &'a [Chosen<'a>],
    /// What the answer says of rooms.
    pub(super) rooms: &'a BTreeMap<OwnedRoomId, RoomBody>,
    /// The events of the timelines of rooms that the answer has whole.
    pub(super) shown: HashMap<i64, Vec<OwnedEventId>>,
    /// The events of timelines that go further back than what the client has.
    pub(super) expanded: HashMap<i64, Vec<OwnedEventId>>,
    /// The positions that the answer begins after and ends at.
    pub(super) span: (i64, i64),
    /// Its end.
    pub(super) to: Place,
}

impl Extending<'_> {
    /// Whether there is anything that a client waits for.
    pub(super) async fn add_to(
        self,
        answer: &mut BTreeMap<&'static str, Value>,
        draft: &mut Draft,
    ) -> Result<bool, Error> {
        let mut news = self.messages(answer, draft).await?;
        let mut add = |name, value: Option<Value>| {
            if let Some(value) = value {
                news = true;
                answer.insert(name, value);
            }
        };
        add("account_data", self.account_data(draft).await?);
        add("receipts", self.receipts(draft).await?);
        add("typing", self.typing(draft));
        add("io.element.msc4308.thread_subscriptions", self.threads(draft).await?);
        add("org.matrix.msc4262.profiles", self.profiles(draft).await?);
        if self.wishes.e2ee {
            let mut e2ee = json!(self.syncs.keys.left(self.session.device).await?);
            news |= self.changes.one_time_keys.contains(&self.session.device);
            let lists = self.device_lists(draft).await?;
            if !lists.is_empty() {
                news = true;
                e2ee["device_lists"] = json!(lists);
            }
            answer.insert("e2ee", e2ee);
        }
        Ok(news)
    }

    /// Messages to the device (MSC3885). Which of them the client has, it says itself with each request.
    async fn messages(
        &self,
        answer: &mut BTreeMap<&'static str, Value>,
        draft: &mut Draft,
    ) -> Result<bool, Error> {
        let Some(wish) = self.mail else { return Ok(false) };
        let mut place = self.to;
        let mut page = Page { up_to: place.position, ..Page::default() };
        let device = self.session.device;
        // What came since the last answer is in the queue; what came before may be there still. A connection begins at 0.
        if self.span.0 == 0 || draft.mail < self.span.0 || self.changes.mailboxes.contains(&device) {
            page = self.syncs.to_device.page(device, draft.mail, place.position, wish.limit).await?;
        }
        (place.mail, draft.mail) = (page.up_to, page.up_to);
        let news = !page.messages.is_empty();
        let body = json!({ "next_batch": self.syncs.token(place), "events": page.messages });
        answer.insert("to_device", body);
        Ok(news)
    }

    pub(super) fn sent<'d>(&'d self, draft: &'d Draft, room: i64) -> Option<&'d Sent> {
        draft.rooms.get(&room).or_else(|| self.known.rooms.get(&room))
    }

    /// Of the rooms in the scope, those that the client lacks this of altogether, and those where something changed. All
    /// have it up to date then; those outside of the scope where something changed no longer have.
    pub(super) fn divide<'c>(
        &'c self,
        draft: &mut Draft,
        scope: Option<&Scope>,
        bit: u8,
        changed: impl Fn(&Chosen<'_>) -> bool,
    ) -> (Vec<&'c Chosen<'c>>, Vec<&'c Chosen<'c>>) {
        let (mut lacking, mut changing) = (Vec::new(), Vec::new());
        for chosen in self.chosen {
            let Some(sent) = self.sent(draft, chosen.room) else { continue };
            let has = sent.told & bit != 0 && !self.shown.contains_key(&chosen.room);
            let wanted =
                scope.is_some_and(|scope| scope.covers(&chosen.room_id, &chosen.lists, chosen.subscribed));
            let news = changed(chosen);
            let will = match (wanted, has) {
                (true, false) => {
                    lacking.push(chosen);
                    true
                }
                (true, true) => {
                    if news {
                        changing.push(chosen);
                    }
                    true
                }
                (false, has) => has && !news,
            };
            if will != (sent.told & bit != 0) {
                let told = if will { sent.told | bit } else { sent.told & !bit };
                let sent = Sent { told, ..sent.clone() };
                draft.rooms.insert(chosen.room, sent);
            }
        }
        (lacking, changing)
    }

    fn changes_of(&self, room: i64) -> Option<&RoomChanges> {
        self.changes.rooms.get(&room)
    }

    async fn account_data(&self, draft: &mut Draft) -> Result<Option<Value>, Error> {
        let scope = self.wishes.account_data.as_ref();
        let (store, recipient) = (&self.syncs.store, self.session.recipient);
        let mut global = Vec::new();
        if scope.is_some() {
            let changed = draft.rest.account_data.then_some(&*self.changes.account_data);
            if changed.is_none_or(|changed| !changed.is_empty()) {
                global = self.syncs.global_account_data(self.session, changed).await?;
            }
            draft.rest.account_data = true;
        } else if !self.changes.account_data.is_empty() {
            draft.rest.account_data = false;
        }
        let changed = |chosen: &Chosen<'_>| {
            self.changes_of(chosen.room).is_some_and(|changes| !changes.account_data.is_empty())
        };
        let (lacking, changing) = self.divide(draft, scope, told::ACCOUNT_DATA, changed);
        let mut rooms = Map::new();
        let mut add = |chosen: &Chosen<'_>, rows: Vec<AccountDataRow>| {
            if !rows.is_empty() {
                rooms.insert(chosen.room_id.to_string(), json!(account_data_events(rows, |_| true)?));
            }
            Ok::<_, Error>(())
        };
        if !lacking.is_empty() {
            let numbers: Vec<i64> = lacking.iter().map(|chosen| chosen.room).collect();
            let mut all = store.account_data_of_rooms(recipient, &numbers).await?;
            for chosen in lacking {
                add(chosen, all.remove(&chosen.room).unwrap_or_default())?;
            }
        }
        for chosen in changing {
            let changes =
                self.changes_of(chosen.room).map(|changes| &*changes.account_data).unwrap_or_default();
            add(chosen, store.account_data_changed(recipient, changes).await?)?;
        }
        if global.is_empty() && rooms.is_empty() {
            return Ok(None);
        }
        Ok(Some(json!({ "global": account_data_events(global, |_| true)?, "rooms": rooms })))
    }

    /// Of a new room those for the events that are shown, and the user's own; of one that the client knows all that
    /// changed, and if its timeline goes further back now, those for the events in it.
    async fn receipts(&self, draft: &mut Draft) -> Result<Option<Value>, Error> {
        let scope = self.wishes.receipts.as_ref();
        let store = &self.syncs.store;
        let changed = |chosen: &Chosen<'_>| {
            self.expanded.contains_key(&chosen.room)
                || self.changes_of(chosen.room).is_some_and(|changes| !changes.receipts.is_empty())
        };
        let (mut lacking, changing) = self.divide(draft, scope, told::RECEIPTS, changed);
        lacking.retain(|chosen| self.sent(draft, chosen.room).is_some_and(|sent| sent.joined));
        let mut rooms = Map::new();
        let user_id = &self.session.user_id;
        let mut add = |chosen: &Chosen<'_>, rows: &[ReceiptRow]| {
            if let Some(mut event) = receipt_event(rows, user_id, |user_id| !self.ignored.contains(user_id)) {
                event["room_id"] = json!(chosen.room_id);
                rooms.insert(chosen.room_id.to_string(), event);
            }
        };
        if !lacking.is_empty() {
            let numbers: Vec<i64> = lacking.iter().map(|chosen| chosen.room).collect();
            let mut all = store.receipts_of_rooms(&numbers).await?;
            for chosen in lacking {
                let mut rows = all.remove(&chosen.room).unwrap_or_default();
                if let Some(shown) = self.shown.get(&chosen.room) {
                    rows.retain(|row| row.user_id == user_id.as_str() || is_for(row, shown));
                }
                add(chosen, &rows);
            }
        }
        for chosen in changing {
            let changes = self.changes_of(chosen.room).map(|changes| &*changes.receipts).unwrap_or_default();
            let mut rows = store.receipts_changed(chosen.room, changes).await?;
            if let Some(events) = self.expanded.get(&chosen.room) {
                let all = store.receipts_of_rooms(&[chosen.room]).await?.remove(&chosen.room);
                rows.extend(all.unwrap_or_default().into_iter().filter(|row| is_for(row, events)));
            }
            add(chosen, &rows);
        }
        Ok((!rooms.is_empty()).then(|| json!({ "rooms": rooms })))
    }

    /// What the client doesn't know of them. One that asks for the first time has nothing that could have changed.
    async fn device_lists(&self, draft: &mut Draft) -> Result<DeviceListsBody, Error> {
        let (from, to) = self.span;
        let Some(known) = draft.rest.device_lists.replace(to) else { return Ok(DeviceListsBody::default()) };
        if known == from {
            return Box::pin(self.syncs.device_lists(self.session, self.changes, self.span)).await;
        }
        match self.syncs.queues.read(self.session.recipient, known, to).await? {
            Span::Entries(entries) => {
                Box::pin(self.syncs.device_lists(self.session, &Changes::of(&entries), (known, to))).await
            }
            Span::Trimmed => Box::pin(self.syncs.all_device_lists(self.session, (known, to))).await,
        }
    }

    fn typing(&self, draft: &mut Draft) -> Option<Value> {
        let scope = self.wishes.typing.as_ref();
        let changed = |chosen: &Chosen<'_>| self.typing.contains_key(&chosen.room);
        let (lacking, changing) = self.divide(draft, scope, told::TYPING, changed);
        let mut rooms = Map::new();
        let mut add = |chosen: &Chosen<'_>, users: &[OwnedUserId]| {
            // IG-01
            let users: Vec<_> = users.iter().filter(|user_id| !self.ignored.contains(user_id)).collect();
            let content = json!({ "user_ids": users });
            let told = match self.form {
                // MSC4508
                Form::Merged => content,
                Form::Early => {
                    json!({ "type": "m.typing", "room_id": chosen.room_id, "content": content })
                }
            };
            rooms.insert(chosen.room_id.to_string(), told);
        };
        for chosen in lacking {
            let users = self.syncs.typing.in_room(&self.session.user_id, chosen.room);
            match users {
                Some(users) => add(chosen, &users),
                // It may believe that somebody still types.
                None if !self.shown.contains_key(&chosen.room) && self.typing.contains_key(&chosen.room) => {
                    add(chosen, &[]);
                }
                None => {}
            }
        }
        for chosen in changing {
            add(chosen, self.typing.get(&chosen.room).map(Vec::as_slice).unwrap_or_default());
        }
        (!rooms.is_empty()).then(|| json!({ "rooms": rooms }))
    }

    async fn threads(&self, draft: &mut Draft) -> Result<Option<Value>, Error> {
        let Some(limit) = self.wishes.threads else {
            draft.rest.threads &= !self.changes.threads;
            return Ok(None);
        };
        let after = if draft.rest.threads { self.span.0 } else { 0 };
        let known = std::mem::replace(&mut draft.rest.threads, true);
        if known && !self.changes.threads {
            return Ok(None);
        }
        let rows = self
            .syncs
            .accounts
            .thread_subscriptions(self.session.recipient, after, self.span.1, limit)
            .await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let mut answer = json!({});
        if let Some(last) = rows.last().filter(|_| rows.len() as i64 == limit) {
            // As the list of subscriptions takes it.
            answer["prev_batch"] = json!(format!("ts{}", last.changed - 1));
        }
        for row in rows {
            let mut entry = json!({ "bump_stamp": row.changed });
            if row.subscribed {
                entry["automatic"] = row.automatic.into();
            }
            let list = if row.subscribed { "subscribed" } else { "unsubscribed" };
            answer[list][row.room_id][row.root] = entry;
        }
        Ok(Some(answer))
    }
}

/// Whether a receipt is for one of these events.
fn is_for(row: &ReceiptRow, events: &[OwnedEventId]) -> bool {
    events.iter().any(|event| *event == row.event_id)
}
