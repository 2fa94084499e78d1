/** The line above the conversation: the session's title, what it is made of, and deleting it. */

import { byId } from "../shared/dom.js";

/** Shows one session at a time; `onRefused(words)` is told what could not be done, `onDeleted(sessionId)` what was. */
export class Head {
  #head = byId("chat-head");
  #title = byId("title");
  #facts = byId("facts");
  #session = null;
  #name = ""; // the title as the log has it
  #onRefused;
  #onDeleted;

  constructor(onRefused, onDeleted) {
    this.#onRefused = onRefused;
    this.#onDeleted = onDeleted;
    this.#title.onchange = () => this.#rename(this.#title.value.trim());
    byId("delete").onclick = () => byId("confirm").showModal();
    byId("confirm").onclose = ({ target }) => target.returnValue === "delete" && this.#delete();
  }

  /** Show a session as its records say, until `signal` aborts; null for none. */
  show(session, signal) {
    this.#session = session;
    this.#head.hidden = !session;
    this.#facts.textContent = session?.id ?? "";
    this.#enter("");
    session?.on("record", (record) => this.#take(record), { signal });
  }

  #take({ event, data }) {
    if (event !== "session.opened" && event !== "session.changed") return;
    if (data.title !== undefined) this.#enter(data.title ?? "");
    const facts = [data.agent, data.workspace_dir, this.#session.id];
    if (event === "session.opened") this.#facts.textContent = facts.filter(Boolean).join(" · ");
  }

  #enter(title) {
    this.#name = title;
    this.#title.value = title;
    document.title = title ? `${title} · broker` : "broker";
  }

  async #rename(title) {
    try {
      await this.#session.update({ title });
    } catch (error) {
      this.#title.value = this.#name;
      this.#onRefused(error.words);
    }
  }

  async #delete() {
    const session = this.#session;
    try {
      await session.delete();
      this.#onDeleted(session.id);
    } catch (error) {
      this.#onRefused(error.words);
    }
  }
}
