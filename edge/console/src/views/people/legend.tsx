import { createPortal } from "preact/compat";
import { useEffect, useState } from "preact/hooks";
import { unknownWait, waitStops } from "../../map/colours";
import type { WorldMap } from "../../map/world";
import { count } from "../../ui/format";

/** What the colours mean, on the map. */
export function Legend({ map, live }: { map: WorldMap; live: number }) {
  const [host] = useState(() => {
    const element = document.createElement("div");
    element.className = "legend";
    return element;
  });
  useEffect(() => map.addCorner(host), [map, host]);
  return createPortal(
    <>
      <span class="legend-title">Wait now</span>
      <svg class="legend-bar" viewBox="0 0 150 8" preserveAspectRatio="none" aria-hidden="true">
        <defs>
          <linearGradient id="waits">
            {waitStops.map(([s, colour]) => (
              <stop key={s} offset={s / waitStops[waitStops.length - 1][0]} stop-color={colour} />
            ))}
          </linearGradient>
        </defs>
        <rect width="150" height="8" rx="4" fill="url(#waits)" />
      </svg>
      <span class="legend-ends">
        <span>none</span>
        <span>9 min</span>
        <span>18 min+</span>
      </span>
      <span class="legend-other">
        <svg viewBox="0 0 10 10" width="10" height="10" aria-hidden="true">
          <circle cx="5" cy="5" r="5" fill={unknownWait} />
        </svg>
        closed or not known
      </span>
      {live > 0 ? <span class="legend-live">{count(live)} stores live</span> : null}
    </>,
    host,
  );
}
