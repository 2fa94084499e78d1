/**
 * A client of the protocol `broker.v1.json`, for pages and for Node; one file, no dependency.
 *
 *     const broker = new Broker({ url: "wss://example.org/ws", getToken: () => fetchToken() });
 *     await broker.connect();
 *     const session = await broker.createSession({ agent: "echo" });
 *     const turn = session.send("Good morning");
 *     for await (const record of turn) console.log(record.event, record.data);
 *
 * It reconnects by itself, follows sessions and rooms on without a hole or a double, and sends queued turns again under
 * their own ids. Times are milliseconds, except in what the broker sends.
 *
 * @typedef {{type: string, event: string, data: any, session_id?: string, room?: string, seq?: number, from?: any, at?: string}} Note
 * @typedef {Note & {session_id: string, seq: number, at: string, turn_id?: string}} LogRecord one record of a session's log
 * @typedef {Note & {room: string, data: {event: string, data: any}}} RoomEvent
 * @typedef {{connection_id: string, user: string | null, protocol: string, server: string, node: string, heartbeat: number,
 *   max_message_bytes: number}} Welcome
 * @typedef {"closed" | "connecting" | "open" | "waiting"} State
 * @typedef {{state: State, willRetry: boolean, attempt: number, code?: number, reason?: string, delay?: number | null}} StateChange
 *   `delay` is how long it waits before it tries again; null: until the network, or the page, is back
 * @typedef {{session_id: string, epoch: string, head: number, floor: number, state: "open" | "closed", recovered: boolean, turn: any,
 *   queue: any[], approvals: any[], variables: {[name: string]: any}}} Attached
 * @typedef {{room: string, epoch: string, head: number, members: Member[], recovered: boolean}} Joined
 * @typedef {{connection_id: string, user: string | null}} Member
 * @typedef {{turn_id: string, seq: number, status: string, duplicate: boolean, durable: boolean}} Accepted
 * @typedef {{outcome: "completed" | "cancelled" | "failed" | "timed_out" | "lost", partial: boolean, [field: string]: any}} Ended
 * @typedef {string | {type: string, [field: string]: any}[]} Content text or blocks
 * @typedef {{ifBusy?: "queue" | "reject" | "interrupt", retryOf?: string, metadata?: object, clientMsgId?: string, signal?: AbortSignal}} SendOptions
 * @typedef {{timeout?: number, signal?: AbortSignal}} RequestOptions
 * @typedef {{now(): number, setTimeout(call: () => void, ms: number): any, clearTimeout(timer: any): void}} Clock
 * @typedef {{getItem(key: string): string | null, setItem(key: string, value: string): void, removeItem(key: string): void}} Store
 * @typedef {"connect" | "expired" | "expiring" | "refused"} TokenReason
 * @typedef {(about: {reason: TokenReason}) => string | null | undefined | Promise<string | null | undefined>} GetToken
 * @typedef {object} Options
 * @property {string | URL} [url] the socket; one that ends with `/` is a base. By default `ws` beside the page
 * @property {GetToken} [getToken] what to show at each connect. If it throws it is asked again, unless the error has `fatal: true`
 *   or the code `unauthenticated`
 * @property {any} [WebSocket] a class for where none is global
 * @property {Clock} [clock]
 * @property {() => number} [random]
 * @property {Store | null} [storage] keeps queued turns through a reload; in a page its `sessionStorage`
 * @property {number} [timeout] how long an answer may take
 * @property {{count?: number, bytes?: number, age?: number}} [queue] how much may wait to be sent, and how long
 * @property {boolean} [debug] show messages in the console
 */

const PROTOCOL = "broker.v1.json";
const FIRST_DELAY = 500; // doubled with each attempt; a random part of it is waited, so that a crowd spreads out
const LONGEST_DELAY = 20_000;
const STEADY = 5000; // a connection that lived this long starts the backoff anew
const PATIENCE = 10_000; // for the welcome, and for the answer to a ping
const MARK = 1 << 20; // bytes in the socket above which nothing more is written into it
const LOOK = 50; // between two looks whether they have left
const KEPT = 10_000; // records of one turn that wait to be read
const QUEUE = { count: 100, bytes: 1 << 20, age: 3_600_000 };
const CLOCK = {
  now: () => Date.now(),
  setTimeout: (/** @type {() => void} */ call, /** @type {number} */ ms) => setTimeout(call, ms),
  clearTimeout: (/** @type {any} */ timer) => clearTimeout(timer),
};

/** A refusal by the broker; `disconnected`, `timeout`, `queue_full`, `expired`, `cancelled` and `hole` also come from here. */
export class BrokerError extends Error {
  /** @param {{code: string, message: string, retryable?: boolean, retry_after?: number, hint?: string, field?: string}} data */
  constructor({ code, message, retryable = false, retry_after, hint, field }) {
    super(message);
    this.name = "BrokerError";
    this.code = code;
    /** Whether the same request makes sense again. */
    this.retryable = retryable;
    /** Seconds after which it does. */
    this.retryAfter = retry_after;
    this.hint = hint;
    this.field = field;
  }

  /** What it says, and what to do about it. */
  get words() {
    return this.hint ? `${this.message.replace(/\.$/, "")}: ${this.hint}` : this.message;
  }
}

/**
 * An event target; events are CustomEvents.
 * @template {object} Events their details by name
 */
class Emitter extends EventTarget {
  /**
   * Call `listener(detail)` at each event `name`, until `signal` aborts.
   * @template {keyof Events & string} Name
   * @param {Name} name
   * @param {(detail: Events[Name]) => void} listener
   * @param {{signal?: AbortSignal, once?: boolean}} [options]
   */
  on(name, listener, options) {
    this.addEventListener(name, (event) => listener(/** @type {CustomEvent} */ (event).detail), options);
  }

  /**
   * @internal
   * @template {keyof Events & string} Name
   * @param {Name} name
   * @param {Events[Name]} [detail]
   */
  _emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/**
 * One connection, kept up until `close`, or until the broker says not to come back.
 * @extends {Emitter<{state: StateChange, welcome: Welcome, notification: Note, error: BrokerError}>}
 */
export class Broker extends Emitter {
  #options;
  #url;
  #clock;
  #timers = new Map();
  #sessions = new Map();
  #rooms = new Map();
  #requests = new Map();
  /** @type {{id: string, text: string}[]} */
  #held = [];
  /** @type {any} */
  #socket = null;
  /** @type {ReturnType<typeof deferred> | null} */
  #ready = null;
  /** @type {AbortController | null} */
  #page = null;
  /** @type {Promise<string | null | undefined> | null} */
  #asking = null;
  /** @type {TokenReason} */
  #reason = "connect";
  #round = 0;
  #lastId = 0;
  #attempt = 0;
  #openedAt = 0;
  #heardAt = 0;
  #backAt = 0;
  #endsAt = NaN;
  #isOffline = false;
  #isHidden = false;

  /** @param {Options} [options] */
  constructor(options = {}) {
    super();
    const { url = new URL("ws", location.href), WebSocket = globalThis.WebSocket, clock = CLOCK, random = Math.random } = options;
    const { timeout = 30_000, getToken = () => null, storage = ownStorage(), debug = false } = options;
    this.#options = { WebSocket, random, timeout, getToken, debug, queue: { ...QUEUE, ...options.queue } };
    this.#clock = clock;
    this.#url = address(url);
    /** @internal */
    this._storage = storage;
    /** @type {State} */
    this.state = "closed";
    /** @type {Welcome | null} who we are, as the broker said when it was connected last */
    this.identity = null;
    /** @type {number | null} how long the last ping took */
    this.rtt = null;
  }

  /**
   * Connect, and stay connected. Calling it again while it waits tries at once.
   * @returns {Promise<Welcome>}
   * @throws {BrokerError} `disconnected`, with what the broker said, if it is not to come back
   */
  connect() {
    if (this.state === "open") return Promise.resolve(/** @type {Welcome} */ (this.identity));
    this.#ready ??= deferred();
    if (this.state !== "connecting") this.#dial();
    return this.#ready.promise;
  }

  /** Connect at once if it waits; if it is open, see whether it still is. */
  reconnectNow() {
    if (this.state === "open") this.#ping();
    else this.connect();
  }

  /** Leave, until `connect` is called again. */
  close() {
    if (this.state !== "closed") this.#finish(1000, "closed here");
  }

  /**
   * Ask the broker something.
   * @param {string} action
   * @param {any} [payload]
   * @param {RequestOptions} [options]
   * @returns {Promise<any>} the answer's data
   * @throws {BrokerError} a refusal, `disconnected` or `timeout`; whatever `signal` was aborted with
   */
  request(action, payload = {}, { timeout, signal } = {}) {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const abort = () => this.#settle(id, signal?.reason);
      const settle = (/** @type {any} */ error, /** @type {any} */ data) => {
        signal?.removeEventListener("abort", abort);
        if (error === null) resolve(data);
        else reject(error);
      };
      const id = this._ask(action, payload, settle, { timeout });
      signal?.addEventListener("abort", abort, { once: true });
    });
  }

  /**
   * Make a session, and follow it from its first record.
   * @param {{agent?: string, title?: string, workspace_dir?: string, variables?: object, session_id?: string, ephemeral?: boolean}} [options]
   * @returns {Promise<Session>}
   */
  createSession(options = {}) {
    return new Promise((resolve, reject) => {
      this._ask("session.create", options, (error, answer) => {
        if (error !== null) return reject(error);
        const session = this.session(answer.session_id);
        session._created(answer);
        resolve(session);
      });
    });
  }

  /**
   * A session by its id, the same object for as long as it is followed or has something to send.
   * @param {string} id
   * @returns {Session}
   */
  session(id) {
    return this.#sessions.get(id) ?? new Session(this, id);
  }

  /**
   * One page of your own sessions, newest first.
   * @param {{limit?: number, cursor?: string}} [page]
   * @returns {Promise<{sessions: any[], cursor?: string}>}
   */
  sessions(page = {}) {
    return this.request("session.list", page);
  }

  /**
   * A room by its name.
   * @param {string} name
   * @returns {Room}
   */
  room(name) {
    return this.#rooms.get(name) ?? new Room(this, name);
  }

  // -- what sessions and rooms use --------------------------------------------------------------

  /**
   * Ask, and have `settle` called once, before anything that comes after the answer is looked at.
   * @internal
   * @param {string} action
   * @param {any} payload
   * @param {(error: any, data?: any) => void} settle with null, or the error
   * @param {{timeout?: number, isBounded?: boolean}} [options] whether the caller keeps within the queue's bounds itself
   */
  _ask(action, payload, settle, { timeout = this.#options.timeout, isBounded = false } = {}) {
    const id = `c${++this.#lastId}`;
    const text = JSON.stringify({ id, type: "request", action, payload });
    const refusal = this.#refusal(text, isBounded);
    if (refusal) {
      settle(refusal);
      return id;
    }
    const timer = this.#clock.setTimeout(() => this.#settle(id, unanswered()), timeout);
    this.#requests.set(id, { settle, timer });
    this.#debug("→", action === "auth" ? action : text);
    this.#held.push({ id, text });
    this.#flush();
    return id;
  }

  /** @internal @param {Session | Room} one @param {boolean} [isKept] */
  _keep(one, isKept = true) {
    const [all, key] = one instanceof Session ? [this.#sessions, one.id] : [this.#rooms, one.name];
    if (isKept) all.set(key, one);
    else if (all.get(key) === one) all.delete(key);
  }

  /** Whether the queue has room for a turn of this size. @internal @param {number} bytes */
  _hasRoom(bytes) {
    const waiting = [...this.#sessions.values()].flatMap((session) => session.outbox);
    const size = waiting.reduce((sum, turn) => sum + turn._bytes, bytes);
    return waiting.length < this.#options.queue.count && size <= this.#options.queue.bytes;
  }

  /** How long a turn may wait. @internal */
  get _age() {
    return this.#options.queue.age;
  }

  /** @internal @param {() => void} call @param {number} ms */
  _later(call, ms) {
    return this.#clock.setTimeout(call, Math.max(0, ms));
  }

  /** @internal @param {any} timer */
  _drop(timer) {
    this.#clock.clearTimeout(timer);
  }

  /** @internal */
  _now() {
    return this.#clock.now();
  }

  /** @internal @param {number} attempt */
  _backoff(attempt) {
    return this.#options.random() * Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** attempt);
  }

  /** Whether the broker has said that it stops. @internal */
  get _isEnding() {
    return this.#backAt > 0;
  }

  // -- connecting -------------------------------------------------------------------------------

  async #dial() {
    this.#watch();
    this.#quiet();
    this.#enter("connecting");
    const round = ++this.#round; // a later one replaces this
    try {
      const reason = this.#clock.now() >= this.#endsAt ? "expired" : this.#reason;
      const token = await this.#token(reason);
      if (round !== this.#round) return;
      this.#endsAt = expiry(token);
      this.#open(token);
    } catch (error) {
      if (round === this.#round) this.#untold(error);
    }
  }

  /** @param {string | null | undefined} token */
  #open(token) {
    if (token && !/^[\w.~+-]+$/.test(token)) throw fatal("The token has characters that cannot travel in a subprotocol.");
    const socket = new this.#options.WebSocket(this.#url, token ? [PROTOCOL, `bearer.${token}`] : [PROTOCOL]);
    this.#socket = socket;
    socket.onmessage = (/** @type {MessageEvent} */ { data }) => socket === this.#socket && this.#receive(data);
    socket.onclose = (/** @type {CloseEvent} */ { code, reason }) => this.#lose(socket, code, reason);
    socket.onerror = () => {}; // a close follows; some implementations throw what nobody listens to
    this.#after("patience", PATIENCE, () => this.#hangUp("no welcome came"));
  }

  /** There is no token to be had: for now, or at all. @param {any} error */
  #untold(error) {
    const reason = String(error?.message ?? error);
    if (error?.fatal || error?.code === "unauthenticated") this.#finish(4500, reason);
    else this.#wait(1006, reason);
  }

  /** Calls that overlap share one answer. @param {TokenReason} reason */
  #token(reason) {
    this.#asking ??= (async () => this.#options.getToken({ reason }))().finally(() => (this.#asking = null));
    return this.#asking;
  }

  /** @param {any} socket @param {number} code @param {string} reason */
  #lose(socket, code, reason) {
    if (socket !== this.#socket) return; // this end was already told
    if (this.#openedAt && this.#clock.now() - this.#openedAt >= STEADY) this.#attempt = 0;
    this.#reason = code === 4001 ? "expired" : "connect";
    if (code >= 4500 && code <= 4999) this.#finish(code, reason);
    else this.#wait(code, reason);
  }

  /** @param {number} code @param {string} reason @param {boolean} [isPaused] */
  #wait(code, reason, isPaused = this.#isOffline) {
    this.#quiet();
    const delay = isPaused ? null : this.#delay(code);
    this.#backAt = 0;
    if (delay !== null) this.#after("retry", delay, () => this.#dial());
    this.#part("waiting", { code, reason, delay, willRetry: true });
  }

  /** @param {number} code */
  #delay(code) {
    const told = this.#backAt - this.#clock.now();
    if (this.#backAt && told > 0) return told;
    const delay = this._backoff(this.#attempt++);
    return code === 1012 ? Math.min(delay, 1000 * this.#options.random()) : delay;
  }

  /** @param {number} code @param {string} reason */
  #finish(code, reason) {
    this.#quiet();
    this.#page?.abort();
    this.#page = null;
    this.#round++;
    this.#backAt = this.#attempt = 0;
    this.#reason = code === 4500 ? "refused" : "connect";
    const error = disconnected(`The connection was closed: ${reason || "no reason was given"} (${code}).`);
    this.#ready?.reject(error);
    this.#ready = null;
    this.#part("closed", { code, reason });
    for (const session of this.#sessions.values()) session._stop(error);
  }

  /** Take leave of the socket, and tell everybody. @param {State} state @param {Partial<StateChange>} detail */
  #part(state, detail) {
    const socket = this.#socket;
    this.#socket = null;
    this.#openedAt = 0;
    this.#held = [];
    socket?.close(1000);
    this.#enter(state, detail);
    for (const id of [...this.#requests.keys()]) this.#settle(id, disconnected());
  }

  /** @param {string} reason */
  #hangUp(reason) {
    this.#lose(this.#socket, 4000, reason);
  }

  /** @param {State} state @param {Partial<StateChange>} [detail] */
  #enter(state, detail) {
    this.state = state;
    this._emit("state", { state, willRetry: state !== "closed", attempt: this.#attempt, ...detail });
  }

  /** @param {string} name @param {number} ms @param {() => void} call */
  #after(name, ms, call) {
    this.#clock.clearTimeout(this.#timers.get(name));
    this.#timers.set(name, this.#clock.setTimeout(call, Math.min(ms, 2 ** 31 - 1)));
  }

  #quiet() {
    for (const timer of this.#timers.values()) this.#clock.clearTimeout(timer);
    this.#timers.clear();
  }

  // -- messages ---------------------------------------------------------------------------------

  /** @param {any} text */
  #receive(text) {
    this.#heardAt = this.#clock.now();
    this.#debug("←", text);
    const message = parsed(text);
    if (message?.type === "notification") this.#notice(message);
    else if (this.#requests.has(message?.id)) this.#answer(message);
    else if (message?.type === "error") this._emit("error", new BrokerError(message.data));
    else if (!message) this._emit("error", new BrokerError({ code: "invalid_json", message: "The broker sent what is no JSON object." }));
  }

  /** @param {any} message */
  #answer({ id, type, data }) {
    if (type === "error") this.#settle(id, new BrokerError(data));
    else this.#settle(id, null, data);
  }

  /** @param {Note} message */
  #notice(message) {
    if (message.event === "welcome") return this.#welcome(message.data);
    if (message.event === "restarting") this.#backAt = this.#clock.now() + message.data.retry_after * 1000;
    const owner = this.#sessions.get(message.session_id) ?? this.#rooms.get(message.room);
    if (owner) owner._take(message);
    else this._emit("notification", message);
  }

  /** @param {Welcome} identity */
  #welcome(identity) {
    this.#quiet();
    this.identity = identity;
    this.#openedAt = this.#clock.now();
    this.#backAt = 0;
    this.#reason = "connect";
    this.#beat(identity.heartbeat || 30);
    this.#renewBefore(this.#endsAt);
    this.#enter("open");
    for (const one of [...this.#sessions.values(), ...this.#rooms.values()]) one._enter();
    this._emit("welcome", identity);
    this.#ready?.resolve(identity);
    this.#ready = null;
  }

  /** @param {string} id @param {any} error @param {any} [data] */
  #settle(id, error, data) {
    const request = this.#requests.get(id);
    if (!request) return;
    this.#clock.clearTimeout(request.timer);
    this.#requests.delete(id);
    request.settle(error, data);
  }

  /** Why a message cannot be sent, if it cannot. @param {string} text @param {boolean} isBounded */
  #refusal(text, isBounded) {
    if (this.state !== "open") return disconnected();
    const most = this.identity?.max_message_bytes ?? Infinity;
    if (text.length * 3 > most && new TextEncoder().encode(text).length > most) {
      return new BrokerError({ code: "too_large", message: `A message may have ${most} bytes; this one has more.` });
    }
    const waiting = this.#held.reduce((sum, { text }) => sum + text.length, 0);
    return !isBounded && waiting > this.#options.queue.bytes ? crowded() : null;
  }

  /** Write what is held back, as far as the socket takes it. */
  #flush() {
    while (this.#held.length && this.#socket.bufferedAmount < MARK) {
      const { id, text } = /** @type {{id: string, text: string}} */ (this.#held.shift());
      if (this.#requests.has(id)) this.#socket.send(text);
    }
    if (this.#held.length) this.#after("flush", LOOK, () => this.#flush());
  }

  /** @param {string} way @param {string} text */
  #debug(way, text) {
    if (this.#options.debug) console.debug(way, text);
  }

  // -- being alive ------------------------------------------------------------------------------

  /** @param {number} seconds */
  #beat(seconds) {
    this.#after("beat", seconds * 1000, () => {
      this.#ping();
      this.#beat(seconds);
    });
  }

  /** Nobody tells a client that its line is dead until it says something; so it says something. */
  #ping() {
    const [socket, asked] = [this.#socket, this.#clock.now()];
    const buffered = socket.bufferedAmount;
    const settle = (/** @type {any} */ error) => {
      if (error === null) this.rtt = this.#clock.now() - asked;
      else if (error.code !== "timeout" || socket !== this.#socket) return;
      else if (this.#heardAt <= asked && socket.bufferedAmount >= buffered) this.#hangUp("no answer to a ping");
    };
    this._ask("ping", {}, settle, { timeout: PATIENCE, isBounded: true });
  }

  /** Show a new token in time, if it is known when the old one ends. @param {number} endsAt */
  #renewBefore(endsAt) {
    this.#endsAt = endsAt;
    const left = endsAt - this.#clock.now();
    if (left > 1000) this.#after("renew", left - Math.min(60_000, left / 5), () => this.#renew(endsAt));
  }

  /** @param {number} endsAt */
  async #renew(endsAt) {
    const socket = this.#socket;
    try {
      const token = await this.#token("expiring");
      if (token) endsAt = Date.parse((await this.request("auth", { token })).expires_at);
    } catch (error) {
      if (socket === this.#socket) this._emit("error", /** @type {BrokerError} */ (error)); // and once more, before the end
    }
    if (socket === this.#socket) this.#renewBefore(endsAt);
  }

  /** Heed what a page is told of the network and of itself. */
  #watch() {
    if (this.#page || !globalThis.document) return;
    this.#page = new AbortController();
    const listen = (/** @type {EventTarget} */ target, /** @type {string} */ name, /** @type {() => void} */ listener) =>
      target.addEventListener(name, listener, { signal: this.#page?.signal });
    listen(window, "offline", () => this.#offline());
    listen(window, "online", () => this.#resume());
    listen(window, "pagehide", () => this.#hide());
    listen(window, "pageshow", () => this.#isHidden && this.#resume());
    listen(document, "visibilitychange", () => document.hidden || this.#resume());
  }

  #offline() {
    this.#isOffline = true;
    if (this.state === "waiting") this.#wait(1006, "there is no network");
  }

  /** With an open socket a page is not kept to come back to. */
  #hide() {
    this.#isHidden = true;
    this.#round++;
    this.#wait(1001, "the page was left", true);
  }

  #resume() {
    this.#isOffline = this.#isHidden = false;
    this.reconnectNow();
  }
}

/**
 * What is followed across connections: a session or a room.
 * @template {object} Events
 * @template Answer
 * @extends {Emitter<Events & {gone: BrokerError, problem: BrokerError}>}
 */
class Followed extends Emitter {
  /** @type {ReturnType<typeof deferred> | null} */
  #entered = null;
  #isEntering = false;
  #isStale = false;
  #attempt = 0;

  /** @param {Broker} broker */
  constructor(broker) {
    super();
    /** @internal */
    this._broker = broker;
    /** Whether it is followed, also while there is no connection. */
    this.isFollowed = false;
  }

  /** @internal @returns {Promise<Answer>} */
  _follow() {
    this.isFollowed = true;
    this.#isStale = this.#isEntering;
    this.#entered ??= deferred();
    this._broker._keep(/** @type {any} */ (this));
    const { promise } = this.#entered;
    this._enter();
    return promise;
  }

  /** Enter, or enter again after what was seen last; at each welcome, too. @internal */
  _enter() {
    if (!this.isFollowed || this.#isEntering || this._broker.state !== "open") return;
    this.#isEntering = true;
    const [action, payload] = this._hello();
    this._broker._ask(action, payload, (error, answer) => {
      this.#isEntering = false;
      if (!this.isFollowed) return;
      if (this.#isStale) this.#again();
      else if (error === null) this.#arrive(answer);
      else this.#refused(error);
    });
  }

  /** Follow no longer. @internal @param {BrokerError} error what to tell who still waits */
  _unfollow(error) {
    this.isFollowed = false;
    this.#entered?.reject(error);
    this.#entered = null;
    this._broker._keep(/** @type {any} */ (this), false);
  }

  /** @internal @param {BrokerError} error */
  _gone(error) {
    this._unfollow(error);
    /** @type {Emitter<any>} */ (this)._emit("gone", error);
  }

  /** @internal */
  get _isEntering() {
    return this.#isEntering;
  }

  /** @internal @returns {[string, object]} the request to enter */
  _hello() {
    throw new Error("not implemented");
  }

  /** @internal @param {Answer} _answer */
  _arrived(_answer) {}

  #again() {
    this.#isStale = false;
    this._enter();
  }

  /** @param {Answer} answer */
  #arrive(answer) {
    this.#attempt = 0;
    this.#entered?.resolve(answer);
    this.#entered = null;
    this._arrived(answer);
  }

  /** @param {BrokerError} error */
  #refused(error) {
    if (error.code === "disconnected") return; // the next welcome enters again
    if (!error.retryable) return this._gone(error);
    /** @type {Emitter<any>} */ (this)._emit("problem", error);
    const delay = this._broker._backoff(this.#attempt++);
    this._broker._later(() => this._enter(), Math.max(delay, (error.retryAfter ?? 0) * 1000));
  }
}

/**
 * A session's log, followed without a hole and without a double.
 *
 * `reset`: forget what was shown, what follows is all there is. `outbox`: what is not in the log yet.
 * @extends {Followed<{record: LogRecord, attached: Attached, caughtup: {head: number}, reset: {epoch: string, floor: number,
 *   head: number}, outbox: Turn[]}, Attached>}
 */
export class Session extends Followed {
  /** @type {Map<string, Turn>} */
  #turns = new Map();
  #repaired = -1;

  /** @internal @param {Broker} broker @param {string} id */
  constructor(broker, id) {
    super(broker);
    this.id = id;
    /** Everything up to here has arrived. */
    this.seq = 0;
    /** @type {string | undefined} which log that is */
    this.epoch = undefined;
    /** @type {Attached | null} the last answer to an attach */
    this.attached = null;
    /** @type {Turn[]} what is sent and not yet in the log */
    this.outbox = stored(broker._storage, this.#key).map((item) => new Turn(this, item));
    if (this.outbox.length) broker._keep(this);
    for (const turn of this.outbox) if (turn.state === "waiting") turn._wait();
  }

  get #key() {
    return `broker.outbox.${this.id}`;
  }

  /**
   * Follow the log, now and after every reconnect.
   * @param {{afterSeq?: number, epoch?: string}} [from] the last record one has, 0 for none, -1 to begin with what is to
   *   come; where this object has left off if left out
   * @returns {Promise<Attached>}
   */
  attach({ afterSeq, epoch } = {}) {
    this.seq = afterSeq ?? this.seq;
    this.epoch = epoch ?? this.epoch;
    return this._follow();
  }

  /** Stop following. The session, and any running turn, go on. */
  detach() {
    const error = disconnected("The session was detached.");
    for (const turn of this.#turns.values()) turn._fail(error);
    this._unfollow(error);
    if (this.outbox.length) this._broker._keep(this); // it is sent all the same
    return this.request("session.detach").catch(() => {});
  }

  /** End it; it can still be read. */
  close() {
    return this.request("session.close");
  }

  /** Delete it, and its log. */
  delete() {
    return this.request("session.delete");
  }

  /** @param {{title?: string, variables?: object}} change variables are merged, and one that is null is removed */
  update(change) {
    return this.request("session.update", change);
  }

  /**
   * One page of what was, oldest first; its `before_seq` asks for the page before.
   * @param {{kind?: "records" | "messages", beforeSeq?: number, limit?: number}} [page]
   * @returns {Promise<{records: LogRecord[], messages: any[], before_seq?: number}>}
   */
  history({ kind, beforeSeq, limit } = {}) {
    return this.request("session.history", { kind, before_seq: beforeSeq, limit });
  }

  /** Answer an agent's question. @param {string} approvalId @param {string} optionId */
  answer(approvalId, optionId) {
    return this.request("approval.answer", { approval_id: approvalId, option_id: optionId });
  }

  /**
   * Ask for something of this session; as `Broker.request`.
   * @param {string} action
   * @param {object} [payload]
   * @param {RequestOptions} [options]
   */
  request(action, payload = {}, options = {}) {
    return this._broker.request(action, { session_id: this.id, ...payload }, options);
  }

  /**
   * Start a turn; without a connection as soon as there is one. A session that is not attached is followed from here on.
   * @param {Content} content
   * @param {SendOptions} [options] `signal` takes the turn back, or cancels it
   */
  send(content, { ifBusy, retryOf, metadata, clientMsgId = freshId(), signal } = {}) {
    const item = { content, if_busy: ifBusy, retry_of: retryOf, metadata, client_msg_id: clientMsgId, at: this._broker._now() };
    const turn = new Turn(this, item);
    if (this._broker._hasRoom(turn._bytes)) {
      this.outbox.push(turn);
      this.#begin();
      turn._wait();
      turn._heed(signal);
      this._submit(turn);
    } else turn._refuse(crowded());
    return turn;
  }

  /**
   * A turn that somebody started, with all its records.
   * @param {string} turnId
   */
  turn(turnId) {
    const known = this.#turns.get(turnId);
    if (known) return known;
    const turn = new Turn(this, { client_msg_id: "", content: "", at: 0 }, turnId);
    this.#turns.set(turnId, turn);
    this.#begin();
    this._recover(turn);
    return turn;
  }

  // -- following --------------------------------------------------------------------------------

  /** @internal */
  _enter() {
    super._enter();
    if (!this.isFollowed) for (const turn of [...this.outbox]) this._submit(turn);
  }

  /** @internal @param {{epoch: string}} answer */
  _created({ epoch }) {
    this.seq = 0;
    this.epoch = epoch;
    this.isFollowed = true;
    this._broker._keep(this);
  }

  /** @internal @returns {[string, object]} */
  _hello() {
    return ["session.attach", { session_id: this.id, after_seq: this.seq, epoch: this.epoch }];
  }

  /** @internal @param {Attached} answer */
  _arrived(answer) {
    if (this.seq < 0) this.seq = answer.head;
    if (!answer.recovered) this.#reset(answer);
    this.epoch = answer.epoch;
    this.attached = answer;
    for (const turn of this.#turns.values()) turn._resume();
    this._emit("attached", answer);
    for (const turn of [...this.outbox]) this._submit(turn);
  }

  /** @internal @param {Note} message */
  _take(message) {
    if (message.seq !== undefined) this.#record(/** @type {LogRecord} */ (message));
    else if (message.event === "session.reset") this.#reset(message.data);
    else if (message.event === "session.caught_up") this.#caughtUp(message.data);
    else if (message.event === "session.detached") this._gone(new BrokerError(message.data));
    else this._broker._emit("notification", message);
  }

  /** @internal @param {BrokerError} error */
  _gone(error) {
    this._stop(error);
    this.#turns.clear();
    for (const turn of [...this.outbox]) if (turn.state !== "refused") turn._refuse(error);
    super._gone(error);
  }

  /** Nothing more comes unless somebody connects. @internal @param {BrokerError} error */
  _stop(error) {
    for (const turn of [...this.#turns.values(), ...this.outbox]) turn._fail(error);
  }

  #begin() {
    if (this.isFollowed) this._broker._keep(this);
    else this.attach(this.epoch === undefined && this.seq === 0 ? { afterSeq: -1 } : {});
  }

  /** @param {LogRecord} record */
  #record(record) {
    if (record.seq <= this.seq || (record.seq > this.seq + 1 && this.#repair())) return;
    this.seq = record.seq;
    if (record.event === "user.message") this.#logged(record);
    this.#turns.get(record.turn_id ?? "")?._take(record);
    this._emit("record", record);
  }

  /** Ask again for what is missing; false if that was done here before, so that a broken log is shown, not retried. */
  #repair() {
    if (this._isEntering) return true; // what comes before the answer comes again after it
    if (this.#repaired === this.seq) {
      this._emit("problem", new BrokerError({ code: "hole", message: `Records after number ${this.seq} are missing.` }));
      return false;
    }
    this.#repaired = this.seq;
    this._enter();
    return true;
  }

  /** @param {{epoch: string, floor: number, head: number}} to */
  #reset({ epoch, floor, head }) {
    if (epoch === this.epoch && this.seq === floor - 1) return; // there is nothing to forget
    this.epoch = epoch;
    this.seq = floor - 1;
    this.#repaired = -1;
    this._emit("reset", { epoch, floor, head });
  }

  /** @param {{head: number}} data */
  #caughtUp(data) {
    const { turn, queue } = this.attached ?? { turn: null, queue: [] };
    const running = new Set([turn, ...queue].map((one) => one?.turn_id));
    for (const known of [...this.#turns.values()]) if (known._isHeld || !running.has(known.id)) this._recover(known);
    this._emit("caughtup", data);
  }

  // -- turns ------------------------------------------------------------------------------------

  /** @internal @param {Turn} turn */
  _submit(turn) {
    if (turn.state === "waiting" && this._broker.state === "open" && !this._isEntering) turn._submit();
    else this._changed();
  }

  /** The outbox has changed. @internal */
  _changed() {
    keep(this._broker._storage, this.#key, this.outbox);
    this._emit("outbox", this.outbox);
    if (!this.outbox.length && !this.isFollowed) this._broker._keep(this, false);
  }

  /** @internal @param {Turn} turn */
  _forget(turn) {
    this.outbox = this.outbox.filter((other) => other !== turn);
    this._changed();
  }

  /** @internal @param {Turn} turn @param {boolean} isOver */
  _track(turn, isOver) {
    if (isOver) this.#turns.delete(turn.id ?? "");
    else this.#turns.set(turn.id ?? "", turn);
  }

  /** @param {LogRecord} record */
  #logged({ turn_id = "", seq, data }) {
    for (const turn of this.outbox.filter((turn) => turn.clientMsgId === data.client_msg_id)) {
      turn._logged(turn_id, seq);
      this._forget(turn);
    }
  }

  /** Look up in the log what was missed of a turn. @internal @param {Turn} turn */
  async _recover(turn) {
    if (this._broker.state !== "open" || !turn._hold()) return;
    try {
      turn._release(await this.#records(turn));
    } catch (caught) {
      const error = /** @type {BrokerError} */ (caught);
      turn._release(null);
      if (error.code === "disconnected") return; // it is looked up once caught up
      turn._fail(error);
      this._track(turn, true);
    }
  }

  /** @param {Turn} turn */
  async #records(turn) {
    /** @type {LogRecord[]} */
    const found = [];
    for (let beforeSeq, isDone = false; !isDone; ) {
      const page = await this.history({ beforeSeq, limit: 500 });
      found.unshift(...page.records.filter((record) => record.turn_id === turn.id));
      beforeSeq = page.before_seq;
      isDone = beforeSeq === undefined || found[0]?.event === "user.message" || beforeSeq <= (turn.seq ?? 0);
    }
    if (!found.length) throw new BrokerError({ code: "not_found", message: `The log has nothing of turn ${turn.id}.` });
    return found;
  }
}

/**
 * One turn: a promise of its end, and an iterator of its records.
 *
 * `accepted` and `ended` reject with a BrokerError if it is refused, or nothing more can be learned of it. Once that has
 * changed (`retry`, `connect`, `attach`) they are new promises.
 */
export class Turn {
  #session;
  #payload;
  #wasSent;
  #isAsking = false;
  #isLookedUp = false;
  /** @type {LogRecord[]} */
  #records = [];
  #dropped = 0;
  #lastSeq = 0;
  /** @type {LogRecord[] | null} what comes while its beginning is looked up */
  #held;
  /** @type {ReturnType<typeof deferred> | null} */
  #wake = null;
  /** @type {BrokerError | null} */
  #failure = null;
  #accepted = deferred();
  #ended = deferred();
  /** @type {any} */
  #timer = null;
  #unheed = () => {};

  /** @internal @param {Session} session @param {any} item @param {string | null} [id] */
  constructor(session, { at, state, error, sent, ...payload }, id = null) {
    this.#session = session;
    this.#payload = payload;
    this.#wasSent = Boolean(sent);
    this.#held = id ? [] : null;
    /** @type {string | null} null until it is accepted */
    this.id = id;
    /** @type {number | null} the number of its first record */
    this.seq = null;
    /** @type {string} */
    this.clientMsgId = payload.client_msg_id;
    /** @type {Content} */
    this.content = payload.content;
    /** @type {number} when it was sent here, in milliseconds since the epoch */
    this.at = at;
    /** @type {"waiting" | "sending" | "accepted" | "refused" | "ended"} */
    this.state = id ? "accepted" : state === "refused" ? state : "waiting";
    /** @type {BrokerError | null} why it was refused */
    this.error = state === "refused" ? new BrokerError(error) : null;
    /** @type {Ended | null} the data of its `turn.ended` */
    this.outcome = null;
    /** @internal */
    this._bytes = JSON.stringify(payload).length;
    if (this.error) this._fail(this.error);
  }

  /** @returns {Promise<Accepted>} once it is in the log */
  get accepted() {
    return this.#accepted.promise;
  }

  /** @returns {Promise<Ended>} how it ended */
  get ended() {
    return this.#ended.promise;
  }

  /**
   * @template [A=Ended], [B=never]
   * @param {((ended: Ended) => A | PromiseLike<A>) | null} [resolve]
   * @param {((error: any) => B | PromiseLike<B>) | null} [reject]
   * @returns {Promise<A | B>}
   */
  then(resolve, reject) {
    return this.ended.then(resolve, reject);
  }

  /** Its records, to its `turn.ended`. @returns {AsyncGenerator<LogRecord, void, void>} */
  async *[Symbol.asyncIterator]() {
    for (let index = 0; ; index++) {
      while (index >= this.#dropped + this.#records.length) {
        if (this.state === "ended") return;
        if (this.#failure) throw this.#failure;
        await (this.#wake ??= deferred()).promise;
      }
      if (index < this.#dropped) throw new BrokerError({ code: "too_large", message: `More than ${KEPT} records waited to be read.` });
      yield this.#records[index - this.#dropped];
    }
  }

  /** What the agent said, once the turn has ended. */
  async text() {
    const said = new Map();
    for await (const { event, data } of this) {
      const { message_id: id, thought, content, text } = data;
      if (event === "message.delta") said.set(id, (said.get(id) ?? "") + text);
      else if ((event === "message.completed" || event === "message.replaced") && !thought) said.set(id, textOf(content));
    }
    return [...said.values()].join("");
  }

  /**
   * Stop it, or take it back if it was not sent yet.
   * @returns {Promise<{status: "cancelling" | "ended", outcome?: string}>}
   */
  async cancel() {
    if (this.state === "ended") return { status: "ended", outcome: this.outcome?.outcome };
    if (this.discard()) return { status: "ended", outcome: "cancelled" };
    const turn_id = this.id ?? (await this.accepted).turn_id;
    return this.#session.request("turn.cancel", { turn_id });
  }

  /** Send a refused turn again, under its own id. */
  retry() {
    if (this.state !== "refused" || !this.#session.outbox.includes(this)) return;
    this.at = this.#session._broker._now();
    this._wait();
    this.#session._submit(this);
  }

  /** Forget a turn that was refused, or never sent; false for others. */
  discard() {
    if (this.state !== "refused" && (this.state !== "waiting" || this.#wasSent)) return false;
    this._refuse(new BrokerError({ code: "cancelled", message: "It was taken back before it was sent." }));
    this.#session._forget(this);
    return true;
  }

  /** What is kept of it through a reload. */
  toJSON() {
    const { code, message, hint, retryable } = this.error ?? {};
    return { ...this.#payload, at: this.at, sent: this.#wasSent, state: this.state, error: { code, message, hint, retryable } };
  }

  // -- what the session uses --------------------------------------------------------------------

  /** @internal @param {AbortSignal} [signal] */
  _heed(signal) {
    const stop = () => void this.cancel().catch(() => {});
    this.#unheed = () => signal?.removeEventListener("abort", stop);
    signal?.addEventListener("abort", stop, { once: true });
    if (signal?.aborted) stop();
  }

  /** Wait to be sent, but not for ever. @internal */
  _wait() {
    const { _broker } = this.#session;
    this.state = "waiting";
    this.error = null;
    this._resume();
    this.#rest();
    this.#timer = _broker._later(() => this._refuse(overdue()), this.at + _broker._age - _broker._now());
  }

  /** @internal */
  _submit() {
    this._resume();
    this.#rest();
    this.#isAsking = this.#wasSent = true;
    this.state = "sending";
    this.#session._changed();
    const payload = { session_id: this.#session.id, ...this.#payload };
    this.#session._broker._ask("turn.start", payload, (error, answer) => this.#told(error, answer), { isBounded: true });
  }

  /** @param {BrokerError | null} error @param {Accepted} answer */
  #told(error, answer) {
    this.#isAsking = false;
    if (error === null) this.#accept(answer);
    else if (this.id) this.#known();
    else if (error.code !== "disconnected" && !(error.code === "unavailable" && this.#session._broker._isEnding)) this._refuse(error);
    else {
      this._wait();
      this.#session._changed();
    }
  }

  /** @param {Accepted} answer */
  #accept(answer) {
    this.#enter(answer.turn_id, answer.seq);
    this.#accepted.resolve(answer);
    if (this.#session.seq >= answer.seq || !this.#session.isFollowed) this.#session._forget(this);
    else this.#session._changed();
    if (answer.duplicate && !this.#records.length) this.#session._recover(this);
  }

  /** It stands in the log, whether that was answered or not. @internal @param {string} id @param {number} seq */
  _logged(id, seq) {
    this.#enter(id, seq);
    if (!this.#isAsking) this.#known();
  }

  #known() {
    this.#accepted.resolve({ turn_id: this.id, seq: this.seq, status: this.state, duplicate: true, durable: true });
  }

  /** @param {string} id @param {number} seq */
  #enter(id, seq) {
    this.id = id;
    this.seq = seq;
    this.error = null;
    if (this.state === "ended") return;
    this.state = "accepted";
    this._resume();
    this.#rest();
    this.#session._track(this, false);
  }

  /** @internal @param {BrokerError} error */
  _refuse(error) {
    this.state = "refused";
    this.error = error;
    this.#rest();
    this.#unheed();
    this._fail(error);
    this.#session._changed();
  }

  /** Nothing more can be learned. @internal @param {BrokerError} error */
  _fail(error) {
    this.#failure = error;
    this.#accepted.reject(error);
    this.#ended.reject(error);
    this.#wake?.reject(error);
    this.#wake = null;
  }

  /** More can be. @internal */
  _resume() {
    if (!this.#failure) return;
    this.#failure = null;
    if (!this.id) this.#accepted = deferred();
    this.#ended = deferred();
  }

  #rest() {
    this.#session._broker._drop(this.#timer);
  }

  /** @internal @param {LogRecord} record */
  _take(record) {
    if (this.#held) this.#held.push(record);
    if (this.#held || record.seq <= this.#lastSeq) return;
    this.#lastSeq = record.seq;
    this.seq ??= record.seq;
    this.#records.push(record);
    if (this.#records.length > KEPT) this.#dropped += this.#records.splice(0, 1).length;
    if (record.event === "turn.ended") this.#end(record.data);
    this.#wake?.resolve();
    this.#wake = null;
  }

  /** @param {Ended} outcome */
  #end(outcome) {
    this.state = "ended";
    this.outcome = outcome;
    if (!this.#isAsking) this.#known();
    this.#ended.resolve(outcome);
    this.#unheed();
    this.#session._track(this, true);
  }

  /** @internal */
  get _isHeld() {
    return this.#held !== null;
  }

  /** Let what comes wait until the beginning is known; false if that is so already. @internal */
  _hold() {
    if (this.#isLookedUp || this.state === "ended") return false;
    this.#isLookedUp = true;
    this.#held ??= [];
    return true;
  }

  /** @internal @param {LogRecord[] | null} found null if it could not be looked up */
  _release(found) {
    this.#isLookedUp = false;
    if (found === null) return;
    const records = [...found, .../** @type {LogRecord[]} */ (this.#held)];
    this.#held = null;
    for (const record of records) this._take(record);
  }
}

/**
 * Membership of a room, kept across connections. `reset`: events were missed for good.
 * @extends {Followed<{event: RoomEvent, joined: Joined, reset: Joined}, Joined>}
 */
export class Room extends Followed {
  /** @type {number | undefined} */
  #seq;
  /** @type {string | undefined} */
  #epoch;
  /** @type {string[] | undefined} */
  #events;

  /** @internal @param {Broker} broker @param {string} name */
  constructor(broker, name) {
    super(broker);
    this.name = name;
  }

  /**
   * Join, now and after every reconnect.
   * @param {{events?: string[], afterSeq?: number}} [wanted] names of events, all if left out; the last event one has, 0 for
   *   all that the room remembers, those to come if left out
   * @returns {Promise<Joined>}
   */
  join({ events, afterSeq } = {}) {
    this.#events = events;
    this.#seq = afterSeq ?? this.#seq;
    return this._follow();
  }

  /** Leave. */
  leave() {
    this._unfollow(disconnected("The room was left."));
    return this.#ask("room.leave").catch(() => {});
  }

  /**
   * Publish to everybody in the room, ourselves included; it need not be joined.
   * @param {string} event
   * @param {any} [data]
   * @returns {Promise<{seq?: number, delivered: number}>}
   */
  publish(event, data = null) {
    return this.#ask("room.publish", { event, data });
  }

  /** Who is in it. @returns {Promise<Member[]>} */
  async presence() {
    return (await this.#ask("room.presence")).members;
  }

  /**
   * One page of what it remembers, oldest first; its `before_seq` asks for the page before.
   * @param {{beforeSeq?: number, limit?: number}} [page]
   * @returns {Promise<{events: any[], before_seq?: number}>}
   */
  history({ beforeSeq, limit } = {}) {
    return this.#ask("room.history", { before_seq: beforeSeq, limit });
  }

  /** @param {string} action @param {object} [payload] */
  #ask(action, payload) {
    return this._broker.request(action, { room: this.name, ...payload });
  }

  /** @internal @returns {[string, object]} */
  _hello() {
    return ["room.join", { room: this.name, after_seq: this.#seq, epoch: this.#epoch, events: this.#events }];
  }

  /** @internal @param {Joined} answer */
  _arrived(answer) {
    const isReset = this.#epoch !== undefined && !answer.recovered;
    this.#epoch = answer.epoch;
    if (isReset) this.#seq = 0;
    this.#seq ??= answer.head;
    if (isReset) this._emit("reset", answer);
    this._emit("joined", answer);
  }

  /** @internal @param {Note} message */
  _take(message) {
    if (message.event === "room.left") return this._gone(new BrokerError(message.data));
    if (message.event !== "room.event") return this._broker._emit("notification", message);
    if (message.seq !== undefined && message.seq <= (this.#seq ?? 0)) return;
    this.#seq = message.seq ?? this.#seq;
    this._emit("event", /** @type {RoomEvent} */ (message));
  }
}

function deferred() {
  /** @type {(value?: any) => void} */
  let resolve = () => {};
  /** @type {(error: any) => void} */
  let reject = () => {};
  const promise = new Promise((...both) => ([resolve, reject] = both));
  promise.catch(() => {}); // whoever wants to know listens; nobody has to
  return { promise, resolve, reject };
}

/** An id nobody else makes; `crypto.randomUUID` is missing where a page has no secure context. */
function freshId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {string | URL} url */
function address(url) {
  const found = new URL(url);
  if (found.pathname.endsWith("/")) found.pathname += "ws";
  found.protocol = found.protocol.replace("http", "ws");
  found.hash = "";
  return found.href;
}

/** When a token ends, in milliseconds since the epoch, if it says so as a JWT does. @param {string | null | undefined} token */
function expiry(token) {
  try {
    return JSON.parse(atob((token ?? "").split(".")[1].replaceAll("-", "+").replaceAll("_", "/"))).exp * 1000;
  } catch {
    return NaN;
  }
}

/** The JSON object in a text, or null. @param {any} text */
function parsed(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}

/** @returns {Store | null} */
function ownStorage() {
  try {
    return globalThis.document ? sessionStorage : null;
  } catch {
    return null; // a page may be forbidden to keep anything
  }
}

/** @param {Store | null} storage @param {string} key @returns {any[]} */
function stored(storage, key) {
  const found = parsed(storage?.getItem(key) ?? null);
  return Array.isArray(found) ? found : [];
}

/** @param {Store | null} storage @param {string} key @param {Turn[]} outbox */
function keep(storage, key, outbox) {
  try {
    if (outbox.length) storage?.setItem(key, JSON.stringify(outbox));
    else storage?.removeItem(key);
  } catch {
    // it is full; what waits is still in memory
  }
}

/** @param {any} content text, or blocks of which those that are no text are left out @returns {string} */
function textOf(content) {
  if (Array.isArray(content)) return content.map(textOf).join("");
  return typeof content === "string" ? content : (content?.text ?? "");
}

function disconnected(message = "There is no connection to the broker.") {
  return new BrokerError({ code: "disconnected", message, retryable: true });
}

function unanswered() {
  return new BrokerError({ code: "timeout", message: "No answer came in time.", retryable: true });
}

function crowded() {
  return new BrokerError({ code: "queue_full", message: "Too much waits to be sent.", retryable: true });
}

function overdue() {
  return new BrokerError({ code: "expired", message: "It waited too long to be sent.", retryable: true });
}

/** @param {string} message */
function fatal(message) {
  return new BrokerError({ code: "unauthenticated", message });
}
