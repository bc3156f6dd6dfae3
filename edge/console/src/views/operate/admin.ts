// The operator's side of the service, /admin/v1/: of the node that the page came from, or of another one while that is away.
import { useEffect, useState } from "preact/hooks";
import { service } from "../../api/service";
import type { Blocker, Cluster, HistoryEntry, Outcome } from "../../api/types";

const stored = "shortline.admin-key";
let key = sessionStorage.getItem(stored) ?? "";

/** Keeps the key until the tab is closed; "" forgets it. */
export function setKey(value: string): void {
  key = value.trim();
  if (key) sessionStorage.setItem(stored, key);
  else sessionStorage.removeItem(stored);
}

export const haveKey = (): boolean => key !== "";

/** The admin port of a node says so in the page's address; there an operator at the same machine needs no key. */
const atAdminPort = new URLSearchParams(location.search).has("admin");

/** A refusal or fault of the operator's side: a problem of RFC 9457 with the rules that speak against it. */
export class AdminProblem extends Error {
  constructor(
    message: string,
    /** The HTTP status; 0 where no node answered. */
    readonly status: number,
    readonly blockers: Blocker[] = [],
  ) {
    super(message);
  }

  /** Whether a key, or another one, is needed. */
  get locked(): boolean {
    return this.status === 401 || this.status === 403;
  }
}

async function once<T>(server: string, path: string, body?: object): Promise<T> {
  const headers: Record<string, string> = {};
  if (key) headers["Authorization"] = "Bearer " + key;
  if (body) headers["Content-Type"] = "application/json";
  const response = await fetch(`${server}/admin/v1/${path}`, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(12_000) });
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw new AdminProblem(answer?.detail ?? answer?.title ?? `the service answered ${response.status}`, response.status, answer?.blockers ?? []);
  return answer as T;
}

/** The server that answered last: it is asked first. */
let good = location.origin;

/** Reads from the first node that answers. */
async function look<T>(path: string): Promise<T> {
  let last = new AdminProblem("no node answers", 0);
  for (const server of new Set([good, location.origin, ...service.servers])) {
    try {
      const answer = await once<T>(server, path);
      good = server;
      return answer;
    } catch (e) {
      if (e instanceof AdminProblem) last = e;
      // A node that answers "no" for now may have lost its leader; another one may know better.
      if (e instanceof AdminProblem && e.status < 500) throw e;
    }
  }
  throw last;
}

export const explain = (region: string) => look<import("../../api/types").Explanation>(`regions/${encodeURIComponent(region)}/explain`);

/**
 * Asks for a verb, once: whoever does not hear the answer must look before asking again.
 * @throws AdminProblem with status 0 where it may or may not have been carried out.
 */
export async function act(path: string, body: object): Promise<Outcome> {
  try {
    return await once<Outcome>(good, path, body);
  } catch (e) {
    if (e instanceof AdminProblem) throw e;
    throw new AdminProblem("The answer did not arrive, so this may or may not be under way. Look at the history below before you ask again.", 0);
  }
}

export interface Control {
  cluster: Cluster | null;
  history: HistoryEntry[];
  /** Why the newest look failed; the older values stay. */
  error: AdminProblem | null;
  /** When the values were read. */
  at: number;
  again: () => void;
}

/** Follows the control plane, as soon as there is a key: every second, and four times a second while something is under way. */
export function useControl(): Control {
  const [state, set] = useState<Omit<Control, "again">>({ cluster: null, history: [], error: null, at: 0 });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    let over = false;
    let timer = 0;
    const ask = async () => {
      let pause = 1000;
      if (!key && !atAdminPort) return set({ cluster: null, history: [], error: new AdminProblem("", 401), at: 0 });
      if (!document.hidden) {
        try {
          const [cluster, h] = await Promise.all([look<Cluster>("cluster"), look<{ history: HistoryEntry[] }>("history")]);
          if (over) return;
          if (cluster.operation) pause = 250;
          set({ cluster, history: h.history, error: null, at: Date.now() });
        } catch (e) {
          if (over) return;
          const error = e instanceof AdminProblem ? e : new AdminProblem(String(e), 0);
          set((old) => (error.locked ? { cluster: null, history: [], error, at: 0 } : { ...old, error }));
          if (error.locked) return; // until there is another key
        }
      }
      timer = window.setTimeout(ask, pause);
    };
    void ask();
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [turn]);
  return { ...state, again: () => setTurn((n) => n + 1) };
}
