// uPlot in the colours of the page. Loaded with the view that draws charts.
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { useTheme } from "./theme";

export type Options = Omit<uPlot.Options, "width" | "height">;

/** The value of a CSS variable: for canvases, which know none. */
export const cssColour = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Axes as all charts have them; `steps` are the distances that lines may have. */
export function axes(values: (v: number) => string, times?: (v: number) => string, steps?: number[]): uPlot.Axis[] {
  const common = { stroke: cssColour("--soft"), grid: { stroke: cssColour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  return [
    { ...common, grid: { show: false }, size: 24, values: (_, ticks) => ticks.map(times ?? String), space: 48 },
    { ...common, size: 44, values: (_, ticks) => ticks.map(values), space: 26, ...(steps ? { incrs: steps } : {}) },
  ];
}

/**
 * A chart of `options()` and `data`, as wide as its place. What it shows is in `label` for those who cannot see it.
 * `options` is called again when the theme or a key of `on` changes.
 */
export function Chart({ options, data, height, label, on }: { options: () => Options; data: uPlot.AlignedData; height: number; label: string; on: unknown }) {
  const host = useRef<HTMLDivElement>(null);
  const theme = useTheme();
  useEffect(() => {
    const element = host.current!;
    const chart = new uPlot({ legend: { show: false }, ...options(), width: element.clientWidth, height }, data, element);
    const sizes = new ResizeObserver(() => chart.setSize({ width: element.clientWidth, height }));
    sizes.observe(element);
    return () => {
      sizes.disconnect();
      chart.destroy();
    };
  }, [theme, data, height, on]);
  return <div class="chart" ref={host} role="img" aria-label={label} />;
}
