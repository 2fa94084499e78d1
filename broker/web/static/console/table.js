/** A table that is sorted, filtered and updated in place: what has the focus keeps it. */

import { el } from "../shared/dom.js";

/**
 * @typedef {object} Column
 * @property {string} title
 * @property {(row: any) => (Node|string)} cell what it shows; strings are text. What would look the same is not
 *   replaced, so its listeners stay those of the first time
 * @property {(row: any) => (string|number|null)} [sort] what it is sorted by; without it, it is not
 * @property {boolean} [numeric] whether it is set to the right, and first sorted from the largest
 * @property {boolean} [once] whether the cell is made once for each row, because it never changes
 */

/** A table of rows that come again and again. */
export class Table {
  #options;
  #rows = [];
  #entries = new Map(); // key -> {element, cells, shown}
  #order;
  #wanted = "";
  #head;
  #body = el("tbody");
  #facts = el("p.facts", { role: "status" });
  #empty;
  #more = el("button.quiet", { type: "button", hidden: true }, "Show more");

  /**
   * @param {object} options
   * @param {string} options.label what the table lists, such as `Connections`
   * @param {Column[]} options.columns
   * @param {(row: any) => string} options.key
   * @param {string|Node} options.empty what is said where there are no rows
   * @param {(row: any) => string} [options.text] what the filter looks in; without it there is no filter
   * @param {(row: any) => boolean} [options.isMarked] which rows stand out
   * @param {[number, boolean]} [options.order] the column it is sorted by at first, and whether downwards
   */
  constructor(options) {
    this.#options = options;
    this.#order = options.order ?? null;
    this.#empty = el("div.empty", { hidden: true }, options.empty);
    this.#head = el("tr", {}, ...options.columns.map((column, index) => this.#heading(column, index)));
    const table = el("table", { ariaLabel: options.label }, el("thead", {}, this.#head), this.#body);
    const scroller = el("div.table", { tabIndex: 0, role: "region", ariaLabel: options.label }, table);
    this.element = el("div.listing", {}, el("div.tools", {}, ...this.#tools()), scroller, this.#empty, this.#more);
    this.#mark();
  }

  /**
   * Show these rows.
   * @param {any[]} rows
   * @param {(() => void)|null} [more] fetches further rows, if there are any
   */
  update(rows, more = null) {
    this.#rows = rows;
    this.#more.hidden = !more;
    this.#more.onclick = more;
    this.#draw();
  }

  /** Add elements beside the filter. */
  addTools(...elements) {
    this.#facts.before(...elements);
  }

  #tools() {
    if (!this.#options.text) return [this.#facts];
    const filter = el("input.filter", {
      type: "search",
      placeholder: "Filter",
      ariaLabel: `Filter ${this.#options.label}`,
      spellcheck: false,
    });
    filter.oninput = () => {
      this.#wanted = filter.value.trim().toLowerCase();
      this.#draw();
    };
    return [filter, this.#facts];
  }

  #heading({ title, sort, numeric }, index) {
    const classes = numeric ? "th.numeric" : "th";
    if (!sort) return el(classes, { scope: "col" }, title);
    const press = () => {
      const [column, down] = this.#order ?? [];
      this.#order = [index, column === index ? !down : Boolean(numeric)];
      this.#mark();
      this.#draw();
    };
    return el(classes, { scope: "col" }, el("button.sort", { type: "button", on: { click: press } }, title));
  }

  #mark() {
    const [column, down] = this.#order ?? [];
    [...this.#head.children].forEach((heading, index) => {
      heading.ariaSort = index === column ? (down ? "descending" : "ascending") : null;
    });
  }

  #draw() {
    const rows = this.#sorted(this.#rows.filter((row) => this.#isWanted(row)));
    const entries = rows.map((row) => this.#entry(row));
    const focused = document.activeElement;
    const kept = new Set(entries);
    for (const [key, entry] of this.#entries) if (!kept.has(entry)) this.#drop(key, entry);
    entries.forEach(({ element }, index) => {
      if (this.#body.children[index] !== element) this.#body.insertBefore(element, this.#body.children[index] ?? null);
    });
    if (focused !== document.activeElement && this.#body.contains(focused)) focused.focus({ preventScroll: true });
    this.#facts.textContent = this.#wanted ? `${rows.length} of ${this.#rows.length}` : "";
    this.#empty.hidden = this.#rows.length > 0;
    this.#body.closest(".table").hidden = !this.#rows.length;
  }

  #isWanted(row) {
    return !this.#wanted || this.#options.text(row).toLowerCase().includes(this.#wanted);
  }

  #sorted(rows) {
    if (!this.#order) return rows;
    const [index, down] = this.#order;
    const { sort } = this.#options.columns[index];
    return [...rows].sort((a, b) => (down ? compare(sort(b), sort(a)) : compare(sort(a), sort(b))));
  }

  #drop(key, { element }) {
    const isFocused = element.contains(document.activeElement);
    element.remove();
    this.#entries.delete(key);
    if (isFocused) this.#body.closest(".table").focus({ preventScroll: true });
  }

  #entry(row) {
    const key = this.#options.key(row);
    let entry = this.#entries.get(key);
    if (!entry) {
      const cells = this.#options.columns.map(({ numeric }) => el(numeric ? "td.numeric" : "td"));
      entry = { element: el("tr", {}, ...cells), cells, shown: [] };
      this.#entries.set(key, entry);
    }
    this.#options.columns.forEach((column, index) => this.#fill(entry, index, column, row));
    entry.element.classList.toggle("marked", this.#options.isMarked?.(row) ?? false);
    return entry;
  }

  #fill({ cells, shown }, index, { cell, once }, row) {
    if (once && index in shown) return;
    const content = cell(row);
    const now = content instanceof Node ? content.cloneNode(true) : content;
    if (index in shown && same(shown[index], now)) return;
    shown[index] = now;
    cells[index].replaceChildren(content);
  }
}

function same(a, b) {
  return a instanceof Node && b instanceof Node ? a.isEqualNode(b) : a === b;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a ?? "").localeCompare(String(b ?? ""), "en", { numeric: true });
}
