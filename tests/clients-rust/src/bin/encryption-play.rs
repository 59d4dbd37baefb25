//! Encryption as Element X has it: two people on two servers, with matrix-sdk and matrix-sdk-ui, which sync by sliding sync.
//! Identities, a recovery key, messages both ways, emojis, a new device that recovers, one that is removed, a server that is away.
//!
//! `encryption-play --here URL --there URL --password PASSWORD` ends with status 0 if all came true. For `@stop there` and
//! `@start there` on its standard output it wants a line on its standard input. `tests/encryption/` runs it.

// The SDK's futures are deep.
#![recursion_limit = "256"]

use std::{
    future::Future,
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use matrix_sdk::{
    Client, Room, RoomState,
    encryption::{
        BackupDownloadStrategy, EncryptionSettings,
        verification::{SasVerification, Verification, VerificationRequest, VerificationRequestState},
    },
    ruma::{
        OwnedEventId, OwnedUserId, RoomId, UserId,
        api::client::{
            account::register::v3::Request as Register,
            room::create_room::v3::{Request as CreateRoom, RoomPreset},
            uiaa::{AuthData, Dummy, MatrixUserIdentifier, Password},
        },
        events::{
            InitialStateEvent,
            key::verification::request::ToDeviceKeyVerificationRequestEvent,
            room::{
                encryption::RoomEncryptionEventContent,
                message::{MessageType, OriginalSyncRoomMessageEvent, RoomMessageEventContent},
            },
        },
    },
};
use matrix_sdk_ui::{
    sync_service::{State, SyncService},
    timeline::{RoomExt, Timeline},
};
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let option = |name: &str| -> Result<String> {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)).cloned().with_context(|| format!("{name} is missing"))
    };
    play(&option("--here")?, &option("--there")?, &option("--password")?).await
}

/// Looks again and again until there is an answer.
async fn until<T, F>(what: &str, mut condition: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Option<T>>,
{
    let looking = async {
        loop {
            if let Some(found) = condition().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.with_context(|| format!("not within {PATIENCE:?}: {what}"))
}

/// Asks the test for something, and waits until it is done.
async fn ask(word: &str) -> Result<()> {
    println!("@{word}");
    std::io::stdout().flush()?;
    let mut line = String::new();
    let read = tokio::task::spawn_blocking(move || std::io::stdin().read_line(&mut line)).await??;
    ensure!(read > 0, "standard input ended at {word}");
    Ok(())
}

/// One device of somebody, at its work.
struct Device {
    client: Client,
    name: String,
    sync: Arc<SyncService>,
    requests: tokio::sync::Mutex<mpsc::UnboundedReceiver<VerificationRequest>>,
}

impl Device {
    async fn new(url: &str, user: &str, password: &str, register: bool) -> Result<Self> {
        let settings = EncryptionSettings {
            auto_enable_cross_signing: false,
            backup_download_strategy: BackupDownloadStrategy::AfterDecryptionFailure,
            auto_enable_backups: false,
        };
        let client = Client::builder().homeserver_url(url).with_encryption_settings(settings).build().await?;
        if register {
            let mut request = Register::new();
            request.username = Some(user.to_owned());
            request.password = Some(password.to_owned());
            request.auth = Some(AuthData::Dummy(Dummy::new()));
            client.matrix_auth().register(request).await?;
        } else {
            client.matrix_auth().login_username(user, password).await?;
        }
        let (request, requests) = mpsc::unbounded_channel();
        let direct = request.clone();
        client.add_event_handler(
            move |event: ToDeviceKeyVerificationRequestEvent, client: Client| async move {
                let id = event.content.transaction_id.as_str();
                if let Some(found) = client.encryption().get_verification_request(&event.sender, id).await {
                    let _ = direct.send(found);
                }
            },
        );
        client.add_event_handler(move |event: OriginalSyncRoomMessageEvent, client: Client| async move {
            if let MessageType::VerificationRequest(_) = &event.content.msgtype {
                let found =
                    client.encryption().get_verification_request(&event.sender, &event.event_id).await;
                if let Some(found) = found.filter(|found| !found.we_started()) {
                    let _ = request.send(found);
                }
            }
        });
        let sync = Arc::new(SyncService::builder(client.clone()).build().await?);
        sync.start().await;
        let restarted = Arc::clone(&sync);
        tokio::spawn(async move {
            // One that has failed stops, until the app starts it again.
            let mut states = restarted.state();
            while let Some(state) = states.next().await {
                if matches!(state, State::Error(_)) {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    restarted.start().await;
                }
            }
        });
        client.encryption().wait_for_e2ee_initialization_tasks().await;
        let name = format!("{user}'s {}", client.device_id().context("it has an id")?);
        Ok(Self { client, name, sync, requests: tokio::sync::Mutex::new(requests) })
    }

    fn user(&self) -> &UserId {
        self.client.user_id().expect("it is logged in")
    }

    async fn room(&self, room_id: &RoomId, state: RoomState) -> Result<Room> {
        until(&format!("{} has the room {state:?}", self.name), || async {
            self.client.get_room(room_id).filter(|room| room.state() == state)
        })
        .await
    }

    async fn open(&self, room_id: &RoomId) -> Result<Opened<'_>> {
        let room = self.room(room_id, RoomState::Joined).await?;
        self.sync.room_list_service().subscribe_to_rooms(&[room_id]).await;
        room.request_encryption_state().await?;
        let timeline = room.timeline().await?;
        // Whose devices it has to know.
        timeline.fetch_members().await;
        Ok(Opened { device: self, timeline })
    }

    /// Waits until this device knows that somebody has so many devices, all but `unsigned` of them signed by their owner.
    async fn knows(&self, user: &UserId, devices: usize, unsigned: usize) -> Result<()> {
        let count = || async {
            let devices = self.client.encryption().get_user_devices(user).await.ok()?;
            let all: Vec<_> = devices.devices().collect();
            Some((all.len(), all.iter().filter(|device| !device.is_cross_signed_by_owner()).count()))
        };
        let what = format!("{} knows {devices} devices of {user}", self.name);
        let known = until(&what, || async { count().await.filter(|found| *found == (devices, unsigned)) });
        match known.await {
            Ok(_) => Ok(()),
            Err(late) => Err(late.context(format!("known and unsigned: {:?}", count().await))),
        }
    }

    /// Waits until this device takes somebody for who they are.
    async fn trusts(&self, user: &UserId) -> Result<()> {
        until(&format!("{} trusts {user}", self.name), || async {
            let identity = self.client.encryption().get_user_identity(user).await.ok()??;
            identity.is_verified().then_some(())
        })
        .await
    }
}

/// A room that is open on a device.
struct Opened<'a> {
    device: &'a Device,
    timeline: Timeline,
}

impl Opened<'_> {
    async fn reads(&self, body: &str) -> Result<()> {
        let what = format!("{} reads {body:?}", self.device.name);
        self.judged(until(&what, || async { self.shows(body).await.then_some(()) }).await).await
    }

    /// The same for what may be behind a gap: whoever looks for it scrolls up.
    async fn finds(&self, body: &str) -> Result<()> {
        let what = format!("{} finds {body:?}", self.device.name);
        let found = until(&what, || async {
            if self.shows(body).await {
                return Some(());
            }
            // A server that is away now is there the next time.
            let _ = self.timeline.paginate_backwards(20).await;
            None
        });
        self.judged(found.await).await
    }

    async fn shows(&self, body: &str) -> bool {
        let items = self.timeline.items().await;
        let mut texts = items.iter().filter_map(|item| item.as_event()?.content().as_message());
        texts.any(|message| message.body() == body)
    }

    async fn judged(&self, found: Result<()>) -> Result<()> {
        match found {
            Ok(()) => Ok(()),
            Err(late) => Err(late.context(format!("unable to decrypt: {:?}", self.undecrypted().await))),
        }
    }

    /// The events that are in the timeline and that nobody can read.
    async fn undecrypted(&self) -> Vec<OwnedEventId> {
        let items = self.timeline.items().await;
        let events = items.iter().filter_map(|item| item.as_event());
        let unread = events.filter(|event| event.content().is_unable_to_decrypt());
        unread.filter_map(|event| event.event_id().map(ToOwned::to_owned)).collect()
    }

    async fn say(&self, body: &str) -> Result<()> {
        self.timeline.send(RoomMessageEventContent::text_plain(body).into()).await?;
        Ok(())
    }
}

/// One says something, all read it.
async fn said(speaker: &Opened<'_>, body: &str, readers: &[&Opened<'_>]) -> Result<()> {
    let body = format!("{body}, {}", speaker.device.name);
    speaker.say(&body).await?;
    try_join_all(readers.iter().map(|reader| reader.reads(&body))).await?;
    Ok(())
}

/// Both see the same emojis, and say so.
async fn compare_emojis(first: &Device, request: VerificationRequest, second: &Device) -> Result<()> {
    let received = tokio::time::timeout(PATIENCE, async { second.requests.lock().await.recv().await });
    let received = received.await.context("nobody is asked to verify")?.context("the device is gone")?;
    received.accept().await?;
    until("the request is accepted", || async { request.is_ready().then_some(()) }).await?;
    let mine = request.start_sas().await?.context("emojis can be compared")?;
    let theirs: SasVerification = until("the other is shown emojis", || async {
        match received.state() {
            VerificationRequestState::Transitioned { verification: Verification::SasV1(sas) } => Some(sas),
            _ => None,
        }
    })
    .await?;
    theirs.accept().await?;
    let shown = |sas: SasVerification| async move {
        until("emojis", || async { sas.emoji().map(|emojis| emojis.map(|emoji| emoji.symbol)) }).await
    };
    let (ours, others) = (shown(mine.clone()).await?, shown(theirs.clone()).await?);
    ensure!(ours == others, "different emojis: {ours:?} and {others:?}");
    mine.confirm().await?;
    theirs.confirm().await?;
    for sas in [&mine, &theirs] {
        until("the verification is done", || async { sas.is_done().then_some(()) }).await?;
    }
    first.trusts(second.user()).await?;
    second.trusts(first.user()).await
}

async fn play(here: &str, there: &str, password: &str) -> Result<()> {
    let began = Instant::now();
    // How far the play is, for whoever reads why it failed.
    let step = |what: &str| eprintln!("{:.1} s: {what}", began.elapsed().as_secs_f32());
    let phone = Device::new(here, "alma", password, true).await?;
    let mobile = Device::new(there, "bert", password, true).await?;
    let (alma, bert): (OwnedUserId, OwnedUserId) = (phone.user().to_owned(), mobile.user().to_owned());

    // Identities, without the password, since they are the first; and recovery keys, with a backup.
    phone.client.encryption().bootstrap_cross_signing(None).await?;
    mobile.client.encryption().bootstrap_cross_signing(None).await?;
    let recovery_key = phone.client.encryption().recovery().enable().wait_for_backups_to_upload().await?;
    step("identities");

    let mut request = CreateRoom::new();
    request.preset = Some(RoomPreset::TrustedPrivateChat);
    request.is_direct = true; // where the two verify each other
    request.invite = vec![bert.clone()];
    let encryption = RoomEncryptionEventContent::with_recommended_defaults();
    request.initial_state = vec![InitialStateEvent::with_empty_state_key(encryption).to_raw_any()];
    let room_id = phone.client.create_room(request).await?.room_id().to_owned();
    mobile.room(&room_id, RoomState::Invited).await?.join().await?;
    let hers = phone.open(&room_id).await?;
    let his = mobile.open(&room_id).await?;
    until("both are in the room", || async {
        (hers.timeline.room().joined_members_count() == 2).then_some(())
    })
    .await?;
    phone.knows(&bert, 1, 0).await?;
    mobile.knows(&alma, 1, 0).await?;
    for body in ["first words", "more words"] {
        said(&hers, body, &[&hers, &his]).await?;
        said(&his, body, &[&hers, &his]).await?;
    }
    step("messages both ways");

    let identity =
        phone.client.encryption().get_user_identity(&bert).await?.context("bert has an identity")?;
    compare_emojis(&phone, identity.request_verification().await?, &mobile).await?;
    step("alma and bert have verified each other");

    // A new device: what is new it gets, what is old it has from the backup.
    phone.client.encryption().backups().wait_for_steady_state().await?;
    let tablet = Device::new(here, "alma", password, false).await?;
    tablet.client.encryption().recovery().recover(&recovery_key).await?;
    tablet.trusts(&bert).await?;
    try_join_all([&phone, &mobile, &tablet].map(|device| device.knows(&alma, 2, 0))).await?;
    let new = tablet.open(&room_id).await?;
    new.timeline.paginate_backwards(100).await?;
    for body in ["first words", "more words"] {
        new.reads(&format!("{body}, {}", phone.name)).await?;
        new.reads(&format!("{body}, {}", mobile.name)).await?;
    }
    let all = [&hers, &his, &new];
    for speaker in all {
        said(speaker, "with a new device", &all).await?;
    }
    step("a device was added, and has all from the backup");

    // The other's server is away for a while.
    ask("stop there").await?;
    for number in 0..3 {
        said(&hers, &format!("{number} while it is away"), &[&hers, &new]).await?;
    }
    ask("start there").await?;
    for number in 0..3 {
        his.finds(&format!("{number} while it is away, {}", phone.name)).await?;
    }
    for speaker in all {
        said(speaker, "all are back", &all).await?;
    }
    step("a server was away");

    // A device is removed.
    let old = tablet.client.device_id().context("it has an id")?.to_owned();
    let refused = phone.client.delete_devices(std::slice::from_ref(&old), None).await.err();
    let refused = refused.context("a device could be removed without the password")?;
    let session = refused.as_uiaa_response().context("the password is wanted")?.session.clone();
    let mut auth = Password::new(MatrixUserIdentifier::new(alma.to_string()).into(), password.to_owned());
    auth.session = session;
    phone.client.delete_devices(&[old], Some(AuthData::Password(auth))).await?;
    try_join_all([&phone, &mobile].map(|device| device.knows(&alma, 1, 0))).await?;
    let left = [&hers, &his];
    for speaker in left {
        said(speaker, "after the removal", &left).await?;
    }
    step("a device was removed");

    for opened in [&hers, &his] {
        let undecrypted = opened.undecrypted().await;
        ensure!(undecrypted.is_empty(), "{} is unable to decrypt {undecrypted:?}", opened.device.name);
    }
    Ok(())
}
