/** The frames of a connection, both ways, the newest at the end. */

import { el, follower } from "../../shared/dom.js";
import { clockWords } from "../../shared/words.js";
import { bytes, took } from "../format.js";
import { withoutTokens } from "./requests.js";
import { TOKEN } from "./snippets.js";
import { brief } from "./timeline.js";

const KEPT = 500; // rows
const CUT = 16 * 1024; // characters of a frame
const ARROWS = { out: "→", in: "←", note: "·" };
const WAYS = { out: "sent", in: "received", note: "connection" };

/** The transcript; no token is ever in it. */
export class Transcript {
  #rows = 0;
  #list = el("ol.timeline.transcript");
  #scroller = el("div.timeline-scroller", { tabIndex: 0, role: "region", ariaLabel: "Frames" }, this.#list);
  #empty = el("p.hint", {}, "Nothing was said yet. Choose a template, and send it.");
  #follow = follower(this.#scroller);
  #kind = el(
    "select",
    { ariaLabel: "What is shown" },
    ...["All frames", "Requests and answers"].map((text) => el("option", {}, text)),
  );

  constructor() {
    const clear = el("button.quiet", { type: "button", onclick: () => this.clear() }, "Clear");
    this.#kind.onchange = () => this.#list.classList.toggle("only-asked", this.#kind.selectedIndex === 1);
    this.element = el(
      "div.stack",
      {},
      el("div.row.transcript-tools", {}, this.#kind, clear),
      this.#empty,
      this.#scroller,
    );
  }

  /** Add a frame; `tokens` are those that must not be seen. */
  add({ way, message, text, size, took: ms }, tokens) {
    const safe = masked(message);
    const shown = withoutTokens(safe === message ? text : JSON.stringify(safe), tokens).slice(0, CUT);
    const facts = [bytes(size), ...(ms === null ? [] : [took(ms / 1000)])].join(" · ");
    const what = brief(withoutTokens(contentOf(safe, text), tokens));
    this.#row({
      way,
      ...nameOf(way, message),
      facts,
      what,
      text: shown,
      asked: way === "out" || message?.id !== undefined,
    });
  }

  /** Say something about the connection. */
  note(words) {
    this.#row({ way: "note", name: "", tone: "note", facts: "", what: words, text: words, asked: true });
  }

  /** Forget all. */
  clear() {
    this.#list.replaceChildren();
    this.#rows = 0;
    this.#empty.hidden = false;
  }

  #row({ way, name, tone, facts, what, text, asked }) {
    const at = new Date().toISOString();
    const arrow = el(
      "span.way",
      { title: WAYS[way] },
      el("span", { ariaHidden: "true" }, ARROWS[way]),
      el("span.hidden", {}, WAYS[way]),
    );
    const parts = [
      arrow,
      el("time", { dateTime: at }, clockWords(at)),
      el("span.kind", {}, name),
      el("span.what", {}, what),
      el("span.hint.measure", {}, facts),
    ];
    const details = el("details.record", { data: { shape: tone } }, el("summary", {}, ...parts));
    details.addEventListener("toggle", () => details.append(el("pre.json", {}, pretty(text))), { once: true });
    this.#list.append(el("li", { data: { asked } }, details));
    this.#empty.hidden = true;
    this.#rows += 1;
    if (this.#rows > KEPT) this.#list.firstChild.remove();
    this.#follow();
  }
}

/** The frame, without the token of an `auth`. */
function masked(message) {
  if (message?.action !== "auth" || !message.payload?.token) return message;
  return { ...message, payload: { ...message.payload, token: TOKEN } };
}

function nameOf(way, message) {
  if (way === "out") return { name: message?.action ?? "frame", tone: "out" };
  if (message?.type === "error") return { name: message.data?.code ?? "error", tone: "error" };
  if (message?.type === "notification") return { name: message.event, tone: "notification" };
  return { name: message?.type ?? "frame", tone: "response" };
}

function contentOf(message, text) {
  return message ? JSON.stringify(message.type === "request" ? message.payload : message.data) : text;
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text.length >= CUT ? `${text}… (the rest is not kept)` : text;
  }
}
