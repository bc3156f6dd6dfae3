// The base map, from this server: the countries of Natural Earth (1:50m) and the larger cities of GeoNames.
import type { Feature, FeatureCollection, MultiLineString, MultiPolygon, Point, Polygon, Position } from "geojson";
import { feature, mesh } from "topojson-client";
import type { GeometryCollection, Topology } from "topojson-specification";
import url from "world-atlas/countries-50m.json?url";
import citiesURL from "./cities.json?url";

export interface Land {
  countries: FeatureCollection<Polygon | MultiPolygon, { name: string }>;
  borders: Feature<MultiLineString>;
  /** Size is the area in square degrees. */
  labels: FeatureCollection<Point, { name: string; size: number }>;
  /** Size is in thousands of people. */
  cities: FeatureCollection<Point, { name: string; size: number; capital: boolean }>;
}

/** name, latitude, longitude, thousands of people, 1 for a capital */
type City = [string, number, number, number, 1?];

let loading: Promise<Land> | null = null;

export function loadLand(): Promise<Land> {
  return (loading ??= load().catch((e) => {
    loading = null;
    throw e;
  }));
}

async function get<T>(url: string): Promise<T> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`the base map answers ${response.status}`);
  return response.json();
}

async function load(): Promise<Land> {
  const [topology, cities] = await Promise.all([get<Topology<{ countries: GeometryCollection<{ name: string }> }>>(url), get<City[]>(citiesURL)]);
  const countries = feature(topology, topology.objects.countries) as Land["countries"];
  for (const { geometry: g } of countries.features) {
    g.coordinates = (g.type === "Polygon" ? g.coordinates.map(whole) : g.coordinates.map((polygon) => polygon.map(whole))) as typeof g.coordinates;
  }
  const borders = mesh(topology, topology.objects.countries as never, (a, b) => a !== b);
  borders.coordinates = borders.coordinates.map(unbroken);
  return {
    countries,
    borders: { type: "Feature", properties: {}, geometry: borders },
    labels: { type: "FeatureCollection", features: countries.features.map(label).filter((f) => f !== null) },
    cities: {
      type: "FeatureCollection",
      features: cities.map(([name, lat, lng, size, capital]) => ({ type: "Feature", properties: { name, size, capital: capital === 1 }, geometry: { type: "Point", coordinates: [lng, lat] } })),
    },
  };
}

/** A line whose longitudes go on past 180 degrees instead of jumping to the other side. */
function unbroken(line: Position[]): Position[] {
  let last = line[0][0];
  return line.map(([lng, lat]) => [(last = lng + 360 * Math.round((last - lng) / 360)), lat]);
}

/** unbroken for the outline of an area; one that goes around a pole is closed there. */
function whole(ring: Position[]): Position[] {
  const out = unbroken(ring);
  const [first, last] = [out[0], out[out.length - 1]];
  if (Math.abs(last[0] - first[0]) < 1) return out;
  const pole = first[1] < 0 ? -90 : 90;
  return [...out, [last[0], pole], [first[0], pole], first];
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
