/** What keys do: `?` shows it, `/` goes to the filter, `[` and `]` to the panel before and after. */

import { el } from "../shared/dom.js";
import { shown } from "./parts.js";

const KEYS = [
  [["?"], "shows this"],
  [["/"], "goes to the filter of the panel"],
  [["["], "goes to the panel before"],
  [["]"], "goes to the panel after"],
  [["↑", "↓"], "in the list of panels: moves along it"],
  [["←", "→"], "on a picture: reads it off, point by point"],
];
const OFF = "broker.console.keysOff"; // for those whose speech input would press keys

/** Listen for them; `button` shows them too, `rail` is the list of panels. */
export function listenForShortcuts(button, rail) {
  button.onclick = help;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, dialog"))
      return;
    if (rail.contains(event.target) && moveAlong(rail, event.key)) return event.preventDefault();
    if (localStorage.getItem(OFF)) return;
    if (press(event.key, rail)) event.preventDefault();
  });
}

function press(key, rail) {
  if (key === "?") help();
  else if (key === "/") document.querySelector("#panel input[type=search]")?.focus();
  else if (key === "[" || key === "]") neighbour(rail, key === "[" ? -1 : 1);
  else return false;
  return true;
}

function neighbour(rail, step) {
  const links = [...rail.querySelectorAll("a")];
  const now = links.findIndex((link) => link.ariaCurrent === "page");
  links.at((now + step) % links.length)?.click();
}

function moveAlong(rail, key) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[key];
  const links = [...rail.querySelectorAll("a")];
  const now = links.indexOf(document.activeElement);
  if (!step || now < 0) return false;
  links.at((now + step) % links.length).focus();
  return true;
}

function help() {
  const rows = KEYS.map(([keys, words]) =>
    el("li", {}, el("span.keys", {}, ...keys.map((key) => el("kbd", {}, key))), words),
  );
  const isOn = el("input", { type: "checkbox", checked: !localStorage.getItem(OFF) });
  isOn.onchange = () => (isOn.checked ? localStorage.removeItem(OFF) : localStorage.setItem(OFF, "1"));
  const dialog = el(
    "dialog",
    { ariaLabel: "Keyboard shortcuts" },
    el(
      "form",
      { method: "dialog" },
      el("h2", {}, "Keyboard shortcuts"),
      el("ul.shortcuts", {}, ...rows),
      el("label.check", {}, isOn, " Keys without Ctrl or Alt do something"),
      el("menu", {}, el("button", {}, "Close")),
    ),
  );
  shown(dialog);
}
