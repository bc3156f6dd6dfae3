// Geometry on the sphere that both maps need.
import type { Place } from "../api/types";

const rad = Math.PI / 180;

/** Points along the great circle from a to b. Longitudes go on past 180 instead of jumping, so that it can be drawn as one line. */
export function greatCircle(a: Place, b: Place, steps = 48): [lng: number, lat: number][] {
  const u = vector(a);
  const v = vector(b);
  const angle = Math.acos(Math.max(-1, Math.min(1, u[0] * v[0] + u[1] * v[1] + u[2] * v[2])));
  if (angle < 1e-6 || Math.PI - angle < 1e-6) return [[a.lng, a.lat], [b.lng, b.lat]];
  const points: [number, number][] = [];
  for (let i = 0; i <= steps; i++) {
    const t = i / steps;
    const p = Math.sin((1 - t) * angle) / Math.sin(angle);
    const q = Math.sin(t * angle) / Math.sin(angle);
    const [x, y, z] = [0, 1, 2].map((k) => p * u[k] + q * v[k]);
    let lng = Math.atan2(y, x) / rad;
    const last = points.length > 0 ? points[points.length - 1][0] : lng;
    lng += 360 * Math.round((last - lng) / 360);
    points.push([lng, Math.atan2(z, Math.hypot(x, y)) / rad]);
  }
  return points;
}

function vector(p: Place): [number, number, number] {
  const cos = Math.cos(p.lat * rad);
  return [cos * Math.cos(p.lng * rad), cos * Math.sin(p.lng * rad), Math.sin(p.lat * rad)];
}

/** The longitude between -180 and 180. */
export const wrap = (lng: number): number => ((((lng + 180) % 360) + 360) % 360) - 180;

/** The box around places, the short way round. */
export function around(places: Place[]): { west: number; south: number; east: number; north: number } {
  const first = places[0].lng;
  const lngs = places.map((p) => first + wrap(p.lng - first));
  const lats = places.map((p) => p.lat);
  return { west: Math.min(...lngs), south: Math.min(...lats), east: Math.max(...lngs), north: Math.max(...lats) };
}
