/** An agent's question, as a card: what it is about, what can be answered, and what became of it. */

import { el, fold, json, keepFocus, list } from "../shared/dom.js";
import { resolvedWords, textOf, timeWords } from "../shared/words.js";

/**
 * One question, from its `approval.requested` or from what `session.attach` says of it.
 *
 * `answer(approvalId, optionId)` is a promise that is refused with a BrokerError.
 */
export class Approval {
  #options;
  #answer;
  #choices;
  #error = el("p.refusal", { role: "alert" });

  constructor(data, answer) {
    this.id = data.approval_id;
    this.isOpen = true;
    this.title = String(data.title ?? "The agent asks for permission");
    this.#options = list(data.options).filter((option) => option.option_id !== undefined);
    this.#answer = answer;
    this.#choices = el("div.answers", {}, ...this.#options.map((option) => this.#button(option)));
    if (!this.#options.length) this.#choices.append(el("p.hint", {}, "It offers nothing to choose from."));
    this.element = el(
      "section.approval",
      { tabIndex: -1, ariaLabel: `Question: ${this.title}`, data: { approval: this.id } },
      el("p.ask", {}, this.title),
      ...subject(data.tool),
      this.#choices,
      ...expiry(data.expires_at),
      this.#error,
    );
  }

  /** Show what became of it; `by` is who answered, such as ` by ann`. */
  resolve(data, by) {
    this.isOpen = false;
    const name = this.#options.find((option) => option.option_id === data.option_id)?.name;
    this.element.classList.add("resolved");
    this.element.querySelector(".expiry")?.remove();
    const words = el("p.hint.answered", {}, resolvedWords(data, name, by));
    keepFocus(this.element, this.element, () => this.#choices.replaceWith(words));
  }

  #button(option) {
    const onclick = () => this.#choose(option.option_id);
    const kind = String(option.kind ?? "");
    return el("button", { type: "button", data: { kind }, onclick }, String(option.name ?? option.option_id));
  }

  /** The buttons stay until the log says that it was answered; a second press asks again and is told so. */
  async #choose(optionId) {
    this.#error.textContent = "";
    await this.#answer(this.id, optionId).catch((error) => (this.#error.textContent = error.words));
  }
}

function subject(tool) {
  if (!tool || typeof tool !== "object") return [];
  const { title, content, ...rest } = tool;
  const text = textOf(content ?? []);
  return [
    fold("details.subject", ["What it is about"], () => el("div", {}, text && el("pre.json", {}, text), json(rest))),
  ];
}

function expiry(at) {
  return at ? [el("p.hint.expiry", {}, "Open until ", el("time", { dateTime: at }, timeWords(at)))] : [];
}
