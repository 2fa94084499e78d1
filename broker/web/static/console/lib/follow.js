/** A session's log as it grows: told over the socket; asked for again and again where that cannot be had. */

const PAGE = 500;
const PAUSE = 2000; // ms between two questions where nothing is told

/**
 * What the panel is told. `records` in their order, and with a page the number that asks for the page before.
 * `reset`: all that was told is void, because the log has begun anew or some of it was missed.
 * @typedef {{records: (records: object[], before?: number) => void, reset?: () => void}} Told
 */

/**
 * Follow a session's log until the panel is left.
 * @param {object} context the panel's
 * @param {string} sessionId
 * @param {Told} told
 * @param {number} [after] the number of the last record that one has; without it the newest page is told first
 * @returns {Promise<void>} once the first page was told; refused if the log cannot be read
 */
export async function follow(context, sessionId, told, after) {
  const { api, broker, signal } = context;
  const path = `sessions/${encodeURIComponent(sessionId)}`;
  const page = () => api.get(`${path}/records`, { limit: PAGE }, signal);
  let { epoch } = await api.get(path, {}, signal);
  let newest = after ?? 0;
  const take = (records, before) => {
    const fresh = records.filter(({ seq }) => seq > newest);
    if (!fresh.length || signal.aborted) return;
    const isWhole = newest > 0 && fresh[0].seq === newest + 1;
    if (newest && !isWhole) told.reset?.(); // more came between two questions than an answer holds
    newest = fresh.at(-1).seq;
    told.records(fresh, isWhole ? undefined : before);
  };
  if (after === undefined) {
    const { records, before_seq } = await page();
    take(records, before_seq);
  }
  if (signal.aborted) return;

  const session = broker.session(sessionId);
  const attach = () => session.attach({ afterSeq: newest, epoch }).catch(() => {}); // then it is asked for
  const begin = (anew) => {
    epoch = anew;
    newest = 0;
    told.reset?.();
  };
  session.on("record", (record) => take([record]), { signal });
  session.on("reset", (log) => begin(log.epoch), { signal });
  signal.addEventListener("abort", () => session.detach().catch(() => {}));
  attach();
  context.every(PAUSE, async () => {
    if (session.isFollowed && broker.state === "open") return;
    const now = await api.get(path, {}, signal);
    const { records, before_seq } = await page();
    if (now.epoch !== epoch) {
      begin(now.epoch); // it was deleted, and made anew
      attach();
    }
    take(records, before_seq);
  });
}
