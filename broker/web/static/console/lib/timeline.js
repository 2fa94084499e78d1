/** The records of a session, one below the other, filtered by their kinds. */

import { el, follower, json } from "../../shared/dom.js";
import { clockWords, outcomeWords, resolvedWords, textOf, who } from "../../shared/words.js";
import { Kept } from "./kept.js";
import { action } from "./details.js";

const KEPT = 3000; // records
const LONG = 160; // characters of a summary
const PIECES = ["message.delta", "thought.delta"]; // hidden at first: what they say stands in `message.completed` again

const SUMMARIES = {
  "user.message": ({ content, author }) => `${who(author) || "anonymous"}: ${textOf(content)}`,
  "turn.edited": ({ content }) => textOf(content),
  "turn.started": ({ agent }) => `by ${agent}`,
  "turn.queued": ({ ahead }) => `${ahead} before it`,
  "turn.cancelling": ({ reason }) => reason,
  "turn.ended": (data) => outcomeWords(data),
  "message.delta": ({ text }) => text,
  "thought.delta": ({ text }) => text,
  "message.completed": ({ content }) => textOf(content),
  "tool.started": ({ title, status }) => `${title ?? "tool"} (${status ?? "started"})`,
  "tool.updated": ({ title, tool_id, status }) => `${title ?? tool_id} (${status ?? "changed"})`,
  "approval.requested": ({ title }) => title,
  "approval.resolved": (data) => resolvedWords(data, null, who(data.resolved_by) && ` by ${who(data.resolved_by)}`),
  "variables.changed": ({ set }) => Object.keys(set ?? {}).join(", "),
  "agent.state": ({ state, reason }) => [state, reason].filter(Boolean).join(": "),
  "session.opened": ({ agent, title }) => [title, `agent ${agent}`].filter(Boolean).join(", "),
};

/** What a record says, in a line; what agents send may have any shape. */
export function summaryOf({ event, data }) {
  let words;
  try {
    words = SUMMARIES[event]?.(data);
  } catch {
    words = undefined;
  }
  return brief(words ?? JSON.stringify(data));
}

/** A text as one line that is not too long. */
export function brief(text) {
  const flat = String(text).replace(/\s+/g, " ");
  return flat.length > LONG ? `${flat.slice(0, LONG)}…` : flat;
}

/** The timeline; `earlier(beforeSeq)` is a promise of `{records, before_seq?}`, the page before. */
export class Timeline {
  #records = new Kept(KEPT);
  #counts = new Map();
  #hidden;
  #before;
  #context;
  #chips = el("div.chips", { role: "group", ariaLabel: "Kinds that are shown" });
  #list = el("ol.timeline");
  #scroller = el("div.timeline-scroller", { tabIndex: 0, role: "region", ariaLabel: "Records" }, this.#list);
  #more;
  #facts = el("p.hint");
  #follow = follower(this.#scroller);

  constructor(context, earlier) {
    this.#context = context;
    this.#hidden = new Set(context.recall("timeline.hidden", PIECES));
    this.#more = action("Earlier records", async () => this.#prepend(await earlier(this.#before)));
    this.#more.hidden = true;
    this.element = el("div.stack", {}, this.#chips, this.#more, this.#scroller, this.#facts);
  }

  /** Add records at the end; `before`, where the log reaches further back. */
  add(records, before) {
    if (before !== undefined) this.#setBefore(before);
    for (const record of records) {
      this.#count(record, 1);
      if (this.#isShown(record)) this.#list.append(row(record));
    }
    this.#trim(this.#records.add(records));
    this.#draw();
  }

  /** Forget all records. */
  clear() {
    this.#records.clear();
    this.#counts.clear();
    this.#chips.replaceChildren();
    this.#list.replaceChildren();
    this.#setBefore(undefined);
  }

  #prepend({ records, before_seq }) {
    this.#records.prepend(records);
    for (const record of records) this.#count(record, 1);
    this.#setBefore(before_seq);
    this.#rebuild();
  }

  #setBefore(before) {
    this.#before = before;
    this.#more.hidden = before === undefined || this.#records.isFull;
  }

  #count({ event }, by) {
    this.#counts.set(event, (this.#counts.get(event) ?? 0) + by);
  }

  #isShown({ event }) {
    return !this.#hidden.has(event);
  }

  #trim(surplus) {
    for (const record of surplus) {
      this.#count(record, -1);
      if (this.#isShown(record)) this.#list.firstChild?.remove();
    }
    if (surplus.length) this.#setBefore(this.#records.items[0].seq);
  }

  #rebuild() {
    this.#list.replaceChildren(...this.#records.items.filter((record) => this.#isShown(record)).map(row));
    this.#draw();
  }

  #draw() {
    for (const [kind, count] of [...this.#counts].sort()) this.#chip(kind, count);
    const shown = this.#list.childElementCount;
    const total = this.#records.items.length;
    this.#facts.textContent =
      shown === total ? `${total} records` : `${shown} of ${total} records; the other kinds are hidden`;
    this.#follow();
  }

  /** The button of a kind; those that are there stay, so that none loses the focus. */
  #chip(kind, count) {
    const known = [...this.#chips.children].find(({ dataset }) => dataset.kind === kind);
    const chip = known ?? el("button.chip", { type: "button", data: { kind }, onclick: () => this.#toggle(kind) });
    chip.dataset.shape = kind.split(".")[0];
    chip.ariaPressed = String(!this.#hidden.has(kind));
    chip.textContent = `${kind} ${count}`;
    if (!known) this.#chips.append(chip);
  }

  #toggle(kind) {
    if (!this.#hidden.delete(kind)) this.#hidden.add(kind);
    this.#context.remember("timeline.hidden", [...this.#hidden]);
    this.#rebuild();
  }
}

function row(record) {
  return line({ ...record, kind: record.event, shape: record.event.split(".")[0], what: summaryOf(record) }, record);
}

/** One line of a list of happenings, which unfolds to `whole` as JSON. */
export function line({ seq, at, kind, shape, what }, whole) {
  const parts = [el("span.seq", {}, String(seq ?? "–")), el("time", { dateTime: at }, clockWords(at))];
  const summary = el("summary", {}, ...parts, el("span.kind", {}, kind), el("span.what", {}, what));
  const details = el("details.record", { data: { shape, seq: seq ?? "" } }, summary);
  details.addEventListener("toggle", () => details.append(json(whole)), { once: true });
  return el("li", {}, details);
}
