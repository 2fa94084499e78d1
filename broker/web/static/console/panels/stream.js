/** The text of one turn as it came. */

import { el } from "../../shared/dom.js";
import { sessionName, shortId, textOf, timeWords } from "../../shared/words.js";
import { choices, wordsOf } from "../lib/details.js";
import { StreamView } from "../lib/stream.js";
import { brief } from "../lib/timeline.js";

export const title = "Token stream";

const SESSIONS = 100;
const TURNS = 50;

/** Show the choice of a turn, and the turn that the address names. */
export function show(root, context) {
  const picker = el("div.row.wrap.picker");
  const body = el("div");
  root.append(picker, body);
  const fail = (error) =>
    context.signal.aborted || body.replaceChildren(el("p.refusal", { role: "alert" }, wordsOf(error)));
  begin(context, picker, body).catch(fail);
}

async function begin(context, picker, body) {
  const { api, params, signal } = context;
  const { sessions } = await api.get("sessions", { limit: SESSIONS }, signal);
  const session = params.get("session") ?? sessions[0]?.session_id;
  if (!session)
    return body.append(el("p.empty", {}, "There is no session, and so no turn to look at. Begin one in the chat."));
  const path = `sessions/${encodeURIComponent(session)}/records`;
  const { records } = await api.get(path, { kind: "user.message", limit: TURNS }, signal);
  const turn = params.get("turn") ?? records.at(-1)?.turn_id;
  if (signal.aborted) return undefined;
  picker.append(sessionChoice(context, sessions, session), turnChoice(context, session, records, turn));
  if (!turn) return body.append(el("p.empty", {}, "This session has no turn yet."));
  const view = new StreamView(context, session, turn);
  body.append(view.element);
  return view.start();
}

function sessionChoice(context, sessions, session) {
  const known = sessions.some(({ session_id }) => session_id === session);
  const options = sessions.map((one) => [one.session_id, `${sessionName(one)} (${one.agent})`]);
  const all = known ? options : [[session, `Session ${shortId(session)}`], ...options];
  const select = choices("Session", all, (chosen) => context.go("stream", { session: chosen }));
  select.value = session;
  return el("label", {}, "Session", select);
}

function turnChoice(context, session, records, turn) {
  const options = records
    .map(({ turn_id, at, data }) => [turn_id, `${timeWords(at)} · ${brief(textOf(data.content)).slice(0, 60)}`])
    .reverse();
  const all = options.some(([id]) => id === turn) || !turn ? options : [[turn, `Turn ${shortId(turn)}`], ...options];
  const select = choices("Turn", all, (chosen) => context.go("stream", { session, turn: chosen }));
  if (turn) select.value = turn;
  return el("label", {}, "Turn", select);
}
