import { useState } from "preact/hooks";
import { choice, choose, type Choice } from "./theme";

const next: Record<Choice, Choice> = { auto: "light", light: "dark", dark: "auto" };
const label: Record<Choice, string> = { auto: "as the system says", light: "light", dark: "dark" };
const icon: Record<Choice, string> = {
  auto: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z M12 7v10a5 5 0 0 0 0-10z",
  light: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8z M12 2v2 M12 20v2 M2 12h2 M20 12h2 M5 5l1.400 1.400 M17.600 17.600L19 19 M5 19l1.400-1.400 M17.600 6.400L19 5",
  dark: "M20 14.500A8.500 8.500 0 0 1 9.500 4 8.500 8.500 0 1 0 20 14.500z",
};

export function ThemeButton() {
  const [now, set] = useState(choice);
  const turn = () => {
    choose(next[now]);
    set(next[now]);
  };
  return (
    <button type="button" class="icon-button" onClick={turn} title={`Colours: ${label[now]}`} aria-label={`Colours: ${label[now]}. Change to ${label[next[now]]}`}>
      <svg viewBox="0 0 24 24" width="20" height="20" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">
        <path d={icon[now]} fill-rule="evenodd" />
      </svg>
    </button>
  );
}
