/** SVG elements, and the icons of the console. */

const NAMESPACE = "http://www.w3.org/2000/svg";

/**
 * Make an SVG element.
 * @param {string} tag such as `path`
 * @param {Record<string, string|number>} [attributes]
 * @param {...(Node|string)} children
 */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(NAMESPACE, tag);
  set(element, attributes);
  element.append(...children);
  return element;
}

/** Set attributes of an element; one that is null is taken away. */
export function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null) element.removeAttribute(name);
    else element.setAttribute(name, value);
  }
}

/** A coordinate as short as it need be. */
export const short = (number) => Math.round(number * 100) / 100;

/** Strokes on a grid of 20 by 20. */
const ICONS = {
  overview: "M3 11a7 7 0 0 1 14 0M10 11l3.5-4M5 15h10",
  connections: "M6 4v4M14 4v4M4 8h12v2a6 6 0 0 1-12 0zM10 16v2",
  sessions: "M3 4h14v9H9l-4 3.5V13H3zM6.5 7.5h7M6.5 10h4",
  rooms:
    "M7 9a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5" +
    "M2.5 16c0-3 2-4.5 4.5-4.5s4.5 1.5 4.5 4.5M13 9.5a2 2 0 1 0-1-3.7M13.5 12c2.4 0 4 1.4 4 4",
  agents: "M4 7h12v9H4zM10 7V3.5M8.5 3.5h3M7.5 11v1.5M12.5 11v1.5M2 10.5v2.5M18 10.5v2.5",
  trace:
    "M4.5 6a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3" +
    "M15.5 17a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3M6 4.5h6a3 3 0 0 1 0 6H8a2.5 2.5 0 0 0 0 5h6",
  stream: "M2 7c2.7-3 5.3-3 8 0s5.3 3 8 0M2 13c2.7-3 5.3-3 8 0s5.3 3 8 0",
  latency: "M3 16.5h14M4.5 16V12M8 16V5M11.5 16V8.5M15 16v-2.5",
  plugins: "M4 8h3V6.5a1.8 1.8 0 1 1 3.6 0V8H14v3.2h1.2a1.8 1.8 0 1 1 0 3.6H14V17H4z",
  configuration: "M3 6h8M15 6h2M3 14h2M9 14h8M13 8a2 2 0 1 0 0-4 2 2 0 0 0 0 4M7 16a2 2 0 1 0 0-4 2 2 0 0 0 0 4",
  log: "M5 3h7l3.5 3.5V17H5zM8 8.5h2M8 11h5M8 13.5h5",
  lock: "M6 9.5h8V16H6zM7.5 9.5V7a2.5 2.5 0 0 1 5 0v2.5",
  client: "M3 4.5h14v11H3zM6 8l2.5 2L6 12M10.5 12.5H14",
};

/** The icon of a panel; it says nothing that its label does not. */
export function icon(name) {
  return svg(
    "svg",
    { class: "icon", viewBox: "0 0 20 20", "aria-hidden": "true" },
    svg("path", { d: ICONS[name] ?? "" }),
  );
}
