/** Pictures of figures, drawn by hand and updated in place: a line over time; the histogram is beside this file. */

import { el } from "../shared/dom.js";
import { took } from "./format.js";
import { set, short, svg } from "./svg.js";

export { bucketWords, Histogram } from "./histogram.js";

const WIDTH = 300; // units of the picture, not pixels: it is stretched to the space there is
const HEIGHT = 56;
const PAD = 3;
const ROOM = 1.15; // above the highest point
const FEWEST = 12; // points that the whole width stands for; fewer stand at its right

/**
 * A line, or a few, over time; a pointer or the arrow keys read it off.
 * @param {{label: string, names: string[], format: (value: number|null) => string, floor?: number}} options
 *   `names` of the lines, the most important first; `floor` is the least that the upper end of the scale stands for
 */
export class Sparkline {
  #options;
  #at = [];
  #series = [];
  #cursor = null; // index of the point that is read off
  #area = svg("path", { class: "area" });
  #lines;
  #mark = svg("path", { class: "mark" });
  #dot = svg("path", { class: "dot-mark" });
  #picture;
  #readout = el("output.readout");
  #legend = el("p.legend");

  constructor(options) {
    this.#options = options;
    this.#lines = options.names.map((_, index) => svg("path", { class: `line line-${index}` }));
    const shape = {
      class: "spark",
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      role: "img",
      tabindex: 0,
    };
    this.#picture = svg("svg", shape, this.#area, ...[...this.#lines].reverse(), this.#mark, this.#dot);
    this.element = el("div.chart", {}, this.#picture, el("div.under", {}, this.#legend, this.#readout));
    this.#listen();
  }

  /**
   * Draw anew.
   * @param {number[]} at when each point was, ms since the epoch
   * @param {(number|null)[][]} series the points of each line; null where nothing was seen
   */
  update(at, series) {
    this.#at = at;
    this.#series = series;
    const top = Math.max(this.#options.floor ?? 0, ...series.flat().map((value) => value ?? 0)) * ROOM || 1;
    const place = (value, index) => [this.#x(index), HEIGHT - PAD - (value / top) * (HEIGHT - 2 * PAD)];
    this.#lines.forEach((line, index) => set(line, { d: path(series[index], place) }));
    set(this.#area, { d: areas(series[0], place) });
    set(this.#picture, { "aria-label": this.#summary() });
    this.#explain();
    if (this.#cursor !== null) this.#read(Math.min(this.#cursor, at.length - 1), place);
  }

  #x(index) {
    return WIDTH - ((this.#at.length - 1 - index) / (Math.max(FEWEST, this.#at.length) - 1)) * WIDTH;
  }

  /** Which point is at a share of the width. */
  #index(share) {
    return Math.round(this.#at.length - 1 - (1 - share) * (Math.max(FEWEST, this.#at.length) - 1));
  }

  /** How long the line is, in words after this one; nothing for a single point. */
  #reach(word) {
    const [first, second] = this.#at;
    const seconds = (this.#at.at(-1) + second - 2 * first) / 1000; // one step more than from the first to the last
    return second === undefined ? "" : ` ${word} ${seconds < 60 ? took(seconds) : `${Math.round(seconds / 60)} min`}`;
  }

  /** What the lines are, and what the highest point stands for. */
  #explain() {
    const { names, format } = this.#options;
    const seen = this.#series.flat().filter((value) => value !== null);
    const lines = names.length > 1 ? names.map((name, index) => el(`span.key.key-${index}`, {}, name)) : [];
    const highest = seen.length ? `up to ${format(Math.max(...seen))}${this.#reach("in")}` : "nothing seen yet";
    this.#legend.replaceChildren(...lines, highest);
  }

  #summary() {
    const seen = this.#series[0].filter((value) => value !== null);
    const { label, format, names } = this.#options;
    if (!seen.length) return `${label}: nothing was seen yet`;
    const first = names.length > 1 ? `, ${names[0]}` : "";
    const extremes = `lowest ${format(Math.min(...seen))}, highest ${format(Math.max(...seen))}${this.#reach("of")}`;
    return `${label}${first}: now ${format(this.#series[0].at(-1))}; ${extremes}`;
  }

  #listen() {
    const picture = this.#picture;
    picture.addEventListener("pointermove", (event) => {
      const box = picture.getBoundingClientRect();
      this.#show(this.#index((event.clientX - box.left) / box.width));
    });
    picture.addEventListener("pointerleave", () => this.#hide());
    picture.addEventListener("blur", () => this.#hide());
    picture.addEventListener("keydown", (event) => this.#step(event));
  }

  #step(event) {
    const last = this.#at.length - 1;
    const from = this.#cursor ?? last + (event.key === "ArrowLeft");
    const to = { ArrowLeft: from - 1, ArrowRight: from + 1, Home: 0, End: last }[event.key];
    if (event.key === "Escape") this.#hide();
    if (to === undefined) return;
    event.preventDefault();
    this.#show(to);
  }

  #show(index) {
    if (!this.#at.length) return;
    this.#cursor = Math.max(0, Math.min(index, this.#at.length - 1));
    this.update(this.#at, this.#series);
  }

  #hide() {
    this.#cursor = null;
    this.#legend.hidden = false;
    set(this.#mark, { d: null });
    set(this.#dot, { d: null });
    this.#readout.textContent = "";
  }

  #read(index, place) {
    this.#cursor = index;
    this.#legend.hidden = true;
    const { names, format } = this.#options;
    const values = names.map(
      (name, line) => `${names.length > 1 ? `${name} ` : ""}${format(this.#series[line][index] ?? null)}`,
    );
    const first = this.#series[0][index] ?? null;
    const [x, y] = place(first ?? 0, index);
    set(this.#mark, { d: `M${x} 0V${HEIGHT}` });
    set(this.#dot, { d: first === null ? null : `M${x} ${y}h0` });
    this.#readout.textContent = `${new Date(this.#at[index]).toTimeString().slice(0, 8)}  ${values.join(" · ")}`;
  }
}

/** The path of a line with its gaps; a point between two gaps is a dot. */
function path(values, place) {
  return runs(values)
    .map((run) => `M${joined(run, place)}${run.length > 1 ? "" : "h0"}`)
    .join("");
}

/** What is under a line, down to the bottom. */
function areas(values, place) {
  return runs(values)
    .filter((run) => run.length > 1)
    .map((run) => `M${joined(run, place)}V${HEIGHT}H${short(place(...run[0])[0])}Z`)
    .join("");
}

function joined(run, place) {
  return run
    .map((point) =>
      place(...point)
        .map(short)
        .join(" "),
    )
    .join("L");
}

/** The stretches of a series in which something was seen, as [value, index]. */
function runs(values) {
  const found = [];
  values.forEach((value, index) => {
    if (value === null) return;
    if (index && values[index - 1] !== null) found.at(-1).push([value, index]);
    else found.push([[value, index]]);
  });
  return found;
}
