/** The plugins: what each does, where it comes from, and what troubles it. */

import { el, json } from "../../shared/dom.js";
import { count } from "../format.js";
import { badge, refill } from "../parts.js";

export const title = "Plugins";

const EVERY = 5_000;
const UNUSED = "disabled"; // the status of what is there, but not in the configuration

/** Show it. */
export function show(root, context) {
  const place = el("div.cards.wide");
  const rest = el("p.facts-line");
  const empty = el(
    "p.empty",
    { hidden: true },
    "No plugins. One is loaded when its name stands under “plugins” in the configuration.",
  );
  const cards = new Map();
  root.append(place, empty, rest);
  context.every(EVERY, async () => {
    const { plugins } = await context.api.get("plugins");
    const loaded = plugins.filter(({ status }) => status !== UNUSED);
    empty.hidden = loaded.length > 0;
    const others = plugins.filter(({ status }) => status === UNUSED).map(({ name }) => name);
    refill(rest, ...(others.length ? ["There, but not loaded: ", ...chips(others)] : []));
    for (const plugin of loaded) {
      if (!cards.has(plugin.name))
        cards.set(plugin.name, place.appendChild(el("section.card", { ariaLabel: plugin.name })));
      refill(cards.get(plugin.name), ...content(plugin));
    }
  });
}

function content(plugin) {
  const { name, version, source, description, trouble, errors, blocked, settings } = plugin;
  const bad = trouble ? [el("p.refusal", {}, trouble)] : [];
  const shown = settings ? [el("details", {}, el("summary", {}, "Settings"), json(settings))] : [];
  return [
    el("div.card-head", {}, el("h3", {}, name), badge(...state(plugin))),
    ...(description ? [el("p", {}, description)] : []),
    ...bad,
    el(
      "p.facts-line",
      {},
      fact("version", version ?? "none"),
      fact("from", source ?? "here"),
      fact("errors", count(errors), errors > 0),
      fact("blocked the loop", `${count(blocked)} times`, blocked > 0),
    ),
    ...doings(plugin),
    ...shown,
  ];
}

function state({ status, trouble, errors }) {
  if (trouble) return [status, "bad"];
  return [status, errors > 0 ? "warn" : "good"];
}

function fact(name, value, isBad = false) {
  return el("span", {}, `${name} `, el("strong", isBad ? { data: { tone: "bad" } } : {}, value));
}

/** What it takes part in, as lists of names. */
function doings({ hooks, actions, routes }) {
  const kinds = Object.entries({ Hooks: hooks, Actions: actions, Paths: routes }).filter(([, names]) => names?.length);
  return [el("dl.pairs", {}, ...kinds.flatMap(([kind, names]) => [el("dt", {}, kind), el("dd", {}, ...chips(names))]))];
}

function chips(names) {
  return names.flatMap((name) => [el("code.chip", {}, typeof name === "string" ? name : JSON.stringify(name)), " "]);
}
