/** The line about the agent: whether it is there, what it remembers, and how it is set. */

import { el, list } from "../shared/dom.js";
import { seconds } from "../shared/words.js";

const FORGOTTEN = "The agent started anew; it does not remember what was said before";

/** States that end with the turn for which the agent was started, if nothing else ends them. */
const PASSING = new Set(["starting", "restarting"]);

/** Shows one session's agent at a time; `onForgotten(words)` is told when it began anew without its memory. */
export class Agent {
  #state = el("p.agent-state", { role: "status" });
  #fields = el("div.settings");
  #error = el("p.refusal", { role: "alert" });
  #onForgotten;
  #reader = null;
  #phase = "";
  #wasReady = false;
  #modes = {};
  #options = [];
  #settings = [];

  constructor(onForgotten) {
    this.#onForgotten = onForgotten;
    this.element = el("div.agent", { hidden: true }, this.#state, this.#fields, this.#error);
  }

  /** Show the agent of a reader's session until `signal` aborts. */
  show(reader, signal) {
    this.clear();
    this.#reader = reader;
    const { session } = reader;
    session.on("record", (record) => this.#take(record), { signal });
    session.on("reset", () => this.clear(), { signal });
  }

  /** Forget what is shown. */
  clear() {
    this.#wasReady = false;
    this.#modes = {};
    this.#options = [];
    this.#offer();
    this.#enter("", "");
  }

  #take({ event, data }) {
    if (event === "agent.state") this.#report(data);
    if (event === "turn.ended" && (PASSING.has(this.#phase) || data.outcome === "lost" || data.forced)) {
      this.#enter("", "");
    }
  }

  #report(data) {
    this.#set(data);
    if (data.changed) return;
    this.#enter(data.state, this.#words(data));
    if (data.state !== "ready") return;
    if (this.#wasReady && data.context === "fresh") this.#onForgotten(FORGOTTEN);
    this.#wasReady = true;
  }

  #words({ state, context, agent, wait, reason }) {
    if (state === "starting") return "The agent is starting";
    if (state === "restarting") return `The agent stopped and starts again${wait ? ` in ${seconds(wait * 1000)}` : ""}`;
    if (state === "gone") return `The agent is gone${reason ? `: ${reason}` : ""}`;
    if (state !== "ready") return String(state ?? "");
    if (context === "restored") return "The agent was started again and remembers the conversation";
    if (this.#wasReady) return context === "fresh" ? FORGOTTEN : "The agent was started again";
    return [agent?.title || agent?.name || "The agent", agent?.version].filter(Boolean).join(" ");
  }

  #enter(phase, words) {
    this.#phase = phase;
    this.element.dataset.state = phase;
    if (this.#state.textContent !== words) this.#state.textContent = words;
    this.element.hidden = !words && !this.#settings.length;
  }

  // -- modes and options -----------------------------------------------------------------------------

  #set(data) {
    const { modes, current_mode_id, config_options } = data;
    if (modes) this.#modes = { current: modes.current_mode_id, offered: list(modes.available_modes) };
    if (current_mode_id !== undefined) this.#modes.current = current_mode_id;
    if (config_options !== undefined) this.#options = list(config_options);
    if (modes || current_mode_id !== undefined || config_options !== undefined) this.#offer();
  }

  /** Show a select for each setting; those that look the same stay, so that the focus does. */
  #offer() {
    const wanted = this.#options.map(optionSetting);
    const { offered = [], current } = this.#modes;
    if (offered.length && !this.#options.some(({ category }) => category === "mode")) {
      wanted.unshift(modeSetting(offered, current));
    }
    if (shape(wanted) !== shape(this.#settings)) {
      this.#fields.replaceChildren(...wanted.map((setting) => this.#field(setting)));
    }
    this.#settings = wanted;
    this.#choose();
    this.element.hidden = !wanted.length && !this.#state.textContent;
  }

  #choose() {
    const selects = this.#fields.querySelectorAll("select");
    this.#settings.forEach(
      ({ choices, value }, i) => (selects[i].selectedIndex = choices.findIndex((choice) => choice.value === value)),
    );
  }

  #field({ name, description, choices, payload }) {
    const options = choices.map((choice) => el("option", {}, choice.name));
    const select = el("select", {}, ...options);
    select.onchange = () => this.#configure(payload(choices[select.selectedIndex].value));
    return el("label", { title: String(description ?? "") }, `${name} `, select);
  }

  async #configure(payload) {
    this.#error.textContent = "";
    try {
      await this.#reader.session.request("session.configure", payload);
    } catch (error) {
      this.#error.textContent = error.words;
      this.#choose();
    }
  }
}

/** What two offers have to share for their selects to be the same. */
function shape(settings) {
  return JSON.stringify(settings.map(({ value, payload, ...rest }) => rest));
}

function modeSetting(offered, value) {
  const choices = offered.map((mode) => ({ value: mode.id, name: String(mode.name ?? mode.id) }));
  return { name: "Mode", value, choices, payload: (mode) => ({ mode }) };
}

function optionSetting({ id, configId, name, description, type, currentValue, options }) {
  const key = id ?? configId;
  const entries = list(options).flatMap((entry) => (entry.options ? list(entry.options) : [entry]));
  const onOff = [true, false].map((value) => ({ value, name: value ? "on" : "off" }));
  const choices =
    type === "boolean"
      ? onOff
      : entries.map((entry) => ({ value: entry.value, name: String(entry.name ?? entry.value) }));
  const payload = (value) => ({ options: { [key]: value } });
  return { name: String(name ?? key), description, value: currentValue, choices, payload };
}
