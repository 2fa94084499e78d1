/** Who is connected, and the button that sends somebody away. */

import { el } from "../../shared/dom.js";
import { age, bytes, count } from "../format.js";
import { announce, confirmed, copyable } from "../parts.js";
import { Table } from "../table.js";

export const title = "Connections";

const EVERY = 3_000;
const PAGE = 200;
const MOST = 1_000; // rows; a browser gets slow with more
const NAMES = 3; // rooms or sessions that are named in a cell

/** Show it. */
export function show(root, context) {
  const total = el("p.facts-line", { role: "status" });
  root.append(total);
  if (!context.canWrite)
    root.append(el("p.notice", {}, "How many there are takes the scope “api”; who they are, the scope “admin”."));
  let wanted = PAGE;
  const table = new Table({
    label: "Connections",
    columns: columns(context, () => refresh()),
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
    { title: "User", cell: ({ user }) => user ?? "anonymous", sort: ({ user }) => user ?? "" },
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
    { title: "Rooms", cell: ({ rooms }) => names(rooms), sort: ({ rooms }) => rooms.length },
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

function disconnectButton({ connection_id: id, user }, context, refresh) {
  const isMine = id === context.broker.identity?.connection_id;
  if (isMine) return el("span.facts", {}, "this page");
  const name = user ?? "anonymous";
  const press = async () => {
    const words = `${name}'s connection ${id} is closed with the code 4510, which says not to come back.`;
    if (!(await confirmed("Disconnect this client?", words, "Disconnect"))) return;
    const said = await context.api.delete(`connections/${encodeURIComponent(id)}`).then(
      () => `${name} was disconnected`,
      (error) => error.words,
    );
    announce(said);
    refresh();
  };
  return el(
    "button.quiet.stop",
    { type: "button", on: { click: press }, ariaLabel: `Disconnect ${name}, ${id.slice(-8)}` },
    "Disconnect",
  );
}
