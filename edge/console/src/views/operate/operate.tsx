// Operators: the regions, what is under way with them, what was, and the verbs.
import { useState } from "preact/hooks";
import { usePoll } from "../../api/service";
import type { Cluster, Regions } from "../../api/types";
import { ago, bytes, duration } from "../../ui/format";
import { Figure, Notice, Spinner } from "../../ui/parts";
import type { ViewProps } from "..";
import { haveKey, setKey, useControl } from "./admin";
import { useFlows } from "./flows";
import { Epochs, History } from "./history";
import { useRegionsOnMap } from "./onmap";
import { UnderWay } from "./progress";
import { RegionCard } from "./region";
import { SignIn } from "./signin";
import { VerbDialog, type Ask } from "./verb";
import "./operate.css";

export default function Operate({ map, rest, setRest }: ViewProps) {
  const all = usePoll<Regions>("/v1/regions", 1);
  const control = useControl();
  const [ask, setAsk] = useState<Ask | null>(null);
  const flows = useFlows(JSON.stringify(all.value?.regions.map((r) => [r.name, r.state, r.health])));
  const cluster = control.cluster;
  useRegionsOnMap(map, all.value?.regions ?? null, cluster, flows, (name) => (setRest(name), document.getElementById(`region-${name}`)?.scrollIntoView({ block: "nearest" })));

  const regions = all.value?.regions ?? [];
  const alone = regions.length === 1;
  return (
    <>
      <header class="ask">
        <h1>{alone ? "One region" : "Regions"}</h1>
        <p class="soft">
          {alone
            ? "This node serves alone: there is nowhere to switch over to. Start three regions with shortline planet."
            : "Solid arrows are the log going from the primary to those that follow it; dashed ones are where people are sent."}
        </p>
      </header>
      {control.error?.locked ? <SignIn wrong={haveKey()} detail={control.error.message} onKey={(k) => (setKey(k), control.again())} /> : null}
      {control.error && !control.error.locked ? (
        <Notice kind="warning" title={cluster ? `The control plane does not answer; this is as of ${ago((Date.now() - control.at) / 1000)}` : "The control plane does not answer"}>
          {control.error.message}. It is asked again every second.
        </Notice>
      ) : null}
      {cluster ? <State cluster={cluster} alone={alone} onAsk={setAsk} /> : null}
      {cluster?.operation ? <UnderWay operation={cluster.operation} /> : null}
      {all.value ? (
        <section aria-label="Regions" class="regions">
          {regions.map((r) => (
            <RegionCard key={r.name} region={r} control={cluster?.regions.find((c) => c.name === r.name) ?? null} marked={rest === r.name} alone={alone} onShow={() => (setRest(r.name), map.show([r], { maxZoom: 3 }))} onAsk={setAsk} />
          ))}
        </section>
      ) : all.error ? (
        <Notice kind="error" title="The regions cannot be had" action={{ label: "Try again", run: all.again }}>
          {all.error.message}
        </Notice>
      ) : (
        <Spinner label="Asking for the regions" />
      )}
      {cluster ? (
        <>
          <Epochs history={control.history} cluster={cluster} />
          <History entries={control.history} />
          {haveKey() ? (
            <button type="button" class="button" onClick={() => (setKey(""), control.again())}>
              Forget the key
            </button>
          ) : null}
        </>
      ) : null}
      {ask ? <VerbDialog ask={ask} onClose={() => setAsk(null)} onDone={control.again} /> : null}
    </>
  );
}

/** How the whole stands: who leads, what a failure now would cost, and what people should look at. */
function State({ cluster, alone, onAsk }: { cluster: Cluster; alone: boolean; onAsk: (ask: Ask) => void }) {
  const { risk, paused, last_automatic: automatic } = cluster;
  return (
    <>
      <div class="figures" aria-label="State">
        <Figure value={cluster.primary || "–"} label={`primary, epoch ${cluster.primary_epoch}`} title={cluster.leader ? `Led by ${cluster.leader}` : ""} />
        <Figure value={cluster.durability.mode} label="commits" title={cluster.durability.why || "quorum: a standby has each write before it is acknowledged"} />
        <Figure
          value={cluster.lease_age_s === undefined ? "–" : `${cluster.lease_age_s.toFixed(1)} s`}
          label="lease renewed"
          title="Seconds since the primary region's permission to acknowledge writes was renewed"
        />
      </div>
      {risk && !alone ? (
        <p class={`meter ${risk.barred || risk.bytes > 0 ? "warn" : "good"}`} title={risk.why ?? ""}>
          <b>If {cluster.primary} failed now:</b>{" "}
          {risk.barred
            ? `no failover by itself (${risk.barred})`
            : `${risk.bytes === 0 ? "nothing" : `${bytes(risk.bytes)}, about ${risk.writes} writes,`} at risk, about ${duration(Math.max(1, risk.pause_s))} without writes${risk.to ? `, then ${risk.to}` : ""}`}
        </p>
      ) : null}
      {paused ? (
        <Notice kind="warning" title={`Automation is paused by ${paused.by}`} action={{ label: "Resume…", run: () => onAsk({ verb: "resume" }) }}>
          {paused.why || "No reason was given."} Nothing fails over by itself meanwhile.
        </Notice>
      ) : null}
      {automatic && !automatic.acknowledged ? (
        <Notice kind="warning" title={`${automatic.from} failed over to ${automatic.to} by itself`} action={{ label: "Acknowledge…", run: () => onAsk({ verb: "ack" }) }}>
          For an hour no other failover happens by itself, unless this one is acknowledged.
        </Notice>
      ) : null}
      {cluster.blocked.length > 0 ? (
        <Notice kind="error" title="A failover is wanted, and barred">
          {cluster.blocked.map((b) => b.detail).join("; ")}
        </Notice>
      ) : null}
      {!alone && !paused ? (
        <button type="button" class="button" onClick={() => onAsk({ verb: "pause" })}>
          Pause automation…
        </button>
      ) : null}
    </>
  );
}
