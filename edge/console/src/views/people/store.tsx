// All about one store.
import { useState } from "preact/hooks";
import { useLive } from "../../api/live";
import { usePoll } from "../../api/service";
import type { QueueState, Store } from "../../api/types";
import { waitColour } from "../../map/colours";
import { ago, coordinates, count, waitRange } from "../../ui/format";
import { Notice, Spinner } from "../../ui/parts";
import { useFlash } from "./flash";
import { Outlook } from "./outlook";
import { usePast } from "./past";
import { Week } from "./week";

export function StorePanel({ id, onBack }: { id: string; onBack: () => void }) {
  const store = usePoll<Store>(`/v1/stores/${encodeURIComponent(id)}`, 300);
  const queue = useQueue(id);
  const past = usePast(id, 24);
  const flash = useFlash(queue?.length);
  const s = store.value;
  return (
    <article class="store" aria-busy={!s}>
      <button type="button" class="button back" onClick={onBack}>
        ← All nearby
      </button>
      {s ? (
        <>
          <header>
            <h1>{s.name}</h1>
            <p class="soft">{[s.brand, address(s)].filter(Boolean).join(" · ")}</p>
          </header>
          <div class="store-wait" data-flash={flash} style={{ "--wait": queue ? waitColour(queue.wait_s) : undefined }}>
            {queue ? (
              <>
                <b>{waitRange(queue.wait_s, queue.wait_high_s)}</b>
                <span>
                  {count(queue.length)} in line, seen {ago(Math.max(0, (Date.now() - Date.parse(queue.updated_at)) / 1000))}
                </span>
              </>
            ) : (
              <span>This store has not reported a queue yet.</span>
            )}
          </div>
          <section>
            <h2>The next 24 hours</h2>
            {past.forecast ? past.forecast.hours.length > 0 ? <Outlook forecast={past.forecast} wait={queue?.wait_s ?? null} /> : <p class="soft small">There is no past to forecast from yet. It begins with the first full hour of reports.</p> : past.error ? <p class="soft small">Not to be had now: {past.error.message}</p> : <Spinner label="Loading the forecast" />}
          </section>
          <section>
            <h2>The usual week</h2>
            {past.stats ? past.stats.samples > 0 ? <Week stats={past.stats} /> : <p class="soft small">No reports yet.</p> : past.error ? null : <Spinner label="Loading the week" />}
          </section>
          <dl class="facts">
            {s.hours ? <Fact name="Hours" value={s.hours} /> : null}
            {s.timezone ? <Fact name="Time zone" value={s.timezone} /> : null}
            {s.phone ? <Fact name="Phone" value={s.phone} /> : null}
            {s.tags?.length ? <Fact name="Has" value={s.tags.join(", ")} /> : null}
            <Fact name="Place" value={coordinates(s)} />
            <Fact name="Id" value={s.id} />
          </dl>
        </>
      ) : store.error ? (
        <Notice kind="error" title="This store cannot be shown" action={{ label: "Try again", run: store.again }}>
          {store.error.message}
        </Notice>
      ) : (
        <Spinner label="Loading the store" />
      )}
    </article>
  );
}

function useQueue(id: string): QueueState | null {
  const first = usePoll<QueueState>(`/v1/stores/${encodeURIComponent(id)}/queue`, 60);
  const [live, setLive] = useState<QueueState | null>(null);
  useLive([id], (q) => q.id === id && q.length !== null && setLive({ length: q.length, wait_s: q.wait_s!, wait_high_s: q.wait_high_s!, updated_at: q.updated_at!, age_s: 0, usual_length: null }));
  const polled = first.value?.length === null ? null : first.value;
  return live && (!polled || live.updated_at >= polled.updated_at) ? live : polled;
}

function Fact({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}

function address(s: Store): string {
  const a = s.address ?? {};
  return [a.street, [a.postcode, a.city].filter(Boolean).join(" "), a.state, a.country].filter(Boolean).join(", ");
}
