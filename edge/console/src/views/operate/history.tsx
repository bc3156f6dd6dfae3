// What happened: who was primary when, and every operation with its reason and its measured pause.
import { useState } from "preact/hooks";
import type { Cluster, HistoryEntry } from "../../api/types";
import { duration, moment } from "../../ui/format";
import { Shares } from "./progress";

const changes = (e: HistoryEntry): boolean => (e.event === "switchover" || e.event === "failover") && !!e.to;

interface Reign {
  region: string;
  from: number;
  to: number;
}

/** Who was primary from when to when, oldest first; as far back as the history goes. */
function reigns(history: HistoryEntry[], cluster: Cluster): Reign[] {
  const oldest = history.at(-1);
  if (!oldest) return [];
  const turns = history.filter(changes).reverse();
  const out: Reign[] = [{ region: turns[0]?.from ?? cluster.primary, from: Date.parse(oldest.at), to: Date.parse(cluster.at) }];
  for (const t of turns) {
    const at = Date.parse(t.at);
    out.at(-1)!.to = at;
    out.push({ region: t.to!, from: at, to: Date.parse(cluster.at) });
  }
  return out.filter((r) => r.to > r.from);
}

/** A line of time for each region, filled where it was primary. */
export function Epochs({ history, cluster }: { history: HistoryEntry[]; cluster: Cluster }) {
  const all = reigns(history, cluster);
  if (all.length === 0) return null;
  const [begin, end] = [all[0].from, all.at(-1)!.to];
  const names = cluster.regions.filter((r) => r.role !== "witness").map((r) => r.name);
  const x = (t: number) => 84 + (216 * (t - begin)) / Math.max(1, end - begin);
  return (
    <section aria-label="Who was primary">
      <h2>Who was primary</h2>
      <svg class="epochs" viewBox={`0 0 300 ${names.length * 16 + 14}`} role="img" aria-label={all.map((r) => `${r.region} for ${duration((r.to - r.from) / 1000)}`).join(", then ")}>
        {names.map((name, i) => (
          <g key={name}>
            <text x="0" y={i * 16 + 11}>
              {name}
            </text>
            <line x1="84" x2="300" y1={i * 16 + 8} y2={i * 16 + 8} />
            {all
              .filter((r) => r.region === name)
              .map((r) => (
                <rect key={r.from} x={x(r.from)} width={Math.max(1.5, x(r.to) - x(r.from))} y={i * 16 + 3} height="10" rx="2">
                  <title>
                    {name}: {moment(new Date(r.from).toISOString())} to {moment(new Date(r.to).toISOString())}
                  </title>
                </rect>
              ))}
          </g>
        ))}
        <text x="84" y={names.length * 16 + 11}>
          {duration((end - begin) / 1000)} ago
        </text>
        <text x="300" y={names.length * 16 + 11} text-anchor="end">
          now
        </text>
      </svg>
    </section>
  );
}

const first = 12;

export function History({ entries }: { entries: HistoryEntry[] }) {
  const [all, setAll] = useState(false);
  if (entries.length === 0) return null;
  return (
    <section aria-label="History">
      <h2>What happened</h2>
      <ol class="history">
        {entries.slice(0, all ? undefined : first).map((e) => (
          <Entry key={e.n} entry={e} />
        ))}
      </ol>
      {entries.length > first && !all ? (
        <button type="button" class="button" onClick={() => setAll(true)}>
          Show all {entries.length}
        </button>
      ) : null}
    </section>
  );
}

function Entry({ entry: e }: { entry: HistoryEntry }) {
  const what = e.from && e.to ? `${e.event}: ${e.from} → ${e.to}` : e.region || e.to ? `${e.event}: ${e.region || e.to}` : e.event;
  return (
    <li class={e.event}>
      <div class="history-head">
        <b>{what}</b>
        {e.pause_ms ? <span class="num">{e.pause_ms < 10_000 ? `${(e.pause_ms / 1000).toFixed(2)} s` : duration(e.pause_ms / 1000)} without writes</span> : null}
      </div>
      <p class="soft small">
        {moment(e.at)} · epoch {e.epoch} · {e.automatic ? "by itself" : e.by}
      </p>
      {e.why ? <p class="small">{e.why}</p> : null}
      {e.overridden?.length ? <p class="trouble small">overridden: {e.overridden.join(", ")}</p> : null}
      {e.evidence?.length ? (
        <details class="small">
          <summary>evidence</summary>
          <ul>
            {e.evidence.map((text, i) => (
              <li key={i}>{text}</li>
            ))}
          </ul>
        </details>
      ) : null}
      {e.steps?.length ? <Shares marks={e.steps} /> : null}
    </li>
  );
}
