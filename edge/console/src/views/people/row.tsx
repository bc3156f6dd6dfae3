// One of the nearest: how far, how long, open or not, and how today goes.
import type { NearbyStore } from "../../api/types";
import { waitColour } from "../../map/colours";
import { ago, count, distance, duration, waitRange } from "../../ui/format";
import { servedIn, type Sort, type Speed } from "./nearest";
import { usePast } from "./past";
import { Today } from "./today";
import { useFlash } from "./flash";

interface Props {
  store: NearbyStore;
  rank: number;
  sort: Sort;
  speed: Speed;
  onOpen: () => void;
  onHover: (id: string | null) => void;
}

export function Row({ store, rank, sort, speed, onOpen, onHover }: Props) {
  const q = store.queue;
  const past = usePast(store.id, 12);
  const flash = useFlash(q?.length);
  const served = servedIn(store, speed);
  const age = q ? (Date.now() - Date.parse(q.updated_at)) / 1000 : 0;
  const notes = [
    sort === "fastest" && served !== null ? <b>served in {duration(served)}</b> : null,
    q && comparison(q.length, q.usual_length),
    age > 300 ? <span>seen {ago(age)}</span> : null,
  ].filter((n) => n !== null);
  return (
    <li class={`row ${store.open === false ? "closed" : ""}`} data-store={store.id} onMouseEnter={() => onHover(store.id)} onMouseLeave={() => onHover(null)}>
      <button type="button" class="row-head" onClick={onOpen}>
        <span class="rank" aria-hidden="true">
          {rank}
        </span>
        <span class="row-name">
          <b>{store.name ?? store.id}</b>
          <span class="soft small">
            {distance(store.distance_m)} · <Opening open={store.open} />
            {store.address?.city ? ` · ${store.address.city}` : ""}
          </span>
        </span>
        <span class="row-wait" data-flash={flash}>
          <b style={{ "--wait": q ? waitColour(q.wait_s) : undefined }}>{q ? waitRange(q.wait_s, q.wait_high_s) : "not known"}</b>
          <span class="soft small num">{q ? `${count(q.length)} in line` : "no report yet"}</span>
        </span>
      </button>
      {past.stats && past.forecast ? <Today stats={past.stats} forecast={past.forecast} wait={q?.wait_s ?? null} /> : <div class="today-blank" />}
      {notes.length > 0 ? <p class="soft small row-foot num">{notes}</p> : null}
    </li>
  );
}

export function Opening({ open }: { open: boolean | null }) {
  if (open === null) return <span>hours not known</span>;
  return open ? <span class="is-open">open</span> : <span class="is-closed">closed</span>;
}

/** Whether it is another queue than usual, null where it is not or that is not known. */
function comparison(now: number, usual: number | null) {
  if (usual === null) return null;
  const much = Math.max(2, usual * 0.4);
  if (now > usual + much) return <span class="more">longer than the usual {Math.round(usual)}</span>;
  if (now < usual - much) return <span class="less">shorter than the usual {Math.round(usual)}</span>;
  return null;
}
