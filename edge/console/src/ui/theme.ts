// Light or dark: as the system says, until somebody chooses.
import { useEffect, useState } from "preact/hooks";

export type Choice = "auto" | "light" | "dark";
export type Theme = "light" | "dark";

const key = "shortline.theme";
const system = window.matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set<() => void>();

export function choice(): Choice {
  try {
    const stored = localStorage.getItem(key);
    if (stored === "light" || stored === "dark") return stored;
  } catch {
    // storage may be forbidden; then the choice lasts as long as the page
  }
  return chosen;
}

let chosen: Choice = "auto";

export function theme(): Theme {
  const c = choice();
  return c === "auto" ? (system.matches ? "dark" : "light") : c;
}

export function choose(c: Choice): void {
  chosen = c;
  try {
    if (c === "auto") localStorage.removeItem(key);
    else localStorage.setItem(key, c);
  } catch {
    // see above
  }
  applyTheme();
}

/** Puts the theme on the page and tells those who draw by themselves. */
export function applyTheme(): void {
  document.documentElement.dataset.theme = theme();
  for (const tell of listeners) tell();
}

system.addEventListener("change", applyTheme);

export function useTheme(): Theme {
  const [value, set] = useState(theme);
  useEffect(() => {
    const update = () => set(theme());
    listeners.add(update);
    update();
    return () => void listeners.delete(update);
  }, []);
  return value;
}
