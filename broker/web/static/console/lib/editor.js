/** A request as it is written: its action, its payload as JSON, and what is wrong with that. */

import { el } from "../../shared/dom.js";
import { copy } from "../parts.js";
import { exampleOf, faultOf } from "./requests.js";
import { curl, javascript, python } from "./snippets.js";

const LANGUAGES = { curl, Python: python, JavaScript: javascript };

/**
 * The editor. `does.schema(action)` is the JSON Schema of a payload if it is known, `does.send()` sends what is
 * written, `does.request()` is it as a program needs it, with its placeholders filled in, and `does.announce` says
 * something.
 */
export class Editor {
  #does;
  #action = el("input", { required: true, spellcheck: false, autocomplete: "off", value: "echo" });
  #payload = el("textarea.code", { rows: 9, spellcheck: false, value: '{\n  "text": "Hello!"\n}' });
  #fault = el("p.refusal", { id: "payload-fault", role: "status" });
  #result = el("p.hint", { role: "status" });
  #text = el("pre.json.snippet", { tabIndex: 0, hidden: true });

  constructor(does) {
    this.#does = does;
    this.#payload.setAttribute("aria-describedby", this.#fault.id);
    this.#payload.oninput = this.#action.oninput = () => this.#check();
    this.#payload.onkeydown = (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.element.requestSubmit();
    };
    const send = el("button.primary", {}, "Send");
    const copies = Object.keys(LANGUAGES).map((name) =>
      el("button.quiet", { type: "button", onclick: () => this.#copyAs(name) }, name),
    );
    const onsubmit = (event) => {
      event.preventDefault();
      if (this.#check()) does.send();
    };
    const hint =
      "“$new” is filled in with a new id, “$last.session_id” with what the broker last called so. Ctrl+Enter sends.";
    this.element = el(
      "form.stack",
      { onsubmit },
      el("label", {}, "Action", this.#action),
      el("label", {}, "Payload", this.#payload),
      this.#fault,
      el("p.hint", {}, hint),
      el("div.row.wrap", {}, send, el("span.hint", {}, "Copy as"), ...copies),
      this.#result,
      this.#text,
    );
  }

  /** The request as it stands; its placeholders are still in it. */
  get step() {
    return { action: this.#action.value.trim(), payload: JSON.parse(this.#payload.value) };
  }

  /** Write an example of an action. */
  begin(template) {
    this.write({ action: template.name, payload: exampleOf(template) });
    this.#payload.focus();
  }

  /** Write a request. */
  write({ action, payload }) {
    this.#action.value = action;
    this.#payload.value = JSON.stringify(payload, null, 2);
    this.#text.hidden = true;
    this.#check();
  }

  /** Say what came of it. */
  say(words) {
    this.#result.textContent = words;
  }

  /** Say what is wrong; only what is no JSON at all is not sent: the broker may know more than its description. */
  #check() {
    const fault = faultOf(this.#payload.value, this.#does.schema(this.#action.value.trim()));
    this.#fault.textContent = fault;
    this.#payload.ariaInvalid = String(fault !== "");
    return faultOf(this.#payload.value) === "";
  }

  async #copyAs(name) {
    if (!this.#check()) return;
    try {
      this.#text.textContent = LANGUAGES[name](this.#does.request());
    } catch (error) {
      this.say(error.message);
      return;
    }
    this.#text.hidden = false;
    this.#text.ariaLabel = `The request for ${name}`;
    const done = await copy(this.#text.textContent);
    this.#does.announce(
      done ? `Copied for ${name}.` : "The browser does not let this page copy: select the text below.",
    );
  }
}
