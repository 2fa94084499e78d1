/** Where something went: the steps that the broker remembers of a turn, a message or a request that failed. */

import { el } from "../../shared/dom.js";
import { clockWords, sentence } from "../../shared/words.js";
import { took } from "../format.js";
import { strip } from "../lib/lanes.js";
import { link, pairs, wordsOf } from "../lib/details.js";
import { card, copyable } from "../parts.js";

export const title = "Trace";

const REFRESH = 1000; // ms, while it is under way

/** Show the form, and the trace that the address names. */
export function show(root, context) {
  const field = el("input", {
    name: "id",
    value: context.params.get("id") ?? "",
    required: true,
    spellcheck: false,
    autocomplete: "off",
  });
  field.placeholder = "Paste an id, or a whole error";
  const onsubmit = (event) => {
    event.preventDefault();
    context.go("trace", { id: idIn(field.value) });
  };
  const hint =
    "The id of a turn, a message (client_msg_id), a session (its newest turn), or an error (“trace …” in its hint). " +
    "Only the newest are remembered.";
  const form = el(
    "form.stack",
    { onsubmit },
    el("label", {}, "Id", field),
    el("p.hint", {}, hint),
    el("div", {}, el("button.primary", {}, "Follow it")),
  );
  const found = el("div.stack");
  root.append(el("section.card", { ariaLabel: "What to follow" }, form), found);
  const id = context.params.get("id");
  if (!id) return;
  field.value = id;
  watch(found, context, id);
}

const NAMES = ["trace id", "trace_id", "trace", "turn_id", "client_msg_id", "session_id", "id"];

/** The id in what was pasted: that of an error's trace, or another one that it names; else the text as it is. */
export function idIn(text) {
  const pasted = text.trim();
  if (!/[\s"{]/.test(pasted)) return pasted;
  const found = NAMES.map((name) => new RegExp(`\\b${name}["':=\\s]+([\\w.:-]+)`, "i").exec(pasted)?.[1]);
  return found.find(Boolean) ?? pasted;
}

async function watch(root, context, id) {
  const { signal, api } = context;
  let shown = "";
  let timer = 0;
  signal.addEventListener("abort", () => clearTimeout(timer));
  const look = async () => {
    try {
      const trace = await api.get(`trace/${encodeURIComponent(id)}`, {}, signal);
      if (JSON.stringify(trace) !== shown) root.replaceChildren(...content(context, trace));
      shown = JSON.stringify(trace);
      if (!trace.ended) timer = setTimeout(look, REFRESH);
    } catch (error) {
      if (signal.aborted) return;
      root.replaceChildren(el("p.refusal", { role: "alert" }, wordsOf(error)));
      shown = "";
      if (error.code === "unreachable") timer = setTimeout(look, 5 * REFRESH);
    }
  };
  await look();
}

function content(context, trace) {
  const steps = timed(trace.steps);
  return [
    card("Where it is", el("p.verdict", { data: { ended: trace.ended } }, verdict(trace)), ids(context, trace)),
    card("Steps", waterfall(steps), ...leftOut(trace)),
  ];
}

function verdict({ ended, stopped, steps }) {
  const { where, what, reason } = stopped ?? steps.at(-1) ?? {};
  const why = reason ? `: ${sentence(reason)}` : ".";
  if (!where) return "Nothing is known of it yet.";
  if (!ended) return `It is under way. The last step is “${what}” at “${where}”${why}`;
  return what === "ended" ? `It has ended${why}` : `It stopped at “${where}”, ${what}${why}`;
}

function ids(context, { id, turn_id, session_id, client_msg_id }) {
  const session =
    session_id &&
    el("span.row", {}, copyable(session_id), link(context, "sessions", { session: session_id }, "Session"));
  const turn =
    turn_id &&
    el(
      "span.row",
      {},
      copyable(turn_id),
      link(context, "stream", { session: session_id, turn: turn_id }, "Token stream"),
    );
  return pairs([
    ["Turn", turn],
    ["Session", session],
    ["Message", client_msg_id],
    ["Trace", id === turn_id ? null : copyable(id)],
  ]);
}

/** Each step with the time since the first one, and until the next one, in milliseconds. */
function timed(steps) {
  const times = steps.map(({ at }) => Date.parse(at));
  const from = times[0];
  const whole = Math.max(times.at(-1) - from, 1);
  return steps.map((step, i) => {
    const next = times[i + 1] ?? times[i];
    return {
      ...step,
      since: times[i] - from,
      lasts: next - times[i],
      from: (times[i] - from) / whole,
      to: (next - from) / whole,
    };
  });
}

function waterfall(steps) {
  const head = el(
    "tr",
    {},
    ...["Time", "After", "Where", "What", "Until the next step", "Why"].map((name) => el("th", { scope: "col" }, name)),
  );
  const table = el(
    "table.waterfall",
    { ariaLabel: "Steps" },
    el("thead", {}, head),
    el("tbody", {}, ...steps.map(row)),
  );
  return el("div.wide", { tabIndex: 0, role: "region", ariaLabel: "Steps" }, table);
}

function row({ at, where, what, reason, since, lasts, from, to }, index, steps) {
  const isLast = index === steps.length - 1;
  const words = isLast ? "the last step" : took(lasts / 1000);
  const bar = strip(`${what}: ${words}`, [{ from, to, tone: `at-${where}`, words: `${where}: ${what}, ${words}` }]);
  const slowest = !isLast && lasts > 0 && lasts === Math.max(...steps.map((step) => step.lasts));
  const picture = el(
    "td.picture",
    {},
    bar,
    el("span.lasts", {}, slowest ? `${words}, the longest` : isLast ? "" : words),
  );
  const time = el("time", { dateTime: at }, clockWords(at));
  const cells = [time, `+${took(since / 1000)}`, el("span.place", { data: { place: where } }, where), what].map(
    (cell) => el("td", {}, cell),
  );
  return el("tr", {}, ...cells, picture, el("td", {}, reason ?? ""));
}

function leftOut({ left_out }) {
  return left_out
    ? [el("p.hint", {}, `${left_out} steps in the middle are left out: there were too many to remember.`)]
    : [];
}
