/** One session as an operator sees it: what it does, what it asks, what it keeps, and all of its records. */

import { el, fold, json, list } from "../../shared/dom.js";
import { sessionName, shortId, textOf, timeWords } from "../../shared/words.js";
import { badge, card, copyable, refill } from "../parts.js";
import { follow } from "./follow.js";
import { action, inNextFrame, link, pairs, soon, stateWords, wordsOf } from "./details.js";
import { brief, Timeline } from "./timeline.js";
import { TurnTable } from "./turn_table.js";
import { TurnLines } from "./turns.js";
import { Variables } from "./variables.js";

const NEWS = /^(turn\.(?!stalled)|approval\.|session\.|variables\.|user\.message)/; // after these it stands elsewhere

/** Shows a session until its panel is left. */
export class SessionView {
  #context;
  #id;
  #path;
  #lines = new TurnLines();
  #head = el("section.card.stretched", { ariaLabel: "Session" });
  #asks = el("div.stack");
  #queue = el("div.stack");
  #waits = card("Queue", this.#queue);
  #error = el("p.refusal", { role: "alert" });
  #turns;
  #timeline;
  #variables;
  #view = null; // what `GET sessions/{id}` says
  #refresh;
  #refreshVariables;
  #drawTurns;

  constructor(context, id) {
    this.#context = context;
    this.#id = id;
    this.#path = `sessions/${encodeURIComponent(id)}`;
    const { api, signal } = context;
    this.#turns = new TurnTable(context, id, context.canWrite ? (turn) => this.#stop(turn) : null);
    this.#timeline = new Timeline(context, (before) =>
      api.get(`${this.#path}/records`, { before_seq: before, limit: 500 }),
    );
    this.#variables = new Variables((before) => api.get(`${this.#path}/variables`, { before_seq: before, limit: 50 }));
    this.#refresh = soon(() => this.#try(() => this.#load()), signal);
    this.#refreshVariables = soon(() => this.#try(() => this.#variables.refresh()), signal);
    this.#drawTurns = inNextFrame(() => this.#turns.update(this.#lines.all), signal);
    this.element = this.#build();
  }

  /** Begin; refused if there is no such session, or it is not for these eyes. */
  async start() {
    await this.#load();
    await this.#variables.refresh();
    const { broker, signal } = this.#context;
    const again = () => {
      this.#refresh();
      this.#refreshVariables();
    };
    broker.on("welcome", again, { signal }); // it was gone for a while
    await follow(this.#context, this.#id, {
      records: (records, before) => this.#take(records, before),
      reset: () => this.#forget(),
    });
  }

  #build() {
    const back = link(this.#context, "sessions", {}, "← All sessions");
    return el(
      "div.stack",
      {},
      el("p", {}, back),
      this.#head,
      this.#error,
      this.#asks,
      card("Turns", this.#turns.element),
      this.#waits,
      card("Variables", this.#variables.element),
      card("Records", this.#timeline.element),
    );
  }

  #take(records, before) {
    for (const record of records) this.#lines.take(record);
    this.#timeline.add(records, before);
    this.#drawTurns();
    if (records.some(({ event }) => NEWS.test(event))) this.#refresh();
    if (records.some(({ event }) => event === "variables.changed")) this.#refreshVariables();
  }

  #forget() {
    this.#lines = new TurnLines();
    this.#timeline.clear();
    this.#variables.clear();
    this.#refresh();
    this.#refreshVariables();
  }

  async #try(job) {
    this.#error.textContent = "";
    await job().catch((error) => (this.#error.textContent = wordsOf(error)));
  }

  async #load() {
    this.#view = await this.#context.api.get(this.#path);
    this.#drawHead();
    this.#drawAsks();
    this.#drawQueue();
  }

  #drawHead() {
    const view = this.#view;
    const tone = view.state === "closed" ? "quiet" : view.approvals.length ? "warn" : "good";
    const doing = view.turn ? stateWords(view.turn.state) : view.state === "closed" ? "Closed" : "Idle";
    const members = Object.entries(view.members)
      .map(([user, role]) => `${user} (${role})`)
      .join(", ");
    const chat = el("a", { href: `chat#${new URLSearchParams({ session: this.#id })}` }, "Open in the chat");
    refill(
      this.#head,
      el("div.session-head", {}, el("h3.name", {}, sessionName(view)), badge(doing, tone), chat),
      pairs([
        ["Id", copyable(view.session_id)],
        ["Agent", view.agent],
        ["Owner", view.owner ?? "anonymous"],
        ["Shared with", members],
        ["Directory", view.workspace_dir],
        ["Made", timeWords(view.created_at)],
        ["Last active", timeWords(view.updated_at)],
        ["Records", `№ ${view.floor} to ${view.head}`],
      ]),
    );
  }

  // -- questions -------------------------------------------------------------------------------------

  /** Questions that are there already stay as they are: somebody may be about to answer. */
  #drawAsks() {
    const open = new Map(this.#view.approvals.map((approval) => [approval.approval_id, approval]));
    for (const shown of [...this.#asks.children]) if (!open.delete(shown.dataset.approval)) this.#removeAsk(shown);
    for (const approval of open.values()) this.#asks.append(this.#ask(approval));
  }

  #removeAsk(shown) {
    const hadFocus = shown.contains(document.activeElement);
    shown.remove();
    if (hadFocus) document.getElementById("title")?.focus({ preventScroll: true });
    this.#context.announce("The question is no longer open.");
  }

  #ask({ approval_id, title, options, tool, expires_at }) {
    const buttons = list(options).map((option) =>
      action(String(option.name ?? option.option_id), () => this.#answer(approval_id, option.option_id), {
        classes: "button",
      }),
    );
    const answers = this.#mayAnswer
      ? buttons
      : [el("p.hint", {}, "The session's members answer it; you may only look.")];
    return el(
      "section.card.question",
      { ariaLabel: `Question: ${title}`, data: { approval: approval_id } },
      el("h3", {}, "The agent asks"),
      el("p", {}, String(title)),
      el("div.answers", {}, ...answers),
      ...(tool ? [fold("details", ["What it is about"], () => json(tool))] : []),
      ...(expires_at ? [el("p.hint", {}, `Open until ${timeWords(expires_at)}`)] : []),
    );
  }

  get #mayAnswer() {
    const { canWrite, me } = this.#context;
    return canWrite || this.#view.owner === me.user || this.#view.members[me.user] === "member";
  }

  async #answer(approvalId, optionId) {
    await this.#context.broker.session(this.#id).answer(approvalId, optionId);
    this.#context.announce("Answered.");
  }

  // -- turns -----------------------------------------------------------------------------------------

  #drawQueue() {
    const said = new Map(this.#lines.all.map(({ id, content }) => [id, content]));
    const rows = this.#view.queue.map((turn) => {
      const words = brief(said.get(turn.turn_id) || textOf(turn.content) || "…");
      const line = el(
        "li",
        {},
        el("span.said", {}, words),
        el("span.hint", {}, ` ${shortId(turn.turn_id)}, from ${turn.user ?? "anonymous"} `),
      );
      if (this.#context.canWrite)
        line.append(action("Stop", () => this.#stop(turn.turn_id), { classes: "button.stop.small" }));
      return line;
    });
    this.#waits.hidden = !rows.length;
    refill(this.#queue, el("ol.queue", {}, ...rows));
  }

  async #stop(turnId) {
    await this.#context.broker.request("turn.cancel", { session_id: this.#id, turn_id: turnId });
    this.#context.announce("The turn is being stopped.");
  }
}
