import type { WorldMap } from "./world";

export function createCanvasMap(_: HTMLElement): WorldMap {
  throw new Error("no WebGL");
}
