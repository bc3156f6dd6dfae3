// Clusters for the plain map: stores of one square of a grid become one.
import { noWait, shade, type Stores } from "./world";

export interface Cluster {
  /** The middle, in the projection's units. */
  x: number;
  y: number;
  count: number;
  /** The mean wait of the open ones, or what shade() says where there is none. */
  shade: number;
  /** The index of the store, if it is one; null for several. */
  store: number | null;
}

/** Gathers the stores in squares of `side`; each is by itself where `single`. */
export function clusters(s: Stores, side: number, single: boolean, toX: (lng: number) => number, toY: (lat: number) => number): Cluster[] {
  const squares = new Map<number, Cluster & { sum: number; known: number }>();
  const out: Cluster[] = [];
  for (let i = 0; i < s.ids.length; i++) {
    const [x, y, n, value] = [toX(s.lng[i]), toY(s.lat[i]), s.n?.[i] ?? 1, shade(s.wait_s[i], s.open[i])];
    if (single) {
      out.push({ x, y, count: n, shade: value, store: n === 1 ? i : null });
      continue;
    }
    const key = Math.floor(x / side) * 0x100000 + Math.floor(y / side);
    const c = squares.get(key);
    if (!c) {
      squares.set(key, { x, y, count: n, shade: value, store: n === 1 ? i : null, sum: n * Math.max(value, 0), known: value >= 0 ? n : 0 });
      continue;
    }
    c.x += ((x - c.x) * n) / (c.count + n);
    c.y += ((y - c.y) * n) / (c.count + n);
    c.count += n;
    c.store = null;
    c.sum += n * Math.max(value, 0);
    c.known += value >= 0 ? n : 0;
  }
  for (const c of squares.values()) {
    if (c.store === null) c.shade = c.known > 0 ? c.sum / c.known : noWait;
    out.push(c);
  }
  return out;
}
