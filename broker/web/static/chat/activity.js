/** What an agent did too late or outside of any turn: kept apart, folded, and never part of an answer. */

import { el, json } from "../shared/dom.js";

const SHOWN = 100; // reports shown of one fold; they are all among the records

/** A fold that gathers `activity` records. */
export class Activity {
  #title;
  #count = 0;
  #summary = el("summary");
  #content = el("div");
  #text = null;

  /** @param {string} title what the reports have in common */
  constructor(title) {
    this.#title = title;
    this.element = el("details.activity", {}, this.#summary, this.#content);
  }

  /** Take the data of one more record. */
  add({ late_of, kind, text, ...rest }) {
    this.#summary.textContent = `${this.#title} · ${++this.#count}`;
    if (this.#count > SHOWN) return;
    if (typeof text === "string") this.#say(text);
    else this.#show({ kind, ...rest });
  }

  #say(text) {
    if (!this.#text) {
      this.#text = document.createTextNode("");
      this.#content.append(el("p", {}, this.#text));
    }
    this.#text.appendData(text);
  }

  #show(report) {
    this.#text = null;
    this.#content.append(json(report));
  }
}
