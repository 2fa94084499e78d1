/** The settings as they are in force, with where each comes from; secrets are never told. */

import { el } from "../../shared/dom.js";
import { badge } from "../parts.js";
import { Table } from "../table.js";

export const title = "Configuration";

const EVERY = 15_000; // it changes when somebody reloads it
const DEFAULT = "default";
const SECRET = "********"; // how the broker shows one

/** Show it. */
export function show(root, context) {
  const file = el("p.facts-line");
  const table = new Table({
    label: "Settings",
    columns: COLUMNS,
    key: ({ path }) => path,
    text: ({ path, value, origin }) => `${path} ${value} ${origin}`,
    empty: "No settings.",
    isMarked: ({ origin }) => origin !== DEFAULT,
  });
  const isShort = el("input", { type: "checkbox", checked: context.recall("changed", false) });
  let rows = [];
  const draw = () => table.update(isShort.checked ? rows.filter(({ origin }) => origin !== DEFAULT) : rows);
  isShort.onchange = () => {
    context.remember("changed", isShort.checked);
    draw();
  };
  table.addTools(el("label.check", {}, isShort, "Only what is not as by default"));
  root.append(file, table.element);
  context.every(EVERY, async () => {
    const { file: path, settings, origins } = await context.api.get("configuration");
    rows = leaves(settings).map(([name, value]) => ({ path: name, value, origin: originOf(name, origins) }));
    const changed = rows.filter(({ origin }) => origin !== DEFAULT).length;
    file.replaceChildren(
      fact("file", path ?? "none: it was configured by a program"),
      fact("settings", `${rows.length}`),
      fact("set by somebody", `${changed}`),
    );
    draw();
  });
}

function fact(name, value) {
  return el("span", {}, `${name} `, el("strong", {}, value));
}

const COLUMNS = [
  { title: "Setting", cell: ({ path }) => el("code", {}, path), sort: ({ path }) => path },
  { title: "Value", cell: valueCell, sort: ({ value }) => value },
  {
    title: "Comes from",
    cell: ({ origin }) => (origin === DEFAULT ? el("span.facts", {}, DEFAULT) : el("strong.origin", {}, origin)),
    sort: ({ origin }) => origin,
  },
];

function valueCell({ value }) {
  return value === SECRET ? badge("hidden") : el("code", {}, value);
}

/** All settings that hold no others, as [path, JSON]. */
function leaves(value, path = "") {
  const isGroup = typeof value === "object" && value !== null && !Array.isArray(value) && Object.keys(value).length > 0;
  if (!isGroup) return [[path, typeof value === "string" ? value : JSON.stringify(value)]];
  return Object.entries(value).flatMap(([name, inner]) => leaves(inner, path ? `${path}.${name}` : name));
}

/** Where a setting comes from: what is said of it, or of the nearest group that it stands in. */
function originOf(path, origins) {
  for (let name = path; name; name = name.slice(0, Math.max(0, name.lastIndexOf(".")))) {
    if (name in origins) return origins[name];
  }
  return DEFAULT;
}
