/** Small parts that panels are made of. */

import { el } from "../shared/dom.js";

let said; // the live region
let serial = 0;

/** Tell who cannot see it what has happened, such as the result of what was pressed. */
export function announce(text) {
  said ??= document.getElementById("announcer");
  said.textContent = said.textContent === text ? `${text}\u00a0` : text; // the same words again are said again
}

/** A card with a heading; what follows goes into it. */
export function card(title, ...children) {
  return el("section.card", { ariaLabel: title }, el("h3", {}, title), ...children);
}

/** A state in words with a colour; `tone` is good, warn, bad or quiet. */
export function badge(words, tone = "quiet") {
  return el("span.badge", { data: { tone } }, words);
}

/** A button that shows and hides a hint. */
export function help(about, words) {
  const hint = el("p.hint.help-text", { id: `hint-${++serial}`, hidden: true }, words);
  const button = el(
    "button.quiet.help",
    { type: "button", ariaLabel: `What is ${about}?`, title: words, ariaExpanded: "false" },
    "?",
  );
  button.setAttribute("aria-controls", hint.id);
  button.onclick = () => {
    hint.hidden = !hint.hidden;
    button.ariaExpanded = String(!hint.hidden);
  };
  return [button, hint];
}

/** An id, cut to its end if it is long, with a button that copies it whole. */
export function copyable(id, shown = id) {
  const button = el("button.quiet.copy", { type: "button", title: `Copy ${id}`, ariaLabel: `Copy ${id}` }, "Copy");
  button.onclick = async () => announce((await copy(id)) ? "Copied" : "The browser did not let it be copied");
  return el("span.copyable", {}, el("code", { title: id }, shown), button);
}

/** Put a text into the clipboard; returns whether that was possible. */
export async function copy(text) {
  if (navigator.clipboard)
    return navigator.clipboard.writeText(text).then(
      () => true,
      () => false,
    );
  const box = el("textarea", { value: text, className: "hidden" }); // not a secure context
  const focused = document.activeElement;
  document.body.append(box);
  box.select();
  const isDone = document.execCommand("copy");
  box.remove();
  focused?.focus();
  return isDone;
}

/** Ask whether something is to be done; resolves to the one of `acts` that was pressed, empty if it is left. */
export function confirmed(title, words, ...acts) {
  const id = `dialog-${++serial}`;
  const buttons = acts.map((act) => el("button.stop", { value: act }, act));
  const menu = el("menu", {}, el("button", { value: "" }, "Keep"), ...buttons);
  const lines = words.map((line) => el("p", {}, line));
  const dialog = el("dialog", {}, el("form", { method: "dialog" }, el("h2", { id }, title), ...lines, menu));
  dialog.setAttribute("aria-labelledby", id);
  return shown(dialog);
}

/** A name as somebody chose it, in no more space than two lines of a cell. */
export function named(name) {
  return el("span.named", { title: name }, name);
}

/** Show a dialog until it is closed; resolves to the value of the button that was pressed. */
export function shown(dialog) {
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        dialog.remove();
        resolve(dialog.returnValue);
      },
      { once: true },
    );
  });
}

/** Replace what an element holds, unless it is the same; what has the focus hands it to what is called so then. */
export function refill(element, ...children) {
  const wanted = element.cloneNode(false);
  wanted.append(...children);
  const open = new Set([...element.querySelectorAll("details[open] > summary")].map((summary) => summary.textContent));
  for (const summary of wanted.querySelectorAll("details > summary"))
    summary.parentElement.open = open.has(summary.textContent);
  if (element.isEqualNode(wanted)) return;
  const focused = element.contains(document.activeElement) ? document.activeElement : null;
  element.replaceChildren(...wanted.childNodes);
  if (!focused) return;
  const isCalledSo = (one) => one.textContent === focused.textContent && one.ariaLabel === focused.ariaLabel;
  const next = [...element.querySelectorAll(focused.localName)].find(isCalledSo) ?? document.getElementById("title");
  next.focus({ preventScroll: true });
}
