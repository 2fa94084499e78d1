/** The requests that are kept: to be sent again one by one, or in a row. */

import { el } from "../../shared/dom.js";
import { wordsOf } from "./details.js";
import { Saved } from "./requests.js";

/**
 * The card's content. `does.current()` and `does.sent()` are the steps that are written and that were sent,
 * `does.tokens()` what must not be kept, `does.replay(steps)` sends a sequence, `does.edit(step)` puts a request into
 * the editor.
 */
export class SavedRequests {
  #does;
  #saved = new Saved();
  #name = el("input", { placeholder: "Name", ariaLabel: "Name of what is kept", maxLength: 80 });
  #list = el("ul.saved");
  #error = el("p.refusal", { role: "alert" });

  constructor(does) {
    this.#does = does;
    const one = el("button", { type: "button", onclick: () => this.#keep(does.current) }, "Save this request");
    const all = el("button", { type: "button", onclick: () => this.#keep(does.sent) }, "Save all I have sent");
    this.element = el("div.stack", {}, el("div.row.wrap", {}, this.#name, one, all), this.#error, this.#list);
    this.#draw();
  }

  #keep(steps) {
    const name = this.#name.value.trim();
    this.#error.textContent = "";
    try {
      if (!name) throw new Error("Give it a name first.");
      const wanted = steps();
      if (!wanted.length) throw new Error("Nothing was sent yet.");
      this.#saved.keep(name, wanted, this.#does.tokens());
      this.#name.value = "";
      this.#draw();
    } catch (error) {
      this.#error.textContent = wordsOf(error);
    }
  }

  #draw() {
    const rows = this.#saved.all.map((item) => this.#row(item));
    const empty = el("li.hint", {}, "Nothing is kept yet. It stays in this browser, without tokens.");
    this.#list.replaceChildren(...(rows.length ? rows : [empty]));
  }

  #row({ name, steps }) {
    const words = steps.length === 1 ? steps[0].action : `${steps.length} requests`;
    const button = (text, onclick) =>
      el("button.quiet", { type: "button", onclick, ariaLabel: `${text} ${name}` }, text);
    const edit = steps.length === 1 ? [button("Edit", () => this.#does.edit(steps[0]))] : [];
    const forget = () => {
      this.#saved.delete(name);
      this.#draw();
      this.#name.focus(); // the button is gone
    };
    const replay = button("Replay", () => this.#does.replay(steps));
    return el(
      "li.row",
      {},
      el("span.grow", {}, el("span.name", {}, name), el("span.hint", {}, ` ${words}`)),
      replay,
      ...edit,
      button("Delete", forget),
    );
  }
}
