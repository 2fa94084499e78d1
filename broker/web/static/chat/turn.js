/** One turn on the page: the question, what the agent does about it, and how it ended. */

import { Activity } from "./activity.js";
import { Approval } from "./approval.js";
import { el, list } from "../shared/dom.js";
import { toolElement } from "./tool.js";
import { outcomeWords, seconds, stallWords, stoppingWords, textOf, timeWords, who } from "../shared/words.js";

/**
 * A turn, made from its records in their order.
 *
 * `actions` is what its reader can do and is: `answer(approvalId, optionId)`, a promise; `retry(turn)`;
 * `trace(turnId)`; `by(user, id)`, the end of a sentence about who did something to the turn or question of that id.
 */
export class Turn {
  #actions;
  #bubble = el("p.bubble");
  #body = el("div.body");
  #footer = el("footer.outcome");
  #messages = new Map();
  #tools = new Map();
  #approvals = new Map();
  #plan = null;
  #thought = null;
  #late = null;
  #startedAt = 0;
  #stopped;

  constructor(id, actions) {
    this.#actions = actions;
    this.id = id;
    this.state = "queued";
    this.words = "Waiting"; // what the turn is doing, as a sentence
    this.content = undefined; // what was asked; undefined if the log does not reach back to it
    this.answer = ""; // the text of the last whole message
    this.element = el("article.turn", { data: { turn: id } }, this.#body, this.#footer);
  }

  get isOver() {
    return this.state === "ended";
  }

  /** How it ended, as a sentence; empty before. */
  get outcome() {
    return this.isOver ? this.#footer.firstChild.textContent : "";
  }

  /** Take one record of this turn. */
  apply(record) {
    const handle = HANDLERS[record.event];
    if (!handle) return;
    if (this.state === "stalled" && !record.event.startsWith("turn.")) this.#resume();
    if (record.event !== "thought.delta" && !record.data.thought) this.#closeThought();
    handle(this, record.data, record);
  }

  /** Show a question that waits for an answer, unless it is shown already. */
  ask(data) {
    if (this.#approvals.has(data.approval_id)) return;
    const approval = new Approval(data, this.#actions.answer);
    this.#approvals.set(data.approval_id, approval);
    this.#body.append(approval.element);
    this.#resume();
  }

  /** Keep what the agent said of this turn after its end. */
  late(data) {
    if (!this.#late) {
      this.#late = new Activity("This came after the end of the turn");
      this.element.append(this.#late.element);
    }
    this.#late.add(data);
  }

  /** Say something in the midst of what the agent does. */
  note(words) {
    this.#body.append(el("p.note", {}, words));
  }

  /** Offer to try this turn again, or not because somebody does. */
  offer(isOffered) {
    const button = this.#footer.querySelector(".again");
    if (button) button.hidden = !isOffered;
  }

  static handlers = {
    "user.message": (turn, data, { at }) => turn.#question(data, at),
    "turn.edited": (turn, data) => turn.#reword(data),
    "turn.started": (turn, _, { at }) => turn.#start(at),
    "turn.stalled": (turn, data) => turn.#stall(data),
    "turn.cancelling": (turn, data) => turn.#stop(data),
    "turn.ended": (turn, data, { at }) => turn.#end(data, at),
    "message.delta": (turn, data) => turn.#stream(data),
    "message.completed": (turn, data) => turn.#complete(data),
    "message.replaced": (turn, data) => (data.thought ? turn.#rethink(data) : turn.#replace(data)),
    "thought.delta": (turn, data) => turn.#think(data),
    "tool.started": (turn, data) => turn.#tool(data),
    "tool.updated": (turn, data) => turn.#tool(data),
    "plan.updated": (turn, data) => turn.#planned(data),
    "approval.requested": (turn, data) => turn.ask(data),
    "approval.resolved": (turn, data) => turn.#resolve(data),
  };

  // -- states ----------------------------------------------------------------------------------------

  #enter(state, words) {
    this.state = state;
    this.words = words;
    this.element.dataset.state = state;
    this.element.ariaBusy = String(state !== "ended");
    this.#footer.replaceChildren();
  }

  #question({ content, author, retry_of }, at) {
    const name = [who(author), retry_of && "tried again"].filter(Boolean).join(", ");
    const label = el("p.author", {}, name ? `${name} · ` : "", el("time", { dateTime: at }, timeWords(at)));
    this.element.prepend(el("div.question", {}, this.#bubble, label));
    this.#reword({ content });
  }

  #reword({ content }) {
    this.content = content;
    this.#bubble.textContent = textOf(content);
  }

  #start(at) {
    this.#startedAt = Date.parse(at);
    this.#resume();
  }

  /** Go on, or wait for who has to answer. */
  #resume() {
    if (this.state === "cancelling" || this.isOver) return;
    const open = [...this.#approvals.values()].filter((approval) => approval.isOpen).length;
    if (!open) this.#enter("running", "Working");
    else
      this.#enter("approval", open === 1 ? "Waiting for your answer" : `Waiting for your answers to ${open} questions`);
  }

  #stall(data) {
    this.#enter("stalled", stallWords(data));
    this.#footer.append(el("span", {}, this.words), this.#traceButton());
  }

  #stop(data) {
    this.#stopped = data.deadline ? "" : this.#actions.by(data.by, this.id);
    this.#enter("cancelling", stoppingWords(data, this.#stopped));
  }

  #end(data, at) {
    const began = this.#startedAt > 0;
    const by = this.#stopped ?? (data.outcome === "cancelled" ? this.#actions.by(data.by, this.id) : "");
    const took = began ? ` · ${seconds(Date.parse(at) - this.#startedAt)}` : "";
    this.#enter("ended", "");
    this.element.dataset.outcome = data.outcome;
    for (const approval of this.#approvals.values()) if (approval.isOpen) approval.resolve({ outcome: "void" }, "");
    for (const parts of this.#messages.values()) for (const part of parts) part.classList.remove("streaming");
    this.#footer.append(el("span", {}, outcomeWords(data, { by, began }), took));
    if (data.outcome !== "completed" || data.empty) this.#footer.append(...this.#againButton(), this.#traceButton());
  }

  #againButton() {
    const onclick = () => this.#actions.retry(this);
    return this.content === undefined ? [] : [el("button.quiet.again", { type: "button", onclick }, "Try again")];
  }

  #traceButton() {
    return el("button.quiet", { type: "button", onclick: () => this.#actions.trace(this.id) }, "Where did it go?");
  }

  // -- what the agent says ---------------------------------------------------------------------------

  #stream({ message_id, role, text }) {
    const parts = this.#message(message_id);
    if (this.#body.lastChild !== parts.at(-1)) parts.push(this.#part(role));
    parts.at(-1).hidden = false;
    parts.at(-1).firstChild.appendData(text);
  }

  #complete(data) {
    this.answer = textOf(data.content);
    const parts = this.#message(data.message_id);
    if (parts.map((part) => part.textContent).join("") !== this.answer) this.#replace(data);
    for (const part of parts) part.classList.remove("streaming");
  }

  /** Put other text in the place where the message began. */
  #replace({ message_id, role, content }) {
    const parts = this.#message(message_id);
    if (!parts.length) parts.push(this.#part(role));
    for (const part of parts.splice(1)) part.remove();
    parts[0].firstChild.data = textOf(content);
    parts[0].hidden = !parts[0].firstChild.data;
  }

  /** The parts of a message as shown: a new one begins where something else came in between. */
  #message(id) {
    if (!this.#messages.has(id)) this.#messages.set(id, []);
    return this.#messages.get(id);
  }

  #part(role = "assistant") {
    const part = el("div.message.streaming", { data: { role } }, document.createTextNode(""));
    this.#body.append(part);
    return part;
  }

  #think({ text }) {
    if (!this.#thought) {
      const node = document.createTextNode("");
      const element = el("details.thought", { open: true }, el("summary", {}, "Thinking"), el("p", {}, node));
      this.#thought = { node, element };
      this.#body.append(element);
    }
    this.#thought.node.appendData(text);
  }

  #rethink({ content }) {
    if (this.#thought) this.#thought.node.data = textOf(content);
    else if (content) this.#think({ text: textOf(content) });
  }

  #closeThought() {
    if (!this.#thought) return;
    this.#thought.element.open = false;
    this.#thought.element.firstChild.textContent = "Thought";
    this.#thought = null;
  }

  #tool(data) {
    const known = this.#tools.get(data.tool_id) ?? { data: {}, element: null };
    known.data = { ...known.data, ...data };
    const element = toolElement(known.data);
    element.open = known.element?.open ?? false;
    if (known.element) known.element.replaceWith(element);
    else this.#body.append(element);
    this.#tools.set(data.tool_id, { data: known.data, element });
  }

  #planned({ entries }) {
    const items = list(entries).map(({ status, content }) =>
      el("li", { data: { status: status ?? "pending" } }, textOf(content)),
    );
    const plan = el("ol.plan", { ariaLabel: "Plan" }, ...items);
    if (this.#plan) this.#plan.replaceWith(plan);
    else this.#body.append(plan);
    this.#plan = plan;
  }

  #resolve(data) {
    const approval = this.#approvals.get(data.approval_id);
    if (!approval?.isOpen) return;
    approval.resolve(data, data.option_id ? this.#actions.by(data.resolved_by, data.approval_id) : "");
    if (this.state === "approval") this.#resume();
  }
}

const HANDLERS = Turn.handlers;
