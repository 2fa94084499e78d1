/** A world moved by hand for the client: time, sockets and chance; what stands in it for a page. */

import { Broker } from "../../broker/web/static/client.js";

export const WELCOME = { connection_id: "c", user: null, heartbeat: 30, max_message_bytes: 1 << 20 };

/** Time that passes when it is told to. */
class Clock {
  #now = 1_000_000;
  #last = 0;
  #timers = new Map();

  now() {
    return this.#now;
  }

  setTimeout(call, ms) {
    if (ms >= 2 ** 31) throw new RangeError(`a timer of ${ms} ms would fire at once`);
    this.#timers.set(++this.#last, { at: this.#now + Math.max(0, ms), call });
    return this.#last;
  }

  clearTimeout(id) {
    this.#timers.delete(id);
  }

  /** Timers that are set. */
  get size() {
    return this.#timers.size;
  }

  /** Let time pass, timer by timer. */
  async pass(ms) {
    const until = this.#now + ms;
    await settled();
    for (let next = this.#next(until); next; next = this.#next(until)) {
      const [id, { at, call }] = next;
      this.#timers.delete(id);
      this.#now = Math.max(this.#now, at);
      call();
      await settled();
    }
    this.#now = until;
  }

  #next(until) {
    return [...this.#timers].filter(([, { at }]) => at <= until).sort(([, one], [, other]) => one.at - other.at)[0];
  }
}

/** A socket whose other end is the test. */
class Socket {
  sent = [];
  bufferedAmount = 0;
  closed = null;

  constructor(url, protocols) {
    Object.assign(this, { url, protocols });
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close(code) {
    this.closed = code;
  }

  /** What the broker says. */
  async say(...messages) {
    const texts = messages.map((message) => (typeof message === "string" ? message : JSON.stringify(message)));
    for (const data of texts) this.onmessage({ data });
    await settled();
  }

  note(event, rest) {
    return this.say({ type: "notification", event, ...rest });
  }

  async welcome(data) {
    await this.note("welcome", { data: { ...WELCOME, ...data } });
  }

  /** The payloads of the requests for `action`, so far. */
  asked(action) {
    return this.sent.filter((request) => request.action === action).map(({ payload }) => payload);
  }

  /** Answer the last request for `action`, and say more in the same breath. */
  answer(action, data, ...more) {
    const { id } = this.sent.findLast((request) => request.action === action);
    return this.say({ id, type: "response", data }, ...more);
  }

  refuse(action, data) {
    const { id } = this.sent.findLast((request) => request.action === action);
    return this.say({ id, type: "error", data: { message: "No.", retryable: false, ...data } });
  }

  async drop(code = 1006, reason = "") {
    this.onclose({ code, reason });
    await settled();
  }
}

/** Wait until all that is ready to run has run. */
export function settled() {
  return new Promise((resolve) => setImmediate(resolve));
}

/** What `sessionStorage` is to a page. */
export function storage() {
  const kept = new Map();
  return {
    kept,
    getItem: (key) => kept.get(key) ?? null,
    setItem: (key, value) => kept.set(key, value),
    removeItem: (key) => kept.delete(key),
  };
}

/** A broker's client in a world of its own, and what it says of itself. */
export function world({ chance = 0.5, ...options } = {}) {
  const clock = new Clock();
  const sockets = [];
  const states = [];
  const open = function (...about) {
    const socket = new Socket(...about);
    sockets.push(socket);
    return socket;
  };
  const given = { url: "ws://test/ws", WebSocket: open, clock, random: () => chance, storage: null };
  const broker = new Broker({ ...given, ...options });
  const errors = [];
  broker.on("state", (state) => states.push(state));
  broker.on("error", (error) => errors.push(error));
  return {
    broker,
    clock,
    sockets,
    states,
    errors,
    get socket() {
      return sockets.at(-1);
    },
    /** Connect, or connect again after whatever it waits for. */
    async connect(data) {
      const before = sockets.length;
      if (broker.state === "closed") broker.connect();
      await clock.pass(0);
      for (let tries = 0; sockets.length === before && tries < 50; tries++) await clock.pass(500);
      await sockets.at(-1).welcome(data);
    },
  };
}

/** One record of session `s`. */
export function record(seq, event = "debug", data = {}, turn_id = undefined) {
  return { type: "notification", event, session_id: "s", seq, turn_id, at: "2026-01-01T00:00:00.000Z", data };
}

/** The answer to an attach. */
export function attached(data = {}) {
  const log = { epoch: "e", head: 0, floor: 1, recovered: true };
  return { session_id: "s", state: "open", turn: null, queue: [], ...log, ...data };
}

/** A session `s` that is attached, in a world. */
export async function following(options) {
  const here = world(options);
  await here.connect();
  const session = here.broker.session("s");
  const records = [];
  session.on("record", (one) => records.push(one));
  const answer = session.attach();
  await here.socket.answer("session.attach", attached());
  await answer;
  return { ...here, session, records, at: () => here.sockets.at(-1) };
}

/** Stand in for a page as long as the test lasts. */
export function page(t) {
  const window = new EventTarget();
  Object.assign(globalThis, { window, document: { hidden: false } });
  t.after(() => {
    delete globalThis.window;
    delete globalThis.document;
  });
  return (name) => {
    window.dispatchEvent(new Event(name));
    return settled();
  };
}
