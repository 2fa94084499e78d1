/** One turn as its text came: how fast, with which silences, and whether all of it came in order. */

import { el } from "../../shared/dom.js";
import { Histogram, Sparkline } from "../charts.js";
import { count, rate, took } from "../format.js";
import { badge, card, refill } from "../parts.js";
import { follow } from "./follow.js";
import { GAP_BOUNDS, Pace, gapCounts, holes } from "./pace.js";
import { action, inNextFrame, link, pairs, stateWords, wordsOf } from "./details.js";
import { StreamText } from "./stream_text.js";
import { TurnLine } from "./turns.js";

const DELTA = "A delta is what came at once, often a token. The broker joins those of 40 ms.";
const LISTED = 50; // gaps
const PAGES = 10; // of records in which missing numbers are looked for

/** Shows a turn until its panel is left. */
export class StreamView {
  #context;
  #session;
  #id;
  #path;
  #pace = new Pace();
  #line;
  #isWhole = true; // whether the first answer had all records of the turn
  #threshold;
  #text;
  #head = el("div.session-head");
  #facts = el("div");
  #gaps = el("div.stack");
  #order = el("p");
  #chart = new Sparkline({
    label: "Deltas per second",
    names: ["deltas"],
    format: rate,
    floor: 2,
  });
  #histogram = new Histogram({ label: "Silences between deltas", format: took });
  #draw;

  constructor(context, session, id) {
    this.#context = context;
    this.#session = session;
    this.#id = id;
    this.#path = `sessions/${encodeURIComponent(session)}`;
    this.#line = new TurnLine(id);
    this.#threshold = context.recall("stream.threshold", 1);
    this.#text = new StreamText(this.#threshold);
    this.#draw = inNextFrame(() => this.#drawAll(), context.signal);
    this.element = this.#build();
  }

  /** Begin; refused if there is no such turn, or it is not for these eyes. */
  async start() {
    const turn = await this.#context.api.get(
      `${this.#path}/turns/${encodeURIComponent(this.#id)}`,
      {},
      this.#context.signal,
    );
    this.#isWhole = turn.complete !== false;
    this.#take(turn.records);
    if (turn.state === "ended") return this.#check();
    const told = (records) => {
      this.#take(records);
      if (this.#pace.outcome && !this.#missing) this.#check();
    };
    return follow(this.#context, this.#session, { records: told }, turn.records.at(-1)?.seq ?? 0);
  }

  #build() {
    return el(
      "div.stack",
      {},
      el("section.card", { ariaLabel: "Turn" }, this.#head, this.#facts),
      card(
        "Text",
        el("p.hint", {}, "As the agent sent it. A mark stands where it was silent for long."),
        this.#text.element,
      ),
      el(
        "div.pair",
        {},
        el(
          "div.stack",
          {},
          card("Deltas per second", this.#chart.element, el("p.hint", {}, DELTA)),
          card("Order", this.#order),
        ),
        card("Silences", this.#histogram.element, this.#thresholdField(), this.#gaps),
      ),
    );
  }

  #thresholdField() {
    const field = el("input.short", { type: "number", min: "0.01", step: "any", value: String(this.#threshold) });
    field.oninput = () => {
      if (!(field.valueAsNumber > 0)) return;
      this.#threshold = field.valueAsNumber;
      this.#context.remember("stream.threshold", this.#threshold);
      this.#text.threshold = this.#threshold;
      this.#draw();
    };
    return el("label.inline", {}, "Mark silences from ", field, " seconds on");
  }

  #take(records) {
    for (const record of records) {
      if (record.turn_id !== this.#id || this.#pace.outcome) continue;
      this.#line.take(record);
      this.#text.take(record, this.#pace.take(record));
    }
    this.#draw();
  }

  // -- what is drawn ---------------------------------------------------------------------------------

  #drawAll() {
    const pace = this.#pace;
    this.#drawHead();
    this.#drawFacts();
    const perSecond = pace.perSecond;
    this.#chart.update(
      perSecond.map((_, i) => pace.lastAt - (perSecond.length - 1 - i) * 1000),
      [perSecond],
    );
    const gaps = pace.pieces
      .slice(1)
      .map(({ gap }) => gap)
      .sort((one, other) => one - other);
    const marks = [
      ["median", gaps[gaps.length >> 1] ?? null],
      ["longest", gaps.at(-1) ?? null],
    ];
    this.#histogram.update({ bounds: GAP_BOUNDS, counts: gapCounts(pace.pieces), marks });
    this.#drawGaps();
    this.#drawOrder();
  }

  #drawHead() {
    const tone = { completed: "good", failed: "bad", timed_out: "bad", lost: "bad" };
    const { outcome, state } = this.#line;
    const params = { session: this.#session };
    const words = badge(stateWords(state, outcome), outcome ? (tone[outcome.outcome] ?? "quiet") : "warn");
    const links = [
      link(this.#context, "sessions", params, "Session"),
      link(this.#context, "trace", { id: this.#id }, "Trace"),
    ];
    const stop =
      this.#context.canWrite && !outcome ? [action("Stop", () => this.#stop(), { classes: "button.stop.small" })] : [];
    refill(this.#head, words, ...links, ...stop);
  }

  async #stop() {
    await this.#context.broker.request("turn.cancel", { session_id: this.#session, turn_id: this.#id });
    this.#context.announce("The turn is being stopped.");
  }

  #drawFacts() {
    const pace = this.#pace;
    const waited =
      pace.askedAt !== null && pace.startedAt !== null ? took((pace.startedAt - pace.askedAt) / 1000) : null;
    refill(
      this.#facts,
      pairs([
        ["Asked", this.#line.content],
        ["Waited before it began", waited],
        ["First token after", pace.firstToken === null ? "not yet" : took(pace.firstToken)],
        ["Deltas", pace.count ? `${count(pace.count)}, ${count(pace.characters)} characters` : null],
        ["Deltas per second", pace.rate === null ? null : rate(pace.rate)],
        [`Silences from ${this.#threshold} s on`, String(pace.gaps(this.#threshold).length)],
      ]),
    );
  }

  #drawGaps() {
    const gaps = this.#pace.gaps(this.#threshold).slice(-LISTED);
    const rows = gaps.map(({ seq, gap, asked }, i) => {
      const before = i === 0 && seq === this.#pace.pieces[0]?.seq ? "before the first delta" : `before № ${seq}`;
      const words = `${took(gap)} ${before}${asked ? ", while a person was asked" : ""}`;
      return el("li", {}, el("button.quiet", { type: "button", onclick: () => this.#text.reveal(seq) }, words));
    });
    const none = el("p.hint", {}, `No silence of ${this.#threshold} s or more.`);
    refill(this.#gaps, rows.length ? el("ol.gaps", {}, ...rows) : none);
  }

  // -- the order -------------------------------------------------------------------------------------

  #missing = null; // ranges of numbers, once they were looked for

  #drawOrder() {
    const { disorder, missing, seqs } = this.#pace;
    const words = [`Records № ${seqs[0] ?? "–"} to ${seqs.at(-1) ?? "–"}, ${count(seqs.length)} of this turn.`];
    words.push(
      disorder.length
        ? `Out of order: ${disorder.map(({ seq, after }) => `№ ${seq} after ${after}`).join(", ")}.`
        : "None out of order.",
    );
    if (this.#missing) words.push(this.#missing.length ? `Missing: ${ranges(this.#missing)}.` : "None missing.");
    if (!this.#isWhole) words.push("It is longer than an answer holds: this is its beginning.");
    if (missing.length) words.push(`Of the agent's own frames these never came: ${ranges(missing)}.`);
    this.#order.textContent = words.join(" ");
    this.#order.dataset.tone = disorder.length || missing.length || this.#missing?.length ? "bad" : "good";
  }

  /** Numbers between the turn's own are other turns'; look whether they are. */
  async #check() {
    const { seqs } = this.#pace;
    if (!seqs.length) return;
    let before = seqs.at(-1) + 1;
    const between = [];
    try {
      for (let page = 0; page < PAGES && before > seqs[0]; page += 1) {
        const { records, before_seq } = await this.#context.api.get(
          `${this.#path}/records`,
          { before_seq: before, limit: 1000 },
          this.#context.signal,
        );
        between.push(...records.map(({ seq }) => seq));
        before = before_seq ?? 0;
      }
    } catch (error) {
      if (!this.#context.signal.aborted) this.#order.textContent = wordsOf(error);
      return;
    }
    this.#missing = holes(seqs, between).filter(([, to]) => to >= before);
    this.#draw();
  }
}

function ranges(list) {
  return list.map(([from, to]) => (from === to ? `№ ${from}` : `№ ${from} to ${to}`)).join(", ");
}
