//! What an answer holds: the rooms and data that a span of a queue speaks of, or all that the user has.

use std::collections::HashMap;

use futures_util::{StreamExt, stream};
use ruma::OwnedUserId;
use serde_json::{json, value::RawValue};

use super::{
    body::{Events, RoomsBody, SyncBody},
    changes::{Changes, RoomChanges},
    room::RoomSync,
    syncs::{Error, Place, Syncs, Wanted},
};
use crate::{
    account::{IgnoredUsers, Session},
    queue::{Span, Unread},
    room::Room,
    store::{
        Parts,
        account_data::{AccountDataRow, GLOBAL},
    },
};

const PUSH_RULES: &str = "m.push_rules";

/// Rooms of a first answer that are read at a time: more than the connections to the database, so that none waits.
const ROOMS_AT_ONCE: usize = 8;

impl Syncs {
    pub(super) async fn changes(
        &self,
        session: &Session,
        wanted: &Wanted,
        from: Place,
        to: Place,
    ) -> Result<SyncBody, Error> {
        let entries = match self.queues.read(session.recipient, from.position, to.position).await? {
            Span::Entries(entries) => entries,
            // The room logs know what the queue has forgotten; every room is new to such a device.
            Span::Trimmed => return Box::pin(self.whole(session, wanted, from, to)).await,
        };
        let mut changes = Changes::of(&entries);
        let mut body = self.body(session, to).await?;
        body.news_of_keys = changes.one_time_keys.contains(&session.device);
        let has_mail = from.has_mail() || changes.mailboxes.contains(&session.device);
        self.add_mail(session.device, &mut body, from, to, has_mail).await?;
        if !changes.account_data.is_empty() {
            let rows = self.global_account_data(session, Some(&changes.account_data)).await?;
            body.account_data = account_data_events(rows, |kind| wanted.filter.account_data(kind))?.into();
        }
        let mut typing = HashMap::new();
        if to.fading > from.fading {
            for (number, users) in self.typing.heard_by(&session.user_id, from.fading) {
                changes.rooms.entry(number).or_default();
                typing.insert(number, users);
            }
        }
        let ignored = self.accounts.ignored_users(session.recipient).await?;
        if to.fading > from.fading {
            body.presence = self.presence_events(session, wanted, Some(from), to, &ignored).await?;
        }
        let invites = self.accounts.invite_permissions(session.recipient).await?;
        let span = (from.position, to.position);
        body.device_lists = Box::pin(self.device_lists(session, &changes, span)).await?;
        for (number, changes) in changes.rooms {
            let room = self.rooms.by_number(number).await?;
            if !wanted.filter.room(&room.room_id) {
                continue;
            }
            let typing = typing.remove(&number);
            let room = RoomSync {
                syncs: self,
                session,
                wanted,
                room,
                changes,
                whole: false,
                since: true,
                span: (from.position, to.position),
                typing,
                counts: None,
                ignored: &ignored,
                invites: &invites,
            };
            room.add_to(&mut body.rooms).await?;
        }
        Ok(body)
    }

    /// The user's account data that belongs to no room: all of it, or what these changes are.
    pub(super) async fn global_account_data(
        &self,
        session: &Session,
        changed: Option<&[i64]>,
    ) -> Result<Vec<AccountDataRow>, Error> {
        let rows = if let Some(changed) = changed {
            self.store.account_data_changed(session.recipient, changed).await?
        } else {
            let mut rows = self.store.account_data_of(session.recipient, GLOBAL).await?;
            if !rows.iter().any(|row| row.kind == PUSH_RULES) {
                // They exist for everybody, also for those who have never changed them.
                rows.push(AccountDataRow { kind: PUSH_RULES.to_owned(), content: String::new() });
            }
            rows
        };
        self.with_push_rules(session, rows).await
    }

    /// Push rules are shown whole: what is stored, with what the specification predefines today.
    async fn with_push_rules(
        &self,
        session: &Session,
        mut rows: Vec<AccountDataRow>,
    ) -> Result<Vec<AccountDataRow>, Error> {
        for row in rows.iter_mut().filter(|row| row.kind == PUSH_RULES) {
            let content = self.accounts.push_rules_content(session.recipient, &session.user_id).await?;
            row.content = content.to_string();
        }
        Ok(rows)
    }

    /// Every room and all account data; with `from`, timelines only since then (`full_state`), if the queue still has
    /// what came since.
    pub(super) async fn all(
        &self,
        session: &Session,
        wanted: &Wanted,
        from: Option<Place>,
        to: Place,
    ) -> Result<SyncBody, Error> {
        let (recipient, user_id) = (session.recipient, &session.user_id);
        let mut body = self.body(session, to).await?;
        let rows = self.global_account_data(session, None).await?;
        body.account_data = account_data_events(rows, |kind| wanted.filter.account_data(kind))?.into();

        let mut changes = match from {
            Some(from) => match self.queues.read(recipient, from.position, to.position).await? {
                Span::Entries(entries) => Some(Changes::of(&entries)),
                Span::Trimmed => None,
            },
            None => None,
        };
        if let Some(from) = from {
            let span = (from.position, to.position);
            body.device_lists = match &changes {
                Some(changes) => Box::pin(self.device_lists(session, changes, span)).await?,
                None => Box::pin(self.all_device_lists(session, span)).await?,
            };
        }
        let typing = self.typing.heard_by(user_id, 0);
        let mut typing: HashMap<i64, Vec<OwnedUserId>> = typing.into_iter().collect();
        let mut counts: HashMap<i64, Unread> = self.store.unread_of_rooms(recipient).await?;
        let memberships = self.store.memberships(user_id.as_str()).await?;
        let ignored = &self.accounts.ignored_users(recipient).await?;
        let invites = &self.accounts.invite_permissions(recipient).await?;
        // Who asks for all state is told of everybody.
        let heard = from.map(|from| Place { fading: 0, ..from });
        body.presence = self.presence_events(session, wanted, heard, to, ignored).await?;
        let asked = memberships.into_iter().map(|membership| {
            let since = changes.is_some();
            let number = membership.room;
            let news = match &mut changes {
                Some(changes) => changes.rooms.remove(&number),
                // The device may still believe to be in a room that was left after its token.
                None => from.is_some().then(RoomChanges::default),
            };
            let left = matches!(membership.membership.as_str(), "leave" | "ban");
            let typing = typing.remove(&number).filter(|users| !users.is_empty());
            let counts = counts.remove(&number).unwrap_or_default();
            async move {
                let mut rooms = RoomsBody::default();
                if left && news.is_none() && !wanted.filter.include_leave() {
                    return Ok(rooms);
                }
                let room = self.rooms.by_number_once(number).await?;
                if !wanted.filter.room(&room.room_id)
                    || (left && !since && self.knows(wanted, session, &room, from).await?)
                {
                    return Ok(rooms);
                }
                let changes = news.unwrap_or_default();
                let span = (from.filter(|_| since).map_or(i64::MIN, |from| from.position), to.position);
                let counts = Some(counts);
                let room = RoomSync {
                    syncs: self,
                    session,
                    wanted,
                    room,
                    changes,
                    whole: true,
                    since,
                    span,
                    typing,
                    counts,
                    ignored,
                    invites,
                };
                room.add_to(&mut rooms).await?;
                Ok::<_, Error>(rooms)
            }
        });
        let mut answers = stream::iter(asked).buffer_unordered(ROOMS_AT_ONCE);
        while let Some(rooms) = answers.next().await {
            body.rooms.extend(rooms?);
        }
        drop(answers);
        Ok(body)
    }

    /// The presence of those of whom the user hears between two places; without the first, of all who are there.
    async fn presence_events(
        &self,
        session: &Session,
        wanted: &Wanted,
        from: Option<Place>,
        to: Place,
        ignored: &IgnoredUsers,
    ) -> Result<Events, Error> {
        if !wanted.filter.presence() {
            return Ok(Events::default());
        }
        let after = from.map(|from| from.fading);
        let events = self.presence.heard_by(session.recipient, &session.user_id, after, to.fading).await?;
        let events = events
            .into_iter()
            .filter(|event| wanted.filter.presence_of(&event.user_id) && !ignored.contains(&event.user_id));
        let events = events.take(wanted.filter.presence_limit());
        let events: Vec<_> =
            events.map(|event| serde_json::value::to_raw_value(&event.event())).collect::<Result<_, _>>()?;
        Ok(events.into())
    }

    /// Whether a device with this place knows already that the user has left a room.
    async fn knows(
        &self,
        wanted: &Wanted,
        session: &Session,
        room: &Room,
        from: Option<Place>,
    ) -> Result<bool, Error> {
        let (Some(from), false) = (from, wanted.filter.include_leave()) else { return Ok(false) };
        let Some(leaving) = room.snapshot().member(&session.user_id).map(|member| member.seq) else {
            return Ok(false);
        };
        Ok(self.rooms.place_at(room, from.position).await? >= leaving)
    }

    /// The unread events of a room; the end of the queue keeps them up from then on.
    pub(super) async fn unread(&self, recipient: i64, room: i64) -> Result<Unread, Error> {
        let tail = self.queues.tail(recipient);
        if let Some(unread) = tail.unread(room) {
            return Ok(unread);
        }
        // The end of the queue mostly reaches back to what is settled, and counts on from there.
        let (unread, position) = self.store.unread(recipient, room).await?;
        tail.remember_unread(room, unread, position);
        if let Some(unread) = tail.unread(room) {
            return Ok(unread);
        }
        // While the disk is full, counts are those of before it was.
        self.store.settled_if_possible(Parts::of(recipient)).await?;
        let (unread, position) = self.store.unread(recipient, room).await?;
        tail.remember_unread(room, unread.clone(), position);
        Ok(tail.unread(room).unwrap_or(unread))
    }
}

/// Account data in the form of events, as far as `wanted` says of their type.
pub(super) fn account_data_events(
    rows: Vec<AccountDataRow>,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<Box<RawValue>>, Error> {
    let wanted = rows.into_iter().filter(|row| wanted(&row.kind));
    wanted
        .map(|row| {
            let content: &RawValue = serde_json::from_str(&row.content)?;
            Ok(serde_json::value::to_raw_value(&json!({ "type": row.kind, "content": content }))?)
        })
        .collect()
}
