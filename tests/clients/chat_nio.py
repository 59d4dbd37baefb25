"""One of the two who chat in tests/clients.rs, with matrix-nio. README.md beside this file has the script of the play.

nio keeps state (names, receipts, typing) but no timeline, so this program keeps the timeline as a bot would: from the
sync responses, filling each gap that a limited one announces.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable

import nio

PATIENCE = 120  # seconds until a step counts as failed
FILTER = {"room": {"state": {"lazy_load_members": True}, "timeline": {"limit": 20}}}


class Failure(Exception):
    """What should have happened and did not."""


def good(response, kind: type):
    """The response, if it is of the kind that success has."""
    if not isinstance(response, kind):
        raise Failure(f"wanted {kind.__name__}, got {response}")
    return response


def tell(word: str, value=None) -> None:
    print(f"@{word}" if value is None else f"@{word} {json.dumps(value)}", flush=True)


class Chat:
    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.me, self.peer = options.me, options.peer
        self.peer_id = f"@{options.peer}:{options.server_name}"
        self.client = nio.AsyncClient(options.url, f"@{options.me}:{options.server_name}")
        self.client.add_response_callback(self.synced, nio.SyncResponse)
        self.room_id = ""
        self.invited_to: str | None = None
        self.timeline: list[nio.Event] = []
        self.changed = asyncio.Event()
        self.syncing: asyncio.Task | None = None

    # --- the timeline that sync brings ---

    async def synced(self, response: nio.SyncResponse) -> None:
        for room_id in response.rooms.invite:
            self.invited_to = room_id
        for room_id, room in response.rooms.join.items():
            if self.room_id in ("", room_id):
                if room.timeline.limited:
                    self.timeline += await self.gap(room_id, room.timeline.prev_batch)
                self.timeline += room.timeline.events
        self.changed.set()

    async def gap(self, room_id: str, prev_batch: str) -> list[nio.Event]:
        """The events between what is known and `prev_batch`, oldest first."""
        known = {event.event_id for event in self.timeline}
        missing: list[nio.Event] = []
        start: str | None = prev_batch
        while start is not None:
            page = good(await self.client.room_messages(room_id, start, limit=25), nio.RoomMessagesResponse)
            for event in page.chunk:
                if event.event_id in known:
                    return missing[::-1]
                missing.append(event)
            start = page.end
        return missing[::-1]

    def by_peer(self) -> list[nio.Event]:
        return [event for event in self.timeline if event.sender == self.peer_id]

    def bodies(self, events: list[nio.Event], kind: type) -> list[str]:
        """The bodies of the messages of a kind, edits left out."""
        return [
            event.body
            for event in events
            if isinstance(event, kind) and "m.relates_to" not in event.source["content"]
        ]

    def message(self, who: str, number: int) -> nio.Event:
        body, sender = f"{who} {number}", f"@{who}:{self.options.server_name}"
        for event in self.timeline:
            if event.sender == sender and event.source["content"].get("body") == body:
                return event
        raise Failure(f"no message {body!r} in the timeline")

    async def until(self, what: str, condition: Callable[[], bool]) -> None:
        """Waits until syncs have made the condition true."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while not condition():
            self.changed.clear()
            if self.syncing is not None and self.syncing.done():
                raise Failure(f"sync_forever ended while waiting: {what}") from self.syncing.exception()
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                raise Failure(f"not within {PATIENCE} s: {what}")
            try:
                # Now and then without a sync too, to see that syncing itself has failed.
                await asyncio.wait_for(self.changed.wait(), min(left, 1))
            except asyncio.TimeoutError:
                pass

    # --- the steps ---

    async def register(self) -> None:
        name, password = self.me, self.options.password
        if self.options.token:
            response = await self.client.register_with_token(name, password, self.options.token)
        else:
            response = await self.client.register(name, password)
        good(response, nio.RegisterResponse)
        self.syncing = asyncio.create_task(self.client.sync_forever(timeout=30_000, sync_filter=FILTER))

    async def meet(self) -> None:
        if self.options.role == "host":
            response = await self.client.room_create(
                name="Real clients", preset=nio.RoomPreset.private_chat, invite=[self.peer_id]
            )
            self.room_id = good(response, nio.RoomCreateResponse).room_id
        else:
            await self.until("an invitation arrives", lambda: self.invited_to is not None)
            self.room_id = self.invited_to or ""
            good(await self.client.join(self.room_id), nio.JoinResponse)

        def both_joined() -> bool:
            joined = {
                event.state_key
                for event in self.timeline
                if isinstance(event, nio.RoomMemberEvent) and event.membership == "join"
            }
            return joined == {self.client.user_id, self.peer_id}

        await self.until("both are in the room", both_joined)

    async def send(self, kind: str, content: dict) -> str:
        response = await self.client.room_send(self.room_id, kind, content)
        return good(response, nio.RoomSendResponse).event_id

    async def say(self, numbers: range) -> None:
        for number in numbers:
            await self.send("m.room.message", {"msgtype": "m.text", "body": f"{self.me} {number}"})

    async def hear(self, count: int) -> None:
        def heard() -> list[str]:
            return self.bodies(self.by_peer(), nio.RoomMessageText)

        await self.until(f"{count} messages of {self.peer}", lambda: len(heard()) >= count)
        expected = [f"{self.peer} {number}" for number in range(1, count + 1)]
        if heard() != expected:
            raise Failure(f"messages lost, repeated or out of order: {heard()}")

    async def talk(self) -> None:
        whole = self.options.messages
        half = whole // 2
        await asyncio.gather(self.say(range(1, half + 1)), self.hear(half))
        await self.at("half")
        tell("halfway")
        line = await asyncio.to_thread(sys.stdin.readline)
        if not line:
            raise Failure("standard input ended at half-way")
        tell("sending")
        await asyncio.gather(self.say(range(half + 1, whole + 1)), self.hear(whole))

    async def at(self, step: str) -> str:
        """Tells the other that this step is reached, and waits until the other is there. The other's notice."""
        await self.send("m.room.message", {"msgtype": "m.notice", "body": f"{self.me} at {step}"})
        notice = f"{self.peer} at {step}"
        await self.until(
            f"{self.peer} comes to {step}", lambda: notice in self.bodies(self.by_peer(), nio.RoomMessageNotice)
        )
        await self.until(f"own notice at {step}", lambda: self.has(self.me, f"{self.me} at {step}"))
        return next(event.event_id for event in self.by_peer() if event.source["content"].get("body") == notice)

    def has(self, who: str, body: str) -> bool:
        sender = f"@{who}:{self.options.server_name}"
        return any(e.sender == sender and e.source["content"].get("body") == body for e in self.timeline)

    async def change(self) -> None:
        edited, redacted = self.message(self.me, 1), self.message(self.me, 2)
        theirs_edited, theirs_redacted = self.message(self.peer, 1), self.message(self.peer, 2)
        liked, mine_liked = self.message(self.peer, 3), self.message(self.me, 3)

        text = {"msgtype": "m.text", "body": f"{self.me} 1, edited"}
        replaces = {"rel_type": "m.replace", "event_id": edited.event_id}
        await self.send(
            "m.room.message", {**text, "body": f"* {text['body']}", "m.new_content": text, "m.relates_to": replaces}
        )
        good(await self.client.room_redact(self.room_id, redacted.event_id, "a slip"), nio.RoomRedactResponse)
        await self.send(
            "m.reaction", {"m.relates_to": {"rel_type": "m.annotation", "event_id": liked.event_id, "key": "👍"}}
        )

        def edit_seen(event: nio.Event) -> bool:
            content = event.source["content"]
            return (
                content.get("m.relates_to") == {"rel_type": "m.replace", "event_id": theirs_edited.event_id}
                and content.get("m.new_content", {}).get("body") == f"{self.peer} 1, edited"
            )

        await self.until("the other's edit", lambda: any(edit_seen(event) for event in self.by_peer()))
        await self.until(
            "the other's redaction",
            lambda: any(
                isinstance(event, nio.RedactionEvent) and event.redacts == theirs_redacted.event_id
                for event in self.by_peer()
            ),
        )
        await self.until(
            "the other's reaction",
            lambda: any(
                isinstance(event, nio.ReactionEvent) and event.reacts_to == mine_liked.event_id and event.key == "👍"
                for event in self.by_peer()
            ),
        )
        again = await self.client.room_get_event(self.room_id, theirs_redacted.event_id)
        event = good(again, nio.RoomGetEventResponse).event
        if not isinstance(event, nio.RedactedEvent) or "body" in event.source["content"]:
            raise Failure(f"redacted content is served again: {event.source}")

    async def type(self) -> None:
        typing = lambda: self.peer_id in self.client.rooms[self.room_id].typing_users  # noqa: E731
        good(await self.client.room_typing(self.room_id, True), nio.RoomTypingResponse)
        await self.until("the other types", typing)
        await self.at("typed")
        good(await self.client.room_typing(self.room_id, False), nio.RoomTypingResponse)
        await self.until("the other stops typing", lambda: not typing())

    async def read(self) -> None:
        theirs = await self.at("reading")
        room = self.client.rooms[self.room_id]
        mine = next(e for e in reversed(self.timeline) if e.source["content"].get("body") == f"{self.me} at reading")
        good(await self.client.room_read_markers(self.room_id, theirs, theirs), nio.RoomReadMarkersResponse)

        def receipt_seen() -> bool:
            receipt = room.read_receipts.get(self.peer_id)
            return receipt is not None and receipt.event_id == mine.event_id

        await self.until("the other's receipt", receipt_seen)
        await self.until("the own read marker", lambda: room.fully_read_marker == theirs)

    async def rename(self) -> None:
        good(await self.client.set_displayname(f"{self.me} the Great"), nio.ProfileSetDisplayNameResponse)
        name, room = f"{self.peer} the Great", self.client.rooms[self.room_id]
        await self.until("the other's new name in the room", lambda: room.user_name(self.peer_id) == name)
        profile = good(await self.client.get_displayname(self.peer_id), nio.ProfileGetDisplayNameResponse)
        if profile.displayname != name:
            raise Failure(f"the other's profile says {profile.displayname!r}")

    async def agree(self) -> None:
        synced = [event.event_id for event in self.timeline]
        for event in self.timeline:
            if isinstance(event, nio.BadEvent):
                raise Failure(f"nio finds no sense in {event.source}")
        client = nio.AsyncClient(self.options.url, self.client.user_id)
        try:
            good(await client.login(self.options.password), nio.LoginResponse)
            few = {"room": {"timeline": {"limit": 5}}}
            first = good(await client.sync(sync_filter=few), nio.SyncResponse).rooms.join[self.room_id].timeline
            if len(first.events) > 5 or not first.limited:
                raise Failure(f"asked for 5 of many events, got {len(first.events)}, limited {first.limited}")
            back = await self.page(client, first.prev_batch, nio.MessageDirection.back)
            back = back[::-1] + [event.event_id for event in first.events]
            forward = await self.page(client, None, nio.MessageDirection.front)
            good(await client.logout(), nio.LogoutResponse)
        finally:
            await client.close()
        if len(set(synced)) != len(synced):
            raise Failure("sync brought an event twice")
        for name, ids in (("paging back", back), ("paging forward", forward)):
            if ids != synced:
                at = next((at for at, pair in enumerate(zip(ids, synced)) if pair[0] != pair[1]), "the end")
                raise Failure(
                    f"{name} gave {len(ids)} events, sync {len(synced)}; {len(set(synced) - set(ids))} of sync's are "
                    f"missing, {len(set(ids) - set(synced))} are new; they part at {at}"
                )
        if not isinstance(self.timeline[0], nio.RoomCreateEvent):
            raise Failure(f"the first event is {self.timeline[0]}")
        tell("timeline", synced)

    async def page(self, client: nio.AsyncClient, start: str | None, direction: nio.MessageDirection) -> list[str]:
        """The ids of all events from a token (from the end of the room without one), in the order they come."""
        ids: list[str] = []
        while True:
            page = await client.room_messages(self.room_id, start, direction=direction, limit=25)
            page = good(page, nio.RoomMessagesResponse)
            ids += [event.event_id for event in page.chunk]
            # Going forward, some servers give an `end` for ever, to ask for what comes next.
            if page.end is None or (direction == nio.MessageDirection.front and not page.chunk):
                return ids
            start = page.end

    async def run(self) -> None:
        try:
            await self.register()
            await self.meet()
            await self.talk()
            await self.at("talked")
            await self.change()
            await self.at("changed")
            await self.type()
            await self.read()
            await self.rename()
            await self.at("the end")
            await self.agree()
        finally:
            if self.syncing is not None:
                self.syncing.cancel()
            await self.client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--server-name", default="localhost")
    parser.add_argument("--role", choices=["host", "guest"], required=True)
    parser.add_argument("--me", required=True)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--password", required=True)
    parser.add_argument("--token")
    parser.add_argument("--messages", type=int, default=100)
    options = parser.parse_args()
    try:
        asyncio.run(Chat(options).run())
    except Failure as failure:
        sys.exit(f"{options.me} ({options.role}, matrix-nio): {failure}")


main()
