// Searching as Element does it, with matrix-js-sdk: the messages of a room and of all rooms page by page, people, public
// rooms, and the rooms that two have in common. `tests/clients.rs` runs it; README.md beside this file says of what it is one.

import assert from "node:assert/strict";
import { register, run } from "./play.mjs";

const PAGE = 10; // results of a page when the client doesn't say
const MESSAGES = 25;

const body = (result) => result.context.getEvent().getContent().body;
const bodies = (found) => found.results.map(body);

async function messages(alice, bob) {
    const { room_id: tea } = await alice.createRoom({ preset: "public_chat", visibility: "public", name: "Tea room" });
    const { room_id: coffee } = await alice.createRoom({ name: "Coffee" });
    await bob.joinRoom(tea);
    const sent = [];
    for (let number = 1; number <= MESSAGES; number++) {
        const text = `leaf ${number}`;
        await (number % 2 ? alice : bob).sendTextMessage(tea, text);
        sent.unshift(text);
    }
    await alice.sendTextMessage(coffee, "a leaf of elsewhere");

    // A room's messages, as when searching from within it.
    const found = await alice.searchRoomEvents({ term: "LEAF", filter: { rooms: [tea] } });
    assert.ok(found.count > PAGE, "there are more than those of the page");
    assert.deepEqual(found.highlights, ["leaf"]);
    assert.deepEqual(bodies(found), sent.slice(0, PAGE), "the newest first");
    const context = found.results[1].context;
    const around = context.getTimeline().map((event) => event.getContent().body);
    assert.deepEqual(around, ["leaf 23", "leaf 24", "leaf 25"], "one before and one after, in their order");
    assert.equal(context.getEvent().getSender(), bob.getUserId());
    assert.ok(context.getPaginateToken(true) && context.getPaginateToken(false), "places to go on from");
    let pages = 1;
    while (found.next_batch) {
        await alice.backPaginateRoomEventsSearch(found);
        assert.ok(++pages <= MESSAGES, "pages without end");
    }
    assert.deepEqual(bodies(found), sent, "each once, in the order of the room");
    assert.equal(found.count, MESSAGES, "at the end it is known how many there are");

    // All rooms of whoever asks, and no others.
    const everywhere = await alice.searchRoomEvents({ term: "leaf" });
    assert.equal(body(everywhere.results[0]), "a leaf of elsewhere");
    assert.equal(body((await bob.searchRoomEvents({ term: "leaf" })).results[0]), sent[0]);
    assert.equal((await bob.searchRoomEvents({ term: "elsewhere" })).count, 0);
    assert.equal((await alice.searchRoomEvents({ term: "coffee bean" })).count, 0);

    // What was redacted is gone from the next search on.
    const [newest] = found.results;
    await alice.redactEvent(tea, newest.context.getEvent().getId());
    const after = await alice.searchRoomEvents({ term: "leaf", filter: { rooms: [tea] } });
    assert.deepEqual(bodies(after), sent.slice(1, PAGE + 1));

    // The older call, which gives the server's own answer.
    const answer = await bob.searchMessageText({ query: "leaf 7" });
    const results = answer.search_categories.room_events.results;
    assert.deepEqual(results.map((found) => found.result.content.body), ["leaf 7"]);
    return { tea, coffee };
}

async function peopleAndRooms(alice, bob, { tea }) {
    await bob.setDisplayName("Bob Builder");
    const people = await alice.searchUserDirectory({ term: "builder" });
    assert.deepEqual(people.results.map((user) => user.user_id), [bob.getUserId()]);
    assert.equal(people.results[0].display_name, "Bob Builder");

    assert.equal(await bob.doesServerSupportUnstableFeature("org.matrix.msc3827.stable"), true);
    const filter = { generic_search_term: "tea", room_types: [null] };
    const rooms = await bob.publicRooms({ limit: 20, filter });
    assert.deepEqual(rooms.chunk.map((room) => room.room_id), [tea]);
    assert.equal(rooms.chunk[0].num_joined_members, 2);
    const spaces = await bob.publicRooms({ filter: { room_types: ["m.space"] } });
    assert.deepEqual(spaces.chunk, []);

    // The SDK asks only servers that say they can answer.
    assert.deepEqual(await alice._unstable_getSharedRooms(bob.getUserId()), [tea]);
}

async function play() {
    const [alice, bob] = [await register("alice"), await register("bob")];
    await peopleAndRooms(alice, bob, await messages(alice, bob));
}

await run(play);
