/** The conversation: turns made from a session's records, what is on its way, and the box to write in. */

import { byId, el, follower, fold, json } from "./dom.js";
import { Turn } from "./turn.js";

/** Records that belong to no turn and are worth a line in the conversation. */
const NOTES = {
  "variables.changed": () => "Variables changed",
  "session.closed": () => "The session is closed",
  activity: () => "The agent did something outside of a turn",
};

/** What each state of a sent message is called until it stands in the log. */
const SENT = { waiting: "Waiting for the connection", sending: "Sending…", accepted: "Accepted", refused: "Not accepted" };

/** Shows one session at a time; `show(session)` begins, `clear()` forgets. */
export class Chat {
  #session = null;
  #turns = new Map();
  #list = byId("turns");
  #outbox = byId("outbox");
  #latest = byId("latest");
  #follow = follower(byId("scroller"), (away) => (this.#latest.hidden = !away));

  constructor() {
    this.#latest.onclick = () => this.#follow(true);
    byId("stop").onclick = () => this.#active && this.#cancel(this.#active.id);
  }

  /** Show a session's records as they come, until `signal` aborts. */
  show(session, signal) {
    this.clear();
    this.#session = session;
    byId("welcome").hidden = true;
    session.on("record", (record) => this.#take(record), signal);
    session.on("reset", ({ floor }) => this.#reset(floor), signal);
    session.on("outbox", (items) => this.#waiting(items), signal);
    session.on("caughtup", () => (this.#list.dataset.live = "true"), signal);
    session.on("problem", (error) => this.#note(error.message), signal);
  }

  /** Forget everything shown. */
  clear() {
    this.#turns.clear();
    this.#list.replaceChildren();
    this.#outbox.replaceChildren();
    delete this.#list.dataset.live;
    this.#session = null;
    byId("welcome").hidden = false;
    this.#showRunning();
  }

  get #active() {
    return [...this.#turns.values()].find((turn) => !turn.isOver && turn.state !== "queued");
  }

  #take(record) {
    if (record.turn_id && record.event !== "activity") this.#turn(record.turn_id).apply(record);
    else if (NOTES[record.event]) this.#note(NOTES[record.event](), record.data);
    if (record.event === "turn.ended") this.#announce(this.#turn(record.turn_id));
    if (record.event.startsWith("turn.") || record.event.startsWith("approval.")) this.#showRunning();
    this.#follow();
  }

  #turn(id) {
    if (!this.#turns.has(id)) {
      const turn = new Turn(id, {
        cancel: (turnId) => this.#cancel(turnId),
        answer: (approval_id, option_id) => this.#session.request("approval.answer", { approval_id, option_id }),
      });
      this.#turns.set(id, turn);
      this.#list.append(turn.element);
    }
    return this.#turns.get(id);
  }

  #cancel(turnId) {
    return this.#session.request("turn.cancel", { turn_id: turnId }).catch((error) => this.#note(error.message));
  }

  #reset(floor) {
    this.#turns.clear();
    this.#list.replaceChildren();
    delete this.#list.dataset.live;
    if (floor > 1) this.#note(`The records before ${floor} are no longer kept`);
  }

  #note(text, data) {
    const isBare = !data || !Object.keys(data).length;
    this.#list.append(isBare ? el("p.note", {}, text) : fold("details.note", [text], () => json(data)));
    this.#follow();
  }

  /** Screen readers hear a whole answer and its outcome, not every word of a stream. */
  #announce(turn) {
    if (!this.#list.dataset.live) return;
    const outcome = turn.element.querySelector("footer").textContent;
    byId("announcer").textContent = `${turn.answer} ${outcome}`;
  }

  #showRunning() {
    const turn = this.#active;
    const queued = [...this.#turns.values()].filter((other) => other.state === "queued").length;
    byId("running").hidden = !turn;
    if (!turn) return;
    byId("running-text").textContent = `${turn.words}${queued ? ` · ${queued} more waiting` : ""}`;
    byId("stop").disabled = turn.state === "cancelling";
  }

  #waiting(items) {
    this.#outbox.replaceChildren(...items.map((item) => this.#unsent(item)));
    this.#follow(items.some((item) => item.state === "sending"));
  }

  #unsent(item) {
    const words = el("p.author", { role: "status" }, item.error ? `${SENT.refused}: ${item.error}` : SENT[item.state]);
    const again = el("button.quiet", { type: "button", onclick: () => this.#session.resend(item) }, "Send again");
    const drop = el("button.quiet", { type: "button", onclick: () => this.#session.discard(item) }, "Discard");
    const buttons = item.state === "refused" ? [el("div.answers", {}, again, drop)] : [];
    const question = el("div.question", {}, el("p.bubble", {}, item.content), words, ...buttons);
    return el("article.turn.unsent", { data: { sent: item.state } }, question);
  }
}
