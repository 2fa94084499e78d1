/** Says what the JavaScript client sees of a turn, a record a line, and of another one that was sent while nobody was there. */

import { createRequire } from "node:module";

const [url, client, tools] = process.argv.slice(2);
const { Broker } = await import(client);
const { WebSocket } = createRequire(`${tools}/`)("ws");

function say(what) {
  process.stdout.write(`${JSON.stringify(what)}\n`);
}

const broker = new Broker({ url, WebSocket });
broker.on("state", ({ state }) => say({ state }));
await broker.connect();
const session = await broker.createSession({ agent: "slow" });
session.on("reset", () => say({ reset: true }));
const turn = session.send(Array.from({ length: 1000 }, (_, number) => `word-${number}`).join(" "));
const lost = new Promise((resolve) => broker.on("state", ({ state }) => state === "waiting" && resolve()));
const next = lost.then(() => session.send("still there?"));
say(await turn.accepted);
for await (const { seq, event } of turn) say({ seq, event });
say(await turn);
say({ next: (await next).outcome });
broker.close();
