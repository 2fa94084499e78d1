/** How often something took how long, as a picture. */

import { el } from "../shared/dom.js";
import { set, short, svg } from "./svg.js";

/**
 * A histogram with a bar for each bucket, and marks such as percentiles over it. Buckets are of one width each, which
 * makes the usual bounds a logarithmic scale.
 * @param {{label: string, format: (seconds: number) => string}} options
 */
export class Histogram {
  #options;
  #data = { bounds: [], counts: [], marks: [] };
  #picture = svg("svg", { class: "histogram", role: "img" });

  constructor(options) {
    this.#options = options;
    this.element = el("div.chart", {}, this.#picture);
    new ResizeObserver(() => this.#draw()).observe(this.element);
  }

  /**
   * Draw anew.
   * @param {{bounds: number[], counts: number[], marks: [string, number|null][]}} data upper bounds, one count more
   *   than those for what was longer, and marks with their names
   */
  update(data) {
    this.#data = data;
    this.#draw();
  }

  #draw() {
    const width = this.element.clientWidth || 600;
    const [height, top, bottom] = [170, 34, 20];
    const { bounds, counts, marks } = this.#data;
    const step = width / Math.max(1, counts.length);
    const most = Math.max(1, ...counts);
    const floor = height - bottom;
    const bars = counts.map((number, index) => {
      const tall = number ? Math.max(2, (number / most) * (floor - top)) : 0;
      const words = `${this.#bucket(index)}: ${number.toLocaleString("en")}`;
      const bar = {
        class: "bar-mark",
        x: index * step + 1,
        y: floor - tall,
        width: Math.max(1, step - 2),
        height: tall,
        rx: 2,
      };
      return svg("rect", bar, svg("title", {}, words));
    });
    const every = Math.ceil(46 / step);
    const ticks = bounds.flatMap((bound, index) =>
      index % every
        ? []
        : [
            svg(
              "text",
              { class: "tick", x: (index + 1) * step, y: height - 5, "text-anchor": "middle" },
              this.#options.format(bound),
            ),
          ],
    );
    set(this.#picture, { width, height, viewBox: `0 0 ${width} ${height}`, "aria-label": this.#summary(marks) });
    const axis = svg("path", { class: "axis", d: `M0 ${floor + 0.5}H${width}` });
    this.#picture.replaceChildren(axis, ...bars, ...ticks, ...this.#marks(marks, step, floor));
  }

  #marks(marks, step, floor) {
    const width = step * this.#data.counts.length;
    return marks
      .filter(([, value]) => value !== null)
      .flatMap(([name, value], index) => {
        const x = this.#place(value) * step;
        const isRight = x > width - 90;
        const text = {
          class: "mark-name",
          x: isRight ? x - 4 : x + 4,
          y: 10 + index * 11,
          "text-anchor": isRight ? "end" : "start",
        };
        return [
          svg("path", { class: `mark-line line-${index}`, d: `M${short(x)} ${2 + index * 11}V${floor}` }),
          svg("text", text, `${name} ${this.#options.format(value)}`),
        ];
      });
  }

  /** Where a value stands, in buckets from the left. */
  #place(value) {
    const { bounds } = this.#data;
    const index = bounds.findIndex((bound) => value <= bound);
    if (index < 0) return bounds.length;
    const from = index ? bounds[index - 1] : 0;
    return index + (value - from) / (bounds[index] - from);
  }

  #bucket(index) {
    return bucketWords(this.#data.bounds, index, this.#options.format);
  }

  #summary(marks) {
    const total = this.#data.counts.reduce((sum, number) => sum + number, 0);
    const known = marks
      .filter(([, value]) => value !== null)
      .map(([name, value]) => `${name} ${this.#options.format(value)}`);
    const shares = known.length ? `; ${known.join(", ")}` : "";
    return `${this.#options.label}: ${total.toLocaleString("en")} observed${shares}`;
  }
}

/** What falls into a bucket, such as `up to 25 ms` or `longer than 2.5 s`. */
export function bucketWords(bounds, index, format) {
  return index < bounds.length ? `up to ${format(bounds[index])}` : `longer than ${format(bounds.at(-1))}`;
}
