// The base map: the countries of Natural Earth (1:50m), from this server.
import type { Feature, FeatureCollection, MultiLineString, MultiPolygon, Point, Polygon, Position } from "geojson";
import { feature, mesh } from "topojson-client";
import type { GeometryCollection, Topology } from "topojson-specification";
import url from "world-atlas/countries-50m.json?url";

export interface Land {
  countries: FeatureCollection<Polygon | MultiPolygon, { name: string }>;
  borders: Feature<MultiLineString>;
  labels: FeatureCollection<Point, { name: string; size: number }>;
}

let loading: Promise<Land> | null = null;

export function loadLand(): Promise<Land> {
  return (loading ??= load().catch((e) => {
    loading = null;
    throw e;
  }));
}

async function load(): Promise<Land> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`the base map answers ${response.status}`);
  const topology = (await response.json()) as Topology<{ countries: GeometryCollection<{ name: string }> }>;
  const countries = feature(topology, topology.objects.countries) as Land["countries"];
  const borders = mesh(topology, topology.objects.countries as never, (a, b) => a !== b);
  return {
    countries,
    borders: { type: "Feature", properties: {}, geometry: borders },
    labels: { type: "FeatureCollection", features: countries.features.map(label).filter((f) => f !== null) },
  };
}

/** A country's name in the middle of its largest part; null for what has none. */
function label(country: Land["countries"]["features"][number]): Feature<Point, { name: string; size: number }> | null {
  const g = country.geometry;
  const rings = (g.type === "Polygon" ? [g.coordinates] : g.coordinates).map((polygon) => polygon[0]);
  let best: { area: number; at: Position } | null = null;
  for (const ring of rings) {
    const middle = centroid(ring);
    if (!best || middle.area > best.area) best = middle;
  }
  if (!best || !country.properties.name) return null;
  return { type: "Feature", properties: { name: country.properties.name, size: best.area }, geometry: { type: "Point", coordinates: best.at } };
}

function centroid(ring: Position[]): { area: number; at: Position } {
  let area = 0;
  let x = 0;
  let y = 0;
  for (let i = 0; i + 1 < ring.length; i++) {
    const [x0, y0] = ring[i];
    const [x1, y1] = ring[i + 1];
    const cross = x0 * y1 - x1 * y0;
    area += cross;
    x += (x0 + x1) * cross;
    y += (y0 + y1) * cross;
  }
  return area === 0 ? { area: 0, at: ring[0] } : { area: Math.abs(area / 2), at: [x / (3 * area), y / (3 * area)] };
}
