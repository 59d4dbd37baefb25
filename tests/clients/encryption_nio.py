"""Two people on two servers who encrypt with matrix-nio. README.md beside this file has the script of the play.

nio has devices that verify each other, and no identities or backups. Each device syncs by itself, as bots do.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable

import nio

PATIENCE = 60  # seconds until a step counts as failed


class Failure(Exception):
    """What should have happened and did not."""


def good(response, kind: type):
    """The response, if it is of the kind that success has."""
    if not isinstance(response, kind):
        raise Failure(f"wanted {kind.__name__}, got {response}")
    return response


class Device:
    def __init__(self, name: str, url: str, password: str, store: str):
        self.name, self.password = name, password
        config = nio.AsyncClientConfig(store_sync_tokens=False, encryption_enabled=True)
        self.client = nio.AsyncClient(url, name, store_path=store, config=config)
        self.client.add_event_callback(self.heard, nio.Event)
        self.client.add_to_device_callback(self.verifying, nio.KeyVerificationEvent)
        self.invited: set[str] = set()
        self.client.add_event_callback(self.invite, nio.InviteMemberEvent)
        self.texts: dict[str, str] = {}
        self.undecrypted: dict[str, nio.MegolmEvent] = {}
        self.emojis: dict[str, list] = {}
        self.cancelled: str | None = None
        self.changed = asyncio.Event()
        self.client.add_response_callback(self.synced, nio.SyncResponse)
        self.syncing: asyncio.Task | None = None

    @property
    def label(self) -> str:
        return f"{self.client.user_id}, {self.client.device_id}"

    # --- what comes ---

    async def synced(self, _: nio.SyncResponse) -> None:
        self.changed.set()

    async def invite(self, room: nio.MatrixRoom, _: nio.Event) -> None:
        self.invited.add(room.room_id)

    async def heard(self, _: nio.MatrixRoom, event: nio.Event) -> None:
        if isinstance(event, nio.MegolmEvent):
            self.undecrypted[event.event_id] = event
        elif isinstance(event, nio.RoomMessageText):
            if not event.decrypted:
                raise Failure(f"{event.body!r} was not encrypted")
            self.texts[event.event_id] = event.body

    async def verifying(self, event: nio.KeyVerificationEvent) -> None:
        """Both say yes to whatever is asked of them; the play compares what they were shown."""
        client, transaction = self.client, event.transaction_id
        if isinstance(event, nio.KeyVerificationStart):
            good(await client.accept_key_verification(transaction), nio.ToDeviceResponse)
        elif isinstance(event, nio.KeyVerificationKey):
            verification = client.key_verifications[transaction]
            if verification.canceled:
                raise Failure(f"{self.label} cancels the verification: {verification.cancel_reason}")
            # The own key is on its way out, and has to be there before what is said with it.
            await client.send_to_device_messages()
            self.emojis[transaction] = verification.get_emoji()
            good(await client.confirm_short_auth_string(transaction), nio.ToDeviceResponse)
        elif isinstance(event, nio.KeyVerificationCancel):
            self.cancelled = event.reason

    # --- what it does ---

    async def begin(self) -> None:
        self.syncing = asyncio.create_task(self.client.sync_forever(timeout=30_000, full_state=True))
        await self.until("its keys are on the server", lambda: self.client.olm_account_shared)

    async def register(self) -> None:
        good(await self.client.register(self.name, self.password), nio.RegisterResponse)
        await self.begin()

    async def login(self) -> None:
        good(await self.client.login(self.password), nio.LoginResponse)
        await self.begin()

    async def end(self) -> None:
        if self.syncing is not None:
            self.syncing.cancel()
        await self.client.close()

    async def until(self, what: str, condition: Callable[[], bool]) -> None:
        """Waits until syncs have made the condition true."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while not condition():
            self.changed.clear()
            if self.syncing is not None and self.syncing.done():
                why = self.syncing.exception()
                raise Failure(f"{self.label}: syncing ended while waiting: {what}: {why!r}") from why
            if asyncio.get_running_loop().time() > deadline:
                raise Failure(f"{self.label}: not within {PATIENCE} s: {what}; undecrypted: {[*self.undecrypted]}")
            try:
                # What has changed may have come by something other than a sync.
                await asyncio.wait_for(self.changed.wait(), 0.1)
            except asyncio.TimeoutError:
                pass

    def devices_of(self, user_id: str) -> set[str]:
        return {device.id for device in self.client.device_store.active_user_devices(user_id)}

    async def knows(self, room_id: str, *devices: "Device") -> None:
        """Waits until this device knows who is in the room, and with which devices."""
        for user_id in {device.client.user_id for device in devices}:
            wanted = {one.client.device_id for one in devices if one.client.user_id == user_id} - {self.client.device_id}
            await self.until(
                f"{user_id} is in the room with {wanted}",
                lambda: room_id in self.client.rooms
                and user_id in self.client.rooms[room_id].users
                and self.client.rooms[room_id].encrypted
                and self.devices_of(user_id) == wanted,
            )

    async def say(self, room_id: str, body: str) -> str:
        content = {"msgtype": "m.text", "body": body}
        sending = self.client.room_send(room_id, "m.room.message", content, ignore_unverified_devices=True)
        return good(await sending, nio.RoomSendResponse).event_id

    async def wire(self, room_id: str, event_id: str) -> dict:
        """An event as the server has it."""
        method, path = nio.Api.room_get_event(self.client.access_token, room_id, event_id)
        response = await self.client.send(method, path)
        return await response.json()

    async def reads(self, event_id: str, body: str) -> None:
        await self.until(f"{body!r} is read", lambda: self.texts.get(event_id) == body)


async def said(room_id: str, speaker: Device, body: str, readers: list[Device]) -> str:
    event_id = await speaker.say(room_id, body)
    for device in readers:
        await device.reads(event_id, body)
    return event_id


async def verify(first: Device, second: Device) -> None:
    """Two devices compare emojis."""
    client = first.client
    known = client.device_store[second.client.user_id][second.client.device_id]
    good(await client.start_key_verification(known), nio.ToDeviceResponse)
    mine = client.device_store[second.client.user_id]
    theirs = second.client.device_store[first.client.user_id]
    await first.until("the other is verified", lambda: mine[second.client.device_id].verified)
    await second.until("the other is verified", lambda: theirs[first.client.device_id].verified)
    if first.cancelled or second.cancelled:
        raise Failure(f"the verification was cancelled: {first.cancelled or second.cancelled}")
    if not first.emojis or first.emojis != second.emojis:
        raise Failure(f"different emojis: {first.emojis} and {second.emojis}")


async def ask(word: str) -> None:
    """Asks the test for something, and waits until it is done."""
    print(f"@{word}", flush=True)
    if not await asyncio.to_thread(sys.stdin.readline):
        raise Failure(f"standard input ended at {word}")


async def play(options: argparse.Namespace) -> None:
    all_devices: list[Device] = []
    began = time.monotonic()

    def device(name: str, url: str) -> Device:
        made = Device(name, url, options.password, tempfile.mkdtemp(dir=options.store))
        all_devices.append(made)
        return made

    def step(what: str) -> None:
        """Says how far the play is, for whoever reads why it failed."""
        print(f"{time.monotonic() - began:.1f} s: {what}", file=sys.stderr, flush=True)

    try:
        phone, laptop = device("anna", options.here), device("anna", options.here)
        mobile, desktop = device("ben", options.there), device("ben", options.there)
        await asyncio.gather(phone.register(), mobile.register())
        await asyncio.gather(laptop.login(), desktop.login())
        four = [phone, laptop, mobile, desktop]

        encryption = {"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
        made = await phone.client.room_create(
            preset=nio.RoomPreset.private_chat, initial_state=[encryption], invite=[mobile.client.user_id]
        )
        room = good(made, nio.RoomCreateResponse).room_id
        await mobile.until("an invitation arrives", lambda: room in mobile.invited)
        good(await mobile.client.join(room), nio.JoinResponse)
        await asyncio.gather(*(one.knows(room, *four) for one in four))
        for speaker in four:
            await said(room, speaker, f"first words of {speaker.label}", four)
        step("messages from each to all")

        await verify(phone, mobile)
        step("verified")

        tablet = device("ben", options.there)
        await tablet.login()
        five = [*four, tablet]
        await asyncio.gather(*(one.knows(room, *five) for one in five))
        for speaker in [phone, tablet, desktop]:
            await said(room, speaker, f"with a new device, {speaker.label}", five)
        step("a device was added")

        refused = await desktop.client.delete_devices([tablet.client.device_id])
        if not isinstance(refused, nio.DeleteDevicesAuthResponse):
            raise Failure(f"a device could be removed without the password: {refused}")
        auth = {"type": "m.login.password", "session": refused.session, "password": options.password}
        auth["identifier"] = {"type": "m.id.user", "user": desktop.client.user_id}
        good(await desktop.client.delete_devices([tablet.client.device_id], auth), nio.DeleteDevicesResponse)
        tablet.syncing.cancel()  # it would go on for ever
        await asyncio.gather(*(one.knows(room, *four) for one in four))
        for speaker in [phone, mobile]:
            event_id = await said(room, speaker, f"after the removal, {speaker.label}", four)
            wire = nio.Event.parse_encrypted_event(await speaker.wire(room, event_id))
            wire.room_id = room
            try:
                tablet.client.decrypt_event(wire)
            except nio.EncryptionError:
                continue
            raise Failure("a device that was removed reads what was said afterwards")
        step("a device was removed")

        await ask("stop there")
        sent = [await said(room, phone, f"{n} while the other server is away", [phone, laptop]) for n in range(3)]
        await ask("start there")
        for number, event_id in enumerate(sent):
            for one in (mobile, desktop):
                await one.reads(event_id, f"{number} while the other server is away")
        for speaker in [desktop, laptop]:
            await said(room, speaker, f"all are back, {speaker.label}", four)
        step("a server was away")

        for one in four:
            lost = [event_id for event_id in one.undecrypted if event_id not in one.texts]
            if lost:
                raise Failure(f"{one.label} is unable to decrypt {lost}")
    finally:
        await asyncio.gather(*(one.end() for one in all_devices))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--here", required=True)
    parser.add_argument("--there", required=True)
    parser.add_argument("--password", required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as options.store:
        try:
            asyncio.run(play(options))
        except Failure as failure:
            sys.exit(f"matrix-nio: {failure}")


main()
