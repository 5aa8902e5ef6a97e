// What the server says without being asked: one stream of events per tab, the state of the connection, and the figures of
// all queues. The stream ends while the tab is hidden or the viewer has paused it, and starts again by itself.

import { Away, BASE, Refused, get, said } from "./api.js";
import { learn } from "./rights.js";
import { batch, computed, signal } from "./ui.js";

/**
 * @typedef {object} Queue
 * @property {string} queue
 * @property {number} ready
 * @property {number} scheduled
 * @property {number} leased
 * @property {number} done
 * @property {number} dead
 * @property {number} processed
 * @property {number} failed
 * @property {number} expired
 * @property {number|null} [oldest_seconds]
 * @property {number} status
 * @property {{pushed: number, processed: number, failed: number}} [last_minute]
 */
/** @typedef {{queue: string, id: string, what: string, at: string}} JobEvent */
/** @typedef {{queue: string|null, count: number|null, by: Record<string, number>|null}} LeftOut */

const FIRST = 200; // queues that are asked for before anything is shown
const PAGE = 1000;
const AGAIN_MS = 2000;
const DRAW_MS = 500;
const ALL_EVERY_MS = 30000; // for each 2000 queues
const SEEN_EVERY_MS = 5000;
const NAMES_MOST = 64;

/** How the connection is: `since` when, and `why`, where it is away. */
export const connection = signal(
  /** @type {{state: "starting"|"live"|"paused"|"away"|"login"|"forbidden", since: Date, why: string}} */
  ({ state: "starting", since: new Date(), why: "" }),
);
/** Whether the viewer has paused what moves. */
export const paused = signal(false);
/** Everything that `GET /stats/` says besides the queues. */
export const server = signal(/** @type {Record<string, any>|null} */ (null));
/** Grows when the figures of queues have changed; read it, then `queues`. */
export const changed = signal(0);
/** Whether all queues were asked for once. */
export const complete = signal(false);
/** The figures of all queues that are known, by name. */
export const queues = /** @type {Map<string, Queue>} */ (new Map());
/** How many queues there are, as far as it is known. */
export const known = computed(() => {
  changed.value;
  return complete.value ? queues.size : server.value?.size ?? null;
});
/** Grows each second, for what shows how long ago something was. */
export const second = signal(0);
/** Grows with each event of the queue that a view looks at. */
export const watched = signal(0);
export const away = computed(() => connection.value.state === "away");

/** @type {EventSource|null} */
let source = null;
/** @type {ReturnType<typeof setTimeout>|undefined} */
let again;
/** @type {ReturnType<typeof setTimeout>|undefined} */
let drawing;
/** @type {ReturnType<typeof setTimeout>|undefined} */
let reading;
let reads = 0;
let watchedQueue = "";
/** @type {((event: JobEvent|LeftOut) => void)|null} */
let listener = null;
/** @type {() => string[]} */
let seen = () => [];

/** Tells which queue a view looks at: its events make `watched` grow. @param {string} queue */
export function watch(queue) {
  watchedQueue = queue;
}

/** Tells which queues are in sight: their rates are asked for every few seconds. @param {() => string[]} names */
export function look(names) {
  seen = names;
}

/** Hears each thing that happens to jobs, until it is called again with null. @param {typeof listener} hear */
export function hearJobs(hear) {
  const restart = (hear === null) !== (listener === null);
  listener = hear;
  if (restart && source) open();
}

/** Starts, or starts again after a login. */
export async function start() {
  clearTimeout(again);
  try {
    await learn();
    await firstLook();
  } catch (error) {
    lost(error);
    return;
  }
  open();
}

/** @param {unknown} error */
export function lost(error) {
  close();
  if (error instanceof Refused && error.status === 401) {
    connection.value = { state: "login", since: new Date(), why: error.message };
    return;
  }
  if (error instanceof Refused && error.status === 403) {
    connection.value = { state: "forbidden", since: new Date(), why: error.message };
    return;
  }
  if (connection.peek().state !== "away") {
    connection.value = { state: "away", since: new Date(), why: said(error) };
  } else {
    connection.value = { ...connection.peek(), why: said(error) };
  }
  clearTimeout(again);
  if (!document.hidden) again = setTimeout(start, AGAIN_MS * (1 + Math.random() / 2));
}

/** Pauses what moves, or goes on. @param {boolean} on */
export function pause(on) {
  paused.value = on;
  if (on) {
    close();
    connection.value = { state: "paused", since: new Date(), why: "" };
  } else {
    start();
  }
}

function close() {
  source?.close();
  source = null;
  clearTimeout(reading);
  reads += 1;
}

function open() {
  source?.close();
  const mine = new EventSource(new URL(listener ? "events?jobs=1" : "events", BASE));
  source = mine;
  mine.onopen = () => {
    connection.value = { state: "live", since: new Date(), why: "" };
  };
  mine.onerror = async () => {
    if (source !== mine) return;
    // The stream does not say why it ended, an ordinary request does.
    close();
    try {
      await get("stats/", { limit: 1 });
      again = setTimeout(start, AGAIN_MS / 4);
    } catch (error) {
      lost(error);
    }
  };
  mine.addEventListener("queue", (event) => {
    const { new: _, ...figures } = JSON.parse(event.data);
    const old = queues.get(figures.queue);
    queues.set(figures.queue, { ...old, ...figures });
    if (figures.queue === watchedQueue) watched.value += 1;
    draw();
  });
  mine.addEventListener("job", (event) => listener?.(JSON.parse(event.data)));
  mine.addEventListener("left_out", (event) => listener?.(JSON.parse(event.data)));
  reading = setTimeout(() => readSeen(reads, Date.now()), SEEN_EVERY_MS);
}

function draw() {
  drawing ??= setTimeout(() => {
    drawing = undefined;
    changed.value += 1;
  }, DRAW_MS);
}

/** @param {any} page */
function take(page) {
  for (const name of page.queues) queues.set(name, { queue: name, ...page.by_queue[name] });
  const { by_queue: _, queues: __, cursor: ___, ...about } = page;
  server.value = about;
}

/** Shows the first queues at once, and reads the rest behind. */
async function firstLook() {
  const page = await get("stats/", { limit: FIRST });
  batch(() => {
    if (!page.cursor) queues.clear();
    take(page);
    complete.value = !page.cursor;
    changed.value += 1;
  });
  if (page.cursor) readAll(reads, page.cursor, new Set(page.queues));
}

/** @param {number} mine @param {string|undefined} cursor @param {Set<string>} found */
async function readAll(mine, cursor, found) {
  try {
    do {
      const page = await get("stats/", { limit: PAGE, cursor });
      if (mine !== reads) return;
      take(page);
      for (const name of page.queues) found.add(name);
      cursor = page.cursor;
      draw();
    } while (cursor);
    const gone = [...queues.keys()].filter((name) => !found.has(name));
    for (const name of gone) queues.delete(name);
    complete.value = true;
    draw();
  } catch (error) {
    if (mine === reads) lost(error);
  }
}

/** Asks again for the queues in sight, and now and then for all. @param {number} mine @param {number} last */
async function readSeen(mine, last) {
  const due = ALL_EVERY_MS * Math.max(1, queues.size / 2000);
  if (Date.now() - last > due) {
    last = Date.now();
    await readAll(mine, undefined, new Set());
  } else {
    try {
      const names = seen().slice(0, NAMES_MOST);
      if (names.length) {
        const page = await get("stats/", { queues: names.join(","), limit: NAMES_MOST });
        if (mine !== reads) return;
        for (const name of page.queues) queues.set(name, { queue: name, ...page.by_queue[name] });
        draw();
      }
    } catch (error) {
      if (error instanceof Away) {
        if (mine === reads) lost(error);
        return;
      }
    }
  }
  if (mine === reads && source) reading = setTimeout(() => readSeen(mine, last), SEEN_EVERY_MS);
}

document.addEventListener("visibilitychange", () => {
  const { state } = connection.peek();
  if (document.hidden) {
    close();
    clearTimeout(again);
  } else if (state !== "login" && state !== "forbidden" && state !== "paused") {
    start();
  }
});
setInterval(() => {
  if (!document.hidden && !paused.peek()) second.value += 1;
}, 1000);

/** Forgets what is known of a queue. @param {string} name */
export function forget(name) {
  queues.delete(name);
  draw();
}
