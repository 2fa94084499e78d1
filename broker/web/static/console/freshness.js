/** Says how old the figures are when they cannot be had anew, and greys them. */

import { span } from "./format.js";

/** What is polled is well or ill; the page shows the first that is ill. */
export class Freshness {
  #main;
  #words;
  #ill = new Map(); // source -> error
  #last = null; // when something came last
  #timer = 0;
  #runs = new Set();

  /**
   * @param {HTMLElement} main what is greyed, by `data-stale`
   * @param {HTMLElement} words where it is said
   */
  constructor(main, words) {
    this.#main = main;
    this.#words = words;
    words.setAttribute("role", "status");
  }

  /** Forget what was shown: another panel is. */
  clear() {
    this.#ill.clear();
    this.#last = null;
    this.#draw();
  }

  /** Have `run` done when the broker is there again, until `signal` aborts. */
  follow(run, signal) {
    this.#runs.add(run);
    signal.addEventListener("abort", () => this.#runs.delete(run), { once: true });
  }

  /** Fetch everything now: the broker may have gone. */
  look() {
    for (const run of this.#runs) run();
  }

  /** The broker is there again: if anything could not be had, it is fetched now. */
  again() {
    if (this.#ill.size) this.look();
  }

  /** Something came. */
  well(source) {
    this.#last = Date.now();
    if (this.#ill.delete(source)) this.#draw();
  }

  /** Something could not be had. */
  ill(source, error) {
    if (!("words" in error)) console.error(error);
    const before = this.#ill.get(source);
    this.#ill.set(source, error);
    if (this.#ill.size === 1 && before?.words !== error.words) this.#draw(); // else it is said already
  }

  #draw() {
    clearInterval(this.#timer);
    const isStale = this.#ill.size > 0;
    this.#words.hidden = !isStale;
    if (isStale && this.#last) this.#main.dataset.stale = "";
    else delete this.#main.dataset.stale;
    if (!isStale) return this.#words.replaceChildren();
    const [error] = this.#ill.values();
    const age = document.createElement("span");
    age.ariaHidden = "true"; // it is said once, not every second
    this.#words.replaceChildren(error.words ?? "This could not be shown.", age);
    const tick = () => {
      age.textContent = this.#last ? ` What you see is ${span((Date.now() - this.#last) / 1000)} old.` : "";
    };
    tick();
    this.#timer = setInterval(tick, 1000);
  }
}
