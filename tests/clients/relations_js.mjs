// Two people and matrix-js-sdk: threads, edits and reactions, as Element uses them. tests/clients.rs starts it with
//
//     relations_js.mjs --url URL --password PASSWORD
//
// It prints nothing and ends with 0 if all that it looks for came true in the SDK's own models: its threads, its thread
// list, its relations, its replaced and redacted events, its unread counts and receipts.
//
// Steps wait for all to have seen what was done before: the SDK fetches a thread that it hears of the first time, and
// what comes by sync meanwhile may miscount (see `updateThreadMetadata` there).

import { isDeepStrictEqual, parseArgs } from "node:util";
import * as sdk from "matrix-js-sdk";

const PATIENCE = 60_000; // milliseconds until a step counts as failed
const { NotificationCountType, ReceiptType, RelationType } = sdk;

/** What should have happened and did not. */
class Failure extends Error {}

const warnings = [];
for (const level of ["trace", "debug", "log", "info"]) console[level] = () => {};
for (const level of ["warn", "error"]) console[level] = (...what) => warnings.push(what.join(" "));

/** Waits until the condition holds; gives what it gave. */
async function until(what, condition) {
    const deadline = Date.now() + PATIENCE;
    for (;;) {
        const result = await condition();
        if (result) return result;
        if (Date.now() > deadline) throw new Failure(`not within ${PATIENCE} ms: ${what}`);
        await new Promise((resolve) => setTimeout(resolve, 10));
    }
}

function same(what, found, expected) {
    if (!isDeepStrictEqual(found, expected)) {
        throw new Failure(`${what}: ${JSON.stringify(found)}, not ${JSON.stringify(expected)}`);
    }
}

const clients = [];

/** A client that syncs, at its first whole sync. */
async function start(login, initialSyncLimit) {
    const client = sdk.createClient({
        baseUrl: options.url,
        userId: login.user_id,
        deviceId: login.device_id,
        accessToken: login.access_token,
        timelineSupport: true,
    });
    clients.push(client);
    let prepared = false;
    client.on(sdk.ClientEvent.Sync, (state) => (prepared ||= state === "PREPARED"));
    await client.startClient({
        lazyLoadMembers: true,
        initialSyncLimit,
        threadSupport: true,
        pendingEventOrdering: "detached",
    });
    await until("the first sync", () => prepared);
    return client;
}

async function register(username) {
    const client = sdk.createClient({ baseUrl: options.url });
    const auth = { type: "m.login.dummy" };
    return start(await client.registerRequest({ username, password: options.password, auth }), 20);
}

async function newDevice(user) {
    const client = sdk.createClient({ baseUrl: options.url });
    const identifier = { type: "m.id.user", user };
    const login = await client.loginRequest({ type: "m.login.password", identifier, password: options.password });
    return start(login, 1);
}

/** Sends a text, in a thread if it is told which. The event's id. */
async function say(client, roomId, body, threadId = null) {
    return (await client.sendMessage(roomId, threadId, { msgtype: "m.text", body })).event_id;
}

/** Opens a thread, as a client does before it sends the first reply. */
async function open(client, roomId, rootId) {
    const room = client.getRoom(roomId);
    const root = await until("the root arrives", () => room.findEventById(rootId));
    const thread = room.getThread(rootId) ?? room.createThread(rootId, root, [], true);
    await until("the thread is open", () => thread.initialEventsFetched);
    return thread;
}

/** Waits until each of these threads, or rooms, has these events. */
async function seen(places, ...ids) {
    await until(`all have seen ${ids}`, () => places.every((place) => ids.every((id) => place.findEventById(id))));
}

/**
 * Sends as another device of the user would. By the SDK, an event that relates to one in a thread fails if its echo comes by
 * sync before the answer to the request, which happens here every other time (`updatePendingEvent` there). The event's id.
 */
async function send(client, roomId, type, content) {
    const path = `/rooms/${encodeURIComponent(roomId)}/send/${type}/${client.makeTxnId()}`;
    return (await client.http.authedRequest("PUT", path, undefined, content)).event_id;
}

async function edit(client, roomId, eventId, body) {
    const text = { msgtype: "m.text", body };
    const content = { ...text, "body": `* ${body}`, "m.new_content": text };
    content["m.relates_to"] = { rel_type: RelationType.Replace, event_id: eventId };
    return send(client, roomId, "m.room.message", content);
}

async function react(client, roomId, eventId, key) {
    const content = { "m.relates_to": { rel_type: RelationType.Annotation, event_id: eventId, key } };
    return send(client, roomId, "m.reaction", content);
}

/** The bodies of a thread's messages as they are shown now, oldest first, the root left out. */
function bodies(thread) {
    const messages = thread.events.filter((event) => event.getType() === "m.room.message" && !event.isRelation("m.replace"));
    return messages.filter((event) => event.getId() !== thread.id).map((event) => event.getContent().body);
}

/**
 * How many replies a thread has by its root. The SDK's own `thread.length` counts up from what the root once said, which may have
 * had a reply already that it counts when that comes by sync.
 */
async function replies(client, roomId, root) {
    const event = await client.fetchRoomEvent(roomId, root);
    return event.unsigned["m.relations"]["m.thread"].count;
}

/** How often each key is used on an event, by the SDK's aggregation. */
function reactions(room, eventId) {
    const relations = room.relations.getChildEventsForEvent(eventId, RelationType.Annotation, "m.reaction");
    const sorted = relations?.getSortedAnnotationsByKey() ?? [];
    return Object.fromEntries(sorted.map(([key, events]) => [key, events.size]).filter(([, count]) => count > 0));
}

function unread(client, roomId, threadId) {
    const room = client.getRoom(roomId);
    return threadId
        ? room.getThreadUnreadNotificationCount(threadId, NotificationCountType.Total)
        : room.getRoomUnreadNotificationCount(NotificationCountType.Total);
}

/** The roots in the SDK's list of threads, the newest first. */
function listed(timelineSet) {
    const events = timelineSet.getLiveTimeline().getEvents();
    return events.map((event) => event.getId()).reverse();
}

async function run() {
    const alice = await register("alice");
    const bob = await register("bob");
    const { room_id: roomId } = await alice.createRoom({ preset: "public_chat" });
    await bob.joinRoom(roomId);
    await until("both know the room", () =>
        [alice, bob].every((client) => client.getRoom(roomId)?.getMyMembership() === "join"),
    );
    const [aliceRoom, bobRoom] = [alice.getRoom(roomId), bob.getRoom(roomId)];

    // A thread, and another one.
    const root = await say(alice, roomId, "root");
    const theirs = await open(bob, roomId, root);
    const first = await say(bob, roomId, "one", root);
    const thread = await until("alice has the thread", () => aliceRoom.getThread(root));
    await until("she has fetched it", () => thread.initialEventsFetched);
    await seen([thread, theirs], first);
    const second = await say(bob, roomId, "too", root);
    await seen([thread, theirs], second);
    await until("alice sees two replies", () => isDeepStrictEqual(bodies(thread), ["one", "too"]));
    same("the root counts them", await replies(alice, roomId, root), 2);
    same("its latest reply", thread.replyToEvent.getId(), second);
    same("alice takes part in it", thread.hasCurrentUserParticipated, true);
    const other = await say(bob, roomId, "another root");
    const another = await open(alice, roomId, other);
    const reply = await say(alice, roomId, "reply", other);
    await seen([another, await until("bob has it too", () => bobRoom.getThread(other))], reply);

    // Unread: by thread, and the main timeline apart.
    await until("alice's unread counts", () => unread(alice, roomId, root) === 2 && unread(alice, roomId) === 1);

    // An edit in the thread.
    await edit(bob, roomId, second, "two");
    await until("the edit", () => isDeepStrictEqual(bodies(thread), ["one", "two"]));
    same("the edited event", Boolean(thread.findEventById(second).replacingEvent()), true);
    same("edits are no replies", await replies(alice, roomId, root), 2);

    // Reactions, and one taken back.
    const like = await react(alice, roomId, second, "👍");
    await react(bob, roomId, second, "👍");
    await react(bob, roomId, root, "🎉");
    await until("two reactions to one message", () => reactions(bobRoom, second)["👍"] === 2);
    await until("one to the root", () => reactions(aliceRoom, root)["🎉"] === 1);
    const refused = await react(alice, roomId, second, "👍").catch((error) => error.errcode);
    same("the same reaction again", refused, "M_DUPLICATE_ANNOTATION");
    await alice.redactEvent(roomId, root, like);
    for (const room of [aliceRoom, bobRoom]) {
        await until("the reaction is gone", () => reactions(room, second)["👍"] === 1);
    }

    // Receipts: one in the thread reads the thread alone.
    await alice.sendReadReceipt(thread.findEventById(second), ReceiptType.Read);
    await until("the thread is read", () => unread(alice, roomId, root) === 0);
    same("the main timeline is not", unread(alice, roomId), 1);
    await until("bob sees the receipt", () => theirs.getEventReadUpTo(alice.getUserId(), true) === second);
    await alice.sendReadReceipt(aliceRoom.findEventById(other), ReceiptType.Read);
    await until("the main timeline is read", () => unread(alice, roomId) === 0);
    await say(bob, roomId, "three", root);
    await until("one more in the thread", () => unread(alice, roomId, root) === 1 && unread(alice, roomId) === 0);

    // A device that knows nothing but the newest event: it lists the threads and opens one.
    const newcomer = await newDevice("alice");
    const room = newcomer.getRoom(roomId);
    same("the newcomer's counts", [unread(newcomer, roomId, root), unread(newcomer, roomId)], [1, 0]);
    await room.createThreadsTimelineSets();
    await room.fetchRoomThreads();
    const [all, mine] = room.threadsTimelineSets;
    same("all threads", listed(all), [root, other]);
    same("alice's threads", listed(mine), [root, other]);
    const opened = room.getThread(root);
    same("the newcomer's thread", [opened.length, opened.hasCurrentUserParticipated], [3, true]);
    await newcomer.getThreadTimeline(opened.timelineSet, first);
    await until("the newcomer reads the thread", () => isDeepStrictEqual(bodies(opened), ["one", "two", "three"]));
    await until("the newcomer counts reactions", () => reactions(room, second)["👍"] === 1);

    // The thread's last reply is redacted: it is no part of the thread any more.
    const last = opened.events.find((event) => event.getContent().body === "three").getId();
    await bob.redactEvent(roomId, root, last);
    await until("the thread is shorter for all", () =>
        [thread, theirs, opened].every((thread) => thread.replyToEvent.getId() === second),
    );
    same("the root counts two", await replies(alice, roomId, root), 2);
}

const { values: options } = parseArgs({
    options: { url: { type: "string" }, password: { type: "string" } },
});
try {
    await run();
    process.exit(0);
} catch (error) {
    const why = error instanceof Failure ? error.message : error.stack ?? error;
    for (const warning of warnings) process.stderr.write(`matrix-js-sdk: ${warning}\n`);
    process.stderr.write(`relations, matrix-js-sdk: ${why}\n`);
    process.exit(1);
}
