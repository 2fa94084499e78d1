/**
 * The connection of the wire client of `broker.v1.json`; `session.js` and `room.js` stand on it.
 * None of the three knows of the page: whoever uses them listens to their events.
 */

export const PROTOCOL = "broker.v1.json";

const FIRST_DELAY = 500; // ms; doubled with each attempt, and a random part of it is waited
const LONGEST_DELAY = 20_000;
const STEADY = 10_000; // a connection that lived this long starts the backoff anew
const PATIENCE = 30_000; // ms until a request that nobody answers counts as unanswered
const PING_PATIENCE = 10_000;

/** A typed refusal, as the broker sent it; `disconnected` and `timeout` are also raised here. */
export class BrokerError extends Error {
  /** @param {{code: string, message: string, retryable?: boolean, retry_after?: number, hint?: string}} data */
  constructor(data) {
    super(data.message);
    this.code = data.code;
    this.retryable = data.retryable ?? false;
    this.retryAfter = data.retry_after;
    this.hint = data.hint;
  }

  /** What it says, and what to do about it. */
  get words() {
    return this.hint ? `${this.message.replace(/\.$/, "")}: ${this.hint}` : this.message;
  }
}

/** Whether to come back after a close with this code; the number alone decides. */
export function mayReconnect(code) {
  return code < 4500 || code > 4999;
}

/** Milliseconds to wait before attempt number `attempt` (0, 1, 2 ...): full jitter, so that a crowd spreads out. */
export function backoff(attempt, random = Math.random) {
  return random() * Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** attempt);
}

/** An id nobody else makes; works without a secure context, where `crypto.randomUUID` is missing. */
export function freshId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** An event target with the payload as the listener's only argument. */
export class Emitter extends EventTarget {
  emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  /** Call `listener(detail)` at each event `name`, until `signal` aborts. */
  on(name, listener, signal) {
    this.addEventListener(name, (event) => listener(event.detail), { signal });
  }
}

/**
 * One WebSocket to the broker that reconnects by itself.
 *
 * Events: `state` ({name: connecting|open|waiting|stopped, code?, reason?, delay?}), `welcome` (its data),
 * `notification` (the message), `problem` (a BrokerError that answers no request).
 */
export class Broker extends Emitter {
  #url;
  #socket = null;
  #requests = new Map();
  #lastId = 0;
  #attempt = 0;
  #openedAt = 0;
  #retry = 0;
  #heartbeat = 0;
  #pause; // ms, if the broker has said how long it is away
  #token;

  /**
   * @param {string} url such as `wss://example.org/ws`
   * @param {() => ?string} token returns what to show at each connect; it never stands in the URL
   */
  constructor(url, token = () => null) {
    super();
    this.#url = url;
    this.#token = token;
    this.state = { name: "stopped" };
    this.identity = null; // the data of `welcome`
  }

  get isOpen() {
    return this.state.name === "open";
  }

  /** Connect now, whatever was being waited for. */
  connect() {
    clearTimeout(this.#retry);
    if (this.#socket) return;
    this.#enter({ name: "connecting" });
    const token = this.#token();
    const socket = new WebSocket(this.#url, token ? [PROTOCOL, `bearer.${token}`] : [PROTOCOL]);
    this.#socket = socket;
    socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    socket.onclose = ({ code, reason }) => this.#lose(socket, code, reason);
  }

  /** Leave for good. */
  close() {
    clearTimeout(this.#retry);
    const socket = this.#socket;
    if (!socket) return;
    socket.close(1000);
    this.#lose(socket, 1000, "closed here", false);
  }

  /**
   * Ask the broker something.
   * @returns {Promise<any>} the `data` of the response
   * @throws {BrokerError} the broker's refusal, `disconnected` or `timeout`
   */
  request(action, payload = {}, patience = PATIENCE) {
    if (!this.isOpen) return Promise.reject(disconnected());
    const id = `c${++this.#lastId}`;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#answer(id, "timeout"), patience);
      this.#requests.set(id, { resolve, reject, timer });
      this.#socket.send(JSON.stringify({ id, type: "request", action, payload }));
    });
  }

  #enter(state) {
    this.state = state;
    this.emit("state", state);
  }

  #receive(message) {
    if (message.type === "notification") this.#notice(message);
    else if (this.#requests.has(message.id)) this.#answer(message.id, message.type, message.data);
    else if (message.type === "error") this.emit("problem", new BrokerError(message.data));
  }

  #notice(message) {
    if (message.event === "welcome") this.#welcome(message.data);
    else if (message.event === "restarting") this.#pause = message.data.retry_after * 1000;
    else this.emit("notification", message);
  }

  #welcome(identity) {
    this.identity = identity;
    this.#openedAt = performance.now();
    this.#heartbeat = setInterval(() => this.#ping(), (identity.heartbeat || 30) * 1000);
    this.#enter({ name: "open" });
    this.emit("welcome", identity);
  }

  #answer(id, type, data) {
    const { resolve, reject, timer } = this.#requests.get(id);
    clearTimeout(timer);
    this.#requests.delete(id);
    if (type === "response") resolve(data);
    else if (type === "error") reject(new BrokerError(data));
    else if (type === "timeout") reject(new BrokerError({ code: type, message: "No answer came in time.", retryable: true }));
    else reject(disconnected());
  }

  /** A browser is not told that its line is dead until it says something; so it says something. */
  #ping() {
    const socket = this.#socket;
    this.request("ping", {}, PING_PATIENCE).catch((error) => {
      if (error.code !== "timeout") return;
      socket.close(4000, "no answer to a ping");
      this.#lose(socket, 4000, "no answer to a ping");
    });
  }

  #lose(socket, code, reason, again = mayReconnect(code)) {
    if (socket !== this.#socket) return; // this end was already told
    this.#socket = null;
    clearInterval(this.#heartbeat);
    for (const id of [...this.#requests.keys()]) this.#answer(id, "disconnected");
    if (!again) {
      this.#enter({ name: "stopped", code, reason });
      return;
    }
    if (this.#openedAt && performance.now() - this.#openedAt > STEADY) this.#attempt = 0;
    this.#openedAt = 0;
    const delay = this.#pause ?? backoff(this.#attempt++);
    this.#pause = undefined;
    this.#retry = setTimeout(() => this.connect(), delay);
    this.#enter({ name: "waiting", code, reason, delay });
  }
}

function disconnected() {
  return new BrokerError({ code: "disconnected", message: "There is no connection to the broker.", retryable: true });
}
