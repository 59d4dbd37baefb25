//! One room's part of a sliding sync answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ruma::{
    OwnedEventId, OwnedRoomId, UserId,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    Form, Sliding,
    body::{Hero, RoomBody},
    connection::{Sent, told},
    request::Config,
};
use crate::{
    live::{
        room::{RoomSync, Slice, stripped},
        syncs::Error,
    },
    room::{Event, Sight, Snapshot, State, View},
};

/// A room that a request is told of.
#[derive(Clone, Debug)]
pub(super) struct Chosen<'a> {
    pub(super) room: i64,
    pub(super) room_id: OwnedRoomId,
    pub(super) config: Arc<Config>,
    /// The lists that show it.
    pub(super) lists: Vec<&'a str>,
    pub(super) subscribed: bool,
    pub(super) dm: bool,
    /// The position of its last event.
    pub(super) last: i64,
}

/// What is asked of one room.
pub(super) struct RoomWish<'a> {
    pub(super) sliding: &'a Sliding,
    /// What the connection's lazily told members are known by.
    pub(super) key: i64,
    pub(super) form: Form,
    pub(super) chosen: &'a Chosen<'a>,
    pub(super) sent: Option<&'a Sent>,
    /// The connection begins.
    pub(super) first: bool,
    pub(super) sync: RoomSync<'a>,
}

/// What a client is told of a room, and has then.
pub(super) struct Told {
    /// `None`: nothing that it wants.
    pub(super) body: Option<RoomBody>,
    pub(super) sent: Sent,
    /// The events of the timeline.
    pub(super) events: Vec<OwnedEventId>,
}

/// State that changed: the events, and the keys that have nothing under them any more.
#[derive(Default)]
struct Changed {
    events: Vec<Arc<Event>>,
    gone: Vec<(String, String)>,
}

impl Changed {
    fn is_of(&self, kind: &TimelineEventType, state_key: &str) -> bool {
        self.events.iter().any(|event| event.pdu.state() == Some((kind, state_key)))
            || self.gone.iter().any(|(gone, key)| *gone == kind.to_string() && key == state_key)
    }

    fn has(&self, kind: &TimelineEventType) -> bool {
        self.events.iter().any(|event| event.pdu.kind == *kind)
            || self.gone.iter().any(|(gone, _)| *gone == kind.to_string())
    }
}

impl RoomWish<'_> {
    /// `None`: nothing at all.
    pub(super) async fn tell(mut self) -> Result<Option<Told>, Error> {
        use MembershipState::{Ban, Invite, Join, Knock, Leave};
        let snapshot = self.sync.room.snapshot();
        let end = self.sync.end(&snapshot).await?;
        let Some(membership) = self.sync.membership(&snapshot, end).await? else { return Ok(None) };
        let own = snapshot.member(self.me());
        match membership {
            Join => self.joined(&snapshot, end).await,
            // SY-19, MB-11: of invites that the user doesn't want nothing is said, but of a leaving before them.
            Invite if self.sync.is_unwanted(own) => match self.sync.before_invites(&snapshot, end).await? {
                Some((end, membership @ (Leave | Ban))) if self.sent.is_some() => {
                    self.sync.changes.end_at(end);
                    self.left(end, &membership).await
                }
                _ => Ok(None),
            },
            Invite | Knock => self.outside(&snapshot, end, &membership),
            _ => self.left(end, &membership).await,
        }
    }

    fn me(&self) -> &UserId {
        &self.sync.session.user_id
    }

    /// Whether the client has missed changes before this request's.
    fn is_behind(&self) -> bool {
        self.sent.is_some_and(|sent| sent.told & told::EVENTS == 0)
    }

    fn sent(&self, seq: i64, limit: usize, joined: bool) -> Sent {
        let before = self.sent.map_or(0, |sent| sent.told);
        Sent {
            seq,
            limit,
            config: Arc::clone(&self.chosen.config),
            told: before | told::EVENTS,
            dm: self.chosen.dm,
            joined,
        }
    }

    fn body(&self, membership: &MembershipState) -> RoomBody {
        let merged = self.form == Form::Merged;
        let lists = || self.chosen.lists.iter().map(|list| (*list).to_owned()).collect::<Vec<_>>();
        RoomBody {
            membership: merged.then(|| membership.to_string()),
            lists: (merged && !self.chosen.lists.is_empty()).then(lists),
            ..RoomBody::default()
        }
    }

    /// Whether it is a direct chat, if the client has to hear of that.
    fn is_dm(&self, initial: bool) -> Option<bool> {
        let changed = self.sent.is_some_and(|sent| sent.dm != self.chosen.dm);
        ((initial && self.chosen.dm) || changed).then_some(self.chosen.dm)
    }

    fn set_stripped(&self, body: &mut RoomBody, state: Vec<Box<RawValue>>) {
        match self.form {
            Form::Merged => body.stripped_state = Some(state),
            Form::Early => body.invite_state = Some(state),
        }
    }

    /// SY-10: somebody who is invited, or knocks.
    fn outside(
        &self,
        snapshot: &Snapshot,
        end: i64,
        membership: &MembershipState,
    ) -> Result<Option<Told>, Error> {
        let known = self.sent.is_some() && !self.is_behind() && self.sync.changes.own_memberships.is_empty();
        let dm = self.is_dm(!known);
        if known && dm.is_none() {
            return Ok(None);
        }
        let mut body = RoomBody { is_dm: dm, ..self.body(membership) };
        if !known {
            body.initial = true;
            body.bump_stamp = Some(self.chosen.last);
            self.set_stripped(&mut body, stripped(snapshot, self.me())?);
            if self.form == Form::Early {
                let name = snapshot.outline::<NameContent>(&StateEventType::RoomName);
                let avatar = snapshot.outline::<AvatarContent>(&StateEventType::RoomAvatar);
                body.name = name.and_then(NameContent::given).map(Value::from);
                body.avatar = avatar.and_then(AvatarContent::given).map(Value::from);
            }
        }
        Ok(Some(Told { body: Some(body), sent: self.sent(end, 0, false), events: Vec::new() }))
    }

    /// Whether the room is new to the client, or the user was out of it since.
    async fn has_arrived(&self, snapshot: &Snapshot) -> Result<bool, Error> {
        let Some(sent) = self.sent.filter(|sent| sent.joined) else { return Ok(true) };
        if self.is_behind() {
            return Ok(snapshot.last_silent > sent.seq
                || snapshot.member(self.me()).is_none_or(|member| member.seq > sent.seq));
        }
        if self.sync.changes.own_memberships.is_empty() {
            return Ok(false);
        }
        Ok(self.sync.path().await?.iter().any(|membership| *membership != MembershipState::Join))
    }

    async fn joined(self, snapshot: &Snapshot, end: i64) -> Result<Option<Told>, Error> {
        let (sync, config) = (&self.sync, &self.chosen.config);
        let arrived = self.has_arrived(snapshot).await?;
        let sent = self.sent.filter(|_| !arrived);
        let behind = self.is_behind();
        let mut expanded = sent.is_some_and(|sent| config.timeline_limit > sent.limit);
        let mut slice = match sent {
            Some(sent) if !expanded && behind => sync.visible_until(end, Some(sent.seq)).await?,
            Some(_) if !expanded && sync.changes.seqs.is_empty() => Slice::nothing(end),
            Some(_) if !expanded => sync.announced(end).await?,
            _ => sync.visible_until(end, None).await?,
        };
        if let Some(sent) = sent.filter(|_| expanded) {
            expanded = slice.events.first().is_some_and(|first| first.seq <= sent.seq);
            if expanded
                && slice.events.len() <= sent.limit
                && slice.events.iter().all(|event| event.seq <= sent.seq)
            {
                // It has all of these: the room is shorter than what it asks for.
                (slice, expanded) = (Slice::nothing(end), false);
            }
        }
        let limit = match sent {
            None => config.timeline_limit,
            Some(sent) if config.timeline_limit > sent.limit => config.timeline_limit,
            Some(_) if slice.limited => slice.events.len(),
            Some(sent) => sent.limit,
        };
        let sight = sync.sight(&slice).await?;
        let mut changed = match sent {
            Some(sent) if behind || sync.changes.state => self.changed(sent.seq, slice.end).await?,
            _ => Changed::default(),
        };
        if let Some(sent) = sent {
            changed.events.extend(self.instead(&slice, &changed, sent.seq).await?);
        }
        let mut body = self.body(&MembershipState::Join);
        body.initial = arrived;
        body.is_dm = self.is_dm(arrived);
        self.show_timeline(&mut body, &slice, sight.as_ref(), arrived).await?;
        if expanded {
            match self.form {
                Form::Merged => body.expanded_timeline = true,
                Form::Early => body.unstable_expanded_timeline = true,
            }
        }
        self.show_state(&mut body, snapshot, &slice, sent, &changed, sight.as_ref()).await?;
        self.show_summary(&mut body, snapshot, arrived, &changed);
        if self.form == Form::Early && (arrived || behind || sync.changes.unread) {
            let unread = match &sync.counts {
                Some(unread) => unread.total(),
                None => sync.syncs.unread(sync.session.recipient, sync.room.number).await?.total(),
            };
            (body.notification_count, body.highlight_count) =
                (Some(unread.notifications), Some(unread.highlights));
        }
        if arrived || !slice.events.is_empty() {
            let stamp = self.sliding.bumps.stamp(sync.syncs, &sync.room, slice.end).await?;
            body.bump_stamp = Some(stamp);
        }
        Ok(Some(Told {
            body: body.says_something().then_some(body),
            sent: self.sent(end, limit, true),
            events: slice.events.iter().map(|event| event.id().to_owned()).collect(),
        }))
    }

    /// SY-09: what the user may see of a room that they are out of, up to their leaving, and nothing after it.
    async fn left(self, end: i64, membership: &MembershipState) -> Result<Option<Told>, Error> {
        let sync = &self.sync;
        let sent = self.sent;
        if sent.is_some_and(|sent| !sent.joined)
            && !self.is_behind()
            && sync.changes.own_memberships.is_empty()
        {
            return Ok(None);
        }
        if sent.is_some_and(|sent| !sent.joined) {
            return self.turned_away(end, membership).await;
        }
        let view = match sync.syncs.rooms.view(&sync.room, self.me()).await {
            Ok(view) if view != View::NOW => view,
            // They never were in it: an invite is no more. Whoever doesn't know of it needn't.
            Ok(_) | Err(crate::room::Error::Forbidden(_)) => return self.turned_away(end, membership).await,
            Err(cause) => return Err(cause.into()),
        };
        let end = end.min(view.at);
        let slice = sync.visible_until(end, sent.map(|sent| sent.seq)).await?;
        let sight = sync.sight(&slice).await?;
        let mut body = self.body(membership);
        body.initial = sent.is_none();
        body.is_dm = self.is_dm(body.initial);
        body.bump_stamp = Some(self.chosen.last);
        self.show_timeline(&mut body, &slice, sight.as_ref(), sent.is_none()).await?;
        let wants = |event: &&Arc<Event>| self.wants(event);
        let changed = match sent {
            Some(sent) => self.changed(sent.seq, end).await?,
            None => Changed::default(),
        };
        let mut events: Vec<Arc<Event>> = changed.events.iter().filter(wants).cloned().collect();
        if sent.is_none() {
            let state = sync.syncs.rooms.state_at(&sync.room, end).await?;
            (body.name, body.avatar) = (name(&state).map(Value::from), avatar(&state).map(Value::from));
            events = state.iter().filter(wants).cloned().collect();
        }
        self.show_events(&mut body, events, sight.as_ref()).await?;
        Ok(Some(Told {
            body: Some(body),
            sent: self.sent(end, 0, false),
            events: slice.events.iter().map(|event| event.id().to_owned()).collect(),
        }))
    }

    /// An invite or a knock that came to nothing: the member event that says so.
    async fn turned_away(self, end: i64, membership: &MembershipState) -> Result<Option<Told>, Error> {
        if self.sent.is_none() {
            return Ok(None);
        }
        let sync = &self.sync;
        let own = sync.syncs.rooms.members_at(&sync.room, [self.me()], end).await?;
        let mut body = self.body(membership);
        body.bump_stamp = Some(self.chosen.last);
        match self.form {
            Form::Merged => {
                let stripped: Result<Vec<_>, _> = own.iter().map(|event| event.stripped()).collect();
                body.stripped_state = Some(stripped?);
            }
            Form::Early => {
                let seq = own.first().map_or(end, |event| event.seq);
                let sight = Sight::since(seq);
                body.timeline = sync.client_events(&own, Some(&sight), sync.wanted.filter.fields()).await?;
                body.required_state = body.timeline.clone();
                body.num_live = Some(body.timeline.len());
            }
        }
        let events = own.iter().map(|event| event.id().to_owned()).collect();
        Ok(Some(Told { body: Some(body), sent: self.sent(end, 0, false), events }))
    }

    fn wants(&self, event: &Event) -> bool {
        event
            .pdu
            .state()
            .is_some_and(|(kind, state_key)| self.chosen.config.wants(&kind.to_string(), state_key))
    }

    async fn changed(&self, after: i64, to: i64) -> Result<Changed, Error> {
        let mut changed = Changed::default();
        for (kind, state_key, event) in
            self.sync.syncs.rooms.changed_state(&self.sync.room, after, to).await?
        {
            match event {
                Some(event) => changed.events.push(event),
                None => changed.gone.push((kind, state_key)),
            }
        }
        Ok(changed)
    }

    /// What is the room's state in place of events of the timeline after `since` that aren't, since another branch of its history
    /// won. Whoever reads a kick in there has to hear who is in still.
    async fn instead(&self, slice: &Slice, changed: &Changed, since: i64) -> Result<Vec<Arc<Event>>, Error> {
        let is_shown = |event: &Event| {
            let is_member = event.pdu.kind == TimelineEventType::RoomMember;
            self.wants(event) || (is_member && self.chosen.config.lazy_members())
        };
        let mut instead: Vec<Arc<Event>> = Vec::new();
        for event in slice.events.iter().filter(|event| event.seq > since && is_shown(event)) {
            let Some((kind, state_key)) = event.pdu.state() else { continue };
            if changed.is_of(kind, state_key) {
                continue;
            }
            let (kind, view) = (StateEventType::from(kind.to_string()), View { at: slice.end });
            let state = self.sync.syncs.rooms.state_entry(&self.sync.room, &kind, state_key, view).await?;
            instead.extend(state.filter(|state| state.seq != event.seq));
        }
        Ok(instead)
    }

    async fn show_timeline(
        &self,
        body: &mut RoomBody,
        slice: &Slice,
        sight: Option<&Sight>,
        initial: bool,
    ) -> Result<(), Error> {
        let timeline = self.sync.timeline(slice, sight).await?;
        let live = self.sync.changes.seqs.first().map_or(i64::MAX, |first| *first);
        let live = if self.first { i64::MAX } else { live };
        if initial || !slice.events.is_empty() {
            body.num_live = Some(slice.events.iter().filter(|event| event.seq >= live).count());
        }
        if initial || slice.limited || !slice.events.is_empty() {
            body.prev_batch = timeline.prev_batch;
        }
        (body.timeline, body.limited) = (timeline.events, timeline.limited);
        Ok(())
    }

    /// The state that the client asks for, as far as it hasn't it (`sent`).
    async fn show_state(
        &self,
        body: &mut RoomBody,
        snapshot: &Snapshot,
        slice: &Slice,
        sent: Option<&Sent>,
        changed: &Changed,
        sight: Option<&Sight>,
    ) -> Result<(), Error> {
        let config = &self.chosen.config;
        let rooms = &self.sync.syncs.rooms;
        let whole = |state: &State, wanted: &dyn Fn(&Event) -> bool| -> Vec<Arc<Event>> {
            state.iter().filter(|event| wanted(event)).cloned().collect()
        };
        let mut events: BTreeMap<i64, Arc<Event>> = BTreeMap::new();
        let mut add =
            |found: Vec<Arc<Event>>| events.extend(found.into_iter().map(|event| (event.seq, event)));
        let expanded = sent.is_some_and(|sent| !Arc::ptr_eq(&sent.config, config)) && config.wants_state();
        if (sent.is_none() && config.wants_state()) || expanded {
            let had = |event: &Event| match (sent, event.pdu.state()) {
                (Some(sent), Some((kind, state_key))) => sent.config.wants(&kind.to_string(), state_key),
                _ => false,
            };
            let wanted = |event: &Event| self.wants(event) && !had(event);
            if slice.end >= snapshot.last_seq {
                add(whole(&snapshot.state, &wanted));
            } else {
                add(whole(&rooms.state_at(&self.sync.room, slice.end).await?, &wanted));
            }
        }
        add(changed.events.iter().filter(|event| self.wants(event)).cloned().collect());
        if config.lazy_members() {
            let known: BTreeSet<i64> = events.keys().copied().collect();
            let lazy = self.lazily(slice, sent.is_none(), changed, &known).await?;
            events.extend(lazy.into_iter().map(|event| (event.seq, event)));
        }
        self.show_events(body, events.into_values().collect(), sight).await?;
        if self.form == Form::Merged {
            for (kind, state_key) in changed.gone.iter().filter(|(kind, key)| config.wants(kind, key)) {
                let stub = json!({ "type": kind, "state_key": state_key });
                body.required_state.push(serde_json::value::to_raw_value(&stub)?);
            }
        }
        Ok(())
    }

    async fn show_events(
        &self,
        body: &mut RoomBody,
        events: Vec<Arc<Event>>,
        sight: Option<&Sight>,
    ) -> Result<(), Error> {
        if events.is_empty() {
            return Ok(());
        }
        let whole = match sight {
            Some(_) => None,
            None => Some(self.sync.syncs.rooms.sight(&self.sync.room, self.me()).await?),
        };
        let sight = sight.or(whole.as_ref());
        body.required_state =
            self.sync.client_events(&events, sight, self.sync.wanted.filter.fields()).await?;
        Ok(())
    }

    /// The members whom the timeline speaks of, unless the client has them, and those that changed without a gap. Who
    /// changed in a gap isn't told: after one the client has nobody for sure.
    async fn lazily(
        &self,
        slice: &Slice,
        arrived: bool,
        changed: &Changed,
        known: &BTreeSet<i64>,
    ) -> Result<Vec<Arc<Event>>, Error> {
        let sync = &self.sync;
        let lazy = &sync.syncs.lazy;
        if arrived || slice.limited {
            lazy.forget(self.key, sync.room.number);
        }
        let is_news = |member: &UserId| lazy.is_news(self.key, sync.room.number, member, sync.span);
        let is_member = |event: &&Arc<Event>| event.pdu.kind == TimelineEventType::RoomMember;
        let mut kept: Vec<Arc<Event>> = Vec::new();
        let mut said: BTreeSet<&str> = BTreeSet::new();
        if !slice.limited {
            for event in changed.events.iter().filter(is_member) {
                said.extend(event.pdu.state_key.as_deref());
                kept.push(Arc::clone(event));
            }
        }
        let mut wanted: BTreeSet<&UserId> = slice.events.iter().map(|event| &*event.pdu.sender).collect();
        let targets =
            slice.events.iter().filter(is_member).filter_map(|event| event.pdu.state_key.as_deref());
        wanted.extend(targets.filter_map(|target| <&UserId>::try_from(target).ok()));
        for member in &said {
            if let Ok(member) = <&UserId>::try_from(*member) {
                is_news(member);
            }
        }
        let missing = wanted.into_iter().filter(|member| is_news(member) && !said.contains(member.as_str()));
        let missing: Vec<&UserId> = missing.collect();
        kept.extend(sync.syncs.rooms.members_at(&sync.room, missing, slice.end).await?);
        kept.retain(|event| !known.contains(&event.seq));
        Ok(kept)
    }

    /// What the room is called, and by whom.
    fn show_summary(&self, body: &mut RoomBody, snapshot: &Snapshot, arrived: bool, changed: &Changed) {
        let state = &snapshot.state;
        let renamed = changed.has(&TimelineEventType::RoomName);
        let members = changed.has(&TimelineEventType::RoomMember);
        let name = name(state);
        if arrived || members || renamed {
            let summary = crate::room::summary(snapshot, self.me());
            if arrived || members {
                (body.joined_count, body.invited_count) = (Some(summary.joined), Some(summary.invited));
            }
            if name.is_none() {
                let hero = |user_id: ruma::OwnedUserId| {
                    let member =
                        snapshot.member(&user_id).and_then(|event| event.pdu.content_as::<Profile>().ok());
                    let Profile { displayname, avatar_url } = member.unwrap_or_default();
                    Hero { user_id, displayname, avatar_url }
                };
                body.heroes = Some(summary.heroes.into_iter().map(hero).collect());
            }
        }
        // With `initial`, what isn't there isn't set.
        if arrived || renamed {
            body.name = if arrived { name.map(Value::from) } else { Some(json!(name)) };
        }
        if arrived || changed.has(&TimelineEventType::RoomAvatar) {
            let avatar = avatar(state);
            body.avatar = if arrived { avatar.map(Value::from) } else { Some(json!(avatar)) };
        }
    }
}

impl RoomBody {
    /// Whether the timeline goes further back than what the client has, in either form.
    pub(super) fn is_expanded(&self) -> bool {
        self.expanded_timeline || self.unstable_expanded_timeline
    }

    /// Whether there is anything that the client doesn't have.
    fn says_something(&self) -> bool {
        self.initial
            || self.limited
            || self.is_expanded()
            || !self.timeline.is_empty()
            || !self.required_state.is_empty()
            || self.name.is_some()
            || self.avatar.is_some()
            || self.heroes.is_some()
            || self.is_dm.is_some()
            || self.joined_count.is_some()
            || self.notification_count.is_some()
    }
}

#[derive(Default, Deserialize)]
struct Profile {
    #[serde(default)]
    displayname: Option<String>,
    #[serde(default)]
    avatar_url: Option<String>,
}

#[derive(Deserialize)]
struct NameContent {
    name: Option<String>,
}

impl NameContent {
    fn given(self) -> Option<String> {
        self.name.filter(|name| !name.is_empty())
    }
}

#[derive(Deserialize)]
struct AvatarContent {
    url: Option<String>,
}

impl AvatarContent {
    fn given(self) -> Option<String> {
        self.url.filter(|url| !url.is_empty())
    }
}

fn name(state: &State) -> Option<String> {
    state.content::<NameContent>(&StateEventType::RoomName)?.given()
}

fn avatar(state: &State) -> Option<String> {
    state.content::<AvatarContent>(&StateEventType::RoomAvatar)?.given()
}
