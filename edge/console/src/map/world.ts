// The map that all views share. There are two: one by MapLibre GL, and a plain one where the browser has no WebGL.
import type { Place } from "../api/types";
import type { Theme } from "../ui/theme";

/** Stores in columns, as GET /v1/map answers: the nth entries of all are those of one store. A wait is in seconds; null: it never reported. */
export interface Stores {
  ids: string[];
  lat: number[];
  lng: number[];
  wait_s: (number | null)[];
  /** null: not known */
  open: (boolean | null)[];
  /** How many stores an entry stands for, where they are too many to have one each; its wait is then their mean. */
  n?: number[];
}

/** What is drawn of a store as one number: its wait in seconds, noWait where it never reported, or closed. */
export const noWait = -1;
export const closed = -2;
export const shade = (wait: number | null, open: boolean | null): number => (open === false ? closed : (wait ?? noWait));

/** An HTML element at a place. It is moved with the map; what it looks like and does is the view's. */
export interface Marker extends Place {
  id: string;
  element: HTMLElement;
  /** Which point of the element is at the place: its middle (default) or the middle of its lower edge. */
  anchor?: "center" | "bottom";
}

/** A line along a bow, with an arrowhead at its end if it has one. */
export interface Line {
  from: Place;
  to: Place;
  /** What it means, by the name of a colour of the theme: "--accent". */
  colour: string;
  /** Pixels. */
  width: number;
  dashed?: boolean;
  arrow?: boolean;
}

export interface Box {
  west: number;
  south: number;
  east: number;
  north: number;
}

export interface Click extends Place {
  /** The store that was hit, if it was one. */
  store: string | null;
}

/** Layers have names, so that parts of a view do not touch each other's; an empty list takes one away. */
export interface WorldMap {
  readonly kind: "gl" | "canvas";
  /** Stores, gathered in clusters where they are close. */
  setStores(stores: Stores): void;
  /** New shades of stores that are shown. */
  setShades(shades: ReadonlyMap<string, number>): void;
  setMarkers(layer: string, markers: Marker[]): void;
  setLines(layer: string, lines: Line[]): void;
  setTheme(theme: Theme): void;
  /** What is in view. West may be below -180 or east above 180 where the Earth is shown more than once. */
  box(): Box;
  zoom(): number;
  /** Moves so that all the places are in view; one place alone is shown from near. */
  show(places: Place[], options?: { maxZoom?: number; instant?: boolean }): void;
  /** Shows the whole world. */
  home(): void;
  /** Both return what ends it. A click is also Enter on the map, for its middle. */
  onClick(tell: (click: Click) => void): () => void;
  /** Called when the map has come to rest, and once at the beginning. */
  onRest(tell: () => void): () => void;
  /** Puts an element in the map's lower left corner; returns what takes it away. */
  addCorner(element: HTMLElement): () => void;
  remove(): void;
}

/** What everything of the world is in. */
export const world: Box = { west: -128, south: -46, east: 156, north: 66 };

function hasWebGL(): boolean {
  try {
    const canvas = document.createElement("canvas");
    const gl = canvas.getContext("webgl2");
    gl?.getExtension("WEBGL_lose_context")?.loseContext();
    return gl !== null;
  } catch {
    return false;
  }
}

/** Makes the best map that this browser can show in the element. */
export async function createMap(host: HTMLElement): Promise<WorldMap> {
  if (hasWebGL()) {
    try {
      return await (await import("./gl")).createGLMap(host);
    } catch (e) {
      console.warn("the map falls back to a plain one:", e);
      host.replaceChildren();
    }
  }
  return (await import("./canvas")).createCanvasMap(host);
}
