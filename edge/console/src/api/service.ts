// The service behind the page: one client that goes from region to region, and what is known of the connection.
import { useEffect, useState } from "preact/hooks";
import { Shortline, ShortlineProblem } from "/shortline.js";

const keyItem = "shortline.key";

/** The API key that was typed in, for as long as the browser's tab is open. */
function storedKey(): string {
  try {
    return sessionStorage.getItem(keyItem) ?? "";
  } catch {
    return "";
  }
}

/** The client of all views. A call that fails in one region is asked in the next one of GET /v1/route. */
export const service = new Shortline({ server: location.origin, timeout: 5_000, key: storedKey() });

export { ShortlineProblem };

/** How the page stands with the service. */
export interface Connection {
  /** connecting: no answer yet; online; elsewhere: another region than that of the page answers; locked: it asks for a key; lost: none does; offline: no network. */
  state: "connecting" | "online" | "elsewhere" | "locked" | "lost" | "offline";
  /** The region that answered last. */
  region: string;
  /** The region that the page came from; empty until it has answered. */
  home: string;
  /** The base URL of the region that answered last. */
  url: string;
  /** Why there is no answer. */
  reason: string;
}

let connection: Connection = { state: "connecting", region: "", home: "", url: location.origin, reason: "" };
const listeners = new Set<(c: Connection) => void>();

function become(change: Partial<Connection>): void {
  const next = { ...connection, ...change };
  if ((Object.keys(next) as (keyof Connection)[]).every((k) => next[k] === connection[k])) return;
  connection = next;
  for (const tell of listeners) tell(next);
}

/** Notes that a region answered, at this base URL. Feeds call it too. */
export function answered(region: string, url: string): void {
  const home = connection.home || region;
  become({ state: region === home ? "online" : "elsewhere", region, home, url, reason: "" });
}

/** Notes that no region answers. */
export function unanswered(reason: string): void {
  become({ state: navigator.onLine ? "lost" : "offline", reason });
}

/**
 * Reads from the service, wherever it can be answered.
 * @throws ShortlineProblem where the service says no; another Error where no region can be reached.
 */
export async function read<T>(path: string): Promise<T> {
  try {
    const answer = await service.get(path);
    answered(service.region, service.from);
    return answer as T;
  } catch (e) {
    if (e instanceof ShortlineProblem && e.status === 401) become({ state: "locked", reason: e.message });
    else if (e instanceof ShortlineProblem && !e.passing) answered(service.region || connection.region, service.from);
    else unanswered(e instanceof ShortlineProblem ? e.message : "no region can be reached");
    throw e;
  }
}

/** Uses a key from now on; an empty one forgets it. Views that wait for it are told by the connection. */
export function setKey(key: string): void {
  service.key = key;
  try {
    if (key) sessionStorage.setItem(keyItem, key);
    else sessionStorage.removeItem(keyItem);
  } catch {
    // storage may be forbidden; then it lasts as long as the page
  }
  become({ state: "connecting", reason: "" });
  for (const again of pollers) again();
}

const pollers = new Set<() => void>();

window.addEventListener("offline", () => unanswered("this device has no network"));
window.addEventListener("online", () => void learnRoute());

// Where else to go must be known before the region of the page goes away.
async function learnRoute(): Promise<void> {
  if ((await service.route()).length > 0 && connection.state !== "online") answered(service.region, service.from);
}
void learnRoute();
setInterval(() => void learnRoute(), 30_000);

export function useConnection(): Connection {
  const [value, set] = useState(connection);
  useEffect(() => {
    listeners.add(set);
    set(connection);
    return () => void listeners.delete(set);
  }, []);
  return value;
}

/** What a read that is repeated has brought: the newest value stays while a later read fails. */
export interface Polled<T> {
  value: T | null;
  error: Error | null;
  /** Reads again at once. */
  again: () => void;
}

/** Reads path now and every `seconds` (0: once) while the page is visible; null reads nothing. */
export function usePoll<T>(path: string | null, seconds: number): Polled<T> {
  const [state, set] = useState<{ path: string | null; value: T | null; error: Error | null }>({ path: null, value: null, error: null });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    if (path === null) return;
    let over = false;
    let timer = 0;
    const ask = async () => {
      if (!document.hidden) {
        try {
          const value = await read<T>(path);
          if (!over) set({ path, value, error: null });
        } catch (e) {
          if (!over) set((old) => ({ path, value: old.path === path ? old.value : null, error: e as Error }));
        }
      }
      if (!over && seconds > 0) timer = window.setTimeout(ask, seconds * 1000);
    };
    void ask();
    const again = () => setTurn((n) => n + 1);
    pollers.add(again);
    return () => {
      over = true;
      clearTimeout(timer);
      pollers.delete(again);
    };
  }, [path, seconds, turn]);
  const mine = state.path === path;
  return { value: mine ? state.value : null, error: mine ? state.error : null, again: () => setTurn((n) => n + 1) };
}
