// A client made with Node's `ws`: has two turns, and resumes where it was when the connection breaks in the first.
// `node client.js URL` prints a line of JSON for whatever the test waits for, and at last all it was shown.

import WebSocket from "ws";

const url = process.argv[2];
const shown = [];
const closes = [];
let session;
let epoch;
let turn = 0;
let requests = 0;

const say = (value) => console.log(JSON.stringify(value));

function connect() {
  const socket = new WebSocket(url, "broker.v1.json");
  const answers = new Map();

  const ask = (action, payload) => {
    const id = `n${++requests}`;
    socket.send(JSON.stringify({ id, type: "request", action, payload }));
    return new Promise((resolve) => answers.set(id, resolve));
  };

  const start = (text) =>
    ask("turn.start", { session_id: session, client_msg_id: `turn-${turn}`, content: text });

  const welcomed = async (data) => {
    say({ welcome: data.protocol, chosen: socket.protocol });
    if (session === undefined) {
      const created = await ask("session.create", { agent: "slow" });
      session = created.session_id;
      epoch = created.epoch;
      await start("one two three four five six seven eight nine ten");
      return;
    }
    const attached = await ask("session.attach", { session_id: session, epoch, after_seq: shown.length });
    say({ recovered: attached.recovered });
  };

  const ended = async (outcome) => {
    say({ ended: outcome });
    turn += 1;
    if (turn === 1) {
      await start("good bye");
      return;
    }
    socket.close(1000);
    say({ session, shown, closes });
  };

  socket.on("message", (text, binary) => {
    const message = JSON.parse(text);
    if (binary) throw new Error("a binary frame");
    if (message.event === "welcome") welcomed(message.data);
    if ("id" in message) answers.get(message.id)?.(message.data);
    if (!("seq" in message)) return;
    shown.push(message);
    if (message.event === "message.delta" && turn === 0) say({ streaming: message.data.text });
    if (message.event === "turn.ended") ended(message.data.outcome);
  });
  socket.on("close", (code) => {
    closes.push(code);
    if (turn < 2) setTimeout(connect, 20);
  });
  socket.on("error", () => {}); // a refused connection; "close" follows
}

connect();
