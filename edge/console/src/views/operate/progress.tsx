// A change of the primary, step by step while it happens.
import type { Mark, Operation } from "../../api/types";

/** The steps in their order, as people say them. */
const steps: Record<Operation["kind"], [name: string, text: string][]> = {
  switchover: [
    ["intent", "the lease can no longer be renewed"],
    ["lease", "the lease is surrendered"],
    ["read-only", "the old primary takes no new writes"],
    ["catch-up", "the new one has all of the log"],
    ["detach", "nobody follows the old primary"],
    ["target", "the new primary is decided"],
    ["promote", "its database is a primary"],
    ["primary", "it may acknowledge writes"],
    ["follow", "another region follows it"],
  ],
  failover: [
    ["intent", "the lease can no longer be renewed"],
    ["lease", "the lease is waited out"],
    ["detach", "nobody follows the old primary"],
    ["target", "the new primary is decided"],
    ["promote", "its database is a primary"],
    ["primary", "it may acknowledge writes"],
    ["follow", "another region follows it"],
  ],
};

const inWords = new Map([...steps.failover, ...steps.switchover]);

export function UnderWay({ operation: op }: { operation: Operation }) {
  const marks = new Map((op.marks ?? []).map((m) => [m.step, m]));
  const all = steps[op.kind];
  const at = all.findIndex(([name]) => !marks.has(name));
  return (
    <section class="under-way" aria-live="polite">
      <h2>
        {op.kind} from {op.from} to {op.target || op.to || "the region with the most"}
      </h2>
      <p class="small">
        Epoch {op.epoch}, {op.automatic ? "by itself" : `by ${op.by}`}
        {op.why ? `: ${op.why}` : ""}
      </p>
      <ol>
        {all.map(([name, text], i) => {
          const mark = marks.get(name);
          return (
            <li key={name} class={mark ? "done" : i === at ? "now" : ""}>
              <span>{text}</span>
              <span class="num">{mark ? `${Math.round(mark.took_ms)} ms` : i === at ? "…" : ""}</span>
            </li>
          );
        })}
      </ol>
    </section>
  );
}

/** What a pause was made of, as a bar of its steps. */
export function Shares({ marks }: { marks: Mark[] }) {
  const total = marks.reduce((sum, m) => sum + m.took_ms, 0);
  if (total <= 0) return null;
  return (
    <div class="shares" role="img" aria-label={marks.map((m) => `${m.step} ${Math.round(m.took_ms)} ms`).join(", ")}>
      {marks.map((m, i) => (
        <i key={i} ref={(e) => void (e && (e.style.flexGrow = String(Math.max(m.took_ms / total, 0.01))))} title={`${inWords.get(m.step) ?? m.step}: ${Math.round(m.took_ms)} ms`} />
      ))}
    </div>
  );
}
