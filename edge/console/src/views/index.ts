// The views, in the order of their tabs. Each is loaded when it is first shown.
import type { FunctionComponent } from "preact";
import type { WorldMap } from "../map/world";

/** What a view gets. It draws its panel, and puts on the map what it has to show; what it put there it takes away when it ends. */
export interface ViewProps {
  map: WorldMap;
  /** The rest of the address after "#name/", for what a link to the view should keep. */
  rest: string;
  /** Replaces it, without an entry in the browser's history. */
  setRest: (rest: string) => void;
}

export interface View {
  /** In the address: "#people". */
  name: string;
  title: string;
  load: () => Promise<{ default: FunctionComponent<ViewProps> }>;
}

export const views: View[] = [
  { name: "people", title: "People", load: () => import("./people/people") },
  { name: "regions", title: "Regions", load: () => import("./operate/operate") },
];
