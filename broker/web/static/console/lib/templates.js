/** What may be asked, in groups, with a field to search. */

import { el } from "../../shared/dom.js";

/** What those may try who are not told all. */
export const FEW = [
  { name: "echo", summary: "Get the payload back.", payload: { text: "Hello!" } },
  { name: "session.create", summary: "Begin a session with an agent.", payload: { title: "Tried out" } },
  {
    name: "turn.start",
    summary: "Say something in it.",
    payload: { session_id: "", client_msg_id: "", content: "Hello!" },
  },
  { name: "turn.cancel", summary: "Stop a turn.", payload: { session_id: "", turn_id: "" } },
  { name: "room.join", summary: "Join a room.", payload: { room: "lobby" } },
  { name: "room.publish", summary: "Tell a room something.", payload: { room: "lobby", data: "Hello!" } },
];

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
