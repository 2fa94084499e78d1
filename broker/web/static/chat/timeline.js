/** The conversation: turns made from a session's records, what is on its way, and what belongs to no turn. */

import { Activity } from "./activity.js";
import { Outbox } from "./outbox.js";
import { Turn } from "./turn.js";
import { el, fold, follower, json, keepFocus } from "../shared/dom.js";
import { who } from "../shared/words.js";

/** Records that belong to no turn and are worth a line in the conversation. */
const NOTES = {
  "variables.changed": () => "Variables changed",
  "session.closed": () => "The session is closed",
};

/**
 * Shows one session at a time; `show(reader, signal)` begins, `clear()` forgets.
 *
 * `tell` is what hears of it: `running(turn or null)`, `record(record)` for each record of a turn, and
 * `trace(turnId)`, the wish to see where a turn went. `prompt` gets the focus when what had it goes.
 */
export class Timeline {
  #tell;
  #prompt;
  #reader = null;
  #attached = null;
  #turns = new Map();
  #active = null; // the turn that runs
  #retried = new WeakMap(); // turns on their way, to those they try again
  #stray = null;
  #list = el("div.turns.log");
  #outbox;
  #announcer = el("p.hidden", { role: "status" });
  #latest = el("button.latest", { type: "button", hidden: true }, "↓ Latest");
  #follow;

  constructor(tell, welcome, prompt) {
    this.#tell = tell;
    this.#prompt = prompt;
    this.welcome = welcome;
    this.#outbox = new Outbox(prompt, (turn) => this.#discard(turn));
    const scroller = el(
      "div.scroller",
      { tabIndex: 0, role: "region", ariaLabel: "Messages" },
      welcome,
      this.#list,
      this.#outbox.element,
    );
    this.#follow = follower(scroller, (away) => (this.#latest.hidden = !away));
    this.#latest.onclick = () => this.#follow(true);
    this.elements = [scroller, this.#latest, this.#announcer];
  }

  /** Show the records of a reader's session as they come, until `signal` aborts. */
  show(reader, signal) {
    this.clear();
    this.#reader = reader;
    this.welcome.hidden = true;
    const { session } = reader;
    session.on("attached", (answer) => (this.#attached = answer), { signal });
    session.on("record", (record) => this.#take(record), { signal });
    session.on("reset", ({ floor }) => this.#reset(floor), { signal });
    session.on("outbox", (turns) => this.#waiting(turns), { signal });
    session.on("caughtup", () => this.#caughtUp(), { signal });
    session.on("problem", (error) => this.say(error.words), { signal });
    this.#waiting(session.outbox);
  }

  /** Forget everything shown. */
  clear() {
    this.#reader = null;
    this.#forget();
    this.#outbox.show([]);
    this.welcome.hidden = false;
    this.#tell.running(null);
  }

  /** Put a line into the conversation, into the turn that runs if there is one. */
  say(words, data) {
    const isBare = !data || !Object.keys(data).length;
    if (isBare && this.#active) this.#active.note(words);
    else if (isBare && this.#list.lastChild?.textContent === words)
      return; // said just before
    else this.#list.append(isBare ? el("p.note", {}, words) : fold("details.note", [words], () => json(data)));
    this.#follow();
  }

  /** Stop the turn that runs. */
  async stop() {
    const turn = this.#active;
    if (!turn || turn.state === "cancelling") return;
    await this.#reader.own(turn.id, "turn.cancel", { turn_id: turn.id }).catch((error) => this.say(error.words));
  }

  #forget() {
    this.#turns.clear();
    this.#active = this.#stray = this.#attached = null;
    this.#list.replaceChildren();
    delete this.#list.dataset.live;
  }

  #reset(floor) {
    this.#forget();
    if (floor > 1) this.say(`The records before ${floor} are no longer kept`);
  }

  /** What is open is open even if the log no longer says since when. */
  #caughtUp() {
    const { turn, approvals = [] } = this.#attached ?? {};
    if (turn) for (const approval of approvals) this.#turn(turn.turn_id).ask(approval);
    if (turn) this.#place(this.#turn(turn.turn_id));
    this.#attached = null;
    this.#list.dataset.live = "true";
    this.#tell.running(this.#active);
  }

  // -- records ---------------------------------------------------------------------------------------

  #take(record) {
    if (record.event === "activity") this.#late(record.data, record.turn_id);
    else if (record.turn_id) this.#apply(record);
    else if (NOTES[record.event]) this.say(NOTES[record.event](), record.data);
    this.#follow();
  }

  #apply(record) {
    const turn = this.#turn(record.turn_id);
    turn.apply(record);
    this.#tell.record(record);
    this.#place(turn);
    if (record.event === "user.message") this.#turns.get(record.data.retry_of)?.offer(false);
    this.#announce(record, turn);
    if (!record.event.endsWith(".delta")) this.#tell.running(this.#active);
  }

  /** What waits is shown in the queue, so the conversation has the turns in the order in which they began. */
  #place(turn) {
    if (turn.state === "queued") return;
    if (!turn.element.isConnected) this.#list.append(turn.element);
    if (!turn.isOver) this.#active = turn;
    else if (this.#active === turn) this.#active = null;
  }

  #turn(id) {
    if (!this.#turns.has(id)) {
      const actions = {
        answer: (approvalId, optionId) => this.#answer(approvalId, optionId),
        retry: (turn) => this.#retry(turn),
        trace: (id) => this.#tell.trace(id),
        by: (user, about) => this.#by(user, about),
      };
      this.#turns.set(id, new Turn(id, actions));
    }
    return this.#turns.get(id);
  }

  #late(data, turnId) {
    const turn = this.#turns.get(data.late_of ?? turnId);
    if (turn) {
      turn.late(data);
      return;
    }
    if (!this.#stray || this.#list.lastElementChild !== this.#stray.element) {
      this.#stray = new Activity("The agent did something outside of a turn");
      this.#list.append(this.#stray.element);
    }
    this.#stray.add(data);
  }

  /** Screen readers hear a whole answer and what needs them, not every word of a stream. */
  #announce({ event, data }, turn) {
    if (!this.#list.dataset.live) return;
    if (event === "turn.ended") this.#announcer.textContent = `${turn.answer} ${turn.outcome}`;
    else if (event === "approval.requested") this.#announcer.textContent = `The agent asks: ${data.title}`;
    else if (event === "turn.stalled" || event === "turn.cancelling") this.#announcer.textContent = turn.words;
  }

  // -- what the reader does --------------------------------------------------------------------------

  /** Who did something, as the end of a sentence: by name, or by whether it was done in this tab. */
  #by(user, about) {
    const name = who(user);
    if (name) return name === this.#reader.user ? " by you" : ` by ${name}`;
    if (this.#reader.hasDone(about)) return " by you";
    return this.#list.dataset.live ? " in another tab" : "";
  }

  #answer(approval_id, option_id) {
    return this.#reader.own(approval_id, "approval.answer", { approval_id, option_id });
  }

  #retry(turn) {
    keepFocus(turn.element, this.#prompt, () => turn.offer(false));
    const again = this.#reader.session.send(turn.content, { retryOf: turn.id });
    this.#retried.set(again, turn);
    if (again.state === "refused") this.#refused(again);
  }

  #waiting(turns) {
    this.#outbox.show(turns);
    this.#follow(turns.some((turn) => turn.state === "sending"));
  }

  /** Say why what was to be tried again does not even wait for that. */
  #refused(turn) {
    this.say(turn.error.words);
    this.#retried.get(turn).offer(true);
  }

  #discard(turn) {
    turn.discard();
    this.#retried.get(turn)?.offer(true);
  }
}
