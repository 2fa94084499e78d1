/** What may be asked, in groups, with a field to search. */

import { el } from "../../shared/dom.js";

/** The list; `choose(template)` is called with the one that is pressed. */
export class Templates {
  #choose;
  #all = [];
  #search = el("input", {
    type: "search",
    placeholder: "Search",
    ariaLabel: "Search the templates",
    spellcheck: false,
  });
  #list = el("div.templates");

  constructor(choose) {
    this.#choose = choose;
    this.#search.oninput = () => this.#draw();
    this.element = el("div.stack", {}, this.#search, this.#list);
  }

  /** Show these, as `GET actions` tells them. */
  set all(templates) {
    this.#all = templates;
    this.#draw();
  }

  /** The template of an action, if there is one. */
  of(action) {
    return this.#all.find(({ name }) => name === action);
  }

  #draw() {
    const wanted = this.#search.value.trim().toLowerCase();
    const found = this.#all.filter(({ name, summary }) => `${name} ${summary}`.toLowerCase().includes(wanted));
    const groups = grouped(found);
    const shown = [...groups].map(([name, templates]) =>
      el("section", { ariaLabel: name }, el("h4", {}, name), ...templates.map((template) => this.#button(template))),
    );
    this.#list.replaceChildren(...(shown.length ? shown : [el("p.hint", {}, "No action is called so.")]));
  }

  #button(template) {
    const words = [el("span.name", {}, template.name), el("span.hint", {}, template.summary)];
    return el("button.template", { type: "button", onclick: () => this.#choose(template) }, ...words);
  }
}

const GROUPS = {
  session: "Sessions",
  turn: "Turns",
  approval: "Turns",
  room: "Rooms",
  project: "Projects",
  tap: "Watching",
  untap: "Watching",
  trace: "Watching",
};

function groupOf({ name }) {
  const [first, ...rest] = name.split(".");
  return GROUPS[first] ?? (rest.length ? first : "Connections");
}

function grouped(templates) {
  const groups = new Map();
  for (const template of templates) groups.set(groupOf(template), [...(groups.get(groupOf(template)) ?? []), template]);
  return groups;
}
