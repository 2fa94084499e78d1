/**
 * A conversation with an agent, to be put into any page; the chat page is made of it too.
 *
 *     import { Broker } from "https://broker.example.org/static/client.js";
 *     import { mountChat } from "https://broker.example.org/static/chat/embed.js";
 *
 *     const broker = new Broker({ url: "wss://broker.example.org/ws", getToken: () => fetchToken() });
 *     const chat = mountChat(document.querySelector("#help"), { broker, create: { agent: "helper" } });
 *     chat.on("session", (session) => remember(session?.id));
 *
 * It stands in a shadow root, so that neither page's styles disturb the other's. It fills its place, which needs a
 * height; it is light or dark as the page's `color-scheme` says, and takes other colours (`--accent` and so on, as in
 * `shared/base.css`) from what the page's style sheet says of `.broker-chat`.
 */

import { Agent } from "./agent.js";
import { Composer } from "./composer.js";
import { Queue } from "./queue.js";
import { Reader } from "./reader.js";
import { Timeline } from "./timeline.js";
import { Trace } from "./trace.js";
import { Trouble } from "./trouble.js";
import { el } from "../shared/dom.js";
import { textOf } from "../shared/words.js";

const STYLES = ["../shared/base.css", "conversation.css"].map((name) => new URL(name, import.meta.url).href);

/**
 * Put a conversation into an element.
 * @param {Element} element where it goes; what is in it already stays
 * @param {object} options
 * @param {import("../client.js").Broker} options.broker the connection; it is opened if it is closed
 * @param {string} [options.sessionId] what to show; without one a session begins with the first message
 * @param {object | (() => Promise<import("../client.js").Session>)} [options.create] what a session is made with, as
 *   for `broker.createSession`, or who makes it
 * @param {Node} [options.welcome] what is shown where nothing has been said yet
 */
export function mountChat(element, options) {
  return new Conversation(element, options);
}

/**
 * A conversation that was put into a page.
 *
 * Events: `session` (the client's Session that is shown from now on, or null), before its first record; `gone` (a
 * BrokerError: the session that was shown is not to be had any more).
 */
class Conversation extends EventTarget {
  #broker;
  #create;
  #host = el("div.broker-chat", { role: "region", ariaLabel: "Conversation" });
  #life = new AbortController();
  #shown = new AbortController();
  #agent = new Agent((words) => this.#timeline.say(words));
  #composer = new Composer(
    (text, ifBusy) => this.#send(text, ifBusy),
    () => this.#timeline.stop(),
  );
  #queue = new Queue(
    (text) => this.#orphan(text),
    (id) => this.#whither(id),
    this.#composer.prompt,
  );
  #trace = new Trace();
  #making = null; // the session that the first message begins
  #timeline;

  constructor(element, { broker, sessionId = null, create = {}, welcome = greeting() }) {
    super();
    this.#broker = broker;
    this.#create = typeof create === "function" ? create : () => broker.createSession(create);
    const tell = {
      running: (turn) => this.#running(turn),
      record: (record) => this.#queue.take(record),
      trace: (id) => this.#whither(id),
    };
    this.#timeline = new Timeline(tell, welcome, this.#composer.prompt);
    this.#build();
    element.append(this.#host);
    /** @type {import("../client.js").Session | null} the session that is shown */
    this.session = null;
    this.show(sessionId);
    if (broker.state === "closed") broker.connect().catch(() => {}); // why not is shown
  }

  /** Call `listener(detail)` at each event `name`, until `signal` aborts. */
  on(name, listener, options) {
    this.addEventListener(name, (event) => listener(event.detail), options);
  }

  /** Show this session, or none, so that the next message begins one. */
  show(sessionId) {
    if (sessionId && sessionId === this.session?.id) return;
    this.#leave();
    if (sessionId) this.#follow(this.#broker.session(sessionId));
    else this.#emit("session", null);
  }

  /** Put a line into the conversation, such as what became of something that its reader asked for. */
  say(words) {
    this.#timeline.say(words);
  }

  /** Let the reader write. */
  focus() {
    this.#composer.prompt.focus();
  }

  /** Follow no session any more, and leave the page. */
  close() {
    this.#leave();
    this.#life.abort();
    this.#host.remove();
  }

  #build() {
    const trouble = new Trouble(this.#broker, this.#life.signal);
    const parts = [
      this.#agent.element,
      ...this.#timeline.elements,
      this.#queue.element,
      trouble.element,
      this.#composer.element,
    ];
    const body = el("div.conversation", { hidden: true }, ...parts, this.#trace.element);
    const sheets = STYLES.map((href) => el("link", { rel: "stylesheet", href }));
    const styled = sheets.map((sheet) => new Promise((settle) => (sheet.onload = sheet.onerror = settle)));
    Promise.all(styled).then(() => (body.hidden = false)); // never seen bare
    this.#host.attachShadow({ mode: "open" }).append(...sheets, body);
  }

  #leave() {
    this.#shown.abort();
    this.session?.detach();
    this.session = null;
    this.#timeline.clear();
    this.#agent.clear();
    this.#queue.clear();
  }

  #follow(session) {
    this.#shown = new AbortController();
    const { signal } = this.#shown;
    this.session = session;
    const reader = new Reader(this.#broker, session);
    this.#emit("session", session);
    this.#queue.show(reader, signal);
    this.#timeline.show(reader, signal);
    this.#agent.show(reader, signal);
    session.on("gone", (error) => this.#gone(error), { signal });
    session.attach({ afterSeq: 0 }).catch(() => {}); // it is told as an event
  }

  /** What was not sent yet goes back into the box: it is nowhere else. */
  #gone(error) {
    const unsent = this.session.outbox.map(({ content }) => textOf(content));
    this.show(null);
    this.#emit("gone", error);
    if (unsent.length) this.#composer.draft(unsent.join("\n"));
  }

  /** Send what was written, in a session that is made for it if there is none; false if that cannot be. */
  async #send(text, ifBusy) {
    try {
      if (!this.session) this.show((await this.#make()).id);
    } catch (error) {
      this.say(error.words ?? error.message);
      return false;
    }
    const { state, error } = this.session.send(text, { ifBusy });
    if (state === "refused") this.say(error.words);
    return state !== "refused";
  }

  /** Make one session, however many messages are waiting for it. */
  #make() {
    this.#making ??= this.#create().finally(() => (this.#making = null));
    return this.#making;
  }

  #running(turn) {
    this.#composer.show(turn);
    this.#queue.behind(turn);
  }

  #whither(id) {
    this.#trace.show(this.session.request("trace", { id }));
  }

  #orphan(text) {
    this.say("That message was on its way already; your change of it is in the box below");
    this.#composer.draft(text);
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

function greeting() {
  const words = [
    "Send a message and a session begins. Reload in the middle of the answer, cut the network, open a second tab:",
    "the conversation goes on where it was.",
  ];
  const image = el("img", { src: new URL("../favicon.svg", import.meta.url).href, alt: "", width: 56, height: 56 });
  return el("div.welcome", {}, image, el("h2", {}, "Say something to your agent"), el("p", {}, words.join(" ")));
}
