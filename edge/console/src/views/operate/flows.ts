// Where users go: the region that GET /v1/route gives to people in large cities all over the world.
import { useEffect, useState } from "preact/hooks";
import { read } from "../../api/service";
import type { Place, Route } from "../../api/types";

/** Large cities of every continent (Natural Earth, public domain). */
const cities: Place[] = [
  { lat: 40.71, lng: -74.01 }, // New York
  { lat: 34.05, lng: -118.24 }, // Los Angeles
  { lat: 19.43, lng: -99.13 }, // Mexico City
  { lat: -23.55, lng: -46.63 }, // São Paulo
  { lat: 51.51, lng: -0.13 }, // London
  { lat: 41.01, lng: 28.98 }, // Istanbul
  { lat: 6.52, lng: 3.38 }, // Lagos
  { lat: -26.2, lng: 28.05 }, // Johannesburg
  { lat: 19.08, lng: 72.88 }, // Mumbai
  { lat: 31.23, lng: 121.47 }, // Shanghai
  { lat: 35.68, lng: 139.69 }, // Tokyo
  { lat: -33.87, lng: 151.21 }, // Sydney
];

export interface Flow {
  from: Place;
  /** The region's name. */
  to: string;
}

/** Asks anew every 5 s, and at once when `on` changes. */
export function useFlows(on: string): Flow[] {
  const [flows, set] = useState<Flow[]>([]);
  useEffect(() => {
    let over = false;
    let timer = 0;
    const ask = async () => {
      if (!document.hidden) {
        const answers = await Promise.all(cities.map((c) => read<Route>(`/v1/route?lat=${c.lat}&lng=${c.lng}`).catch(() => null)));
        if (over) return;
        set(answers.flatMap((a, i) => (a?.regions[0] ? [{ from: cities[i], to: a.regions[0].name }] : [])));
      }
      timer = window.setTimeout(ask, 5_000);
    };
    void ask();
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [on]);
  return flows;
}
