/** How the broker fares: figures with their last five minutes, and the alerts that fire. */

import { el } from "../../shared/dom.js";
import { sentence } from "../../shared/words.js";
import { Sparkline } from "../charts.js";
import { bytes, count, percent, rate, span, took } from "../format.js";
import { badge, help, refill } from "../parts.js";

export const title = "Overview";

const EVERY = 5_000; // ms, as often as there is a new point
const PERCENTILES = ["p95", "p50", "p99"];

/**
 * What the cards show: the first of `names` is the figure, all are lines; from `warn` and `bad` on it is high and very
 * high; `floor` is the least that the scale reaches to.
 */
const CARDS = [
  {
    title: "Connections",
    names: ["connections"],
    format: count,
    floor: 4,
    about: "Clients that are connected: pages, backends, agents' tools.",
    more: (now) => `peak ${count(now.connections_peak)}, room for ${count(now.connections_limit)}`,
    share: (now) => now.connections / now.connections_limit,
    warn: 0.8,
    bad: 0.95,
  },
  {
    title: "Messages",
    names: ["messages_in", "messages_out"],
    labels: ["in", "out"],
    format: rate,
    floor: 2,
    about: "Messages that clients sent (in), and that were sent to them (out), each second.",
    more: (now) => `in; ${rate(now.messages_out)} out`,
  },
  {
    title: "Error rate",
    names: ["error_rate"],
    format: percent,
    floor: 0.02,
    warn: 0.1,
    bad: 0.5,
    about: "Errors that clients and agents were told, as a share of what they asked for.",
    more: (now) => `${rate(now.errors)} errors`,
  },
  {
    title: "Delivery",
    names: percentiles("delivery"),
    labels: PERCENTILES,
    format: took,
    floor: 0.005,
    warn: 0.25,
    bad: 1,
    about:
      "From the writing of a record to its being sent to those who follow: how long 50, 95 and 99 of a hundred took.",
    more: (now) => `p95; p50 ${took(now.delivery_p50)}, p99 ${took(now.delivery_p99)}`,
  },
  {
    title: "First token",
    names: percentiles("first_token"),
    labels: PERCENTILES,
    format: took,
    floor: 0.2,
    warn: 10,
    bad: 30,
    about: "From the handing of a turn to its agent to the first that came back.",
    more: (now) => `p95; p50 ${took(now.first_token_p50)}, p99 ${took(now.first_token_p99)}`,
  },
  {
    title: "Turns at work",
    names: ["turns_open"],
    format: count,
    floor: 4,
    about: "Turns that have not ended: those that agents work on, and those that wait.",
    more: (now) => `${count(now.sessions)} sessions in memory`,
  },
  {
    title: "Loop lag",
    names: ["loop_lag"],
    format: took,
    floor: 0.005,
    warn: 0.1,
    bad: 0.5,
    about: "How late the event loop is, and with it everything: a plugin blocks it, or the machine has too much to do.",
    more: () => "behind time",
  },
  {
    title: "Memory",
    names: ["memory"],
    format: bytes,
    floor: 1 << 20,
    warn: 0.8,
    bad: 0.95,
    about: "Memory of the broker's process. Beyond limits.memory new work is refused.",
    more: (now) => (now.memory_limit ? `of ${bytes(now.memory_limit)}` : "no limit is set"),
    share: (now) => (now.memory_limit ? now.memory / now.memory_limit : 0),
  },
  {
    title: "Store lag",
    names: ["commit_p95"],
    format: took,
    floor: 0.01,
    warn: 0.25,
    bad: 1,
    about: "How long 95 of a hundred writes to the disk took at most, from their arrival to their commit.",
    more: (now) => `${count(now.store_backlog)} writes wait`,
  },
];

function percentiles(name) {
  return PERCENTILES.map((part) => `${name}_${part}`);
}

/** Show it. */
export function show(root, context) {
  const alerts = el("div.alerts");
  let said = "";
  let isWatched; // whether there is the plugin `alerts`, once that is known
  const facts = el("p.facts-line");
  const cards = CARDS.map((options) => new Card(options));
  root.append(alerts, facts, el("div.cards", {}, ...cards.map(({ element }) => element)));
  context.every(EVERY, async () => {
    isWatched ??= await hasAlerts(context);
    const asked = ["overview", ...(isWatched ? ["alerts"] : [])];
    const [overview, { alerts: firing = null } = {}] = await Promise.all(asked.map((path) => context.api.get(path)));
    refill(facts, ...factsOf(overview.now));
    for (const card of cards) card.update(overview);
    refill(alerts, ...alertRows(overview.now, firing));
    const words = spoken(overview.now, firing);
    if (words !== said) context.announce(words || "No alert fires any more.");
    said = words;
  });
}

/** Whether there is somebody to ask which alerts fire. */
async function hasAlerts({ api }) {
  const { plugins } = await api.get("plugins");
  return plugins.some(({ routes }) => routes.includes("GET /api/v1/alerts"));
}

function factsOf({ version, node, uptime, sessions, rooms }) {
  const facts = {
    "actor-broker": version,
    node,
    "up for": span(uptime),
    sessions: count(sessions),
    rooms: count(rooms),
  };
  const known = Object.entries(facts).filter(([, value]) => value !== undefined && value !== null);
  return known.map(([name, value]) => el("span", {}, `${name} `, el("strong", {}, String(value))));
}

/** What is said aloud when it changes: which alerts fire, not by how much. */
function spoken({ trouble }, alerts) {
  const names = (alerts ?? []).filter(({ state }) => state === "firing").map(({ alert }) => alert);
  return [trouble && "New work is refused.", names.length && `Alerts that fire: ${names.join(", ")}.`]
    .filter(Boolean)
    .join(" ");
}

function alertRows({ trouble }, alerts) {
  const firing = (alerts ?? []).filter(({ state }) => state === "firing");
  const rows = firing.map(({ alert, text, figure, value, unit, above, since }) => {
    const words = text ?? `${figure} is ${value}${unit}, above ${above}${unit}`;
    return el(
      "p.alert",
      {},
      badge("Alert", "bad"),
      el("strong", {}, alert),
      el("span", {}, `${sentence(words)} Since ${new Date(since).toLocaleTimeString()}.`),
    );
  });
  if (trouble)
    rows.unshift(
      el("p.alert", {}, badge("Trouble", "bad"), el("span", {}, `New work is refused: ${sentence(trouble)}`)),
    );
  if (rows.length) return rows;
  const calm = alerts
    ? `None of ${alerts.length} alerts fires.`
    : "Alerts are off: name the plugin “alerts” under plugins in the configuration.";
  return [el("p.calm", {}, badge(alerts ? "All well" : "No alerts", alerts ? "good" : "quiet"), el("span", {}, calm))];
}

/** One figure with its line. */
class Card {
  #options;
  #figure = el("p.figure");
  #more = el("p.facts");
  #tone = el("span");
  #line;

  constructor(options) {
    this.#options = options;
    const { title: name, about, names, labels = names, format, floor } = options;
    this.#line = new Sparkline({ label: name, names: labels, format, floor });
    const [button, hint] = help(name, about);
    const head = el("div.card-head", {}, el("h3", {}, name), this.#tone, button);
    const now = el("div.now", {}, this.#figure, this.#more);
    this.element = el("section.card", { ariaLabel: name }, head, hint, now, this.#line.element);
  }

  update({ now, series }) {
    const { names, format, more } = this.#options;
    this.#figure.textContent = format(now[names[0]]);
    this.#more.textContent = more(now);
    refill(this.#tone, ...this.#judgement(now));
    this.#line.update(
      series.at.map((at) => new Date(at).getTime()),
      names.map((name) => series[name]),
    );
  }

  #judgement(now) {
    const { warn, bad, share, names } = this.#options;
    const value = share ? share(now) : now[names[0]];
    if (bad === undefined || value === null || value === undefined || value < warn) return [];
    return [value < bad ? badge("high", "warn") : badge("very high", "bad")];
  }
}
