/** The console: which panel is shown, who looks at it, and whether the broker is there. */

import { Broker } from "../client.js";
import { byId, el } from "../shared/dom.js";
import { forget, redeemTicket, token } from "../shared/login.js";
import { connectionWords } from "../shared/words.js";
import { makeApi } from "./api.js";
import { Context } from "./context.js";
import { icon } from "./svg.js";
import { fallShort, signIn } from "./signin.js";
import { listenForShortcuts } from "./shortcuts.js";
import { Freshness } from "./freshness.js";

/** The panels in the order of the rail. */
const PANELS = [
  panel("overview", "Overview"),
  panel("connections", "Connections"),
  panel("sessions", "Sessions"),
  panel("rooms", "Rooms"),
  panel("agents", "Agents"),
  panel("trace", "Trace", { from: "trace/{id}" }),
  panel("stream", "Token stream", { from: "sessions/{id}/turns/{turn_id}" }),
  panel("latency", "Latency"),
  panel("plugins", "Plugins"),
  panel("configuration", "Configuration"),
  panel("log", "Log", { scope: "admin" }),
  panel("client", "Test client", { scope: null, from: "actions" }),
];
const RETRY = 2_000; // ms between two looks whether the broker is there, before it was there once

const url = new URL("ws", location.href);
url.hash = "";
const broker = new Broker({ url: url.href, getToken: () => token() });
const api = makeApi(token, (error) => ask(token() ? error.message : linkTrouble));
const freshness = new Freshness(byId("main"), byId("stale"));
let me = null; // what `whoami` says
let left = new AbortController(); // of the panel that is shown
let isAsking = false;
let linkTrouble = ""; // why the one-time link that led here was not taken
let wasOpen = false; // whether the connection was there until now

// -- panels ----------------------------------------------------------------------------------------

/** A panel: `scope` is what one needs to see anything there, `from` the endpoint with the same as JSON. */
function panel(id, title, { scope = "api", from = id } = {}) {
  return { id, title, scope, from, load: () => import(`./panels/${id}.js`) };
}

function fragment() {
  return new URLSearchParams(location.hash.slice(1));
}

/** The panel that the address names, or else the first that one may see. */
function chosen(params) {
  return PANELS.find(({ id }) => id === params.get("panel")) ?? PANELS.find(maySee) ?? PANELS.at(-1);
}

function maySee({ scope }) {
  return scope === null || me.scopes.includes(scope);
}

async function show({ focus = true } = {}) {
  if (!me || isAsking) return;
  const params = fragment();
  const panel = chosen(params);
  const root = begin(panel, focus);
  const { signal } = left;
  if (!maySee(panel)) return fallShort(root, panel, me);
  const context = new Context({ api, broker, me, params, panel: panel.id, freshness, signal });
  try {
    const module = await panel.load();
    if (signal.aborted) return;
    const leave = module.show(root, context);
    if (leave) signal.addEventListener("abort", () => leave(), { once: true });
  } catch (error) {
    fail(root, error);
  }
}

function fail(root, error) {
  console.error(error);
  const words =
    "This panel could not be loaded. It is tried again when the broker is there; the browser's console says more.";
  root.replaceChildren(el("p.refusal", { role: "alert", data: { failed: "" } }, words));
}

/** Leave the panel that is shown; returns the empty place of the next. */
function begin({ id, title, from }, focus) {
  left.abort();
  left = new AbortController();
  freshness.clear();
  const root = el("div.panel", { id: "panel", data: { panel: id } });
  byId("panel").replaceWith(root);
  byId("title").textContent = title;
  byId("from").textContent = from ? `GET /api/v1/${from}` : "";
  document.title = `${title} · broker console`;
  mark(id);
  byId("main").scrollTop = 0;
  if (focus) byId("title").focus({ preventScroll: true });
  return root;
}

/** Mark the panel that is shown, and have it in sight where the list is a strip. */
function mark(id) {
  for (const link of byId("panels").querySelectorAll("a")) {
    link.ariaCurrent = link.dataset.panel === id ? "page" : null;
    if (link.ariaCurrent) link.scrollIntoView({ block: "nearest", inline: "center" });
  }
}

function drawRail() {
  const links = PANELS.map((panel) => {
    const link = el(
      "a",
      { href: `#panel=${panel.id}`, data: { panel: panel.id } },
      icon(panel.id),
      el("span", {}, panel.title),
    );
    if (!maySee(panel)) lock(link, panel);
    return el("li", {}, link);
  });
  byId("panels").replaceChildren(...links);
  byId("who").replaceChildren(...whoWords());
}

function lock(link, { scope }) {
  Object.assign(link, { className: "locked", title: `Needs the scope ${scope}` });
  link.append(icon("lock"), el("span.hidden", {}, " (locked)"));
}

function whoWords() {
  const out = el("button.quiet", { type: "button", hidden: !token(), on: { click: signOut } }, "Sign out");
  const rights = me.scopes.includes("admin") ? "may change things" : "read only: no scope admin";
  return [
    el("strong", {}, me.user ?? "Anybody"),
    el("p", {}, me.open_to_all ? "nobody has to sign in" : rights),
    out,
  ];
}

function signOut() {
  forget();
  location.reload();
}

// -- who it is -------------------------------------------------------------------------------------

/** Ask for a token, once; then begin anew. */
async function ask(why) {
  if (isAsking) return;
  isAsking = true;
  broker.close();
  const root = begin({ id: "sign-in", title: "Sign in" }, true);
  byId("rail").hidden = true;
  document.body.dataset.connection = "stopped";
  byId("connection-text").textContent = "Not signed in";
  byId("reconnect").hidden = true;
  await signIn(root, why);
  isAsking = false;
  byId("rail").hidden = false;
  start();
}

async function start() {
  me = await api.get("whoami").catch((error) => error);
  if (isAsking) return; // the broker wants a token
  if (me instanceof Error) return away(me);
  drawRail();
  broker.connect().catch(() => {}); // its state says so
  show({ focus: false });
}

function away(error) {
  me = null;
  const words = `${error.words} This page tries again every ${RETRY / 1000} seconds.`;
  byId("panel").replaceChildren(el("p.notice", {}, words));
  setTimeout(start, RETRY);
}

broker.on("state", (state) => {
  if (isAsking) return;
  const name = state.state === "closed" ? "stopped" : state.state;
  document.body.dataset.connection = name;
  byId("connection-text").textContent = connectionWords({ ...state, name });
  byId("reconnect").hidden = name !== "waiting" && name !== "stopped";
  if (name === "stopped" && state.code === 4500) ask(state.reason);
  if (name === "waiting" && wasOpen) freshness.look();
  wasOpen = name === "open";
});
broker.on("welcome", () => {
  freshness.again();
  if (byId("panel").querySelector("[data-failed]")) show({ focus: false });
});

byId("reconnect").onclick = () => broker.reconnectNow();
byId("skip").onclick = (event) => {
  event.preventDefault(); // the fragment is the panel's
  byId("main").focus();
};
window.addEventListener("hashchange", () => (fragment().has("ticket") ? location.reload() : show()));
listenForShortcuts(byId("shortcuts"), byId("rail"));

await redeemTicket().catch((error) => {
  linkTrouble = error.message;
});
start();
