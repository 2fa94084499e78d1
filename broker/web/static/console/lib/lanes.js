/** Bars of what happened when, one picture for each row of a table, all on the same scale. */

import { set, svg } from "../svg.js";
import { took } from "../format.js";
import { stateWords, toneOf } from "./details.js";

const WIDTH = 1000;
const HEIGHT = 14;
const LEAST = 3; // units that a bar has at least, so that it can be seen

/** The picture of one row; it is stretched to the space there is. */
export function strip(label, bars = [], breaks = []) {
  const picture = svg("svg", {
    class: "strip",
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    preserveAspectRatio: "none",
    role: "img",
  });
  drawStrip(picture, label, bars, breaks);
  return picture;
}

/**
 * Draw a row anew.
 * @param {SVGElement} picture
 * @param {string} label what it shows, in words
 * @param {{from: number, to: number, tone: string, words: string}[]} bars from 0 to 1
 * @param {number[]} breaks where the scale was cut, from 0 to 1
 */
export function drawStrip(picture, label, bars, breaks = []) {
  set(picture, { "aria-label": label });
  const cuts = breaks.map((place) => svg("path", { class: "cut", d: `M${place * WIDTH} 0V${HEIGHT}` }));
  picture.replaceChildren(...cuts, ...bars.map(rectangle));
}

function rectangle({ from, to, tone, words }) {
  const width = Math.max((to - from) * WIDTH, LEAST);
  const x = Math.min(from * WIDTH, WIDTH - width);
  return svg("rect", { class: `tone-${tone}`, x, y: 1, width, height: HEIGHT - 2, rx: 2 }, svg("title", {}, words));
}

/** The bars of one turn: a stretch for each state, and a mark where it ended. */
export function barsOf(turn, scale, now) {
  const bars = turn.spans.map(({ state, from, to }) => {
    const end = to ?? now;
    return {
      from: scale.at(from),
      to: scale.at(end),
      tone: state,
      words: `${stateWords(state)} for ${took((end - from) / 1000)}`,
    };
  });
  if (turn.outcome) {
    const end = scale.at(turn.to);
    bars.push({ from: end, to: end, tone: toneOf("ended", turn.outcome), words: stateWords("ended", turn.outcome) });
  }
  return bars;
}
