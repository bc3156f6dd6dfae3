// The stores on the map: all of them from time to time, those in view as they change.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { mostFollowed, useLive } from "../../api/live";
import { usePoll } from "../../api/service";
import type { Heatmap, MapStores } from "../../api/types";
import { wrap } from "../../map/geo";
import { shade, type Box, type Stores, type WorldMap } from "../../map/world";

/** Seconds between two readings of all stores. */
const every = 30;
/** Up to so many stores in view are followed one by one; the rest of a connection's is for the panel. */
const followed = mostFollowed - 50;

export interface StoresOnMap {
  total: number | null;
  /** There are too many to show each: only those near what is in view are. */
  partial: boolean;
  error: Error | null;
  /** How many are followed live. */
  live: number;
}

const inside = (b: Box, lat: number, lng: number): boolean => lat >= b.south && lat <= b.north && (((lng - b.west) % 360) + 360) % 360 <= b.east - b.west;

/** Keeps the map's stores as they are. */
export function useStoresOnMap(map: WorldMap): StoresOnMap {
  const [box, setBox] = useState<Box>(() => map.box());
  useEffect(() => map.onRest(() => setBox(map.box())), [map]);

  // All stores at once; where they are too many, those of a box that is somewhat larger than the view; where even those are too many,
  // the cells of the heat map.
  const [partial, setPartial] = useState(false);
  const [around, setAround] = useState<Box | null>(null);
  const bbox = partial && around ? "?bbox=" + [wrap(around.west), around.south, wrap(around.east), around.north].map((v) => v.toFixed(4)).join(",") : "";
  const polled = usePoll<MapStores>(partial && !around ? null : `/v1/map${bbox}`, every);
  const stores = polled.value;
  const tooMany = stores !== null && !stores.complete;
  useEffect(() => {
    if (tooMany) setPartial(true);
  }, [tooMany]);
  useEffect(() => {
    if (partial && (!around || !within(box, around) || (tooMany && width(box) < width(around) / 4))) setAround(grown(box));
  }, [partial, box, tooMany]);
  const heat = usePoll<Heatmap>(tooMany && partial ? `/v1/heatmap${bbox}` : null, every);
  useEffect(() => {
    if (stores?.complete) map.setStores(stores);
    else if (heat.value) map.setStores(cells(heat.value));
  }, [map, stores, heat.value]);

  const inView = useMemo(() => {
    if (!stores?.complete) return [];
    const ids: string[] = [];
    for (let i = 0; i < stores.ids.length && ids.length <= followed; i++) if (inside(box, stores.lat[i], stores.lng[i])) ids.push(stores.ids[i]);
    return ids.length <= followed ? ids : [];
  }, [stores, box]);
  const open = useMemo(() => {
    const known = new Map<string, boolean | null>();
    if (stores && inView.length > 0) stores.ids.forEach((id, i) => known.set(id, stores.open[i]));
    return known;
  }, [stores, inView.length > 0]);

  // Changes are gathered for a frame: there may be hundreds a second.
  const pending = useRef(new Map<string, number>());
  const frame = useRef(0);
  useLive(inView, (q) => {
    pending.current.set(q.id, shade(q.wait_s, open.get(q.id) ?? null));
    frame.current ||= requestAnimationFrame(() => {
      frame.current = 0;
      map.setShades(pending.current);
      pending.current.clear();
    });
  });
  useEffect(() => () => cancelAnimationFrame(frame.current), []);

  return { total: stores && !partial ? stores.ids.length : null, partial, error: polled.error, live: inView.length };
}

/** The cells of a heat map as entries that stand for all their stores. */
function cells(h: Heatmap): Stores {
  const s: Stores & { n: number[] } = { ids: [], lat: [], lng: [], wait_s: [], open: [], n: [] };
  for (const f of h.features) {
    const ring = f.geometry.coordinates[0].slice(1); // the first corner is also the last
    s.ids.push(f.id);
    s.lng.push(ring.reduce((sum, c) => sum + c[0], 0) / ring.length);
    s.lat.push(ring.reduce((sum, c) => sum + c[1], 0) / ring.length);
    s.wait_s.push(f.properties.mean_wait_s);
    s.open.push(null);
    s.n.push(f.properties.stores);
  }
  return s;
}

const width = (b: Box): number => b.east - b.west;

function within(a: Box, b: Box): boolean {
  return a.west >= b.west && a.east <= b.east && a.south >= b.south && a.north <= b.north;
}

function grown(b: Box): Box {
  const [w, h] = [(b.east - b.west) / 2, (b.north - b.south) / 2];
  const wide = b.east - b.west + 2 * w >= 360;
  return { west: wide ? -180 : b.west - w, east: wide ? 179.9999 : b.east + w, south: Math.max(-90, b.south - h), north: Math.min(90, b.north + h) };
}
