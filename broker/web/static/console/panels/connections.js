/** Who is connected, and the button that sends somebody away. */

import { el } from "../../shared/dom.js";
import { age, bytes, count } from "../format.js";
import { announce, confirmed, copyable, named } from "../parts.js";
import { Table } from "../table.js";

export const title = "Connections";

const EVERY = 3_000;
const PAGE = 200;
const MOST = 1_000; // rows; a browser gets slow with more
const NAMES = 3; // rooms or sessions that are named in a cell
const ONE = "Disconnect";
const ALL = "Disconnect everywhere";

/** Show it. */
export function show(root, context) {
  const total = el("p.facts-line", { role: "status" });
  const refused = el("p.refusal", { role: "alert" });
  root.append(total, refused);
  if (!context.canWrite)
    root.append(el("p.notice", {}, "How many there are takes the scope “api”; who they are, the scope “admin”."));
  let wanted = PAGE;
  const table = new Table({
    label: "Connections",
    columns: columns(context, (words) => {
      refused.textContent = words;
      refresh();
    }),
    key: (row) => row.connection_id,
    text,
    empty: EMPTY,
    order: [3, false],
  });
  if (context.canWrite) root.append(table.element);
  const refresh = context.every(EVERY, async () => {
    const { connections, number, hasMore } = await read(context.api, context.canWrite ? wanted : 1);
    total.replaceChildren(
      el("span", {}, el("strong", {}, count(number)), number === 1 ? " connection" : " connections"),
    );
    const more = () => {
      wanted += PAGE;
      refresh();
    };
    table.update(connections, hasMore && wanted < MOST ? more : null);
  });
}

const EMPTY = "Nobody is connected. Open the chat page in another tab, or connect a client of yours to /ws.";

/** The first `wanted` connections, page by page. */
async function read(api, wanted) {
  const found = [];
  let cursor;
  do {
    const page = await api.get("connections", { limit: Math.min(PAGE, wanted - found.length), cursor });
    found.push(...(page.connections ?? []));
    cursor = page.cursor;
    if (found.length >= wanted || !cursor) return { connections: found, number: page.count, hasMore: Boolean(cursor) };
  } while (true);
}

function columns(context, refresh) {
  return [
    { title: "User", cell: ({ user }) => named(user ?? "anonymous"), sort: ({ user }) => user ?? "" },
    {
      title: "Connection",
      cell: ({ connection_id: id }) => copyable(id, `…${id.slice(-8)}`),
      sort: (row) => row.connection_id,
      once: true,
    },
    { title: "Address", cell: (row) => row.address, sort: (row) => row.address },
    { title: "For", cell: since, sort: (row) => -new Date(row.connected_at) },
    { title: "Protocol", cell: (row) => row.protocol, sort: (row) => row.protocol },
    {
      title: "Waits to be sent",
      cell: (row) => bytes(row.outbox_bytes),
      sort: (row) => row.outbox_bytes,
      numeric: true,
    },
    { title: "Rooms", cell: ({ rooms }) => named(names(rooms)), sort: ({ rooms }) => rooms.length },
    {
      title: "Sessions",
      cell: ({ sessions }) => sessionLinks(sessions, context),
      sort: ({ sessions }) => sessions.length,
    },
    { title: "", cell: (row) => disconnectButton(row, context, refresh) },
  ];
}

function since({ connected_at: at }) {
  return el("span.nowrap", { title: `Since ${new Date(at).toLocaleString()}` }, age(at));
}

function names(all) {
  const rest = all.length - NAMES;
  return all.slice(0, NAMES).join(", ") + (rest > 0 ? ` and ${rest} more` : "");
}

function sessionLinks(all, context) {
  const links = all
    .slice(0, NAMES)
    .map((id) => el("a.nowrap", { href: context.address("sessions", { session: id }), title: id }, `…${id.slice(-8)}`));
  const spaced = links.flatMap((link, index) => (index ? [" ", link] : [link]));
  return el("span", {}, ...spaced, all.length > NAMES ? ` and ${all.length - NAMES} more` : "");
}

function text({ user, connection_id: id, address, protocol, rooms, sessions }) {
  return [user ?? "anonymous", id, address, protocol, ...rooms, ...sessions].join(" ");
}

function disconnectButton({ connection_id: id, user }, context, done) {
  const isMine = id === context.broker.identity?.connection_id;
  if (isMine) return el("span.facts", {}, "this page");
  const name = user ?? "anonymous";
  const press = async () => {
    const act = await confirmed("Disconnect this client?", warning(id, user, context.me), ONE, ...(user ? [ALL] : []));
    if (!act) return;
    const { api } = context;
    const asked =
      act === ALL
        ? api.post(`users/${encodeURIComponent(user)}/disconnect`)
        : api.delete(`connections/${encodeURIComponent(id)}`);
    const refusal = await asked.then(
      () => "",
      (error) => error.words,
    );
    if (!refusal) announce(`${name} was disconnected${act === ALL ? " everywhere" : ""}`);
    done(refusal);
  };
  return el(
    "button.quiet.stop",
    { type: "button", on: { click: press }, ariaLabel: `Disconnect ${name}, ${id.slice(-8)}` },
    "Disconnect",
  );
}

/** What a press does, to whom. */
function warning(id, user, me) {
  const one = `${user ?? "anonymous"}'s connection ${id} is closed with the code 4510, which says not to come back.`;
  const all = "Everywhere closes all connections of that user, and voids one-time links and what was got with them.";
  return [one, ...(user ? [all] : []), ...(user && user === me.user ? ["That is you: this page goes with them."] : [])];
}
