// What the API answers, as far as the console reads it. The whole is at /openapi.json.

export interface Place {
  lat: number;
  lng: number;
}

export interface QueueState {
  length: number;
  wait_s: number;
  wait_high_s: number;
  usual_length: number | null;
  updated_at: string;
  age_s: number;
}

export interface Address {
  street?: string;
  city?: string;
  state?: string;
  postcode?: string;
  country?: string;
}

export interface NearbyStore extends Place {
  id: string;
  name: string | null;
  distance_m: number;
  address: Address | null;
  open: boolean | null;
  queue: QueueState | null;
}

export interface Nearby {
  stores: NearbyStore[];
  region: string;
  as_of: string;
  lag_s: number;
}

export interface Store extends Place {
  id: string;
  name: string;
  brand?: string;
  address?: Address;
  timezone?: string;
  hours?: string;
  tags?: string[];
  phone?: string;
  service_s?: number;
}

export interface WeekHour {
  day: "Mo" | "Tu" | "We" | "Th" | "Fr" | "Sa" | "Su";
  hour: number;
  samples: number;
  weeks: number;
  mean_length: number | null;
  mean_wait_s: number | null;
  p90_wait_s: number | null;
}

export interface Stats {
  id: string;
  timezone: string;
  samples: number;
  mean_length: number | null;
  mean_wait_s: number | null;
  busiest: WeekHour[];
  hours: WeekHour[];
}

export interface ForecastHour {
  at: string;
  length: number;
  wait_s: number;
  wait_low_s: number;
  wait_high_s: number;
  seen_weeks: number;
}

export interface Forecast {
  id: string;
  timezone: string;
  observed_hours: number;
  hours: ForecastHour[];
}

export interface Overview {
  region: string;
  as_of: string;
  stores: number;
  reporting: number;
  people: number;
  mean_length: number | null;
  mean_wait_s: number | null;
  busiest: (Place & { id: string; length: number; wait_s: number })[];
}

export interface Node {
  name: string;
  health: "healthy" | "starting" | "unhealthy" | "stopping" | "dead" | "flapping" | "silent";
  reason?: string;
  url: string;
  version: string;
  lag_s: number;
  rtt_ms: number;
  load_rps: number;
  skew_ms: number;
  age_s: number;
}

export interface Region extends Place {
  name: string;
  role: "primary" | "standby" | "witness";
  state: "active" | "draining" | "drained";
  health: "healthy" | "unhealthy";
  url: string;
  lag_s: number;
  rtt_ms: number | null;
  load: number;
  capacity_rps: number;
  spill: number;
  nodes: Node[];
}

export interface Regions {
  regions: Region[];
  primary: string | null;
  epoch: number;
  region: string;
  as_of: string;
}

/** GET /v1/map: stores in columns. */
export interface MapStores {
  region: string;
  as_of: string;
  complete: boolean;
  ids: string[];
  lat: number[];
  lng: number[];
  wait_s: (number | null)[];
  open: (boolean | null)[];
}

/** GET /v1/heatmap, as far as it is read. */
export interface Heatmap {
  features: { id: string; geometry: { coordinates: [number, number][][] }; properties: { stores: number; mean_wait_s: number | null } }[];
}

// What operators are told at /admin/v1/. Times are RFC 3339.

export interface Blocker {
  rule: string;
  detail: string;
}

export interface Mark {
  step: string;
  at: string;
  took_ms: number;
  note?: string;
}

export interface Operation {
  kind: "switchover" | "failover";
  epoch: number;
  from: string;
  to?: string;
  target?: string;
  by: string;
  why: string;
  automatic?: boolean;
  begun: string;
  /** The step that was reached last. */
  step: string;
  marks: Mark[] | null;
}

export interface ClusterRegion {
  name: string;
  role: "primary" | "standby" | "witness";
  state: "active" | "draining" | "drained";
  held: boolean;
  rebuild: boolean;
  why?: string;
  /** It confirms writes. */
  sync: boolean;
  database?: { role: string; upstream?: string; streaming?: boolean; fenced?: boolean; rejoin?: { step: string; done_bytes?: number; total_bytes?: number }; err?: string };
  /** Seconds for which its agent has not answered. */
  silent_s: number;
  err?: string;
  lag_bytes?: number;
}

export interface Cluster {
  cluster: string;
  epoch: number;
  primary: string;
  primary_epoch: number;
  leader: string;
  complete: boolean;
  durability: { mode: string; why?: string };
  sync: string[];
  paused?: { by: string; why?: string; at: string };
  operation?: Operation;
  last_automatic?: { epoch: number; from: string; to: string; at: string; acknowledged?: { by: string; at: string } };
  /** Seconds since the primary region's lease was renewed. */
  lease_age_s?: number;
  risk?: { to?: string; bytes: number; writes: number; behind_bytes: number; pause_s: number; barred?: string; why?: string };
  blocked: Blocker[];
  regions: ClusterRegion[];
  at: string;
}

export interface HistoryEntry {
  n: number;
  at: string;
  event: string;
  by: string;
  why?: string;
  epoch: number;
  region?: string;
  from?: string;
  to?: string;
  automatic?: boolean;
  evidence?: string[];
  overridden?: string[];
  pause_ms?: number;
  steps?: Mark[];
}

export interface Outcome {
  verb: string;
  accepted: boolean;
  epoch?: number;
  blockers: Blocker[];
  overridden?: string[];
  plan: {
    pause_s: number;
    bytes_at_risk: number;
    writes_at_risk: number;
    behind_bytes: number;
    steps: string[];
    /** Share of what the other regions can bear. */
    capacity_used?: number;
    durability_after: { mode: string; why?: string };
  };
}

export interface Explanation {
  region: string;
  can_be_primary: boolean;
  summary: string;
  switchover: Check[];
  failover: Check[];
  drain: Check[];
}

export interface Check {
  rule: string;
  ok: boolean;
  /** An operator may override it. */
  forceable: boolean;
  detail?: string;
}

export interface Route {
  regions: { name: string; use: boolean; why: string }[];
}
