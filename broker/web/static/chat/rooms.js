/** The panel of a room: who is there, what is said, and saying something. */

import { byId, el, fold, follower, json } from "../shared/dom.js";
import { shortId, timeWords, who } from "../shared/words.js";

const PRESENCE = 3000; // ms between two questions who is there: who comes and goes is not told, only answered

/** Holds at most one room; `onChange(name or null)` is called when it changes. */
export class Rooms {
  #broker;
  #onChange;
  #room = null;
  #stay = new AbortController();
  #events = byId("events");
  #follow = follower(byId("events-log"));

  constructor(broker, onChange) {
    this.#broker = broker;
    this.#onChange = onChange;
    byId("join").onsubmit = (event) => this.#submit(event);
    byId("publish").onsubmit = (event) => this.#publish(event);
  }

  /** Join a room, leaving the one before. */
  join(name) {
    if (name === this.#room?.name) return;
    this.#leave();
    const room = (this.#room = this.#broker.room(name));
    const { signal } = (this.#stay = new AbortController());
    room.on("joined", ({ members }) => this.#joined(members ?? []), { signal });
    room.on("event", (event) => this.#event(event), { signal });
    room.on("reset", () => this.#append(el("li.note", {}, "Some events were missed for good")), { signal });
    room.on("gone", (error) => this.#gone(error), { signal });
    room.on("problem", (error) => this.#refuse(error.words), { signal });
    room.join({ afterSeq: 0 }).catch(() => {}); // it is told as an event
    const timer = setInterval(() => this.#present(room, signal), PRESENCE);
    signal.addEventListener("abort", () => clearInterval(timer));
    this.#show(name);
  }

  #leave() {
    this.#stay.abort();
    this.#room?.leave();
    this.#room = null;
    this.#events.replaceChildren();
    this.#show(null);
  }

  #show(name) {
    const form = byId("join");
    form.room.readOnly = Boolean(name);
    if (name) form.room.value = name;
    byId("join-button").textContent = name ? "Leave" : "Join";
    byId("room-body").hidden = !name;
    byId("room-hint").hidden = Boolean(name);
    this.#onChange(name);
  }

  #submit(event) {
    event.preventDefault();
    if (this.#room) this.#leave();
    else this.join(event.target.room.value.trim());
  }

  #publish(event) {
    event.preventDefault();
    const form = event.target;
    const text = form.text.value;
    form.text.value = "";
    this.#room.publish("message", { text }).then(
      () => this.#refuse(""),
      (error) => {
        form.text.value ||= text;
        this.#refuse(error.words);
      },
    );
  }

  #joined(members) {
    this.#refuse("");
    this.#members(members);
  }

  async #present(room, signal) {
    if (document.hidden || this.#broker.state !== "open") return;
    const members = await room.presence().catch(() => null);
    if (members && !signal.aborted) this.#members(members);
  }

  #gone(error) {
    this.#leave();
    this.#refuse(error.words);
  }

  #refuse(text) {
    byId("room-error").textContent = text;
  }

  #members(members) {
    const own = this.#broker.identity?.connection_id;
    const items = members.map((member) => {
      const isOwn = member.connection_id === own;
      return el("li", { data: { own: isOwn } }, `${nameOf(member)}${isOwn ? " (you)" : ""}`);
    });
    byId("members").replaceChildren(...items);
  }

  #event({ seq, from, data: { event, data }, at }) {
    const text = typeof data === "string" ? data : data?.text;
    const name = event === "message" ? [] : [el("span.kind", {}, event)];
    const label = el("p.author", {}, nameOf(from), at ? ` · ${timeWords(at)}` : "", seq ? ` · ${seq}` : "");
    const content = typeof text === "string" ? el("p", {}, text) : fold("details", ["data"], () => json(data));
    this.#append(el("li", {}, label, ...name, content));
  }

  #append(item) {
    this.#events.append(item);
    while (this.#events.childElementCount > 500) this.#events.firstElementChild.remove();
    this.#follow();
  }
}

function nameOf(peer) {
  return who(peer) || (peer?.connection_id ? `guest ${shortId(peer.connection_id)}` : "the broker");
}
