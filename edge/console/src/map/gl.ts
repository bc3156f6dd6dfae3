// The map by MapLibre GL: land and labels from Natural Earth, stores clustered in a worker, no server for tiles or fonts.
import * as maplibregl from "maplibre-gl";
import "maplibre-gl/dist/maplibre-gl.css";
import workerURL from "maplibre-gl/dist/maplibre-gl-worker.mjs?url";
import type { FeatureCollection, LineString, Point } from "geojson";
import type { Theme } from "../ui/theme";
import { palettes, unknownWait, waitStops } from "./colours";
import { around, bow, wrap } from "./geo";
import { loadLand } from "./land";
import { closed, shade, world, type Click, type Line, type Stores, type WorldMap } from "./world";

maplibregl.setWorkerUrl(workerURL);

const empty: FeatureCollection<never> = { type: "FeatureCollection", features: [] };
const font = ["system-ui", "sans-serif"];

type Expression = maplibregl.ExpressionSpecification;

/** The colour of an expression that gives a shade. */
const coloured = (wait: Expression): Expression =>
  ["case", ["<", wait, 0], unknownWait, ["interpolate", ["linear"], wait, ...waitStops.flat()]] as unknown as Expression;

const storeShade: Expression = ["coalesce", ["feature-state", "shade"], ["get", "shade"]];
const clusterWait: Expression = ["case", ["!", ["has", "known"]], ["get", "shade"], [">", ["get", "known"], 0], ["/", ["get", "sum"], ["get", "known"]], -1];
const clusterText: Expression = ["case", ["<", ["get", "n"], 1000], ["to-string", ["get", "n"]], ["<", ["get", "n"], 10000], ["concat", ["/", ["round", ["/", ["get", "n"], 100]], 10], "k"], ["<", ["get", "n"], 1e6], ["concat", ["round", ["/", ["get", "n"], 1000]], "k"], ["concat", ["/", ["round", ["/", ["get", "n"], 1e5]], 10], "M"]];

function style(theme: Theme): maplibregl.StyleSpecification {
  const c = palettes[theme];
  return {
    version: 8,
    transition: { duration: 200, delay: 0 },
    sources: {
      land: { type: "geojson", data: empty, tolerance: 0.3, maxzoom: 8 },
      borders: { type: "geojson", data: empty, tolerance: 0.3, maxzoom: 8 },
      labels: { type: "geojson", data: empty, maxzoom: 6 },
      cities: { type: "geojson", data: empty, maxzoom: 8 },
      lines: { type: "geojson", data: empty },
      stores: {
        type: "geojson", data: empty, promoteId: "id", cluster: true, clusterRadius: 44, clusterMaxZoom: 10, maxzoom: 12,
        clusterProperties: {
          n: ["+", ["get", "n"]],
          sum: ["+", ["*", ["get", "n"], ["max", ["get", "shade"], 0]]],
          known: ["+", ["case", [">=", ["get", "shade"], 0], ["get", "n"], 0]],
        },
      },
    },
    layers: [
      { id: "sea", type: "background", paint: { "background-color": c.sea } },
      { id: "land", type: "fill", source: "land", paint: { "fill-color": c.land, "fill-outline-color": c.border } },
      { id: "borders", type: "line", source: "borders", paint: { "line-color": c.border, "line-width": ["interpolate", ["linear"], ["zoom"], 1, 0.6, 6, 1.4] } },
      {
        id: "labels", type: "symbol", source: "labels", minzoom: 2,
        filter: [">", ["get", "size"], ["interpolate", ["exponential", 0.5], ["zoom"], 2, 40, 5, 1, 7, 0]] as unknown as maplibregl.FilterSpecification,
        layout: { "text-field": ["get", "name"], "text-font": font, "text-size": 12, "text-letter-spacing": 0.06, "symbol-sort-key": ["-", 0, ["get", "size"]], "text-max-width": 7 },
        paint: { "text-color": c.label, "text-halo-color": c.halo, "text-halo-width": 1.2 },
      },
      {
        id: "cities", type: "symbol", source: "cities", minzoom: 3.5,
        filter: ["any", [">", ["get", "size"], ["step", ["zoom"], 5000, 4.5, 2000, 5.5, 700, 6.5, 300, 7.5, 100]], ["all", ["get", "capital"], [">=", ["zoom"], 4.5]]] as unknown as maplibregl.FilterSpecification,
        layout: { "text-field": ["get", "name"], "text-font": font, "text-size": ["interpolate", ["linear"], ["get", "size"], 100, 11, 3000, 14], "symbol-sort-key": ["-", 0, ["get", "size"]], "text-padding": 6, "text-max-width": 8, "text-anchor": "top", "text-offset": [0, 0.9] },
        paint: { "text-color": c.city, "text-halo-color": c.halo, "text-halo-width": 1.4 },
      },
      {
        id: "lines", type: "line", source: "lines", filter: ["!", ["get", "dashed"]], layout: { "line-cap": "round" },
        paint: { "line-color": ["get", "colour"], "line-width": ["get", "width"], "line-opacity": 0.85 },
      },
      {
        id: "lines-dashed", type: "line", source: "lines", filter: ["get", "dashed"],
        paint: { "line-color": ["get", "colour"], "line-width": ["get", "width"], "line-dasharray": [2, 2], "line-opacity": 0.85 },
      },
      {
        id: "clusters", type: "circle", source: "stores", filter: [">", ["get", "n"], 1],
        paint: {
          "circle-color": coloured(clusterWait),
          "circle-radius": ["interpolate", ["linear"], ["log10", ["get", "n"]], 0, 8, 1, 13, 2, 18, 3, 26, 4, 36, 6, 44],
          "circle-opacity": 0.9, "circle-stroke-width": 2, "circle-stroke-color": c.ring, "circle-stroke-opacity": 0.8,
        },
      },
      {
        id: "cluster-counts", type: "symbol", source: "stores", filter: [">", ["get", "n"], 1],
        layout: { "text-field": clusterText, "text-font": font, "text-size": ["interpolate", ["linear"], ["log10", ["get", "n"]], 0, 10, 2, 12, 4, 15], "text-allow-overlap": true, "text-ignore-placement": true },
        paint: { "text-color": c.clusterInk },
      },
      {
        id: "stores", type: "circle", source: "stores", filter: ["==", ["get", "n"], 1],
        paint: {
          "circle-color": coloured(storeShade),
          "circle-radius": ["interpolate", ["linear"], ["zoom"], 2, 3.5, 8, 5, 13, 8],
          "circle-opacity": ["case", ["==", storeShade, closed], 0.45, 1],
          "circle-stroke-width": ["interpolate", ["linear"], ["zoom"], 4, 0.8, 12, 2], "circle-stroke-color": c.ring,
        },
      },
    ],
  };
}

const storeFeatures = (s: Stores): FeatureCollection<Point> => ({
  type: "FeatureCollection",
  features: s.ids.map((id, i) => ({ type: "Feature", properties: { id, n: s.n?.[i] ?? 1, shade: shade(s.wait_s[i], s.open[i]) }, geometry: { type: "Point", coordinates: [s.lng[i], s.lat[i]] } })),
});

export async function createGLMap(host: HTMLElement): Promise<WorldMap> {
  const map = new maplibregl.Map({
    container: host, style: style("light"), bounds: [world.west, world.south, world.east, world.north], fitBoundsOptions: { padding: 10 },
    minZoom: 0.4, maxZoom: 15, dragRotate: false, pitchWithRotate: false, touchPitch: false, attributionControl: false, fadeDuration: 150,
  });
  map.touchZoomRotate.disableRotation();
  map.keyboard.disableRotation();
  map.addControl(new maplibregl.NavigationControl({ showCompass: false }), "top-right");
  map.addControl(new maplibregl.ScaleControl(), "bottom-right");
  map.addControl(new maplibregl.AttributionControl({ compact: false, customAttribution: 'Map: Natural Earth, cities: <a href="https://www.geonames.org/" rel="noreferrer">GeoNames</a>' }), "bottom-right");
  map.on("error", (e) => console.error("map:", e.error?.message ?? e));
  await new Promise<void>((done) => map.once("style.load", () => done()));
  const canvas = map.getCanvas();
  canvas.setAttribute("aria-label", "Map. Arrow keys move it, plus and minus zoom, Enter chooses the place in its middle.");

  const source = (id: string) => map.getSource(id) as maplibregl.GeoJSONSource;
  loadLand().then(
    (land) => {
      source("land").setData(land.countries);
      source("borders").setData(land.borders);
      source("labels").setData(land.labels);
      source("cities").setData(land.cities);
    },
    (e: Error) => console.error("map:", e.message), // stores are shown without it
  );

  const markers = new Map<string, Map<string, maplibregl.Marker>>();
  const lines = new Map<string, Line[]>();
  const drawLines = () => {
    const colours = getComputedStyle(document.documentElement);
    const features: FeatureCollection<LineString> = { type: "FeatureCollection", features: [] };
    for (const l of [...lines.values()].flat()) {
      const properties = { colour: colours.getPropertyValue(l.colour).trim() || "#888888", width: l.width, dashed: Boolean(l.dashed) };
      const points = bow(l.from, l.to);
      features.features.push({ type: "Feature", properties, geometry: { type: "LineString", coordinates: points } });
      if (l.arrow) for (const wing of arrowhead(points)) features.features.push({ type: "Feature", properties: { ...properties, dashed: false }, geometry: { type: "LineString", coordinates: wing } });
    }
    source("lines").setData(features);
  };
  const clicks = new Set<(c: Click) => void>();
  const click = (c: Click) => clicks.forEach((tell) => tell({ ...c, lng: wrap(c.lng) }));
  map.on("click", (e) => {
    const [hit] = map.queryRenderedFeatures([[e.point.x - 4, e.point.y - 4], [e.point.x + 4, e.point.y + 4]], { layers: ["stores"] });
    click({ lat: e.lngLat.lat, lng: e.lngLat.lng, store: hit ? String(hit.properties.id) : null });
  });
  canvas.addEventListener("keydown", (e) => {
    if (e.key !== "Enter") return;
    const { lat, lng } = map.getCenter();
    click({ lat, lng, store: null });
  });
  for (const layer of ["stores", "clusters"]) {
    map.on("mouseenter", layer, () => (canvas.style.cursor = "pointer"));
    map.on("mouseleave", layer, () => (canvas.style.cursor = ""));
  }

  const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
  return {
    kind: "gl",
    setStores(stores) {
      map.removeFeatureState({ source: "stores" });
      source("stores").setData(storeFeatures(stores));
    },
    setShades(shades) {
      for (const [id, shade] of shades) map.setFeatureState({ source: "stores", id }, { shade });
    },
    setMarkers(layer, wanted) {
      const before = markers.get(layer) ?? new Map<string, maplibregl.Marker>();
      const now = new Map<string, maplibregl.Marker>();
      for (const m of wanted) {
        const old = before.get(m.id);
        if (old && old.getElement() === m.element) {
          old.setLngLat([m.lng, m.lat]);
          before.delete(m.id);
          now.set(m.id, old);
        } else {
          now.set(m.id, new maplibregl.Marker({ element: m.element, anchor: m.anchor ?? "center" }).setLngLat([m.lng, m.lat]).addTo(map));
        }
      }
      before.forEach((m) => m.remove());
      markers.set(layer, now);
    },
    setLines(layer, wanted) {
      lines.set(layer, wanted);
      drawLines();
    },
    setTheme(theme) {
      for (const layer of style(theme).layers) {
        for (const [name, value] of Object.entries(layer.paint ?? {})) {
          if (/color$/.test(name)) map.setPaintProperty(layer.id, name as never, value as never);
        }
      }
      drawLines();
    },
    box() {
      const b = map.getBounds();
      return { west: b.getWest(), south: b.getSouth(), east: b.getEast(), north: b.getNorth() };
    },
    zoom: () => map.getZoom(),
    show(places, { maxZoom = 13, instant = false } = {}) {
      if (places.length === 0) return;
      const b = around(places);
      map.fitBounds([b.west, b.south, b.east, b.north], { padding: Math.min(90, host.clientWidth / 6, host.clientHeight / 6), maxZoom, animate: !instant && !calm.matches, duration: 900 });
    },
    home: () => void map.fitBounds([world.west, world.south, world.east, world.north], { padding: 10, animate: !calm.matches }),
    onClick(tell) {
      clicks.add(tell);
      return () => void clicks.delete(tell);
    },
    onRest(tell) {
      const t = () => tell();
      map.on("moveend", t);
      tell();
      return () => void map.off("moveend", t);
    },
    addCorner(element) {
      host.append(element);
      return () => element.remove();
    },
    remove() {
      map.remove();
    },
  };
}

/** Two short strokes at the end of a line. */
function arrowhead(points: [number, number][]): [number, number][][] {
  const [x1, y1] = points[points.length - 1];
  const [x0, y0] = points[Math.max(0, points.length - 4)];
  const length = Math.hypot(x1 - x0, y1 - y0) || 1;
  const back = Math.min(length, 4);
  const [ux, uy] = [((x1 - x0) / length) * back, ((y1 - y0) / length) * back];
  return [0.45, -0.45].map((side) => [[x1, y1], [x1 - ux - uy * side, y1 - uy + ux * side]]);
}
