// Rooms by sliding sync, with matrix-js-sdk: a list of rooms that is loaded piece by piece, an invite, a room that is
// opened, messages both ways, reading on another device. `tests/clients.rs` runs it; README.md beside this file says of what it
// is one.

import assert from "node:assert/strict";
import { ClientEvent, ReceiptType, RoomEvent, RoomStateEvent } from "matrix-js-sdk";
import { SlidingSync, SlidingSyncEvent } from "matrix-js-sdk/lib/sliding-sync.js";
import { register, run } from "./play.mjs";

const ROOMS = 12;
const WINDOW = 4; // rooms that the list shows at first
const POLL = 30_000; // milliseconds

const texts = (room) =>
    room
        .getLiveTimeline()
        .getEvents()
        .filter((event) => event.getType() === "m.room.message")
        .map((event) => event.getContent().body);

/** Until `condition` holds; it is looked at whenever something comes in. */
function until(client, what, condition) {
    return new Promise((resolve) => {
        const events = [ClientEvent.Room, ClientEvent.Sync, RoomEvent.Timeline, RoomEvent.Receipt, RoomEvent.MyMembership,
            RoomEvent.UnreadNotifications, RoomStateEvent.Events, ClientEvent.AccountData];
        const look = () => {
            const found = condition();
            if (!found) return;
            events.forEach((event) => client.off(event, look));
            client.sliding.off(SlidingSyncEvent.Lifecycle, look);
            resolve(found);
        };
        events.forEach((event) => client.on(event, look));
        client.sliding.on(SlidingSyncEvent.Lifecycle, look);
        look();
    });
}

/** Starts a client with one list of all its rooms. */
async function start(client) {
    const list = { ranges: [[0, WINDOW - 1]], timeline_limit: 3, required_state: [["*", "*"]] };
    const opened = { timeline_limit: 20, required_state: [["*", "*"]] };
    client.sliding = new SlidingSync(client.baseUrl, new Map([["all", list]]), opened, client, POLL);
    await client.startClient({ slidingSync: client.sliding });
}

await run(async () => {
    const alice = await register("alice");
    const bob = await register("bob");
    const rooms = [];
    for (let number = 0; number < ROOMS; number++) {
        const { room_id: room } = await alice.createRoom({ preset: "public_chat", name: `room ${number}` });
        for (let message = 0; message < 5; message++) await alice.sendTextMessage(room, `message ${message}`);
        await bob.joinRoom(room);
        rooms.push(room);
    }

    // The list, and more of it.
    await start(bob);
    await until(bob, "the first window", () => bob.getRooms().length === WINDOW);
    assert.equal(bob.sliding.getListData("all").joinedCount, ROOMS);
    assert.ok(bob.getRoom(rooms.at(-1)) && !bob.getRoom(rooms[0]), "the last rooms come first");
    assert.equal(bob.getRoom(rooms.at(-1)).name, `room ${ROOMS - 1}`);
    bob.sliding.setListRanges("all", [[0, 99]]);
    await until(bob, "all rooms", () => bob.getRooms().length === ROOMS);

    // A room is opened: its timeline grows.
    const room = bob.getRoom(rooms[3]);
    assert.ok(texts(room).length < 5);
    bob.sliding.modifyRoomSubscriptions(new Set([rooms[3]]));
    // The SDK doesn't know of timelines that grow, and puts what is older behind what it has.
    await until(bob, "the history", () => texts(room).length === 5);
    assert.deepEqual(texts(room).sort(), [0, 1, 2, 3, 4].map((number) => `message ${number}`));

    // Messages both ways.
    await start(alice);
    alice.sliding.setListRanges("all", [[0, 99]]);
    await until(alice, "all rooms", () => alice.getRooms().length === ROOMS);
    await bob.sendTextMessage(rooms[3], "hello alice");
    await until(alice, "bob's message", () => texts(alice.getRoom(rooms[3])).includes("hello alice"));
    await alice.sendTextMessage(rooms[3], "hello bob");
    await until(bob, "alice's message", () => texts(room).includes("hello bob"));
    await until(bob, "the marker", () => room.getUnreadNotificationCount() > 0);
    assert.equal(texts(room).filter((text) => text === "hello alice").length, 1, "the own message is there once");

    // Read elsewhere.
    const last = room.getLiveTimeline().getEvents().at(-1);
    await bob.sendReadReceipt(last, ReceiptType.Read);
    await until(bob, "no marker", () => room.getUnreadNotificationCount() === 0);
    await until(alice, "the receipt", () => {
        const there = alice.getRoom(rooms[3]);
        return there.getEventReadUpTo(bob.getUserId(), true) === last.getId();
    });

    // An invite, taken.
    const { room_id: secret } = await alice.createRoom({ name: "secret", invite: [bob.getUserId()] });
    await until(bob, "the invite", () => bob.getRoom(secret)?.getMyMembership() === "invite");
    assert.equal(bob.getRoom(secret).name, "secret");
    await bob.joinRoom(secret);
    await until(bob, "the room", () => bob.getRoom(secret).getMyMembership() === "join");
    await alice.sendTextMessage(secret, "only here");
    await until(bob, "its message", () => texts(bob.getRoom(secret)).includes("only here"));

    // Sent away.
    await alice.kick(secret, bob.getUserId(), "enough");
    await until(bob, "the end", () => bob.getRoom(secret).getMyMembership() === "leave");

    alice.stopClient();
    bob.stopClient();
});
