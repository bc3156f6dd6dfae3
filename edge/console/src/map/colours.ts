// The colours of the map. Waits go from teal over yellow to red, which people with any colour vision tell apart by lightness.
import type { Theme } from "../ui/theme";

/** Wait in seconds and its colour; between them it is mixed. */
export const waitStops: [number, string][] = [
  [0, "#1fb5a3"],
  [150, "#9acb55"],
  [360, "#f6c945"],
  [660, "#f28b3a"],
  [1080, "#dc3f57"],
];
export const unknownWait = "#93a1b3";

export interface Palette {
  sea: string;
  land: string;
  border: string;
  label: string;
  city: string;
  halo: string;
  ring: string;
  clusterInk: string;
}

export const palettes: Record<Theme, Palette> = {
  light: { sea: "#dfe9f1", land: "#f7f6f2", border: "#c5ccd3", label: "#8a95a1", city: "#4d5a67", halo: "#f7f6f2", ring: "#ffffff", clusterInk: "#10202f" },
  dark: { sea: "#0d1620", land: "#1b2632", border: "#33424f", label: "#6f7f8e", city: "#a9b7c4", halo: "#1b2632", ring: "#0d1620", clusterInk: "#0a141d" },
};

function rgb(hex: string): [number, number, number] {
  const n = parseInt(hex.slice(1), 16);
  return [n >> 16, (n >> 8) & 255, n & 255];
}

/** The colour of a wait, for what is not drawn by MapLibre. */
export function waitColour(wait: number | null | undefined): string {
  if (wait === null || wait === undefined) return unknownWait;
  let i = waitStops.findIndex(([s]) => wait <= s);
  if (i === 0) return waitStops[0][1];
  if (i < 0) return waitStops[waitStops.length - 1][1];
  const [from, a] = waitStops[i - 1];
  const [to, b] = waitStops[i];
  const t = (wait - from) / (to - from);
  const [x, y] = [rgb(a), rgb(b)];
  return `rgb(${x.map((v, k) => Math.round(v + (y[k] - v) * t)).join(" ")})`;
}
