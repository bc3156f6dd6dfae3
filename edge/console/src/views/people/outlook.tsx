// What is expected of a store's queue, with the band that four of five hours fall into.
import { useMemo, useState } from "preact/hooks";
import type uPlot from "uplot";
import type { Forecast } from "../../api/types";
import { axes, Chart, cssColour, type Options } from "../../ui/chart";
import { clock, duration, wait as say, waitRange } from "../../ui/format";

export function Outlook({ forecast, wait }: { forecast: Forecast; wait: number | null }) {
  const [at, setAt] = useState<number | null>(null);
  const data = useMemo((): uPlot.AlignedData => {
    const now = wait === null ? [] : [{ x: Date.now() / 1000, mid: wait, low: wait, high: wait }];
    const points = [...now, ...forecast.hours.map((h) => ({ x: Date.parse(h.at) / 1000 + 1800, mid: h.wait_s, low: h.wait_low_s, high: h.wait_high_s }))];
    return [points.map((p) => p.x), points.map((p) => p.high), points.map((p) => p.low), points.map((p) => p.mid)];
  }, [forecast, wait]);
  const time = (s: number) => clock(new Date(s * 1000), forecast.timezone);
  const options = (): Options => {
    const accent = cssColour("--accent");
    const bound = { stroke: "transparent", points: { show: false } };
    return {
      scales: { x: { time: true }, y: { range: (_, __, high) => [0, Math.max(180, high * 1.1)] } },
      axes: axes((s) => `${Math.round(s / 60)} min`, time, [60, 120, 300, 600, 1200, 1800, 3600, 7200]),
      series: [{}, bound, bound, { stroke: accent, width: 2, points: { show: false } }],
      bands: [{ series: [1, 2], fill: accent + "33" }],
      cursor: { y: false, points: { show: false } },
      hooks: { setCursor: [(u) => setAt(u.cursor.idx ?? null)] },
    };
  };
  const i = at ?? 0;
  const [x, high, low, mid] = data as number[][];
  const best = forecast.hours.reduce((a, b) => (b.wait_s < a.wait_s ? b : a));
  return (
    <>
      <Chart options={options} data={data} height={150} on={forecast.id} label={`Expected waits. The shortest is at ${clock(new Date(best.at), forecast.timezone)}: ${duration(best.wait_s)}.`} />
      <p class="small num soft">{x.length > i ? `${i === 0 && wait !== null ? "now" : time(x[i])}: ${say(mid[i])} expected, most likely ${waitRange(low[i], high[i])}` : ""}</p>
    </>
  );
}
