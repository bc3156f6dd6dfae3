// Live queues for all parts of the page, over one connection that goes from region to region.
import { useEffect, useRef } from "preact/hooks";
import type { LiveFeed, Queue } from "/shortline.js";
import { answered, service } from "./service";

/** What a node lets one connection follow. */
export const mostFollowed = 1000;

type Tell = (queue: Queue) => void;

interface Follower {
  ids: string[];
  tell: Tell;
}

const followers = new Set<Follower>();
const newest = new Map<string, Queue>();
let feed: LiveFeed | null = null;
let following = "";
let timer = 0;

/** Changes what is followed a little later, so that several changes are one. The old feed stays until the new one has begun. */
function later(): void {
  clearTimeout(timer);
  timer = window.setTimeout(connect, 200);
}

function connect(): void {
  // The first to ask are the stores that people look at; the dots of the map come last and may not all find room.
  const ids = [...new Set([...followers].sort((a, b) => a.ids.length - b.ids.length).flatMap((f) => f.ids))].slice(0, mostFollowed).sort();
  const wanted = ids.join(" ");
  if (wanted === following) return;
  following = wanted;
  const before = feed;
  feed = null;
  if (ids.length === 0) {
    before?.close();
    newest.clear();
    return;
  }
  const keep = new Set(ids);
  for (const id of newest.keys()) if (!keep.has(id)) newest.delete(id);
  const mine = service.live({
    stores: ids,
    onSnapshot: (s) => {
      before?.close();
      if (feed !== mine) return;
      answered(s.region, s.server);
      s.stores.forEach(take);
    },
    onChange: (q) => feed === mine && take(q),
    onEnd: (e) => {
      before?.close();
      if (feed === mine) [feed, following] = [null, ""];
      console.warn("live updates ended:", e.message);
    },
  });
  feed = mine;
}

function take(q: Queue): void {
  newest.set(q.id, q);
  for (const f of followers) if (f.ids.includes(q.id)) f.tell(q);
}

/** Calls tell with each of the stores' queues, as it is and whenever it changes, until the component ends or the ids are others. */
export function useLive(ids: string[], tell: Tell): void {
  const last = useRef(tell);
  last.current = tell;
  useEffect(() => {
    if (ids.length === 0) return;
    const f: Follower = { ids, tell: (q) => last.current(q) };
    followers.add(f);
    later();
    for (const id of ids) {
      const known = newest.get(id);
      if (known) f.tell(known);
    }
    return () => {
      followers.delete(f);
      later();
    };
  }, [ids.join(" ")]);
}
