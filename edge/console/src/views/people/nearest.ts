// The nearest five of a place, in the order that was chosen, and as they change.
import { useEffect, useState } from "preact/hooks";
import { useLive } from "../../api/live";
import { read, usePoll } from "../../api/service";
import type { Nearby, NearbyStore, Place } from "../../api/types";

export type Sort = "distance" | "wait" | "fastest";

/** Ways to get there, in metres a second. */
export const speeds = { walk: 1.4, cycle: 4.5, drive: 10 } as const;
export type Speed = keyof typeof speeds;

const five = 5;
/** Seconds between two looks whether other stores are the best by now. */
const every = 15;

export interface Nearest {
  /** null: not known yet */
  stores: NearbyStore[] | null;
  /** Those listed may be closed: none is known to be open. */
  noneOpen: boolean;
  /** How far was looked for short waits, in metres; null: everywhere. */
  within: number | null;
  error: Error | null;
  again: () => void;
}

/** How long until somebody who sets out now is served, in seconds; null where the wait is not known. */
export function servedIn(s: NearbyStore, speed: Speed): number | null {
  return s.queue ? s.distance_m / speeds[speed] + s.queue.wait_s : null;
}

export function useNearest(place: Place | null, sort: Sort, speed: Speed, openOnly: boolean): Nearest {
  const [stores, setStores] = useState<NearbyStore[] | null>(null);
  const [reach, setReach] = useState<{ within: number | null; anyOpen: boolean } | null>(null);
  const [fault, setFault] = useState<Error | null>(null);
  const at = place ? `lat=${place.lat}&lng=${place.lng}&limit=${five}` : "";

  // First the nearest anywhere: they say how far it makes sense to look for shorter waits.
  useEffect(() => {
    setReach(null);
    setFault(null);
    if (!place) return;
    let over = false;
    const look = async () => {
      const open = openOnly ? (await read<Nearby>(`/v1/nearby?${at}&radius=21000km&fields=distance_m&open_now=true`)).stores : [];
      const anyOpen = open.length > 0;
      if (sort === "distance") return { within: null, anyOpen };
      const all = anyOpen ? open : (await read<Nearby>(`/v1/nearby?${at}&radius=21000km&fields=distance_m`)).stores;
      const fifth = all.length > 0 ? all[all.length - 1].distance_m : 0;
      return { within: Math.ceil(Math.min(Math.max(3 * fifth, 3_000), Math.max(50_000, fifth + 1))), anyOpen };
    };
    look().then((r) => over || setReach(r), (e: Error) => over || setFault(e));
    return () => void (over = true);
  }, [at, sort === "distance", openOnly]);

  const path =
    place && reach
      ? `/v1/nearby?${at}&radius=${reach.within ?? "21000km"}&sort=${sort}` + (sort === "fastest" ? `&speed=${speeds[speed]}` : "") + (openOnly && reach.anyOpen ? "&open_now=true" : "")
      : null;
  const polled = usePoll<Nearby>(path, every);
  useEffect(() => setStores(null), [at]);
  useEffect(() => {
    if (polled.value) setStores(polled.value.stores);
  }, [polled.value]);

  useLive(stores?.map((s) => s.id) ?? [], (q) =>
    setStores((old) =>
      old
        ? old.map((s) => (s.id === q.id && q.length !== null ? { ...s, queue: { usual_length: null, ...s.queue, length: q.length, wait_s: q.wait_s!, wait_high_s: q.wait_high_s!, updated_at: q.updated_at!, age_s: 0 } } : s))
        : old,
    ),
  );

  const sorted = stores && sort !== "distance" ? [...stores].sort((a, b) => rank(a, sort, speed) - rank(b, sort, speed)) : stores;
  return { stores: sorted, noneOpen: openOnly && reach !== null && !reach.anyOpen, within: reach?.within ?? null, error: fault ?? polled.error, again: polled.again };
}

const rank = (s: NearbyStore, sort: Sort, speed: Speed): number => (sort === "wait" ? s.queue?.wait_s : servedIn(s, speed)) ?? Infinity;
