/** The page: one connection, one session at a time, one room at a time; the address's fragment names both. */

import { Broker } from "../client.js";
import { Door } from "./door.js";
import { mountChat } from "./embed.js";
import { Head } from "./head.js";
import { Records } from "./records.js";
import { Rooms } from "./rooms.js";
import { Sessions } from "./sessions.js";
import { byId } from "../shared/dom.js";

/** Records after which the list of sessions may look different. */
const LISTED = new Set(["session.changed", "session.closed", "turn.ended"]);

const isAlone = new URLSearchParams(location.search).has("embed"); // only the conversation is shown
const door = new Door();
const broker = new Broker({ getToken: (about) => door.getToken(about) });
door.attend(broker);
const records = new Records();
const sessions = new Sessions(broker, (sessionId) => choose(sessionId), remembered("agent"));
const rooms = new Rooms(broker, (name) => remember("room", name));
const chat = mountChat(byId("conversation"), { broker, create: () => sessions.make() });
const head = new Head(
  (words) => chat.say(words),
  (sessionId) => deleted(sessionId),
);

let shown = new AbortController();

/** For tests and the curious: the newest records of the session shown, as they were received, each once. */
window.broker = { records: () => structuredClone(records.kept) };

// -- the fragment ----------------------------------------------------------------------------------

function remembered(key) {
  return new URLSearchParams(location.hash.slice(1)).get(key);
}

function remember(key, value) {
  const parts = new URLSearchParams(location.hash.slice(1));
  if (value) parts.set(key, value);
  else parts.delete(key);
  history.replaceState(null, "", `#${parts}`);
}

function restore() {
  const room = remembered("room");
  chat.show(remembered("session"));
  if (room) rooms.join(room);
}

// -- the session -----------------------------------------------------------------------------------

/** Show this session, or none. */
function choose(sessionId) {
  chat.show(sessionId);
  panel("chat");
}

function follow(session) {
  shown.abort();
  shown = new AbortController();
  remember("session", session?.id);
  sessions.mark(session?.id);
  head.show(session, shown.signal);
  records.show(session, shown.signal);
  session?.on("record", ({ event }) => LISTED.has(event) && sessions.refresh(), { signal: shown.signal });
  byId("console").href = session ? `./#${new URLSearchParams({ panel: "sessions", session: session.id })}` : "./";
}

function deleted(sessionId) {
  if (sessionId === chat.session?.id) choose(null);
  sessions.refresh();
}

function gone(error) {
  chat.say(error.code === "not_found" ? "That session is no longer there." : error.words);
  sessions.refresh();
}

chat.on("session", follow);
chat.on("gone", gone);

// -- panels ------------------------------------------------------------------------------------------

function panel(name) {
  document.body.dataset.panel = name;
  if (name === "records" || name === "room") document.body.dataset.inspector = name;
  for (const button of document.querySelectorAll("[data-show]")) {
    const group = button.closest(".inspector-tabs") ? document.body.dataset.inspector : name;
    button.ariaCurrent = String(button.dataset.show === group);
  }
}

for (const button of document.querySelectorAll("[data-show]")) button.onclick = () => panel(button.dataset.show);

broker.on("welcome", () => isAlone || sessions.load());
broker.on("error", (error) => console.warn(error.code, error.message));
window.addEventListener("hashchange", restore);

document.body.classList.toggle("alone", isAlone);
panel("chat");
restore();
chat.focus();
