/** Requests as they are written and kept: placeholders, and what may be wrong with a payload. */

import { TOKEN } from "./snippets.js";

const SAVED = "broker.console.requests"; // localStorage: they outlive the tab
const MOST = 100;
const PLACEHOLDERS = {
  session_id: "$last.session_id",
  turn_id: "$last.turn_id",
  approval_id: "$last.approval_id",
  client_msg_id: "$new",
};

/** A template's payload with placeholders where what stands there is made as one goes on. */
export function exampleOf({ payload }) {
  if (typeof payload !== "object" || payload === null || Array.isArray(payload)) return payload;
  return Object.fromEntries(Object.entries(payload).map(([name, value]) => [name, PLACEHOLDERS[name] ?? value]));
}

/**
 * A payload with its placeholders filled in: `$new` is a new id, `$last.name` what was last called so by the broker.
 * @param {unknown} value
 * @param {{last: Map<string, unknown>, token: string|null}} known
 */
export function filled(value, known) {
  if (Array.isArray(value)) return value.map((item) => filled(item, known));
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, filled(item, known)]));
  }
  if (value === "$new") return crypto.randomUUID?.() ?? `m${Date.now()}${Math.random().toString(36).slice(2)}`;
  if (value === TOKEN) return known.token ?? TOKEN;
  if (typeof value !== "string" || !value.startsWith("$last.")) return value;
  const name = value.slice("$last.".length);
  if (!known.last.has(name))
    throw new Error(`Nothing has said what ${name} is yet: ${value} takes it from what the broker said last.`);
  return known.last.get(name);
}

/** A text in which none of these tokens stands any more. */
export function withoutTokens(text, tokens) {
  return tokens.filter(Boolean).reduce((safe, token) => safe.replaceAll(token, TOKEN), text);
}

/**
 * What is wrong with the text of a payload, in a sentence; empty if nothing is.
 * @param {string} text
 * @param {object|undefined} schema of the action, if it is known
 */
export function faultOf(text, schema) {
  let payload;
  try {
    payload = JSON.parse(text);
  } catch (error) {
    return `This is not JSON: ${error.message}`;
  }
  if (schema?.type !== "object") return "";
  if (typeof payload !== "object" || payload === null || Array.isArray(payload))
    return "The payload has to be an object: {…}";
  const missing = (schema.required ?? []).filter((name) => !(name in payload));
  if (missing.length) return `Missing: ${missing.join(", ")}.`;
  const unknown = Object.keys(payload).filter((name) => !(name in schema.properties));
  return unknown.length
    ? `This action knows no ${unknown.join(", ")}; it takes ${Object.keys(schema.properties).join(", ")}.`
    : "";
}

/** Sequences of requests under names, in this browser; tokens are never among them. */
export class Saved {
  #items;

  constructor() {
    this.#items = read();
  }

  /** `{name, steps: [{action, payload}]}`, by name. */
  get all() {
    return [...this.#items].sort((one, other) => one.name.localeCompare(other.name));
  }

  /**
   * Keep a sequence, instead of one of that name.
   * @throws {Error} there is no room for it
   */
  keep(name, steps, tokens) {
    const safe = JSON.parse(withoutTokens(JSON.stringify(steps), tokens)).map(withoutToken);
    const others = this.#items.filter((item) => item.name !== name);
    if (others.length >= MOST) throw new Error(`No more than ${MOST} are kept. Delete some first.`);
    this.#write([...others, { name, steps: safe }]);
  }

  /** Forget a sequence. */
  delete(name) {
    this.#write(this.#items.filter((item) => item.name !== name));
  }

  #write(items) {
    try {
      localStorage.setItem(SAVED, JSON.stringify(items));
    } catch {
      throw new Error("The browser has no room for it. Delete some first.");
    }
    this.#items = items;
  }
}

function withoutToken({ action, payload }) {
  return { action, payload: action === "auth" && payload?.token ? { ...payload, token: TOKEN } : payload };
}

function read() {
  try {
    const kept = JSON.parse(localStorage.getItem(SAVED) ?? "[]");
    return kept.filter(({ name, steps }) => typeof name === "string" && Array.isArray(steps));
  } catch {
    return []; // something else wrote there
  }
}
