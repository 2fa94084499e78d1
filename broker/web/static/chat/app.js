/** The page: one connection, one session at a time, one room at a time; the URL's fragment names both. */

import { Agent } from "./agent.js";
import { Broker } from "./broker.js";
import { Chat } from "./chat.js";
import { byId } from "../shared/dom.js";
import { Records } from "./records.js";
import { Rooms } from "./rooms.js";
import { Session } from "./session.js";
import { Sessions } from "./sessions.js";
import { connectionWords } from "../shared/words.js";

const TOKEN = "broker.token"; // in the tab's own storage, which ends with the tab
const BAD_TOKEN = 4500;

const url = new URL("ws", location.href); // beside the page, wherever that is
url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
url.hash = "";
const broker = new Broker(url.href, () => sessionStorage.getItem(TOKEN));
const prompt = byId("prompt");
const chat = new Chat(draft);
const agent = new Agent((words) => chat.say(words));
const records = new Records();
const sessions = new Sessions(broker, choose);
const rooms = new Rooms(broker, (name) => remember("room", name));

/** Records after which the list of sessions may look different. */
const LISTED = new Set(["session.changed", "session.closed", "turn.ended"]);

let session = null;
let name = ""; // the title of the session, as the log has it
let shown = new AbortController();

/** For tests and the curious: the records of the session shown, as they were received, each once. */
window.broker = { records: () => structuredClone(session?.records ?? []) };

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
  const [sessionId, room] = [remembered("session"), remembered("room")];
  if (sessionId !== (session?.id ?? null)) choose(sessionId);
  if (room) rooms.join(room);
}

// -- the session -----------------------------------------------------------------------------------

/** Show this session, or none. */
function choose(sessionId) {
  if (sessionId && sessionId === session?.id) return panel("chat");
  leave();
  remember("session", sessionId);
  sessions.mark(sessionId);
  byId("chat-head").hidden = !sessionId;
  if (sessionId) follow(sessionId);
  panel("chat");
}

function leave() {
  shown.abort();
  session?.close();
  session = null;
  chat.clear();
  agent.clear();
  records.clear();
  setTitle("");
}

function follow(sessionId) {
  shown = new AbortController();
  session = new Session(broker, sessionId);
  chat.show(session, shown.signal);
  agent.show(session, shown.signal);
  records.show(session, shown.signal);
  session.on("record", head, shown.signal);
  session.on("gone", gone, shown.signal);
  session.open();
  byId("facts").textContent = sessionId;
}

function head({ event, data }) {
  if (event === "session.opened") byId("facts").textContent = [data.agent, data.workspace_dir, session.id].filter(Boolean).join(" · ");
  if ((event === "session.opened" || event === "session.changed") && data.title !== undefined) setTitle(data.title ?? "");
  if (LISTED.has(event)) sessions.refresh();
}

function setTitle(title) {
  name = title;
  byId("title").value = title;
  document.title = title ? `${title} · broker` : "broker";
}

function gone(error) {
  choose(null);
  byId("create-error").textContent = error.code === "not_found" ? "That session is no longer there." : error.message;
  sessions.refresh();
}

byId("title").onchange = ({ target }) =>
  session?.request("session.update", { title: target.value.trim() }).catch((error) => {
    setTitle(name);
    chat.say(error.words);
  });

byId("delete").onclick = () => byId("confirm").showModal();
byId("confirm").onclose = async ({ target }) => {
  if (target.returnValue !== "delete" || !session) return;
  const doomed = session;
  await doomed.request("session.delete").then(() => doomed === session && choose(null), () => {});
  sessions.refresh();
};

// -- the box to write in -----------------------------------------------------------------------------

function fit() {
  prompt.style.height = "auto";
  prompt.style.height = `${Math.min(prompt.scrollHeight, 220)}px`;
}

/** Put a text into the box, unless somebody writes there. */
function draft(text) {
  prompt.value ||= text;
  fit();
  prompt.focus();
}

async function send(event) {
  event.preventDefault();
  const text = prompt.value;
  if (!text.trim() || (!session && !(await sessions.create()))) return;
  session.send(text, byId("running").hidden ? "queue" : byId("if-busy").value);
  prompt.value = "";
  fit();
  prompt.focus();
}

byId("composer").onsubmit = send;
prompt.oninput = fit;
prompt.onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  byId("composer").requestSubmit();
};

// -- panels and the connection -----------------------------------------------------------------------

function panel(name) {
  document.body.dataset.panel = name;
  if (name === "records" || name === "room") document.body.dataset.inspector = name;
  for (const button of document.querySelectorAll("[data-show]")) {
    const group = button.closest(".inspector-tabs") ? document.body.dataset.inspector : name;
    button.ariaCurrent = String(button.dataset.show === group);
  }
}

for (const button of document.querySelectorAll("[data-show]")) button.onclick = () => panel(button.dataset.show);

broker.on("state", (state) => {
  document.body.dataset.connection = state.name;
  byId("connection-text").textContent = connectionWords(state);
  byId("reconnect").hidden = state.name !== "waiting" && state.name !== "stopped";
  if (state.name === "stopped" && state.code === BAD_TOKEN) askForToken(state.reason);
});

function askForToken(why) {
  sessionStorage.removeItem(TOKEN);
  byId("login-why").textContent = why;
  if (!byId("login").open) byId("login").showModal();
}

byId("login").onsubmit = ({ target }) => {
  const token = target.token.value.trim();
  target.reset();
  if (/^[\w.~+-]+$/.test(token)) sessionStorage.setItem(TOKEN, token); // nothing else can travel as a subprotocol
  broker.connect();
};

broker.on("welcome", () => sessions.load());
broker.on("problem", (error) => console.warn(error.code, error.message));
byId("reconnect").onclick = () => broker.connect();
window.addEventListener("online", () => broker.state.name === "waiting" && broker.connect());
window.addEventListener("hashchange", restore);

panel("chat");
broker.connect();
restore();
prompt.focus();
