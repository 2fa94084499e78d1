/** What an agent did with a tool, folded. */

import { el, fold, json } from "../shared/dom.js";
import { textOf } from "../shared/words.js";

/** Kinds of tool status that are over. */
const SETTLED = new Set(["completed", "failed", "cancelled"]);

/** The element of a tool call, from the data of its records laid over each other. */
export function toolElement(data) {
  const status = String(data.status ?? "pending");
  const summary = [
    el("span.tool-dot", { data: { status: SETTLED.has(status) ? status : "running" }, ariaHidden: "true" }),
    el("span.tool-title", {}, String(data.title || data.tool_id)),
    el("span.tool-status", {}, status.replaceAll("_", " ")),
  ];
  return fold("details.tool", summary, () => details(data));
}

function details({ tool_id, title, status, content, ...rest }) {
  const text = textOf(content ?? []);
  return el("div", {}, text ? el("pre.json", {}, text) : "", json({ tool_id, ...rest }));
}
