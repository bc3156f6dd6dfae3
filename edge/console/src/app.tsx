// The shell: header, map, and the panel of the view that is shown.
import type { FunctionComponent } from "preact";
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { useConnection } from "./api/service";
import { createMap, type WorldMap } from "./map/world";
import { Brand, Spinner, Notice } from "./ui/parts";
import { ThemeButton } from "./ui/themebutton";
import { useTheme } from "./ui/theme";
import { views, type ViewProps } from "./views";

function useAddress(): [name: string, rest: string, setRest: (rest: string) => void] {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const update = () => setHash(location.hash);
    window.addEventListener("hashchange", update);
    return () => window.removeEventListener("hashchange", update);
  }, []);
  const [, given = "", rest = ""] = /^#([^/]*)\/?(.*)$/.exec(hash) ?? [];
  const name = views.some((v) => v.name === given) ? given : views[0].name;
  const setRest = useCallback(
    (to: string) => {
      const next = to ? `#${name}/${to}` : `#${name}`;
      if (next === location.hash) return;
      history.replaceState(null, "", next);
      setHash(next);
    },
    [name],
  );
  return [name, name === given ? decodeURIComponent(rest) : "", setRest];
}

export function App() {
  const [name, rest, setRest] = useAddress();
  const host = useRef<HTMLDivElement>(null);
  const [map, setMap] = useState<WorldMap | null>(null);
  const [fault, setFault] = useState("");
  const theme = useTheme();

  useEffect(() => {
    let made: WorldMap | null = null;
    let over = false;
    createMap(host.current!)
      .then((m) => {
        if (over) return m.remove();
        made = m;
        setMap(m);
      })
      .catch((e: Error) => setFault(e.message));
    return () => {
      over = true;
      made?.remove();
    };
  }, []);
  useEffect(() => map?.setTheme(theme), [map, theme]);
  // All views are there before the region that the page came from may be gone.
  useEffect(() => {
    if (!map) return;
    const timer = setTimeout(() => views.forEach((v) => v.load().catch(() => undefined)), 3_000);
    return () => clearTimeout(timer);
  }, [map]);

  return (
    <div class="shell">
      <a class="skip" href="#panel" onClick={(e) => (e.preventDefault(), document.getElementById("panel")?.focus())}>
        Skip the map
      </a>
      <header class="top">
        <Brand />
        <nav class="tabs" aria-label="Views">
          {views.map((v) => (
            <a key={v.name} href={`#${v.name}`} aria-current={v.name === name ? "page" : undefined}>
              {v.title}
            </a>
          ))}
        </nav>
        <div class="top-end">
          <ConnectionLine />
          <a class="quiet" href="/docs">
            API
          </a>
          <ThemeButton />
        </div>
      </header>
      <main class="stage">
        <div class="map" ref={host} />
        <section class="panel" id="panel" tabIndex={-1} aria-label={views.find((v) => v.name === name)!.title}>
          {fault ? <Notice kind="error" title="The map cannot be drawn">{fault}</Notice> : null}
          {map ? <Loaded key={name} name={name} map={map} rest={rest} setRest={setRest} /> : fault ? null : <Spinner label="Loading the map" />}
        </section>
      </main>
    </div>
  );
}

function Loaded({ name, ...props }: ViewProps & { name: string }) {
  const [view, setView] = useState<{ show: FunctionComponent<ViewProps> } | null>(null);
  const [error, setError] = useState<Error | null>(null);
  useEffect(() => {
    let over = false;
    views
      .find((v) => v.name === name)!
      .load()
      .then((m) => over || setView({ show: m.default }), (e: Error) => over || setError(e));
    return () => void (over = true);
  }, [name]);
  if (error) {
    return (
      <Notice kind="error" title="This part of the page did not load" action={{ label: "Load the page again", run: () => location.reload() }}>
        {error.message}
      </Notice>
    );
  }
  return view ? <view.show {...props} /> : <Spinner label="Loading" />;
}

/** One line on how the page stands with the service. */
function ConnectionLine() {
  const c = useConnection();
  const text = {
    connecting: "connecting…",
    online: c.region,
    elsewhere: `${c.home} is away: now ${c.region}`,
    locked: "a key is needed",
    lost: "no region answers",
    offline: "offline",
  }[c.state];
  return (
    <span class={`connection ${c.state}`} role="status" title={c.reason || "The region that answers"}>
      <i aria-hidden="true" />
      <span>{text}</span>
    </span>
  );
}
