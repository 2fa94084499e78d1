/** The list of one's sessions and the form that makes a new one. */

import { byId, el } from "../shared/dom.js";
import { sessionName, timeWords } from "../shared/words.js";

const PAGE = 50;

/** Shows the sessions; `onChosen(sessionId)` is called when one is picked or made here. */
export class Sessions {
  #broker;
  #onChosen;
  #list = byId("session-list");
  #more = byId("more-sessions");
  #current = null;
  #cursor;
  #timer = 0;

  /** @param {?string} agent what to fill in as the agent of a new session */
  constructor(broker, onChosen, agent) {
    this.#broker = broker;
    this.#onChosen = onChosen;
    byId("create").agent.defaultValue = agent ?? "";
    byId("create").onsubmit = (event) => {
      event.preventDefault();
      this.#create();
    };
    this.#more.onclick = () => this.load(this.#cursor);
  }

  /** Make a session from what the form says; throws a BrokerError if it is refused. */
  async make() {
    const form = byId("create");
    const filled = [...new FormData(form)].map(([key, value]) => [key, value.trim()]).filter(([, value]) => value);
    const session = await this.#broker.createSession(Object.fromEntries(filled));
    form.reset();
    this.refresh();
    return session;
  }

  /** Mark the session that is shown. */
  mark(sessionId) {
    this.#current = sessionId;
    for (const link of this.#list.querySelectorAll("a")) this.#markOne(link);
  }

  /** Fetch the list again, soon: what calls this comes in bursts. */
  refresh() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.load(), 150);
  }

  /** Fetch the newest sessions, or those after `cursor`. */
  async load(cursor) {
    const answer = await this.#broker.sessions({ limit: PAGE, cursor }).catch(() => null);
    if (!answer) return;
    const items = answer.sessions.map((session) => this.#item(session));
    if (cursor) this.#list.append(...items);
    else this.#list.replaceChildren(...items);
    this.#cursor = answer.cursor;
    this.#more.hidden = !answer.cursor;
    byId("no-sessions").hidden = this.#list.childElementCount > 0;
  }

  #item(session) {
    const hash = new URLSearchParams({ session: session.session_id });
    const facts = [
      session.agent,
      timeWords(session.updated_at ?? session.created_at),
      session.state === "closed" && "closed",
    ];
    const link = el(
      "a",
      { href: `#${hash}`, data: { session: session.session_id } },
      el("span.name", {}, sessionName(session)),
      el("span.facts", {}, facts.filter(Boolean).join(" · ")),
    );
    link.onclick = (event) => {
      event.preventDefault();
      this.#onChosen(session.session_id);
    };
    this.#markOne(link);
    return el("li", {}, link);
  }

  #markOne(link) {
    if (link.dataset.session === this.#current) link.ariaCurrent = "true";
    else link.ariaCurrent = null;
  }

  async #create() {
    const error = byId("create-error");
    try {
      error.textContent = "";
      this.#onChosen((await this.make()).id);
    } catch (refusal) {
      error.textContent = refusal.words;
    }
  }
}
