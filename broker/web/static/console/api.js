/** The broker's HTTP API, asked in the name of whoever has signed in. */

const BASE = new URL("api/v1/", location.href); // beside the page, wherever that is
const PATIENCE = 15_000; // ms

/** A refusal, or `unreachable` where no answer came. */
class ApiError extends Error {
  /** @param {object} problem as the broker tells it (RFC 9457): code, message, status, and hint or recovery */
  constructor(problem) {
    super(problem.message);
    Object.assign(this, {
      code: problem.code,
      status: problem.status,
      hint: problem.hint ?? problem.recovery,
      retryable: problem.retryable ?? false,
    });
  }

  /** What it says, and what to do about it. */
  get words() {
    return this.hint ? `${this.message} ${this.hint}` : this.message;
  }
}

/**
 * Make the API.
 * @param {() => ?string} token what is shown at each request
 * @param {(error: ApiError) => void} [onStranger] called when the broker does not know who asks
 */
export function makeApi(token, onStranger = () => {}) {
  const ask = async (method, path, { query, body, signal } = {}) => {
    const url = new URL(path.replace(/^\//, ""), BASE);
    for (const [name, value] of Object.entries(query ?? {}))
      if (value !== undefined && value !== null) url.searchParams.set(name, value);
    const answer = await send(url, method, token(), body, signal);
    const data = await answer.json().catch(() => null);
    if (answer.ok && data !== null) return data;
    const error = refusal(answer.status, data);
    if (error.status === 401) onStranger(error);
    throw error;
  };
  return {
    /** Read something. */
    get: (path, query, signal) => ask("GET", path, { query, signal }),
    /** Do something. */
    post: (path, body = {}) => ask("POST", path, { body }),
    /** End something. */
    delete: (path) => ask("DELETE", path),
  };
}

async function send(url, method, token, body, signal) {
  const headers = {
    ...(token && { Authorization: `Bearer ${token}` }),
    ...(body && { "Content-Type": "application/json" }),
  };
  const patience = AbortSignal.timeout(PATIENCE);
  const stop = signal && AbortSignal.any ? AbortSignal.any([signal, patience]) : patience;
  try {
    return await fetch(url, { method, headers, body: body && JSON.stringify(body), signal: stop, cache: "no-store" });
  } catch (e) {
    if (signal?.aborted) throw e;
    throw new ApiError({ code: "unreachable", message: "The broker does not answer.", status: 0, retryable: true });
  }
}

function refusal(status, data) {
  const unclear = { code: "internal", message: `The broker answered with ${status}, and nothing that can be read.` };
  return new ApiError({ ...unclear, ...(typeof data === "object" ? data : null), status });
}
