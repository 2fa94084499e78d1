/** One room as an operator sees it: who is in it, what was said, how much, and a way to say something. */

import { el, follower } from "../../shared/dom.js";
import { who } from "../../shared/words.js";
import { Sparkline } from "../charts.js";
import { count, rate } from "../format.js";
import { card, refill } from "../parts.js";
import { Kept } from "./kept.js";
import { action, link, wordsOf } from "./details.js";
import { brief, line } from "./timeline.js";

const REFRESH = 2000; // ms
const KEPT = 500; // events
const NAMED = 100; // members
const STEP = 5; // seconds of one point of the line
const POINTS = 60;

/** Shows a room until its panel is left. */
export class RoomView {
  #context;
  #name;
  #path;
  #room;
  #events = new Kept(KEPT);
  #members = el("div.stack");
  #list = el("ol.timeline");
  #scroller = el("div.timeline-scroller", { tabIndex: 0, role: "region", ariaLabel: "Events" }, this.#list);
  #follow = follower(this.#scroller);
  #none = el("p.hint");
  #rate = el("strong");
  #chart = new Sparkline({ label: "Events per second", names: ["events"], format: rate, floor: 1 });
  #isLive = false;

  constructor(context, name) {
    this.#context = context;
    this.#name = name;
    this.#path = `rooms/${encodeURIComponent(name)}/events`;
    this.#room = context.broker.room(name);
    this.element = this.#build();
    this.#room.on("event", (event) => this.#add([event]), { signal: context.signal });
    context.signal.addEventListener("abort", () => this.#isLive && this.#room.leave().catch(() => {}));
    context.every(REFRESH, () => this.#refresh());
  }

  #build() {
    const live = action("Watch it live", () => this.#join(live), { classes: "button" });
    const why = el(
      "p.hint",
      {},
      "This page asks every two seconds, and is no member. Watching live joins the room: others see that.",
    );
    const send = this.#context.canWrite ? [card("Send an event", this.#form())] : [];
    return el(
      "div.stack",
      {},
      el("p", {}, link(this.#context, "rooms", {}, "← All rooms")),
      el("h3.name", {}, this.#name),
      el(
        "div.pair",
        {},
        card("Members", this.#members, live, why),
        card("Rate", el("p", {}, this.#rate, " in the last 5 s"), this.#chart.element),
      ),
      card("Events", this.#none, this.#scroller),
      ...send,
    );
  }

  async #refresh() {
    const known = this.#newest;
    const [{ events }, members] = await Promise.all([
      this.#context.api.get(this.#path, { limit: 200 }),
      this.#present(),
    ]);
    if (known && isAnew(known, events)) this.#forget();
    this.#add(events);
    this.#drawMembers(members);
    this.#drawRate();
    const words = "Nothing to be seen. A room without history shows only what happens while it is watched live.";
    this.#none.hidden = this.#events.items.length > 0;
    this.#none.textContent = this.#none.hidden ? "" : words;
  }

  /** Who is in it; null while the socket is not there. */
  async #present() {
    const answer = await this.#room.presence().catch(() => null);
    return answer?.members ?? answer;
  }

  async #join(button) {
    await this.#room.join({ afterSeq: this.#newest?.seq });
    this.#isLive = true;
    button.replaceChildren(el("p.hint", {}, "Watched live: this page is a member until you leave this panel."));
  }

  /** The newest event that is in the log. */
  get #newest() {
    return this.#events.items.findLast(({ seq }) => seq);
  }

  #forget() {
    this.#events.clear();
    this.#list.replaceChildren();
  }

  #add(events) {
    const newest = this.#newest?.seq ?? 0;
    const now = new Date().toISOString(); // what a room does not keep has no time of its own
    const fresh = events.filter(({ seq }) => seq === undefined || seq > newest).map((event) => ({ at: now, ...event }));
    for (const event of fresh) {
      const what = `${who(event.from) || "anonymous"}: ${brief(JSON.stringify(event.data.data))}`;
      this.#list.append(line({ seq: event.seq, at: event.at, kind: event.data.event, shape: "room", what }, event));
    }
    for (const _ of this.#events.add(fresh)) this.#list.firstChild.remove();
    if (fresh.length) this.#follow();
  }

  #drawMembers(members) {
    if (!Array.isArray(members)) return;
    const rows = members
      .slice(0, NAMED)
      .map(({ user, connection_id }) => el("li", {}, user ?? "anonymous", " ", el("code.hint", {}, connection_id)));
    if (members.length > NAMED) rows.push(el("li.hint", {}, `and ${count(members.length - NAMED)} more`));
    refill(this.#members, rows.length ? el("ul.members", {}, ...rows) : el("p.hint", {}, "Nobody is in this room."));
  }

  #drawRate() {
    const end = Math.floor(Date.now() / 1000 / STEP) * STEP;
    const at = Array.from({ length: POINTS }, (_, i) => (end - (POINTS - 1 - i) * STEP) * 1000);
    const counts = new Array(POINTS).fill(0);
    for (const event of this.#events.items) {
      const index = POINTS - Math.ceil((end - Date.parse(event.at) / 1000) / STEP);
      if (index >= 0) counts[Math.min(index, POINTS - 1)] += 1;
    }
    const series = counts.map((number) => number / STEP);
    this.#chart.update(at, [series]);
    this.#rate.textContent = rate(series.at(-1));
  }

  #form() {
    const name = el("input", { value: "message", required: true, spellcheck: false });
    const data = el("textarea", { rows: 3, spellcheck: false });
    const kind = el("p.hint", {}, "Sent as text.");
    const error = el("p.refusal", { role: "alert" });
    data.oninput = () => (kind.textContent = isJson(data.value) ? "Sent as JSON." : "Sent as text.");
    const onsubmit = async (event) => {
      event.preventDefault();
      error.textContent = await this.#send(name.value, data.value).then(() => "", wordsOf);
    };
    const fields = [el("label", {}, "Event", name), el("label", {}, "Data", data), kind, error];
    return el("form.stack", { onsubmit }, ...fields, el("div", {}, el("button.primary", {}, "Send")));
  }

  async #send(event, text) {
    const data = isJson(text) ? JSON.parse(text) : text;
    const { delivered } = await this.#context.api.post(this.#path, { event, data });
    this.#context.announce(`Sent to ${delivered} of its members.`);
    await this.#refresh();
  }
}

/** Whether a room's log has begun anew since this event was read of it. */
function isAnew({ seq, at }, events) {
  const same = events.find((event) => event.seq === seq);
  return same ? same.at !== at : !(events.at(-1)?.seq > seq);
}

function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
