// A device that encrypts, with matrix-js-sdk and its Rust crypto, as Element Web has it: what the plays about encryption are made of.
//
// The SDK does all the work. This file only asks it to, looks at the results, and keeps count of what a device could not
// decrypt when it came. Keys live in memory, so a device lives as long as the program.

import * as sdk from "matrix-js-sdk";
import { decodeRecoveryKey } from "matrix-js-sdk/lib/crypto-api/index.js";

export const PATIENCE = 60_000; // milliseconds until a step counts as failed

/** What should have happened and did not. */
export class Failure extends Error {}

const pause = (time) => new Promise((resolve) => setTimeout(resolve, time));

/** Looks until the condition holds; gives what it gave. `otherwise` says what is there instead. */
export async function until(what, condition, otherwise = () => "") {
    const deadline = Date.now() + PATIENCE;
    for (;;) {
        const result = await condition();
        if (result) return result;
        if (Date.now() > deadline) throw new Failure(`not within ${PATIENCE} ms: ${what} ${otherwise()}`);
        await pause(20);
    }
}

/** Everybody who has devices, on one server. */
export class Person {
    constructor(server, name, password) {
        this.server = server;
        this.name = name;
        this.password = password;
        this.devices = [];
    }

    /** Registers, with the first device. */
    async register() {
        const auth = { type: "m.login.dummy" };
        const login = await sdk
            .createClient({ baseUrl: this.server })
            .registerRequest({ username: this.name, password: this.password, auth });
        this.id = login.user_id;
        return this.start(login);
    }

    /** One more device. */
    async login() {
        const login = await sdk.createClient({ baseUrl: this.server }).loginRequest({
            type: "m.login.password",
            identifier: { type: "m.id.user", user: this.name },
            password: this.password,
        });
        return this.start(login);
    }

    async start(login) {
        const device = new Device(this, login);
        this.devices.push(device);
        await device.start();
        return device;
    }

    /** The answer to a server that wants to be sure who asks; counts how often that was. */
    get confirm() {
        return async (makeRequest) => {
            try {
                return await makeRequest(null);
            } catch (refusal) {
                if (refusal.httpStatus !== 401 || !refusal.data?.session) throw refusal;
                this.asked = (this.asked ?? 0) + 1;
                const identifier = { type: "m.id.user", user: this.id };
                const { session } = refusal.data;
                return makeRequest({ type: "m.login.password", identifier, password: this.password, session });
            }
        };
    }
}

export class Device {
    constructor(person, login) {
        this.person = person;
        this.id = login.device_id;
        this.name = `${person.name}'s device ${person.devices.length + 1}`;
        /** Ids of events that could not be decrypted when they came. */
        this.undecrypted = new Set();
        /** Ids of messages that are for this device. */
        this.due = new Set();
        this.requests = [];
        /** Who is what in which room, as of the last sync that was taken in to its end. */
        this.memberships = new Map();
        this.client = sdk.createClient({
            baseUrl: person.server,
            userId: login.user_id,
            deviceId: login.device_id,
            accessToken: login.access_token,
            timelineSupport: true,
            verificationMethods: ["m.sas.v1"],
            cryptoCallbacks: {
                getSecretStorageKey: async ({ keys }) => {
                    const { recoveryKey, recoveryKeyId } = person;
                    // Only who knows the recovery key has it, and not before somebody typed it in.
                    return this.knowsRecoveryKey && keys[recoveryKeyId]
                        ? [recoveryKeyId, decodeRecoveryKey(recoveryKey)]
                        : null;
                },
                cacheSecretStorageKey: (keyId) => (person.recoveryKeyId = keyId),
            },
        });
    }

    get crypto() {
        return this.client.getCrypto();
    }

    async start() {
        const { client } = this;
        await client.initRustCrypto({ useIndexedDB: false });
        client.on(sdk.MatrixEventEvent.Decrypted, (event, error) => error && this.undecrypted.add(event.getId()));
        client.on(sdk.CryptoEvent?.VerificationRequestReceived ?? "crypto.verificationRequestReceived", (request) =>
            this.requests.push(request),
        );
        const prepared = new Promise((resolve) => {
            client.on(sdk.ClientEvent.Sync, (state) => {
                for (const room of client.getRooms()) {
                    const members = room.currentState.getMembers();
                    const known = new Map(members.map((member) => [member.userId, member.membership]));
                    this.memberships.set(room.roomId, known.set(this.person.id, room.getMyMembership()));
                }
                if (state === "PREPARED") resolve();
            });
        });
        await client.startClient({ initialSyncLimit: 100, lazyLoadMembers: true });
        await prepared;
        // Others can encrypt for it from now on.
        await until(`${this.name} has keys on the server`, async () => {
            const keys = await client.downloadKeysForUsers([this.person.id]);
            return keys.device_keys?.[this.person.id]?.[this.id];
        });
    }

    stop() {
        this.client.stopClient();
    }

    // --- rooms ---

    async createRoom(invite = []) {
        const encryption = { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } };
        const created = await this.client.createRoom({
            preset: sdk.Preset.PrivateChat,
            initial_state: [encryption],
            invite: invite.map((person) => person.id),
        });
        return created.room_id;
    }

    async join(roomId) {
        await until(`${this.name} is invited`, () => this.client.getRoom(roomId)?.getMyMembership() === "invite");
        await this.client.joinRoom(roomId);
        await this.knows(roomId, this.person, "join");
    }

    /**
     * Waits until this device knows somebody's membership. The SDK shows members of rooms before it looks at whose devices
     * have changed, and whoever speaks between the two speaks to the devices from before.
     */
    async knows(roomId, person, membership) {
        await until(
            `${person.name} is ${membership} for ${this.name}`,
            () => (this.memberships.get(roomId)?.get(person.id) ?? "leave") === membership,
        );
    }

    /** Says something in an encrypted room. */
    async say(roomId, body) {
        await until(`${this.name} knows that the room is encrypted`, () => this.crypto.isEncryptionEnabledInRoom(roomId));
        return (await this.client.sendEvent(roomId, "m.room.message", { msgtype: "m.text", body })).event_id;
    }

    events(roomId) {
        const events = [];
        let timeline = this.client.getRoom(roomId)?.getLiveTimeline();
        for (; timeline; timeline = timeline.getNeighbouringTimeline(sdk.EventTimeline.BACKWARDS)) {
            events.unshift(...timeline.getEvents());
        }
        return events;
    }

    find(roomId, eventId) {
        return this.events(roomId).find((event) => event.getId() === eventId);
    }

    /** Waits until a message is there, decrypted. */
    async reads(roomId, eventId, body) {
        await until(
            `${this.name} reads "${body}"`,
            () => {
                const event = this.find(roomId, eventId);
                if (!event || event.isBeingDecrypted() || event.isDecryptionFailure()) return false;
                if (!event.isEncrypted()) throw new Failure(`"${body}" was not encrypted`);
                const heard = event.getClearContent()?.body;
                if (heard !== undefined && heard !== body) throw new Failure(`"${body}" came as "${heard}"`);
                return heard === body;
            },
            () => {
                const event = this.find(roomId, eventId);
                return event ? `but ${event.decryptionFailureReason ?? event.getType()}` : "but it never came";
            },
        );
    }

    /** Goes back to the beginning of a room; all messages that were ever sent there. */
    async history(roomId) {
        const timeline = this.client.getRoom(roomId).getLiveTimeline();
        while (timeline.getPaginationToken(sdk.EventTimeline.BACKWARDS)) {
            await this.client.paginateEventTimeline(timeline, { backwards: true, limit: 50 });
        }
        return this.events(roomId).filter((event) => event.isEncrypted() && !event.isRedacted());
    }

    /** Whether this device can decrypt an event that somebody hands to it as it came from the server. */
    async canDecrypt(wire) {
        const event = new sdk.MatrixEvent(structuredClone(wire));
        await this.client.decryptEventIfNeeded(event);
        return !event.isDecryptionFailure();
    }

    /** An event as the server has it. */
    wire(roomId, eventId) {
        return this.client.fetchRoomEvent(roomId, eventId);
    }

    // --- who is who ---

    /** Keys of a new identity, secrets on the server under a recovery key, and a backup of the keys of rooms. */
    async bootstrap() {
        const { person, crypto } = this;
        this.knowsRecoveryKey = true;
        await crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: person.confirm });
        await crypto.bootstrapSecretStorage({
            createSecretStorageKey: async () => {
                const key = await crypto.createRecoveryKeyFromPassphrase();
                person.recoveryKey = key.encodedPrivateKey;
                return key;
            },
            setupNewKeyBackup: true,
        });
        if (!(await crypto.isCrossSigningReady())) throw new Failure(`${this.name} has no identity`);
        await until(`${this.name} has secret storage`, () => crypto.isSecretStorageReady());
        await until(`${this.name} makes a backup`, () => crypto.getActiveSessionBackupVersion());
    }

    /** Somebody types the recovery key in: this device gets what it opens, and restores the backup. How many keys came. */
    async recover() {
        const { crypto } = this;
        this.knowsRecoveryKey = true;
        await until(`${this.name} knows its user's identity`, () => crypto.userHasCrossSigningKeys());
        await crypto.bootstrapCrossSigning({
            authUploadDeviceSigningKeys: () => Promise.reject(new Failure("a new identity, where there is one")),
        });
        await crypto.loadSessionBackupPrivateKeyFromSecretStorage();
        await crypto.checkKeyBackupAndEnable();
        const { imported, total } = await crypto.restoreKeyBackup();
        if (imported !== total) throw new Failure(`${this.name} restored ${imported} of ${total} keys`);
        return total;
    }

    /** Waits until the backup has every key that this device has. */
    async backedUp() {
        const keys = (await this.crypto.exportRoomKeys()).length;
        let count;
        await until(
            `the backup has ${keys} keys`,
            async () => {
                // The SDK's own answer is one that it had before.
                const prefix = sdk.ClientPrefix.V3;
                const path = "/room_keys/version";
                ({ count } = await this.client.http.authedRequest("GET", path, undefined, undefined, { prefix }));
                return count >= keys;
            },
            () => `but ${count}`,
        );
        return keys;
    }

    /** Waits until this device knows somebody's devices to be these. */
    async knowsDevices(person, devices) {
        const wanted = devices.map((device) => device.id).sort();
        let known;
        await until(
            `${this.name} knows ${devices.length} devices of ${person.name}`,
            async () => {
                const map = (await this.crypto.getUserDeviceInfo([person.id])).get(person.id);
                known = [...(map?.values() ?? [])].map((one) => one.deviceId).sort();
                return known.join() === wanted.join();
            },
            () => `but ${known?.length}`,
        );
    }

    /** Waits until this device trusts another, because its owner signed it. */
    async seesSigned(device) {
        await until(`${this.name} sees that ${device.name} is signed by its owner`, async () => {
            const status = await this.crypto.getDeviceVerificationStatus(device.person.id, device.id);
            return status?.signedByOwner;
        });
    }

    /** Waits until this device takes somebody for who they are. */
    async trusts(person) {
        await until(`${this.name} trusts ${person.name}`, async () =>
            (await this.crypto.getUserVerificationStatus(person.id)).isCrossSigningVerified(),
        );
    }

    /** Waits until this device has all private parts of its user's identity, and the key of the backup. */
    async hasSecrets() {
        await until(`${this.name} has the secrets`, async () => {
            const { privateKeysCachedLocally: has } = await this.crypto.getCrossSigningStatus();
            const backup = await this.crypto.getSessionBackupPrivateKey();
            return has.masterKey && has.selfSigningKey && has.userSigningKey && backup;
        });
    }
}

/** Two devices compare emojis. The second accepts what the first asked for. */
export async function compareEmojis(request, other) {
    const received = await until(`${other.name} is asked to verify`, () =>
        other.requests.find((one) => one.transactionId === request.transactionId),
    );
    await received.accept();
    await until("the one who asked hears of it", () => request.phase === 3 /* ready */);
    const mine = await request.startVerification("m.sas.v1");
    const theirs = await until("the other hears of the start", () => received.verifier);
    const ends = [mine.verify(), theirs.verify()];
    // What fails says so by the deadline of the next step, or at the end.
    for (const end of ends) end.catch(() => {});
    const shown = await Promise.all(
        [mine, theirs].map((verifier) => until("emojis are shown", () => verifier.getShowSasCallbacks())),
    );
    const [first, second] = shown.map((one) => one.sas.emoji.map(([emoji]) => emoji).join(" "));
    if (first !== second) throw new Failure(`different emojis: ${first} and ${second}`);
    await Promise.all(shown.map((one) => one.confirm()));
    await Promise.race([
        Promise.all(ends),
        pause(PATIENCE).then(() => Promise.reject(new Failure("the verification doesn't end"))),
    ]);
}
