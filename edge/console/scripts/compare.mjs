// compare A B fails where two packed folders differ in what they hold. How well gzip packed it depends on the version of Node.
import { readFileSync, readdirSync } from "node:fs";
import { join, relative } from "node:path";
import { gunzipSync } from "node:zlib";

/** @param {string} dir */
function contents(dir) {
  const found = new Map();
  for (const entry of readdirSync(dir, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    const bytes = readFileSync(path);
    const packed = path.endsWith(".gz");
    found.set(relative(dir, packed ? path.slice(0, -3) : path), (packed ? gunzipSync(bytes) : bytes).toString("base64"));
  }
  return found;
}

const [a, b] = process.argv.slice(2);
const before = contents(a);
const after = contents(b);
const differ = [...new Set([...before.keys(), ...after.keys()])].filter((name) => before.get(name) !== after.get(name)).sort();
if (differ.length > 0) {
  console.error(`${a} is not what the sources give (run: make console): ${differ.join(", ")}`);
  process.exit(1);
}
