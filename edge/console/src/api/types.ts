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
