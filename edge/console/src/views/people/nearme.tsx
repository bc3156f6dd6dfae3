import { useState } from "preact/hooks";
import type { Place } from "../../api/types";
import { Notice } from "../../ui/parts";

/** Asks the browser where it is. */
export function NearMe({ onPlace }: { onPlace: (place: Place) => void }) {
  const [state, set] = useState<"" | "asking" | "refused" | "unknown" | "insecure">("");
  const ask = () => {
    if (!window.isSecureContext || !navigator.geolocation) return set("insecure");
    set("asking");
    navigator.geolocation.getCurrentPosition(
      (p) => {
        set("");
        onPlace({ lat: p.coords.latitude, lng: p.coords.longitude });
      },
      (e) => set(e.code === e.PERMISSION_DENIED ? "refused" : "unknown"),
      { timeout: 10_000, maximumAge: 60_000 },
    );
  };
  const why = {
    refused: "The browser may not tell this page where you are. Allow it, or click on the map.",
    unknown: "The browser does not know where you are. Click on the map instead.",
    insecure: "Browsers tell only pages over HTTPS (or on localhost) where they are. Click on the map instead.",
  };
  return (
    <>
      <button type="button" class="button primary" onClick={ask} disabled={state === "asking"}>
        {state === "asking" ? "Asking the browser…" : "Near me"}
      </button>
      {state !== "" && state !== "asking" ? <Notice kind="warning" title={why[state]} /> : null}
    </>
  );
}
