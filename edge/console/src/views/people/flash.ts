import { useEffect, useRef, useState } from "preact/hooks";

/** A word that changes for a second when the value does: "up" or "down", else empty. */
export function useFlash(value: number | null | undefined): "" | "up" | "down" {
  const before = useRef(value);
  const [flash, set] = useState<"" | "up" | "down">("");
  useEffect(() => {
    const old = before.current;
    before.current = value;
    if (old === value || old === undefined || old === null || value === undefined || value === null) return;
    set(value > old ? "up" : "down");
    const timer = setTimeout(() => set(""), 1_200);
    return () => clearTimeout(timer);
  }, [value]);
  return flash;
}
