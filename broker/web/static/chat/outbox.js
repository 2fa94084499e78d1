/** What was sent and does not stand in the log yet, and what the broker did not accept. */

import { countdown, el, keepFocus } from "../shared/dom.js";
import { textOf } from "../shared/words.js";

/** What each state of a sent message is called. */
const WORDS = {
  waiting: "Waiting for the connection",
  sending: "Sending…",
  accepted: "Accepted",
  refused: "Not accepted",
};
const AGAIN = "Send again";

/** Shows the outbox of one session at a time; `onDiscard(turn)` is told what is not to be sent after all. */
export class Outbox {
  #prompt;
  #onDiscard;
  #counts = new AbortController();
  #due = new WeakMap(); // when what refused a message lets it be sent again

  constructor(prompt, onDiscard) {
    this.#prompt = prompt;
    this.#onDiscard = onDiscard;
    this.element = el("div.turns.outbox");
  }

  /** Show these turns and no others. */
  show(turns) {
    this.#counts.abort();
    this.#counts = new AbortController();
    const articles = turns.map((turn) => this.#article(turn));
    keepFocus(this.element, this.#prompt, () => this.element.replaceChildren(...articles));
  }

  #article(turn) {
    const { state, error, content } = turn;
    const isRefused = state === "refused";
    const words = isRefused && error ? `${WORDS.refused}: ${error.words}` : WORDS[state];
    const label = el("p.author", { role: "status" }, words);
    const choices = isRefused ? [this.#choices(turn)] : [];
    const question = el("div.question", {}, el("p.bubble", {}, textOf(content)), label, ...choices);
    return el("article.turn.unsent", { data: { sent: state } }, question);
  }

  #choices(turn) {
    const again = el(
      "button.quiet",
      { type: "button", onclick: () => again.ariaDisabled !== "true" && turn.retry() },
      AGAIN,
    );
    const drop = el("button.quiet", { type: "button", onclick: () => this.#onDiscard(turn) }, "Discard");
    if (turn.error?.retryAfter) this.#wait(again, turn.error);
    return el("div.answers", {}, again, drop);
  }

  /** Count down to the time from which the broker says that it may take the message. */
  #wait(button, error) {
    if (!this.#due.has(error)) this.#due.set(error, performance.now() + error.retryAfter * 1000);
    const tell = (left) => {
      button.ariaDisabled = String(left > 0);
      button.textContent = left ? `${AGAIN} in ${left} s` : AGAIN;
    };
    countdown(this.#due.get(error), tell, this.#counts.signal);
  }
}
