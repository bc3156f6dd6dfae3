// Geometry on the sphere that both maps need.
import type { Place } from "../api/types";

const rad = Math.PI / 180;

/**
 * Points along a bow from a to b that is flat on the map: a great circle would leave it near the poles. Longitudes go on past 180 instead
 * of jumping, so that it can be drawn as one line.
 */
export function bow(a: Place, b: Place, steps = 32): [lng: number, lat: number][] {
  const from: [number, number] = [a.lng, mercator(a.lat)];
  const to: [number, number] = [a.lng + wrap(b.lng - a.lng), mercator(b.lat)];
  const [dx, dy] = [to[0] - from[0], to[1] - from[1]];
  const side = dx < 0 ? -0.18 : 0.18; // it rises to the north
  const middle = [(from[0] + to[0]) / 2 - dy * side, (from[1] + to[1]) / 2 + dx * side];
  return Array.from({ length: steps + 1 }, (_, i) => {
    const t = i / steps;
    const at = (k: 0 | 1) => (1 - t) ** 2 * from[k] + 2 * t * (1 - t) * middle[k] + t ** 2 * to[k];
    return [at(0), (2 * Math.atan(Math.exp(at(1) * rad)) - Math.PI / 2) / rad];
  });
}

/** The height of a latitude on the map, in degrees of longitude. */
const mercator = (lat: number): number => Math.log(Math.tan(Math.PI / 4 + (Math.max(-85, Math.min(85, lat)) * rad) / 2)) / rad;

/** The longitude between -180 and 180. */
export const wrap = (lng: number): number => ((((lng + 180) % 360) + 360) % 360) - 180;

/** The box around places, the short way round. */
export function around(places: Place[]): { west: number; south: number; east: number; north: number } {
  const first = places[0].lng;
  const lngs = places.map((p) => first + wrap(p.lng - first));
  const lats = places.map((p) => p.lat);
  return { west: Math.min(...lngs), south: Math.min(...lats), east: Math.max(...lngs), north: Math.max(...lats) };
}
