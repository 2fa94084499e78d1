/** Sessions: all of them, or one with its turns, questions, variables and records. */

import { el } from "../../shared/dom.js";
import { sessionName, timeWords } from "../../shared/words.js";
import { briefId, link, wordsOf } from "../lib/details.js";
import { SessionView } from "../lib/session.js";
import { badge, named } from "../parts.js";
import { Table } from "../table.js";

export const title = "Sessions";

const REFRESH = 5000; // ms
const PAGE = 100;
const MOST = 1000;

/** Show the session that the address names, or the list. */
export function show(root, context) {
  const id = context.params.get("session");
  if (id) showOne(root, context, id);
  else showAll(root, context);
}

function showOne(root, context, id) {
  const view = new SessionView(context, id);
  root.append(view.element);
  view.start().catch((error) => context.signal.aborted || root.replaceChildren(absent(context, id, error)));
}

function absent(context, id, error) {
  const back = link(context, "sessions", {}, "All sessions");
  return el(
    "div.stack",
    {},
    el("p.refusal", { role: "alert" }, wordsOf(error)),
    el("p.hint", {}, `Session ${id}. `, back),
  );
}

function showAll(root, context) {
  let limit = PAGE;
  const table = new Table({
    label: "Sessions",
    columns: columns(context),
    key: (session) => session.session_id,
    text: (session) => [session.title, session.session_id, session.agent, session.owner, session.state].join(" "),
    empty: empty(),
  });
  root.append(table.element);
  const refresh = context.every(REFRESH, async () => {
    const { sessions, cursor } = await context.api.get("sessions", { limit }, context.signal);
    table.update(sessions, cursor && limit < MOST ? more : null);
  });
  const more = () => {
    limit = Math.min(limit * 3, MOST);
    refresh();
  };
}

function columns(context) {
  const by = (name) => ({ cell: (session) => named(session[name] ?? "anonymous"), sort: (session) => session[name] });
  return [
    {
      title: "Session",
      cell: (session) => link(context, "sessions", { session: session.session_id }, named(sessionName(session))),
      sort: sessionName,
    },
    { title: "Id", cell: ({ session_id }) => el("code", { title: session_id }, briefId(session_id)) },
    { title: "State", cell: stateBadge, sort: ({ state }) => state },
    { title: "Agent", ...by("agent") },
    { title: "Owner", ...by("owner") },
    { title: "Last activity", cell: ({ updated_at }) => timeWords(updated_at), sort: ({ updated_at }) => updated_at },
  ];
}

function stateBadge({ state }) {
  return badge(state, state === "open" ? "good" : "quiet");
}

function empty() {
  const chat = el("a", { href: "chat" }, "chat page");
  return el(
    "p",
    {},
    "No session yet. Begin one on the ",
    chat,
    " or in the ",
    el("a", { href: "#panel=client" }, "test client"),
    ".",
  );
}
