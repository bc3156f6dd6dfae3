// The regions on the map: who leads, who follows whom, and where users go.
import { useEffect } from "preact/hooks";
import type { Cluster, Region } from "../../api/types";
import type { Line, WorldMap } from "../../map/world";
import { lag } from "../../ui/format";
import type { Flow } from "./flows";

/** Good, warn or bad, in one word that is also the name of a colour. */
export function mood(r: Region): "good" | "warn" | "bad" {
  if (r.role === "witness") return "good";
  if (r.health !== "healthy") return "bad";
  return r.state === "active" && r.nodes.every((n) => n.health === "healthy") ? "good" : "warn";
}

export function useRegionsOnMap(map: WorldMap, all: Region[] | null, cluster: Cluster | null, flows: Flow[], onChoose: (name: string) => void): void {
  const seen = JSON.stringify(all?.map((r) => [r.name, r.lat, r.lng, r.role, r.state, mood(r), lag(r.lag_s)]));
  useEffect(() => {
    map.setMarkers(
      "regions",
      (all ?? []).map((r) => ({ id: r.name, lat: r.lat, lng: r.lng, element: label(r, () => onChoose(r.name)), anchor: "bottom" as const })),
    );
  }, [map, seen]);

  const drawn = JSON.stringify([seen, flows, cluster?.regions.map((r) => [r.name, r.database?.upstream, r.database?.streaming, r.sync])]);
  useEffect(() => {
    const places = new Map(all?.map((r) => [r.name, r]));
    const lines: Line[] = [];
    for (const f of flows) {
      const to = places.get(f.to);
      if (to) lines.push({ from: f.from, to, colour: "--soft", width: 1, dashed: true, arrow: true });
    }
    for (const r of cluster?.regions ?? []) {
      const from = places.get(r.database?.upstream ?? "");
      const to = places.get(r.name);
      if (from && to && r.database?.streaming) lines.push({ from, to, colour: r.sync ? "--accent" : "--warn", width: 2.5, arrow: true });
    }
    map.setLines("regions", lines);
  }, [map, drawn]);

  useEffect(
    () => () => {
      map.setMarkers("regions", []);
      map.setLines("regions", []);
    },
    [map],
  );
}

function label(r: Region, onClick: () => void): HTMLElement {
  const element = document.createElement("button");
  element.type = "button";
  element.className = `region-pin ${mood(r)} ${r.role}`;
  const dot = document.createElement("i");
  const name = document.createElement("b");
  name.textContent = r.name;
  const what = document.createElement("span");
  what.textContent = r.health !== "healthy" && r.role !== "witness" ? "down" : r.state !== "active" ? r.state : r.role === "standby" ? `standby · ${lag(r.lag_s)}` : r.role;
  element.append(dot, name, what);
  element.addEventListener("click", (e) => {
    e.stopPropagation();
    onClick();
  });
  return element;
}
