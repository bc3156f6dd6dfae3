import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { setKey } from "../api/service";

/** Asks for an API key, which is kept until the browser's tab is closed. */
export function KeyForm({ title, children, onKey }: { title: string; children?: ComponentChildren; onKey?: (key: string) => void }) {
  const [key, set] = useState("");
  const submit = (e: Event) => {
    e.preventDefault();
    if (!key.trim()) return;
    setKey(key.trim());
    onKey?.(key.trim());
  };
  return (
    <form class="notice info keyform" onSubmit={submit}>
      <b>{title}</b>
      {children ? <p>{children}</p> : null}
      <label class="visually-hidden" for="api-key">
        API key
      </label>
      <div class="keyform-row">
        <input id="api-key" type="password" autocomplete="off" spellcheck={false} placeholder="sl_…" value={key} onInput={(e) => set(e.currentTarget.value)} />
        <button type="submit" class="button primary">
          Use it
        </button>
      </div>
    </form>
  );
}
