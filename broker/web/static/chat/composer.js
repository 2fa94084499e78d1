/** The box to write in, and above it what the running turn does and the button that stops it. */

import { el, keepFocus } from "../shared/dom.js";

const TALLEST = 220; // px to which the box grows with what is written

/** Calls `onSend(text, ifBusy)`, which may be refused by returning false, and `onStop()`. */
export class Composer {
  #onSend;
  #words = el("p.running-text");
  #ifBusy = el(
    "select",
    {},
    el("option", { value: "queue" }, "waits its turn"),
    el("option", { value: "interrupt" }, "interrupts"),
  );
  #stop = el("button.stop", { type: "button" }, "Stop");
  #running = el(
    "div.running",
    { hidden: true },
    el("span.pulse", { ariaHidden: "true" }),
    this.#words,
    el("label.busy", {}, "Next message ", this.#ifBusy),
    this.#stop,
  );

  constructor(onSend, onStop) {
    this.#onSend = onSend;
    this.#stop.onclick = onStop;
    this.prompt = el("textarea", {
      rows: 1,
      placeholder: "Message the agent",
      ariaLabel: "Message",
      enterKeyHint: "send",
    });
    this.prompt.oninput = () => this.#fit();
    this.prompt.onkeydown = (event) => this.#key(event);
    const send = el("button.primary", { type: "submit" }, "Send");
    const keys = [
      el("kbd", {}, "Enter"),
      " sends, ",
      el("kbd", {}, "Shift"),
      " ",
      el("kbd", {}, "Enter"),
      " makes a new line",
    ];
    this.element = el(
      "form.composer",
      {},
      this.#running,
      el("div.prompt", {}, this.prompt, send),
      el("p.hint.keys", {}, ...keys),
    );
    this.element.onsubmit = (event) => this.#submit(event);
  }

  /** Say what the running turn does; null if none runs. */
  show(turn) {
    keepFocus(this.#running, this.prompt, () => (this.#running.hidden = !turn));
    if (!turn) return;
    this.#words.textContent = turn.words;
    this.#stop.ariaDisabled = String(turn.state === "cancelling"); // truly disabled it would lose the focus
  }

  /** Put a text into the box, before what somebody has begun to write there. */
  draft(text) {
    this.prompt.value = [text, this.prompt.value].filter(Boolean).join("\n");
    this.#fit();
    this.prompt.focus();
  }

  async #submit(event) {
    event.preventDefault();
    const text = this.prompt.value;
    if (!text.trim()) return;
    this.prompt.value = "";
    this.#fit();
    this.prompt.focus();
    const isTaken = await this.#onSend(text, this.#running.hidden ? "queue" : this.#ifBusy.value);
    if (!isTaken) this.draft(text);
  }

  #key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.element.requestSubmit();
  }

  #fit() {
    this.prompt.style.height = "auto";
    this.prompt.style.height = `${Math.min(this.prompt.scrollHeight, TALLEST)}px`;
  }
}
