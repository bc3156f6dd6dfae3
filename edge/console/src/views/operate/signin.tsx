// Where the admin key is asked for.
import { useState } from "preact/hooks";
import { Notice } from "../../ui/parts";

export function SignIn({ wrong, detail, onKey }: { wrong: boolean; detail: string; onKey: (key: string) => void }) {
  const [key, setKey] = useState("");
  return (
    <form
      class="signin"
      onSubmit={(e) => {
        e.preventDefault();
        if (key.trim()) onKey(key);
      }}
    >
      {wrong ? (
        <Notice kind="error" title="This key does not do">
          {detail}
        </Notice>
      ) : null}
      <label>
        <b>Admin key</b>
        <input type="password" autocomplete="off" spellcheck={false} value={key} placeholder="sl_…" onInput={(e) => setKey(e.currentTarget.value)} />
      </label>
      <p class="soft small">
        To see the control plane and to act. It is in <code>admin.key</code> of the node's data folder (<code>planet.json</code> of a planet) and is kept in this tab only. On the machine of a
        node no key is needed: open this page at its admin port.
      </p>
      <button type="submit" class="button primary" disabled={!key.trim()}>
        Continue as operator
      </button>
    </form>
  );
}
