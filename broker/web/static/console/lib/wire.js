/** A connection of its own whose frames can be seen: the JavaScript client over a socket that tells what passes. */

import { Broker } from "../../client.js";

/** A connection as somebody; a new one for each identity. */
export class Wire {
  #broker;
  #token;
  #seen;
  #last = new Map(); // by name, what the broker last called so
  #sent = new Map(); // id -> when, of requests that are not answered

  /**
   * @param {{url: string, token: string|null, onFrame: (frame: object) => void, onState: (state: object) => void}}
   *   options
   *   a frame is `{way: "out"|"in", message, text, size, took}`: `took` the milliseconds that an answer took
   */
  constructor({ url, token, onFrame, onState }) {
    this.#token = token;
    this.#seen = onFrame;
    const [sees, getToken] = [(way, text) => this.#see(way, text), () => token];
    this.#broker = new Broker({ url, getToken, WebSocket: openSocket(sees), storage: null });
    this.#broker.on("state", onState);
  }

  /** Who this is, once it is known. */
  get identity() {
    return this.#broker.identity;
  }

  /** What placeholders stand for. */
  get known() {
    return { last: this.#last, token: this.#token };
  }

  /** Connect; refused if that cannot be. */
  connect() {
    return this.#broker.connect();
  }

  /** Ask; refused with what the broker says. */
  request(action, payload) {
    return this.#broker.request(action, payload);
  }

  /** End it. */
  close() {
    this.#broker.close();
  }

  #see(way, text) {
    let message = null;
    try {
      message = JSON.parse(text);
    } catch {
      // shown as it is
    }
    const took = this.#timed(way, message?.id);
    if (way === "in" && message) this.#learn(message);
    this.#seen({ way, message, text, size: text.length, took });
  }

  #timed(way, id) {
    if (id === undefined) return null;
    if (way === "out") this.#sent.set(id, performance.now());
    const began = this.#sent.get(id);
    if (way === "out" || began === undefined) return null;
    this.#sent.delete(id);
    return performance.now() - began;
  }

  #learn({ session_id, turn_id, data }) {
    const said = { session_id, turn_id, ...(typeof data === "object" && !Array.isArray(data) ? data : null) };
    for (const [name, value] of Object.entries(said))
      if (value !== undefined && value !== null) this.#last.set(name, value);
  }
}

/** A WebSocket class whose messages are told of, both ways. */
function openSocket(told) {
  return class extends WebSocket {
    constructor(...args) {
      super(...args);
      this.addEventListener("message", ({ data }) => told("in", data));
    }

    send(data) {
      told("out", data);
      super.send(data);
    }
  };
}
