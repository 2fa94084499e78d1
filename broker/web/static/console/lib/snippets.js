/**
 * A request as a program: for curl, Python and JavaScript. Each can be run as it is; where a token is needed it takes
 * that from `TOKEN`, and never has it in it.
 */

export const TOKEN = "$TOKEN"; // stands for the token wherever one is written down

/**
 * What a request is, and where it goes.
 * @typedef {{action: string, payload: unknown, http: {method: string, path: string}|null, base: string,
 *   hasToken: boolean}} Request
 *   `base` is the broker's address with a slash at its end; `hasToken`, whether one has to say who one is
 */

/** @param {Request} request */
export function curl(request) {
  const { http, base, hasToken } = request;
  const head = hasToken ? ['-H "Authorization: Bearer $TOKEN"'] : [];
  if (!http) return handshake(request, head);
  const { path, rest } = placed(request);
  const url = base.replace(/\/$/, "") + path;
  if (http.method === "GET") return joined(["curl", quoted(url + queryOf(rest)), ...head]);
  const body = `-d ${quoted(JSON.stringify(rest))}`;
  return joined([`curl -X ${http.method}`, quoted(url), ...head, "-H 'Content-Type: application/json'", body]);
}

/** @param {Request} request */
export function python({ action, payload, base, hasToken }) {
  const token = hasToken ? ', token=os.environ["TOKEN"]' : "";
  const needsOs = hasToken || JSON.stringify(payload).includes(TOKEN);
  return [
    "import asyncio",
    ...(needsOs ? ["import os"] : []),
    "",
    "from broker.client import connect",
    "",
    "",
    "async def main():",
    `    async with connect(url=${JSON.stringify(socketOf(base))}${token}) as broker:`,
    `        print(await broker.request(${JSON.stringify(action)}, ${pythonLiteral(payload)}))`,
    "",
    "",
    "asyncio.run(main())",
    "",
  ].join("\n");
}

/** @param {Request} request */
export function javascript({ action, payload, base, hasToken }) {
  const token = hasToken ? `, getToken: () => ${JSON.stringify(TOKEN)}` : "";
  return [
    "// For a page of the broker, or its developer tools. Elsewhere: npm install actor-broker-client, and import that.",
    `const { Broker } = await import(${JSON.stringify(`${base}client.js`)});`,
    `const broker = new Broker({ url: ${JSON.stringify(socketOf(base))}${token} });`,
    "await broker.connect();",
    `console.log(await broker.request(${JSON.stringify(action)}, ${JSON.stringify(payload)}));`,
    "broker.close();",
    "",
  ].join("\n");
}

/** The address of the socket beside a page. */
function socketOf(base) {
  return `${base.replace(/^http/, "ws")}ws`;
}

/** Of the way over HTTP: the path with the fields that are part of it, and the rest of the payload. */
function placed({ action, payload, http }) {
  if (typeof payload !== "object" || payload === null) return { path: http.path, rest: payload };
  const rest = { ...payload };
  let { path } = http;
  if (action === "session.history") {
    // over HTTP these are two endpoints, and `kind` is the kind of records
    if (rest.kind === "messages") path = path.replace(/records$/, "messages");
    delete rest.kind;
  }
  path = path.replace(/\{(\w+)\}/g, (_, name) => {
    const value = encodeURIComponent(rest[name] ?? "");
    delete rest[name];
    return value;
  });
  return { path, rest };
}

function queryOf(payload) {
  const query = new URLSearchParams(Object.entries(payload).filter(([, value]) => value !== null));
  return query.size ? `?${query}` : "";
}

/** Over a socket curl cannot say a message; it can show that the broker answers, and as whom it lets one in. */
function handshake({ action, base }, head) {
  return [
    `# ${action} goes over a socket alone, and curl says nothing over one: use Python or JavaScript for it.`,
    "# This shows that the handshake is answered (101), and the welcome; it ends after a second.",
    joined([
      `curl -i -s -N --http1.1 --max-time 1 ${quoted(`${base}ws`)}`,
      ...head,
      "-H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13'",
      "-H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' -H 'Sec-WebSocket-Protocol: broker.v1.json'",
    ]),
  ].join("\n");
}

function joined(parts) {
  return parts.join(" \\\n  ");
}

/** A word for a shell, in which only the token is filled in. */
function quoted(text) {
  const safe = text.replaceAll("'", "'\\''");
  return `'${safe.replaceAll(TOKEN, `'"${TOKEN}"'`)}'`;
}

function pythonLiteral(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (value === TOKEN) return 'os.environ["TOKEN"]';
  if (Array.isArray(value)) return `[${value.map(pythonLiteral).join(", ")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  const items = Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${pythonLiteral(item)}`);
  return `{${items.join(", ")}}`;
}
