/**
 * Makes `dist` here: the client as the broker serves it, and its types, which TypeScript reads from it.
 *
 *     node build.js
 */

import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, "dist");

rmSync(dist, { recursive: true, force: true });
mkdirSync(dist);
copyFileSync(join(here, "..", "broker", "web", "static", "client.js"), join(dist, "client.js"));
copyFileSync(join(here, "types.d.ts"), join(dist, "types.d.ts"));
copyFileSync(join(here, "..", "LICENSE"), join(dist, "LICENSE"));

const typescript = createRequire(import.meta.url).resolve("typescript/package.json");
const { bin } = JSON.parse(readFileSync(typescript, "utf8"));
execFileSync(process.execPath, [join(dirname(typescript), bin.tsc), "-p", here], { stdio: "inherit" });

const types = join(dist, "client.d.ts");
writeFileSync(types, `${outward(readFileSync(types, "utf8"))}export type * from "./types.js";\n`);

/** Declarations without what is nobody else's: what begins with `_`, and constructors of what only the client constructs. */
function outward(text) {
  const kept = [];
  let comment = [];
  let depth = 0;
  let isOurs = false;
  for (const line of text.trimEnd().split("\n")) {
    if (depth === 1) isOurs = /^ {4}(_\w|constructor\((broker|session)\b)/.test(line);
    depth += line.split("{").length - line.split("}").length;
    if (/^ *(\/\*\*|\*)/.test(line)) comment.push(line);
    else {
      if (!isOurs) kept.push(...comment, line);
      comment = [];
    }
  }
  return `${kept.join("\n")}\n`;
}
