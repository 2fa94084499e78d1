/** Work that is done again and again while somebody looks. */

const SLOWER = 5_000; // ms between tries while it fails

/**
 * Do `job` at once and then every `ms`, one at a time; not while the page is hidden, slower while it fails.
 * @param {number} ms
 * @param {() => Promise<void>} job
 * @param {{signal: AbortSignal, onDone: () => void, onFailed: (error: Error) => void}} context ends with the signal
 * @returns {() => void} does it now
 */
export function poll(ms, job, { signal, onDone, onFailed }) {
  let timer = 0;
  let isBusy = false;
  let isDue = false;
  const run = async () => {
    clearTimeout(timer);
    if (signal.aborted || document.hidden) return;
    isDue = isBusy; // asked for while it is under way: what comes back may be too old
    if (isBusy) return;
    isBusy = true;
    const isWell = await attempt(job, signal, onDone, onFailed);
    isBusy = false;
    if (!signal.aborted) timer = setTimeout(run, isDue ? 0 : isWell ? ms : Math.max(ms, SLOWER));
  };
  document.addEventListener("visibilitychange", run, { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  run();
  return run;
}

async function attempt(job, signal, onDone, onFailed) {
  try {
    await job();
    if (!signal.aborted) onDone();
    return true;
  } catch (error) {
    if (!signal.aborted) onFailed(error);
    return false;
  }
}
