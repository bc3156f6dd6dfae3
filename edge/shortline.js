// @ts-check
/**
 * Shortline for browsers: the nearest stores, their queues, and queues as they change.
 *
 * One module without dependencies, served by every node at /shortline.js:
 *
 *     import { Shortline } from "https://eu.example.org/shortline.js";
 *     const shortline = new Shortline();              // the node that the module came from
 *     const { stores } = await shortline.nearby({ lat: 40.758, lng: -73.9855, radius: "2km" });
 *     const feed = shortline.live({
 *       area: { lat: 40.758, lng: -73.9855, radius: "2km", limit: 5 },
 *       onSnapshot: (snapshot) => draw(snapshot.stores),
 *       onChange: (queue) => update(queue.id, queue.length, queue.wait_s),
 *     });
 *     feed.close();
 *
 * When a region fails or asks to go elsewhere, calls and feeds go on in the next one of GET /v1/route. A feed has no gap: each
 * connection begins with how everything is, and the next one is there before the last one is given up. Nor does it go back: of a
 * queue whose value is older than the one told before, the latter stands for up to 10 s after a move.
 *
 * It works in every browser since 2022, and in other programs that have fetch, WebSocket and crypto.
 * @module shortline
 */

/**
 * @typedef {object} Queue a store's queue; all but the id are null for a store that never reported
 * @property {string} id
 * @property {number | null} length people waiting
 * @property {number | null} wait_s expected seconds until somebody who joins now is served
 * @property {number | null} wait_high_s nine of ten waits are shorter
 * @property {string | null} updated_at when it was seen, RFC 3339
 */
/**
 * @typedef {Queue & { lat?: number, lng?: number, distance_m?: number }} LiveStore with its place, if it is of an area
 */
/**
 * @typedef {object} Snapshot how stores are: at the beginning, after each reconnection, and whenever an area has other stores
 * @property {LiveStore[]} stores of an area nearest first, and all that it has
 * @property {string[]} missing followed, but there is no such store
 * @property {boolean} area whether it is of the area
 * @property {string} region that answered
 * @property {string} server its base URL
 */
/**
 * @typedef {object} Area
 * @property {number} lat degrees
 * @property {number} lng degrees
 * @property {number | string} [radius] metres, or with a unit: "2km"
 * @property {number} [limit] how many stores
 */
/**
 * @typedef {object} LiveOptions
 * @property {string[]} [stores] ids to follow
 * @property {Area} [area] a place whose nearest stores are followed, whichever they are
 * @property {(snapshot: Snapshot) => void} [onSnapshot]
 * @property {(queue: Queue) => void} [onChange] one queue changed
 * @property {(id: string) => void} [onRemoved] a store is gone
 * @property {(error: Error) => void} [onLost] there is no connection; another one is being tried
 * @property {(error: Error) => void} [onEnd] the service refuses for good; nothing more comes
 */
/**
 * @typedef {object} Options
 * @property {string} [server] base URL; default: where the module came from
 * @property {string} [key] API key; only needed for writes, or where reads need one
 * @property {number} [timeout] milliseconds that an attempt of a call may take (10,000)
 */

/** An answer that says no: a problem of RFC 9457. */
export class ShortlineProblem extends Error {
  /** @param {any} problem @param {number} status */
  constructor(problem, status) {
    super(problem?.detail || problem?.title || `the service answered ${status}`);
    this.name = "ShortlineProblem";
    /** @type {string} the kind, such as "/problems/not-found" */
    this.type = problem?.type ?? "about:blank";
    /** @type {number} the HTTP status */
    this.status = problem?.status ?? status;
    /** @type {{ field: string, detail: string }[]} */
    this.errors = problem?.errors ?? [];
  }

  /** Whether another attempt, perhaps elsewhere, may work. */
  get passing() {
    return this.status === 429 || this.status >= 500;
  }
}

const here = new URL(import.meta.url).origin;

/** @param {string} url */
const trim = (url) => url.replace(/\/+$/, "");

/** @param {number} ms */
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** @param {unknown} e @returns {Error} */
const asError = (e) => (e instanceof Error ? e : new Error(String(e)));

/** A service: all its regions, behind one object. */
export class Shortline {
  /** @param {Options} [options] */
  constructor(options = {}) {
    /** @type {string} the server that is asked first */
    this.server = trim(options.server ?? here);
    this.key = options.key ?? "";
    this.timeout = options.timeout ?? 10_000;
    /** @type {string[]} those known, in the order in which they are tried */
    this.servers = [this.server];
    /** @type {string} the newest place in history seen: later reads do not go back behind it */
    this.token = "";
    /** @type {string} the region that gave the last answer, empty before the first */
    this.region = "";
    /** @type {string} its base URL */
    this.from = "";
  }

  /**
   * Any read of the service, wherever it can be answered: `get("/v1/stores/berlin-7/stats")`.
   * @param {string} path with its query
   * @returns {Promise<any>}
   */
  get(path) {
    return this.#call("GET", path);
  }

  /**
   * The nearest stores, with their queues: GET /v1/nearby, whose parameters it takes, `tag` also as a list.
   * @param {Area & Record<string, any>} query
   * @returns {Promise<any>}
   */
  nearby(query) {
    return this.#call("GET", "/v1/nearby?" + search(query));
  }

  /**
   * The queue of one store.
   * @param {string} id
   * @returns {Promise<Queue & { age_s: number | null }>}
   */
  queue(id) {
    return this.#call("GET", `/v1/stores/${encodeURIComponent(id)}/queue`);
  }

  /**
   * Report a queue, with a key of scope queue:write. It is applied once, however often it had to be sent.
   * @param {string} id
   * @param {{ length: number } | { delta: number }} update
   * @returns {Promise<Queue & { applied: boolean, reason?: string, clamped: boolean }>}
   */
  setQueue(id, update) {
    return this.#call("POST", `/v1/stores/${encodeURIComponent(id)}/queue`, update, crypto.randomUUID());
  }

  /**
   * The regions' base URLs in the order in which this client should use them; empty where the service does not tell.
   * @param {{ lat: number, lng: number }} [place]
   * @param {string} [failed] a server that is of no use now
   * @returns {Promise<string[]>}
   */
  async route(place, failed) {
    const query = place ? `?lat=${place.lat}&lng=${place.lng}` : "";
    const ask = this.servers.filter((s) => s !== failed);
    if (!ask.includes(this.server) && this.server !== failed) ask.push(this.server);
    for (const server of ask.length > 0 ? ask : [this.server]) {
      try {
        const answer = await this.#once(server, "GET", "/v1/route" + query, undefined, "", 3_000);
        const urls = baseURLs(answer.regions);
        if (urls.length > 0) return (this.servers = urls);
      } catch {
        // it does not tell; perhaps another one does
      }
    }
    return [];
  }

  /**
   * Follow queues until close() is called on what it returns.
   * @param {LiveOptions} options
   * @returns {LiveFeed}
   */
  live(options) {
    return new LiveFeed(this, options);
  }

  /**
   * @param {string} method @param {string} path @param {any} [body] @param {string} [idempotencyKey]
   * @returns {Promise<any>}
   */
  async #call(method, path, body, idempotencyKey = "") {
    /** @type {string[]} */
    const tried = [];
    for (let attempt = 1; ; attempt++) {
      const server = this.servers.find((s) => !tried.includes(s)) ?? this.servers[0];
      try {
        return await this.#once(server, method, path, body, idempotencyKey, this.timeout);
      } catch (e) {
        if (e instanceof ShortlineProblem && e.type.endsWith("/token-lost")) this.token = "";
        else if (e instanceof ShortlineProblem && !e.passing) throw e;
        if (attempt >= 4) throw e;
        tried.push(server);
        await this.route(undefined, server);
        if (this.servers.every((s) => tried.includes(s))) {
          tried.length = 0;
          await sleep(2 ** attempt * 100 * (0.5 + Math.random()));
        }
      }
    }
  }

  /**
   * @param {string} server @param {string} method @param {string} path @param {any} body @param {string} idempotencyKey @param {number} timeout
   * @returns {Promise<any>}
   */
  async #once(server, method, path, body, idempotencyKey, timeout) {
    /** @type {Record<string, string>} */
    const headers = {};
    if (this.key) headers["Authorization"] = "Bearer " + this.key;
    if (this.token) headers["Shortline-Token"] = this.token;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (idempotencyKey) headers["Idempotency-Key"] = idempotencyKey;
    const response = await fetch(server + path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal: AbortSignal.timeout(timeout) });
    const answer = await response.json().catch(() => null);
    if (!response.ok) throw new ShortlineProblem(answer, response.status);
    this.token = response.headers.get("Shortline-Token") ?? this.token;
    this.region = response.headers.get("Shortline-Region") ?? this.region;
    this.from = server;
    return answer;
  }
}

/** @param {Record<string, any>} query */
function search(query) {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const v of Array.isArray(value) ? value : [value]) if (v !== undefined && v !== null) params.append(name, String(v));
  }
  return params.toString();
}

/** @param {{ url: string }[] | undefined} regions @returns {string[]} */
function baseURLs(regions) {
  const urls = (regions ?? []).map((r) => trim(r.url ?? "")).filter((u) => /^https?:\/\/[^/]+/.test(u));
  return [...new Set(urls)];
}

const holdBack = 10_000; // milliseconds after a move in which a value older than the one shown is kept back

const atOnce = 200; // stores named in one message
const idle = 20_000; // milliseconds without a message after which a sign of life is asked for
const dead = 45_000; // and after which the connection is taken for dead

/** @param {Queue} q @returns {Queue} a copy without what else a message has */
const queueOf = (q) => ({ id: q.id, length: q.length, wait_s: q.wait_s, wait_high_s: q.wait_high_s, updated_at: q.updated_at });

/** @param {Queue} q */
const time = (q) => (q.updated_at ? Date.parse(q.updated_at) : 0);

/** A feed of queues over one WebSocket at a time. Made by Shortline.live. */
export class LiveFeed {
  /** @type {Shortline} */ #shortline;
  /** @type {LiveOptions} */ #options;
  /** @type {WebSocket | null} */ #current = null;
  /** @type {WebSocket | null} */ #next = null;
  /** @type {string[]} servers that failed since there was a connection, the last one last */ #bad = [];
  #failures = 0;
  #closed = false;
  #token = "";
  #timer = 0;
  /** @type {Map<string, Queue>} what was told last */ #told = new Map();
  /** @type {Map<string, Queue>} older ones that came since the last move */ #held = new Map();
  /** whether older ones are held back */ #holding = false;
  #settled = 0;

  /** @param {Shortline} shortline @param {LiveOptions} options */
  constructor(shortline, options) {
    if (!options.area && !options.stores?.length) throw new TypeError("live: name stores or an area to follow");
    this.#shortline = shortline;
    this.#options = options;
    this.#open();
  }

  /** End the feed. Nothing is called after it. */
  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#settled);
    this.#current?.close(1000);
    this.#next?.close(1000);
  }

  /** @param {number} ms */
  #later(ms) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#open(), ms);
  }

  /** The server to try next: the first that has not failed, else the one that failed longest ago. */
  async #target() {
    if (this.#bad.length > 0) await this.#shortline.route(this.#options.area, this.#bad[this.#bad.length - 1]);
    const { server, servers } = this.#shortline;
    const known = servers.includes(server) ? servers : [...servers, server];
    return known.find((s) => !this.#bad.includes(s)) ?? this.#bad.find((s) => known.includes(s)) ?? known[0];
  }

  async #open() {
    const server = await this.#target();
    if (this.#closed || this.#next) return;
    const key = this.#shortline.key;
    let socket;
    try {
      socket = new WebSocket(server.replace(/^http/, "ws") + "/v1/live", key ? ["shortline", "key." + key] : ["shortline"]);
    } catch (e) {
      this.#options.onEnd?.(asError(e));
      return;
    }
    this.#next = socket;
    let seen = Date.now();
    const watch = setInterval(() => {
      const silent = Date.now() - seen;
      if (silent > dead) socket.close();
      else if (silent > idle && socket.readyState === WebSocket.OPEN) socket.send('{"op":"ping"}');
    }, 5_000);
    socket.onopen = () => {
      seen = Date.now();
      for (const order of this.#orders()) socket.send(JSON.stringify(order));
    };
    socket.onmessage = (message) => {
      seen = Date.now();
      if (!this.#closed && (socket === this.#current || socket === this.#next)) this.#take(socket, server, JSON.parse(message.data));
    };
    socket.onclose = (e) => {
      clearInterval(watch);
      if (!this.#closed) this.#lost(socket, server, new Error(`the connection to ${server} is lost (${e.code} ${e.reason})`));
    };
  }

  #orders() {
    const { area, stores = [] } = this.#options;
    /** @type {Record<string, any>[]} */
    const orders = area ? [{ op: "subscribe", ...area }] : [];
    for (let i = 0; i < stores.length; i += atOnce) orders.push({ op: "subscribe", stores: stores.slice(i, i + atOnce) });
    if (this.#token) orders[0].token = this.#token;
    return orders;
  }

  /** @param {WebSocket} socket @param {string} server @param {any} m */
  #take(socket, server, m) {
    const on = this.#options;
    switch (m.event) {
      case "subscribed":
        if (socket === this.#next) {
          const before = this.#current;
          this.#current = socket;
          this.#next = null;
          this.#bad = [];
          this.#failures = 0;
          before?.close(1000);
          this.#moved();
        }
        this.#token = m.token || this.#token;
        if (m.area) this.#forget(m.stores);
        for (const s of m.stores) Object.assign(s, this.#newest(s));
        on.onSnapshot?.({ stores: m.stores, missing: m.missing ?? [], area: Boolean(m.area), region: m.region, server });
        return;
      case "queue":
        if (socket === this.#current && this.#newest(m) === m) on.onChange?.(queueOf(m));
        return;
      case "removed":
        if (socket !== this.#current) return;
        this.#told.delete(m.id);
        this.#held.delete(m.id);
        on.onRemoved?.(m.id);
        return;
      case "reconnect": {
        if (socket !== this.#current || this.#next) return;
        const urls = baseURLs(m.regions);
        if (urls.length > 0) this.#shortline.servers = urls;
        this.#bad = [server];
        this.#later(Math.random() * m.within_s * 1_000);
        return;
      }
      case "error": {
        const problem = new ShortlineProblem(m, m.status);
        if (problem.passing) return; // the connection ends by itself where it must
        this.close();
        on.onEnd?.(problem);
      }
    }
  }

  /**
   * A node that is behind is not to take back what was shown: for a while the newer value stands. After that what the node says
   * counts: the newer one was lost in a failover, or dated by a clock that was fast.
   */
  #moved() {
    this.#held.clear();
    this.#holding = true;
    clearTimeout(this.#settled);
    this.#settled = setTimeout(() => {
      this.#holding = false;
      const held = [...this.#held.values()].filter((q) => this.#told.has(q.id));
      this.#held.clear();
      for (const q of held) {
        if (this.#closed) return;
        this.#told.set(q.id, q);
        this.#options.onChange?.(queueOf(q));
      }
    }, holdBack);
  }

  /** What is to be told of a queue: what came, or what was told before if that is newer. @param {Queue} q @returns {Queue} */
  #newest(q) {
    const before = this.#told.get(q.id);
    if (before && this.#holding && time(q) < time(before)) {
      this.#held.set(q.id, queueOf(q));
      return before;
    }
    this.#held.delete(q.id);
    this.#told.set(q.id, queueOf(q));
    return q;
  }

  /** What is not in the area any more is not followed any more. @param {Queue[]} stores */
  #forget(stores) {
    const followed = new Set([...stores.map((s) => s.id), ...(this.#options.stores ?? [])]);
    for (const id of this.#told.keys()) if (!followed.has(id)) this.#told.delete(id);
  }

  /** @param {WebSocket} socket @param {string} server @param {Error} error */
  #lost(socket, server, error) {
    const had = socket === this.#current;
    if (!had && socket !== this.#next) return; // it was given up
    const first = had || (!this.#current && this.#bad.length === 0);
    if (had) this.#current = null;
    else this.#next = null;
    this.#bad = [...this.#bad.filter((s) => s !== server), server];
    this.#failures = had ? 1 : this.#failures + 1;
    if (!this.#next) this.#later(this.#failures <= 1 ? Math.random() * 250 : Math.min(10_000, 250 * 2 ** (this.#failures - 1)) * (0.5 + Math.random() / 2));
    if (first) this.#options.onLost?.(error);
    if (!had) this.#refused(server);
  }

  /** A page cannot see why a WebSocket was refused: ask without one, and give up if it is for good. @param {string} server */
  async #refused(server) {
    const key = this.#shortline.key;
    try {
      const answer = await fetch(server + "/v1/live", { headers: key ? { Authorization: "Bearer " + key } : {}, signal: AbortSignal.timeout(3_000) });
      if ((answer.status === 401 || answer.status === 403) && !this.#closed && !this.#current) {
        this.close();
        this.#options.onEnd?.(new ShortlineProblem(await answer.json().catch(() => null), answer.status));
      }
    } catch {
      // it is not there; another one may be
    }
  }
}
