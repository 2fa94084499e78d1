/** What codes and states are called when a person reads them. */

const BROKEN = 1006;
const CLOSES = {
  1000: "the connection was closed",
  1001: "the broker is going away",
  1002: "the connection broke the WebSocket rules",
  1006: "the connection broke",
  1008: "that is not allowed here",
  1009: "a message was larger than allowed",
  1011: "something went wrong inside the broker",
  1012: "the broker restarts",
  1013: "the broker is overloaded",
  4000: "the broker and this page lost sight of each other",
  4001: "the token has expired",
  4002: "this page fell too far behind",
  4003: "the session moved to another node",
  4500: "the token is bad or missing",
  4501: "this page sent too many messages the broker could not accept",
  4503: "you may not connect here",
  4504: "a limit is reached",
  4509: "another connection took over",
  4510: "an operator disconnected you",
};

/** Why a connection ended, as half a sentence. */
export function closeWords(code, reason) {
  if (code === BROKEN && reason) return reason; // from this end: nobody else can say why it broke
  return CLOSES[code] ?? `${reason || "the connection was closed"} (${code})`;
}

/** The state of the connection, as a sentence, from the client's `state` event. */
export function connectionWords({ state, code, reason, delay, willRetry }) {
  const why = code ? closeWords(code, reason) : "";
  if (state === "open") return "Connected";
  if (state === "connecting") return "Connecting…";
  if (willRetry && delay === null) return "Waiting for the network";
  if (willRetry) return `Reconnecting in ${seconds(delay)}${why && `: ${why}`}`;
  return why ? `Disconnected: ${why}` : "Disconnected";
}

/** Milliseconds as a person reads them, such as `20 ms`, `0.4 s` or `2 min 5 s`. */
export function seconds(ms) {
  if (ms < 100) return `${ms} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  const whole = Math.round(ms / 1000);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

const PARTIAL = { true: "What you see is only part of an answer.", false: "Nothing was produced." };

const DEADLINES = {
  start: "the agent did not start in time",
  idle: "the agent was silent for too long",
  approval: "nobody answered its question in time",
  queue: "it waited for its turn for too long",
  turn: "it took too long",
};

const OUTCOMES = {
  completed: ({ stop_reason, empty, reason }) => {
    const why = reason ?? (stop_reason === "end_turn" ? "" : stop_reason?.replaceAll("_", " "));
    return `Completed${empty ? ", but the agent said nothing" : ""}${why ? `: ${clause(why)}` : ""}`;
  },
  cancelled: ({ forced, reason }, { by = "", began = true }) => {
    if (!began) return `Taken back${by} before it began`;
    const cut = reason?.split("; ").slice(1).join("; "); // after who did it comes what had to be done about the agent
    return `Cancelled${by}${forced ? `; ${clause(cut) || "the agent did not stop by itself"}` : ""}`;
  },
  failed: ({ error }) => `Failed: ${error?.message ?? "the agent gave no reason"}`,
  timed_out: ({ deadline, reason }) => `Timed out: ${clause(reason) || DEADLINES[deadline] || "a deadline passed"}`,
  lost: ({ reason }) =>
    `Lost: ${clause(reason) || "the agent or the broker stopped in the middle"}; what it did is unknown`,
};

/**
 * How a turn ended, as a sentence or two.
 * @param {object} data of its `turn.ended`
 * @param {{by?: string, began?: boolean}} circumstances who stopped it, such as ` by ann`; whether an agent ever had it
 */
export function outcomeWords(data, circumstances = {}) {
  const words = OUTCOMES[data.outcome]?.(data, circumstances) ?? String(data.outcome);
  const isWhole = data.outcome === "completed" || circumstances.began === false;
  const partial = isWhole ? undefined : PARTIAL[data.partial];
  return partial ? `${sentence(words)} ${partial}` : words;
}

/** Why a turn that runs shows nothing new, from its `turn.stalled`. */
export function stallWords({ silent, link, reason }) {
  if (link === "down") return `The link to the agent is down${reason ? `: ${clause(reason)}` : ""}; it may come back`;
  return silent ? `The agent has been silent for ${seconds(silent * 1000)} and longer` : "The agent has gone silent";
}

/** Why a turn is being stopped, from its `turn.cancelling`; `by` is who did it, such as ` by ann`. */
export function stoppingWords({ deadline, reason }, by) {
  return deadline
    ? `Stopping: ${reason || DEADLINES[deadline] || "a deadline passed"}`
    : `Stopping${by && `: asked for${by}`}`;
}

/** What became of an agent's question, from its `approval.resolved`; `name` is the chosen option's. */
export function resolvedWords({ outcome, option_id, reason }, name, by) {
  if (option_id) return `Answered “${name ?? option_id}”${by}`;
  if (outcome === "expired") return "Expired: nobody answered in time";
  if (outcome === "cancelled") return "Withdrawn, because the turn was stopped";
  return `No longer open${reason ? `: ${clause(reason)}` : ""}`;
}

/** Half a sentence as a whole one. */
export function capital(words) {
  return sentence(words.charAt(0).toUpperCase() + words.slice(1));
}

/** Words with a full stop, whether they came with one or not. */
export function sentence(words) {
  return `${clause(words)}.`;
}

function clause(words) {
  return words?.replace(/\.$/, "");
}

/** A person as they call themselves, from a name or from `{user, connection_id}`. */
export function who(author) {
  return (typeof author === "string" ? author : author?.user) || "";
}

/** A message's content as text: a string, or blocks of which those that are no text are named. */
export function textOf(content) {
  if (!Array.isArray(content)) return typeof content === "string" ? content : (content?.text ?? "");
  return content.map(blockText).join("");
}

function blockText(block) {
  if (typeof block !== "object" || block === null) return String(block ?? "");
  return block.text ?? (block.content ? textOf([block.content]) : `[${block.type}]`);
}

/** A time of today as hours and minutes, an older one with its day. */
export function timeWords(at) {
  const date = new Date(at);
  const isToday = date.toDateString() === new Date().toDateString();
  return date.toLocaleString([], isToday ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" });
}

/** A time to the millisecond, without its day. */
export function clockWords(at) {
  const date = new Date(at);
  return `${date.toTimeString().slice(0, 8)}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

/** The end of an id: ids made in the same hour begin alike. */
export function shortId(id) {
  return id.slice(-6);
}

/** What a session without a title is called. */
export function sessionName({ title, session_id }) {
  return title || `Session ${shortId(session_id)}`;
}
