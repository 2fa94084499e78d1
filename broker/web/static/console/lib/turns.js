/** What a session's records say of its turns: through which states each went, and when. */

import { textOf } from "../../shared/words.js";

const ASKS = new Set(["user.message", "turn.edited"]);
const LONG = 2000; // characters of what was asked; the records have the rest
const SILENT = new Set(["turn.edited", "turn.stalled", "activity"]); // these tell nothing of the agent being at work

/** One turn, as far as the records that were taken reach. */
export class TurnLine {
  /** @type {{state: string, from: number, to: number|null}[]} the states it was in, times in ms; the last may go on */
  spans = [];
  id;
  content = "";
  state = "queued";
  outcome = null; // the data of its `turn.ended`
  stalls = [];
  #open = new Set();

  constructor(id) {
    this.id = id;
  }

  /** When it came, or the first that is known of it. */
  get from() {
    return this.spans[0]?.from ?? null;
  }

  /** When it ended; null if it goes on. */
  get to() {
    return this.outcome ? this.spans.at(-1).to : null;
  }

  /** When its agent was told, and when the agent took it; null if that is not known. */
  get startedAt() {
    return this.spans.find((span) => span.state !== "queued")?.from ?? null;
  }

  /** Take one record of this turn. */
  take(record) {
    const at = Date.parse(record.at);
    if (ASKS.has(record.event)) this.content = textOf(record.data.content).slice(0, LONG);
    if (record.event === "turn.stalled") this.stalls.push(at);
    if (record.event === "turn.ended") return this.#end(record.data, at);
    const state = this.#next(record);
    if (state && (state !== this.state || !this.spans.length)) this.#enter(state, at);
  }

  #next({ event, data }) {
    if (event === "user.message" || event === "turn.queued") return "queued";
    if (event === "turn.started") return "dispatching";
    if (event === "turn.cancelling") return "cancelling";
    if (event === "approval.requested") this.#open.add(data.approval_id);
    if (event === "approval.resolved") this.#open.delete(data.approval_id);
    if (SILENT.has(event) || this.state === "cancelling") return null;
    return this.#open.size ? "awaiting_approval" : "running";
  }

  #enter(state, at) {
    const last = this.spans.at(-1);
    if (last) last.to = at;
    this.spans.push({ state, from: at, to: null });
    this.state = state;
  }

  #end(data, at) {
    if (!this.spans.length) this.spans.push({ state: "running", from: at, to: at });
    this.spans.at(-1).to = at;
    this.state = "ended";
    this.outcome = data;
  }
}

/** The turns of one session, made from its records in their order; at most `most` of them, the newest. */
export class TurnLines {
  #turns = new Map();
  #most;

  constructor(most = 200) {
    this.#most = most;
  }

  /** The turns, oldest first. */
  get all() {
    return [...this.#turns.values()];
  }

  /** Take one record; returns its turn, or null if it belongs to none. */
  take(record) {
    if (!record.turn_id) return null;
    let turn = this.#turns.get(record.turn_id);
    if (!turn) {
      turn = new TurnLine(record.turn_id);
      this.#turns.set(turn.id, turn);
      if (this.#turns.size > this.#most) this.#turns.delete(this.#turns.keys().next().value);
    }
    turn.take(record);
    return turn;
  }
}

/**
 * A scale from times to 0…1 on which stretches where nothing happened are short.
 * @param {{from: number, to: number}[]} stretches when something happened, in milliseconds
 * @param {number} share of the whole that an empty stretch takes at most
 * @returns {{at: (time: number) => number, breaks: number[]}} the scale, and where stretches were cut short
 */
export function scaleOf(stretches, share = 0.04) {
  const busy = merged(stretches);
  const total = busy.reduce((sum, { from, to }) => sum + to - from, 0) || 1;
  const points = [];
  const cuts = [];
  let place = 0;
  busy.forEach(({ from, to }, i) => {
    const gap = i ? from - busy[i - 1].to : 0;
    const shown = Math.min(gap, total * share);
    if (shown < gap) cuts.push(place + shown / 2);
    place += shown;
    points.push({ from, to, place });
    place += to - from;
  });
  const whole = place || 1;
  return { at: (time) => placeOf(points, time) / whole, breaks: cuts.map((cut) => cut / whole) };
}

function placeOf(points, time) {
  const point = points.findLast(({ from }) => from <= time) ?? points[0];
  if (!point) return 0;
  return point.place + Math.min(Math.max(time - point.from, 0), point.to - point.from);
}

function merged(stretches) {
  const busy = [];
  for (const { from, to } of [...stretches].sort((one, other) => one.from - other.from)) {
    const last = busy.at(-1);
    if (last && from <= last.to) last.to = Math.max(last.to, to);
    else busy.push({ from, to });
  }
  return busy;
}
