// The hash of all that a build depends on. edge/console_test.go computes the same, without Node.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";

const roots = ["index.html", "package-lock.json", "package.json", "scripts", "src", "tsconfig.json", "vite.config.ts"];

/** @param {string} path @returns {string[]} its files, with forward slashes */
function files(path) {
  return statSync(path).isDirectory() ? readdirSync(path).flatMap((name) => files(join(path, name))) : [path.replaceAll("\\", "/")];
}

/** Over each file's path, a zero byte, its SHA-256 and a newline, in order of path. */
export function sourceHash() {
  const all = createHash("sha256");
  for (const path of roots.flatMap(files).sort()) {
    all.update(path + "\0" + createHash("sha256").update(readFileSync(path)).digest("hex") + "\n");
  }
  return all.digest("hex");
}
