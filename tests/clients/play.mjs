// What the programs that play people alone with matrix-js-sdk have in common: new users, and an end that says what failed.

import { parseArgs } from "node:util";
import * as sdk from "matrix-js-sdk";

const PATIENCE = 240_000; // milliseconds until all of it counts as failed

for (const level of ["trace", "debug", "log", "info", "warn", "error"]) console[level] = () => {};

const { values: options } = parseArgs({ options: { url: { type: "string" }, password: { type: "string" } } });

/** A new user's client, which doesn't sync. */
export async function register(name) {
    const login = await sdk
        .createClient({ baseUrl: options.url })
        .registerRequest({ username: name, password: options.password, auth: { type: "m.login.dummy" } });
    const { user_id: userId, device_id: deviceId, access_token: accessToken } = login;
    return sdk.createClient({ baseUrl: options.url, userId, deviceId, accessToken });
}

/** Plays a piece and ends the program, with status 0 if nothing failed. */
export async function run(piece) {
    const late = setTimeout(() => {
        process.stderr.write(`not within ${PATIENCE} ms\n`);
        process.exit(1);
    }, PATIENCE);
    try {
        await piece();
        clearTimeout(late);
    } catch (failure) {
        process.stderr.write(`${failure.stack ?? failure}\n`);
        process.exit(1);
    }
    process.exit(0);
}
