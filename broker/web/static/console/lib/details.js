/** What the panels about sessions, rooms and turns have in common: links, facts, buttons, what states are called. */

import { el } from "../../shared/dom.js";
import { outcomeWords, shortId } from "../../shared/words.js";

/** A link to a panel, with what is to be shown in it. */
export function link(context, panel, params, text, props = {}) {
  return el("a", { href: context.address(panel, params), ...props }, text);
}

/** Names and values; those whose value is empty are left out. */
export function pairs(named) {
  const shown = named.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el("dl.pairs", {}, ...shown.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

/** A select of `[value, text]` each. */
export function choices(label, options, onchange) {
  const select = el("select", { ariaLabel: label }, ...options.map(([value, text]) => el("option", { value }, text)));
  select.addEventListener("change", () => onchange(select.value));
  return select;
}

/** A button that does something which may be refused; the refusal is shown beside it. */
export function action(text, run, { classes = "button.quiet", ...props } = {}) {
  const error = el("span.refusal", { role: "alert" });
  const button = el(classes, { type: "button", ...props }, text);
  let isBusy = false; // rather than disabled, with which it would lose the focus
  button.addEventListener("click", async () => {
    if (isBusy) return;
    isBusy = true;
    error.textContent = "";
    await run().catch((failure) => (error.textContent = wordsOf(failure)));
    isBusy = false;
  });
  return el("span.action", {}, button, error);
}

/** What went wrong, for a person. */
export function wordsOf(error) {
  return error.words ?? error.message ?? String(error);
}

const STATES = {
  queued: "Waiting",
  dispatching: "Starting",
  running: "Running",
  awaiting_approval: "Waiting for an answer",
  cancelling: "Being stopped",
};

/** What the state of a turn is called; `data` is that of its `turn.ended`, once there is one. */
export function stateWords(state, data = null) {
  return data ? outcomeWords(data) : (STATES[state] ?? state);
}

/** What the colour of a stretch of a turn follows: its state, or how it ended. */
export function toneOf(state, outcome) {
  return state === "ended" ? (outcome?.outcome ?? "ended") : state;
}

/** An id as it is shown where there is little room: whole if it is short. */
export function briefId(id) {
  return id.length > 16 ? shortId(id) : id;
}

/** Calls `run` once for many calls that come at about the same time, and never after `signal`. */
export function soon(run, signal, ms = 150) {
  let timer = 0;
  signal.addEventListener("abort", () => clearTimeout(timer));
  return () => {
    if (signal.aborted) return;
    clearTimeout(timer);
    timer = setTimeout(run, ms);
  };
}

/** Calls `draw` in the next picture that the browser shows, once. */
export function inNextFrame(draw, signal) {
  let due = false;
  return () => {
    if (due || signal.aborted) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      if (!signal.aborted) draw();
    });
  };
}
