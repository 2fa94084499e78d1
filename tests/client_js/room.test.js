/** How the client is a member of rooms (PROTOCOL section 2a). */

import assert from "node:assert/strict";
import test from "node:test";

import { world } from "./world.js";

/** Something published in room `r`. */
function event(seq, data = seq) {
  return { type: "notification", event: "room.event", room: "r", seq, from: {}, data: { event: "message", data } };
}

function joined(data) {
  return { room: "r", epoch: "e", head: 0, members: [], recovered: true, ...data };
}

async function member(wanted) {
  const here = world();
  const room = here.broker.room("r");
  const seen = [];
  for (const name of ["joined", "reset", "gone"]) room.on(name, () => seen.push(name));
  room.on("event", ({ data }) => seen.push(data.data));
  await here.connect();
  const joining = room.join(wanted);
  await here.socket.answer("room.join", joined({ head: 5 }));
  assert.equal((await joining).head, 5);
  return { ...here, room, seen, at: () => here.sockets.at(-1) };
}

test("a member comes back after what it saw last, and sees nothing twice", async () => {
  const { room, seen, connect, at, broker } = await member({ events: ["message"] });
  assert.equal(broker.room("r"), room);
  assert.deepEqual(at().asked("room.join"), [{ room: "r", events: ["message"] }]);
  await at().say(event(6), event(6), event(8), event(undefined, "passing"));
  await at().drop();
  await connect();
  assert.deepEqual(at().asked("room.join"), [{ room: "r", after_seq: 8, epoch: "e", events: ["message"] }]);
  await at().answer("room.join", joined({ head: 9 }), event(8), event(9));
  assert.deepEqual(seen, ["joined", 6, 8, "passing", "joined", 9]);
});

test("one that had seen nothing comes back to what it had not seen", async () => {
  const { connect, at } = await member();
  await at().drop();
  await connect();
  assert.deepEqual(at().asked("room.join"), [{ room: "r", after_seq: 5, epoch: "e" }]);
});

test("events that were missed for good are told before those that are left", async () => {
  const { seen, connect, at } = await member({ afterSeq: 0 });
  await at().say(event(1), event(2), event(3), event(4), event(5));
  await at().drop();
  await connect();
  await at().answer("room.join", joined({ epoch: "f", head: 2, recovered: false }), event(1), event(2));
  assert.deepEqual(seen, ["joined", 1, 2, 3, 4, 5, "reset", "joined", 1, 2]);
  await at().drop();
  await connect();
  await at().answer("room.join", joined({ epoch: "g", recovered: false }));
  await at().drop();
  await connect();
  assert.deepEqual(at().asked("room.join"), [{ room: "r", after_seq: 0, epoch: "g" }]);
});

test("whoever may not be in it any more is told so, and whoever leaves does not come back", async () => {
  const { room, seen, connect, at } = await member();
  await at().note("room.left", { room: "r", data: { code: "forbidden", message: "No." } });
  assert.deepEqual(seen, ["joined", "gone"]);
  room.join();
  await at().answer("room.join", joined());
  room.leave();
  assert.equal(at().asked("room.leave").length, 1);
  await at().drop();
  await connect();
  assert.deepEqual(at().sent, []);
});

test("its requests are those of the protocol", async () => {
  const { room, at } = await member();
  room.publish("message", { a: 1 });
  room.publish("ring");
  room.history({ beforeSeq: 4 });
  const asking = room.presence();
  await at().answer("room.presence", { members: [{ user: "ann" }] });
  assert.deepEqual(await asking, [{ user: "ann" }]);
  assert.deepEqual(at().asked("room.publish"), [
    { room: "r", event: "message", data: { a: 1 } },
    { room: "r", event: "ring", data: null },
  ]);
  assert.deepEqual(at().asked("room.history"), [{ room: "r", before_seq: 4 }]);
});
