/**
 * A client of `broker.v1.json`, with types and a guide in the npm package. Times are milliseconds.
 * @import * as T from "./types.js"
 */

const FIRST = 500; // delay, doubled with each attempt
const LONGEST = 20_000;
const STEADY = 5000; // then delays begin anew
const PATIENCE = 10_000; // for a welcome, or an answer to a ping
const MARK = 1 << 20; // bytes unsent above which more is held back
const QUEUE = { count: 100, bytes: 1 << 20, age: 3_600_000 };
const CLOCK = {
  now: () => Date.now(),
  setTimeout: (call, ms) => setTimeout(call, ms),
  clearTimeout: (timer) => clearTimeout(timer),
};

export class BrokerError extends Error {
  /** @param {T.ErrorData} data */
  constructor({ code, message, retryable = false, retry_after, hint, field }) {
    super(message);
    this.code = code;
    this.retryable = retryable;
    this.retryAfter = retry_after; // seconds
    this.hint = hint;
    this.field = field;
  }

  get words() {
    return this.hint ? `${this.message.replace(/\.$/, "")}: ${this.hint}` : this.message;
  }
}

/** @template Events */
class Emitter extends EventTarget {
  /** @type {T.On<Events>} */
  on = (name, listener, options) => {
    this.addEventListener(name, (/** @type {any} */ event) => listener(event.detail), options);
  };

  _emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** @extends {Emitter<T.BrokerEvents>} */
export class Broker extends Emitter {
  /** @type {T.State} */
  state = "closed";
  /** @type {T.Welcome | null} */
  identity = null;
  /** @type {number | null} */
  rtt = null;
  _followed = new Map();
  #timers = new Map();
  #requests = new Map();
  #held = [];
  #url;
  #socket = null;
  #ready = null;
  #page = null;
  #asking = null;
  #inbox = Promise.resolve();
  #reason = "connect";
  #round = 0;
  #lastId = 0;
  #attempt = 0;
  #openedAt = Infinity;
  #heard = 0; // messages
  _backAt = 0;
  #endsAt = NaN;
  #isPaused = false;

  /** @param {T.Options} [options] */
  constructor({ url = new URL("ws", location.href), clock = CLOCK, queue, ...options } = {}) {
    super();
    const { WebSocket } = globalThis;
    const storage = tried(() => globalThis.sessionStorage);
    this._options = { WebSocket, storage, random: Math.random, timeout: 30_000, ...options };
    this._queue = { ...QUEUE, ...queue };
    this._clock = clock;
    this.#url = `${url}`.replace(/^http/, "ws");
  }

  /** @returns {Promise<T.Welcome>} rejects if it is not to come back */
  connect() {
    if (this.state === "open") return Promise.resolve(this.identity);
    this.#ready ??= deferred();
    if (this.state !== "connecting") this.#dial();
    return this.#ready.promise;
  }

  reconnectNow() {
    if (this.state === "open") this.#ping();
    else this.connect();
  }

  close() {
    if (this.state !== "closed") this.#end(1000, "closed here", false);
  }

  /** @type {T.Request} */
  request = (action, payload, options) => {
    const waiting = this.#held.reduce((sum, { text }) => sum + text.length, 0);
    return waiting > this._queue.bytes ? Promise.reject(crowded()) : this._ask(action, payload, options);
  };

  /** @param {T.SessionOptions} [about] */
  async createSession(about) {
    const { session_id, epoch } = await this._ask("session.create", about);
    const session = this.session(session_id);
    session._keep(true);
    Object.assign(session, { epoch, seq: 0 });
    return session;
  }

  /** @type {(id: string) => Session} */
  session = (id) => this._followed.get(`broker session_id ${id}`) ?? new Session(this, id);

  /** @type {(name: string) => Room} */
  room = (name) => this._followed.get(`broker room ${name}`) ?? new Room(this, name);

  /** @type {T.Sessions} */
  sessions = (page) => this.request("session.list", page);

  _ask(action, payload = {}, { timeout = this._options.timeout, signal = null } = {}) {
    const request = deferred();
    const id = `c${++this.#lastId}`;
    const text = JSON.stringify({ id, type: "request", action, payload });
    const error = signal?.aborted ? signal.reason : this.#refusal(text);
    if (error) return Promise.reject(error);
    const stop = () => this.#settle(id, signal.reason);
    const timer = this._later(timeout, () => this.#settle(id, failure("timeout", "There was no answer.")));
    request.tidy = () => {
      this._clock.clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
    };
    signal?.addEventListener("abort", stop);
    this.#requests.set(id, request);
    this.#held.push({ id, text });
    this.#flush();
    return request.promise;
  }

  _hasRoom(bytes) {
    const waiting = [...this._followed.values()].flatMap(({ outbox = [] }) => outbox);
    const { count, bytes: most } = this._queue;
    return waiting.length < count && waiting.reduce((sum, turn) => sum + turn._bytes, bytes) <= most;
  }

  _later(ms, call) {
    return this._clock.setTimeout(call, Math.min(ms, 2 ** 31 - 1));
  }

  _backoff(attempt) {
    return this._options.random() * Math.min(LONGEST, FIRST * 2 ** attempt);
  }

  async #dial() {
    this.#watch();
    this.#quiet();
    const round = ++this.#round;
    this.#enter("connecting");
    try {
      const token = await this.#token(this._clock.now() >= this.#endsAt ? "expired" : this.#reason);
      if (round === this.#round) this.#open(token);
    } catch (error) {
      const isNo = error?.fatal || error?.code === "unauthenticated";
      if (round === this.#round) this.#end(isNo ? 4500 : 1006, error?.message);
    }
  }

  #token(reason) {
    this.#asking ??= (async () => this._options.getToken?.({ reason }))().finally(() => (this.#asking = null));
    return this.#asking;
  }

  #open(token) {
    if (token && !/^[\w.~+-]+$/.test(token)) throw failure("unauthenticated", "The token cannot be sent.");
    const { WebSocket } = this._options;
    const socket = new WebSocket(this.#url, token ? ["broker.v1.json", `bearer.${token}`] : ["broker.v1.json"]);
    this.#socket = socket;
    const jwt = () => JSON.parse(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")));
    this.#endsAt = tried(jwt)?.exp * 1000;
    socket.onmessage = ({ data }) => {
      const receive = () => socket === this.#socket && this.#receive(data);
      const error = failure("invalid_message", "That was no message.");
      this.#inbox = this.#inbox.then(receive).catch(() => this._emit("error", error));
    };
    socket.onclose = ({ code, reason }) => socket === this.#socket && this.#end(code, reason);
    socket.onerror = () => {}; // or Node throws it
    this.#after("beat", PATIENCE, () => this.#end(4000, "no welcome came"));
  }

  #end(code, reason, willRetry = code < 4500 || code > 4999) {
    const socket = this.#socket;
    if (this._clock.now() - this.#openedAt >= STEADY) this.#attempt = 0;
    const delay = this.#isPaused || !willRetry ? null : this.#delay(code);
    this.#socket = null;
    this.#held = [];
    this.#round++;
    this._backAt = 0;
    this.#openedAt = Infinity;
    if (socket) this.#reason = { 4001: "expired", 4500: "refused" }[code] ?? "connect";
    this.#quiet();
    socket?.close(1000);
    if (delay !== null) this.#after("retry", delay, () => this.#dial());
    const error = failure("disconnected", `The connection was lost: ${reason || code}`);
    for (const id of [...this.#requests.keys()]) this.#settle(id, error);
    if (!willRetry) {
      this.#attempt = 0;
      this.#page?.abort();
      this.#page = null;
      this.#ready?.reject(error);
      this.#ready = null;
      for (const one of this._followed.values()) one._stop(error);
    }
    this.#enter(willRetry ? "waiting" : "closed", { code, reason, delay }); // last: one may connect at that
  }

  #delay(code) {
    const told = this._backAt - this._clock.now();
    const delay = this._backoff(this.#attempt++);
    return told > 0 ? told : Math.min(delay, code === 1012 ? 1000 : delay);
  }

  #enter(state, detail) {
    this.state = state;
    this._emit("state", { state, willRetry: state !== "closed", ...detail });
  }

  #after(name, ms, call) {
    this._clock.clearTimeout(this.#timers.get(name));
    this.#timers.set(name, this._later(ms, call));
  }

  #quiet() {
    for (const timer of this.#timers.values()) this._clock.clearTimeout(timer);
  }

  #receive(text) {
    this.#heard++;
    const note = JSON.parse(text);
    const error = note.type === "error" && new BrokerError(note.data);
    if (note.type === "notification") this.#notice(note);
    else if (this.#requests.has(note.id)) this.#settle(note.id, error, note.data);
    else if (error) this._emit("error", error);
  }

  #notice(note) {
    const { event, data, session_id, room } = note;
    if (event === "welcome") return this.#welcome(data);
    if (event === "restarting") this._backAt = this._clock.now() + data.retry_after * 1000;
    const one = this._followed.get(`broker ${session_id ? `session_id ${session_id}` : `room ${room}`}`);
    if (!one?._take(note)) this._emit("notification", note);
  }

  #welcome(identity) {
    this.identity = identity;
    this.#beat();
    this.#openedAt = this._clock.now();
    this.#renewBefore();
    this.#enter("open");
    for (const one of [...this._followed.values()]) one._enter();
    this._emit("welcome", identity);
    this.#ready?.resolve(identity);
    this.#ready = null;
  }

  #settle(id, error, data) {
    const { tidy, resolve, reject } = this.#requests.get(id);
    this.#requests.delete(id);
    tidy();
    if (error) reject(error);
    else resolve(data);
  }

  #refusal(text) {
    if (this.state !== "open") return failure("disconnected", "There is no connection.");
    const most = this.identity.max_message_bytes;
    if (new TextEncoder().encode(text).length <= most) return null;
    return failure("too_large", `A message may have ${most} bytes.`, false);
  }

  #flush() {
    while (this.#held.length && !(this.#socket.bufferedAmount >= MARK)) {
      const { id, text } = this.#held.shift();
      if (this.#requests.has(id)) this.#socket.send(text);
    }
    if (this.#held.length) this.#after("flush", 50, () => this.#flush());
  }

  #beat() {
    this.#after("beat", (this.identity.heartbeat || 30) * 1000, () => this.#ping());
  }

  async #ping() {
    const [socket, heard, asked] = [this.#socket, this.#heard, this._clock.now()];
    const { bufferedAmount } = socket;
    this.#beat();
    try {
      await this._ask("ping", {}, { timeout: PATIENCE });
      this.rtt = this._clock.now() - asked;
    } catch {
      const isAlive = this.#heard > heard || socket.bufferedAmount < bufferedAmount;
      if (socket === this.#socket && !isAlive) this.#end(4000, "no answer to a ping");
    }
  }

  #renewBefore() {
    const left = this.#endsAt - this._clock.now();
    if (left > 1000) this.#after("renew", left - Math.min(60_000, left / 5), () => this.#renew());
  }

  async #renew() {
    const socket = this.#socket;
    try {
      const token = await this.#token("expiring");
      if (token) this.#endsAt = Date.parse((await this._ask("auth", { token })).expires_at);
    } catch (error) {
      this._emit("error", error);
    }
    if (socket === this.#socket) this.#renewBefore();
  }

  #watch() {
    if (this.#page || !globalThis.document) return;
    const { signal } = (this.#page = new AbortController());
    this.#isPaused = false;
    const pause = (code, reason) => {
      this.#isPaused = true;
      if (code === 1001 || this.state === "waiting") this.#end(code, reason);
    };
    const resume = () => {
      this.#isPaused = false;
      this.reconnectNow();
    };
    window.addEventListener("offline", () => pause(1006, "there is no network"), { signal });
    window.addEventListener("online", resume, { signal });
    window.addEventListener("pagehide", () => pause(1001, "the page was left"), { signal });
    window.addEventListener("pageshow", () => this.#isPaused && resume(), { signal });
    window.addEventListener("visibilitychange", () => document.hidden || resume(), { signal });
  }
}

/**
 * @template Events
 * @extends {Emitter<Events>}
 */
class Followed extends Emitter {
  isFollowed = false;
  /** @type {number | undefined} everything up to here has arrived */
  seq = undefined;
  /** @type {string | undefined} */
  epoch = undefined;
  _isEntering = false;
  _events = undefined;
  _line = 0; // without a hole
  #entered = null;
  #round = 0;

  constructor(broker, field, name, entry) {
    super();
    /** @type {Broker} */
    this._broker = broker;
    this._key = `broker ${field} ${name}`;
    this._address = { [field]: name };
    this._entry = entry;
  }

  /** @type {T.Request} */
  request = (action, payload, options) => this._broker.request(action, { ...this._address, ...payload }, options);

  _follow() {
    this._keep(true);
    this.#entered ??= deferred();
    this._enter();
    return this.#entered.promise;
  }

  _keep(isFollowed) {
    const { _followed } = this._broker;
    const other = _followed.get(this._key);
    if (other !== this) other?._gone();
    this.isFollowed = isFollowed;
    _followed.set(this._key, this);
  }

  async _enter() {
    if (this._broker.state !== "open") return;
    const round = ++this.#round;
    const { _address, seq: after_seq, epoch, _events: events } = this;
    this._isEntering = true;
    try {
      const answer = await this._broker._ask(this._entry, { ..._address, after_seq, epoch, events });
      if (round === this.#round) this.#enter(answer);
    } catch (error) {
      if (round === this.#round) this.#refused(error);
    }
  }

  #enter(answer) {
    this._isEntering = false;
    this.#entered?.resolve(answer);
    this.#entered = null;
    if (!(this.seq >= 0)) this.seq = answer.head;
    if (this.epoch && !answer.recovered) this._reset(answer);
    this.epoch = answer.epoch;
    this._arrived(answer);
  }

  #refused(error) {
    if (error.code === "disconnected") return; // the next welcome enters
    if (!error.retryable) return this._gone(error);
    this._emit("problem", error);
    const delay = this._broker._backoff(3) + (error.retryAfter ?? 0) * 1000;
    this._broker._later(delay, () => this.isFollowed && this._enter());
  }

  _reset({ epoch, floor = 1, ...data }) {
    if (epoch === this.epoch && this.seq === floor - 1) return;
    this.epoch = epoch;
    this.seq = floor - 1;
    this._line++;
    this._emit("reset", { epoch, floor, ...data });
  }

  _leave(error = unfollowed()) {
    this.isFollowed = this._isEntering = false;
    this.#round++;
    this.#entered?.reject(error);
    this.#entered = null;
    this._broker._followed.delete(this._key);
    this._stop(error);
  }

  _gone(error = unfollowed()) {
    this._leave(error);
    this._emit("gone", error);
  }

  _stop(_error) {}

  _arrived(_answer) {}
}

/** @extends {Followed<T.SessionEvents>} */
export class Session extends Followed {
  /** @type {T.Attached | null} */
  attached = null;
  #turns = new Map();
  #unsure = [];
  #repaired = -1;
  #telling = null;

  constructor(broker, id) {
    super(broker, "session_id", id, "session.attach");
    /** @type {string} */
    this.id = id;
    this.seq = 0;
    const kept = () => JSON.parse(broker._options.storage.getItem(this._key)).map((item) => new Turn(this, item));
    /** @type {Turn[]} what is not in the log yet */
    this.outbox = tried(kept) ?? [];
    if (this.outbox.length) this._keep(false);
    for (const turn of this.outbox) if (turn.state === "waiting") turn._wait();
  }

  /** @type {T.Attach} */
  attach = ({ afterSeq = this.seq, epoch = this.epoch } = {}) => {
    if (this.seq !== afterSeq) this._line++;
    this.seq = afterSeq;
    this.epoch = epoch;
    return this._follow();
  };

  detach() {
    this._leave();
    if (this.outbox.length) this._keep(false);
    return this.request("session.detach").catch(() => {});
  }

  close = () => this.request("session.close");

  async delete() {
    await this.request("session.delete");
    this._gone(failure("not_found", "It was deleted.", false));
  }

  /** @type {T.Update} */
  update = (change) => this.request("session.update", change);

  /** @type {T.History} */
  history = ({ kind, beforeSeq: before_seq, limit } = {}) =>
    this.request("session.history", { kind, before_seq, limit });

  /** @type {T.Answer} */
  answer = (approval_id, option_id) => this.request("approval.answer", { approval_id, option_id });

  /** @type {T.Send} */
  send = (content, { ifBusy: if_busy, retryOf: retry_of, metadata, clientMsgId, signal } = {}) => {
    const at = this._broker._clock.now();
    const client_msg_id = clientMsgId ?? crypto.getRandomValues(new Uint32Array(4)).join("-");
    const turn = new Turn(this, { content, if_busy, retry_of, metadata, client_msg_id, at });
    if (!this._broker._hasRoom(turn._bytes)) return turn._refuse(crowded());
    this.outbox.push(turn);
    if (!this.isFollowed) this.attach(this.seq || this.epoch ? {} : { afterSeq: -1 });
    turn._wait();
    const stop = () => turn.cancel().catch(() => this.addEventListener("attached", stop, { once: true }));
    if (signal?.aborted) stop();
    signal?.addEventListener("abort", stop);
    turn.ended.catch(() => {}).finally(() => signal?.removeEventListener("abort", stop));
    this._submit(turn);
    return turn;
  };

  /** @type {(id: string) => Turn} */
  turn = (id) => {
    const known = this.#turns.get(id);
    if (!known) this.attach();
    return known ?? new Turn(this, { id });
  };

  _enter() {
    if (this.isFollowed) return super._enter();
    for (const turn of this.outbox) this._submit(turn);
  }

  _arrived(answer) {
    const live = [answer.turn, ...answer.queue].map((turn) => turn?.turn_id);
    const turns = [...this.#turns.values()];
    this.attached = answer;
    this.#unsure = turns.filter((turn) => !live.includes(turn.id));
    this._emit("attached", answer);
    for (const turn of turns) turn._resume();
    for (const turn of [...turns, ...this.outbox]) this._submit(turn);
  }

  _take(note) {
    const { event, data } = note;
    if (note.seq) this.#record(note);
    else if (event === "session.reset") this._reset(data);
    else if (event === "session.caught_up") this.#caughtUp(data);
    else if (event === "session.detached") this._gone(new BrokerError(data));
    else return false;
    return true;
  }

  #record(record) {
    const { seq, event, turn_id } = record;
    if (seq <= this.seq || (seq > this.seq + 1 && this.#repair())) return;
    this.seq = seq;
    if (event === "user.message") this.#logged(record);
    this.#turns.get(turn_id)?._take(record, this._line);
    this._emit("record", record);
  }

  /** Ask again for what is missing, once. */
  #repair() {
    if (this._isEntering) return true; // it comes again after the answer
    if (this.#repaired === this.seq) {
      this._emit("problem", failure("hole", `Records after number ${this.seq} are missing.`, false));
      return false;
    }
    this.#repaired = this.seq;
    this._enter();
    return true;
  }

  #caughtUp(data) {
    for (const turn of this.#unsure.filter(({ _line }) => _line !== this._line)) {
      turn._fail(failure("hole", "The end of it was missed: see the history.", false));
      this.#turns.delete(turn.id);
    }
    this._emit("caughtup", data);
  }

  _gone(error = unfollowed()) {
    super._gone(error);
    this.#turns.clear();
    for (const turn of this.outbox) {
      if (turn.state !== "refused") turn._refuse(error);
      this._changed(turn);
    }
  }

  _stop(error) {
    for (const turn of [...this.#turns.values(), ...this.outbox]) if (turn.state !== "refused") turn._fail(error);
  }

  _submit(turn) {
    if (turn.state === "waiting" && this._broker.state === "open" && !this._isEntering) turn._submit();
    this._changed();
  }

  _changed(unwanted = undefined) {
    this.outbox = this.outbox.filter((turn) => turn !== unwanted);
    if (!this.outbox.length && !this.isFollowed) this._broker._followed.delete(this._key);
    this.#telling ??= Promise.resolve().then(() => {
      this.#telling = null;
      const keep = this.outbox.length ? "setItem" : "removeItem";
      tried(() => this._broker._options.storage[keep](this._key, JSON.stringify(this.outbox)));
      this._emit("outbox", this.outbox);
    });
  }

  _accepted(turn, { seq, status }) {
    this._changed(this.isFollowed && this.seq < seq ? null : turn);
    if (this.isFollowed && status === "ended" && turn.state !== status) this.attach();
  }

  _track(turn) {
    if (turn.state === "ended") this.#turns.delete(turn.id);
    else this.#turns.set(turn.id, turn);
  }

  #logged({ turn_id, data }) {
    for (const turn of this.outbox.filter((one) => one.clientMsgId === data.client_msg_id)) {
      turn.id = turn_id;
      this._track(turn);
      turn.retry(); // for want of an answer it was refused
      this._changed(turn);
    }
  }
}

/** A promise of its end; `retry`, `connect` and `attach` make a new one. */
export class Turn {
  /** @type {string | null} */
  id = null;
  /** @type {T.TurnState} */
  state = "waiting";
  /** @type {BrokerError | null} */
  error = null;
  /** @type {T.Ended | null} */
  outcome = null;
  _line = -1;
  #session;
  #payload;
  #wasSent;
  #records = [];
  #accepted = deferred();
  #ended = deferred();
  #wake = deferred();
  #timer = null;

  constructor(session, item) {
    const { id = null, at, state, error, wasSent = false, ...payload } = item;
    this.#session = session;
    this.#payload = payload;
    this.#wasSent = wasSent;
    /** @type {string} */
    this.clientMsgId = payload.client_msg_id;
    /** @type {T.Content} */
    this.content = payload.content;
    /** @type {number} */
    this.at = at;
    this._bytes = JSON.stringify(payload).length;
    if (id) this.#accept({ turn_id: id });
    if (state === "refused") [this.state, this.error] = [state, new BrokerError(error)];
  }

  /** @returns {Promise<T.Accepted>} */
  get accepted() {
    return this.#accepted.promise;
  }

  /** @returns {Promise<T.Ended>} */
  get ended() {
    return this.#ended.promise;
  }

  /** @type {Promise<T.Ended>["then"]} */
  then = (resolve, reject) => this.ended.then(resolve, reject);

  /** @returns {AsyncGenerator<T.LogRecord, void, void>} */
  async *[Symbol.asyncIterator]() {
    for (let index = 0; ; index++) {
      while (index >= this.#records.length) {
        if (this.state === "ended") return;
        if (this.error) throw this.error;
        await this.#wake.promise;
      }
      yield this.#records[index];
    }
  }

  async text() {
    const said = new Map();
    for await (const { event, data } of this) {
      const { message_id: id, thought, text, content } = data;
      if (event.startsWith("message.") && !thought) said.set(id, content ?? (said.get(id) ?? "") + text);
    }
    return [...said.values()].join("");
  }

  async cancel() {
    const { outcome = "cancelled" } = this.outcome ?? {};
    if (this.discard() || this.state === "ended") return { status: "ended", outcome };
    return this.#session.request("turn.cancel", { turn_id: this.id ?? (await this.accepted).turn_id });
  }

  retry() {
    if (this.state !== "refused" || !this.#session.outbox.includes(this)) return;
    this.at = this.#session._broker._clock.now();
    this._wait();
    this.#session._submit(this);
  }

  discard() {
    if (this.state !== "refused" && (this.state !== "waiting" || this.#wasSent)) return false;
    this._refuse(failure("cancelled", "It was taken back."));
    this.#session._changed(this);
    return true;
  }

  toJSON() {
    const { at, state, error } = this;
    return { ...this.#payload, at, state, wasSent: this.#wasSent, error: { message: error?.message, ...error } };
  }

  _wait() {
    const { _broker } = this.#session;
    this.#enter("waiting");
    const left = this.at + _broker._queue.age - _broker._clock.now();
    this.#timer = _broker._later(left, () => this._refuse(failure("expired", "It waited too long to be sent.")));
    this.#timer?.unref?.(); // or Node waits
  }

  async _submit() {
    const { _broker, _address } = this.#session;
    this.#enter("sending");
    this.#wasSent = true;
    try {
      const answer = await _broker._ask("turn.start", { ..._address, ...this.#payload });
      this.#accept(answer);
      this.#session._accepted(this, answer);
    } catch (error) {
      const { error: stopped } = this;
      if (this.state === "ended") return this.#accepted.resolve({ turn_id: this.id });
      if (error.code === "disconnected" || (error.code === "unavailable" && _broker._backAt)) this._wait();
      else this._refuse(error);
      if (stopped) this._fail(stopped);
      this.#session._changed();
    }
  }

  #accept(answer) {
    this.id = answer.turn_id;
    this._resume();
    this.#accepted.resolve(answer);
    if (this.state !== "ended") this.#enter("accepted");
    this.#session._track(this);
  }

  #enter(state) {
    this.state = state;
    this.#session._broker._clock.clearTimeout(this.#timer);
    this._resume();
  }

  _refuse(error) {
    this.#enter("refused");
    this._fail(error);
    this.#session._changed();
    return this;
  }

  _fail(error) {
    this.error = error;
    this.#accepted.reject(error);
    this.#ended.reject(error);
    this.#wake.reject(error);
    this.#wake = deferred();
  }

  _resume() {
    if (!this.error) return;
    this.error = null;
    if (this.state !== "accepted") this.#accepted = deferred();
    this.#ended = deferred();
  }

  _take(record, line) {
    this._line = line;
    if (record.seq <= this.#records.at(-1)?.seq && record.event !== "turn.ended") return; // from before a reset
    this.#records.push(record);
    if (record.event === "turn.ended") {
      this.#enter("ended");
      this.outcome = record.data;
      this.#ended.resolve(record.data);
      this.#session._track(this);
    }
    this.#wake.resolve();
    this.#wake = deferred();
  }
}

/** @extends {Followed<T.RoomEvents>} */
export class Room extends Followed {
  constructor(broker, name) {
    super(broker, "room", name, "room.join");
    /** @type {string} */
    this.name = name;
  }

  /** @type {T.Join} */
  join = ({ events, afterSeq = this.seq } = {}) => {
    this._events = events;
    this.seq = afterSeq;
    return this._follow();
  };

  leave() {
    this._leave();
    return this.request("room.leave").catch(() => {});
  }

  /** @type {T.Publish} */
  publish = (event, data = null) => this.request("room.publish", { event, data });

  /** @type {T.Presence} */
  presence = async () => (await this.request("room.presence")).members;

  /** @type {T.History} */
  history = ({ beforeSeq: before_seq, limit } = {}) => this.request("room.history", { before_seq, limit });

  _arrived(answer) {
    this._emit("joined", answer);
  }

  _take(note) {
    if (note.event === "room.left") this._gone(new BrokerError(note.data));
    else if (note.event !== "room.event") return false;
    else if (!(note.seq <= this.seq)) {
      this.seq = note.seq ?? this.seq;
      this._emit("event", note);
    }
    return true;
  }
}

function deferred() {
  let resolve, reject;
  const promise = new Promise((...both) => ([resolve, reject] = both));
  promise.catch(() => {}); // nobody need listen
  return { promise, resolve, reject };
}

function tried(call) {
  try {
    return call();
  } catch {
    return undefined;
  }
}

function failure(code, message, retryable = true) {
  return new BrokerError({ code, message, retryable });
}

function unfollowed() {
  return failure("disconnected", "It is followed no longer.");
}

function crowded() {
  return failure("queue_full", "Too much waits.");
}
