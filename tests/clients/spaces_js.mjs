// Spaces and upgrades as Element uses them, with matrix-js-sdk: a tree of rooms and what a stranger and a member see of it,
// rooms that let in who is in the space, summaries, and a room that moves to a new version with what its members set for
// it. `tests/clients.rs` runs it; README.md beside this file says of what it is one.

import assert from "node:assert/strict";
import { Room } from "matrix-js-sdk";
import { RoomHierarchy } from "matrix-js-sdk/lib/room-hierarchy.js";
import { register, run } from "./play.mjs";

const PATIENCE = 60_000; // milliseconds until a step counts as failed

/** Waits until the condition holds; gives what it gave. */
async function until(what, condition) {
    const deadline = Date.now() + PATIENCE;
    for (;;) {
        const result = await condition();
        if (result) return result;
        assert.ok(Date.now() < deadline, `not within ${PATIENCE} ms: ${what}`);
        await new Promise((resolve) => setTimeout(resolve, 10));
    }
}

const clients = [];

/** A new user's client, at its first whole sync. */
async function enter(name) {
    const client = await register(name);
    clients.push(client);
    await client.startClient({ lazyLoadMembers: true });
    await until(`${name} syncs`, () => client.isInitialSyncComplete());
    return client;
}

/** A room as a client's sync has it, once the user is in. A step at a time: first the SDK knows no more than that. */
function joined(client, roomId) {
    const userId = client.getUserId();
    return until(`${userId} is in ${roomId}`, () => {
        const room = client.getRoom(roomId);
        const state = (type, key) => room?.currentState.getStateEvents(type, key);
        const whole = state("m.room.create", "") && state("m.room.name", "");
        return whole && state("m.room.member", userId)?.getContent().membership === "join" && room;
    });
}

/** The whole hierarchy below a space, by pages of two, as the SDK puts it together. */
async function hierarchy(client, spaceId, suggestedOnly) {
    // A stranger's client doesn't know the room: Element makes one up too.
    const root = client.getRoom(spaceId) ?? new Room(spaceId, client, client.getUserId());
    const found = new RoomHierarchy(root, 2, 10, suggestedOnly);
    for (let pages = 0; found.canLoadMore; pages++) {
        assert.ok(pages < 20, "pages without end");
        await found.load();
    }
    return found;
}

const names = (found) => found.rooms.map((room) => room.name);
const refused = (cause) => cause.errcode === "M_FORBIDDEN" && cause.httpStatus === 403;

async function spaces(alice, bob) {
    const create = async (name, more) => (await alice.createRoom({ name, ...more })).room_id;
    const space = { creation_content: { type: "m.space" }, preset: "public_chat" };
    const house = await create("House", { ...space, room_alias_name: "house" });
    const garden = await create("Garden", space);
    const hall = await create("Hall", { preset: "public_chat", room_version: "11" });
    const cellar = await create("Cellar", { preset: "private_chat" });
    const shed = await create("Shed", { preset: "public_chat" });
    const allow = [{ type: "m.room_membership", room_id: house }];
    const rules = { join_rule: "restricted", allow };
    const kitchen = await create("Kitchen", {
        initial_state: [{ type: "m.room.join_rules", state_key: "", content: rules }],
    });
    const child = (parent, room, order, suggested) =>
        alice.sendStateEvent(parent, "m.space.child", { via: ["localhost"], order, suggested }, room);
    await child(house, garden, "c");
    await child(house, cellar, "d");
    await child(house, kitchen, "b");
    await child(house, hall, "a", true);
    await child(garden, shed);
    await child(garden, house); // A way back up is no way without end.

    const strangers = await hierarchy(bob, house);
    assert.deepEqual(names(strangers), ["House", "Hall", "Garden", "Shed"]);
    await assert.rejects(bob.joinRoom(kitchen), refused);
    await assert.rejects(bob.getRoomHierarchy(cellar), refused);
    const [root] = strangers.rooms;
    assert.equal(root.room_type, "m.space");
    assert.equal(root.canonical_alias, "#house:localhost");
    assert.deepEqual([...strangers.viaMap.get(kitchen)], ["localhost"]);
    assert.equal(strangers.isSuggested(house, hall), true);
    assert.deepEqual(names(await hierarchy(bob, house, true)), ["House", "Hall"]);
    assert.deepEqual((await bob.getRoomHierarchy(house, 50, 1)).rooms.map((room) => room.name), [
        "House",
        "Hall",
        "Garden",
    ]);

    await bob.joinRoom("#house:localhost");
    const members = await hierarchy(bob, house);
    assert.deepEqual(names(members), ["House", "Hall", "Kitchen", "Garden", "Shed"]);
    assert.equal(members.roomMap.get(kitchen).join_rule, "restricted");
    await bob.joinRoom(kitchen, { viaServers: ["localhost"] });
    const room = await joined(bob, kitchen);
    const member = room.currentState.getStateEvents("m.room.member", bob.getUserId());
    assert.equal(member.getContent().join_authorised_via_users_server, alice.getUserId());
    assert.ok((await joined(bob, house)).isSpaceRoom());
    return { house, hall, kitchen, cellar };
}

async function summaries(bob, { hall, kitchen, cellar }) {
    const summary = await bob.getRoomSummary(hall);
    assert.equal(summary.name, "Hall");
    assert.equal(summary.membership, "leave");
    assert.equal(summary["im.nheko.summary.room_version"], "11");
    const own = await bob.getRoomSummary(kitchen);
    assert.equal(own.membership, "join");
    assert.equal(own.num_joined_members, 2);
    await assert.rejects(bob.getRoomSummary(cellar), (cause) => cause.errcode === "M_NOT_FOUND");
}

async function upgrade(alice, bob, { house, hall }) {
    await bob.joinRoom(hall);
    const old = await joined(bob, hall);
    assert.equal((await old.getRecommendedVersion()).needsUpgrade, false, "the server says that 11 is stable");
    assert.ok(old.maySendMessage());
    await bob.setRoomTag(hall, "m.favourite", { order: 0.5 });
    await bob.setRoomMutePushRule("global", hall, true);
    await until("Bob's rules are known", () => bob.getRoomPushRule("global", hall));

    await assert.rejects(bob.upgradeRoom(hall, "12"), refused);
    const { replacement_room: replacement } = await alice.upgradeRoom(hall, "12");
    const successor = await until("Bob sees the tombstone", () => {
        return old.currentState.getStateEvents("m.room.tombstone", "")?.getContent().replacement_room;
    });
    assert.equal(successor, replacement);
    await until("Bob may not go on in the old room", () => !old.maySendMessage());
    await bob.joinRoom(successor);
    const room = await joined(bob, successor);
    assert.equal(room.name, "Hall");
    assert.equal(room.getVersion(), "12");
    assert.equal(room.findPredecessor().roomId, hall);
    const history = bob.getRoomUpgradeHistory(successor, true);
    assert.deepEqual(history.map((room) => room.roomId), [hall, successor]);
    const visible = bob.getVisibleRooms().map((room) => room.roomId);
    assert.ok(visible.includes(successor) && !visible.includes(hall), "one room to Bob");
    assert.ok(room.maySendMessage());

    // What Bob had set for the old room is there for the new one.
    await until("the tag has come over", () => room.tags["m.favourite"]?.order === 0.5);
    await until("the rule has come over", () => bob.getRoomPushRule("global", successor));

    // The space names the new room in the place of the old one.
    await alice.sendStateEvent(house, "m.space.child", {}, hall);
    await alice.sendStateEvent(house, "m.space.child", { via: ["localhost"], order: "a" }, successor);
    const found = await hierarchy(bob, house);
    assert.equal(found.rooms[1].room_id, successor);
    assert.ok(!found.roomMap.has(hall));
}

async function play() {
    const [alice, bob] = [await enter("alice"), await enter("bob")];
    const rooms = await spaces(alice, bob);
    await summaries(bob, rooms);
    await upgrade(alice, bob, rooms);
    for (const client of clients) client.stopClient();
}

await run(play);
