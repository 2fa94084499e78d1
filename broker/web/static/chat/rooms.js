/** The panel of a room: who is there, what is said, and saying something. */

import { byId, el, fold, follower, json } from "../shared/dom.js";
import { Room } from "./room.js";
import { shortId, timeWords, who } from "../shared/words.js";

/** Holds at most one room; `onChange(name or null)` is called when it changes. */
export class Rooms {
  #broker;
  #onChange;
  #room = null;
  #events = byId("events");
  #follow = follower(this.#events);

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
    const room = (this.#room = new Room(this.#broker, name));
    room.on("joined", () => this.#refuse(""));
    room.on("members", (members) => this.#members(members));
    room.on("event", (event) => this.#event(event));
    room.on("gap", () => this.#append(el("li.note", {}, "Some events were missed for good")));
    room.on("gone", (error) => this.#gone(error));
    room.open();
    this.#show(name);
  }

  #leave() {
    this.#room?.close();
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
        this.#refuse(error.message);
      },
    );
  }

  #gone(error) {
    this.#leave();
    this.#refuse(error.message);
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
