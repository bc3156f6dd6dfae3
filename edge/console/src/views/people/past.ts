// What is known of a store's past and what is expected of it, read once a minute at most.
import { useEffect, useState } from "preact/hooks";
import { read } from "../../api/service";
import type { Forecast, Stats, WeekHour } from "../../api/types";

const kept = new Map<string, { at: number; value: Promise<unknown> }>();
const age = 60_000;

/** A read that is answered again for a minute. What failed is not kept. */
function cached<T>(path: string): Promise<T> {
  const now = Date.now();
  for (const [p, k] of kept) if (now - k.at > age) kept.delete(p);
  let k = kept.get(path);
  if (!k) {
    const value = read<T>(path);
    kept.set(path, (k = { at: now, value }));
    value.catch(() => kept.delete(path));
  }
  return k.value as Promise<T>;
}

export interface Past {
  stats: Stats | null;
  forecast: Forecast | null;
  error: Error | null;
}

const nothing: Past = { stats: null, forecast: null, error: null };

/** Both, null until they are there; again every minute. */
export function usePast(id: string, hours: number): Past {
  const [past, set] = useState<Past>(nothing);
  useEffect(() => {
    let over = false;
    set(nothing);
    const look = () => {
      const store = `/v1/stores/${encodeURIComponent(id)}`;
      Promise.all([cached<Stats>(`${store}/stats`), cached<Forecast>(`${store}/forecast?hours=${hours}`)]).then(
        ([stats, forecast]) => over || set({ stats, forecast, error: null }),
        (error: Error) => over || set((old) => ({ ...old, error })),
      );
    };
    look();
    const timer = setInterval(() => document.hidden || look(), age + 1_000);
    return () => {
      over = true;
      clearInterval(timer);
    };
  }, [id, hours]);
  return past;
}

export const days = ["Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"] as const;
export const dayNames: Record<WeekHour["day"], string> = { Mo: "Monday", Tu: "Tuesday", We: "Wednesday", Th: "Thursday", Fr: "Friday", Sa: "Saturday", Su: "Sunday" };

/** The day of the week (0: Monday) and the hour on a zone's clock. */
export function localTime(at: Date, zone: string): { day: number; hour: number; minute: number } {
  const parts = new Intl.DateTimeFormat("en-GB", { timeZone: zone, weekday: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" }).formatToParts(at);
  const get = (type: string) => parts.find((p) => p.type === type)?.value ?? "";
  return { day: ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].indexOf(get("weekday")), hour: Number(get("hour")), minute: Number(get("minute")) };
}
