/** The turns that wait: visible to everybody, to be changed or taken back by who sent them. */

import { byId, el, keepFocus } from "../shared/dom.js";
import { textOf, who } from "../shared/words.js";

/** Shows the queue of one session at a time; `onOrphan(text)` gets a change that came too late to be made. */
export class Queue {
  #panel = byId("queue");
  #list = byId("queue-list");
  #title = byId("queue-title");
  #items = new Map();
  #session = null;
  #onOrphan;

  constructor(onOrphan) {
    this.#onOrphan = onOrphan;
  }

  /** Show what waits in a session, and forget what was shown. */
  show(session) {
    this.#session = session;
    this.#items.clear();
    this.#list.replaceChildren();
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
    const isOwn = (who(data.author) || null) === this.#session.user;
    const item = new Item(turnId, data, isOwn && this.#session);
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
    keepFocus(item.element, byId("prompt"), () => item.element.remove());
    if (item.draft) this.#onOrphan(item.draft);
    this.#count();
  }

  #count() {
    this.#panel.hidden = !this.#items.size;
    this.#title.textContent = `Waiting · ${this.#items.size}`;
  }
}

/** One turn that waits; with a session it may be changed and taken back. */
class Item {
  #turnId;
  #session;
  #content;
  #shown = el("p.waiting");
  #error = el("p.refusal", { role: "alert" });
  #form = null;

  constructor(turnId, { content, author }, session) {
    this.#turnId = turnId;
    this.#session = session;
    const name = session ? "" : who(author);
    const buttons = session ? this.#buttons(content) : [];
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
    const drop = el("button.quiet", { type: "button", onclick: () => this.#ask("turn.drop") }, "Remove");
    if (typeof content !== "string") return [drop];
    return [el("button.quiet", { type: "button", onclick: () => this.#open() }, "Edit"), drop];
  }

  #open() {
    const text = el("textarea", { name: "text", rows: 2, required: true, value: this.#content, ariaLabel: "Waiting message" });
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

  async #save(event) {
    event.preventDefault();
    const content = this.#form.text.value;
    if (content.trim() && (content === this.#content || (await this.#ask("turn.edit", { content })))) this.#close();
  }

  /** Ask for a change of this turn; true if it was made. */
  async #ask(action, payload) {
    this.#error.textContent = "";
    try {
      await this.#session.request(action, { turn_id: this.#turnId, ...payload });
      return this.element.isConnected;
    } catch (error) {
      this.#error.textContent = error.words;
      return false;
    }
  }
}
