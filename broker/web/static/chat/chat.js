/** The conversation: turns made from a session's records, what is on its way, and what waits. */

import { Activity } from "./activity.js";
import { byId, el, fold, follower, json, keepFocus } from "../shared/dom.js";
import { Queue } from "./queue.js";
import { showTrace } from "./trace.js";
import { Turn } from "./turn.js";
import { textOf, who } from "../shared/words.js";

/** Records that belong to no turn and are worth a line in the conversation. */
const NOTES = {
  "variables.changed": () => "Variables changed",
  "session.closed": () => "The session is closed",
};

/** What each state of a sent message is called until it stands in the log. */
const SENT = { waiting: "Waiting for the connection", sending: "Sending…", accepted: "Accepted", refused: "Not accepted" };

/** Shows one session at a time; `show(session)` begins, `clear()` forgets. `onDraft(text)` gets text to write on with. */
export class Chat {
  #session = null;
  #attached = null;
  #turns = new Map();
  #active = null; // the turn that runs
  #mine = new Set(); // turns stopped and questions answered in this tab
  #stray = null;
  #list = byId("turns");
  #outbox = byId("outbox");
  #latest = byId("latest");
  #prompt = byId("prompt");
  #follow = follower(byId("scroller"), (away) => (this.#latest.hidden = !away));
  #queue;

  constructor(onDraft) {
    this.#queue = new Queue((text) => {
      this.say("That message was on its way already; your change of it is in the box below");
      onDraft(text);
    });
    this.#latest.onclick = () => this.#follow(true);
    byId("stop").onclick = () => this.#stop();
  }

  /** Show a session's records as they come, until `signal` aborts. */
  show(session, signal) {
    this.clear();
    this.#session = session;
    this.#queue.show(session);
    byId("welcome").hidden = true;
    session.on("attached", (answer) => (this.#attached = answer), signal);
    session.on("record", (record) => this.#take(record), signal);
    session.on("reset", ({ floor }) => this.#reset(floor), signal);
    session.on("outbox", (items) => this.#waiting(items), signal);
    session.on("caughtup", () => this.#caughtUp(), signal);
    session.on("problem", (error) => this.say(error.message), signal);
  }

  /** Forget everything shown. */
  clear() {
    this.#session = null;
    this.#forget();
    this.#outbox.replaceChildren();
    byId("welcome").hidden = false;
    this.#showRunning();
  }

  /** Put a line into the conversation, into the turn that runs if there is one. */
  say(words, data) {
    const isBare = !data || !Object.keys(data).length;
    if (isBare && this.#active) this.#active.note(words);
    else this.#list.append(isBare ? el("p.note", {}, words) : fold("details.note", [words], () => json(data)));
    this.#follow();
  }

  #forget() {
    this.#turns.clear();
    this.#active = this.#stray = this.#attached = null;
    this.#list.replaceChildren();
    delete this.#list.dataset.live;
    this.#queue.show(this.#session);
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
    this.#showRunning();
  }

  // -- records ---------------------------------------------------------------------------------------

  #take(record) {
    if (record.event === "activity") this.#late(record.data, record.turn_id);
    else if (record.turn_id) this.#tell(record);
    else if (NOTES[record.event]) this.say(NOTES[record.event](), record.data);
    this.#follow();
  }

  #tell(record) {
    const turn = this.#turn(record.turn_id);
    turn.apply(record);
    this.#queue.take(record);
    this.#place(turn);
    if (record.event === "user.message") this.#turns.get(record.data.retry_of)?.offer(false);
    this.#announce(record, turn);
    if (!record.event.endsWith(".delta")) this.#showRunning();
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
        trace: (id) => showTrace(this.#session.request("trace", { id })),
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
    if (event === "turn.ended") byId("announcer").textContent = `${turn.answer} ${turn.outcome}`;
    else if (event === "approval.requested") byId("announcer").textContent = `The agent asks: ${data.title}`;
    else if (event === "turn.stalled" || event === "turn.cancelling") byId("announcer").textContent = turn.words;
  }

  #showRunning() {
    const turn = this.#active;
    const bar = byId("running");
    keepFocus(bar, this.#prompt, () => (bar.hidden = !turn));
    if (!turn) return;
    byId("running-text").textContent = turn.words;
    byId("stop").ariaDisabled = String(turn.state === "cancelling"); // truly disabled it would lose the focus
  }

  // -- what the reader does --------------------------------------------------------------------------

  /** Who did something, as the end of a sentence: by name, or by whether it was done in this tab. */
  #by(user, about) {
    const name = who(user);
    if (name) return name === this.#session.user ? " by you" : ` by ${name}`;
    if (this.#mine.has(about)) return " by you";
    return this.#list.dataset.live ? " in another tab" : "";
  }

  async #stop() {
    const turn = this.#active;
    if (!turn || turn.state === "cancelling") return;
    await this.#own(turn.id, "turn.cancel", { turn_id: turn.id }).catch((error) => this.say(error.words));
  }

  #answer(approval_id, option_id) {
    return this.#own(approval_id, "approval.answer", { approval_id, option_id });
  }

  /** Ask for something that this tab will have done to `about`, unless it is refused. */
  async #own(about, action, payload) {
    this.#mine.add(about);
    try {
      return await this.#session.request(action, payload);
    } catch (error) {
      this.#mine.delete(about);
      throw error;
    }
  }

  #retry(turn) {
    keepFocus(turn.element, this.#prompt, () => turn.offer(false));
    this.#session.send(turn.content, "queue", turn.id);
  }

  // -- what is on its way ----------------------------------------------------------------------------

  #waiting(items) {
    keepFocus(this.#outbox, this.#prompt, () => this.#outbox.replaceChildren(...items.map((item) => this.#unsent(item))));
    this.#follow(items.some((item) => item.state === "sending"));
  }

  #unsent(item) {
    const words = el("p.author", { role: "status" }, item.error ? `${SENT.refused}: ${item.error}` : SENT[item.state]);
    const again = el("button.quiet", { type: "button", onclick: () => this.#session.resend(item) }, "Send again");
    const drop = el("button.quiet", { type: "button", onclick: () => this.#discard(item) }, "Discard");
    const buttons = item.state === "refused" ? [el("div.answers", {}, again, drop)] : [];
    const question = el("div.question", {}, el("p.bubble", {}, textOf(item.content)), words, ...buttons);
    return el("article.turn.unsent", { data: { sent: item.state } }, question);
  }

  #discard(item) {
    this.#session.discard(item);
    this.#turns.get(item.retry_of)?.offer(true);
  }
}
