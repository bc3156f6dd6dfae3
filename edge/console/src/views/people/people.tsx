// People: where the lines are, and which store near a place has the shortest one.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { useConnection, type Connection } from "../../api/service";
import type { NearbyStore, Place } from "../../api/types";
import { waitColour } from "../../map/colours";
import { coordinates, distance, wait } from "../../ui/format";
import { Notice, Segmented, Spinner } from "../../ui/parts";
import type { ViewProps } from "..";
import { KeyForm } from "../../ui/keyform";
import { Legend } from "./legend";
import { NearMe } from "./nearme";
import { speeds, useNearest, type Sort, type Speed } from "./nearest";
import { Row } from "./row";
import { StorePanel } from "./store";
import { useStoresOnMap } from "./stores";
import { Welcome } from "./welcome";
import "./people.css";

interface At {
  place: Place | null;
  store: string | null;
}

/** The address after "#people/": a place, then the store that is looked at. */
function parse(rest: string): At {
  const m = /^(-?\d+(?:\.\d+)?),(-?\d+(?:\.\d+)?)(?:\/(.+))?$/.exec(rest);
  if (!m || Math.abs(Number(m[1])) > 90 || Math.abs(Number(m[2])) > 180) return { place: null, store: null };
  return { place: { lat: Number(m[1]), lng: Number(m[2]) }, store: m[3] ?? null };
}

const write = (at: At): string => (at.place ? `${at.place.lat.toFixed(5)},${at.place.lng.toFixed(5)}${at.store ? `/${encodeURIComponent(at.store)}` : ""}` : "");

export default function People({ map, rest, setRest }: ViewProps) {
  const { place, store } = useMemo(() => parse(rest), [rest]);
  const [sort, setSort] = useState<Sort>("distance");
  const [speed, setSpeed] = useState<Speed>("walk");
  const [openOnly, setOpenOnly] = useState(true);
  const [hovered, setHovered] = useState<string | null>(null);
  const go = (at: At) => setRest(write(at));

  const onMap = useStoresOnMap(map);
  const nearest = useNearest(place, sort, speed, openOnly);
  const connection = useConnection();

  useEffect(() => map.onClick((c) => go({ place: { lat: c.lat, lng: c.lng }, store: c.store })), [map]);
  useMarkers(map, place, nearest.stores, store ?? hovered, (id) => go({ place, store: id }));
  useEffect(() => document.getElementById("panel")?.scrollTo(0, 0), [store]);

  const legend = <Legend map={map} live={onMap.live} />;
  if (store && place) {
    return (
      <>
        <StorePanel key={store} id={store} onBack={() => go({ place, store: null })} />
        {legend}
      </>
    );
  }
  return (
    <>
      <header class={place ? "ask compact" : "ask"}>
        <h1>Which store near you has the shortest line?</h1>
        {place ? null : <p class="soft">Every dot is a store or a cluster of them; its colour says how long one waits there right now. Click anywhere on the map to see the nearest.</p>}
        <div class="ask-row">
          <NearMe onPlace={(p) => go({ place: p, store: null })} />
          {place ? (
            <button type="button" class="button" onClick={() => (go({ place: null, store: null }), map.home())}>
              Whole world
            </button>
          ) : null}
          {place ? (
            <label class="check">
              <input type="checkbox" checked={openOnly} onChange={(e) => setOpenOnly(e.currentTarget.checked)} /> open now
            </label>
          ) : null}
        </div>
      </header>
      <Troubles connection={connection} error={onMap.error} haveStores={onMap.total !== null || onMap.partial} />
      {place ? (
        <section aria-label="The nearest stores">
          <div class="choices">
            <Segmented
              label="Order"
              value={sort}
              onChange={setSort}
              options={[
                { value: "distance", label: "Nearest" },
                { value: "wait", label: "Shortest wait" },
                { value: "fastest", label: "Served first", title: "The way there and the wait together" },
              ]}
            />
            {sort === "fastest" ? (
              <Segmented label="How you go" value={speed} onChange={setSpeed} options={(Object.keys(speeds) as Speed[]).map((value) => ({ value, label: value[0].toUpperCase() + value.slice(1) }))} />
            ) : null}
          </div>
          {nearest.noneOpen ? (
            <Notice kind="info" title="No store is known to be open">
              These are the nearest, open or not.
            </Notice>
          ) : null}
          <Found nearest={nearest} sort={sort} speed={speed} onOpen={(id) => go({ place, store: id })} onHover={setHovered} />
          <p class="soft small">
            Around {coordinates(place)}
            {sort !== "distance" && nearest.within ? `, looked for within ${distance(nearest.within)}` : ""}.
          </p>
        </section>
      ) : (
        <Welcome onChoose={(p, id) => go({ place: { lat: p.lat, lng: p.lng }, store: id ?? null })} />
      )}
      {legend}
    </>
  );
}

function Found({ nearest, sort, speed, onOpen, onHover }: { nearest: ReturnType<typeof useNearest>; sort: Sort; speed: Speed; onOpen: (id: string) => void; onHover: (id: string | null) => void }) {
  if (!nearest.stores) {
    return nearest.error ? (
      <Notice kind="error" title="The nearest stores cannot be had" action={{ label: "Try again", run: nearest.again }}>
        {nearest.error.message}
      </Notice>
    ) : (
      <Spinner label="Looking for the nearest" />
    );
  }
  if (nearest.stores.length === 0) return <Notice kind="empty" title="There are no stores">Not here, and nowhere else.</Notice>;
  return (
    <>
      {nearest.error ? (
        <Notice kind="warning" title="These may be old">
          They are read again as soon as a region answers.
        </Notice>
      ) : null}
      <ol class="rows">
        {nearest.stores.map((s, i) => (
          <Row key={s.id} store={s} rank={i + 1} sort={sort} speed={speed} onOpen={() => onOpen(s.id)} onHover={onHover} />
        ))}
      </ol>
    </>
  );
}

function Troubles({ connection: c, error, haveStores }: { connection: Connection; error: Error | null; haveStores: boolean }) {
  if (c.state === "elsewhere") {
    return (
      <Notice kind="info" title={`${c.home} does not answer; ${c.region} does`}>
        All goes on, from there. To load this page again, <a href={`${c.url}/${location.hash}`}>open it at {c.region}</a>.
      </Notice>
    );
  }
  if (c.state === "offline") {
    return (
      <Notice kind="warning" title="You are offline">
        {haveStores ? "What you see is as it was when the network went away." : "The map fills as soon as there is a network."}
      </Notice>
    );
  }
  if (c.state === "lost") {
    return (
      <Notice kind="error" title="No region answers">
        {haveStores ? "What you see is as it was. " : ""}It is tried again all the time{c.reason ? ` (${c.reason})` : ""}.
      </Notice>
    );
  }
  if (c.state === "locked") return <KeyForm title="Reading needs an API key here">One with the scope <code>read</code>; made with <code>shortline keys create --scope read</code>.</KeyForm>;
  if (error && !haveStores) return <Notice kind="error" title="The stores cannot be shown">{error.message}</Notice>;
  return null;
}

/** The place and the stores found, as elements on the map, which moves to show them when the place is another. */
function useMarkers(map: ViewProps["map"], place: Place | null, stores: NearbyStore[] | null, marked: string | null, onOpen: (id: string) => void): void {
  const elements = useRef(new Map<string, HTMLElement>());
  const open = useRef(onOpen);
  open.current = onOpen;
  useEffect(() => {
    const kept = new Map<string, HTMLElement>();
    const markers = (place ? (stores ?? []) : []).map((s, i) => {
      const element = elements.current.get(s.id) ?? pin(() => open.current(s.id));
      kept.set(s.id, element);
      const text = s.open === false ? "closed" : s.queue ? wait(s.queue.wait_s) : "?";
      const label = element.querySelector("b")!;
      if (label.textContent !== text && label.textContent !== "") replay(element);
      label.textContent = text;
      element.querySelector("i")!.textContent = String(i + 1);
      element.setAttribute("aria-label", `${i + 1} ${text}: ${s.name ?? s.id}`);
      element.style.setProperty("--wait", waitColour(s.open === false ? null : s.queue?.wait_s));
      element.classList.toggle("marked", s.id === marked);
      return { id: s.id, lat: s.lat, lng: s.lng, element, anchor: "bottom" as const };
    });
    elements.current = kept;
    map.setMarkers("nearest", markers);
  }, [map, place, stores, marked]);
  useEffect(() => {
    const element = document.createElement("div");
    element.className = "you";
    map.setMarkers("you", place ? [{ id: "you", lat: place.lat, lng: place.lng, element }] : []);
  }, [map, place?.lat, place?.lng]);
  useEffect(
    () => () => {
      map.setMarkers("nearest", []);
      map.setMarkers("you", []);
    },
    [map],
  );

  // Once for each place: later changes of the list do not move the map under the user's hand.
  const shown = useRef("");
  useEffect(() => {
    const key = place ? `${place.lat},${place.lng}` : "";
    if (!place) shown.current = "";
    if (!place || !stores || key === shown.current) return;
    shown.current = key;
    map.show([place, ...stores]);
  }, [map, place?.lat, place?.lng, stores]);
}

function pin(onClick: () => void): HTMLElement {
  const element = document.createElement("button");
  element.type = "button";
  element.className = "pin";
  const body = document.createElement("span");
  body.append(document.createElement("i"), " ", document.createElement("b"));
  element.append(body);
  element.addEventListener("click", (e) => {
    e.stopPropagation();
    onClick();
  });
  return element;
}

/** Begins an element's animation again. */
function replay(element: HTMLElement): void {
  element.classList.remove("changed");
  void element.offsetWidth;
  element.classList.add("changed");
}
