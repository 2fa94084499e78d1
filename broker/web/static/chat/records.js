/** The panel in which a session's records arrive, as they are in the log. */

import { byId, el, fold, follower, json } from "../shared/dom.js";
import { clockWords, textOf } from "../shared/words.js";

const SHOWN = 500; // rows in the page
const KEPT = 5000; // records

/** Shows the records of one session at a time, and keeps the newest of them. */
export class Records {
  kept = [];
  #list = byId("record-list");
  #facts = byId("records-facts");
  #follow = follower(this.#list);
  #pending = [];
  #due = false;
  #replaying = false;
  #session = null;

  /** Show a session's records as they come, until `signal` aborts; null for none. */
  show(session, signal) {
    this.#session = session;
    this.#forget();
    if (!session) {
      this.#facts.textContent = "No session.";
      return;
    }
    session.on("record", (record) => this.#take(record), { signal });
    session.on("reset", () => this.#forget(), { signal });
    session.on("attached", () => (this.#replaying = true), { signal });
    session.on("caughtup", () => this.#catchUp(), { signal });
  }

  #forget() {
    this.kept = [];
    this.#pending = [];
    this.#list.replaceChildren();
  }

  /** Rows are made once a frame, and of a replay only those that stay: thousands of layouts would take seconds. */
  #take(record) {
    this.kept.push(record);
    if (this.kept.length > KEPT) this.kept.shift();
    this.#pending.push(record);
    if (!this.#replaying) this.#soon();
  }

  #catchUp() {
    this.#replaying = false;
    this.#soon();
  }

  #soon() {
    if (this.#due) return;
    this.#due = true;
    requestAnimationFrame(() => this.#flush());
  }

  #flush() {
    this.#due = false;
    const rows = this.#pending.splice(0).slice(-SHOWN).map(row);
    this.#list.append(...rows);
    while (this.#list.childElementCount > SHOWN) this.#list.firstElementChild.remove();
    this.#count();
    this.#follow();
  }

  #count() {
    if (!this.#session) return;
    const { seq, epoch } = this.#session;
    const more = seq > SHOWN ? ` · the last ${SHOWN} shown` : "";
    this.#facts.textContent = `head ${seq} · epoch ${epoch}${more}`;
  }
}

function row(record) {
  const family = record.event.split(".")[0];
  const summary = [
    el("span.seq", {}, String(record.seq)),
    el("span.kind", { data: { family } }, record.event),
    el("span.glance", {}, glance(record.data)),
    el("time.at", { dateTime: record.at, title: record.at }, clockWords(record.at)),
  ];
  const { turn_id, data } = record;
  return el(
    "li",
    { data: { seq: record.seq } },
    fold("details", summary, () => json(turn_id ? { turn_id, data } : { data })),
  );
}

/** The one thing of a record's data that says most. */
function glance({ text, content, title, outcome, status }) {
  const words = text ?? (content ? textOf(content) : (title ?? outcome ?? status ?? ""));
  return String(words).slice(0, 200);
}
