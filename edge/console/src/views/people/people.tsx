import type { ViewProps } from "..";

export default function People(_: ViewProps) {
  return <p>…</p>;
}
