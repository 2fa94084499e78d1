/** What a panel is given to work with. */

import { announce } from "./parts.js";
import { poll } from "./poll.js";

/** The broker, who looks, and the address of what is shown; ends with `signal`. */
export class Context {
  #panel;
  #freshness;

  /** @param {object} parts as the attributes; `panel` is the id of the panel, `freshness` hears of what is polled */
  constructor({ api, broker, me, params, panel, freshness, signal }) {
    /** The HTTP API below `/api/v1`. */
    this.api = api;
    /** The JavaScript client, connected or about to be. */
    this.broker = broker;
    /** What `whoami` says. */
    this.me = me;
    /** What the address's fragment says. */
    this.params = params;
    /** Aborted when the panel is left. */
    this.signal = signal;
    this.#panel = panel;
    this.#freshness = freshness;
  }

  /** Whether one may change what belongs to others. */
  get canWrite() {
    return this.me.scopes.includes("admin");
  }

  /** Do `job` now and every `ms` while somebody looks; returns a function that does it at once. */
  every(ms, job) {
    const freshness = this.#freshness;
    const source = {};
    const outcome = {
      signal: this.signal,
      onDone: () => freshness.well(source),
      onFailed: (error) => freshness.ill(source, error),
    };
    const run = poll(ms, job, outcome);
    freshness.follow(run, this.signal);
    return run;
  }

  /** Show a panel, with what it is to show. */
  go(panel, params = {}) {
    location.hash = this.address(panel, params);
  }

  /** The address of a panel, for a link. */
  address(panel, params = {}) {
    const known = Object.entries(params).filter(([, value]) => value !== null && value !== undefined && value !== "");
    return `#${new URLSearchParams({ panel, ...Object.fromEntries(known) })}`;
  }

  /** Write into the address what this panel shows, without showing it anew. */
  note(params) {
    history.replaceState(null, "", this.address(this.#panel, params));
    this.params = new URLSearchParams(location.hash.slice(1));
  }

  /** Tell those who cannot see it. */
  announce(text) {
    announce(text);
  }

  /** Keep a small setting in this tab. */
  remember(name, value) {
    sessionStorage.setItem(`broker.console.${name}`, JSON.stringify(value));
  }

  /** A setting that was kept, or `otherwise`. */
  recall(name, otherwise = null) {
    const kept = sessionStorage.getItem(`broker.console.${name}`);
    return kept === null ? otherwise : JSON.parse(kept);
  }
}
