// The small parts that all views are made of.
import type { ComponentChildren } from "preact";

export function Brand() {
  return (
    <a class="brand" href="#people" aria-label="Shortline">
      <svg viewBox="0 0 32 32" width="26" height="26" aria-hidden="true">
        <path d="M16 2C10 2 5 6.800 5 12.700 5 20.500 16 30 16 30s11-9.500 11-17.300C27 6.800 22 2 16 2z" fill="currentColor" />
        <g fill="var(--paper)">
          <circle cx="10.500" cy="13" r="2.600" />
          <circle cx="17" cy="13" r="2" opacity=".8" />
          <circle cx="22.300" cy="13" r="1.500" opacity=".6" />
        </g>
      </svg>
      <b>Shortline</b>
    </a>
  );
}

export function Spinner({ label }: { label: string }) {
  return (
    <p class="spinner" role="status">
      <i aria-hidden="true" />
      {label}
    </p>
  );
}

interface Action {
  label: string;
  run: () => void;
}

/** A box that says what is going on: nothing there, something wrong, something to know. */
export function Notice(props: { kind: "empty" | "error" | "info" | "warning"; title: string; action?: Action; children?: ComponentChildren }) {
  return (
    <div class={`notice ${props.kind}`} role={props.kind === "error" ? "alert" : "note"}>
      <b>{props.title}</b>
      {props.children ? <p>{props.children}</p> : null}
      {props.action ? (
        <button type="button" class="button" onClick={props.action.run}>
          {props.action.label}
        </button>
      ) : null}
    </div>
  );
}

/** A choice of one out of few, as a row of buttons. */
export function Segmented<T extends string>(props: { label: string; options: { value: T; label: string; title?: string }[]; value: T; onChange: (value: T) => void }) {
  return (
    <div class="segmented" role="group" aria-label={props.label}>
      {props.options.map((o) => (
        <button type="button" key={o.value} title={o.title} aria-pressed={o.value === props.value} onClick={() => props.onChange(o.value)}>
          {o.label}
        </button>
      ))}
    </div>
  );
}

/** A number with what it counts. */
export function Figure({ value, label, title }: { value: ComponentChildren; label: string; title?: string }) {
  return (
    <div class="figure" title={title}>
      <b>{value}</b>
      <span>{label}</span>
    </div>
  );
}
