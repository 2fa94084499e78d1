/** The agents: whether they are there, what they have in hand, and how their turns ended. */

import { el } from "../../shared/dom.js";
import { age, count, percent, took } from "../format.js";
import { badge, refill } from "../parts.js";

export const title = "Agents";

const EVERY = 2_000;
const PLACES = 24; // drawn one by one up to so many
const STATES = { ready: ["ready", "good"], busy: ["busy", "good"], down: ["down", "bad"], idle: ["idle", "quiet"] };
const OUTCOMES = {
  completed: ["completed", "good"],
  cancelled: ["cancelled", "quiet"],
  failed: ["failed", "bad"],
  timed_out: ["timed out", "warn"],
  lost: ["lost", "bad"],
};

/** Show it. */
export function show(root, context) {
  const cards = new Map();
  const place = el("div.cards.wide");
  const empty = el(
    "p.empty",
    { hidden: true },
    "No agents. Name one under “agents” in the configuration; the built-in one is {kind: echo}.",
  );
  root.append(place, empty);
  context.every(EVERY, async () => {
    const { agents } = await context.api.get("agents");
    empty.hidden = agents.length > 0;
    for (const agent of agents) {
      if (!cards.has(agent.name))
        cards.set(agent.name, place.appendChild(el("section.card", { ariaLabel: agent.name })));
      refill(cards.get(agent.name), ...content(agent));
    }
    const there = new Set(agents.map(({ name }) => name));
    for (const [name, card] of cards) if (!there.has(name)) cards.delete(name) && card.remove();
  });
}

function content(agent) {
  const [words, tone] = STATES[agent.state] ?? [agent.state, "quiet"];
  const isDefault = agent.default ? [el("span.facts", {}, "default")] : [];
  return [
    el("div.card-head", {}, el("h3", {}, agent.name), badge(words, tone)),
    el("p.facts-line", {}, el("span", {}, `kind ${agent.kind}`), ...isDefault, ...linked(agent)),
    ...hands(agent),
    ...outcomes(agent),
    el("dl.pairs", {}, ...pairs(agent)),
  ];
}

function linked({ linked: number }) {
  return number === null || number === undefined ? [] : [el("span", {}, `${count(number)} linked`)];
}

/** What it has in hand, as a row of places. */
function hands({ in_flight: busy, capacity, queued }) {
  const limit = capacity ? ` of ${count(capacity)}` : "";
  const waiting = queued ? `, ${count(queued)} waiting` : "";
  const words = el("p.hands", {}, el("strong", {}, count(busy)), `${limit} in hand${waiting}`);
  const places = Math.min(PLACES, Math.max(capacity ?? 0, busy));
  if (!places) return [words];
  const dots = Array.from({ length: places }, (_, index) => el(index < busy ? "i.busy" : "i"));
  return [words, el("p.places", { ariaHidden: "true" }, ...dots)];
}

/** How its turns ended: a bar, and the same in words. */
function outcomes({ outcomes: ended, success_rate: share }) {
  const seen = Object.entries(OUTCOMES)
    .map(([name, look]) => [...look, ended[name] ?? 0])
    .filter(([, , number]) => number > 0);
  if (!seen.length) return [el("p.facts", {}, "No turn of its has ended yet.")];
  const bar = el(
    "div.meter",
    { ariaHidden: "true" },
    ...seen.map(([, tone, number]) => {
      const part = el("span", { data: { tone } });
      part.style.flexGrow = number;
      return part;
    }),
  );
  const legend = seen.map(([words, tone, number]) =>
    el("li", {}, el("span.swatch", { data: { tone }, ariaHidden: "true" }), `${count(number)} ${words}`),
  );
  return [
    el("p", {}, el("strong", {}, percent(share)), " of the turns that nobody cancelled were completed"),
    bar,
    el("ul.legend", {}, ...legend),
  ];
}

function pairs({ first_token: first, restarts, last_error: error }) {
  const facts = [
    ["First token", first ? `p50 ${took(first.p50)}, p95 ${took(first.p95)}` : "nothing came yet"],
    ["Restarts", count(restarts)],
    ["Last error", error ? `${error.message} (${age(error.at)} ago)` : "none"],
  ];
  return facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
}
