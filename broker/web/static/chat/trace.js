/** Where a turn went: the steps that the broker remembers of it. */

import { el } from "../shared/dom.js";
import { clockWords, sentence } from "../shared/words.js";

/** A dialog that shows one trace at a time. */
export class Trace {
  #body = el("div.stack");

  constructor() {
    const close = el("button", { type: "button", onclick: () => this.element.close() }, "Close");
    const title = "Where it went";
    this.element = el("dialog.trace", { ariaLabel: title }, el("h2", {}, title), this.#body, el("menu", {}, close));
  }

  /** Show a trace once it is there; `asked` is the promise of it. */
  async show(asked) {
    this.#body.replaceChildren(el("p.hint", {}, "Looking it up…"));
    this.element.showModal();
    this.#body.replaceChildren(...(await asked.then(found, refused)));
  }
}

function refused(error) {
  return [el("p.refusal", { role: "alert" }, error.words)];
}

function found({ id, steps, ended, stopped }) {
  const { where, what, reason } = stopped ?? steps.at(-1) ?? {};
  const why = reason ? `: ${sentence(reason)}` : ".";
  const last = where ? ` The last step was “${what}” at ${where}${why}` : "";
  const head = el("tr", {}, ...["Time", "Where", "What", "Reason"].map((name) => el("th", { scope: "col" }, name)));
  const table = el("table", {}, el("thead", {}, head), el("tbody", {}, ...steps.map(row)));
  return [
    el("p", {}, ended ? `It has ended${why}` : `It is under way.${last}`),
    el("div.steps", { tabIndex: 0, role: "region", ariaLabel: "Steps" }, table),
    el("p.facts", {}, id),
  ];
}

function row({ at, where, what, reason }) {
  const time = el("time", { dateTime: new Date(at).toISOString() }, clockWords(at));
  return el("tr", {}, ...[time, where, what, reason ?? ""].map((cell) => el("td", {}, cell)));
}
