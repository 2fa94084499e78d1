/** As whom the test client connects, and whether it is connected. */

import { el } from "../../shared/dom.js";
import { token as ownToken } from "../../shared/login.js";
import { connectionWords } from "../../shared/words.js";
import { badge } from "../parts.js";
import { wordsOf } from "./details.js";
import { Wire } from "./wire.js";

const WHO = { self: "As I am", other: "With another token", nobody: "Without a token" };

/** The line above the editor; `told` hears of frames (`frame`) and of the connection (`state`, in words). */
export class Identity {
  #url;
  #told;
  #wire = null;
  #who = el(
    "select",
    { ariaLabel: "Connect" },
    ...Object.entries(WHO).map(([value, text]) => el("option", { value }, text)),
  );
  #field = el("input", { type: "password", autocomplete: "off", spellcheck: false });
  #label = el("label.inline.grow", { hidden: true }, "Token ", this.#field);
  #state = el("span", { role: "status" });
  #button = el("button.primary", {}, "Connect");
  #error = el("p.refusal", { role: "alert" });

  constructor(url, told) {
    this.#url = url;
    this.#told = told;
    this.#who.onchange = () => this.#choose();
    const format = el("span.hint", {}, "broker.v1.json");
    const onsubmit = (event) => {
      event.preventDefault();
      if (this.#wire) this.close();
      else this.open().catch(() => {}); // it is said below the line
    };
    const line = el("div.row.wrap.identity", {}, this.#who, this.#label, this.#button, this.#state, format);
    this.element = el("form.stack", { onsubmit }, line, this.#error);
    this.#show("Not connected", "quiet");
  }

  /** The token that is shown, if one is. */
  get token() {
    if (this.#who.value === "self") return ownToken();
    return this.#who.value === "other" ? this.#field.value.trim() || null : null;
  }

  /** The connection, made if there is none; refused, and said so, if it cannot be made. */
  async open() {
    if (this.#wire) return this.#wire;
    this.#error.textContent = "";
    const wire = new Wire({
      url: this.#url,
      token: this.token,
      onFrame: this.#told.frame,
      onState: (state) => this.#follow(wire, state),
    });
    this.#wire = wire;
    this.#button.textContent = "Disconnect";
    try {
      await wire.connect();
      return wire;
    } catch (error) {
      this.#error.textContent = wordsOf(error);
      this.close();
      throw error;
    }
  }

  /** Disconnect. */
  close() {
    this.#wire?.close();
    this.#wire = null;
    this.#button.textContent = "Connect";
  }

  /** Another identity is another connection. */
  #choose() {
    this.close();
    this.#label.hidden = this.#who.value !== "other";
    if (!this.#label.hidden) this.#field.focus();
  }

  #follow(wire, state) {
    if (wire !== this.#wire && state.state !== "closed") return;
    const name = state.state === "closed" ? "stopped" : state.state;
    const words =
      name === "open" ? `Connected as ${wire.identity?.user ?? "anonymous"}` : connectionWords({ ...state, name });
    this.#show(words, { open: "good", stopped: "quiet" }[name] ?? "warn");
    this.#told.state(words);
  }

  #show(words, tone) {
    this.#state.replaceChildren(badge(words, tone));
  }
}
