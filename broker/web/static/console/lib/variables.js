/** A session's variables as they are, and what each change of them changed. */

import { el, json } from "../../shared/dom.js";
import { clockWords, who } from "../../shared/words.js";
import { countWords, differences } from "./diff.js";
import { action, choices } from "./details.js";

const KEPT = 200; // snapshots
const MARKS = { added: "+", changed: "±", removed: "−" };

/** What is different, as a table: path, before, after; each row says in a word what happened to it. */
function differenceTable(found) {
  if (!found.length) return el("p.hint", {}, "Nothing is different.");
  const head = el("tr", {}, ...["What", "Variable", "Before", "After"].map((name) => el("th", { scope: "col" }, name)));
  return el("table.differences", {}, el("thead", {}, head), el("tbody", {}, ...found.map(differenceRow)));
}

function differenceRow({ path, kind, before, after }) {
  const word = el("td.mark", {}, el("span", { ariaHidden: "true" }, `${MARKS[kind]} `), kind);
  return el("tr", { data: { kind } }, word, el("td", {}, el("code", {}, path)), value(before), value(after));
}

function value(some) {
  return some === undefined ? el("td.hint", {}, "–") : el("td", {}, el("code", {}, JSON.stringify(some)));
}

/** The card's content; `load(beforeSeq)` is a promise of `GET sessions/{id}/variables`. */
export class Variables {
  #load;
  #snapshots = []; // oldest first
  #before;
  #against = "previous";
  #now = el("div");
  #choice = el("div.row");
  #list = el("ol.snapshots");
  #more;
  #open = new Set(); // numbers of the snapshots that are unfolded, so that they stay so

  constructor(load) {
    this.#load = load;
    this.#more = action("Earlier changes", () => this.#loadEarlier());
    this.#more.hidden = true;
    this.element = el("div.stack", {}, this.#now, this.#choice, this.#list, this.#more);
  }

  /** Ask for them anew. */
  async refresh() {
    const { variables, snapshots, before_seq } = await this.#load();
    const isJoined = snapshots[0]?.seq <= this.#snapshots.at(-1)?.seq; // else more came than an answer holds
    if (!isJoined) [this.#snapshots, this.#before] = [[], before_seq];
    const known = new Map([...this.#snapshots, ...snapshots].map((snapshot) => [snapshot.seq, snapshot]));
    this.#snapshots = [...known.values()].slice(-KEPT);
    if (known.size > KEPT) this.#before = this.#snapshots[0].seq;
    const isEmpty = !Object.keys(variables).length;
    this.#now.replaceChildren(isEmpty ? el("p.hint", {}, "There are no variables now.") : json(variables));
    this.#draw();
  }

  /** Forget what was: the log has begun anew. */
  clear() {
    this.#snapshots = [];
    this.#open.clear();
  }

  async #loadEarlier() {
    const { snapshots, before_seq } = await this.#load(this.#before);
    this.#snapshots = [...snapshots, ...this.#snapshots];
    this.#before = before_seq;
    this.#draw();
  }

  #draw() {
    this.#more.hidden = this.#before === undefined || this.#snapshots.length >= KEPT;
    this.#drawChoice();
    this.#list.replaceChildren(...this.#snapshots.map((snapshot, i) => this.#row(snapshot, i)).reverse());
  }

  /** With what each is compared; made anew only if there are others, so that it keeps the focus. */
  #drawChoice() {
    const options = [["previous", "the one before it"], ...this.#snapshots.map(({ seq }) => [String(seq), `№ ${seq}`])];
    if (this.#choice.querySelectorAll("option").length === options.length) return;
    const select = choices("Compare each with", options, (chosen) => {
      this.#against = chosen;
      this.#list.replaceChildren(...this.#snapshots.map((snapshot, i) => this.#row(snapshot, i)).reverse());
    });
    select.value = this.#against;
    this.#choice.replaceChildren(el("label", {}, "Compare each with ", select));
  }

  #row(snapshot, index) {
    const previous =
      this.#against === "previous"
        ? this.#snapshots[index - 1]
        : this.#snapshots.find(({ seq }) => String(seq) === this.#against);
    const isFirst = !previous && index === 0 && this.#before === undefined;
    const found = previous || isFirst ? differences(previous?.variables ?? {}, snapshot.variables) : null;
    const by = snapshot.agent ? `agent ${snapshot.agent}` : who(snapshot.by) || "anonymous";
    const details = el(
      "details.snapshot",
      { open: this.#open.has(snapshot.seq), data: { seq: snapshot.seq } },
      el(
        "summary",
        {},
        `№ ${snapshot.seq} · ${clockWords(snapshot.at)} · ${by} · `,
        el("strong", {}, found ? countWords(found) : "set"),
      ),
      differenceTable(found ?? differences({}, snapshot.set)),
    );
    details.addEventListener("toggle", () => this.#open[details.open ? "add" : "delete"](snapshot.seq));
    return el("li", {}, details);
  }
}
