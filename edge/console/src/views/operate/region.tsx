// One region: what it does, how it is, and what can be done with it.
import { useEffect, useState } from "preact/hooks";
import type { Check, ClusterRegion, Explanation, Region } from "../../api/types";
import { bytes, count, duration, lag } from "../../ui/format";
import { explain } from "./admin";
import { mood } from "./onmap";
import type { Ask } from "./verb";

export function RegionCard({ region: r, control, marked, alone, onShow, onAsk }: { region: Region; control: ClusterRegion | null; marked: boolean; alone: boolean; onShow: () => void; onAsk: (ask: Ask) => void }) {
  const [why, setWhy] = useState(false);
  const well = r.nodes.filter((n) => n.health === "healthy").length;
  return (
    <article class={`region ${mood(r)}${marked ? " marked" : ""}`} id={`region-${r.name}`} aria-label={r.name}>
      <header>
        <button type="button" class="region-name" onClick={onShow} title="Show it on the map">
          {r.name}
        </button>
        <span class={`chip ${r.role}`}>{r.role}</span>
        {control?.sync ? <span class="chip" title="It has each write before that is acknowledged">confirms</span> : null}
        {r.state !== "active" ? <span class="chip warn">{r.state}</span> : null}
        {r.role !== "witness" && r.health !== "healthy" ? <span class="chip bad">no node answers</span> : null}
      </header>
      {r.role === "witness" ? (
        <p class="soft">It votes, and has no data.</p>
      ) : (
        <dl>
          <Item label="nodes" value={`${well} of ${r.nodes.length}`} title={r.nodes.map((n) => `${n.name}: ${n.health}${n.reason ? ` (${n.reason})` : ""}`).join("\n")} />
          <Item label="behind" value={r.role === "primary" ? "–" : lag(r.lag_s)} title={control?.lag_bytes === undefined ? "" : `${bytes(control.lag_bytes)} of log`} />
          <Item label="round trip" value={r.rtt_ms === null ? "–" : `${r.rtt_ms.toFixed(r.rtt_ms < 10 ? 1 : 0)} ms`} />
          <Item label="requests/s" value={count(r.nodes.reduce((sum, n) => sum + n.load_rps, 0))} title={r.capacity_rps ? `${Math.round(r.load * 100)} % of ${count(r.capacity_rps)}` : "no capacity is set"} />
        </dl>
      )}
      <Trouble control={control} />
      {control && r.role !== "witness" && !alone ? (
        <div class="region-verbs">
          {r.role === "standby" && r.state === "active" ? (
            <button type="button" class="button" onClick={() => onAsk({ verb: "switchover", region: r.name })}>
              Make primary…
            </button>
          ) : null}
          {r.state === "active" ? (
            <button type="button" class="button" onClick={() => onAsk({ verb: "drain", region: r.name })}>
              Drain…
            </button>
          ) : (
            <button type="button" class="button" onClick={() => onAsk({ verb: "undrain", region: r.name })}>
              Undrain…
            </button>
          )}
          {r.role === "standby" ? (
            <button type="button" class="button" onClick={() => onAsk({ verb: "failover", region: r.name })}>
              Fail over…
            </button>
          ) : null}
          <button type="button" class="link" aria-expanded={why} onClick={() => setWhy(!why)}>
            {why ? "Close" : "Explain"}
          </button>
        </div>
      ) : null}
      {why ? <Why region={r.name} /> : null}
    </article>
  );
}

function Item({ label, value, title }: { label: string; value: string; title?: string }) {
  return (
    <div title={title}>
      <dt>{label}</dt>
      <dd class="num">{value}</dd>
    </div>
  );
}

/** What is wrong with its database, or how far its rejoin is. */
function Trouble({ control }: { control: ClusterRegion | null }) {
  if (!control || control.role === "witness") return null;
  const { database: db } = control;
  if (db?.rejoin) {
    const { step, done_bytes: done = 0, total_bytes: total = 0 } = db.rejoin;
    return (
      <p class="small">
        It comes back: {step}
        {total > 0 ? `, ${bytes(done)} of ${bytes(total)}` : ""} {total > 0 ? <progress max={total} value={done} /> : null}
      </p>
    );
  }
  const text = control.silent_s > 2 ? `Its database agent has not answered for ${duration(control.silent_s)}` : db?.err || control.err || (db?.fenced ? "Its database is fenced: it takes no writes" : control.held ? "It came back from a failure; undrain it to let it become primary again" : "");
  return text ? <p class="trouble small">{text}</p> : null;
}

/** Every rule, and what it says of this region now. */
function Why({ region }: { region: string }) {
  const [answer, set] = useState<Explanation | null>(null);
  const [error, setError] = useState("");
  useEffect(() => {
    let over = false;
    explain(region).then(
      (e) => over || set(e),
      (e: Error) => over || setError(e.message),
    );
    return () => void (over = true);
  }, [region]);
  if (error) return <p class="trouble small">{error}</p>;
  if (!answer) return null;
  const against = (title: string, checks: Check[]) => {
    const bad = checks.filter((c) => !c.ok);
    return (
      <li>
        <b>{title}:</b> {bad.length === 0 ? "nothing speaks against it" : bad.map((c) => c.detail || c.rule).join("; ")}
      </li>
    );
  };
  return (
    <div class="why small">
      <p>{answer.summary}</p>
      <ul>
        {against("Switchover", answer.switchover)}
        {against("Failover", answer.failover)}
        {against("Drain", answer.drain)}
      </ul>
    </div>
  );
}
