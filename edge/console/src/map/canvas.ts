// The map without WebGL: land, clusters and lines on a plain canvas, in the same projection.
import type { Position } from "geojson";
import type { Place } from "../api/types";
import type { Theme } from "../ui/theme";
import { palettes, unknownWait, waitColour } from "./colours";
import { around, bow, wrap } from "./geo";
import { clusters, type Cluster } from "./grid";
import { loadLand } from "./land";
import { closed, world, type Box, type Click, type Line, type Marker, type Stores, type WorldMap } from "./world";

interface Name {
  name: string;
  size: number;
  x: number;
  y: number;
}

const tile = 512; // pixels that the world is wide at zoom 0, as with MapLibre
const [minZoom, maxZoom] = [0, 15];

// Mercator, the world from 0 to 1.
const toX = (lng: number): number => (lng + 180) / 360;
const toY = (lat: number): number => {
  const sin = Math.sin((Math.max(-85.05, Math.min(85.05, lat)) * Math.PI) / 180);
  return 0.5 - Math.log((1 + sin) / (1 - sin)) / (4 * Math.PI);
};
const toLat = (y: number): number => (Math.atan(Math.sinh(Math.PI * (1 - 2 * y))) * 180) / Math.PI;
const toLng = (x: number): number => x * 360 - 180;

export function createCanvasMap(host: HTMLElement): WorldMap {
  const canvas = document.createElement("canvas");
  canvas.tabIndex = 0;
  canvas.className = "plain-map";
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", "Map. Arrow keys move it, plus and minus zoom, Enter chooses the place in its middle.");
  const pins = document.createElement("div");
  pins.className = "plain-pins";
  const controls = document.createElement("div");
  controls.className = "plain-controls";
  const credit = document.createElement("div");
  credit.className = "plain-credit";
  credit.textContent = "Map: Natural Earth, cities: GeoNames. Plain, because this browser has no WebGL.";
  host.append(canvas, pins, controls, credit);
  const ctx = canvas.getContext("2d")!;

  let centre = { x: 0.5, y: 0.4 };
  let zoom = 1;
  let theme: Theme = "light";
  let land: Path2D | null = null;
  let borders: Path2D | null = null;
  let countries: Name[] = []; // the largest first, like the cities
  let cities: Name[] = [];
  let stores: Stores | null = null;
  let shades: Map<string, number> = new Map();
  let grid: { zoom: number; clusters: Cluster[] } | null = null;
  const markers = new Map<string, Marker[]>();
  const lines = new Map<string, Line[]>();
  const clicks = new Set<(c: Click) => void>();
  const rests = new Set<() => void>();
  let frame = 0;
  let resting = 0;

  const size = () => ({ w: host.clientWidth, h: host.clientHeight });
  const scale = () => tile * 2 ** zoom;
  const project = (p: Place) => {
    const { w, h } = size();
    const dx = toX(p.lng) - centre.x;
    return { x: w / 2 + (dx - Math.round(dx)) * scale(), y: h / 2 + (toY(p.lat) - centre.y) * scale() };
  };
  const unproject = (px: number, py: number): Place => {
    const { w, h } = size();
    return { lng: wrap(toLng(centre.x + (px - w / 2) / scale())), lat: toLat(centre.y + (py - h / 2) / scale()) };
  };
  const redraw = () => (frame ||= requestAnimationFrame(draw));
  const moved = () => {
    const half = size().h / 2 / scale();
    centre = { x: centre.x - Math.floor(centre.x), y: half >= 0.5 ? 0.5 : Math.max(half, Math.min(1 - half, centre.y)) };
    redraw();
    clearTimeout(resting);
    resting = window.setTimeout(() => rests.forEach((tell) => tell()), 150);
  };
  const zoomTo = (to: number, px = size().w / 2, py = size().h / 2) => {
    const { w, h } = size();
    const before = scale();
    zoom = Math.max(minZoom, Math.min(maxZoom, to));
    centre = { x: centre.x + (px - w / 2) * (1 / before - 1 / scale()), y: centre.y + (py - h / 2) * (1 / before - 1 / scale()) };
    moved();
  };

  function draw() {
    frame = 0;
    const { w, h } = size();
    const dpr = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(w * dpr) || canvas.height !== Math.round(h * dpr)) [canvas.width, canvas.height] = [Math.round(w * dpr), Math.round(h * dpr)];
    const c = palettes[theme];
    const s = scale();
    ctx.setTransform(dpr, 0, 0, dpr, 0, 0);
    ctx.fillStyle = c.sea;
    ctx.fillRect(0, 0, w, h);
    for (const copy of copies()) {
      ctx.setTransform(dpr * s, 0, 0, dpr * s, dpr * (w / 2 + (copy - centre.x) * s), dpr * (h / 2 - centre.y * s));
      if (land) {
        ctx.fillStyle = c.land;
        ctx.fill(land);
      }
      if (borders) {
        ctx.strokeStyle = c.border;
        ctx.lineWidth = 1 / s;
        ctx.stroke(borders);
      }
    }
    ctx.setTransform(dpr, 0, 0, dpr, 0, 0);
    drawNames(w, h, c.label, c.city, c.halo);
    drawLines();
    drawStores(w, h, c.ring, c.clusterInk);
    for (const list of markers.values()) {
      for (const m of list) {
        const p = project(m);
        m.element.style.transform = `translate(${Math.round(p.x)}px, ${Math.round(p.y)}px) translate(-50%, ${m.anchor === "bottom" ? "-100%" : "-50%"})`;
      }
    }
  }

  /** The turns of the world that are in view. */
  function copies(): number[] {
    const half = size().w / 2 / scale();
    const out: number[] = [];
    for (let i = Math.floor(centre.x - half); i <= Math.floor(centre.x + half); i++) out.push(i);
    return out;
  }

  /** Names of the largest countries in view that find room, from nearer by of the largest cities. */
  function drawNames(w: number, h: number, country: string, city: string, halo: string) {
    const near = zoom >= 3.5;
    const taken: { x: number; y: number; half: number }[] = [];
    const least = !near || zoom >= 6.5 ? 0 : zoom < 5 ? 2000 : 500;
    ctx.font = near ? "12px system-ui, sans-serif" : "11px system-ui, sans-serif";
    ctx.textAlign = "center";
    ctx.textBaseline = "top";
    ctx.lineWidth = 3;
    ctx.strokeStyle = halo;
    ctx.fillStyle = near ? city : country;
    for (const n of near ? cities : countries) {
      if (n.size < least || taken.length === 40) break;
      const dx = n.x - centre.x;
      const x = w / 2 + (dx - Math.round(dx)) * scale();
      const y = h / 2 + (n.y - centre.y) * scale() + (near ? 10 : -6);
      if (x < 0 || x > w || y < 0 || y > h) continue;
      const half = ctx.measureText(n.name).width / 2 + 6;
      if (!near && (Math.sqrt(n.size) / 360) * scale() < half) continue; // it would cover the country
      if (taken.some((t) => Math.abs(t.x - x) < t.half + half && Math.abs(t.y - y) < 20)) continue;
      taken.push({ x, y, half });
      ctx.strokeText(n.name, x, y);
      ctx.fillText(n.name, x, y);
    }
  }

  function drawLines() {
    const colours = getComputedStyle(document.documentElement);
    for (const l of [...lines.values()].flat()) {
      const points = bow(l.from, l.to);
      const start = project(l.from);
      const path = points.map(([lng, lat]) => [start.x + ((lng - points[0][0]) / 360) * scale(), size().h / 2 + (toY(lat) - centre.y) * scale()] as const);
      ctx.strokeStyle = colours.getPropertyValue(l.colour).trim() || "#888";
      ctx.lineWidth = l.width;
      ctx.setLineDash(l.dashed ? [6, 5] : []);
      ctx.beginPath();
      path.forEach(([x, y], i) => (i === 0 ? ctx.moveTo(x, y) : ctx.lineTo(x, y)));
      ctx.stroke();
      ctx.setLineDash([]);
      if (!l.arrow || path.length < 2) continue;
      const [x, y] = path[path.length - 1];
      const [fx, fy] = path[path.length - 2];
      const angle = Math.atan2(y - fy, x - fx);
      ctx.beginPath();
      for (const side of [0.45, -0.45]) {
        ctx.moveTo(x, y);
        ctx.lineTo(x - 12 * Math.cos(angle + side), y - 12 * Math.sin(angle + side));
      }
      ctx.stroke();
    }
  }

  function drawStores(w: number, h: number, ring: string, ink: string) {
    if (!stores) return;
    const level = Math.floor(zoom);
    if (grid?.zoom !== level) grid = { zoom: level, clusters: clusters(stores, 44 / (tile * 2 ** level), level >= 11, toX, toY) };
    ctx.textAlign = "center";
    ctx.textBaseline = "middle";
    for (const c of grid.clusters) {
      for (const copy of copies()) {
        const x = w / 2 + (c.x + copy - centre.x) * scale();
        const y = h / 2 + (c.y - centre.y) * scale();
        if (x < -40 || x > w + 40 || y < -40 || y > h + 40) continue;
        const shade = c.store === null ? c.shade : (shades.get(stores.ids[c.store]) ?? c.shade);
        ctx.globalAlpha = c.store !== null && shade === closed ? 0.45 : 0.92;
        ctx.beginPath();
        ctx.arc(x, y, c.count === 1 ? 5 : 9 + 7 * Math.log10(c.count), 0, 2 * Math.PI);
        ctx.fillStyle = shade < 0 ? unknownWait : waitColour(shade);
        ctx.fill();
        ctx.strokeStyle = ring;
        ctx.lineWidth = c.count === 1 ? 1 : 2;
        ctx.stroke();
        ctx.globalAlpha = 1;
        if (c.count > 1) {
          ctx.fillStyle = ink;
          ctx.font = `${Math.round(10 + 1.2 * Math.log10(c.count))}px system-ui, sans-serif`;
          ctx.fillText(c.count < 1000 ? String(c.count) : `${(c.count / 1000).toFixed(1)}k`, x, y);
        }
      }
    }
  }

  function hit(px: number, py: number): string | null {
    if (!stores || !grid) return null;
    for (const c of grid.clusters) {
      if (c.store === null) continue;
      const p = project({ lat: stores.lat[c.store], lng: stores.lng[c.store] });
      if (Math.hypot(p.x - px, p.y - py) < 9) return stores.ids[c.store];
    }
    return null;
  }

  // One pointer drags, two zoom; a press that hardly moves is a click.
  const down = new Map<number, { x: number; y: number }>();
  let travelled = 0;
  const at = (e: MouseEvent) => {
    const box = canvas.getBoundingClientRect();
    return { x: e.clientX - box.left, y: e.clientY - box.top };
  };
  canvas.addEventListener("pointerdown", (e) => {
    canvas.setPointerCapture(e.pointerId);
    down.set(e.pointerId, at(e));
    travelled = down.size > 1 ? 99 : 0;
  });
  canvas.addEventListener("pointermove", (e) => {
    const before = down.get(e.pointerId);
    if (!before) return;
    const now = at(e);
    const other = [...down].find(([id]) => id !== e.pointerId)?.[1];
    down.set(e.pointerId, now);
    if (other) {
      const apart = (p: { x: number; y: number }) => Math.max(1, Math.hypot(p.x - other.x, p.y - other.y));
      zoomTo(zoom + Math.log2(apart(now) / apart(before)), (now.x + other.x) / 2, (now.y + other.y) / 2);
      return;
    }
    travelled += Math.abs(now.x - before.x) + Math.abs(now.y - before.y);
    if (travelled < 4) return;
    centre = { x: centre.x - (now.x - before.x) / scale(), y: centre.y - (now.y - before.y) / scale() };
    moved();
  });
  canvas.addEventListener("pointerup", (e) => {
    const p = at(e);
    if (down.delete(e.pointerId) && travelled < 4) clicks.forEach((tell) => tell({ ...unproject(p.x, p.y), store: hit(p.x, p.y) }));
  });
  canvas.addEventListener("pointercancel", (e) => void down.delete(e.pointerId));
  canvas.addEventListener("wheel", (e) => {
    e.preventDefault();
    const p = at(e);
    zoomTo(zoom - Math.max(-1, Math.min(1, e.deltaY / 200)), p.x, p.y);
  }, { passive: false });
  canvas.addEventListener("keydown", (e) => {
    const step = 100 / scale();
    const keys: Record<string, () => void> = {
      ArrowLeft: () => (centre.x -= step), ArrowRight: () => (centre.x += step), ArrowUp: () => (centre.y -= step), ArrowDown: () => (centre.y += step),
      "+": () => zoomTo(zoom + 1), "=": () => zoomTo(zoom + 1), "-": () => zoomTo(zoom - 1),
      Enter: () => clicks.forEach((tell) => tell({ lat: toLat(centre.y), lng: wrap(toLng(centre.x)), store: null })),
    };
    if (!keys[e.key]) return;
    e.preventDefault();
    keys[e.key]();
    moved();
  });
  for (const [sign, by] of [["+", 1], ["−", -1]] as const) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "icon-button";
    button.textContent = sign;
    button.setAttribute("aria-label", by > 0 ? "Zoom in" : "Zoom out");
    button.addEventListener("click", () => zoomTo(zoom + by));
    controls.append(button);
  }

  const show = (b: Box, most: number, padding: number) => {
    const { w, h } = size();
    const [x0, x1, y0, y1] = [toX(b.west), toX(b.east), toY(b.north), toY(b.south)];
    const fit = Math.min(Math.max(60, w - 2 * padding) / Math.max(x1 - x0, 1e-9), Math.max(60, h - 2 * padding) / Math.max(y1 - y0, 1e-9));
    zoom = Math.max(minZoom, Math.min(most, Math.log2(fit / tile)));
    centre = { x: (x0 + x1) / 2, y: (y0 + y1) / 2 };
    moved();
  };
  const whole = () => show(world, maxZoom, 10);

  loadLand().then(
    (l) => {
      land = new Path2D();
      const trace = (path: Path2D, ring: Position[]) => ring.forEach(([lng, lat], i) => (i === 0 ? path.moveTo(toX(lng), toY(lat)) : path.lineTo(toX(lng), toY(lat))));
      for (const { geometry: g } of l.countries.features) for (const polygon of g.type === "Polygon" ? [g.coordinates] : g.coordinates) polygon.forEach((ring) => trace(land!, ring));
      borders = new Path2D();
      l.borders.geometry.coordinates.forEach((line) => trace(borders!, line));
      const place = (f: { properties: { name: string; size: number }; geometry: { coordinates: Position } }) => ({ ...f.properties, x: toX(f.geometry.coordinates[0]), y: toY(f.geometry.coordinates[1]) });
      countries = l.labels.features.map(place).sort((a, b) => b.size - a.size);
      cities = l.cities.features.map(place);
      redraw();
    },
    (e: Error) => console.error("map:", e.message),
  );
  const sizes = new ResizeObserver(moved);
  sizes.observe(host);
  whole();

  return {
    kind: "canvas",
    setStores(s) {
      [stores, grid, shades] = [s, null, new Map()];
      redraw();
    },
    setShades(changed) {
      for (const [id, shade] of changed) shades.set(id, shade);
      redraw();
    },
    setMarkers(layer, wanted) {
      const keep = new Set(wanted.map((m) => m.element));
      for (const m of markers.get(layer) ?? []) if (!keep.has(m.element)) m.element.remove();
      for (const m of wanted) if (m.element.parentElement !== pins) pins.append(m.element);
      markers.set(layer, wanted);
      redraw();
    },
    setLines(layer, wanted) {
      lines.set(layer, wanted);
      redraw();
    },
    setTheme(t) {
      theme = t;
      redraw();
    },
    box() {
      const { w, h } = size();
      return { west: toLng(centre.x - w / 2 / scale()), east: toLng(centre.x + w / 2 / scale()), north: toLat(centre.y - h / 2 / scale()), south: toLat(centre.y + h / 2 / scale()) };
    },
    zoom: () => zoom,
    show: (places, options = {}) => places.length > 0 && show(around(places), options.maxZoom ?? 13, Math.min(90, host.clientWidth / 6, host.clientHeight / 6)),
    home: whole,
    onClick(tell) {
      clicks.add(tell);
      return () => void clicks.delete(tell);
    },
    onRest(tell) {
      rests.add(tell);
      tell();
      return () => void rests.delete(tell);
    },
    addCorner(element) {
      host.append(element);
      return () => element.remove();
    },
    remove() {
      sizes.disconnect();
      cancelAnimationFrame(frame);
      clearTimeout(resting);
      host.replaceChildren();
    },
  };
}
