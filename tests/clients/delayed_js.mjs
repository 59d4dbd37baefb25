// Delayed events as a call has them, with matrix-js-sdk: the event that says that somebody left is scheduled, restarted for
// as long as they are there, and sent or cancelled. `tests/clients.rs` runs it; README.md beside this file says of what it
// is one.

import assert from "node:assert/strict";
import { register, run } from "./play.mjs";

const HOUR = 3_600_000;
const MEMBER = "org.matrix.msc3401.call.member";

async function play() {
    const [alice, bob] = [await register("alice"), await register("bob")];
    const { room_id: room } = await alice.createRoom({ preset: "public_chat" });
    await bob.joinRoom(room);
    await alice.setPowerLevel(room, bob.getUserId(), 50);
    const key = `_${bob.getUserId()}_device`;
    const membership = () => alice.getStateEvent(room, MEMBER, key);
    const scheduled = async () => (await bob._unstable_getDelayedEvents()).delayed_events;
    const act = (delayId, action) => bob._unstable_updateDelayedEvent(delayId, action);

    // Bob enters the call; whether he is there is told by the restarts.
    const joined = { application: "m.call", call_id: "" };
    await bob.sendStateEvent(room, MEMBER, joined, key);
    const left = await bob._unstable_sendDelayedStateEvent(room, { delay: HOUR }, MEMBER, {}, key);
    const [first] = await scheduled();
    assert.equal(first.delay_id, left.delay_id);
    assert.deepEqual([first.room_id, first.type, first.state_key, first.delay], [room, MEMBER, key, HOUR]);
    await act(left.delay_id, "restart");
    const [restarted] = await scheduled();
    assert.ok(restarted.running_since >= first.running_since);
    assert.deepEqual(await membership(), joined);
    // He hangs up.
    await act(left.delay_id, "send");
    assert.deepEqual(await membership(), {});
    assert.deepEqual(await scheduled(), []);

    // He enters again, and this time his client is heard no more.
    await bob.sendStateEvent(room, MEMBER, joined, key);
    await bob._unstable_sendDelayedStateEvent(room, { delay: 100 }, MEMBER, {}, key);
    while (Object.keys(await membership()).length) await new Promise((resolve) => setTimeout(resolve, 10));

    // Messages too; one that was cancelled is never sent.
    const args = [room, { delay: HOUR }, null, "m.room.message", { msgtype: "m.text", body: "later" }];
    const message = await bob._unstable_sendDelayedEvent(...args);
    await act(message.delay_id, "cancel");
    assert.deepEqual(await scheduled(), []);
    await assert.rejects(act(message.delay_id, "send"), (error) => error.httpStatus === 409);
    await assert.rejects(act("invented", "send"), (error) => error.errcode === "M_NOT_FOUND");

    // The SDK's calls shorten their delays by what this error says.
    const tooLong = 8 * 24 * HOUR;
    await assert.rejects(bob._unstable_sendDelayedStateEvent(room, { delay: tooLong }, MEMBER, {}, key), (error) => {
        assert.equal(error.data["org.matrix.msc4140.errcode"], "M_MAX_DELAY_EXCEEDED");
        assert.equal(error.data["org.matrix.msc4140.max_delay"], 7 * 24 * HOUR);
        return error.errcode === "M_UNKNOWN";
    });
}

await run(play);
