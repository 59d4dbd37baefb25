// People on two servers (or one) who encrypt, as tests/encryption/ has them play: README.md beside this file has the script.

import { once } from "node:events";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { Device, Failure, Person, compareEmojis, until } from "./device.mjs";

const WHOLE_PLAY = 480_000; // milliseconds; each step has its own deadline, whose message says more

const warnings = [];
for (const level of ["trace", "debug", "log", "info"]) console[level] = () => {};
const noise = /default global|MatrixRTC|decrypt/;
for (const level of ["warn", "error"]) {
    console[level] = (...what) => noise.test(what[0]) || warnings.push(what.join(" "));
}

const { values: options } = parseArgs({
    options: {
        here: { type: "string" }, // URL of alice's server
        there: { type: "string" }, // URL of bob's, which may be the same
        password: { type: "string" },
        dehydrated: { type: "boolean", default: false }, // whether bob's server has dehydrated devices
    },
});
const apart = options.here !== options.there;

const input = createInterface({ input: process.stdin });
const began = Date.now();

/** Says how far the play is, for whoever reads why it failed. */
function step(what) {
    process.stderr.write(`${((Date.now() - began) / 1000).toFixed(1)} s: ${what}\n`);
}

/** Asks the test for something, and waits until it is done. */
async function ask(word) {
    process.stdout.write(`@${word}\n`);
    await Promise.race([
        once(input, "line"),
        once(input, "close").then(() => Promise.reject(new Failure(`standard input ended at ${word}`))),
    ]);
}

/** One device says something, all of these read it. What was said, for whoever may not read it. */
async function said(roomId, from, body, readers) {
    const eventId = await from.say(roomId, body);
    for (const device of readers) device.due.add(eventId);
    await Promise.all(readers.map((device) => device.reads(roomId, eventId, body)));
    return eventId;
}

/** What was said must not be readable to a device, even if somebody handed it over. */
async function hiddenFrom(device, wire) {
    if (await device.canDecrypt(wire)) throw new Failure(`${device.name} can decrypt what it must not`);
}

async function play() {
    const alice = new Person(options.here, "alice", options.password);
    const bob = new Person(options.there, "bob", options.password);
    const carol = new Person(options.here, "carol", options.password);
    const [phone, mobile, carols] = await Promise.all([alice.register(), bob.register(), carol.register()]);
    const [laptop, desktop] = await Promise.all([alice.login(), bob.login()]);
    const four = [phone, laptop, mobile, desktop];
    step("all have devices");

    // Identities: nobody is asked for a password the first time (and is, to replace what is there).
    await Promise.all([phone.bootstrap(), mobile.bootstrap(), carols.bootstrap()]);
    for (const person of [alice, bob, carol]) {
        if (person.asked) throw new Failure(`${person.name} had to give the password for a first identity`);
    }
    step("identities");
    // One device is let in by comparing emojis, the other by the recovery key.
    await until("the other device knows of the identity", () => laptop.crypto.userHasCrossSigningKeys());
    await compareEmojis(await laptop.crypto.requestOwnUserVerification(), phone);
    await Promise.all([laptop.hasSecrets(), laptop.seesSigned(phone), phone.seesSigned(laptop)]);
    await desktop.recover();
    await Promise.all([desktop.hasSecrets(), mobile.seesSigned(desktop)]);
    step("second devices are verified");

    // A room; messages from each device to all.
    const room = await phone.createRoom([bob]);
    await mobile.join(room);
    await Promise.all(four.flatMap((device) => [device.knows(room, alice, "join"), device.knows(room, bob, "join")]));
    for (const [number, device] of four.entries()) {
        await said(room, device, `first words of ${device.name}`, four);
        await said(room, four[3 - number], `and ${number}`, four);
    }
    await Promise.all([desktop.seesSigned(laptop), phone.seesSigned(desktop)]);
    step("messages from each to all");

    // Alice and Bob compare emojis in the room; all their devices know of it.
    await compareEmojis(await phone.crypto.requestVerificationDM(bob.id, room), mobile);
    await Promise.all([phone.trusts(bob), laptop.trusts(bob), mobile.trusts(alice), desktop.trusts(alice)]);
    step("alice and bob have verified each other");

    // A device is added. It gets what is new, and by the backup what is old.
    await phone.backedUp();
    const secret = { "m.hearth.test": "kept" };
    await phone.client.secretStorage.store("m.hearth.test", JSON.stringify(secret));
    const tablet = await alice.login();
    if ((await tablet.recover()) < 4) throw new Failure("the backup lacks keys");
    const old = await tablet.history(room);
    if (old.length < 8) throw new Failure(`the new device found ${old.length} messages`);
    await until("the new device reads all that is old", () => old.every((event) => event.getClearContent()), () =>
        old.filter((event) => !event.getClearContent()).map((event) => event.decryptionFailureReason),
    );
    const opened = await tablet.client.secretStorage.get("m.hearth.test");
    if (opened !== JSON.stringify(secret)) throw new Failure(`a secret came back as ${opened}`);
    const five = [...four, tablet];
    await Promise.all(four.map((device) => device.knowsDevices(alice, [phone, laptop, tablet])));
    await Promise.all(four.map((device) => device.seesSigned(tablet)));
    await said(room, mobile, "welcome, new device", five);
    await said(room, tablet, "thank you", five);
    step("a device was added, and has everything from the backup");

    // A device is removed.
    await alice.confirm((auth) => phone.client.deleteDevice(laptop.id, auth));
    if (alice.asked !== 1) throw new Failure("a device could be removed without the password");
    laptop.stop();
    const left = [phone, tablet, mobile, desktop];
    await Promise.all(left.map((device) => device.knowsDevices(alice, [phone, tablet])));
    for (const device of [mobile, phone]) {
        const eventId = await said(room, device, `after the removal, from ${device.name}`, left);
        await hiddenFrom(laptop, await device.wire(room, eventId));
    }
    step("a device was removed, and reads nothing after");

    // Carol comes: she reads from then on.
    const before = await said(room, desktop, "before carol", left);
    await phone.client.invite(room, carol.id);
    await carols.join(room);
    await Promise.all(left.map((device) => device.knows(room, carol, "join")));
    const six = [...left, carols];
    for (const device of [mobile, carols, phone]) await said(room, device, `with carol, ${device.name}`, six);
    await hiddenFrom(carols, await desktop.wire(room, before));
    step("carol joined");

    // She leaves, and reads no more. What she does with her devices meanwhile is known when she is back.
    await carols.client.leave(room);
    await Promise.all(left.map((device) => device.knows(room, carol, "leave")));
    for (const device of [desktop, tablet]) {
        const eventId = await said(room, device, `without carol, ${device.name}`, left);
        await hiddenFrom(carols, await device.wire(room, eventId));
    }
    const newer = await carol.login();
    await newer.recover();
    await phone.client.invite(room, carol.id);
    await newer.join(room);
    await carols.knows(room, carol, "join");
    await Promise.all(left.map((device) => device.knows(room, carol, "join")));
    // The SDK doesn't wait for devices of somebody of whom it knows one.
    await Promise.all(left.map((device) => device.knowsDevices(carol, [carols, newer])));
    const seven = [...six, newer];
    for (const device of [mobile, newer, tablet]) await said(room, device, `carol again, ${device.name}`, seven);
    await Promise.all(left.map((device) => device.seesSigned(newer)));
    step("carol left and came back with a device more");

    // Her identity is replaced, for which her password is wanted; the others see a new one.
    const identity = await carols.crypto.getCrossSigningKeyId();
    await carols.crypto.bootstrapCrossSigning({
        setupNewCrossSigning: true,
        authUploadDeviceSigningKeys: carol.confirm,
    });
    if (carol.asked !== 1) throw new Failure("an identity was replaced without the password");
    if ((await carols.crypto.getCrossSigningKeyId()) === identity) throw new Failure("the identity is the same");
    await Promise.all([mobile, tablet].map((device) => device.seesSigned(carols)));
    await until("bob is told that carol's newer device isn't hers any more", async () => {
        const status = await mobile.crypto.getDeviceVerificationStatus(carol.id, newer.id);
        return status && !status.signedByOwner;
    });
    await said(room, mobile, "who are you now?", seven);
    step("an identity was replaced");

    let everybody = seven;
    if (apart) everybody = await away(room, alice, bob, everybody);
    if (options.dehydrated) await dehydrated(room, bob, mobile, phone);

    // Every message was read by everybody it was for. Where keys and messages come from one server, they came in that order.
    const late = everybody.flatMap((device) => [...device.undecrypted].filter((eventId) => device.due.has(eventId)));
    step(`${late.length} messages came before their keys`);
    if (!apart && late.length) throw new Failure(`${late.length} messages came before their keys`);
}

/** Bob's server is away while alice goes on, and gets a device more; then the same for alice's. */
async function away(room, alice, bob, devices) {
    const [phone, mobile] = [alice, bob].map((person) => person.devices[0]);
    const at = (person) => devices.filter((device) => device.person.server === person.server);
    let everybody = devices;
    for (const [gone, word, speaker, stays, other] of [
        [bob, "there", phone, alice, mobile],
        [alice, "here", mobile, bob, phone],
    ]) {
        await ask(`stop ${word}`);
        const sent = [];
        for (let number = 1; number <= 3; number++) {
            const body = `${number} while ${gone.name}'s server is away`;
            sent.push([await said(room, speaker, body, at(stays)), body]);
        }
        const added = await stays.login();
        const theirs = [...everybody.filter((device) => device.person === stays), added];
        await Promise.all(at(stays).map((device) => device.knowsDevices(stays, theirs)));
        const welcome = "welcome, new device";
        sent.push([await said(room, speaker, welcome, [...at(stays), added]), welcome]);
        await ask(`start ${word}`);
        everybody = [...everybody, added];
        for (const [eventId, text] of sent) {
            await Promise.all(at(gone).map((device) => device.reads(room, eventId, text)));
            for (const device of at(gone)) device.due.add(eventId);
        }
        devices = everybody;
        await Promise.all(at(gone).map((device) => device.knowsDevices(stays, theirs)));
        await said(room, other, `to the device that is new, from ${other.name}`, everybody);
        // It needs a key of each device there for its first words, so these had to wait.
        await said(room, added, `from the device that was new`, everybody);
        step(`${gone.name}'s server was away`);
    }
    return everybody;
}

/** All of bob's devices are off; one that he left on the server gets the keys, for the next that he has. */
async function dehydrated(room, bob, mobile, speaker) {
    if (!(await mobile.crypto.isDehydrationSupported())) throw new Failure("bob's server has no dehydrated devices");
    await mobile.crypto.startDehydration();
    await until("others see the dehydrated device", async () => {
        const known = (await speaker.crypto.getUserDeviceInfo([bob.id])).get(bob.id);
        return [...known.values()].some((device) => device.dehydrated);
    });
    for (const device of bob.devices) device.stop();
    await speaker.crypto.forceDiscardSession(room);
    const body = "while all of bob's devices are off";
    const eventId = await speaker.say(room, body);
    const next = await bob.login();
    await next.recover();
    const wire = await next.wire(room, eventId);
    await hiddenFrom(next, wire); // the backup doesn't have it
    await next.crypto.startDehydration();
    await next.reads(room, eventId, body);
    step("a dehydrated device kept the keys");
}

const late = setTimeout(() => end(new Failure(`not within ${WHOLE_PLAY} ms`)), WHOLE_PLAY);
function end(failure) {
    clearTimeout(late);
    if (failure) process.stderr.write(`${failure.stack ?? failure}\n${warnings.slice(-20).join("\n").slice(-4000)}\n`);
    process.exit(failure ? 1 : 0);
}
play().then(() => end(), end);
