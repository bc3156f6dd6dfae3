// The 168 hours of a store's week, and when it is busiest.
import type { Stats } from "../../api/types";
import { waitColour } from "../../map/colours";
import { duration } from "../../ui/format";
import { dayNames, days, localTime } from "./past";

export function Week({ stats }: { stats: Stats }) {
  const { day, hour } = localTime(new Date(), stats.timezone);
  const busiest = stats.busiest.filter((h) => (h.mean_wait_s ?? 0) > 0).slice(0, 3);
  const cell = 12;
  return (
    <>
      <svg class="week" viewBox={`-26 -12 ${24 * cell + 27} ${7 * cell + 13}`} role="img" aria-label={`Usual waits by day and hour. ${busiest.map(say).join("; ")}`}>
        {[0, 6, 12, 18].map((h) => (
          <text key={h} x={h * cell} y="-3">
            {h}:00
          </text>
        ))}
        {days.map((d, i) => (
          <text key={d} x="-26" y={i * cell + 9}>
            {dayNames[d].slice(0, 3)}
          </text>
        ))}
        {stats.hours.map((h, i) => {
          const [row, column] = [Math.floor(i / 24), i % 24];
          const known = h.mean_wait_s !== null;
          return (
            <rect key={i} class={row === day && column === hour ? "this" : undefined} x={column * cell + 0.5} y={row * cell + 0.5} width={cell - 1} height={cell - 1} rx="2" fill={known ? waitColour(h.mean_wait_s) : "var(--raised)"} opacity={known && h.mean_wait_s! < 15 ? 0.3 : 1}>
              <title>{`${dayNames[h.day]} ${h.hour}:00: ${known ? `${duration(h.mean_wait_s!)} on average, of ${h.samples} reports` : "not known yet"}`}</title>
            </rect>
          );
        })}
      </svg>
      {busiest.length > 0 ? (
        <p class="small">
          <span class="soft">Busiest: </span>
          {busiest.map(say).join(" · ")}
        </p>
      ) : null}
    </>
  );
}

const say = (h: Stats["busiest"][number]): string => `${dayNames[h.day]} ${h.hour}:00 (${duration(h.mean_wait_s ?? 0)})`;
