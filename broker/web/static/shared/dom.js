/** Small words for making elements; text is only ever set as text. */

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/**
 * Make an element.
 * @param {string} tag such as `p` or `p.hint.small`
 * @param {object} [props] properties of the element; `on` holds listeners, `data` the dataset
 * @param {...(Node|string)} children strings become text nodes
 */
export function el(tag, { on = {}, data = {}, ...props } = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  element.classList.add(...classes);
  Object.assign(element, props);
  Object.assign(element.dataset, data);
  for (const [event, listener] of Object.entries(on)) element.addEventListener(event, listener);
  element.append(...children);
  return element;
}

/** A folded block whose content is made when it is first opened. */
export function fold(tag, summary, content) {
  const details = el(tag, {}, el("summary", {}, ...summary));
  details.addEventListener("toggle", () => details.append(content()), { once: true });
  return details;
}

/** A value as indented JSON in a `<pre>`. */
export function json(value) {
  return el("pre.json", {}, JSON.stringify(value, null, 2));
}

/** The objects of what ought to be an array of them; agents send what they like. */
export function list(value) {
  return Array.isArray(value) ? value.filter((item) => typeof item === "object" && item !== null) : [];
}

/** Make a change to `container`; if what had the focus goes with it, `next` gets it, so that it is never nowhere. */
export function keepFocus(container, next, change) {
  const focused = container.getRootNode().activeElement; // of the page, or of the shadow in which this is
  const isInside = container.contains(focused);
  change();
  if (isInside && !focused.getClientRects().length) next.focus({ preventScroll: true });
}

/** Keeps a scrolling element at its end while the reader is there; returns the function to call after each change. */
export function follower(scroller, onLeave = () => {}) {
  let atEnd = true;
  let due = false;
  let top = 0;
  const isAtEnd = () => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 48;
  const look = () => {
    const isUpward = scroller.scrollTop < top; // only the reader goes up; what grows only puts the end further off
    top = scroller.scrollTop;
    atEnd = isAtEnd() || (atEnd && !isUpward);
    onLeave(!atEnd);
  };
  scroller.addEventListener("scroll", look, { passive: true });
  const follow = (jump = false) => {
    atEnd ||= jump;
    if (due || !atEnd) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      scroller.scrollTop = scroller.scrollHeight;
    });
  };
  new ResizeObserver(() => follow()).observe(scroller); // a panel that was hidden could not scroll
  return follow;
}

/** Call `tell(seconds)` now and as whole seconds pass until `due` (on the clock of `performance.now()`), down to 0. */
export function countdown(due, tell, signal) {
  let last;
  const look = () => {
    const left = Math.max(0, Math.ceil((due - performance.now()) / 1000));
    if (left !== last) tell((last = left));
    if (!left) clearInterval(timer);
  };
  const timer = setInterval(look, 200);
  signal.addEventListener("abort", () => clearInterval(timer));
  look();
}
