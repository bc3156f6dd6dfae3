// How numbers, times and places are written for people.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const count = (n: number): string => whole.format(n);

/** Seconds as somebody would say them: "45 s", "4 min", "1 h 20". */
export function duration(seconds: number): string {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")}`;
}

/** A wait: "no wait", "4 min". */
export const wait = (seconds: number): string => (seconds < 15 ? "no wait" : duration(Math.max(60, seconds)));

/** What to expect: from the mean to what nine of ten stay under. */
export function waitRange(low: number, high: number): string {
  if (high < 15) return "no wait";
  const from = Math.round(low / 60);
  const to = Math.max(Math.ceil(high / 60), 1);
  return from === to || to === 1 ? `${to} min` : `${from}–${to} min`;
}

/** Metres: "320 m", "1.2 km", "85 km". */
export function distance(metres: number): string {
  if (metres < 995) return `${Math.round(metres / 10) * 10} m`;
  const km = metres / 1000;
  return `${km < 10 ? km.toFixed(1) : whole.format(km)} km`;
}

/** Seconds ago. */
export function ago(seconds: number): string {
  return seconds < 2 ? "just now" : `${duration(seconds)} ago`;
}

/** A lag: "8 ms", "1.2 s". */
export function lag(seconds: number): string {
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`;
}

/** The time of day in a zone, "14:00"; in that of this device where the zone is not known. */
export function clock(at: Date, zone?: string): string {
  const options: Intl.DateTimeFormatOptions = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  try {
    return new Intl.DateTimeFormat("en", { ...options, timeZone: zone }).format(at);
  } catch {
    return new Intl.DateTimeFormat("en", options).format(at);
  }
}

export const coordinates = (p: { lat: number; lng: number }): string => `${p.lat.toFixed(4)}, ${p.lng.toFixed(4)}`;

/** Bytes: "0 B", "12 kB", "3.4 MB". */
export function bytes(n: number): string {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (n < 1000 || unit === "GB") return `${n < 10 && unit !== "B" ? n.toFixed(1) : whole.format(n)} ${unit}`;
    n /= 1000;
  }
  return "";
}

/** A date and time of this device: "30 Nov, 14:02:07". */
export const moment = (at: string): string =>
  new Intl.DateTimeFormat("en", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" }).format(new Date(at));
