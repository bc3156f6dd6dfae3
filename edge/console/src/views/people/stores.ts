// The stores on the map: all of them from time to time, those in view as they change.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { mostFollowed, useLive } from "../../api/live";
import { usePoll } from "../../api/service";
import type { MapStores } from "../../api/types";
import { wrap } from "../../map/geo";
import { shade, type Box, type WorldMap } from "../../map/world";

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

  // All stores at once; where they are too many, those of a box that is somewhat larger than the view.
  const [partial, setPartial] = useState(false);
  const around = useRef<Box | null>(null);
  if (partial && (!around.current || !within(box, around.current))) around.current = grown(box);
  const b = partial ? around.current : null;
  const polled = usePoll<MapStores>(b ? `/v1/map?bbox=${[wrap(b.west), b.south, wrap(b.east), b.north].map((v) => v.toFixed(4)).join(",")}` : "/v1/map", every);
  const stores = polled.value;
  useEffect(() => {
    if (!stores) return;
    if (!stores.complete && !partial) return setPartial(true);
    map.setStores(stores);
  }, [map, stores, partial]);

  const inView = useMemo(() => {
    if (!stores) return [];
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

function within(a: Box, b: Box): boolean {
  return a.west >= b.west && a.east <= b.east && a.south >= b.south && a.north <= b.north;
}

function grown(b: Box): Box {
  const [w, h] = [(b.east - b.west) / 2, (b.north - b.south) / 2];
  const wide = b.east - b.west + 2 * w >= 360;
  return { west: wide ? -180 : b.west - w, east: wide ? 179.9999 : b.east + w, south: Math.max(-90, b.south - h), north: Math.min(90, b.north + h) };
}
