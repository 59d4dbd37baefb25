//! Stories about the reading of rooms, on a real database, with events that no client could send.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicUsize},
};

use hearth_federation::Task;
use ruma::{
    OwnedEventId, OwnedUserId, RoomVersionId, ServerName, UserId, events::TimelineEventType,
    owned_server_name,
};
use serde_json::{Value, json, value::to_raw_value};

use super::{event::Verdict, *};
use crate::{
    account::{Sessions, Settings},
    config::RegistrationMode,
    outbound::Destinations,
    queue::{Queues, Tails},
    signing_key,
    store::{Durability, EventRow, Subscriber, account::add_account},
};

pub(crate) struct World {
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) store: Store,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) sessions: Sessions,
    pub(crate) queues: Queues,
    pub(crate) environment: Environment,
    pub(crate) destinations: Arc<Destinations>,
    tails: Arc<Tails>,
    dir: tempfile::TempDir,
}

impl World {
    /// The database.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("hearth.db")
    }

    pub(crate) async fn new(users: &[&str]) -> Self {
        Self::keeping(users, Environment::real(), None).await
    }

    /// One in which history isn't kept for ever.
    pub(crate) async fn keeping(
        users: &[&str],
        environment: Environment,
        retention: Option<Lifetimes>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tails = Arc::new(Tails::new(1));
        let subscriber: Arc<dyn Subscriber> = Arc::<Tails>::clone(&tails);
        let path = dir.path().join("hearth.db");
        let (store, _) = Store::open(&path, Durability::Normal, subscriber).await.unwrap();
        for user in users {
            store.commit(add_account(user, None, false, 0)).await.unwrap();
        }
        let server_name = owned_server_name!("localhost");
        let queues = Queues::new(Arc::clone(&tails), store.clone());
        let sessions = Sessions::new(store.clone(), queues.clone(), environment.clone());
        let settings = Settings {
            server_name: server_name.clone(),
            registration: RegistrationMode::Closed,
            guests: true,
            shared_secret: None,
            reserved: None,
        };
        let accounts = Accounts::new(settings, store.clone(), sessions.clone(), environment.clone());
        let key = Arc::new(signing_key::load_or_make(dir.path(), &*environment.entropy).unwrap());
        let policy = Policy {
            default_version: RoomVersionId::V12,
            max_members: 100,
            max_text_chars: 100_000,
            federate: true,
            notices: None,
            retention,
        };
        let accounts = Arc::new(accounts);
        let known = Arc::clone(&accounts);
        let destinations = Destinations::load(store.clone()).await.unwrap();
        let rooms = Rooms::new(
            store.clone(),
            known,
            environment.clone(),
            Arc::clone(&destinations),
            server_name,
            key,
            policy,
        )
        .await
        .unwrap();
        let rooms = Arc::new(rooms);
        Self { rooms, store, accounts, sessions, queues, environment, destinations, tails, dir }
    }

    pub(crate) async fn room(&self, creator: &UserId) -> Arc<Room> {
        self.room_of(creator, Preset::PrivateChat).await
    }

    pub(crate) async fn room_of(&self, creator: &UserId, preset: Preset) -> Arc<Room> {
        let room_id = self.rooms.create(Self::new_room(creator, preset)).await.unwrap();
        self.rooms.by_id(&room_id).await.unwrap()
    }

    pub(crate) fn new_room(creator: &UserId, preset: Preset) -> NewRoom {
        NewRoom {
            creator: creator.to_owned(),
            version: RoomVersionId::V12,
            preset,
            published: false,
            alias: None,
            name: None,
            topic: None,
            creation_content: ruma::serde::JsonObject::new(),
            power_levels: ruma::serde::JsonObject::new(),
            initial_state: Vec::new(),
            invites: Vec::new(),
            is_direct: false,
        }
    }

    /// Gives a room a policy server, which is this one; or takes it away.
    pub(crate) async fn set_policy(&self, room: &Arc<Room>, sender: &UserId, there_is_one: bool) {
        let content = if there_is_one {
            json!({ "via": "localhost", "public_keys": { "ed25519": "none that anybody has" } })
        } else {
            json!({})
        };
        let policy = NewEvent {
            sender: sender.to_owned(),
            kind: TimelineEventType::from("m.room.policy"),
            state_key: Some(String::new()),
            content: to_raw_value(&content).unwrap(),
            redacts: None,
        };
        self.rooms.append_one(room, policy, None).await.unwrap();
    }

    pub(crate) async fn say(&self, room: &Arc<Room>, sender: &UserId, text: &str) -> OwnedEventId {
        let content = json!({ "msgtype": "m.text", "body": text });
        self.send(room, sender, TimelineEventType::RoomMessage, content).await
    }

    pub(crate) async fn send(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        kind: TimelineEventType,
        content: Value,
    ) -> OwnedEventId {
        let event = NewEvent {
            sender: sender.to_owned(),
            kind,
            state_key: None,
            content: to_raw_value(&content).unwrap(),
            redacts: None,
        };
        self.rooms.append_one(room, event, None).await.unwrap().event_id
    }

    /// Puts events into the log that failed their checks, as some from another server may.
    async fn refused(&self, room: &Room, sender: &UserId, count: i64, verdict: Verdict) {
        let first = room.snapshot().last_seq + 1;
        let mut batch = crate::store::Batch::new();
        for seq in first..first + count {
            let pdu = json!({
                "auth_events": [], "content": { "body": "refused" }, "depth": seq, "origin_server_ts": 1,
                "prev_events": [], "room_id": room.room_id, "sender": sender, "type": "m.room.message",
            });
            let step = batch.step();
            batch.event(EventRow {
                room: room.number,
                seq,
                event_id: format!("$refused{seq}"),
                step,
                pdu: Arc::from(pdu.to_string()),
                ts: 0,
                arrived: 0,
                searchable: false,
                verdict: verdict as i64,
                sender_device: None,
                txn_id: None,
                outlier: None,
                position: None,
            });
        }
        self.store.commit(batch).await.unwrap();
        let mut snapshot = Snapshot::clone(&room.snapshot());
        snapshot.last_seq += count;
        room.adopt(snapshot);
    }
}

/// A policy server that says nothing; how often it was asked.
#[derive(Default)]
pub(crate) struct Mute(pub(crate) AtomicUsize);

impl AskPolicy for Mute {
    fn ask<'a>(&'a self, _: &'a ServerName, _: &'a RawValue) -> Task<'a, Result<String, Refusal>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let (errcode, error) = ("M_UNKNOWN".to_owned(), "no answer".to_owned());
        Box::pin(std::future::ready(Err(Refusal { errcode, error, is_silence: true })))
    }
}

pub(crate) fn user(name: &str) -> OwnedUserId {
    format!("@{name}:localhost").try_into().unwrap()
}

fn back(from: Option<i64>, filter: &EventFilter) -> Paging<'_> {
    Paging { direction: Direction::Backwards, from, to: None, limit: 10, filter }
}

/// HV-07, PD-02, PD-06, I9: events that failed their checks are shown nowhere, and a log full of them doesn't end paging.
#[tokio::test]
async fn refused_events_are_never_shown_and_do_not_end_paging() {
    let alice = user("alice");
    let world = World::new(&[alice.as_str()]).await;
    let room = world.room(&alice).await;
    let before = world.say(&room, &alice, "before").await;
    let before_seq = room.snapshot().last_seq;
    world.refused(&room, &alice, 700, Verdict::Rejected).await;
    world.refused(&room, &alice, 700, Verdict::SoftFailed).await;
    let after = world.say(&room, &alice, "after").await;

    let sight = world.rooms.reading(&room, &alice).await.unwrap();
    let filter = EventFilter::default();
    let (mut seen, mut pages, mut from) = (Vec::new(), 0, None);
    loop {
        let page = world.rooms.page(&room, &sight, back(from, &filter)).await.unwrap();
        seen.extend(page.events.iter().map(|event| event.id().to_owned()));
        pages += 1;
        match page.end {
            Some(end) => from = Some(end),
            None => break,
        }
        assert!(pages < 10);
    }
    assert_eq!(seen.len() as i64, before_seq + 1);
    assert_eq!(seen[..2], [after, before.clone()]);
    assert!(pages > 1, "one request doesn't look at everything");

    for seq in [before_seq + 1, before_seq + 701] {
        let id = OwnedEventId::try_from(format!("$refused{seq}")).unwrap();
        let event = world.rooms.visible_event(&room, &sight, &id).await;
        assert!(matches!(event, Err(Error::NotFound(NO_EVENT))), "{event:?}");
    }
    let around = world.rooms.around(&room, &sight, &before, 4, &filter).await.unwrap();
    assert!(around.after.iter().all(|event| event.is_visible()));
}

/// I5: pages in both directions from every place give each event once, whatever the page's size.
#[tokio::test]
async fn pages_neither_skip_nor_repeat() {
    let (alice, bob) = (user("alice"), user("bob"));
    let world = World::new(&[alice.as_str(), bob.as_str()]).await;
    let room = world.room(&alice).await;
    for number in 0..12 {
        world.say(&room, &alice, &number.to_string()).await;
        if number % 3 == 0 {
            world.refused(&room, &bob, 1 + number / 3, Verdict::Rejected).await;
        }
    }
    let last = room.snapshot().last_seq;
    // Somebody who was away twice.
    let sight = Sight::new(
        &[(1, ruma::events::room::history_visibility::HistoryVisibility::Joined)],
        &[(3, true), (7, false), (12, true), (15, false), (18, true)].map(|(seq, joined)| {
            use ruma::events::room::member::MembershipState::{Join, Leave};
            (seq, if joined { Join } else { Leave })
        }),
        &[],
    );
    let filter = EventFilter::default();
    let mut all = Vec::new();
    for seq in 1..=last {
        let event = world.rooms.events(&room, &[seq]).await.unwrap();
        all.extend(
            event.iter().filter(|event| event.is_visible() && sight.may_see(seq)).map(|event| event.seq),
        );
    }
    for limit in 1..=all.len() + 1 {
        for direction in [Direction::Backwards, Direction::Forwards] {
            let (mut seen, mut from) = (Vec::new(), None);
            loop {
                let paging = Paging { direction, from, to: None, limit, filter: &filter };
                let page = world.rooms.page(&room, &sight, paging).await.unwrap();
                assert!(page.events.len() <= limit);
                seen.extend(page.events.iter().map(|event| event.seq));
                let Some(end) = page.end else { break };
                assert_ne!(from, Some(end), "no page leads nowhere");
                from = Some(end);
            }
            if direction == Direction::Backwards {
                seen.reverse();
            }
            assert_eq!(seen, all, "{direction:?} by {limit}");
        }
    }
}

/// HV-11: whoever was invited and said no was never in the room.
#[tokio::test]
async fn who_rejects_an_invite_reads_no_state() {
    let (alice, bob) = (user("alice"), user("bob"));
    let world = World::new(&[alice.as_str(), bob.as_str()]).await;
    let room = world.room(&alice).await;
    world.rooms.invite(&room, &alice, &bob, None).await.unwrap();
    let invited = world.rooms.view(&room, &bob).await;
    assert!(matches!(invited, Err(Error::Forbidden(_))));
    world.rooms.leave(&room, &bob, None).await.unwrap();
    assert!(matches!(world.rooms.view(&room, &bob).await, Err(Error::Forbidden(_))));

    // Once in, what they left is theirs to read, also while they are invited again or banned.
    world.rooms.invite(&room, &alice, &bob, None).await.unwrap();
    world.rooms.join(&room, &bob, None).await.unwrap();
    assert_eq!(world.rooms.view(&room, &bob).await.unwrap(), View::NOW);
    world.rooms.leave(&room, &bob, None).await.unwrap();
    let left = View { at: room.snapshot().last_seq };
    world.rooms.ban(&room, &alice, &bob, None).await.unwrap();
    assert_eq!(world.rooms.view(&room, &bob).await.unwrap(), left);
}

/// HV-09: a position of a queue is a place in every room's log.
#[tokio::test]
async fn positions_lead_to_the_last_event_that_they_cover() {
    let alice = user("alice");
    let world = World::new(&[alice.as_str()]).await;
    let (room, other) = (world.room(&alice).await, world.room(&alice).await);
    let place = async |position: i64| {
        let token = crate::queue::Token::Queue { epoch: 1, position, mail: position, boot: 1, fading: 0 };
        world.rooms.place(&room, &token.to_string()).await.unwrap()
    };
    let head = || world.tails.head();
    let mut heads = Vec::new();
    for number in 0..40 {
        world.say(&room, &alice, &number.to_string()).await;
        heads.push((head(), room.snapshot().last_seq));
        for _ in 0..number % 3 {
            world.say(&other, &alice, "elsewhere").await;
            heads.push((head(), room.snapshot().last_seq));
        }
    }
    assert_eq!(place(0).await, 0);
    for (position, seq) in heads {
        assert_eq!(place(position).await, seq);
    }
    assert_eq!(place(i64::MAX).await, room.snapshot().last_seq);
    assert_eq!(world.rooms.place(&room, "r7").await.unwrap(), 7);
    assert!(matches!(world.rooms.place(&room, "garbage").await, Err(Error::InvalidParam(_))));
}

/// Who makes an account while an invitation to it is on its way hears of it, though their first sync came too early.
#[tokio::test]
async fn an_invitation_reaches_an_account_that_was_made_meanwhile() {
    let (alice, carol) = (user("alice"), user("carol"));
    let world = World::new(&[alice.as_str()]).await;
    let room = world.room(&alice).await;
    let core = &world.rooms.core;
    let mut work = work::Work::start(core, Snapshot::clone(&room.snapshot())).await.unwrap();
    let invite = NewEvent {
        sender: alice,
        kind: TimelineEventType::RoomMember,
        state_key: Some(carol.to_string()),
        content: to_raw_value(&json!({ "membership": "invite" })).unwrap(),
        redacts: None,
    };
    work.append_all(&[invite], None).await.unwrap();
    world.store.commit(add_account(carol.as_str(), None, false, 0)).await.unwrap();
    work.commit(Some(&room)).await.unwrap();
    let recipient = core.accounts.recipient(&carol).await.unwrap().unwrap();
    let queue = world.store.queue(recipient, 0, i64::MAX).await.unwrap();
    assert_eq!(queue.iter().map(|entry| entry.item).collect::<Vec<_>>(), [room.snapshot().last_seq]);
}
