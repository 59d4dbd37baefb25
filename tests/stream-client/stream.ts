/**
 * A client of Hearth's stream (api-spec/stream.md): one WebSocket for syncs and requests, and `/sync` with REST where no
 * socket can be had, from the same position. No framework; whatever has `WebSocket`, `fetch` and `performance.now` runs it,
 * which is the clock it goes by: people and networks set the other one.
 *
 * What it promises: `onSync` is called with each body once and in order, whatever happens to the line; a position is
 * kept only after `onSync` is done. A request is answered once; those with a transaction id are tried again until they
 * are.
 */

export type Json = { [key: string]: unknown };

export interface Options {
  /** The base of the client API's addresses: `https://matrix.example.org`. */
  baseUrl: string;
  accessToken: string;
  /** Where to go on from; without it the first body has everything. */
  since?: string;
  filter?: Json | string;
  useStateAfter?: boolean;
  onSync: (body: Json, position: string) => void | Promise<void>;
  onStatus?: (status: Status) => void;
  /** A new access token for one that has expired. If it rejects, the session is gone: it waits for lost lines itself. */
  refresh?: () => Promise<string>;
}

export type Status = "connecting" | "streaming" | "polling" | "loggedOut" | "stopped" | "broken";

/** What the server answered to a request instead of a result. */
export class MatrixError extends Error {
  constructor(readonly body: Json) {
    super(`${body.errcode}: ${body.error}`);
  }
  get errcode(): unknown {
    return this.body.errcode;
  }
}

interface Request {
  method: string;
  params: Json;
  resolve: (result: Json) => void;
  reject: (cause: Error) => void;
  /** Sent over this socket. */
  sentOn?: WebSocket;
  /** Over REST, at this moment, or told to wait. */
  underWay?: boolean;
}

const SUBPROTOCOL = "hearth.v1.json";
const PATH = "/_matrix/client/unstable/hearth/v1/stream";
/** Failures in a row to get a socket going before `/sync` takes over, and the time until the next attempt then. */
const FAILURES_BEFORE_POLLING = 3;
const RETRY_STREAM_MS = 10_000;
const ACK_AFTER_SYNCS = 32;
const ACK_AFTER_MS = 2_000;
const LONGEST_PAUSE_MS = 30_000;
const OPEN_WITHIN_MS = 10_000;
/** A request that nothing is heard of for so long, beyond what it asked the server to wait, has lost its line. */
const ANSWER_WITHIN_MS = 90_000;
/** How a session ends. */
const GONE: unknown[] = ["M_UNKNOWN_TOKEN", "M_USER_LOCKED", "M_USER_DEACTIVATED"];

/** The access token has expired, and the session has not. */
const hasExpired = (error: Json | undefined) => error?.errcode === "M_UNKNOWN_TOKEN" && error.soft_logout === true;

const withoutSlash = (url: string) => url.replace(/\/+$/, "");
const pauseAfter = (failures: number) =>
  Math.min(LONGEST_PAUSE_MS, 250 * 2 ** failures) * (0.5 + Math.random());
const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

export class HearthStream {
  private status: Status = "stopped";
  private position: string | undefined;
  private token: string;
  private base: string;
  private socket: WebSocket | undefined;
  private authenticated = false;
  /** The largest frame that the server takes, in bytes. */
  private largestFrame = Infinity;
  private requests = new Map<string, Request>();
  /** Ids are transaction ids: no two clients of a device may have the same. */
  private readonly prefix = `${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}.`;
  private next = 0;
  private polling: AbortController | undefined;
  private running = 0;
  /** Why nothing more can be asked. */
  private cause: Error | undefined;
  /** All that was applied so far: bodies are applied one after the other, in the order they came in. Never rejects. */
  private applied: Promise<unknown> = Promise.resolve();

  constructor(private readonly options: Options) {
    this.position = options.since || undefined;
    this.token = options.accessToken;
    this.base = withoutSlash(options.baseUrl);
  }

  /** The client's position: a token of `/sync`. */
  get since(): string | undefined {
    return this.position;
  }

  start(): void {
    if (this.status !== "stopped") return;
    this.cause = undefined;
    const run = ++this.running;
    this.run(run).catch((cause) => {
      if (run === this.running) this.end("broken", cause as Error);
    });
  }

  stop(): void {
    this.running++;
    this.setStatus("stopped");
    this.polling?.abort();
    this.socket?.close(1000);
    this.failAll(new Error("stopped"));
  }

  /** A message. Resolves once it is durable; tried again until it is known. */
  send(roomId: string, type: string, content: Json): Promise<Json> {
    return this.request("send", { room_id: roomId, type, content });
  }

  /** Any method of the stream. */
  request(method: string, params: Json): Promise<Json> {
    const id = this.prefix + this.next++;
    return new Promise((resolve, reject) => {
      if (this.cause) throw this.cause;
      // As it is now: the same each time it is tried.
      this.requests.set(id, { method, params: JSON.parse(JSON.stringify(params)), resolve, reject });
      this.flush();
    });
  }

  private setStatus(status: Status): void {
    if (this.status === status) return;
    this.status = status;
    try {
      this.options.onStatus?.(status);
    } catch (cause) {
      console.error("a status could not be told:", cause);
    }
  }

  private alive(run: number): boolean {
    return run === this.running && !["loggedOut", "broken", "stopped"].includes(this.status);
  }

  private async run(run: number): Promise<void> {
    this.setStatus("connecting");
    let failures = 0;
    while (this.alive(run)) {
      const { code, reason, delay, worked, refused } = await this.stream(run);
      if (!this.alive(run)) return;
      failures = worked ? 0 : failures + 1;
      // Where nobody is, nobody says where to go.
      if (!worked) this.base = withoutSlash(this.options.baseUrl);
      let told = delay;
      switch (code) {
        case 1002: case 1003: case 1007: case 4001: case 4002:
          this.end("broken", new Error(`${code}: ${reason}`));
          return;
        case 4003:
          if (refused?.errcode !== "M_INVALID_PARAM") break;
          this.end("broken", refused);
          return;
        case 4004:
          this.end("loggedOut", new Error(reason));
          return;
        case 4007:
          this.position = undefined;
          told = 0;
          break;
        case 4010:
          told = Number(reason) || told;
          break;
        case 4013:
          if (!(await this.renew(run))) return;
          told = 0;
      }
      if (failures >= FAILURES_BEFORE_POLLING) {
        await this.poll(run, Math.max(RETRY_STREAM_MS, told ?? 0));
      } else {
        await sleep(told ?? pauseAfter(failures));
      }
      if (this.alive(run)) this.setStatus("connecting");
    }
  }

  private end(status: Status, cause: Error): void {
    this.cause = cause;
    this.setStatus(status);
    this.failAll(cause);
  }

  private failAll(cause: Error): void {
    for (const request of this.requests.values()) request.reject(cause);
    this.requests.clear();
  }

  /** Gives whether this run can go on, with a new token. */
  private async renew(run: number): Promise<boolean> {
    try {
      if (!this.options.refresh) throw new Error("the access token has expired");
      this.token = await this.options.refresh();
    } catch (cause) {
      if (this.alive(run)) this.end("loggedOut", cause as Error);
    }
    return this.alive(run);
  }

  /** One socket, from its opening to its end. */
  private stream(
    run: number,
  ): Promise<{ code: number; reason: string; delay?: number; worked: boolean; refused?: MatrixError }> {
    return new Promise((resolve) => {
      const socket = new WebSocket(this.base.replace(/^http/, "ws") + PATH, SUBPROTOCOL);
      const authId = this.prefix + this.next++;
      let heartbeat = OPEN_WITHIN_MS;
      let heard = performance.now();
      /** Pings since then. */
      let pings = 0;
      let delay: number | undefined;
      let refused: MatrixError | undefined;
      /** It did more than to let this client in, or has done so for a while. */
      let worked = false;
      let opened: number | undefined;
      let unacknowledged = 0;
      let acknowledgedAt = performance.now();
      let failed = false;
      let over = false;
      this.socket = socket;
      this.authenticated = false;

      const say = (frame: Json) => {
        if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(frame));
      };
      const acknowledge = () => {
        if (unacknowledged > 0) say({ method: "ack", params: { pos: this.position } });
        unacknowledged = 0;
        acknowledgedAt = performance.now();
      };
      const finish = (code: number, reason: string) => {
        if (over) return;
        over = true;
        clearInterval(watch);
        if (this.socket === socket) {
          this.socket = undefined;
          this.authenticated = false;
        }
        if (opened !== undefined && performance.now() - opened > OPEN_WITHIN_MS) worked = true;
        // Only what was applied is behind this client; the rest comes again.
        void this.applied.then(() => resolve({ code, reason, delay, worked: worked && !failed, refused }));
      };
      const watch = setInterval(() => {
        const silent = performance.now() - heard;
        if (silent > 3 * heartbeat) {
          // A line that is dead may take minutes to say so.
          socket.close();
          finish(1006, "nothing was heard for too long");
        } else if (silent > (pings + 1) * heartbeat) {
          pings++;
          say({ method: "ping" });
        }
        if (performance.now() - acknowledgedAt > ACK_AFTER_MS) acknowledge();
      }, 1_000);

      socket.onclose = (event) => finish(event.code, event.reason);
      socket.onmessage = (event) => {
        heard = performance.now();
        pings = 0;
        if (over || run !== this.running) return;
        const frame = JSON.parse(event.data as string) as Json;
        if (frame.type === "hello") {
          heartbeat = frame.heartbeat_ms as number;
          this.largestFrame = frame.max_frame_bytes as number;
          const { filter, useStateAfter } = this.options;
          const params = {
            access_token: this.token,
            since: this.position,
            filter,
            use_state_after: useStateAfter,
          };
          say({ id: authId, method: "auth", params });
        } else if (frame.id === authId) {
          if (frame.result) {
            opened = performance.now();
            this.authenticated = true;
            this.setStatus("streaming");
            this.flush();
          } else {
            refused = new MatrixError(frame.error as Json);
          }
        } else if (frame.type === "sync") {
          const from = frame.from as string | undefined;
          void this.apply(run, from, frame.to as string, frame.body as Json).then((applied) => {
            if (applied) {
              worked = true;
              if (++unacknowledged >= ACK_AFTER_SYNCS) acknowledge();
              return;
            }
            failed = true;
            socket.close(1000);
            finish(1006, "a sync that doesn't follow on, or that could not be applied");
          });
        } else if (frame.type === "reconnect") {
          worked = true;
          delay = frame.delay_ms as number;
          if (frame.url) this.base = withoutSlash(frame.url as string);
        } else if (frame.method === "ping") {
          say({ method: "pong" });
        } else if (typeof frame.id === "string") {
          worked = true;
          this.answered(frame.id, frame);
        }
      };
    });
  }

  /** Applies what leads from `from` to `to`, after all that came before. Gives whether that is where this client is now. */
  private apply(run: number, from: string | undefined, to: string, body: Json): Promise<boolean> {
    const applied = this.applied.then(async () => {
      if (run !== this.running || from !== this.position) return false;
      try {
        await this.options.onSync(body, to);
      } catch (cause) {
        console.error("a sync could not be applied; it will come again:", cause);
        return false;
      }
      this.position = to;
      return true;
    });
    this.applied = applied;
    return applied;
  }

  private answered(id: string, frame: Json): void {
    const request = this.requests.get(id);
    if (!request) return;
    const error = frame.error as Json | undefined;
    if (error?.errcode === "M_LIMIT_EXCEEDED") {
      request.sentOn = undefined;
      request.underWay = true;
      void sleep((error.retry_after_ms as number | undefined) ?? 1_000).then(() => {
        request.underWay = false;
        this.flush();
      });
      return;
    }
    if (hasExpired(error)) return this.again(request);
    this.requests.delete(id);
    if (!error && request.method === "token") this.token = request.params.access_token as string;
    if (error) request.reject(new MatrixError(error));
    else request.resolve(frame.result as Json);
  }

  /** Leaves what was not answered to the next way that is open. */
  private again(request: Request): void {
    request.underWay = false;
    if (this.authenticated) this.flush();
  }

  /** Sends what has not been sent by the way that is open. */
  private flush(): void {
    for (const [id, request] of this.requests) {
      if (request.underWay) continue;
      if (this.authenticated && this.socket) {
        if (request.sentOn === this.socket) continue;
        request.sentOn = this.socket;
        const frame = JSON.stringify({ id, method: request.method, params: request.params });
        if (new TextEncoder().encode(frame).length > this.largestFrame) {
          this.answered(id, { error: { errcode: "M_TOO_LARGE", error: "larger than any frame may be" } });
        } else {
          this.socket.send(frame);
        }
      } else if (this.status === "polling") {
        request.underWay = true;
        void this.byRest(id, request);
      }
    }
  }

  /** The twin of a method. */
  private async byRest(id: string, request: Request): Promise<void> {
    const { room_id, type, state_key, event_id, content, ...rest } = request.params as Record<string, any>;
    const part = encodeURIComponent;
    const room = `rooms/${part(room_id)}`;
    const me = async () => part((await this.fetch("GET", "account/whoami")).user_id as string);
    try {
      let answer: Json;
      switch (request.method) {
        case "send":
          answer = await this.fetch("PUT", `${room}/send/${part(type)}/${part(id)}`, content);
          break;
        case "state":
          answer = await this.fetch("PUT", `${room}/state/${part(type)}/${part(state_key ?? "")}`, content);
          break;
        case "redact":
          answer = await this.fetch("PUT", `${room}/redact/${part(event_id)}/${part(id)}`, rest);
          break;
        case "typing":
          answer = await this.fetch("PUT", `${room}/typing/${await me()}`, rest);
          break;
        case "receipt":
          answer = await this.fetch("POST", `${room}/receipt/${part(type)}/${part(event_id)}`, rest);
          break;
        case "read_markers":
          answer = await this.fetch("POST", `${room}/read_markers`, rest);
          break;
        case "presence":
          answer = await this.fetch("PUT", `presence/${await me()}/status`, rest);
          break;
        case "to_device":
          answer = await this.fetch("PUT", `sendToDevice/${part(type)}/${part(id)}`, rest);
          break;
        default:
          throw new MatrixError({ errcode: "M_UNRECOGNIZED", error: "no such method without a socket" });
      }
      this.answered(id, { result: answer });
    } catch (cause) {
      if (cause instanceof MatrixError) return this.answered(id, { error: cause.body });
      // A lost line answers nothing: the request stays, and its id makes it one.
      this.again(request);
    }
  }

  private async fetch(
    method: string,
    path: string,
    body?: Json,
    within = ANSWER_WITHIN_MS,
    line = new AbortController(),
  ): Promise<Json> {
    const patience = setTimeout(() => line.abort(), within);
    try {
      const response = await fetch(`${this.base}/_matrix/client/v3/${path}`, {
        method,
        headers: { Authorization: `Bearer ${this.token}`, "Content-Type": "application/json" },
        body: body === undefined ? undefined : JSON.stringify(body),
        signal: line.signal,
      });
      const answer = (await response.json()) as Json;
      if (!response.ok) throw new MatrixError(answer);
      return answer;
    } finally {
      clearTimeout(patience);
    }
  }

  /** `/sync` for a while, until a socket is worth another try. */
  private async poll(run: number, during: number): Promise<void> {
    this.setStatus("polling");
    this.flush();
    const until = performance.now() + during;
    let failures = 0;
    for (;;) {
      const from = this.position;
      const left = until - performance.now();
      if (!this.alive(run) || left <= 0) return;
      let told = 0;
      this.polling = new AbortController();
      const query = new URLSearchParams({ timeout: from ? String(Math.ceil(left)) : "0" });
      const { filter, useStateAfter } = this.options;
      if (from) query.set("since", from);
      if (filter) query.set("filter", typeof filter === "string" ? filter : JSON.stringify(filter));
      if (useStateAfter) query.set("use_state_after", "true");
      try {
        const within = left + ANSWER_WITHIN_MS;
        const body = await this.fetch("GET", `sync?${query}`, undefined, within, this.polling);
        if (!this.alive(run)) return;
        if (await this.apply(run, from, body.next_batch as string, body)) {
          failures = 0;
          this.flush();
          continue;
        }
      } catch (cause) {
        if (!this.alive(run)) return;
        const body = cause instanceof MatrixError ? cause.body : undefined;
        told = Number(body?.retry_after_ms) || 0;
        if (hasExpired(body)) {
          if (!(await this.renew(run))) return;
          this.flush();
        } else if (GONE.includes(body?.errcode)) {
          return this.end("loggedOut", cause as Error);
        }
      }
      await sleep(Math.max(told, pauseAfter(failures++)));
    }
  }
}
