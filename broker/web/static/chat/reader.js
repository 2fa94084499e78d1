/** Somebody who has a session in front of them: who they are, and what they did themselves. */

/** One tab's reader of one session. */
export class Reader {
  #broker;
  #mine = new Set(); // turns stopped or taken back, and questions answered, in this tab

  /**
   * @param {import("../client.js").Broker} broker
   * @param {import("../client.js").Session} session
   */
  constructor(broker, session) {
    this.#broker = broker;
    this.session = session;
  }

  /** As the broker knows them; null for nobody in particular. */
  get user() {
    return this.#broker.identity?.user ?? null;
  }

  /** Whether it was done here: tabs of people without names are told apart by this alone. */
  hasDone(about) {
    return this.#mine.has(about);
  }

  /** Ask for something that this tab will have done to `about`, unless it is refused; as `Session.request`. */
  async own(about, action, payload) {
    this.#mine.add(about);
    try {
      return await this.session.request(action, payload);
    } catch (error) {
      this.#mine.delete(about);
      throw error;
    }
  }
}
