// What is shown before a place is chosen: what this is, how it is in the world now, and where to begin.
import { useEffect, useState } from "preact/hooks";
import { read, usePoll } from "../../api/service";
import type { Overview, Place, Store } from "../../api/types";
import { waitColour } from "../../map/colours";
import { ago, count, duration } from "../../ui/format";
import { Figure, Notice, Spinner } from "../../ui/parts";

export function Welcome({ onChoose }: { onChoose: (place: Place, store?: string) => void }) {
  const overview = usePoll<Overview>("/v1/analytics/overview", 5);
  const o = overview.value;
  if (!o) return overview.error ? null : <Spinner label="Asking how it is in the world" />;
  if (o.stores === 0) {
    return (
      <Notice kind="empty" title="There are no stores yet">
        Put some in with <code>shortline import stores.csv</code>, or start a node with <code>--demo --simulate</code> to look around.
      </Notice>
    );
  }
  const behind = Math.max(0, (Date.now() - Date.parse(o.as_of)) / 1000);
  return (
    <>
      <div class="figures" aria-label="In the world now">
        <Figure value={count(o.stores)} label="stores" title={`${count(o.reporting)} of them have reported a queue`} />
        <Figure value={count(o.people)} label="people waiting" />
        <Figure value={o.mean_wait_s === null ? "–" : duration(o.mean_wait_s)} label="mean wait" />
      </div>
      {o.busiest.length > 0 ? (
        <section class="longest">
          <h2>The longest lines now</h2>
          <ol>
            {o.busiest.slice(0, 6).map((b) => (
              <li key={b.id}>
                <button type="button" onClick={() => onChoose(b, b.id)}>
                  <i style={{ background: waitColour(b.wait_s) }} aria-hidden="true" />
                  <Name id={b.id} />
                  <b class="num">{duration(b.wait_s)}</b>
                </button>
              </li>
            ))}
          </ol>
        </section>
      ) : null}
      <p class="soft small">
        Counted by <b>{o.region}</b>
        {behind > 10 ? `, as it was ${ago(behind)}` : ""}. All that this page shows comes from the <a href="/docs">open API</a>.
      </p>
    </>
  );
}

const names = new Map<string, string>();

/** A store's name and city, its id until they are known. */
function Name({ id }: { id: string }) {
  const [name, set] = useState(names.get(id) ?? id);
  useEffect(() => {
    if (names.has(id)) return set(names.get(id)!);
    let over = false;
    read<Store>(`/v1/stores/${encodeURIComponent(id)}`).then(
      (s) => {
        if (names.size > 500) names.clear();
        names.set(id, [s.name, [s.address?.city, s.address?.country].filter(Boolean).join(", ")].filter(Boolean).join(" · "));
        if (!over) set(names.get(id)!);
      },
      () => undefined, // the id has to do
    );
    return () => void (over = true);
  }, [id]);
  return <span>{name}</span>;
}
