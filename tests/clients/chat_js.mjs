// One of the two who chat in tests/clients.rs, with matrix-js-sdk. README.md beside this file has the script of the play.
//
// The SDK's own machinery does the work, as in Element: its sync loop, its timelines and their gaps, its relations, its
// receipts, its pending events that are sent again once the connection is back. This program only looks at the results.

import { once } from "node:events";
import { createInterface } from "node:readline";
import { isDeepStrictEqual, parseArgs } from "node:util";
import * as sdk from "matrix-js-sdk";

const PATIENCE = 120_000; // milliseconds until a step counts as failed
const { BACKWARDS, FORWARDS } = sdk.EventTimeline;

/** What should have happened and did not. */
class Failure extends Error {}

/** The SDK's warnings, kept off standard output, which the test reads; in full if the chat fails. */
const warnings = [];
for (const level of ["trace", "debug", "log", "info"]) console[level] = () => {};
for (const level of ["warn", "error"]) console[level] = (...what) => warnings.push(what.join(" "));

function tell(word, value) {
    process.stdout.write(value === undefined ? `@${word}\n` : `@${word} ${JSON.stringify(value)}\n`);
}

/** The events of a set of timelines from its oldest known to its newest, over the joins between them. */
function eventsOf(timelineSet) {
    let timeline = timelineSet.getLiveTimeline();
    const events = [...timeline.getEvents()];
    while ((timeline = timeline.getNeighbouringTimeline(BACKWARDS))) events.unshift(...timeline.getEvents());
    return events;
}

/** Pages back from the live timeline until the beginning of the room. */
async function pageBack(client, timelineSet) {
    let timeline = timelineSet.getLiveTimeline();
    for (;;) {
        const older = timeline.getNeighbouringTimeline(BACKWARDS);
        // Without a token the SDK would page from the end of the room.
        if (older) timeline = older;
        else if (!timeline.getPaginationToken(BACKWARDS)) return;
        else await client.paginateEventTimeline(timeline, { backwards: true, limit: 25 });
    }
}

/** Pages forward from the event to the live timeline. The ids of all events from it on. */
async function pageForward(client, timelineSet, eventId) {
    let timeline = await client.getEventTimeline(timelineSet, eventId);
    if (!timeline) throw new Failure("the SDK finds no timeline around the first event");
    const passed = [timeline];
    while (timeline !== timelineSet.getLiveTimeline()) {
        const newer = timeline.getNeighbouringTimeline(FORWARDS);
        if (newer) passed.push((timeline = newer));
        else if (timeline.getPaginationToken(FORWARDS)) {
            await client.paginateEventTimeline(timeline, { backwards: false, limit: 25 });
        } else throw new Failure("paging forward ended before the newest events");
    }
    const ids = passed.flatMap((timeline) => timeline.getEvents().map((event) => event.getId()));
    return ids.slice(ids.indexOf(eventId));
}

class Chat {
    constructor(options) {
        this.options = options;
        this.me = options.me;
        this.peer = options.peer;
        this.myId = `@${options.me}:${options["server-name"]}`;
        this.peerId = `@${options.peer}:${options["server-name"]}`;
        this.clients = [];
    }

    get room() {
        return this.client.getRoom(this.roomId);
    }

    // --- what the SDK knows ---

    /** A client that syncs, at its first whole sync. */
    async start(login, initialSyncLimit) {
        const client = sdk.createClient({
            baseUrl: this.options.url,
            userId: login.user_id,
            deviceId: login.device_id,
            accessToken: login.access_token,
            timelineSupport: true,
        });
        this.clients.push(client);
        const prepared = new Promise((resolve) => {
            client.on(sdk.ClientEvent.Sync, (state) => state === "PREPARED" && resolve());
        });
        await client.startClient({ lazyLoadMembers: true, initialSyncLimit, pendingEventOrdering: "detached" });
        await this.within("the first sync", prepared);
        return client;
    }

    async within(what, promise) {
        let timer;
        const late = new Promise((_, reject) => {
            timer = setTimeout(() => reject(new Failure(`not within ${PATIENCE} ms: ${what}`)), PATIENCE);
        });
        return Promise.race([promise, late]).finally(() => clearTimeout(timer));
    }

    /** Waits until syncs have made the condition true; gives what it gave. */
    async until(what, condition) {
        const come = (async () => {
            for (;;) {
                // A sync too long for one answer starts a new timeline: fill the gap as the user would by scrolling up.
                if (this.gap) {
                    this.gap = false;
                    await pageBack(this.client, this.room.getUnfilteredTimelineSet());
                }
                const result = condition();
                if (result) return result;
                await this.nextSync();
            }
        })();
        return this.within(what, come);
    }

    nextSync() {
        return new Promise((resolve) => {
            const listener = (state) => {
                if (state !== "SYNCING" && state !== "PREPARED") return;
                this.client.off(sdk.ClientEvent.Sync, listener);
                resolve();
            };
            this.client.on(sdk.ClientEvent.Sync, listener);
        });
    }

    by(userId) {
        return eventsOf(this.room.getUnfilteredTimelineSet()).filter((event) => event.getSender() === userId);
    }

    /** The bodies, as sent, of the messages of a type, edits left out. */
    bodies(userId, msgtype) {
        return this.by(userId)
            .map((event) => event.getOriginalContent())
            .filter((content) => content.msgtype === msgtype && !content["m.relates_to"])
            .map((content) => content.body);
    }

    find(userId, body) {
        return this.by(userId).find((event) => event.getOriginalContent().body === body);
    }

    message(name, number) {
        const event = this.find(`@${name}:${this.options["server-name"]}`, `${name} ${number}`);
        if (!event) throw new Failure(`no message "${name} ${number}" in the timeline`);
        return event;
    }

    // --- the steps ---

    async register() {
        const client = sdk.createClient({ baseUrl: this.options.url });
        const { me: username, password, token } = this.options;
        const auth = new sdk.InteractiveAuth({
            matrixClient: client,
            doRequest: (auth) => client.registerRequest({ username, password, auth: auth ?? undefined }),
            stateUpdated: (stage, status) => {
                if (status.errcode) throw new Failure(`stage ${stage}: ${status.error}`);
                auth.submitAuthDict({ type: stage, session: auth.getSessionId(), token });
            },
            requestEmailToken: () => Promise.reject(new Failure("the server asks for an e-mail address")),
            supportedStages: ["m.login.dummy", ...(token ? ["m.login.registration_token"] : [])],
        });
        this.client = await this.start(await this.within("registration", auth.attemptAuth()), 20);
        this.client.on(sdk.RoomEvent.TimelineReset, () => (this.gap = true));
    }

    async meet() {
        if (this.options.role === "host") {
            const preset = sdk.Preset.PrivateChat;
            const created = await this.client.createRoom({ name: "Real clients", preset, invite: [this.peerId] });
            this.roomId = created.room_id;
        } else {
            const invited = await this.until("an invitation arrives", () =>
                this.client.getRooms().find((room) => room.getMyMembership() === "invite"),
            );
            this.roomId = invited.roomId;
            await this.client.joinRoom(this.roomId);
        }
        await this.until("both are in the room", () => this.room?.getJoinedMemberCount() === 2);
        // The invited has the room from before it could see the timeline.
        await pageBack(this.client, this.room.getUnfilteredTimelineSet());
    }

    /** Sends, and sends the same event again whenever the connection was lost and is back, as apps do. */
    async send(type, content) {
        const transaction = this.client.makeTxnId();
        let sending = this.client.sendEvent(this.roomId, type, content, transaction);
        for (;;) {
            try {
                return (await sending).event_id;
            } catch (error) {
                if (!(error instanceof sdk.ConnectionError)) throw error;
            }
            await this.within("syncing goes on", this.nextSync());
            const pending = this.room.getPendingEvents().find((event) => event.getTxnId() === transaction);
            if (!pending) throw new Failure("the SDK has forgotten an event that was not sent");
            sending = this.client.resendEvent(pending, this.room);
        }
    }

    async say(first, last) {
        for (let number = first; number <= last; number++) {
            await this.send("m.room.message", { msgtype: "m.text", body: `${this.me} ${number}` });
        }
    }

    async hear(count) {
        const heard = () => this.bodies(this.peerId, "m.text");
        await this.until(`${count} messages of ${this.peer}`, () => heard().length >= count);
        const expected = Array.from({ length: count }, (_, index) => `${this.peer} ${index + 1}`);
        if (!isDeepStrictEqual(heard(), expected)) {
            throw new Failure(`messages lost, repeated or out of order: ${heard().join(", ")}`);
        }
    }

    async talk() {
        const whole = Number(this.options.messages);
        const half = Math.floor(whole / 2);
        await Promise.all([this.say(1, half), this.hear(half)]);
        await this.at("half");
        const input = createInterface({ input: process.stdin });
        tell("halfway");
        await Promise.race([
            once(input, "line"),
            once(input, "close").then(() => Promise.reject(new Failure("standard input ended at half-way"))),
        ]);
        input.close();
        tell("sending");
        await Promise.all([this.say(half + 1, whole), this.hear(whole)]);
    }

    /** Tells the other that this step is reached, and waits until the other is there. The other's notice. */
    async at(step) {
        await this.send("m.room.message", { msgtype: "m.notice", body: `${this.me} at ${step}` });
        const notice = await this.until(`${this.peer} comes to ${step}`, () =>
            this.find(this.peerId, `${this.peer} at ${step}`),
        );
        await this.until(`own notice at ${step}`, () => this.find(this.myId, `${this.me} at ${step}`));
        return notice;
    }

    async change() {
        const edited = this.message(this.me, 1);
        const redacted = this.message(this.me, 2);
        const theirsEdited = this.message(this.peer, 1);
        const theirsRedacted = this.message(this.peer, 2);
        const liked = this.message(this.peer, 3);
        const mineLiked = this.message(this.me, 3);

        const text = { msgtype: "m.text", body: `${this.me} 1, edited` };
        await this.send("m.room.message", {
            ...text,
            "body": `* ${text.body}`,
            "m.new_content": text,
            "m.relates_to": { rel_type: "m.replace", event_id: edited.getId() },
        });
        await this.client.redactEvent(this.roomId, redacted.getId(), undefined, { reason: "a slip" });
        await this.send("m.reaction", {
            "m.relates_to": { rel_type: "m.annotation", event_id: liked.getId(), key: "👍" },
        });

        await this.until("the other's edit", () => theirsEdited.getContent().body === `${this.peer} 1, edited`);
        await this.until("the other's redaction", () => theirsRedacted.isRedacted());
        await this.until("the other's reaction", () => {
            const { relations } = this.room.getUnfilteredTimelineSet();
            const likes = relations.getChildEventsForEvent(mineLiked.getId(), "m.annotation", "m.reaction");
            return likes?.getAnnotationsBySender()?.[this.peerId]?.size === 1;
        });
        const again = await this.client.fetchRoomEvent(this.roomId, theirsRedacted.getId());
        if ("body" in again.content || !again.unsigned?.redacted_because) {
            throw new Failure(`redacted content is served again: ${JSON.stringify(again)}`);
        }
    }

    async type() {
        const typing = () => this.room.getMember(this.peerId).typing;
        await this.client.sendTyping(this.roomId, true, 30_000);
        await this.until("the other types", typing);
        await this.at("typed");
        await this.client.sendTyping(this.roomId, false, 0);
        await this.until("the other stops typing", () => !typing());
    }

    async read() {
        const theirs = await this.at("reading");
        const mine = this.find(this.myId, `${this.me} at reading`).getId();
        await this.client.setRoomReadMarkers(this.roomId, theirs.getId(), theirs);
        await this.until("the other's receipt", () => this.room.getEventReadUpTo(this.peerId, true) === mine);
        await this.until("the own read marker", () => {
            return this.room.getAccountData("m.fully_read")?.getContent().event_id === theirs.getId();
        });
    }

    async rename() {
        await this.client.setDisplayName(`${this.me} the Great`);
        const name = `${this.peer} the Great`;
        const shown = () => this.room.getMember(this.peerId).rawDisplayName;
        await this.until("the other's new name in the room", () => shown() === name);
        const { displayname } = await this.client.getProfileInfo(this.peerId, "displayname");
        if (displayname !== name) throw new Failure(`the other's profile says "${displayname}"`);
    }

    /** A new device that has the few newest events of the room. */
    async newcomer() {
        const login = await sdk.createClient({ baseUrl: this.options.url }).loginRequest({
            type: "m.login.password",
            identifier: { type: "m.id.user", user: this.me },
            password: this.options.password,
        });
        const client = await this.start(login, 5);
        const timelines = client.getRoom(this.roomId).getUnfilteredTimelineSet();
        const few = eventsOf(timelines).length;
        if (few === 0 || few > 5) throw new Failure(`asked for the 5 newest of many events, got ${few}`);
        return [client, timelines];
    }

    async agree() {
        const events = eventsOf(this.room.getUnfilteredTimelineSet());
        const synced = events.map((event) => event.getId());
        if (new Set(synced).size !== synced.length) throw new Failure("an event is in the timeline twice");
        if (events[0].getType() !== "m.room.create") throw new Failure(`the first event is ${events[0].getType()}`);

        const [backward, behind] = await this.newcomer();
        await pageBack(backward, behind);
        const back = eventsOf(behind).map((event) => event.getId());

        const [onward, ahead] = await this.newcomer();
        const forward = await pageForward(onward, ahead, synced[0]);

        for (const [name, ids] of [
            ["paging back", back],
            ["paging forward", forward],
        ]) {
            if (isDeepStrictEqual(ids, synced)) continue;
            const missing = synced.filter((id) => !ids.includes(id)).length;
            const at = ids.findIndex((id, index) => id !== synced[index]);
            throw new Failure(
                `${name} gave ${ids.length} events, sync ${synced.length}; ${missing} of sync's are missing; ` +
                    `they part at ${at}`,
            );
        }
        await Promise.all([backward.logout(true), onward.logout(true)]);
        tell("timeline", synced);
    }

    async run() {
        await this.register();
        await this.meet();
        await this.talk();
        await this.at("talked");
        await this.change();
        await this.at("changed");
        await this.type();
        await this.read();
        await this.rename();
        await this.at("the end");
        await this.agree();
    }
}

const { values: options } = parseArgs({
    options: {
        "url": { type: "string" },
        "server-name": { type: "string", default: "localhost" },
        "role": { type: "string" },
        "me": { type: "string" },
        "peer": { type: "string" },
        "password": { type: "string" },
        "token": { type: "string" },
        "messages": { type: "string", default: "100" },
    },
});
try {
    for (const name of ["url", "role", "me", "peer", "password"]) {
        if (!options[name]) throw new Failure(`--${name} is missing`);
    }
    await new Chat(options).run();
    // To exit is to cut off what the pipe hasn't taken yet, and a long timeline is more than it takes at once.
    await new Promise((written) => process.stdout.write("", written));
    process.exit(0);
} catch (error) {
    const why = error instanceof Failure ? error.message : error.stack;
    for (const warning of warnings) process.stderr.write(`matrix-js-sdk: ${warning}\n`);
    process.stderr.write(`${options.me} (${options.role}, matrix-js-sdk): ${why}\n`);
    process.exit(1);
}
