/** How long things take: a histogram for each, with what half, 95 and 99 of a hundred took at most. */

import { el } from "../../shared/dom.js";
import { bucketWords, Histogram } from "../charts.js";
import { count, percent, took } from "../format.js";
import { card } from "../parts.js";

export const title = "Latency";

const EVERY = 5_000;

/** What the cards are called; what is measured there is said below. */
const NAMES = {
  delivery: "Delivery",
  first_token: "First token",
  turn: "Turn",
  commit: "Commit",
  request: "Answer",
  loop_lag: "Loop lag",
};

/** Show it. */
export function show(root, context) {
  const cards = new Map();
  const place = el("div.cards.wide");
  root.append(
    el(
      "p.hint",
      {},
      "Since the broker's start. Each bar is a bucket of the metrics, so a step to the right is about twice as long.",
    ),
    place,
  );
  context.every(EVERY, async () => {
    const { histograms } = await context.api.get("latency");
    for (const seen of histograms) {
      if (!cards.has(seen.name)) {
        cards.set(seen.name, new Latency(seen));
        place.append(cards.get(seen.name).element);
      }
      cards.get(seen.name).update(seen);
    }
  });
}

/** One histogram, its figures, and the same as a table. */
class Latency {
  #picture;
  #facts = el("p.facts-line");
  #none = el("p.empty", {}, "Nothing was observed yet.");
  #rows = el("tbody");
  #table;

  constructor({ name: id, title: about }) {
    const name = NAMES[id] ?? about;
    this.#picture = new Histogram({ label: name, format: took });
    const head = el(
      "tr",
      {},
      ...["Took", "How many", "Share"].map((words, index) => el(index ? "th.numeric" : "th", { scope: "col" }, words)),
    );
    this.#table = el(
      "details",
      {},
      el("summary", {}, "As a table"),
      el("table", {}, el("thead", {}, head), this.#rows),
    );
    this.element = card(
      name,
      el("p.hint", {}, `${about}.`),
      this.#facts,
      this.#none,
      this.#picture.element,
      this.#table,
    );
  }

  update({ bounds, counts, count: total, sum, p50, p95, p99 }) {
    const facts = {
      seen: count(total),
      mean: took(total ? sum / total : null),
      p50: took(p50),
      p95: took(p95),
      p99: took(p99),
    };
    this.#facts.replaceChildren(
      ...Object.entries(facts).map(([name, value]) => el("span", {}, `${name} `, el("strong", {}, value))),
    );
    this.#none.hidden = total > 0;
    this.#picture.element.hidden = this.#table.hidden = total === 0;
    this.#picture.update({
      bounds,
      counts,
      marks: [
        ["p50", p50],
        ["p95", p95],
        ["p99", p99],
      ],
    });
    const cells = (number, index) => [
      bucketWords(bounds, index, took),
      count(number),
      percent(total ? number / total : 0),
    ];
    this.#rows.replaceChildren(...counts.map((number, index) => row(cells(number, index))));
  }
}

function row(cells) {
  return el("tr", {}, ...cells.map((words, index) => el(index ? "td.numeric" : "td", {}, words)));
}
