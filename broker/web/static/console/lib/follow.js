/** A session's log as it grows: told over the socket where one may attach, else by asking again and again. */

const PAGE = 500;
const PAUSE = 2000; // ms between two questions where nothing is told

/**
 * What the panel is told. `records` in their order; the first time, unless it said after which, the newest page with
 * the number that asks for the page before. `reset`: all that was told is void. `live`: whether it is told, or asks.
 * @typedef {{records: (records: object[], before?: number) => void, reset?: () => void, gone?: (error: object) => void,
 *   live?: (isLive: boolean) => void}} Told
 */

/**
 * Follow a session's log until the panel is left.
 * @param {object} context the panel's
 * @param {string} sessionId
 * @param {Told} told
 * @param {number} [after] the number of the last record that one has
 * @returns {Promise<void>} once the first page was told; refused if the log cannot be read
 */
export async function follow(context, sessionId, told, after) {
  const { api, broker, signal } = context;
  const path = `sessions/${encodeURIComponent(sessionId)}`;
  const page = () => api.get(`${path}/records`, { limit: PAGE }, signal);
  const { epoch } = await api.get(path, {}, signal);
  let newest = after ?? 0;
  const take = (records) => {
    const fresh = records.filter(({ seq }) => seq > newest);
    if (!fresh.length || signal.aborted) return;
    if (newest && fresh[0].seq > newest + 1) told.reset?.(); // more came between two questions than an answer holds
    newest = fresh.at(-1).seq;
    told.records(fresh);
  };
  if (after === undefined) {
    const { records, before_seq } = await page();
    newest = records.at(-1)?.seq ?? 0;
    told.records(records, before_seq);
  }
  if (signal.aborted) return;
  const poll = () => context.every(PAUSE, async () => take((await page()).records));
  const session = broker.session(sessionId);
  session.on("record", (record) => take([record]), { signal });
  const forget = () => {
    newest = 0;
    told.reset?.();
  };
  session.on("reset", forget, { signal });
  session.on("gone", (error) => told.gone?.(error), { signal });
  signal.addEventListener("abort", () => session.detach().catch(() => {}));
  session.attach({ afterSeq: newest, epoch }).then(
    () => told.live?.(true),
    () => signal.aborted || poll(),
  );
}
