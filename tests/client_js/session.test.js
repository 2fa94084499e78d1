/** How the client follows a log and sends turns (PROTOCOL sections 1 and 2a). */

import assert from "node:assert/strict";
import test from "node:test";

import { attached, following, record, settled, storage, world } from "./world.js";

const ACCEPTED = { turn_id: "t", seq: 2, status: "dispatching", duplicate: false, durable: true };

/** What somebody said, as it stands in the log. */
function said(seq, turn, id = "t") {
  return record(seq, "user.message", { client_msg_id: turn.clientMsgId }, id);
}

/** How a turn ended. */
function ended(seq, outcome = "completed", id = "t") {
  return record(seq, "turn.ended", { outcome, partial: false }, id);
}

test("it resumes after the last record, and drops what it has", async () => {
  const { session, records, socket, connect, sockets } = await following();
  assert.deepEqual(socket.asked("session.attach"), [{ session_id: "s", after_seq: 0 }]);
  await socket.say(record(1), record(2), record(2), record(1), record(3));
  await socket.drop();
  await connect();
  assert.deepEqual(sockets[1].asked("session.attach"), [{ session_id: "s", after_seq: 3, epoch: "e" }]);
  await sockets[1].answer("session.attach", attached({ head: 4 }), record(3), record(4));
  assert.deepEqual([session.seq, records.map(({ seq }) => seq)], [4, [1, 2, 3, 4]]);
});

test("a hole is asked for again, once, and then told", async () => {
  const { session, records, socket } = await following();
  const problems = [];
  session.on("problem", ({ code }) => problems.push(code));
  await socket.say(record(1), record(3), record(4));
  assert.deepEqual(socket.asked("session.attach").at(-1), { session_id: "s", after_seq: 1, epoch: "e" });
  assert.equal(socket.asked("session.attach").length, 2);
  await socket.answer("session.attach", attached({ head: 4 }), record(2), record(3), record(4), record(6));
  assert.equal(socket.asked("session.attach").length, 3);
  await socket.answer("session.attach", attached({ head: 6 }), record(6), record(7));
  assert.deepEqual(problems, ["hole"]);
  assert.deepEqual(records.map(({ seq }) => seq), [1, 2, 3, 4, 6, 7]);
});

test("where the log cannot go on it says so, once, before what there is", async () => {
  const { session, records, socket, connect, sockets } = await following();
  const told = [];
  session.on("reset", ({ epoch, floor }) => told.push([epoch, floor, session.seq]));
  await socket.say(record(1), record(2), record(3));
  await socket.drop();
  await connect();
  const other = { epoch: "f", floor: 2, head: 3 };
  const reset = { type: "notification", event: "session.reset", session_id: "s", data: other };
  await sockets[1].answer("session.attach", attached({ ...other, recovered: false }), reset, record(2), record(3));
  assert.deepEqual(told, [["f", 2, 1]]);
  assert.deepEqual(records.map(({ seq }) => seq), [1, 2, 3, 2, 3]);
  await sockets[1].drop();
  await connect();
  assert.equal(sockets[2].asked("session.attach")[0].epoch, "f");
});

test("what only begins now is numbered from where it begins", async () => {
  const here = world();
  await here.connect();
  const session = here.broker.session("s");
  const seen = [];
  session.on("record", ({ seq }) => seen.push(seq));
  session.attach({ afterSeq: -1 });
  await here.socket.answer("session.attach", attached({ head: 70 }), record(71));
  assert.deepEqual([seen, here.socket.asked("session.attach").length], [[71], 1]);
});

test("a session that is gone says so, one that is not to be had now is asked for again", async () => {
  const { broker, session, socket, clock } = await following();
  const told = [];
  session.on("gone", ({ code }) => told.push(code));
  session.on("problem", ({ code }) => told.push(code));
  const again = session.attach();
  await socket.refuse("session.attach", { code: "overloaded", retryable: true, retry_after: 5 });
  await clock.pass(4999);
  assert.equal(socket.asked("session.attach").length, 2);
  await clock.pass(4000);
  assert.equal(socket.asked("session.attach").length, 3);
  const turn = session.send("hello");
  await socket.refuse("session.attach", { code: "not_found" });
  await assert.rejects(again, { code: "not_found" });
  assert.deepEqual([turn.state, turn.error.code, socket.asked("turn.start")], ["refused", "not_found", []]);
  assert.deepEqual(told, ["overloaded", "not_found"]);
  assert.notEqual(broker.session("s"), session);
});

test("there is one object of a session, which is let go of when nothing is left of it", async () => {
  const { broker, session, socket, connect, sockets } = await following();
  assert.equal(broker.session("s"), session);
  const detaching = session.detach();
  await socket.answer("session.detach", {});
  await detaching;
  assert.notEqual(broker.session("s"), session);
  await socket.drop();
  await connect();
  assert.deepEqual(sockets[1].sent, []);
});

test("a new session is followed from its first record", async () => {
  const { broker, connect, sockets } = world();
  await connect();
  const making = broker.createSession({ agent: "echo" });
  await sockets[0].answer("session.create", { session_id: "s", epoch: "e", head: 1 }, record(1, "session.opened"));
  const session = await making;
  assert.deepEqual([session.seq, session.epoch, session.isFollowed, broker.session("s")], [1, "e", true, session]);
});

test("a turn is a promise of its end and an iterator of its records, for as many as want it", async () => {
  const { session, socket } = await following();
  const turn = session.send("hello", { ifBusy: "reject", retryOf: "t0", metadata: { a: 1 } });
  assert.deepEqual([turn.state, turn.id, session.outbox], ["sending", null, [turn]]);
  const { client_msg_id, ...asked } = socket.asked("turn.start")[0];
  assert.equal(client_msg_id, turn.clientMsgId);
  assert.deepEqual(asked, { session_id: "s", content: "hello", if_busy: "reject", retry_of: "t0", metadata: { a: 1 } });
  await socket.say(record(1));
  const others = record(3, "debug", {}, "another");
  await socket.answer("turn.start", ACCEPTED, said(2, turn), others, record(4, "debug", {}, "t"));
  assert.deepEqual([await turn.accepted, turn.state, session.outbox], [ACCEPTED, "accepted", []]);
  for await (const { seq } of turn) {
    assert.equal(seq, 2);
    break;
  }
  const seen = [];
  const reading = (async () => {
    for await (const { seq } of turn) seen.push(seq);
  })();
  await settled();
  assert.deepEqual(seen, [2, 4]);
  const delta = (seq, message_id, text) => record(seq, "message.delta", { message_id, text }, "t");
  const whole = record(8, "message.completed", { message_id: "b", content: "world" }, "t");
  const thought = record(9, "message.replaced", { message_id: "c", thought: true, content: "Hm." }, "t");
  await socket.say(delta(5, "a", "Hel"), delta(6, "a", "lo "), delta(7, "b", "wo"), whole, thought, ended(10));
  await reading;
  assert.deepEqual(seen, [2, 4, 5, 6, 7, 8, 9, 10]);
  assert.deepEqual([await turn, turn.state], [{ outcome: "completed", partial: false }, "ended"]);
  assert.equal(await turn, turn.outcome);
  assert.equal(await turn.text(), "Hello world");
  assert.deepEqual(await turn.cancel(), { status: "ended", outcome: "completed" });
});

test("a record that overtakes the answer is the turn's all the same", async () => {
  const { session, socket } = await following();
  const turn = session.send("hello");
  await socket.say(record(1), said(2, turn), ended(3));
  assert.deepEqual([(await turn).outcome, session.outbox], ["completed", []]);
  await socket.answer("turn.start", ACCEPTED);
  assert.deepEqual([await turn.accepted, turn.state, session.outbox], [ACCEPTED, "ended", []]);
});

test("what is sent without a line is sent in order with the next, and after a loss again under the same id", async () => {
  const { session, socket, connect, sockets, clock } = await following();
  await socket.drop();
  const [one, two] = [session.send("one"), session.send("two")];
  assert.deepEqual([one.state, two.state], ["waiting", "waiting"]);
  await connect();
  assert.deepEqual(sockets[1].asked("turn.start"), []);
  await sockets[1].answer("session.attach", attached());
  const sent = sockets[1].asked("turn.start");
  assert.deepEqual(sent.map(({ content }) => content), ["one", "two"]);
  await sockets[1].drop();
  await connect();
  await sockets[2].answer("session.attach", attached({ head: 2 }), record(1), said(2, one));
  assert.deepEqual(sockets[2].asked("turn.start"), sent);
  assert.deepEqual(session.outbox, [two]);
  await sockets[2].answer("turn.start", { ...ACCEPTED, turn_id: "u", seq: 3 });
  await sockets[2].drop();
  await connect();
  await sockets[3].answer("session.attach", attached({ head: 3, queue: [{ turn_id: "t" }, { turn_id: "u" }] }));
  assert.deepEqual(sockets[3].asked("turn.start").map(({ content }) => content), ["one"], "its answer never came");
  const rest = [said(3, two, "u"), ended(4), ended(5, "lost", "u")];
  await sockets[3].answer("turn.start", { ...ACCEPTED, duplicate: true }, ...rest);
  assert.ok((await one.accepted).duplicate);
  assert.deepEqual([(await one).outcome, (await two).outcome], ["completed", "lost"]);
  await clock.pass(4e6);
  assert.deepEqual([one.state, two.state, session.outbox], ["ended", "ended", []]);
});

test("the queue is bounded in number, size and time, and says which", async () => {
  const { session, socket, clock } = await following({ queue: { count: 3, bytes: 4000, age: 60_000 } });
  await socket.drop();
  const small = [1, 2].map((n) => session.send(`${n}`));
  const large = session.send("x".repeat(4000));
  assert.deepEqual([large.state, large.error.code, session.outbox], ["refused", "queue_full", small]);
  await assert.rejects(large.accepted, { code: "queue_full" });
  await assert.rejects(Promise.resolve(large), { code: "queue_full" });
  small.push(session.send("3"));
  await assert.rejects(session.send("4").ended, { code: "queue_full" });
  socket.onclose = null;
  await clock.pass(60_000);
  for (const turn of small) await assert.rejects(turn.accepted, { code: "expired" });
  assert.deepEqual(session.outbox.map(({ state }) => state), ["refused", "refused", "refused"]);
  small[0].retry();
  assert.equal(small[0].state, "waiting");
  assert.ok(small[1].discard());
  assert.deepEqual(session.outbox, [small[0], small[2]]);
});

test("what waits outlives a reload, under its id, with how far it came", async () => {
  const kept = storage();
  const { broker, session, socket } = await following({ storage: kept });
  const lost = session.send("sent, not answered");
  const refused = session.send("refused");
  await socket.refuse("turn.start", { code: "busy", message: "Busy." });
  broker.close();
  await assert.rejects(lost.accepted, { code: "disconnected" });
  const next = await following({ storage: kept });
  const [again, still] = next.session.outbox;
  assert.deepEqual([again.clientMsgId, again.content], [lost.clientMsgId, "sent, not answered"]);
  assert.deepEqual([still.clientMsgId, still.state, still.error.words], [refused.clientMsgId, "refused", "Busy."]);
  assert.deepEqual(next.socket.asked("turn.start").map(({ content }) => content), ["sent, not answered"]);
  assert.ok(still.discard());
  await next.socket.answer("turn.start", ACCEPTED, record(1), said(2, again));
  assert.deepEqual([next.session.outbox, kept.kept.size], [[], 0]);
  const full = await following({ storage: { ...kept, setItem: () => assert.fail("full") } });
  assert.equal(full.session.send("kept in memory").state, "sending");
});

test("a refused turn says why, and may be tried again under its id", async () => {
  const { session, socket } = await following();
  const turn = session.send("hello");
  const reading = assert.rejects(async () => {
    for await (const one of turn) assert.fail(one);
  }, { code: "busy" });
  await socket.refuse("turn.start", { code: "busy", message: "A turn is running.", hint: "Wait." });
  await reading;
  await assert.rejects(Promise.resolve(turn), { words: "A turn is running: Wait." });
  await assert.rejects(turn.text(), { code: "busy" });
  assert.deepEqual([turn.state, session.outbox], ["refused", [turn]]);
  turn.retry();
  const [first, second] = socket.asked("turn.start");
  assert.deepEqual(first, second);
  await socket.answer("turn.start", ACCEPTED, record(1), said(2, turn), ended(3));
  assert.equal((await turn).outcome, "completed");
});

test("a turn that a stopping broker does not begin waits for the next one", async () => {
  const { session, socket, connect, at } = await following();
  await socket.note("restarting", { data: { retry_after: 1 } });
  const turn = session.send("hello");
  await socket.refuse("turn.start", { code: "unavailable", retryable: true });
  assert.equal(turn.state, "waiting");
  await socket.drop(1012);
  await connect();
  await at().answer("session.attach", attached());
  assert.equal(at().asked("turn.start").length, 1);
});

test("a turn that had ended before anybody here followed the session is not waited for", async () => {
  const { session, socket } = await following();
  await socket.say(record(1), record(2), record(3));
  const turn = session.send("hello", { clientMsgId: "once more" });
  await socket.answer("turn.start", { ...ACCEPTED, status: "ended", duplicate: true });
  assert.deepEqual([session.outbox, (await turn.accepted).duplicate], [[], true]);
  const caughtUp = { type: "notification", event: "session.caught_up", session_id: "s", data: { head: 3 } };
  await socket.answer("session.attach", attached({ head: 3 }), caughtUp);
  await assert.rejects(turn.text(), { code: "hole" });
});

test("of two attaches the later one counts", async () => {
  const { session, socket } = await following();
  const [{ id }] = socket.sent;
  const both = [session.attach({ afterSeq: -1 }), session.attach({ afterSeq: 0 })];
  const [, first, second] = socket.sent;
  assert.ok(id && first.payload.after_seq === -1 && second.payload.after_seq === 0);
  await socket.say({ id: first.id, type: "response", data: attached({ head: 9 }) }, record(10), record(11));
  await socket.say({ id: second.id, type: "response", data: attached({ head: 9, variables: {} }) }, record(1));
  assert.deepEqual((await Promise.all(both)).map(({ variables }) => variables), [{}, {}]);
  assert.equal(session.seq, 1);
});

test("an answer that never came is made up for by the log", async () => {
  const { session, socket, clock } = await following();
  const turn = session.send("hello");
  await clock.pass(20_000);
  await socket.say({ id: "?", type: "response" });
  await clock.pass(10_000);
  assert.deepEqual([turn.state, turn.error.code], ["refused", "timeout"]);
  await socket.say(record(1), said(2, turn));
  assert.equal(socket.asked("turn.start").length, 2);
  await socket.answer("turn.start", { ...ACCEPTED, duplicate: true }, ended(3));
  assert.equal((await turn).outcome, "completed");
});

test("to cancel takes back what was never sent, and otherwise asks the broker", async () => {
  const { session, socket, connect, at } = await following();
  const life = new AbortController();
  const running = session.send("running", { signal: life.signal });
  await socket.answer("turn.start", ACCEPTED, record(1), said(2, running));
  life.abort();
  await settled();
  assert.deepEqual(socket.asked("turn.cancel"), [{ session_id: "s", turn_id: "t" }]);
  await socket.answer("turn.cancel", { status: "cancelling" }, ended(3, "cancelled"));
  assert.equal((await running).outcome, "cancelled");
  const lost = session.send("lost");
  await socket.drop();
  const never = session.send("never", { signal: AbortSignal.abort() });
  await assert.rejects(never.accepted, { code: "cancelled" });
  assert.equal(lost.discard(), false, "it may be in the log");
  const cancelling = lost.cancel();
  await connect();
  await at().answer("session.attach", attached({ head: 3 }));
  assert.deepEqual(at().asked("turn.start").map(({ content }) => content), ["lost"]);
  await at().answer("turn.start", { ...ACCEPTED, turn_id: "u", seq: 4 });
  await at().answer("turn.cancel", { status: "ended", outcome: "cancelled" });
  assert.deepEqual(await cancelling, { status: "ended", outcome: "cancelled" });
  assert.equal(at().asked("turn.cancel")[0].turn_id, "u");
});

test("a turn of somebody else's is followed, and one that is over is not waited for", async () => {
  const { session, socket } = await following();
  await socket.say(record(1));
  const [running, over] = [session.turn("t"), session.turn("gone")];
  assert.equal(session.turn("t"), running);
  const caughtUp = { type: "notification", event: "session.caught_up", session_id: "s", data: { head: 1 } };
  await socket.answer("session.attach", attached({ head: 1, turn: { turn_id: "t" } }), caughtUp, ended(2));
  await assert.rejects(Promise.resolve(over), { code: "hole" });
  assert.equal((await running).outcome, "completed");
});

test("nothing more is waited for once the connection is closed, and all goes on when it is opened", async () => {
  const { broker, session, socket, connect, at, records } = await following();
  const [turn, waits] = [session.send("hello"), session.send("later")];
  const [{ id }] = socket.sent.filter(({ action }) => action === "turn.start");
  await socket.say(record(1), said(2, turn), { id, type: "response", data: ACCEPTED });
  const reading = assert.rejects(async () => {
    for await (const { seq } of turn) assert.equal(seq, 2);
  }, { code: "disconnected" });
  const ends = [assert.rejects(Promise.resolve(turn)), assert.rejects(waits.accepted, { code: "disconnected" })];
  await settled();
  broker.close();
  await Promise.all([reading, ...ends]);
  await connect();
  await at().answer("session.attach", attached({ head: 3, turn: { turn_id: "t" } }));
  const end = turn.ended;
  assert.deepEqual(await turn.accepted, ACCEPTED);
  await at().say(ended(3));
  assert.deepEqual(records.map(({ seq }) => seq), [1, 2, 3]);
  assert.equal((await end).outcome, "completed");
  assert.equal(at().asked("turn.start").at(-1).content, "later");
});

test("what is left to send of a session that is followed no longer is sent all the same", async () => {
  const { session, socket, connect, at } = await following();
  await socket.drop();
  const turn = session.send("hello");
  session.detach();
  await connect();
  assert.deepEqual([at().asked("session.attach"), at().asked("turn.start").length], [[], 1]);
  await at().answer("turn.start", ACCEPTED);
  assert.deepEqual([await turn.accepted, session.outbox], [ACCEPTED, []]);
});

test("its other requests are those of the protocol", async () => {
  const { session, socket } = await following();
  session.update({ title: "T" });
  session.history({ kind: "messages", beforeSeq: 9, limit: 5 });
  session.answer("a", "yes");
  session.request("session.configure", { mode: "plan" });
  session.close();
  session.delete();
  const asked = socket.sent.slice(1).map(({ action, payload }) => [action, payload]);
  assert.deepEqual(asked, [
    ["session.update", { session_id: "s", title: "T" }],
    ["session.history", { session_id: "s", kind: "messages", before_seq: 9, limit: 5 }],
    ["approval.answer", { session_id: "s", approval_id: "a", option_id: "yes" }],
    ["session.configure", { session_id: "s", mode: "plan" }],
    ["session.close", { session_id: "s" }],
    ["session.delete", { session_id: "s" }],
  ]);
});
