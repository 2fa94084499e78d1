/** One turn on the page: the question, what the agent does about it, and how it ended. */

import { el, fold, json } from "./dom.js";
import { outcomeWords, seconds, textOf, timeWords, who } from "./words.js";

const STATES = {
  queued: "Waiting for the turns before it",
  running: "Working",
  stalled: "The agent has been silent for a while",
  approval: "Waiting for your answer",
  cancelling: "Stopping",
};

/** Kinds of tool status that are over. */
const SETTLED = new Set(["completed", "failed", "cancelled"]);

/**
 * A turn, made from its records in their order.
 *
 * `actions` is what a reader can do: `cancel(turnId)` and `answer(approvalId, optionId)`, both promises.
 */
export class Turn {
  #actions;
  #body = el("div.body");
  #footer = el("footer.outcome");
  #messages = new Map();
  #tools = new Map();
  #approvals = new Map();
  #plan = null;
  #thought = null;
  #startedAt = 0;

  constructor(id, actions) {
    this.#actions = actions;
    this.id = id;
    this.state = "queued";
    this.element = el("article.turn", { data: { turn: id } }, this.#body, this.#footer);
    this.answer = ""; // the text of the last whole message
    this.#enter("queued");
  }

  get isOver() {
    return this.state === "ended";
  }

  /** What the turn is doing, as a sentence. */
  get words() {
    return STATES[this.state];
  }

  /** Take one record of this turn. */
  apply(record) {
    HANDLERS[record.event]?.(this, record.data, record);
    if (record.event !== "thought.delta" && HANDLERS[record.event]) this.#closeThought();
  }

  static handlers = {
    "user.message": (turn, data, { at }) => turn.#ask(data, at),
    "turn.queued": (turn) => turn.#enter("queued"),
    "turn.started": (turn, _, { at }) => turn.#start(at),
    "turn.stalled": (turn) => turn.#enter("stalled"),
    "turn.cancelling": (turn) => turn.#enter("cancelling"),
    "turn.ended": (turn, data, { at }) => turn.#end(data, at),
    "message.delta": (turn, data) => turn.#stream(data),
    "message.completed": (turn, data) => turn.#complete(data),
    "thought.delta": (turn, data) => turn.#think(data),
    "tool.started": (turn, data) => turn.#tool(data),
    "tool.updated": (turn, data) => turn.#tool(data),
    "plan.updated": (turn, data) => turn.#planned(data),
    "approval.requested": (turn, data) => turn.#request(data),
    "approval.resolved": (turn, data) => turn.#resolve(data),
  };

  #enter(state) {
    this.state = state;
    this.element.dataset.state = state;
    this.element.ariaBusy = String(state !== "ended");
    if (state === "queued") this.#footer.replaceChildren(el("span", {}, STATES.queued), this.#cancelButton());
    else this.#footer.replaceChildren();
  }

  #cancelButton() {
    const onclick = () => this.#actions.cancel(this.id);
    return el("button.quiet", { type: "button", onclick }, "Remove");
  }

  #ask({ content, author }, at) {
    const name = who(author);
    const label = el("p.author", {}, name ? `${name} · ` : "", el("time", { dateTime: at }, timeWords(at)));
    this.element.prepend(el("div.question", {}, el("p.bubble", {}, textOf(content)), label));
  }

  #start(at) {
    this.#startedAt = Date.parse(at);
    this.#enter("running");
  }

  #active() {
    if (this.state === "stalled") this.#enter("running");
  }

  #stream({ message_id, role, text }) {
    this.#active();
    const parts = this.#message(message_id);
    if (this.#body.lastChild !== parts.at(-1)) parts.push(this.#part(role));
    parts.at(-1).firstChild.appendData(text);
  }

  #complete({ message_id, role, content }) {
    const parts = this.#message(message_id);
    this.answer = textOf(content);
    if (parts.map((part) => part.textContent).join("") !== this.answer) {
      for (const part of parts.splice(0)) part.remove();
      parts.push(this.#part(role, this.answer));
    }
    for (const part of parts) part.classList.remove("streaming");
  }

  /** The parts of a message as shown: a new one begins where something else came in between. */
  #message(id) {
    if (!this.#messages.has(id)) this.#messages.set(id, []);
    return this.#messages.get(id);
  }

  #part(role = "assistant", text = "") {
    const part = el("div.message.streaming", { data: { role } }, document.createTextNode(text));
    this.#body.append(part);
    return part;
  }

  #think({ text }) {
    this.#active();
    if (!this.#thought) {
      const node = document.createTextNode("");
      const element = el("details.thought", { open: true }, el("summary", {}, "Thinking"), el("p", {}, node));
      this.#thought = { node, element };
      this.#body.append(element);
    }
    this.#thought.node.appendData(text);
  }

  #closeThought() {
    if (!this.#thought) return;
    this.#thought.element.open = false;
    this.#thought.element.firstChild.textContent = "Thought";
    this.#thought = null;
  }

  #tool(data) {
    this.#active();
    const known = this.#tools.get(data.tool_id) ?? { data: {}, element: null };
    known.data = { ...known.data, ...data };
    const element = toolElement(known.data);
    element.open = known.element?.open ?? false;
    if (known.element) known.element.replaceWith(element);
    else this.#body.append(element);
    this.#tools.set(data.tool_id, { data: known.data, element });
  }

  #planned({ entries = [] }) {
    const items = entries.map((entry) => el("li", { data: { status: entry.status ?? "pending" } }, entry.content ?? ""));
    const plan = el("ol.plan", { ariaLabel: "Plan" }, ...items);
    if (this.#plan) this.#plan.replaceWith(plan);
    else this.#body.append(plan);
    this.#plan = plan;
  }

  #request(data) {
    this.#enter("approval");
    const error = el("p.refusal", { role: "alert" });
    const answer = (option) =>
      this.#actions.answer(data.approval_id, option.option_id).catch((e) => (error.textContent = e.message));
    const buttons = data.options.map((option) =>
      el("button", { type: "button", data: { kind: option.kind ?? "" }, onclick: () => answer(option) }, option.name),
    );
    const element = el("div.approval", {}, el("p.ask", {}, data.title), el("div.answers", {}, ...buttons), error);
    this.#approvals.set(data.approval_id, { element, options: data.options });
    this.#body.append(element);
  }

  #resolve({ approval_id, option_id, resolved_by }) {
    const approval = this.#approvals.get(approval_id);
    if (!approval) return;
    this.#approvals.delete(approval_id);
    const chosen = approval.options.find((option) => option.option_id === option_id)?.name;
    const by = who(resolved_by) ? ` by ${who(resolved_by)}` : "";
    const words = chosen ? `Answered “${chosen}”${by}` : "Not answered";
    approval.element.classList.add("resolved");
    approval.element.lastChild.remove();
    approval.element.lastChild.replaceWith(el("p.hint", {}, words));
    if (this.state === "approval" && !this.#approvals.size) this.#enter("running");
  }

  #end(data, at) {
    this.#enter("ended");
    for (const id of [...this.#approvals.keys()]) this.#resolve({ approval_id: id });
    for (const parts of this.#messages.values()) for (const part of parts) part.classList.remove("streaming");
    this.element.dataset.outcome = data.outcome;
    const took = this.#startedAt ? ` · ${seconds(Date.parse(at) - this.#startedAt)}` : "";
    this.#footer.replaceChildren(el("span", {}, outcomeWords(data), took));
  }
}

const HANDLERS = Turn.handlers;

function toolElement(data) {
  const status = data.status ?? "pending";
  const words = status.replaceAll("_", " ");
  const summary = [
    el("span.tool-dot", { data: { status: SETTLED.has(status) ? status : "running" }, ariaHidden: "true" }),
    el("span.tool-title", {}, data.title || data.tool_id),
    el("span.tool-status", {}, words),
  ];
  return fold("details.tool", summary, () => toolDetails(data));
}

function toolDetails({ tool_id, title, status, content, ...rest }) {
  const text = textOf(content ?? []);
  return el("div", {}, text ? el("pre.json", {}, text) : "", json({ tool_id, ...rest }));
}
