/** Where a turn went: the steps that the broker remembers of it. */

import { BrokerError } from "./broker.js";
import { byId, el } from "./dom.js";
import { clockWords, sentence } from "./words.js";

/** Show the trace of a turn, a message or a failed request, by its id. */
export async function showTrace(id) {
  const body = byId("trace-body");
  body.replaceChildren(el("p.hint", {}, "Looking it up…"));
  byId("trace").showModal();
  body.replaceChildren(...(await fetched(id)));
}

async function fetched(id) {
  try {
    const answer = await fetch(`/api/v1/trace/${encodeURIComponent(id)}`);
    const data = await answer.json();
    return answer.ok ? found(data) : refused(new BrokerError(data).words);
  } catch {
    return refused("The broker could not be asked.");
  }
}

function refused(words) {
  return [el("p.refusal", { role: "alert" }, words)];
}

function found({ id, steps, ended, stopped }) {
  const { where, what, reason } = stopped ?? steps.at(-1) ?? {};
  const why = reason ? `: ${sentence(reason)}` : ".";
  const last = where ? ` The last step was “${what}” at ${where}${why}` : "";
  const head = el("tr", {}, ...["Time", "Where", "What", "Reason"].map((name) => el("th", { scope: "col" }, name)));
  const table = el("table", {}, el("thead", {}, head), el("tbody", {}, ...steps.map(row)));
  return [
    el("p", {}, ended ? `It has ended${why}` : `It is under way.${last}`),
    el("div.steps", { tabIndex: 0, role: "region", ariaLabel: "Steps" }, table),
    el("p.facts", {}, id),
  ];
}

function row({ at, where, what, reason }) {
  const time = el("time", { dateTime: new Date(at).toISOString() }, clockWords(at));
  return el("tr", {}, ...[time, where, what, reason ?? ""].map((cell) => el("td", {}, cell)));
}
