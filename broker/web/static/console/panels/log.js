/** The broker's log as it is written: by level, by words, followed or paused. */

import { el, follower } from "../../shared/dom.js";
import { clockWords } from "../../shared/words.js";
import { count } from "../format.js";

export const title = "Log";

const EVERY = 1_000;
const MOST = 500; // lines in the page
const LEVELS = ["debug", "info", "warning", "error"];
const TONES = { warning: "warn", error: "bad", critical: "bad" };
/** The panels that tell more of what a line names. */
const LINKS = { session: ["sessions", "session"], turn: ["trace", "id"], trace_id: ["trace", "id"] };
const PATIENCE = 250; // ms after the last key until it is looked for

/** Show it. */
export function show(root, context) {
  new Log(root, context);
}

/** The lines, and what is chosen of them. */
class Log {
  #context;
  #after = null;
  #leftOut = 0;
  #level;
  #contains = "";
  #timer = 0;
  #generation = 0; // of what is chosen; an answer to what was chosen before is dropped
  #lines = el("ol.log-lines");
  #scroller = el("div.log", { tabIndex: 0, role: "region", ariaLabel: "Lines of the log, oldest first" }, this.#lines);
  #facts = el("p.facts");
  #empty = el(
    "p.empty",
    { hidden: true },
    "Nothing of that kind was written since the broker's start. A lower level shows more.",
  );
  #pause = el("button", { type: "button", ariaPressed: "false" }, "Pause");
  #follow = follower(this.#scroller);
  #refresh;

  constructor(root, context) {
    this.#context = context;
    this.#level = context.recall("level", "info");
    root.append(
      el("div.tools", {}, this.#filter(), this.#levels(), this.#pause, this.#facts),
      this.#scroller,
      this.#empty,
    );
    this.#pause.onclick = () => this.#hold(this.#pause.ariaPressed !== "true");
    this.#refresh = context.every(EVERY, () => this.#read());
    context.signal.addEventListener("abort", () => clearTimeout(this.#timer));
  }

  #filter() {
    const filter = el("input.filter", {
      type: "search",
      placeholder: "Filter",
      ariaLabel: "Filter the log",
      spellcheck: false,
    });
    filter.oninput = () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => {
        this.#contains = filter.value.trim();
        this.#again();
      }, PATIENCE);
    };
    return filter;
  }

  #levels() {
    const choice = el(
      "select",
      {},
      ...LEVELS.map((level) => el("option", { value: level, selected: level === this.#level }, level)),
    );
    choice.onchange = () => {
      this.#level = choice.value;
      this.#context.remember("level", choice.value);
      this.#again();
    };
    return el("label.inline", {}, "From level", choice);
  }

  #hold(isHeld) {
    this.#pause.ariaPressed = String(isHeld);
    this.#pause.textContent = isHeld ? "Go on" : "Pause";
    if (!isHeld) this.#refresh();
  }

  #again() {
    this.#generation += 1;
    this.#after = null;
    this.#leftOut = 0;
    this.#refresh();
  }

  async #read() {
    if (this.#pause.ariaPressed === "true" && this.#after !== null) return;
    const generation = this.#generation;
    const query = { after: this.#after, level: this.#level, contains: this.#contains || null, limit: MOST };
    const { lines, next, left_out: missed } = await this.#context.api.get("log", query);
    if (generation !== this.#generation) return;
    if (this.#after === null) this.#lines.replaceChildren();
    else if (next < this.#after) this.#lines.append(el("li.facts", {}, "The broker was started anew."));
    this.#after = next;
    this.#leftOut += missed ?? 0;
    this.#add(lines);
  }

  #add(lines) {
    this.#lines.append(...lines.map((one) => line(one, this.#context)));
    while (this.#lines.childElementCount > MOST) this.#lines.firstChild.remove();
    const gone = this.#leftOut ? `; ${count(this.#leftOut)} older are gone` : "";
    this.#facts.textContent = `${count(this.#lines.childElementCount)} lines${gone}`;
    this.#empty.hidden = this.#lines.childElementCount > 0;
    this.#scroller.hidden = !this.#empty.hidden;
    if (lines.length) this.#follow();
  }
}

function line({ at, level, message, logger, extra }, context) {
  const name = level.toLowerCase();
  const more = Object.entries(extra ?? {}).flatMap(([key, value]) => [
    " ",
    el("span.extra", {}, `${key}=`, named(key, value, context)),
  ]);
  return el(
    "li",
    { data: { tone: TONES[name] ?? "quiet" } },
    el("time", { dateTime: new Date(at).toISOString(), title: new Date(at).toLocaleString() }, clockWords(at)),
    el("span.level", {}, name),
    el("span.said", {}, message, ...more, " ", el("span.logger", {}, logger ?? "")),
  );
}

/** What a line says of something, with a link to it where there is a panel for it. */
function named(key, value, context) {
  const words = typeof value === "string" ? value : JSON.stringify(value);
  if (words.includes("\n")) return el("details", {}, el("summary", {}, "show"), el("pre.json", {}, words));
  const [panel, param] = Object.hasOwn(LINKS, key) ? LINKS[key] : [];
  return panel ? el("a", { href: context.address(panel, { [param]: words }) }, words) : words;
}
