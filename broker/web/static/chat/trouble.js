/** The strip that says why there is no connection, when it is tried again, and what becomes of what is written. */

import { countdown, el } from "../shared/dom.js";
import { capital, closeWords } from "../shared/words.js";

/** Shows the trouble of one connection, until `signal` aborts. */
export class Trouble {
  #words = el("p.grow", { role: "status" });
  #when = el("span", { ariaHidden: "true" }); // a count that is read out each second helps nobody
  #count = new AbortController();

  constructor(broker, signal) {
    const again = el("button", { type: "button", onclick: () => broker.reconnectNow() }, "Connect now");
    this.element = el("div.trouble", { hidden: true }, this.#words, this.#when, again);
    broker.on("state", (state) => this.#show(state), { signal });
    signal.addEventListener("abort", () => this.#count.abort());
  }

  #show({ state, code, reason, delay, willRetry }) {
    this.#count.abort();
    this.#count = new AbortController();
    if (state === "open") this.element.hidden = true;
    else if (state === "connecting") this.#when.textContent = "Connecting…";
    else if (willRetry && delay === null) this.#tell("There is no network.", true, null);
    else if (code !== undefined) this.#tell(capital(closeWords(code, reason)), willRetry, delay ?? null);
  }

  #tell(why, willRetry, delay) {
    this.#words.textContent = willRetry ? `${why} What you write stays here until the broker is back.` : why;
    this.#when.textContent = "";
    this.element.hidden = false;
    const tell = (left) => (this.#when.textContent = `Next attempt in ${left} s`);
    if (delay !== null) countdown(performance.now() + delay, tell, this.#count.signal);
  }
}
