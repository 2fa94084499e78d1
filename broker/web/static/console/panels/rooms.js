/** Rooms: all of them, or one with its members and events. */

import { timeWords } from "../../shared/words.js";
import { count } from "../format.js";
import { link } from "../lib/details.js";
import { RoomView } from "../lib/room.js";
import { named } from "../parts.js";
import { Table } from "../table.js";

export const title = "Rooms";

const REFRESH = 3000; // ms
const PAGE = 100;
const MOST = 1000;

/** Show the room that the address names, or the list. */
export function show(root, context) {
  const name = context.params.get("room");
  if (name) root.append(new RoomView(context, name).element);
  else showAll(root, context);
}

function showAll(root, context) {
  let limit = PAGE;
  const table = new Table({
    label: "Rooms",
    columns: [
      { title: "Room", cell: ({ room }) => link(context, "rooms", { room }, named(room)), sort: ({ room }) => room },
      { title: "Members", numeric: true, cell: ({ members }) => count(members), sort: ({ members }) => members },
      {
        title: "Events kept up to",
        numeric: true,
        cell: ({ head }) => (head ? `№ ${head}` : "–"),
        sort: ({ head }) => head ?? 0,
      },
      {
        title: "Last event",
        cell: ({ updated_at }) => (updated_at ? timeWords(updated_at) : "–"),
        sort: ({ updated_at }) => updated_at ?? "",
      },
    ],
    key: ({ room }) => room,
    text: ({ room }) => room,
    empty: "No room yet. A room is there as soon as somebody joins it or publishes into it.",
  });
  root.append(table.element);
  const refresh = context.every(REFRESH, async () => {
    const { rooms, cursor } = await context.api.get("rooms", { limit }, context.signal);
    table.update(rooms, cursor && limit < MOST ? more : null);
  });
  const more = () => {
    limit = Math.min(limit * 3, MOST);
    refresh();
  };
}
