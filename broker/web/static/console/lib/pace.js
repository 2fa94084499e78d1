/** How a turn's text came: piece by piece, how fast, and where it stopped. */

import { textOf } from "../../shared/words.js";

/**
 * One piece of text as the agent sent it, with the silence before it in seconds. A silence in which a person was
 * asked is the person's: `asked` says so.
 * @typedef {{seq: number, at: number, text: string, messageId: string, thought: boolean, gap: number,
 *   asked: boolean}} Piece
 */

const PIECES = new Set(["message.delta", "thought.delta"]);
const KEPT = 20_000; // pieces; what came before is counted, not kept

/** The pace of one turn, made from its records in the order in which they were received. */
export class Pace {
  /** @type {Piece[]} */
  pieces = [];
  count = 0;
  characters = 0;
  askedAt = null; // when the question came, in milliseconds
  startedAt = null; // when the agent was told
  firstAt = null; // when its first piece came
  lastAt = null;
  outcome = null; // the data of `turn.ended`
  /** @type {{seq: number, after: number}[]} records that came after one with a higher number */
  disorder = [];
  /** @type {[number, number][]} numbers of the agent's own frames that never came */
  missing = [];
  seqs = [];
  #perSecond = new Map();
  #open = new Set();
  #wasAsked = false;

  /** Take one record; returns the piece that it brought, or null. */
  take(record) {
    const at = Date.parse(record.at);
    const newest = this.seqs.at(-1);
    if (newest !== undefined && record.seq <= newest) this.disorder.push({ seq: record.seq, after: newest });
    this.seqs.push(record.seq);
    if (this.seqs.length > KEPT) this.seqs.shift();
    const piece = PIECES.has(record.event) ? this.#piece(record, at) : null;
    this.#note(record, at);
    return piece;
  }

  /** The time from when the agent was told until its first piece, in seconds; null before. */
  get firstToken() {
    return this.firstAt === null || this.startedAt === null ? null : (this.firstAt - this.startedAt) / 1000;
  }

  /** The pieces that came after a silence of at least so many seconds. */
  gaps(threshold) {
    return this.pieces.filter((piece) => piece.gap >= threshold);
  }

  /** The pieces of each second since the first one, those in between with 0; the newest ten minutes. */
  get perSecond() {
    if (this.firstAt === null) return [];
    const length = Math.floor((this.lastAt - this.firstAt) / 1000) + 1;
    const from = Math.max(0, length - 600);
    return Array.from({ length: length - from }, (_, i) => this.#perSecond.get(from + i) ?? 0);
  }

  /** Pieces per second from the first to the last one; null where there is no time between them. */
  get rate() {
    const took = this.lastAt - this.firstAt;
    return took > 0 ? ((this.count - 1) * 1000) / took : null;
  }

  #piece({ seq, event, data }, at) {
    const before = this.lastAt ?? this.startedAt ?? at;
    const piece = {
      seq,
      at,
      text: textOf(data.text),
      messageId: data.message_id,
      thought: event === "thought.delta",
      gap: Math.max(at - before, 0) / 1000,
      asked: this.#wasAsked,
    };
    this.#wasAsked = false;
    this.firstAt ??= at;
    this.lastAt = at;
    this.count += 1;
    this.characters += piece.text.length;
    const second = Math.floor((at - this.firstAt) / 1000);
    this.#perSecond.set(second, (this.#perSecond.get(second) ?? 0) + 1);
    this.pieces.push(piece);
    if (this.pieces.length > KEPT) this.pieces.shift();
    return piece;
  }

  #note({ event, data }, at) {
    if (event === "user.message") this.askedAt = at;
    if (event === "turn.started") this.startedAt = at;
    if (event === "turn.ended") this.outcome = data;
    if (event === "approval.requested") this.#open.add(data.approval_id);
    if (event === "approval.resolved") this.#open.delete(data.approval_id);
    if (event.startsWith("approval.") || this.#open.size) this.#wasAsked = true;
    if (event === "debug" && Array.isArray(data.missing)) this.missing.push(data.missing);
  }
}

/** Limits of the bars into which gaps are sorted, in seconds; the last bar has what is longer. */
export const GAP_BOUNDS = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30];

/** How many gaps fall under each limit. */
export function gapCounts(pieces) {
  const counts = new Array(GAP_BOUNDS.length + 1).fill(0);
  for (const { gap } of pieces.slice(1)) counts[bar(gap)] += 1;
  return counts;
}

function bar(gap) {
  const found = GAP_BOUNDS.findIndex((bound) => gap <= bound);
  return found === -1 ? GAP_BOUNDS.length : found;
}

/** The numbers that are in neither list, between the first and the last of one's own, as ranges. */
export function holes(own, others) {
  const known = new Set([...own, ...others]);
  const found = [];
  for (let seq = Math.min(...own); seq < Math.max(...own); seq += 1) {
    if (known.has(seq)) continue;
    if (found.at(-1)?.[1] === seq - 1) found.at(-1)[1] = seq;
    else found.push([seq, seq]);
  }
  return found;
}
