/** The turns that wait: visible to everybody, to be changed or taken back by who sent them. */

import { el, keepFocus } from "../shared/dom.js";
import { textOf, who } from "../shared/words.js";

/**
 * Shows the queue of one session at a time.
 *
 * `onOrphan(text)` gets a change that came too late to be made, `onTrace(turnId)` the wish to see where a turn is;
 * `prompt` gets the focus when what had it goes.
 */
export class Queue {
  #title = el("h2.grow");
  #where = el(
    "button.quiet",
    { type: "button", onclick: () => this.#onTrace(this.#items.keys().next().value) },
    "Where is it?",
  );
  #list = el("ol");
  #items = new Map();
  #reader = null;
  #isBehind = false; // a turn that runs
  #onOrphan;
  #onTrace;
  #prompt;

  constructor(onOrphan, onTrace, prompt) {
    this.#onOrphan = onOrphan;
    this.#onTrace = onTrace;
    this.#prompt = prompt;
    const head = el("div.row", {}, this.#title, this.#where);
    this.element = el("section.queue", { ariaLabel: "Queue", hidden: true }, head, this.#list);
  }

  /** Show what waits in a reader's session until `signal` aborts. */
  show(reader, signal) {
    this.clear();
    this.#reader = reader;
    reader.session.on("reset", () => this.clear(), { signal });
  }

  /** Forget what was shown. */
  clear() {
    this.#items.clear();
    this.#list.replaceChildren();
    this.#count();
  }

  /** Say whether what waits does so behind a turn that runs, or for an agent. */
  behind(turn) {
    this.#isBehind = Boolean(turn);
    this.#count();
  }

  /** Take one record of the session. */
  take({ event, turn_id, data }) {
    if (event === "user.message") this.#add(turn_id, data);
    else if (event === "turn.queued" && data.interrupts) this.#first(turn_id);
    else if (event === "turn.edited") this.#items.get(turn_id)?.change(data.content);
    else if (event === "turn.started" || event === "turn.ended") this.#remove(turn_id);
  }

  #add(turnId, data) {
    const isOwn = (who(data.author) || null) === this.#reader.user;
    const item = new Item(turnId, data, isOwn && this.#reader);
    this.#items.set(turnId, item);
    this.#list.append(item.element);
    this.#count();
  }

  #first(turnId) {
    const item = this.#items.get(turnId);
    if (item) this.#list.prepend(item.element);
  }

  #remove(turnId) {
    const item = this.#items.get(turnId);
    if (!item) return;
    this.#items.delete(turnId);
    keepFocus(item.element, this.#prompt, () => item.element.remove());
    if (item.draft) this.#onOrphan(item.draft);
    this.#count();
  }

  #count() {
    this.element.hidden = !this.#items.size;
    this.#title.textContent = `${this.#isBehind ? "Waiting" : "Waiting for an agent to take it"} · ${this.#items.size}`;
    keepFocus(this.element, this.#prompt, () => (this.#where.hidden = this.#isBehind));
  }
}

/** One turn that waits; with a reader, whose it is, it may be changed and taken back. */
class Item {
  #turnId;
  #reader;
  #content;
  #shown = el("p.waiting");
  #error = el("p.refusal", { role: "alert" });
  #form = null;

  constructor(turnId, { content, author }, reader) {
    this.#turnId = turnId;
    this.#reader = reader;
    const name = reader ? "" : who(author);
    const buttons = reader ? this.#buttons(content) : [];
    this.element = el("li", { data: { turn: turnId } }, this.#shown, el("div.row", {}, ...buttons), this.#error);
    if (name) this.element.prepend(el("p.author", {}, name));
    this.change(content);
  }

  /** What stands in an open form and is not what waits. */
  get draft() {
    const text = this.#form?.text.value.trim();
    return text && text !== this.#content ? text : "";
  }

  /** Show what the turn is to say from now on. */
  change(content) {
    this.#content = content;
    this.#shown.textContent = textOf(content);
  }

  #buttons(content) {
    const drop = el("button.quiet", { type: "button", onclick: () => this.#drop() }, "Remove");
    if (typeof content !== "string") return [drop];
    return [el("button.quiet", { type: "button", onclick: () => this.#open() }, "Edit"), drop];
  }

  #open() {
    const text = el("textarea", {
      name: "text",
      rows: 2,
      required: true,
      value: this.#content,
      ariaLabel: "Waiting message",
    });
    const save = el("button.primary", { type: "submit" }, "Save");
    const back = el("button", { type: "button", onclick: () => this.#close() }, "Keep as it was");
    this.#form = el("form.stack", {}, text, el("div.row", {}, save, back));
    this.#form.onsubmit = (event) => this.#save(event);
    this.#form.onkeydown = (event) => this.#key(event);
    this.#toggle(true);
    this.element.append(this.#form, this.#error);
    text.focus();
  }

  #key(event) {
    if (event.key === "Escape") this.#close();
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.target.type !== "textarea") return;
    event.preventDefault();
    this.#form.requestSubmit();
  }

  #close() {
    this.#form.remove();
    this.#form = null;
    this.#error.textContent = "";
    this.#toggle(false);
    this.element.querySelector("button").focus();
  }

  #toggle(isOpen) {
    this.#shown.hidden = isOpen;
    this.element.querySelector(".row").hidden = isOpen;
  }

  #save(event) {
    event.preventDefault();
    const content = this.#form.text.value;
    if (content === this.#content) this.#close();
    else if (content.trim()) this.#edit(content);
  }

  async #edit(content) {
    const isMade = await this.#try(this.#reader.session.request("turn.edit", { turn_id: this.#turnId, content }));
    if (isMade && this.element.isConnected) this.#close();
  }

  #drop() {
    return this.#try(this.#reader.own(this.#turnId, "turn.drop", { turn_id: this.#turnId }));
  }

  /** Wait for a change of this turn; true if it was made. */
  async #try(asked) {
    this.#error.textContent = "";
    try {
      await asked;
      return true;
    } catch (error) {
      this.#error.textContent = error.words;
      return false;
    }
  }
}
