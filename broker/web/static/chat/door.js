/** Who is at the page: the connection's state in the bar, and the dialog that asks for a token. */

import { byId } from "../shared/dom.js";
import { forget, keep, redeemTicket, token } from "../shared/login.js";
import { connectionWords } from "../shared/words.js";

const BAD_TOKEN = 4500;
const UNSENT = "broker session_id "; // with what the client keeps of a session in the tab

/** Lets one person in at a time; `getToken` and `attend` tie it to the page's connection. */
export class Door {
  #broker = null;
  #login = byId("login");
  #why = ""; // what was wrong with the one-time link
  #redeemed = this.#redeem();

  /** What to show the broker, once it is known whether the page's address brought a ticket. */
  async getToken({ reason }) {
    await this.#redeemed;
    return reason === "expiring" ? null : token(); // no other is there until somebody brings one
  }

  /** Show the state of a connection, and ask for a token when the broker does. */
  attend(broker) {
    this.#broker = broker;
    broker.on("state", (state) => this.#show(state));
    window.addEventListener("hashchange", () => this.#enterAgain());
    this.#login.onsubmit = ({ target }) => this.#enter(target);
    byId("sign-out").onclick = () => this.#leave();
  }

  #show(state) {
    document.body.dataset.connection = state.state;
    byId("connection-text").textContent = connectionWords(state);
    const user = state.state === "open" && this.#broker.identity.user;
    byId("who").textContent = user || "";
    byId("sign-out").hidden = !user || !token();
    if (state.state === "closed" && state.code === BAD_TOKEN) this.#ask(state.reason);
  }

  #ask(reason) {
    forget();
    byId("login-why").textContent = this.#why || reason;
    this.#why = "";
    if (!this.#login.open) this.#login.showModal();
  }

  #enter(form) {
    keep(form.token.value);
    form.reset();
    this.#connect(); // without a token that can be one, the broker says what it wants
  }

  async #redeem() {
    try {
      return await redeemTicket();
    } catch (error) {
      this.#why = error.message;
      return false;
    }
  }

  /** Come back as who a link says, if the address has got one since. */
  async #enterAgain() {
    this.#redeemed = this.#redeem();
    if (!(await this.#redeemed)) return;
    this.#broker.close();
    this.#connect();
  }

  /** Leave nothing for who comes next: what was not sent yet would go out in their name. */
  async #leave() {
    forget();
    this.#broker.close();
    await new Promise((settle) => setTimeout(settle)); // the client keeps what waits when it is closed
    for (const key of Object.keys(sessionStorage)) if (key.startsWith(UNSENT)) sessionStorage.removeItem(key);
    location.reload();
  }

  #connect() {
    this.#broker.connect().catch(() => {}); // its state says why not
  }
}
