/** The turns of a session: for each a bar of what it did when, its state in words, and where to look further. */

import { el } from "../../shared/dom.js";
import { clockWords, outcomeWords, shortId } from "../../shared/words.js";
import { took } from "../format.js";
import { barsOf, drawStrip, strip } from "./lanes.js";
import { action, choices, link, stateWords } from "./details.js";
import { scaleOf } from "./turns.js";

const SHOWN = 25; // turns, the newest
const SCALES = [
  ["common", "All on one scale"],
  ["own", "Each on its own scale"],
];
const TICK = 500; // ms between two pictures while a turn runs

/** The table; `stop(turnId)` cancels a turn, and is null for those who may not. */
export class TurnTable {
  #context;
  #sessionId;
  #stop;
  #turns = [];
  #rows = new Map(); // id -> {element, picture, words, end}
  #body = el("tbody");
  #empty = el("p.hint", {}, "No turn yet. Say something in the chat, or in the test client.");
  #span = el("p.hint");
  #timer = 0;
  #isOwn;

  constructor(context, sessionId, stop) {
    this.#context = context;
    this.#sessionId = sessionId;
    this.#stop = stop;
    const head = el(
      "tr",
      {},
      ...["Came", "Turn", "What it did when", "State", "Look"].map((name) => el("th", { scope: "col" }, name)),
    );
    const table = el("table.turns", { ariaLabel: "Turns" }, el("thead", {}, head), this.#body);
    this.#isOwn = context.recall("turns.own", false);
    const scale = choices("Scale of the bars", SCALES, (chosen) => this.#rescale(chosen === "own"));
    scale.value = this.#isOwn ? "own" : "common";
    const tools = el("div.row.wrap.under-turns", {}, scale, legend());
    this.element = el("div.stack", {}, this.#empty, el("div.wide", {}, table), tools, this.#span);
    context.signal.addEventListener("abort", () => clearTimeout(this.#timer));
  }

  #rescale(isOwn) {
    this.#isOwn = isOwn;
    this.#context.remember("turns.own", isOwn);
    this.#draw();
  }

  /** Show these turns, oldest first. */
  update(turns) {
    this.#turns = turns.filter(({ spans }) => spans.length).slice(-SHOWN);
    this.#draw();
  }

  #draw() {
    clearTimeout(this.#timer);
    const now = Math.max(Date.now(), ...this.#turns.map(({ spans }) => spans.at(-1).from)); // their clock may be ahead
    const stretch = (turn) => ({ from: turn.from, to: turn.to ?? now });
    const common = scaleOf(this.#turns.map(stretch));
    const scaleFor = (turn) => (this.#isOwn ? scaleOf([stretch(turn)]) : common);
    const known = new Set(this.#turns.map(({ id }) => id));
    for (const [id, row] of this.#rows) if (!known.has(id)) this.#forget(id, row);
    for (const turn of this.#turns) this.#fill(this.#row(turn), turn, scaleFor(turn), now);
    this.#empty.hidden = this.#turns.length > 0;
    this.element.classList.toggle("is-empty", !this.#turns.length);
    this.#span.textContent = this.#words(common);
    if (this.#turns.some(({ outcome }) => !outcome)) this.#timer = setTimeout(() => this.#draw(), TICK);
  }

  #words({ breaks }) {
    if (!this.#turns.length) return "";
    const cut = breaks.length && !this.#isOwn ? " Dashed lines stand for times in which nothing happened." : "";
    return `The newest ${SHOWN} turns are shown.${cut}`;
  }

  #forget(id, { element }) {
    element.remove();
    this.#rows.delete(id);
  }

  #row(turn) {
    let row = this.#rows.get(turn.id);
    if (!row) {
      row = this.#make(turn);
      this.#rows.set(turn.id, row);
      const after = this.#turns[this.#turns.indexOf(turn) + 1];
      this.#body.insertBefore(row.element, this.#rows.get(after?.id)?.element ?? null);
    }
    return row;
  }

  #make({ id, from }) {
    const [picture, words, said] = [strip(""), el("td.state"), el("span.said")];
    const params = { session: this.#sessionId, turn: id };
    const look = el(
      "td.look",
      {},
      link(this.#context, "trace", { id }, "Trace", { ariaLabel: `Trace of turn ${shortId(id)}` }),
    );
    look.append(
      " ",
      link(this.#context, "stream", params, "Stream", { ariaLabel: `Token stream of turn ${shortId(id)}` }),
    );
    const end =
      this.#stop &&
      action("Stop", () => this.#stop(id), { classes: "button.stop.small", ariaLabel: `Stop turn ${shortId(id)}` });
    if (end) look.append(" ", end);
    const time = el("time", { dateTime: new Date(from).toISOString() }, clockWords(from));
    const name = el("td", {}, said, el("code.hint", { title: id }, shortId(id)));
    const element = el(
      "tr",
      { data: { turn: id } },
      el("td", {}, time),
      name,
      el("td.picture", {}, picture),
      words,
      look,
    );
    return { element, picture, words, said, end };
  }

  #fill({ element, picture, words, said, end }, turn, scale, now) {
    const state = turn.outcome ? outcomeWords(turn.outcome) : stateWords(turn.state);
    const text = `${state} · ${took(((turn.to ?? now) - turn.from) / 1000)}`;
    if (words.textContent !== text) words.textContent = text;
    if (said.textContent !== turn.content) said.textContent = turn.content;
    element.dataset.state = turn.state;
    element.dataset.outcome = turn.outcome?.outcome ?? "";
    drawStrip(picture, `${phases(turn, now)}`, barsOf(turn, scale, now), scale.breaks);
    if (!end || !turn.outcome) return;
    if (end.contains(document.activeElement)) element.querySelector("a").focus({ preventScroll: true });
    end.hidden = true;
  }
}

/** A turn's way in words, such as `Waiting 20 ms, Running 1.2 s, then Completed`. */
function phases(turn, now) {
  const words = turn.spans.map(({ state, from, to }) => `${stateWords(state)} ${took(((to ?? now) - from) / 1000)}`);
  return `${words.join(", ")}${turn.outcome ? `, then ${outcomeWords(turn.outcome)}` : ""}`;
}

function legend() {
  const tones = [
    ["queued", "waiting"],
    ["dispatching", "starting"],
    ["running", "running"],
    ["awaiting_approval", "waiting for an answer"],
    ["cancelling", "being stopped"],
    ["completed", "completed"],
    ["cancelled", "cancelled"],
    ["failed", "failed, timed out or lost"],
  ];
  return el("ul.tones", { ariaHidden: "true" }, ...tones.map(([tone, words]) => el("li", { data: { tone } }, words)));
}
