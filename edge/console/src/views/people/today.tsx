// Today at one glance: how long one usually waits in each hour of this day of the week, and what is expected from now on.
import type { Forecast, Stats } from "../../api/types";
import { waitColour } from "../../map/colours";
import { waitRange } from "../../ui/format";
import { localTime } from "./past";

const height = 27;
const step = 10; // an hour's width

export function Today({ stats, forecast, wait, now = new Date() }: { stats: Stats; forecast: Forecast; wait: number | null; now?: Date }) {
  const { day, hour, minute } = localTime(now, stats.timezone);
  const usual = stats.hours.slice(24 * day, 24 * day + 24);
  const ahead = forecast.hours
    .map((h) => ({ ...h, x: hoursAhead(h.at, now) + hour + minute / 60 }))
    .filter((h) => h.x < 24);
  if (usual.every((h) => h.mean_wait_s === null) && ahead.length === 0) return <p class="soft small">No history of this day yet: it grows with each report.</p>;

  const top = Math.max(120, wait ?? 0, ...usual.map((h) => h.mean_wait_s ?? 0), ...ahead.map((h) => h.wait_high_s));
  const y = (s: number) => height - (s / top) * (height - 3);
  const x = (h: number) => h * step;
  const nowX = x(hour + minute / 60);
  // The forecast begins where the queue is now.
  const line = [...(wait === null ? [] : [{ x: hour + minute / 60, mid: wait, low: wait, high: wait }]), ...ahead.map((h) => ({ x: h.x + 0.5, mid: h.wait_s, low: h.wait_low_s, high: h.wait_high_s }))].filter((p) => p.x <= 24);
  const points = (list: { x: number; y: number }[]) => list.map((p) => `${x(p.x).toFixed(1)},${y(p.y).toFixed(1)}`).join(" ");
  const band = [...line.map((p) => ({ x: p.x, y: p.high })), ...line.map((p) => ({ x: p.x, y: p.low })).reverse()];
  const busiest = usual.reduce((a, b) => ((b.mean_wait_s ?? -1) > (a.mean_wait_s ?? -1) ? b : a));
  const label = [
    busiest.mean_wait_s ? `Today it is usually busiest at ${busiest.hour}:00.` : "",
    ahead.length > 0 ? `In the next hour ${waitRange(ahead[0].wait_low_s, ahead[0].wait_high_s)} are expected.` : "",
  ].join(" ");

  return (
    <svg class="today" viewBox={`0 0 ${24 * step} ${height + 11}`} role="img" aria-label={label}>
      {usual.map((h) =>
        h.mean_wait_s === null ? null : (
          <rect key={h.hour} x={x(h.hour) + 1} width={step - 2} y={y(h.mean_wait_s)} height={Math.max(0.8, height - y(h.mean_wait_s))} rx="1" fill={waitColour(h.mean_wait_s)} opacity={h.hour < hour ? 0.35 : 0.7} />
        ),
      )}
      <polygon class="band" points={points(band)} />
      <polyline class="ahead" points={points(line.map((p) => ({ x: p.x, y: p.mid })))} />
      <line class="now" x1={nowX} x2={nowX} y1="0" y2={height} />
      <line class="axis" x1="0" x2={24 * step} y1={height} y2={height} />
      {[0, 6, 12, 18].map((h) => (
        <text key={h} x={x(h)} y={height + 9.500}>
          {h}:00
        </text>
      ))}
    </svg>
  );
}

const hoursAhead = (at: string, now: Date): number => (Date.parse(at) - now.getTime()) / 3_600_000;
