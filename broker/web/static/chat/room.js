/** A room of `broker.v1.json`. */

import { BrokerError, Emitter } from "./broker.js";

const PRESENCE = 3000; // ms between two questions who is there

/**
 * Membership of one room, kept across reconnects; what the room remembers and what was missed arrive first.
 *
 * Events: `event` (the notification), `members` (the list), `joined` (the answer), `gap` (events were missed for good),
 * `gone` (a BrokerError).
 */
export class Room extends Emitter {
  #broker;
  #life = new AbortController();
  #timer = 0;
  #seq = 0;
  #epoch;

  constructor(broker, name) {
    super();
    this.#broker = broker;
    this.name = name;
  }

  /** Join, now and after every reconnect. */
  open() {
    this.#broker.on("welcome", () => this.#join(), this.#life.signal);
    this.#broker.on("notification", (message) => this.#notice(message), this.#life.signal);
    this.#timer = setInterval(() => this.#present(), PRESENCE);
    if (this.#broker.isOpen) this.#join();
  }

  /** Leave. */
  close() {
    this.#life.abort();
    clearInterval(this.#timer);
    this.#broker.request("room.leave", { room: this.name }).catch(() => {});
  }

  /** Publish to everybody in the room, ourselves included; throws as `Broker.request`. */
  publish(event, data) {
    return this.#broker.request("room.publish", { room: this.name, event, data });
  }

  async #join() {
    try {
      const answer = await this.#broker.request("room.join", { room: this.name, after_seq: this.#seq, epoch: this.#epoch });
      if (this.#life.signal.aborted) return;
      if (this.#epoch && answer.recovered === false) this.emit("gap");
      if (this.#epoch !== answer.epoch) this.#seq = 0;
      this.#epoch = answer.epoch;
      this.emit("joined", answer);
      this.emit("members", answer.members ?? []);
    } catch (error) {
      if (error.code !== "disconnected" && !this.#life.signal.aborted) this.emit("gone", error);
    }
  }

  #notice(message) {
    if (message.room !== this.name) return;
    if (message.event === "room.event") this.#take(message);
    else if (message.event === "room.left") this.emit("gone", new BrokerError(message.data));
  }

  #take(message) {
    if (message.seq !== undefined) {
      if (message.seq <= this.#seq) return;
      this.#seq = message.seq;
    }
    this.emit("event", message);
  }

  /** Who comes and goes is not told, only answered. */
  async #present() {
    if (!this.#broker.isOpen || document.hidden) return;
    const answer = await this.#broker.request("room.presence", { room: this.name }).catch(() => null);
    if (answer && !this.#life.signal.aborted) this.emit("members", answer.members);
  }
}
