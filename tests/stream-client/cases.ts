/**
 * What lines and servers may do to the client that is hard to have from real ones: sockets, requests and time are made up here.
 * What didn't go as it should is posted to `/report`.
 */

import { HearthStream, type Json, type Options, type Status } from "./stream.js";

const HASTE = 20;
/** Of the machine's own time. */
const LONGEST_STEP_MS = 25;
const HOUR_MS = 3_600_000;
const HOST = "hearth.example";
const realInterval = globalThis.setInterval.bind(globalThis);
const realNow = performance.now.bind(performance);
const realFetch = globalThis.fetch.bind(globalThis);
const began = Date.now();

interface Timer {
  due: number;
  work: () => void;
  every?: number;
}

/** Time as the client has it, in milliseconds. It passes in haste, and not at all while the machine stands still. */
class Time {
  now = 0;
  private readonly timers = new Map<number, Timer>();
  private last = 0;
  private stepped = realNow();

  start(work: () => void, ms = 0, every?: number): number {
    this.timers.set(++this.last, { work, due: this.now + ms, every });
    return this.last;
  }

  clear(timer: number): void {
    this.timers.delete(timer);
  }

  step(): void {
    const now = realNow();
    this.now += HASTE * Math.min(now - this.stepped, LONGEST_STEP_MS);
    this.stepped = now;
    for (const [number, timer] of [...this.timers].sort(([, one], [, other]) => one.due - other.due)) {
      if (timer.due > this.now || !this.timers.has(number)) continue;
      if (timer.every === undefined) this.timers.delete(number);
      else timer.due = this.now + timer.every;
      timer.work();
    }
  }
}

const time = new Time();
realInterval(() => time.step(), 1);

/** The other end of a socket. */
class Socket {
  static readonly OPEN = 1;
  readyState = 0;
  onmessage?: (event: { data: string }) => void;
  onclose?: (event: { code: number; reason: string }) => void;
  readonly heard: Json[] = [];
  readonly at = time.now;

  constructor(readonly url: string) {
    const { protocol } = new URL(url);
    if (!/^(ws|http)s?:$/.test(protocol)) throw new SyntaxError(`no address of a socket: ${url}`);
    network.sockets.push(this);
    queueMicrotask(() => network.open(this));
  }

  send(text: string): void {
    const frame = JSON.parse(text) as Json;
    this.heard.push(frame);
    queueMicrotask(() => network.hear(this, frame));
  }

  close(): void {
    if (this.readyState > 1) return;
    this.readyState = 2;
    network.closing(() => this.end(1000));
  }

  /** The server says this. */
  say(frame: Json): void {
    if (this.readyState === 1) this.onmessage?.({ data: JSON.stringify(frame) });
  }

  /** The server, or the line, ends it. */
  end(code: number, reason = ""): void {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }
}

interface Call {
  method: string;
  path: string;
  query: URLSearchParams;
  at: number;
}

/** A network without sockets, on which `/sync` has nothing to say, that cases change as they need. */
class Network {
  readonly sockets: Socket[] = [];
  readonly calls: Call[] = [];
  /** How wrong the clock on the wall is, in milliseconds. */
  clockIsOff = 0;

  open(socket: Socket): void {
    socket.end(1006);
  }
  hear(_socket: Socket, _frame: Json): void {}
  closing(end: () => void): void {
    queueMicrotask(end);
  }
  async answer(call: Call): Promise<[number, Json]> {
    if (call.path !== "sync") return [200, {}];
    await sleep(1_000);
    return [200, { next_batch: "p1" }];
  }

  /** Sockets that greet, let in whoever comes, and answer what they ask. */
  accept(): void {
    this.open = (socket) => {
      socket.readyState = 1;
      socket.say({ type: "hello", heartbeat_ms: 30_000, max_frame_bytes: 1_000, features: ["send"] });
    };
    this.hear = (socket, { id, method }) => {
      if (method === "auth") socket.say({ id, result: {} });
      else if (method === "ping") socket.say({ method: "pong" });
      else if (id) socket.say({ id, result: { over: "socket" } });
    };
  }
}

let network = new Network();

Object.assign(globalThis, {
  WebSocket: Socket,
  setTimeout: (work: () => void, ms = 0) => time.start(work, ms),
  setInterval: (work: () => void, ms = 0) => time.start(work, ms, ms),
  clearTimeout: (timer: number) => time.clear(timer),
  clearInterval: (timer: number) => time.clear(timer),
  fetch: (address: string, { method = "GET", signal }: RequestInit = {}): Promise<Response> => {
    const { host, pathname, searchParams } = new URL(address);
    if (host !== HOST) return Promise.reject(new TypeError("nobody is there"));
    const path = decodeURIComponent(pathname.replace("/_matrix/client/v3/", ""));
    const call = { method, path, query: searchParams, at: time.now };
    network.calls.push(call);
    return new Promise((resolve, reject) => {
      signal?.addEventListener("abort", () => reject(new TypeError("aborted")));
      network.answer(call).then(([status, body]) => resolve(new Response(JSON.stringify(body), { status })), reject);
    });
  },
});
performance.now = () => time.now;
Date.now = () => Math.round(began + time.now + network.clockIsOff);

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
const forever = new Promise<never>(() => {});

function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}

async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = time.now + 2_000_000;
  while (!condition()) {
    check(time.now < deadline, `never: ${what}`);
    await sleep(20);
  }
}

/** What a promise comes to, in time. */
async function within<T>(what: string, promise: Promise<T>): Promise<T> {
  let done = false;
  promise.then(() => (done = true), () => (done = true));
  await until(what, () => done);
  return promise;
}

const errcode = (promise: Promise<Json>) => promise.then(() => "none", (cause) => cause.errcode ?? String(cause));

const clients: HearthStream[] = [];

function client(options: Partial<Options> = {}): { client: HearthStream; statuses: Status[] } {
  const statuses: Status[] = [];
  const all = { baseUrl: `https://${HOST}`, accessToken: "t", since: "p0", onSync: () => {}, ...options };
  const client = new HearthStream({ onStatus: (status) => void statuses.push(status), ...all });
  client.start();
  clients.push(client);
  return { client, statuses };
}

const say = (client: HearthStream) => client.send("!r", "m.room.message", { body: "hello" });
const expired: [number, Json] = [401, { errcode: "M_UNKNOWN_TOKEN", error: "expired", soft_logout: true }];

/** The clock is set amid a stream. */
async function whileStreamingTheClockGoes(by: number): Promise<void> {
  network.accept();
  const { client: it, statuses } = client();
  await until("streaming", () => statuses.at(-1) === "streaming");
  const socket = network.sockets[0]!;
  const hears = (method: string) => until(method, () => socket.heard.some((frame) => frame.method === method));
  socket.say({ type: "sync", from: "p0", to: "p1", body: {} });
  await until("the sync is applied", () => it.since === "p1");
  network.clockIsOff = by;
  await hears("ack");
  await hears("ping");
  check(network.sockets.length === 1, `${network.sockets.length} sockets`);
}

const pausesOf = (all: { at: number }[]) => all.slice(1).map(({ at }, index) => at - all[index]!.at);

const cases: { [name: string]: () => Promise<void> } = {
  async "a line of statuses that throws stops nothing"() {
    network.accept();
    const { client: it } = client({
      onStatus: (status) => {
        if (status !== "stopped") throw new Error("not drawn");
      },
    });
    await within("the answer", say(it));
  },

  async "a request after the session is gone is refused"() {
    network.accept();
    network.hear = (socket) => socket.end(4004, "M_UNKNOWN_TOKEN");
    const { client: it, statuses } = client();
    const before = errcode(say(it));
    await until("logged out", () => statuses.includes("loggedOut"));
    check((await within("the request before", before)).includes("M_UNKNOWN_TOKEN"), "what was asked before");
    check((await within("the request after", errcode(say(it)))).includes("M_UNKNOWN_TOKEN"), "what was asked after");
  },

  async "an address that is none is said, and not waited for"() {
    const { statuses } = client({ baseUrl: "nonsense://" });
    await until("broken", () => statuses.includes("broken"));
  },

  async "content that is not JSON is refused, and blocks nothing else"() {
    network.accept();
    const { client: it } = client();
    const content: Json = {};
    content.content = content;
    const refused = errcode(it.send("!r", "m.room.message", content));
    const next = say(it);
    await within("the next", next);
    check((await refused).includes("TypeError"), "it is refused");
  },

  async "what is sent is what was given, whatever becomes of that"() {
    network.accept();
    const { client: it } = client();
    const content = { body: "before" };
    const sent = it.send("!r", "m.room.message", content);
    content.body = "after";
    await within("the answer", sent);
    const frame = network.sockets[0]!.heard.find(({ method }) => method === "send");
    check((frame as any).params.content.body === "before", JSON.stringify(frame));
  },

  async "no body is applied twice by a client that stops and starts while it is at it"() {
    network.accept();
    network.hear = (socket, { id, params }) => {
      socket.say({ id, result: {} });
      const from = (params as any).since as string;
      if (from === "p0") socket.say({ type: "sync", from, to: "p1", body: {} });
    };
    const applied: string[] = [];
    let go = () => {};
    const slow = new Promise<void>((resolve) => (go = resolve));
    const { client: it, statuses } = client({
      onSync: async (_body, position) => {
        applied.push(position);
        await slow;
      },
    });
    await until("a body", () => applied.length > 0);
    it.stop();
    it.start();
    await sleep(5_000);
    go();
    await until("it goes on", () => it.since === "p1" && statuses.at(-1) === "streaming");
    check(applied.join() === "p1", `applied: ${applied}`);
  },

  async "a socket of before that closes late takes nothing away"() {
    network.accept();
    let late = () => {};
    network.closing = (end) => (late = end);
    const { client: it, statuses } = client();
    await until("the first socket", () => statuses.at(-1) === "streaming");
    it.stop();
    it.start();
    await until("the second socket", () => network.sockets.length === 2 && statuses.at(-1) === "streaming");
    late();
    await within("the answer", say(it));
  },

  async "sockets that end as soon as they are let in are not asked again and again"() {
    network.accept();
    const { hear } = network;
    network.hear = (socket, frame) => {
      hear(socket, frame);
      socket.end(4000);
    };
    const { statuses } = client();
    await until("polling", () => statuses.includes("polling"));
    check(network.sockets.length === 3, `${network.sockets.length} sockets`);
  },

  async "a server that sends elsewhere, where nobody is, is asked again"() {
    network.accept();
    const { open, hear } = network;
    network.open = (socket) => (socket.url.includes("elsewhere") ? socket.end(1006) : open(socket));
    network.hear = (socket, frame) => {
      hear(socket, frame);
      if (network.sockets.length > 1) return;
      socket.say({ type: "reconnect", url: "https://elsewhere.example", delay_ms: 1, reason: "" });
      socket.end(4011);
    };
    const { client: it } = client();
    await until("elsewhere", () => network.sockets.some(({ url }) => url.includes("elsewhere")));
    await within("the answer", say(it));
  },

  async "a sync that is never answered is given up"() {
    client();
    const answer = network.answer;
    network.answer = (call) => (network.calls.length > 1 ? answer(call) : forever);
    await until("another", () => network.calls.length > 1);
  },

  async "a request that is never answered is made again"() {
    const answer = network.answer;
    const puts = () => network.calls.filter(({ method }) => method === "PUT").length;
    network.answer = (call) => (call.method === "PUT" && puts() === 1 ? forever : answer(call));
    const { client: it } = client();
    await within("the answer", say(it));
    check(puts() === 2, `${puts()} attempts`);
  },

  async "requests wait as long as they are told, also without a socket"() {
    const puts = () => network.calls.filter(({ method }) => method === "PUT");
    network.answer = async (call) => {
      if (call.method === "GET") await sleep(200);
      else if (puts().length === 1) return [429, { errcode: "M_LIMIT_EXCEEDED", error: "", retry_after_ms: 5_000 }];
      return [200, { next_batch: "p1" }];
    };
    const { client: it } = client();
    await within("the answer", say(it));
    const [first, second] = puts();
    check(second!.at - first!.at >= 4_900, `after ${second!.at - first!.at} ms`);
  },

  async "a token that expires without a socket is refreshed, and what was asked is asked again"() {
    let token = "old";
    const answer = network.answer;
    network.answer = async (call) => (token === "old" ? expired : answer(call));
    const { client: it } = client({ refresh: async () => (token = "new") });
    await within("the answer", say(it));
  },

  async "a token that expires amid a request is refreshed, and what was asked is asked again"() {
    network.accept();
    const { hear } = network;
    network.hear = (socket, frame) => {
      if (frame.method !== "send" || network.sockets.length > 1) return hear(socket, frame);
      socket.say({ id: frame.id, error: expired[1] });
      socket.end(4013);
    };
    const { client: it } = client({ refresh: async () => "new" });
    await within("the answer", say(it));
    check(network.sockets.length === 2, `${network.sockets.length} sockets`);
  },

  async "a refresh that fails after the client was started anew does nothing to it"() {
    network.accept();
    const { hear } = network;
    network.hear = (socket, frame) => (network.sockets.length === 1 ? socket.end(4013) : hear(socket, frame));
    let fail: undefined | (() => void);
    const refresh = () => new Promise<string>((_, reject) => (fail = () => reject(new Error("refused"))));
    const { client: it, statuses } = client({ refresh });
    await until("the refresh", () => fail !== undefined);
    it.stop();
    it.start();
    await until("the second socket", () => statuses.at(-1) === "streaming");
    fail!();
    await within("the answer", say(it));
    check(!statuses.includes("loggedOut"), statuses.join());
  },

  async "a token that was given to the socket is that of the next one"() {
    network.accept();
    const { client: it } = client();
    await within("the answer", it.request("token", { access_token: "new" }));
    network.sockets[0]!.end(1006);
    await within("the answer", say(it));
    const auth = network.sockets[1]!.heard.find(({ method }) => method === "auth");
    check((auth as any).params.access_token === "new", JSON.stringify(auth));
  },

  async "a socket comes back when it is told to"() {
    network.accept();
    const { hear } = network;
    network.hear = (socket, frame) => {
      hear(socket, frame);
      socket.end(4010, "30000");
    };
    client();
    await until("sockets", () => network.sockets.length > 3);
    const pauses = pausesOf(network.sockets);
    check(pauses.every((pause) => pause > 29_000), `pauses: ${pauses}`);
  },

  async "a sync comes back when it is told to"() {
    network.answer = async () => [429, { errcode: "M_LIMIT_EXCEEDED", error: "", retry_after_ms: 8_000 }];
    client();
    await until("syncs", () => network.calls.length > 2);
    // The last may be the first of another while without a socket.
    const [pause] = pausesOf(network.calls);
    check(pause! > 7_900, `pause: ${pause}`);
  },

  async "what the server will never let in is said, and not tried for ever"() {
    network.accept();
    const error = { errcode: "M_INVALID_PARAM", error: "`filter`" };
    network.hear = (socket, { id }) => {
      socket.say({ id, error });
      socket.end(4003);
    };
    network.answer = async () => [400, error];
    const { client: it, statuses } = client({ filter: { room: 1 } });
    const asked = within("the answer", errcode(say(it)));
    check((await asked) === "M_INVALID_PARAM", `${await asked}`);
    check(statuses.at(-1) === "broken", statuses.join());
  },

  async "an account that is locked is gone, also without a socket"() {
    network.answer = async () => [401, { errcode: "M_USER_LOCKED", error: "", soft_logout: true }];
    const { statuses } = client();
    await until("logged out", () => statuses.includes("loggedOut"));
  },

  async "presence has a way without a socket"() {
    const answer = network.answer;
    network.answer = async (call) => (call.path.endsWith("whoami") ? [200, { user_id: "@me:x" }] : answer(call));
    const { client: it } = client();
    await within("the answer", it.request("presence", { presence: "online" }));
    check(network.calls.some(({ path }) => path === "presence/@me:x/status"), "the twin");
  },

  async "a line on which nothing is heard is asked once a heartbeat, and given up after two that went unheard"() {
    network.accept();
    const { hear } = network;
    const pings: { at: number }[] = [];
    network.hear = (socket, frame) => {
      if (frame.method !== "ping") hear(socket, frame);
      else if (socket === network.sockets[0]) pings.push({ at: time.now });
    };
    client();
    await until("another socket", () => network.sockets.length > 1);
    check(pings.length === 2, `${pings.length} pings`);
    const [pause] = pausesOf(pings);
    check(pause! > 28_000, `pause: ${pause}`);
    const silent = network.sockets[1]!.at - network.sockets[0]!.at;
    check(silent >= 90_000, `given up after ${silent} ms`);
  },

  async "a clock that is set back makes no line silent"() {
    await whileStreamingTheClockGoes(-HOUR_MS);
  },

  async "a clock that is set ahead cuts no line"() {
    await whileStreamingTheClockGoes(HOUR_MS);
  },

  async "a clock that is set back makes nobody wait for the next socket"() {
    const { statuses } = client();
    await until("polling", () => statuses.includes("polling") && network.calls.length > 0);
    const before = network.sockets.length;
    network.clockIsOff = -HOUR_MS;
    await until("another socket", () => network.sockets.length > before);
    const timeouts = network.calls.map(({ query }) => query.get("timeout") ?? "");
    check(timeouts.every((timeout) => /^[0-9]+$/.test(timeout)), `timeouts: ${timeouts}`);
  },

  async "an empty position is none"() {
    network.accept();
    const { hear } = network;
    network.hear = (socket, frame) => {
      hear(socket, frame);
      if (frame.method === "auth") socket.say({ type: "sync", to: "p1", body: {} });
    };
    const { client: it } = client({ since: "" });
    await until("a position", () => it.since === "p1");
    check(network.sockets.length === 1, `${network.sockets.length} sockets`);
  },
};

async function play(): Promise<Json> {
  const wrong: string[] = [];
  for (const [name, play] of Object.entries(cases)) {
    network = new Network();
    await play().catch((cause) => wrong.push(`${name}: ${cause.message ?? cause}`));
    for (const client of clients.splice(0)) client.stop();
  }
  return { played: Object.keys(cases).length, wrong };
}

play()
  .catch((cause): Json => ({ broken: String(cause) }))
  .then((outcome) => realFetch("/report", { method: "POST", body: JSON.stringify(outcome) }));
