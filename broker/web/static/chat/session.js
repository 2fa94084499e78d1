/** A session of `broker.v1.json`, followed so that nothing is missed and nothing is sent twice. */

import { BrokerError, Emitter, freshId } from "./broker.js";

/** What is sent and not yet in the log, kept through a reload so that the same id is sent again. */
class Outbox {
  #key;
  #storage;

  constructor(sessionId, storage) {
    this.#key = `broker.outbox.${sessionId}`;
    this.#storage = storage;
    this.items = JSON.parse(storage.getItem(this.#key) ?? "[]");
    for (const item of this.items) if (item.state === "sending") item.state = "waiting"; // its answer went with the page
  }

  add(item) {
    this.items.push(item);
    this.keep();
  }

  /** Forget the items that are in the log or unwanted; true if there were any. */
  drop(isGone) {
    const left = this.items.filter((item) => !isGone(item));
    const isFewer = left.length < this.items.length;
    this.items = left;
    if (isFewer) this.keep();
    return isFewer;
  }

  keep() {
    if (this.items.length) this.#storage.setItem(this.#key, JSON.stringify(this.items));
    else this.#storage.removeItem(this.#key);
  }
}

/**
 * One session's log, followed without a hole and without a double, across any number of connections.
 *
 * Events: `record` (a record as received), `reset` (forget all, what follows is all there is), `attached` (the answer),
 * `caughtup`, `outbox` (the items not yet in the log), `gone` and `problem` (a BrokerError).
 */
export class Session extends Emitter {
  #broker;
  #outbox;
  #life = new AbortController();
  #attaching = false;
  #repaired = -1;

  constructor(broker, sessionId, storage = sessionStorage) {
    super();
    this.#broker = broker;
    this.#outbox = new Outbox(sessionId, storage);
    this.id = sessionId;
    this.epoch = undefined;
    this.seq = 0; // everything up to here has arrived
    this.records = [];
  }

  /** Whose page this is, as the broker knows them; null for nobody in particular. */
  get user() {
    return this.#broker.identity?.user ?? null;
  }

  /** Begin to follow; attaches at once and after every reconnect. */
  open() {
    this.#broker.on("welcome", () => this.#attach(), this.#life.signal);
    this.#broker.on("notification", (message) => this.#notice(message), this.#life.signal);
    this.emit("outbox", this.#outbox.items);
    if (this.#broker.isOpen) this.#attach();
  }

  /** Stop following. The session itself, and any running turn, go on. */
  close() {
    this.#life.abort();
    this.#broker.request("session.detach", { session_id: this.id }).catch(() => {});
  }

  /**
   * Start a turn: sent as soon as there is a connection, and again under the same id if it breaks before the answer.
   * @param {string|object[]} content text or blocks
   * @param {"queue"|"reject"|"interrupt"} ifBusy what to do if a turn is running
   * @param {string} [retryOf] the ended turn that is tried again
   */
  send(content, ifBusy = "queue", retryOf = undefined) {
    const item = { client_msg_id: freshId(), content, if_busy: ifBusy, retry_of: retryOf, state: "waiting" };
    this.#outbox.add(item);
    this.#submit(item);
  }

  /** Send a refused item again, under its own id. */
  resend(item) {
    this.#submit(item);
  }

  /** Forget a refused item. */
  discard(item) {
    this.#settle((other) => other === item);
  }

  /** Ask the broker for something of this session; throws as `Broker.request`. */
  request(action, payload) {
    return this.#broker.request(action, { session_id: this.id, ...payload });
  }

  async #attach() {
    this.#attaching = true;
    try {
      const answer = await this.request("session.attach", { after_seq: this.seq, epoch: this.epoch });
      if (this.#life.signal.aborted) return;
      if ((this.epoch && answer.epoch !== this.epoch) || answer.floor > this.seq + 1) this.#reset(answer);
      this.epoch = answer.epoch;
      this.emit("attached", answer);
      for (const item of this.#outbox.items) if (item.state === "waiting") this.#submit(item);
    } catch (error) {
      if (error.code !== "disconnected" && !this.#life.signal.aborted) this.emit("gone", error);
    } finally {
      this.#attaching = false;
    }
  }

  #notice(message) {
    if (message.session_id !== this.id) return;
    if (message.seq !== undefined) this.#take(message);
    else if (message.event === "session.reset") this.#reset(message.data);
    else if (message.event === "session.caught_up") this.#caughtUp();
    else if (message.event === "session.detached") this.emit("gone", new BrokerError(message.data));
  }

  #take(record) {
    if (record.seq <= this.seq) return;
    if (record.seq > this.seq + 1 && this.#repair()) return;
    this.seq = record.seq;
    this.records.push(record);
    if (record.event === "user.message") this.#settle((item) => item.client_msg_id === record.data.client_msg_id);
    this.emit("record", record);
  }

  /** Ask again for what is missing; false if that was done here before, so that a broken log is shown, not retried. */
  #repair() {
    if (this.#attaching) return true; // what comes before the answer comes again after it
    if (this.#repaired === this.seq) {
      this.emit("problem", new BrokerError({ code: "hole", message: `Records after ${this.seq} are missing.` }));
      return false;
    }
    this.#repaired = this.seq;
    this.#attach();
    return true;
  }

  #reset({ epoch, floor }) {
    this.epoch = epoch;
    this.seq = floor - 1;
    this.records = [];
    this.emit("reset", { epoch, floor });
  }

  #caughtUp() {
    this.#settle((item) => item.state === "accepted");
    this.emit("caughtup");
  }

  #settle(isDone) {
    if (this.#outbox.drop(isDone)) this.emit("outbox", this.#outbox.items);
  }

  async #submit(item) {
    const { client_msg_id, content, if_busy, retry_of } = item;
    this.#changed(item, "sending");
    try {
      await this.request("turn.start", { client_msg_id, content, if_busy, retry_of });
      this.#changed(item, "accepted");
    } catch (error) {
      if (error.code === "disconnected") this.#changed(item, "waiting");
      else this.#changed(item, "refused", error.words);
    }
  }

  #changed(item, state, error) {
    Object.assign(item, { state, error });
    this.#outbox.keep();
    this.emit("outbox", this.#outbox.items);
  }
}
