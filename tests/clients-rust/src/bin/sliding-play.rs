//! Rooms by sliding sync, as Element X has them: two people with matrix-sdk and matrix-sdk-ui. A list of rooms, a room that is
//! opened, messages both ways, reading on another device, an invite, leaving and coming back.
//!
//! `sliding-play URL` ends with status 0 if all came true. `tests/clients.rs` runs it under `make test-more`.

use std::{future::Future, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use eyeball_im::Vector;
use futures_util::{StreamExt, pin_mut};
use matrix_sdk::{
    Client, Room, RoomState,
    config::SyncSettings,
    ruma::{
        OwnedRoomId, RoomId, UserId,
        api::client::{
            account::register::v3::Request as Register,
            receipt::create_receipt::v3::ReceiptType,
            room::create_room::v3::{Request as CreateRoom, RoomPreset},
            uiaa::{AuthData, Dummy},
        },
        events::{
            AnyMessageLikeEventContent, receipt::ReceiptThread, room::message::RoomMessageEventContent,
        },
    },
    sliding_sync::Version,
};
use matrix_sdk_ui::{
    room_list_service::{RoomListItem, filters::new_filter_non_left},
    sync_service::SyncService,
    timeline::{RoomExt, Timeline},
};

const PASSWORD: &str = "correct horse battery staple";
const PATIENCE: Duration = Duration::from_secs(60);
const ROOMS: usize = 25;

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).context("usage: sliding-play URL")?;
    play(&url).await
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

async fn client(url: &str) -> Result<Client> {
    Ok(Client::builder().homeserver_url(url).build().await?)
}

async fn register(url: &str, name: &str) -> Result<Client> {
    let client = client(url).await?;
    let mut request = Register::new();
    request.username = Some(name.to_owned());
    request.password = Some(PASSWORD.to_owned());
    request.auth = Some(AuthData::Dummy(Dummy::new()));
    client.matrix_auth().register(request).await?;
    Ok(client)
}

async fn create(client: &Client, name: &str, invite: &[&UserId]) -> Result<Room> {
    let mut request = CreateRoom::new();
    request.name = Some(name.to_owned());
    request.invite = invite.iter().map(|user_id| (*user_id).to_owned()).collect();
    request.preset = Some(if invite.is_empty() { RoomPreset::PublicChat } else { RoomPreset::PrivateChat });
    Ok(client.create_room(request).await?)
}

fn text(text: &str) -> AnyMessageLikeEventContent {
    RoomMessageEventContent::text_plain(text).into()
}

async fn texts(timeline: &Timeline) -> Vec<String> {
    let items = timeline.items().await;
    let messages = items.iter().filter_map(|item| item.as_event()?.content().as_message().cloned());
    messages.map(|message| message.body().to_owned()).collect()
}

/// A client whose rooms come by sliding sync, and the list that it shows.
struct Person {
    client: Client,
    sync: SyncService,
}

impl Person {
    async fn start(client: Client) -> Result<Self> {
        ensure!(
            client
                .available_sliding_sync_versions()
                .await
                .iter()
                .any(|version| matches!(version, Version::Native)),
            "the server says that it has no sliding sync"
        );
        let sync = SyncService::builder(client.clone()).build().await?;
        sync.start().await;
        Ok(Self { client, sync })
    }

    /// Waits until the list has that many rooms, the first of which is called so.
    async fn list(&self, count: usize, first: Option<&str>) -> Result<()> {
        let all = self.sync.room_list_service().all_rooms().await?;
        let (entries, controller) = all.entries_with_dynamic_adapters(100);
        pin_mut!(entries);
        controller.set_filter(Box::new(new_filter_non_left()));
        let mut rooms: Vector<RoomListItem> = Vector::new();
        let looking = async {
            while let Some(changes) = entries.next().await {
                changes.into_iter().for_each(|change| change.apply(&mut rooms));
                let name = |room: &RoomListItem| room.cached_display_name().map(|name| name.to_string());
                let named = first.is_none() || rooms.front().and_then(name).as_deref() == first;
                if rooms.len() == count && named {
                    return Ok(());
                }
            }
            bail!("the list of rooms ended")
        };
        let found = tokio::time::timeout(PATIENCE, looking).await;
        let names: Vec<_> = rooms
            .iter()
            .map(|room| (room.cached_display_name().map(|name| name.to_string()), room.recency_stamp()))
            .collect();
        found.with_context(|| format!("there are not {count} rooms, {first:?} first: {names:?}"))?
    }

    async fn open(&self, room_id: &RoomId) -> Result<(Room, Timeline)> {
        let room = until("the room", || async { self.client.get_room(room_id) }).await?;
        self.sync.room_list_service().subscribe_to_rooms(&[room_id]).await;
        let timeline = room.timeline().await?;
        Ok((room, timeline))
    }

    async fn sees(&self, timeline: &Timeline, body: &str) -> Result<()> {
        until(body, || async { texts(timeline).await.iter().any(|text| text == body).then_some(()) }).await
    }

    async fn state(&self, room_id: &RoomId, state: RoomState) -> Result<Room> {
        until(&format!("{room_id} is {state:?}"), || async {
            self.client.get_room(room_id).filter(|room| room.state() == state)
        })
        .await
    }
}

async fn play(url: &str) -> Result<()> {
    let alice = register(url, "alice").await?;
    let bob = register(url, "bob").await?;
    let bob_id = bob.user_id().context("bob is logged in")?.to_owned();
    let mut made: Vec<OwnedRoomId> = Vec::new();
    for number in 0..ROOMS {
        let room = create(&alice, &format!("room {number}"), &[]).await?;
        for message in 0..3 {
            room.send(RoomMessageEventContent::text_plain(format!("message {message}"))).await?;
        }
        made.push(room.room_id().to_owned());
        bob.join_room_by_id(room.room_id()).await?;
    }

    // The list.
    let (alice, bob) = (Person::start(alice).await?, Person::start(bob).await?);
    let newest = format!("room {}", ROOMS - 1);
    bob.list(ROOMS, Some(&newest)).await?;
    alice.list(ROOMS, Some(&newest)).await?;

    // A room is opened, and people talk in it.
    let (bobs, shown) = bob.open(&made[3]).await?;
    let (alices, hers) = alice.open(&made[3]).await?;
    for message in ["message 0", "message 1", "message 2"] {
        bob.sees(&shown, message).await?;
    }
    hers.send(text("hello bob")).await?;
    bob.sees(&shown, "hello bob").await?;
    shown.send(text("hello alice")).await?;
    alice.sees(&hers, "hello alice").await?;
    // The SDK takes in what it was sent step by step, echoes of its own too.
    let wanted = ["message 0", "message 1", "message 2", "hello bob", "hello alice"];
    if let Err(late) = until("one timeline", || async { (texts(&shown).await == wanted).then_some(()) }).await
    {
        return Err(late.context(format!("{:?}", texts(&shown).await)));
    }
    ensure!(alices.name() == Some("room 3".to_owned()));

    // A message in another room, read on another device.
    let other = bob.state(&made[7], RoomState::Joined).await?;
    let there = alice.state(&made[7], RoomState::Joined).await?;
    let sent = there.send(RoomMessageEventContent::text_plain("did you see this?")).await?;
    until("a marker", || async { (other.num_unread_messages() > 0).then_some(()) }).await?;
    let tablet = client(url).await?;
    tablet.matrix_auth().login_username("bob", PASSWORD).await?;
    tablet.sync_once(SyncSettings::new()).await?;
    let same = tablet.get_room(&made[7]).context("the room on the other device")?;
    same.send_single_receipt(ReceiptType::Read, ReceiptThread::Unthreaded, sent.response.event_id).await?;
    until("no marker", || async { (other.num_unread_messages() == 0).then_some(()) }).await?;

    // An invite, taken.
    let secret = create(&alice.client, "secret", &[&bob_id]).await?;
    let invited = bob.state(secret.room_id(), RoomState::Invited).await?;
    ensure!(invited.cached_display_name().is_some_and(|name| name.to_string() == "secret"));
    invited.join().await?;
    let (_, shown) = bob.open(secret.room_id()).await?;
    secret.send(RoomMessageEventContent::text_plain("only here")).await?;
    bob.sees(&shown, "only here").await?;
    bob.list(ROOMS + 1, None).await?;

    // Left, and joined again.
    bobs.leave().await?;
    bob.state(&made[3], RoomState::Left).await?;
    bob.list(ROOMS, None).await?;
    bob.client.join_room_by_id(&made[3]).await?;
    bob.state(&made[3], RoomState::Joined).await?;
    bob.list(ROOMS + 1, None).await?;
    let (_, shown) = bob.open(&made[3]).await?;
    hers.send(text("welcome back")).await?;
    bob.sees(&shown, "welcome back").await?;

    // Sent away.
    secret.kick_user(&bob_id, Some("enough")).await?;
    bob.state(secret.room_id(), RoomState::Left).await?;
    alice.sync.stop().await;
    bob.sync.stop().await;
    Ok(())
}
