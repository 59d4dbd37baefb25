/**
 * What a browser does in the tests: people in a room, each with the reference client, over a line that may be cut. The
 * address says what they play, and has the server, the room and the access tokens; how it went is posted to `/report`.
 */

import { HearthStream, type Json, type Status } from "./stream.js";

const query = new URLSearchParams(location.search);
const get = (name: string) => query.get(name) ?? "";
const room = get("room");
const count = Number(get("messages"));
/** Milliseconds between two messages. */
const pace = Number(get("pace"));

interface Event {
  event_id: string;
  type: string;
  content: { body?: string };
}

class Person {
  /** Events of the room in the order of the syncs. */
  readonly events: string[] = [];
  readonly texts: string[] = [];
  readonly statuses: Status[] = [];
  readonly client: HearthStream;

  constructor(private readonly token: string) {
    this.client = new HearthStream({
      baseUrl: get("base"),
      accessToken: token,
      filter: { room: { timeline: { limit: 20 } } },
      onSync: (body) => this.apply(body),
      onStatus: (status) => this.statuses.push(status),
    });
  }

  private async apply(body: Json): Promise<void> {
    const joined = (body as any).rooms?.join?.[room];
    if (!joined) return;
    let events = joined.timeline.events as Event[];
    if (joined.timeline.limited && this.events.length > 0) {
      events = [...(await this.missed(joined.timeline.prev_batch as string)), ...events];
    }
    for (const event of events) {
      this.events.push(event.event_id);
      if (event.type === "m.room.message" && event.content.body) this.texts.push(event.content.body);
    }
  }

  /** The events between the last one that was seen and a limited timeline. */
  private async missed(from: string): Promise<Event[]> {
    const known = this.events[this.events.length - 1];
    const missed: Event[] = [];
    for (;;) {
      // Not over the line that is cut: this is about the stream.
      const address = `${get("direct")}/_matrix/client/v3/rooms/${encodeURIComponent(room)}/messages?dir=b&limit=50&from=${from}`;
      const response = await fetch(address, { headers: { Authorization: `Bearer ${this.token}` } });
      const page = (await response.json()) as { chunk: Event[]; end?: string };
      for (const event of page.chunk) {
        if (event.event_id === known) return missed.reverse();
        missed.push(event);
      }
      if (!page.end) return missed.reverse();
      from = page.end;
    }
  }
}

async function report(outcome: Json): Promise<void> {
  await fetch("/report", { method: "POST", body: JSON.stringify(outcome) });
}

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await wait(20);
}

/** Two people talk. */
async function talk(): Promise<Json> {
  const people = [new Person(get("alice")), new Person(get("bob"))];
  for (const person of people) person.client.start();
  const sent = await Promise.all(
    people.map(async (person, index) => {
      const ids: string[] = [];
      for (let number = 0; number < count; number++) {
        const body = `${index} ${number}`;
        const answer = await person.client.send(room, "m.room.message", { msgtype: "m.text", body });
        ids.push(answer.event_id as string);
        if (pace > 0) await wait(pace);
      }
      return ids;
    }),
  );
  await until(() => people.every((person) => person.texts.length >= 2 * count));
  for (const person of people) person.client.stop();
  const all = people.map(({ events, texts, statuses }) => ({ events, texts, statuses }));
  return { sent, people: all };
}

/** Somebody alone, and what their client has said of itself. */
function alone(onSync: (body: Json, position: string) => void): { client: HearthStream; statuses: Status[] } {
  const statuses: Status[] = [];
  const onStatus = (status: Status) => void statuses.push(status);
  const client = new HearthStream({ baseUrl: get("base"), accessToken: get("alice"), onSync, onStatus });
  client.start();
  return { client, statuses };
}

const text = (body: string) => ({ msgtype: "m.text", body });

/** The first message can't be applied when it first comes. */
async function failing(): Promise<Json> {
  const texts: string[] = [];
  const seen: Json[] = [];
  const { client, statuses } = alone((body, position) => {
    const events = ((body as any).rooms?.join?.[room]?.timeline.events ?? []) as Event[];
    const said = events.filter((event) => event.type === "m.room.message").map((event) => event.content.body!);
    if (said.includes("first")) {
      seen.push({ since: client.since, position });
      if (seen.length === 1) throw new Error("the disk is full");
    }
    texts.push(...said);
  });
  await until(() => client.since !== undefined);
  await client.send(room, "m.room.message", text("first"));
  await client.send(room, "m.room.message", text("second"));
  await until(() => texts.length >= 2);
  return { texts, statuses, failed: seen[0], again: seen[1] };
}

/** A message is larger than any frame may be. */
async function large(): Promise<Json> {
  const { client, statuses } = alone(() => {});
  await until(() => client.since !== undefined);
  const refused = client.send(room, "m.room.message", text("x".repeat(600_000)));
  const errcode = await refused.then(() => null, (cause) => cause.errcode);
  const next = await client.send(room, "m.room.message", text("short"));
  return { errcode, next: next.event_id, statuses };
}

/** A message is sent by REST, and its connection lost once there is a socket again. */
async function lost(): Promise<Json> {
  const { client, statuses } = alone(() => {});
  await until(() => statuses.includes("polling"));
  const sent = client.send(room, "m.room.message", text("held"));
  await until(() => statuses.includes("streaming"));
  await fetch("/cut");
  return { sent: (await sent).event_id, statuses };
}

const plays: { [name: string]: () => Promise<Json> } = { talk, failing, large, lost };
plays[get("play")]!().then(report, (cause) => report({ broken: String(cause) }));
