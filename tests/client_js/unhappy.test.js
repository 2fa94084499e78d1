/** How the client bears what it is not meant to meet: losses at bad moments, broken storage, a broker that talks nonsense. */

import assert from "node:assert/strict";
import test from "node:test";

import { attached, following, page, record, settled, storage, world } from "./world.js";

const ACCEPTED = { turn_id: "t", seq: 2, status: "dispatching", duplicate: false, durable: true };
const CAUGHT_UP = { type: "notification", event: "session.caught_up", session_id: "s", data: { head: 3 } };

const said = (seq, turn, id = "t") => record(seq, "user.message", { client_msg_id: turn.clientMsgId }, id);
const ended = (seq, outcome = "completed", id = "t") => record(seq, "turn.ended", { outcome, partial: false }, id);
const delta = (seq, text) => record(seq, "message.delta", { message_id: "a", text }, "t");

test("no promise of a turn is left open by a close, a detach, or an answer that never came", async () => {
  const closed = await following();
  const sending = closed.session.send("x");
  closed.broker.close();
  await settled();
  await assert.rejects(sending.ended, { code: "disconnected" });
  const detached = await following();
  const accepted = detached.session.send("x");
  detached.session.detach();
  await detached.socket.answer("turn.start", ACCEPTED);
  assert.deepEqual(await accepted.accepted, ACCEPTED);
  const lost = await following();
  const over = lost.session.send("x");
  await lost.socket.say(record(1), said(2, over), ended(3));
  await lost.socket.drop();
  assert.deepEqual(await over.accepted, { turn_id: "t" });
});

test("a turn whose records are all here is not given up because the broker knows of its end first", async () => {
  const { session, socket, connect, at } = await following();
  const turn = session.send("x");
  await socket.answer("turn.start", ACCEPTED, record(1), said(2, turn));
  await socket.drop();
  await connect();
  await at().answer("session.attach", attached({ head: 3 }), delta(3, "one"), CAUGHT_UP, ended(4));
  assert.equal((await turn).outcome, "completed");
  assert.equal(await turn.text(), "one");
});

test("a log that begins anew in the midst of a turn doubles no word, and its end counts whatever its number", async () => {
  const { session, socket, connect, at } = await following();
  const turn = session.send("x");
  await socket.answer("turn.start", ACCEPTED, record(1), said(2, turn), delta(3, "one "), delta(4, "two "), delta(5, "three"));
  await socket.drop();
  await connect();
  const other = attached({ epoch: "f", head: 4, recovered: false });
  await at().answer("session.attach", other, record(1), said(2, turn), delta(3, "one "), ended(4, "lost"));
  assert.equal((await turn).outcome, "lost");
  assert.equal(await turn.text(), "one two three");
});

test("what waits is not overtaken while the session is not to be had", async () => {
  const { session, socket, connect, at, clock } = await following();
  await socket.drop();
  session.send("first");
  await connect();
  await at().refuse("session.attach", { code: "overloaded", retryable: true, retry_after: 1 });
  session.send("second");
  assert.deepEqual(at().asked("turn.start"), []);
  await clock.pass(5000);
  await at().answer("session.attach", attached());
  assert.deepEqual(at().asked("turn.start").map(({ content }) => content), ["first", "second"]);
});

test("a signal that is aborted without a line cancels the turn once there is one", async () => {
  const { session, socket, connect, at } = await following();
  const life = new AbortController();
  const turn = session.send("x", { signal: life.signal });
  await socket.answer("turn.start", ACCEPTED, record(1), said(2, turn));
  await socket.drop();
  life.abort();
  await settled();
  await connect();
  await at().answer("session.attach", attached({ head: 2, turn: { turn_id: "t" } }));
  assert.deepEqual(at().asked("turn.cancel"), [{ session_id: "s", turn_id: "t" }]);
});

test("what cannot be read in the storage, or written there, stops nothing", async () => {
  for (const bad of ['{"a":1}', '"x"', "5", "[null]", '[{"state":"refused"}]', "{"]) {
    const kept = storage();
    kept.kept.set("broker session_id s", bad);
    assert.deepEqual((await following({ storage: kept })).session.outbox, [], bad);
  }
  const fail = () => assert.fail("full");
  const { session, socket, records } = await following({ storage: { getItem: fail, setItem: fail, removeItem: fail } });
  const turn = session.send("x");
  await socket.answer("turn.start", ACCEPTED, record(1), said(2, turn), ended(3));
  assert.deepEqual([(await turn).outcome, records.length], ["completed", 3]);
});

test("a hundred messages that wait are written down once per step, not once each", async () => {
  let written = 0;
  const kept = { ...storage(), setItem: (_, text) => (written += text.length) };
  const { session, socket, connect, at } = await following({ storage: kept });
  await socket.drop();
  for (let n = 0; n < 100; n++) session.send("x".repeat(5000));
  await connect();
  await at().answer("session.attach", attached());
  assert.ok(written < 3e6, `${written}`);
});

test("of a session that is gone, or was deleted here, nothing is kept to be sent", async () => {
  for (const end of [
    ({ socket }) => socket.note("session.detached", { session_id: "s", data: { code: "forbidden", message: "No." } }),
    async ({ session, socket }) => {
      session.delete();
      await socket.answer("session.delete", {});
    },
  ]) {
    const kept = storage();
    const here = await following({ storage: kept });
    const turn = here.session.send("secret");
    await settled();
    assert.equal(kept.kept.size, 1);
    await end(here);
    await assert.rejects(turn.ended);
    assert.deepEqual([kept.kept.size, here.session.outbox], [0, []]);
  }
});

test("of two objects of one session the one that is no longer told anything is told that", async () => {
  const { broker, session, socket } = await following();
  session.detach();
  const second = broker.session("s");
  const told = new Promise((resolve) => second.on("gone", resolve));
  second.attach();
  await socket.answer("session.attach", attached());
  session.send("from the old one");
  assert.equal((await told).code, "disconnected");
});

test("who hears that it is closed may connect, and comes back after a network that was away before", async (t) => {
  const happens = page(t);
  const { broker, connect, sockets, states } = world();
  await connect();
  let again;
  broker.on("state", ({ code }) => code === 4500 && (again = broker.connect()));
  await happens("offline");
  await sockets[0].drop(4500);
  await happens("online");
  await sockets[1].welcome();
  await again;
  await sockets[1].drop();
  assert.notEqual(states.at(-1).delay, null);
});

test("an endless time is no time at all, a refused ping is an answer, and nothing said of a failure is a failure", async () => {
  const { broker, connect, clock, sockets } = world({ queue: { age: Infinity } });
  await connect({ heartbeat: 1e6 });
  const endless = broker.request("echo", 1, { timeout: Infinity });
  await clock.pass(1e6);
  await sockets[0].answer("echo", 1);
  assert.equal(await endless, 1);
  broker.reconnectNow();
  await sockets[0].refuse("ping", { code: "rate_limited" });
  assert.equal(broker.state, "open");
  const { broker: other, states } = world({ getToken: () => Promise.reject() });
  other.connect();
  await settled();
  assert.equal(states.at(-1).state, "waiting");
});

test("a welcome that says nothing is none, and a socket that counts no bytes is written to", async () => {
  const { broker, clock, sockets, states } = world();
  broker.connect();
  await settled();
  await sockets[0].say({ type: "notification", event: "welcome" });
  await clock.pass(10_000);
  assert.equal(states.at(-1).state, "waiting");
  await clock.pass(500);
  sockets[1].bufferedAmount = undefined;
  await sockets[1].welcome();
  broker.request("echo", 1);
  assert.equal(sockets[1].asked("echo").length, 1);
});
