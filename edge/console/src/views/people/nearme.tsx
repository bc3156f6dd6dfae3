import { useState } from "preact/hooks";
import { read } from "../../api/service";
import type { Place } from "../../api/types";
import { Notice } from "../../ui/parts";

interface Route {
  client: Place & { source: "query" | "header" | "geoip" | "region" };
}

/** Asks the browser where it is, else the service, which may know where the browser's address is. */
export function NearMe({ onPlace }: { onPlace: (place: Place) => void }) {
  const [state, set] = useState<"" | "asking" | "refused" | "unknown" | "insecure">("");
  const byAddress = (otherwise: typeof state) =>
    read<Route>("/v1/route").then(
      ({ client }) => {
        const known = client.source === "geoip" || client.source === "header";
        set(known ? "" : otherwise);
        if (known) onPlace({ lat: client.lat, lng: client.lng });
      },
      () => set(otherwise),
    );
  const ask = () => {
    set("asking");
    if (!window.isSecureContext || !navigator.geolocation) return void byAddress("insecure");
    navigator.geolocation.getCurrentPosition(
      (p) => {
        set("");
        onPlace({ lat: p.coords.latitude, lng: p.coords.longitude });
      },
      (e) => (e.code === e.PERMISSION_DENIED ? set("refused") : void byAddress("unknown")),
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
