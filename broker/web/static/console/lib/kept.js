/** The newest of what comes for hours, as much as a page should hold. */

const BYTES = 16 << 20; // of JSON

/** A list that lets go of its oldest. */
export class Kept {
  /** @type {object[]} oldest first */
  items = [];
  #most;
  #sizes = [];
  #size = 0;

  /** @param {number} most items that it holds */
  constructor(most) {
    this.#most = most;
  }

  /** Whether it holds as much as it may. */
  get isFull() {
    return this.items.length >= this.#most || this.#size >= BYTES;
  }

  /** Add items at the end; returns those that it let go of, never the newest. */
  add(items) {
    this.#enter(items, "push");
    let surplus = 0;
    const left = () => this.items.length - surplus;
    for (; left() > this.#most || (left() > 1 && this.#size > BYTES); surplus += 1) this.#size -= this.#sizes[surplus];
    this.#sizes.splice(0, surplus);
    return this.items.splice(0, surplus);
  }

  /** Add items before the first. */
  prepend(items) {
    this.#enter(items, "unshift");
  }

  /** Let go of all. */
  clear() {
    this.items = [];
    this.#sizes = [];
    this.#size = 0;
  }

  #enter(items, way) {
    const sizes = items.map((item) => JSON.stringify(item).length);
    this.items[way](...items);
    this.#sizes[way](...sizes);
    this.#size += sizes.reduce((sum, size) => sum + size, 0);
  }
}
