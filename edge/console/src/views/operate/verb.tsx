// A verb: first what it would do, then a reason, the region's name typed out where it is forced, then the deed.
import { useEffect, useRef, useState } from "preact/hooks";
import type { Check, Outcome } from "../../api/types";
import { bytes, duration } from "../../ui/format";
import { Notice, Spinner } from "../../ui/parts";
import { act, explain, AdminProblem } from "./admin";

export interface Ask {
  verb: "switchover" | "failover" | "drain" | "undrain" | "pause" | "resume" | "ack";
  region?: string;
}

const texts: Record<Ask["verb"], { title: (r: string) => string; does: string; button: string }> = {
  switchover: { title: (r) => `Make ${r} the primary`, does: "The primary moves there without losing a write. Writes wait meanwhile; reads go on.", button: "Switch over" },
  failover: { title: (r) => `Fail over to ${r}`, does: "For when the primary region is gone. Of the standbys that answer, the one with the most becomes primary.", button: "Fail over" },
  drain: { title: (r) => `Drain ${r}`, does: "Its users are sent to other regions, and it stops confirming writes. Nothing is lost; undrain brings it back.", button: "Drain" },
  undrain: { title: (r) => `Undrain ${r}`, does: "Users are sent there again, and it may become primary again.", button: "Undrain" },
  pause: { title: () => "Pause automation", does: "No failover happens by itself until it is resumed.", button: "Pause" },
  resume: { title: () => "Resume automation", does: "Failovers happen by themselves again.", button: "Resume" },
  ack: { title: () => "Acknowledge the failover", does: "Says that somebody has looked at it. Another one may then happen by itself.", button: "Acknowledge" },
};

/** Rules whose override is what allow_data_loss says. */
const lossy = ["degraded", "data-loss", "members-silent"];

export function VerbDialog({ ask, onClose, onDone }: { ask: Ask; onClose: () => void; onDone: () => void }) {
  const { verb, region = "" } = ask;
  const text = texts[verb];
  const dialog = useRef<HTMLDialogElement>(null);
  const [force, setForce] = useState<string[]>([]);
  const [loss, setLoss] = useState(false);
  const [reason, setReason] = useState("");
  const [typed, setTyped] = useState("");
  const [dry, setDry] = useState<Outcome | null>(null);
  const [broken, setBroken] = useState<Check[]>([]);
  const [error, setError] = useState<AdminProblem | null>(null);
  const [busy, setBusy] = useState(false);

  useEffect(() => dialog.current?.showModal(), []);

  const path = region && (verb === "drain" || verb === "undrain") ? `regions/${encodeURIComponent(region)}/${verb}` : verb;
  const body = (more: object) => ({
    ...(verb === "switchover" || verb === "failover" ? { to: region } : {}),
    ...(verb === "failover" && loss ? { allow_data_loss: true } : {}),
    ...(force.length > 0 ? { force } : {}),
    ...more,
  });
  useEffect(() => {
    let over = false;
    setError(null);
    act(path, body({ dry_run: true })).then(
      (o) => over || setDry(o),
      (e) => over || setError(e),
    );
    return () => void (over = true);
  }, [force.join(), loss]);
  // Which rules can be overridden is known only to the service.
  useEffect(() => {
    if (!region || verb === "undrain") return;
    let over = false;
    explain(region).then(
      (e) => over || setBroken(e[verb as "switchover" | "failover" | "drain"].filter((c) => !c.ok)),
      () => undefined, // then nothing can be overridden from here
    );
    return () => void (over = true);
  }, []);

  const forced = force.length > 0 || loss || verb === "failover";
  const free = broken.filter((c) => c.forceable && !lossy.includes(c.rule));
  const mayLose = verb === "failover" && broken.some((c) => lossy.includes(c.rule));
  const ready = dry !== null && dry.blockers.length === 0 && !busy && (!forced || typed === region);

  const go = async (e: Event) => {
    e.preventDefault();
    if (!ready) return;
    setBusy(true);
    setError(null);
    try {
      await act(path, body({ reason: reason.trim(), ...(forced ? { confirm: typed } : {}) }));
      onDone();
      dialog.current?.close();
    } catch (problem) {
      setError(problem as AdminProblem);
      onDone();
    } finally {
      setBusy(false);
    }
  };

  return (
    <dialog class="verb" ref={dialog} onClose={onClose} aria-labelledby="verb-title">
      <form onSubmit={go}>
        <h1 id="verb-title">{text.title(region)}</h1>
        <p class="soft">{text.does}</p>
        {dry ? <Expected outcome={dry} /> : error ? null : <Spinner label="Asking what would happen" />}
        {dry && dry.blockers.length > 0 ? (
          <Notice kind="warning" title="This speaks against it">
            {dry.blockers.map((b) => `${b.detail} (rule ${b.rule})`).join("; ")}
          </Notice>
        ) : null}
        {free.map((c) => (
          <label class="check" key={c.rule}>
            <input type="checkbox" checked={force.includes(c.rule)} onChange={(e) => setForce(e.currentTarget.checked ? [...force, c.rule] : force.filter((r) => r !== c.rule))} /> override the rule {c.rule}
          </label>
        ))}
        {mayLose ? (
          <label class="check">
            <input type="checkbox" checked={loss} onChange={(e) => setLoss(e.currentTarget.checked)} /> accept that acknowledged writes may be lost
          </label>
        ) : null}
        {error ? (
          <Notice kind="error" title={error.status === 0 ? "Not known whether it was done" : "It was not done"}>
            {error.message}
          </Notice>
        ) : null}
        <label>
          Reason, for the history
          <input type="text" maxLength={500} value={reason} onInput={(e) => setReason(e.currentTarget.value)} />
        </label>
        {forced ? (
          <label>
            Type <b>{region}</b> to confirm
            <input type="text" autocomplete="off" spellcheck={false} value={typed} onInput={(e) => setTyped(e.currentTarget.value)} />
          </label>
        ) : null}
        <div class="verb-end">
          <button type="button" class="button" onClick={() => dialog.current?.close()}>
            Cancel
          </button>
          <button type="submit" class={`button ${verb === "failover" || force.length > 0 || loss ? "danger" : "primary"}`} disabled={!ready}>
            {busy ? "Asking…" : text.button}
          </button>
        </div>
      </form>
    </dialog>
  );
}

/** What a dry run says. */
function Expected({ outcome: { plan } }: { outcome: Outcome }) {
  if (plan.steps.length === 0) return null;
  return (
    <div class="expected">
      <dl>
        {plan.pause_s > 0 ? (
          <div>
            <dt>writes wait</dt>
            <dd>about {plan.pause_s < 10 ? `${plan.pause_s.toFixed(1)} s` : duration(plan.pause_s)}</dd>
          </div>
        ) : null}
        <div>
          <dt>at risk</dt>
          <dd>{plan.bytes_at_risk === 0 ? "nothing" : `${bytes(plan.bytes_at_risk)}, about ${plan.writes_at_risk} writes`}</dd>
        </div>
        {plan.behind_bytes > 0 ? (
          <div>
            <dt>it is behind</dt>
            <dd>{bytes(plan.behind_bytes)}</dd>
          </div>
        ) : null}
        {plan.capacity_used !== undefined ? (
          <div>
            <dt>others' room used</dt>
            <dd>{Math.round(plan.capacity_used * 100)} %</dd>
          </div>
        ) : null}
        <div>
          <dt>commits then</dt>
          <dd title={plan.durability_after.why}>{plan.durability_after.mode}</dd>
        </div>
      </dl>
      <ol>
        {plan.steps.map((s) => (
          <li key={s}>{s}</li>
        ))}
      </ol>
    </div>
  );
}
