/** Who somebody is at the broker's pages: a token in the tab's own storage, typed in or brought by a one-time link. */

const KEY = "broker.token"; // sessionStorage: it ends with the tab, and no other tab has it
const PASSES = new URL("../../api/v1/passes", import.meta.url); // wherever the broker's pages are
const TRAVELS = /^[\w.~+-]+$/; // nothing else can be offered as a subprotocol

let redeeming = null;

/** The token that is kept; null if there is none. */
export function token() {
  return sessionStorage.getItem(KEY);
}

/**
 * Keep a token, instead of the one before.
 * @param {string} text as somebody typed or pasted it
 * @returns {boolean} whether it can be one: what cannot be shown to the broker is not kept
 */
export function keep(text) {
  const trimmed = text.trim();
  if (!TRAVELS.test(trimmed)) return false;
  sessionStorage.setItem(KEY, trimmed);
  return true;
}

/** Forget the token, because it is no longer good or somebody signs out. */
export function forget() {
  sessionStorage.removeItem(KEY);
}

/**
 * Exchange the ticket of a one-time link (`#ticket=…`) for a token and keep that; do nothing where there is none.
 *
 * The ticket is taken out of the address before anything else, so that no bookmark, history or copied link has it.
 * Calls while one is under way share its end.
 * @returns {Promise<boolean>} whether there was a ticket
 * @throws {Error} it was not accepted; the message is for the person, and what was kept before is still kept
 */
export function redeemTicket() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const ticket = parts.get("ticket");
  if (ticket === null) return redeeming ?? Promise.resolve(false);
  parts.delete("ticket");
  const left = String(parts);
  history.replaceState(history.state, "", left ? `#${left}` : location.pathname + location.search);
  const exchange = redeem(ticket).finally(() => {
    if (redeeming === exchange) redeeming = null;
  });
  return (redeeming = exchange);
}

async function redeem(ticket) {
  const body = JSON.stringify({ ticket });
  const answer = await fetch(PASSES, { method: "POST", headers: { "Content-Type": "application/json" }, body }).catch(
    () => null,
  );
  if (!answer)
    throw new Error("The broker cannot be reached, so the link was not used. Open it again when the broker runs.");
  const data = await answer.json().catch(() => ({}));
  if (!answer.ok)
    throw new Error([data.message, data.hint].filter(Boolean).join(" ") || `The link was refused (${answer.status}).`);
  if (!keep(data.token)) throw new Error("The broker gave a token that this page cannot show it.");
  return true;
}
