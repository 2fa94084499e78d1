/** A client to try things out with: a connection of its own, templates of each request, and what was said. */

import { el } from "../../shared/dom.js";
import { token as ownToken } from "../../shared/login.js";
import { took } from "../format.js";
import { Editor } from "../lib/editor.js";
import { Identity } from "../lib/identity.js";
import { wordsOf } from "../lib/details.js";
import { filled } from "../lib/requests.js";
import { SavedRequests } from "../lib/saved.js";
import { FEW, Templates } from "../lib/templates.js";
import { Transcript } from "../lib/transcript.js";
import { card } from "../parts.js";

export const title = "Test client";

const SENT = 200; // requests that can be saved as a sequence

/** Show it. */
export function show(root, context) {
  const client = new Client(context);
  root.append(client.element);
  client.loadTemplates();
  return () => client.leave();
}

class Client {
  #context;
  #base = new URL(".", location.href.split("#")[0]).href;
  #sent = [];
  #transcript = new Transcript();
  #identity;
  #templates = new Templates((template) => this.#editor.begin(template));
  #templateNote = el("p.hint");
  #editor;

  constructor(context) {
    this.#context = context;
    const url = new URL("ws", this.#base);
    this.#identity = new Identity(url.href, {
      frame: (frame) => this.#transcript.add(frame, this.#tokens),
      state: (words) => this.#transcript.note(words),
    });
    this.#editor = new Editor({
      schema: (action) => this.#templates.of(action)?.schema,
      send: () => this.#send([this.#editor.step]),
      request: () => this.#request(),
      announce: (text) => context.announce(text),
    });
    this.element = this.#build();
  }

  /** Ask which actions there are; without the scope `api` there are a few. */
  async loadTemplates() {
    if (!this.#context.me.scopes.includes("api")) {
      this.#templates.all = FEW;
      this.#templateNote.textContent = "These are a few. The scope “api” brings all, with what each takes.";
      return;
    }
    try {
      const { actions } = await this.#context.api.get("actions", {}, this.#context.signal);
      this.#templates.all = actions;
    } catch (error) {
      this.#templates.all = [];
      this.#templateNote.textContent = `The templates cannot be had: ${wordsOf(error)} Type an action instead.`;
    }
  }

  /** Leave the panel: the connection ends. */
  leave() {
    this.#identity.close();
  }

  #build() {
    const saved = new SavedRequests({
      current: () => [this.#editor.step],
      sent: () => this.#sent,
      tokens: () => this.#tokens,
      replay: (steps) => this.#send(steps),
      edit: (step) => this.#editor.write(step),
    });
    return el(
      "div.stack",
      {},
      el("section.card", { ariaLabel: "Connection" }, this.#identity.element),
      el(
        "div.workbench",
        {},
        card("Templates", this.#templateNote, this.#templates.element),
        el("div.stack", {}, card("Request", this.#editor.element), card("Saved", saved.element)),
        card("Transcript", this.#transcript.element),
      ),
    );
  }

  /** All that must not be seen or kept: one's own token, and the one that was typed. */
  get #tokens() {
    return [ownToken(), this.#identity.token];
  }

  /** The written request for a program: filled in as it would be now, but for the token. */
  #request() {
    const { action, payload } = this.#editor.step;
    const known = { ...(this.#wire?.known ?? { last: new Map() }), token: null };
    const safe = filled(payload, known);
    const hasToken = this.#identity.token !== null;
    return { action, payload: safe, http: this.#templates.of(action)?.http ?? null, base: this.#base, hasToken };
  }

  #wire = null;

  /** Send a sequence, each after the answer to the one before; the first refusal ends it. */
  async #send(steps) {
    const began = performance.now();
    this.#editor.say("Sending…");
    let done = 0;
    try {
      this.#wire = await this.#identity.open();
      for (const step of steps) {
        await this.#wire.request(step.action, filled(step.payload, this.#wire.known));
        this.#sent = [...this.#sent, step].slice(-SENT);
        done += 1;
      }
      const words = steps.length === 1 ? "Answered" : `All ${steps.length} answered`;
      this.#editor.say(`${words} after ${took((performance.now() - began) / 1000)}.`);
    } catch (error) {
      const which = steps.length === 1 ? "" : `Request ${done + 1} of ${steps.length}, ${steps[done].action}: `;
      this.#editor.say(`${which}${wordsOf(error)}`);
    }
  }
}
