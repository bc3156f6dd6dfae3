// pack DIR makes a built folder what the node embeds: every file gzipped where that makes it smaller (the plain one is left
// out; the node unpacks it for the few clients that want it so), and the hash of the sources that it was built from.
import { readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { gzipSync } from "node:zlib";
import { sourceHash } from "./hash.mjs";

const [dir] = process.argv.slice(2);
if (!dir) throw new Error("usage: node scripts/pack.mjs DIR");
let total = 0;
for (const entry of readdirSync(dir, { recursive: true, withFileTypes: true })) {
  if (!entry.isFile()) continue;
  const path = join(entry.parentPath, entry.name);
  const plain = readFileSync(path);
  const packed = gzipSync(plain, { level: 9 });
  if (packed.length < plain.length) {
    rmSync(path);
    writeFileSync(path + ".gz", packed);
  }
  total += Math.min(packed.length, plain.length);
}
writeFileSync(join(dir, "sources.sha256"), sourceHash() + "\n");
console.log(`${relative(".", dir)}: ${(total / 1024).toFixed(0)} KiB gzipped`);
if (total > 1024 * 1024) throw new Error("the console is larger than 1 MiB");
