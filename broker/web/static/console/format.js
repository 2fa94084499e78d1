/** Figures as people read them; what is not known is a dash. */

const DASH = "–";
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

const isMissing = (value) => value === null || value === undefined || Number.isNaN(value);

/** A count, such as `12,345`. */
export function count(value) {
  return isMissing(value) ? DASH : Math.round(value).toLocaleString("en");
}

/** Something per second, such as `3.2/s`. */
export function rate(value) {
  if (isMissing(value)) return DASH;
  return `${value > 0 && value < 10 ? value.toFixed(1) : count(value)}/s`;
}

/** A share of 1, such as `0.4 %`. */
export function percent(value) {
  if (isMissing(value)) return DASH;
  const hundred = value * 100;
  if (hundred > 99 && hundred < 100) return `${(Math.floor(hundred * 10) / 10).toFixed(1)} %`; // it is not all of them
  return `${hundred > 0 && hundred < 10 ? hundred.toFixed(1) : Math.round(hundred)} %`;
}

/** Bytes, such as `3.4 MiB`. */
export function bytes(value) {
  if (isMissing(value)) return DASH;
  let unit = 0;
  for (; value >= 1024 && unit < UNITS.length - 1; unit += 1) value /= 1024;
  return `${unit && value < 100 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`;
}

/** Seconds that something took, such as `0.4 ms`, `25 ms` or `3.1 s`. */
export function took(value) {
  if (isMissing(value)) return DASH;
  if (value < 1) {
    const ms = value * 1000;
    return `${ms > 0 && ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  }
  return value < 60 ? `${value < 10 ? value.toFixed(1) : Math.round(value)} s` : span(value);
}

/** Seconds that something has lasted, in its two largest units, such as `2 d 3 h` or `45 s`. */
export function span(value) {
  if (isMissing(value)) return DASH;
  const whole = Math.max(0, Math.floor(value));
  const parts = [
    [Math.floor(whole / 86_400), "d"],
    [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"],
    [whole % 60, "s"],
  ];
  const first = Math.min(parts.findIndex(([number]) => number > 0) >>> 0, 3);
  return parts
    .slice(first, first + 2)
    .filter(([number], index) => number || !index)
    .map((part) => part.join(" "))
    .join(" ");
}

/** How long ago a time was, such as `3 min 2 s`; takes what `Date` takes. */
export function age(at, now = Date.now()) {
  return span((now - new Date(at)) / 1000);
}
