//! Stories about accounts on a real database, with a clock that the test turns.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use ruma::owned_server_name;
use serde_json::{Value, json};

use super::*;
use crate::{
    config::RegistrationMode,
    environment::{Clock, Environment},
    queue::{Queues, Tails},
    store::{Durability, Store, key_backup::add_backup, statement, token::tell_other_processes},
    testing::hanging_up::{until_wait, written},
};

struct Hands(AtomicI64);

impl Clock for Hands {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

pub(super) struct World {
    pub(super) accounts: Accounts,
    pub(super) sessions: Sessions,
    pub(super) store: Store,
    clock: Arc<Hands>,
    _dir: tempfile::TempDir,
}

const PASSWORD: &str = "swordfish";

impl World {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tails = Arc::new(Tails::new(1));
        let subscriber: Arc<Tails> = Arc::clone(&tails);
        let (store, _) =
            Store::open(&dir.path().join("hearth.db"), Durability::Normal, subscriber).await.unwrap();
        let clock = Arc::new(Hands(AtomicI64::new(1_700_000_000_000)));
        let environment = Environment { clock: clock.clone(), ..Environment::real() };
        let queues = Queues::new(tails, store.clone());
        let sessions = Sessions::new(store.clone(), queues, environment.clone());
        let settings = Settings {
            server_name: owned_server_name!("example.org"),
            registration: RegistrationMode::Open,
            guests: true,
            shared_secret: None,
            reserved: None,
        };
        let accounts = Accounts::new(settings, store.clone(), sessions.clone(), environment);
        Self { accounts, sessions, store, clock, _dir: dir }
    }

    fn pass(&self, ms: i64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }

    pub(super) async fn register(&self, name: &str) -> Result<Registered, Error> {
        let user_id = self.accounts.available(Some(name)).await?;
        let new = NewAccount {
            user_id,
            password: Some(PASSWORD.to_owned()),
            admin: false,
            token: None,
            device: Some(DeviceRequest::default()),
        };
        self.accounts.register(new).await
    }

    async fn user(&self, name: &str) -> Login {
        self.register(name).await.unwrap().login.unwrap()
    }

    async fn login(&self, user: &str, device_id: &str, refresh: bool) -> Login {
        let device = DeviceRequest { device_id: Some(device_id.into()), refresh, ..DeviceRequest::default() };
        self.accounts.login(user, PASSWORD.to_owned(), device).await.unwrap()
    }

    pub(super) async fn authenticate(&self, token: &str) -> Result<Session, Error> {
        let origin = Origin { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), user_agent: None };
        self.sessions.authenticate(token, &origin).await
    }

    async fn is_good(&self, token: &str) -> bool {
        self.authenticate(token).await.is_ok()
    }

    /// Does what changes an account's password or takes it away, and no more of it once that is in the database.
    async fn cut_short<T>(&self, recipient: i64, work: impl Future<Output = T>) {
        let stored = async || self.store.account(recipient).await.unwrap().unwrap().password_hash;
        let before = stored().await;
        let mut work = std::pin::pin!(work);
        while stored().await == before {
            // Whether it goes on is seen in the database.
            let _ = std::future::poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await;
        }
    }

    /// That a token which was just used is worth what the database says, at whichever of its waits `work` was dropped
    /// that may have ended it. Whether it was done.
    async fn cut_at<T>(&self, wait: usize, work: impl Future<Output = T>, token: &str) -> bool {
        assert!(self.is_good(token).await && self.is_good(token).await, "it is kept in memory");
        let done = until_wait(wait, work).await.is_some();
        written(&self.store).await;
        let stored = self.store.session(&session::encode(session::hash(token))).await.unwrap();
        assert_eq!(self.is_good(token).await, stored.is_some_and(|row| !row.locked), "wait {wait}");
        done
    }

    async fn operation(&self, name: &'static str, user: &str, digest: u8) -> Operation {
        let (account, _) = self.accounts.find(user).await.unwrap();
        let flows = &[&[Stage::Password] as &[_]];
        Operation { name, recipient: Some(account.recipient), digest: Some([digest; 32]), flows }
    }

    async fn challenge(&self, operation: &Operation, auth: Value) -> Challenge {
        match self.accounts.authorise(operation, Some(&auth)).await {
            Err(InteractiveError::Challenge(challenge)) => challenge,
            other => panic!("expected a challenge, not {other:?}"),
        }
    }
}

fn password_of(user: &str, session: &str) -> Value {
    json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": user },
        "password": PASSWORD,
        "session": session,
    })
}

#[tokio::test]
async fn a_registered_user_is_known_by_their_token() {
    let world = World::new().await;
    let login = world.user("alice").await;
    let session = world.authenticate(&login.tokens.access).await.unwrap();
    assert_eq!(session.user_id, "@alice:example.org");
    assert_eq!(session.device_id, login.device_id);
    assert!(!world.is_good("hat_madeup").await);
}

#[tokio::test]
async fn au_11_one_of_many_who_register_a_name_at_once_gets_it() {
    let world = World::new().await;
    let user_id = world.accounts.available(Some("alice")).await.unwrap();
    let attempts = (0..8).map(|_| {
        world.accounts.register(NewAccount {
            user_id: user_id.clone(),
            password: None,
            admin: false,
            token: None,
            device: Some(DeviceRequest::default()),
        })
    });
    let results = futures_util::future::join_all(attempts).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(results.iter().all(|result| matches!(result, Ok(_) | Err(Error::UserInUse))), "{results:?}");
}

#[tokio::test]
async fn ui_08_the_last_use_of_a_token_makes_one_account() {
    let world = World::new().await;
    let token = world.accounts.create_registration_token(Some(1), None, true).await.unwrap();
    let mut attempts = Vec::new();
    for name in ["alice", "bob", "carol"] {
        let user_id = world.accounts.available(Some(name)).await.unwrap();
        let token = Some(token.clone());
        attempts.push(world.accounts.register(NewAccount {
            user_id,
            password: None,
            admin: false,
            token,
            device: None,
        }));
    }
    let results = futures_util::future::join_all(attempts).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    let accounts = world.accounts.list().await.unwrap();
    assert_eq!(accounts.len(), 1);
    assert!(accounts[0].admin);
    assert!(!world.accounts.is_registration_token(&token).await.unwrap());
}

#[tokio::test]
async fn ui_08_a_registration_token_expires() {
    let world = World::new().await;
    let token = world.accounts.create_registration_token(None, Some(1_000), false).await.unwrap();
    assert!(world.accounts.is_registration_token(&token).await.unwrap());
    world.pass(1_000);
    assert!(!world.accounts.is_registration_token(&token).await.unwrap());
}

#[tokio::test]
async fn the_first_token_is_the_same_until_there_is_an_account() {
    let world = World::new().await;
    let token = world.accounts.first_token().await.unwrap();
    assert!(token.is_some());
    assert_eq!(world.accounts.first_token().await.unwrap(), token);
    world.user("alice").await;
    assert_eq!(world.accounts.first_token().await.unwrap(), None);
}

#[tokio::test]
async fn au_05_a_device_id_used_again_ends_its_old_tokens() {
    let world = World::new().await;
    world.user("alice").await;
    let old = world.login("alice", "PHONE", false).await;
    let other = world.login("alice", "LAPTOP", false).await;
    let device = world.authenticate(&old.tokens.access).await.unwrap().device;
    let new = world.login("@alice:example.org", "PHONE", false).await;
    assert!(!world.is_good(&old.tokens.access).await);
    assert!(world.is_good(&other.tokens.access).await);
    assert_eq!(world.authenticate(&new.tokens.access).await.unwrap().device, device);
}

#[tokio::test]
async fn the_number_of_a_deleted_device_is_never_given_out_again() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let session = world.authenticate(&alice.tokens.access).await.unwrap();
    world.accounts.logout(&session).await.unwrap();
    let again = world.login("alice", session.device_id.as_str(), false).await;
    assert!(world.authenticate(&again.tokens.access).await.unwrap().device > session.device);
}

#[tokio::test]
async fn au_03_an_expired_access_token_asks_for_a_refresh() {
    let world = World::new().await;
    world.user("alice").await;
    let login = world.login("alice", "PHONE", true).await;
    assert!(world.is_good(&login.tokens.access).await);
    world.pass(login.tokens.expires_in.unwrap());
    let refused = world.authenticate(&login.tokens.access).await;
    assert!(matches!(refused, Err(Error::UnknownToken { soft_logout: true })), "{refused:?}");
    let new = world.accounts.refresh(login.tokens.refresh.as_deref().unwrap()).await.unwrap();
    let session = world.authenticate(&new.access).await.unwrap();
    assert_eq!(session.device_id, "PHONE");
}

#[tokio::test]
async fn au_04_old_tokens_live_until_the_new_access_token_is_used() {
    let world = World::new().await;
    world.user("alice").await;
    let first = world.login("alice", "PHONE", true).await.tokens;
    let refresh = first.refresh.as_deref().unwrap();
    // The answer to the first refresh is lost: the client tries again.
    let lost = world.accounts.refresh(refresh).await.unwrap();
    assert!(world.is_good(&first.access).await);
    let second = world.accounts.refresh(refresh).await.unwrap();
    assert!(!world.is_good(&lost.access).await, "what nobody used is void");
    assert!(world.is_good(&first.access).await);
    assert!(world.is_good(&second.access).await);
    assert!(!world.is_good(&first.access).await, "the new token was used");
    assert!(world.is_good(&second.access).await);
}

#[tokio::test]
async fn au_04_old_tokens_end_when_the_new_refresh_token_is_used() {
    let world = World::new().await;
    world.user("alice").await;
    let first = world.login("alice", "PHONE", true).await.tokens;
    let second = world.accounts.refresh(first.refresh.as_deref().unwrap()).await.unwrap();
    let third = world.accounts.refresh(second.refresh.as_deref().unwrap()).await.unwrap();
    assert!(!world.is_good(&first.access).await);
    assert!(world.is_good(&second.access).await);
    assert!(world.is_good(&third.access).await);
}

#[tokio::test]
async fn a_spent_refresh_token_ends_the_whole_family() {
    let world = World::new().await;
    world.user("alice").await;
    let other = world.login("alice", "LAPTOP", false).await.tokens;
    let first = world.login("alice", "PHONE", true).await.tokens;
    let stolen = first.refresh.as_deref().unwrap();
    let second = world.accounts.refresh(stolen).await.unwrap();
    assert!(world.is_good(&second.access).await);

    assert!(matches!(world.accounts.refresh(stolen).await, Err(Error::UnknownToken { .. })));
    assert!(!world.is_good(&second.access).await);
    let next = second.refresh.as_deref().unwrap();
    assert!(matches!(world.accounts.refresh(next).await, Err(Error::UnknownToken { .. })));
    assert!(world.is_good(&other.access).await, "other devices keep theirs");
}

#[tokio::test]
async fn a_session_ended_by_another_process_is_noticed_within_seconds() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let session = world.authenticate(&alice.tokens.access).await.unwrap();
    world.store.commit(statement!("DELETE FROM access_token")).await.unwrap();
    world.pass(2_000);
    assert!(world.sessions.still(&session).await.is_err());
    assert!(!world.is_good(&alice.tokens.access).await);
}

#[tokio::test]
async fn what_another_process_does_before_the_first_look_is_noticed() {
    let world = World::new().await;
    world.store.commit(tell_other_processes()).await.unwrap();
    let noticed = world.sessions.noticed();
    let watch = tokio::spawn(world.sessions.clone().watch());
    tokio::time::timeout(Duration::from_mins(1), noticed.notified()).await.expect("it is noticed");
    watch.abort();
}

#[tokio::test]
async fn au_07_logging_out_is_seen_at_once_by_whoever_waits() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let session = world.authenticate(&alice.tokens.access).await.unwrap();
    assert!(world.sessions.still(&session).await.is_ok());
    world.accounts.logout(&session).await.unwrap();
    assert!(world.sessions.still(&session).await.is_err());
}

#[tokio::test]
async fn lk_01_a_locked_account_can_only_log_out() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    world.store.commit(statement!("UPDATE account SET locked = TRUE")).await.unwrap();
    assert!(matches!(world.authenticate(&alice.tokens.access).await, Err(Error::Locked)));
    let origin = Origin { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), user_agent: None };
    assert!(world.sessions.authenticate_even_locked(&alice.tokens.access, &origin).await.is_ok());
}

#[tokio::test]
async fn lk_01_a_lock_cut_short_is_none_or_holds() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let recipient = world.authenticate(&alice.tokens.access).await.unwrap().recipient;
    for wait in 1.. {
        let lock = world.accounts.set_measure(recipient, Measure::Lock, true);
        if world.cut_at(wait, lock, &alice.tokens.access).await {
            break;
        }
        world.accounts.set_measure(recipient, Measure::Lock, false).await.unwrap();
    }
    assert!(!world.is_good(&alice.tokens.access).await);
}

#[tokio::test]
async fn au_05_a_login_cut_short_has_ended_its_devices_old_tokens_if_it_is_one() {
    let world = World::new().await;
    world.user("alice").await;
    let account = world.accounts.check_password("alice", PASSWORD.to_owned()).await.unwrap();
    let device = DeviceRequest { device_id: Some("PHONE".into()), ..DeviceRequest::default() };
    let login = || world.accounts.log_in(account.clone(), device.clone());
    for _ in 0..5 {
        for wait in 1.. {
            let old = login().await.unwrap().tokens;
            if world.cut_at(wait, login(), &old.access).await {
                break;
            }
        }
    }
}

#[tokio::test]
async fn au_04_a_refresh_cut_short_ends_what_the_database_says() {
    let world = World::new().await;
    world.user("alice").await;
    let account = world.accounts.check_password("alice", PASSWORD.to_owned()).await.unwrap();
    let device = DeviceRequest { device_id: Some("PHONE".into()), refresh: true, ..DeviceRequest::default() };
    let refresh =
        async |tokens: &login::Tokens| world.accounts.refresh(tokens.refresh.as_deref().unwrap()).await;
    let begin = async || {
        let first = world.accounts.log_in(account.clone(), device.clone()).await.unwrap().tokens;
        assert!(world.is_good(&first.access).await);
        let second = refresh(&first).await.unwrap();
        (first, second)
    };
    // The first use of what a refresh gave, of either token.
    for wait in 1.. {
        let (first, second) = begin().await;
        if world.cut_at(wait, world.authenticate(&second.access), &first.access).await {
            break;
        }
    }
    for wait in 1.. {
        let (first, second) = begin().await;
        if world.cut_at(wait, refresh(&second), &first.access).await {
            break;
        }
    }
    // A refresh token that was used up before.
    for wait in 1.. {
        let (first, second) = begin().await;
        if world.cut_at(wait, refresh(&first), &second.access).await {
            break;
        }
    }
}

#[tokio::test]
async fn au_08_a_new_password_keeps_the_callers_token_only() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let other = world.login("alice", "LAPTOP", false).await;
    let session = world.authenticate(&alice.tokens.access).await.unwrap();
    let log_out = LogOut::Others(session.device);
    world.accounts.set_password(session.recipient, "trout".to_owned(), log_out).await.unwrap();
    assert!(world.is_good(&alice.tokens.access).await);
    assert!(!world.is_good(&other.tokens.access).await);
    let old = world.accounts.login("alice", PASSWORD.to_owned(), DeviceRequest::default()).await;
    assert!(matches!(old, Err(Error::BadCredentials)));
    world.accounts.login("alice", "trout".to_owned(), DeviceRequest::default()).await.unwrap();
}

#[tokio::test]
async fn au_08_a_new_password_cut_short_has_ended_the_other_sessions() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let other = world.login("alice", "LAPTOP", false).await;
    let session = world.authenticate(&alice.tokens.access).await.unwrap();
    let log_out = LogOut::Others(session.device);
    let change = world.accounts.set_password(session.recipient, "trout".to_owned(), log_out);
    world.cut_short(session.recipient, change).await;
    assert!(world.is_good(&alice.tokens.access).await);
    assert!(!world.is_good(&other.tokens.access).await);
}

#[tokio::test]
async fn au_08_a_login_cut_short_by_a_new_password_is_none() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let session = world.authenticate(&alice.tokens.access).await.unwrap();
    let checked = world.accounts.check_password("alice", PASSWORD.to_owned()).await.unwrap();
    let log_out = LogOut::Others(session.device);
    world.accounts.set_password(session.recipient, "trout".to_owned(), log_out).await.unwrap();
    let late = world.accounts.log_in(checked, DeviceRequest::default()).await;
    assert!(matches!(late, Err(Error::BadCredentials)), "{late:?}");
    let devices = world.accounts.devices(session.recipient).await.unwrap();
    assert_eq!(devices.iter().map(|device| &device.device_id).collect::<Vec<_>>(), [&alice.device_id]);
}

#[tokio::test]
async fn au_15_a_login_cut_short_by_a_deactivation_is_told_so() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let session = world.authenticate(&alice.tokens.access).await.unwrap();
    let checked = world.accounts.check_password("alice", PASSWORD.to_owned()).await.unwrap();
    world.accounts.deactivate(session.recipient, false).await.unwrap();
    let late = world.accounts.log_in(checked, DeviceRequest::default()).await;
    assert!(matches!(late, Err(Error::Deactivated)), "{late:?}");
}

#[tokio::test]
async fn au_15_a_deactivation_cut_short_has_ended_everything() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let session = world.authenticate(&alice.tokens.access).await.unwrap();
    let recipient = session.recipient;
    world.store.commit(Vec::from(add_backup(recipient, 1, "m.test", "{}"))).await.unwrap();
    let _ = world.accounts.set_profile_field(recipient, "displayname", json!("Alice")).await.unwrap();
    world.cut_short(recipient, world.accounts.deactivate(recipient, false)).await;
    assert_eq!(world.store.devices(recipient).await.unwrap().len(), 0);
    assert_eq!(world.store.current_key_backup(recipient).await.unwrap(), None);
    assert_eq!(world.store.profile(recipient).await.unwrap(), []);
}

#[tokio::test]
async fn au_15_a_deactivated_account_is_closed_for_ever() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let session = world.authenticate(&alice.tokens.access).await.unwrap();
    world.accounts.deactivate(session.recipient, false).await.unwrap();
    assert!(!world.is_good(&alice.tokens.access).await);
    let login = world.accounts.login("alice", PASSWORD.to_owned(), DeviceRequest::default()).await;
    assert!(matches!(login, Err(Error::Deactivated)));
    let password = world.accounts.set_password(session.recipient, "trout".to_owned(), LogOut::Nobody).await;
    assert!(matches!(password, Err(Error::Deactivated)));
    assert!(matches!(world.register("alice").await, Err(Error::UserInUse)), "names are not handed on");
    let leaving = world.store.accounts_to_depart().await.unwrap();
    assert_eq!(leaving.iter().map(|row| row.recipient).collect::<Vec<_>>(), [session.recipient]);
}

#[tokio::test]
async fn ui_02_a_failed_stage_keeps_the_session() {
    let world = World::new().await;
    world.user("alice").await;
    let operation = world.operation("delete", "alice", 1).await;
    let first = world.challenge(&operation, json!({})).await;
    assert_eq!(first.refused, None);
    let mut wrong = password_of("alice", &first.session);
    wrong["password"] = "trout".into();
    let second = world.challenge(&operation, wrong).await;
    assert_eq!(second.session, first.session);
    assert_eq!(second.refused.unwrap().0, "M_FORBIDDEN");
    let right = password_of("alice", &first.session);
    world.accounts.authorise(&operation, Some(&right)).await.unwrap();
}

#[tokio::test]
async fn ui_03_a_session_is_good_for_its_own_operation_only() {
    let world = World::new().await;
    world.user("alice").await;
    world.user("bob").await;
    let operation = world.operation("delete", "alice", 1).await;
    let session = world.challenge(&operation, json!({})).await.session;
    let others = [
        world.operation("deactivate", "alice", 1).await,
        world.operation("delete", "bob", 1).await,
        world.operation("delete", "alice", 2).await,
    ];
    for other in others {
        let challenge = world.challenge(&other, password_of("alice", &session)).await;
        assert_ne!(challenge.session, session);
        assert_eq!(challenge.completed, []);
    }
    world.accounts.authorise(&operation, Some(&password_of("alice", &session))).await.unwrap();
}

#[tokio::test]
async fn ui_03_anothers_password_proves_nothing() {
    let world = World::new().await;
    world.user("alice").await;
    world.user("bob").await;
    let operation = world.operation("delete", "alice", 1).await;
    let session = world.challenge(&operation, json!({})).await.session;
    let refused = world.accounts.authorise(&operation, Some(&password_of("bob", &session))).await;
    assert!(matches!(refused, Err(InteractiveError::Failed(Error::NotAllowed(_)))), "{refused:?}");
    assert_eq!(world.challenge(&operation, json!({ "session": session })).await.completed, []);
}

#[tokio::test]
async fn ui_04_a_finished_session_opens_nothing_more() {
    let world = World::new().await;
    world.user("alice").await;
    let operation = world.operation("delete", "alice", 1).await;
    let session = world.challenge(&operation, json!({})).await.session;
    world.accounts.authorise(&operation, Some(&password_of("alice", &session))).await.unwrap();
    let again = world.challenge(&operation, json!({ "session": session })).await;
    assert_ne!(again.session, session);
    let again = world.challenge(&operation, password_of("alice", &session)).await;
    assert_ne!(again.session, session);
}

#[tokio::test]
async fn a_session_of_interactive_authentication_gets_too_old() {
    let world = World::new().await;
    world.user("alice").await;
    let operation = world.operation("delete", "alice", 1).await;
    let session = world.challenge(&operation, json!({})).await.session;
    world.pass(60 * 60 * 1000);
    let late = world.challenge(&operation, password_of("alice", &session)).await;
    assert_ne!(late.session, session);
}

#[tokio::test]
async fn ui_05_a_stage_of_no_flow_is_refused() {
    let world = World::new().await;
    world.user("alice").await;
    let operation = world.operation("delete", "alice", 1).await;
    for kind in ["m.login.dummy", "m.login.registration_token", "m.login.sso", ""] {
        let challenge = world.challenge(&operation, json!({ "type": kind })).await;
        assert_eq!(challenge.refused.unwrap().0, "M_UNRECOGNIZED", "{kind}");
    }
}

#[tokio::test]
async fn ui_06_a_stage_passed_on_its_page_counts() {
    let world = World::new().await;
    let flows = &[&[Stage::Dummy] as &[_]];
    let operation = Operation { name: "register", recipient: None, digest: None, flows };
    let session = world.challenge(&operation, json!({})).await.session;
    let unfinished = world.challenge(&operation, json!({ "session": session })).await;
    assert_eq!(unfinished.session, session);
    assert!(world.accounts.complete_on_page(&session, Stage::Dummy, None).await.unwrap());
    world.accounts.authorise(&operation, Some(&json!({ "session": session }))).await.unwrap();
}

/// PU-02: those who have changed nothing share one set of rules, however many they are; asking for it makes none anew.
#[tokio::test]
async fn users_without_rules_of_their_own_share_one_set() {
    let world = World::new().await;
    for recipient in (1..=100).chain(1..=100) {
        assert!(Arc::ptr_eq(&world.accounts.rule_set(recipient).await.unwrap(), &crate::push::DEFAULT));
        assert!(world.accounts.ignored_users(recipient).await.unwrap().is_empty());
    }
}
