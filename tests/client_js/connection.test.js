/** How the client connects, comes back, and stays away (PROTOCOL section 2c). */

import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import test from "node:test";

import { page, settled, WELCOME, world } from "./world.js";

const NEARLY = 1 - 2 ** -53;

/** A token that says when it ends, in milliseconds. */
function jwt(endsAt) {
  return `h.${Buffer.from(JSON.stringify({ exp: endsAt / 1000, "?>": "~~" })).toString("base64url")}.s`;
}

test("delays are drawn from all of 0 to 0.5 s, doubled up to 20 s, and begin anew after a steady link", async () => {
  for (const chance of [0, NEARLY]) {
    const { broker, clock, states, sockets } = world({ chance });
    broker.connect();
    await settled();
    for (let n = 0; n < 8; n++) {
      await sockets.at(-1).drop();
      const { state, delay, willRetry } = states.at(-1);
      assert.deepEqual([state, willRetry], ["waiting", true]);
      assert.equal(delay, chance * Math.min(20_000, 500 * 2 ** n));
      await clock.pass(delay);
      assert.equal(sockets.length, n + 2);
    }
    await sockets.at(-1).welcome();
    await clock.pass(4000);
    await sockets.at(-1).drop();
    assert.equal(states.at(-1).delay, chance * 20_000, "a link that lived for 4 s is not steady");
    await clock.pass(20_000);
    await sockets.at(-1).welcome();
    await clock.pass(5000);
    await sockets.at(-1).drop();
    assert.equal(states.at(-1).delay, chance * 500);
  }
});

test("after a restart it is back within a second, or when it was told to be", async () => {
  const { broker, clock, states, sockets } = world({ chance: NEARLY });
  broker.connect();
  await settled();
  for (let n = 0; n < 5; n++) {
    await sockets.at(-1).drop();
    await clock.pass(20_000);
  }
  await sockets.at(-1).welcome();
  await sockets.at(-1).drop(1012);
  assert.ok(states.at(-1).delay <= 1000);
  await clock.pass(1000);
  await sockets.at(-1).welcome();
  await sockets.at(-1).note("restarting", { data: { retry_after: 3 } });
  await clock.pass(1000);
  await sockets.at(-1).drop(1012);
  assert.equal(states.at(-1).delay, 2000);
});

test("4000 to 4499 come back, 4500 to 4999 do not and say why", async () => {
  for (const code of [1000, 1006, 3000, 4000, 4499]) {
    const { connect, sockets, states } = world();
    await connect();
    await sockets[0].drop(code);
    assert.equal(states.at(-1).state, "waiting", `${code}`);
  }
  for (const code of [4500, 4503, 4999]) {
    const { broker, clock, sockets, states } = world();
    const connecting = broker.connect();
    await settled();
    await sockets[0].drop(code, "go away");
    await assert.rejects(connecting, { code: "disconnected", message: /go away/ });
    assert.deepEqual(states.at(-1), { state: "closed", willRetry: false, code, reason: "go away", delay: null });
    await clock.pass(100_000);
    assert.equal(sockets.length, 1);
    assert.equal(clock.size, 0);
  }
});

test("a token is asked for at each attempt, once at a time, with the reason, and never shown in a URL", async () => {
  const reasons = [];
  const waiting = [];
  const getToken = ({ reason }) => {
    reasons.push(reason);
    return new Promise((...both) => waiting.push(both));
  };
  const { broker, clock, sockets, states } = world({ getToken });
  const both = [broker.connect(), broker.connect()];
  broker.close();
  await assert.rejects(Promise.all(both), { code: "disconnected" });
  const again = broker.connect();
  await settled();
  assert.deepEqual(reasons, ["connect"]);
  waiting[0][0]("secret");
  await settled();
  assert.equal(sockets.length, 1);
  assert.deepEqual([sockets[0].url, sockets[0].protocols], ["ws://test/ws", ["broker.v1.json", "bearer.secret"]]);
  await sockets[0].welcome({ user: "ann" });
  assert.equal((await again).user, "ann");
  await sockets[0].drop(4001);
  await clock.pass(500);
  waiting[1][1](new Error("the server that makes tokens is down"));
  await settled();
  assert.equal(states.at(-1).state, "waiting");
  await clock.pass(1000);
  waiting[2][1](Object.assign(new Error("signed out"), { fatal: true }));
  await settled();
  assert.deepEqual(reasons, ["connect", "expired", "expired"]);
  assert.deepEqual([states.at(-1).state, states.at(-1).reason], ["closed", "signed out"]);
  broker.connect();
  await settled();
  waiting[3][0]("two words");
  await settled();
  assert.equal(states.at(-1).state, "closed");
  assert.doesNotMatch(states.at(-1).reason, /two words/);
});

test("what a token says of its end has a new one shown on the same line ahead of it", async () => {
  const reasons = [];
  const token = jwt(2_000_000);
  const { connect, clock, sockets, errors } = world({
    getToken: ({ reason }) => {
      reasons.push(reason);
      return token;
    },
  });
  await connect({ heartbeat: 1e6 });
  await clock.pass(939_000);
  assert.deepEqual(sockets[0].asked("auth"), []);
  await clock.pass(1000);
  assert.deepEqual(sockets[0].asked("auth"), [{ token }]);
  await sockets[0].refuse("auth", { code: "unavailable" });
  assert.equal(errors.at(-1).code, "unavailable");
  await clock.pass(48_000);
  assert.equal(sockets[0].asked("auth").length, 2);
  await sockets[0].answer("auth", { expires_at: new Date(clock.now() + 3_600_000).toISOString() });
  await clock.pass(3_539_000);
  assert.equal(sockets[0].asked("auth").length, 2);
  await clock.pass(1000);
  assert.equal(sockets[0].asked("auth").length, 3);
  assert.deepEqual([reasons, sockets.length], [["connect", "expiring", "expiring", "expiring"], 1]);
});

test("a token that ran out while nobody was connected is said to have, and one that lasts is left alone", async () => {
  const reasons = [];
  const ends = [1_000_900, 2e12];
  const getToken = ({ reason }) => (reasons.push(reason), jwt(ends.shift()));
  const { connect, clock, sockets, errors } = world({ getToken });
  await connect({ heartbeat: 1e5 });
  await clock.pass(900);
  await sockets[0].drop();
  await connect({ heartbeat: 1e5 });
  assert.deepEqual([reasons, errors], [["connect", "expired"], []]);
});

test("without a new token the old one is used up", async () => {
  const tokens = [jwt(2_000_000)];
  const { connect, clock, sockets, errors } = world({ getToken: () => tokens.pop() });
  await connect({ heartbeat: 1e6 });
  await clock.pass(1e6);
  assert.deepEqual([tokens, sockets[0].sent, errors], [[], [], []]);
});

test("a broker that does not welcome, and a line that carries nothing, are given up after ten seconds", async () => {
  const { broker, clock, sockets, states } = world();
  broker.connect();
  await clock.pass(10_000);
  assert.deepEqual([states.at(-1).state, states.at(-1).code, sockets[0].closed], ["waiting", 4000, 1000]);
  await clock.pass(500);
  await sockets[1].welcome();
  await clock.pass(30_000);
  await sockets[1].answer("ping", {});
  await clock.pass(30_000);
  assert.equal(sockets[1].asked("ping").length, 2);
  await clock.pass(9999);
  assert.equal(broker.state, "open");
  await clock.pass(1);
  assert.deepEqual([broker.state, states.at(-1).reason], ["waiting", "no answer to a ping"]);
});

test("a line that is slow but moves is no dead one", async () => {
  const { connect, broker, clock, sockets } = world();
  await connect();
  sockets[0].bufferedAmount = 900_000;
  await clock.pass(30_000);
  sockets[0].bufferedAmount = 800_000;
  await clock.pass(32_000);
  await sockets[0].note("tap");
  await clock.pass(10_000);
  assert.deepEqual([sockets[0].asked("ping").length, broker.state], [2, "open"]);
});

test("with a full socket it holds back, in order and within bounds, what somebody still waits for", async () => {
  const { connect, broker, clock, sockets } = world({ queue: { bytes: 2000 } });
  await connect();
  sockets[0].bufferedAmount = 1 << 20;
  const life = new AbortController();
  const gone = broker.request("echo", "gone", { signal: life.signal });
  const kept = [1, 2, 3].map((n) => broker.request("echo", [n, "x".repeat(1000)]));
  life.abort(new Error("not needed"));
  await assert.rejects(gone, { message: "not needed" });
  await assert.rejects(kept[2], { code: "queue_full" });
  await clock.pass(1000);
  assert.deepEqual(sockets[0].sent, []);
  sockets[0].bufferedAmount = 0;
  await clock.pass(50);
  assert.deepEqual(sockets[0].asked("echo").map(([n]) => n), [1, 2]);
});

test("a request ends with its answer, its time, its signal or its line, and leaves nothing behind", async () => {
  const { connect, broker, clock, sockets, errors } = world();
  await assert.rejects(broker.request("echo"), { code: "disconnected", retryable: true });
  await connect();
  const timers = clock.size;
  const { signal } = new AbortController();
  const good = broker.request("echo", { a: 1 }, { signal });
  await sockets[0].answer("echo", { a: 1 });
  assert.deepEqual(await good, { a: 1 });
  assert.deepEqual(getEventListeners(signal, "abort"), []);
  const bad = broker.request("echo");
  await sockets[0].refuse("echo", { code: "rate_limited", retryable: true, retry_after: 2, hint: "Wait.", field: "$" });
  await assert.rejects(bad, { code: "rate_limited", retryAfter: 2, words: "No: Wait.", field: "$" });
  const late = broker.request("echo", {}, { timeout: 50 });
  await Promise.all([assert.rejects(late, { code: "timeout" }), clock.pass(50)]);
  await sockets[0].answer("echo", "too late");
  const aborted = AbortSignal.abort(new Error("before"));
  await assert.rejects(broker.request("echo", {}, { signal: aborted }), { message: "before" });
  await assert.rejects(broker.request("echo", "ä".repeat(600_000)), { code: "too_large" });
  assert.equal(clock.size, timers);
  const lost = broker.request("echo");
  await sockets[0].drop();
  await assert.rejects(lost, { code: "disconnected" });
  assert.deepEqual(errors, []);
});

test("what it cannot read or does not know is an event and no end", async () => {
  const { connect, broker, sockets, errors } = world();
  const notes = [];
  broker.on("notification", (note) => notes.push(note.event));
  await connect();
  const refusal = { type: "error", data: { code: "invalid_json", message: "No." } };
  await sockets[0].say("{", "null", "7", { type: "error" }, refusal);
  assert.deepEqual(
    errors.map(({ code }) => code),
    ["invalid_message", "invalid_message", "invalid_message", "invalid_json"],
  );
  await sockets[0].note("tap", { data: 1 });
  await sockets[0].note("brand.new", { session_id: "another", data: {} });
  assert.deepEqual(notes, ["tap", "brand.new"]);
  assert.equal(broker.state, "open");
});

test("a page that is left lets go of its socket, and one that is come back to takes it up", async (t) => {
  const happens = page(t);
  const { connect, broker, clock, sockets, states } = world();
  await connect();
  await happens("pagehide");
  assert.deepEqual([sockets[0].closed, states.at(-1).state, states.at(-1).delay], [1000, "waiting", null]);
  await clock.pass(1e6);
  assert.equal(sockets.length, 1);
  await happens("pageshow");
  await sockets[1].welcome();
  assert.equal(broker.state, "open");
  await happens("pageshow");
  assert.equal(sockets.length, 2);
});

test("a network that comes back is tried out, at once, and without one nothing is tried", async (t) => {
  const happens = page(t);
  const { connect, broker, clock, sockets, states } = world();
  await connect();
  await happens("offline");
  assert.equal(broker.state, "open", "only the line says whether it is dead");
  await sockets[0].drop();
  assert.equal(states.at(-1).delay, null);
  await clock.pass(1e6);
  assert.equal(sockets.length, 1);
  await happens("online");
  await sockets[1].welcome();
  await happens("visibilitychange");
  assert.equal(sockets[1].asked("ping").length, 1);
  document.hidden = true;
  await happens("visibilitychange");
  assert.equal(sockets[1].asked("ping").length, 1);
  await clock.pass(10_000);
  assert.equal(broker.state, "waiting");
  document.hidden = false;
  await happens("visibilitychange");
  assert.equal(sockets.length, 3);
  broker.close();
  await happens("online");
  assert.deepEqual([sockets.length, clock.size], [3, 0]);
});

test("what is connected stays so, and the address may be one of HTTP", async () => {
  const { connect, broker, sockets } = world({ url: new URL("https://example.org/broker/ws") });
  await connect();
  assert.equal(sockets[0].url, "wss://example.org/broker/ws");
  assert.deepEqual(await broker.connect(), WELCOME);
  assert.equal(sockets.length, 1);
});
