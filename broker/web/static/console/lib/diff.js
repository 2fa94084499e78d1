/** What is different between two JSON values, path by path. */

/**
 * One difference; `before` is undefined for what was added, `after` for what was removed.
 * @typedef {{path: string, kind: "added"|"changed"|"removed", before?: unknown, after?: unknown}} Difference
 */

const PLAIN = /^[A-Za-z_$][\w$]*$/;

/**
 * The differences between two values, in the order of the keys; objects and arrays are compared part by part.
 * @param {unknown} before
 * @param {unknown} after
 * @returns {Difference[]}
 */
export function differences(before, after, path = "") {
  if (!isContainer(before) || !isContainer(after) || Array.isArray(before) !== Array.isArray(after)) {
    return isSame(before, after) ? [] : [difference(path, before, after)];
  }
  const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  return keys.flatMap((key) => part(own(before, key), own(after, key), step(path, key, Array.isArray(after))));
}

/** How many of each kind there are, such as `1 added, 2 changed`. */
export function countWords(found) {
  const words = ["added", "changed", "removed"].map((kind) => [kind, found.filter((one) => one.kind === kind).length]);
  return words.flatMap(([kind, count]) => (count ? [`${count} ${kind}`] : [])).join(", ") || "nothing changed";
}

function part(before, after, path) {
  if (before === undefined || after === undefined) return [difference(path, before, after)];
  return differences(before, after, path);
}

function difference(path, before, after) {
  const kind = before === undefined ? "added" : after === undefined ? "removed" : "changed";
  return { path, kind, before, after };
}

function own(value, key) {
  return Object.hasOwn(value, key) ? value[key] : undefined; // a variable may be called `constructor`
}

function step(path, key, isIndex) {
  if (isIndex) return `${path}[${key}]`;
  if (!PLAIN.test(key)) return `${path}[${JSON.stringify(key)}]`;
  return path ? `${path}.${key}` : key;
}

function isContainer(value) {
  return typeof value === "object" && value !== null;
}

function isSame(before, after) {
  return (
    before === after || (isContainer(before) && isContainer(after) && JSON.stringify(before) === JSON.stringify(after))
  );
}
