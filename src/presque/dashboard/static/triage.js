// What is wrong, worst first: in words, each with where to look.

import { at, get } from "./api.js";
import { brief, count, counted, duration, line, since, size } from "./format.js";
import { changed, complete, connection, queues, server } from "./live.js";
import { link } from "./router.js";
import { WAITS_LONG_S } from "./trouble.js";
import { computed, effect, signal } from "./ui.js";
import { readFailures } from "./views/failures.js";

/** @typedef {{bad: boolean, icon: string, text: string, to: string}} Issue */

const LOOK_MS = 10000;
const RECENT_S = 600;
const SELDOM = 6; // of so many looks one asks for what seldom changes and may be large
const QUEUES_MOST = 4; // a kind of trouble names so many queues, and counts the others

/** What had to be asked for: why queues do not move, and what the workers do. */
const reasons = signal(/** @type {Map<string, string>} */ (new Map()));
export const workers = signal(/** @type {any[]|null} */ (null));
export const crons = signal(/** @type {any[]|null} */ (null));
const failures = signal(/** @type {import("./views/failures.js").Failure[]} */ ([]));
/** How many jobs are dead. */
export const deadJobs = computed(() => {
  changed.value;
  let sum = 0;
  for (const queue of queues.values()) sum += queue.dead;
  return sum;
});

/** @param {string} queue */
const familyOf = (queue) => /^[^-_.:@~+]+[-_.:@~+]/.exec(queue)?.[0] ?? queue;

/** Common beginnings of four names or more, and how many each. @param {import("./live.js").Queue[]} those */
function familiesOf(those) {
  const found = /** @type {Map<string, number>} */ (new Map());
  for (const { queue } of those) found.set(familyOf(queue), (found.get(familyOf(queue)) ?? 0) + 1);
  return new Map([...found].filter(([, many]) => many > 3));
}

/** @param {(queue: import("./live.js").Queue) => number} weight */
function worst(weight) {
  const found = /** @type {[number, import("./live.js").Queue][]} */ ([]);
  for (const queue of queues.values()) {
    const heavy = weight(queue);
    if (heavy > 0) found.push([heavy, queue]);
  }
  return found.sort((a, b) => b[0] - a[0]).map(([, queue]) => queue);
}

/** @param {import("./live.js").Queue} queue */
const waitsLong = (queue) => (queue.status && queue.ready && (queue.oldest_seconds ?? 0) > WAITS_LONG_S ? queue.oldest_seconds ?? 0 : 0);

export const issues = computed(() => {
  changed.value;
  const found = /** @type {Issue[]} */ ([]);
  /** @param {import("./live.js").Queue[]} those @param {(queue: import("./live.js").Queue) => Issue} one @param {(rest: number) => Issue} others */
  const tell = (those, one, others) => {
    const families = familiesOf(those);
    const alone = those.filter(({ queue }) => !families.has(familyOf(queue)));
    const named = alone.length > QUEUES_MOST + 1 ? alone.slice(0, QUEUES_MOST) : alone;
    found.push(...named.map(one));
    for (const [name, many] of families) {
      const issue = one(/** @type {import("./live.js").Queue} */ (those.find(({ queue }) => familyOf(queue) === name)));
      found.push({ ...issue, text: issue.text.replace(/^[^ ]+:/, `${name}… (${counted(many, "queue")}):`), to: link([], { q: name }) });
    }
    if (named.length < alone.length) found.push(others(alone.length - named.length));
  };
  const disk = server.value?.disk;
  if (disk?.full) found.push({ bad: true, icon: "disk", text: `disk full: ${size(disk.free)} left, pushes are refused`, to: "#/server" });
  else if (disk && disk.free !== null && disk.free < 3 * disk.min_free) {
    found.push({ bad: false, icon: "disk", text: `disk: ${size(disk.free)} free, pushes are refused below ${size(disk.min_free)}`, to: "#/server" });
  }
  tell(worst((queue) => queue.dead && (lastOf(queue.queue)?.at ?? 1)), ({ queue, dead }) => {
    const last = lastOf(queue);
    const recent = last && since(new Date(last.at)) < RECENT_S;
    const text = `${queue}: ${count(dead)} dead${last ? `, ${recent ? `the last ${brief(Math.max(1, since(new Date(last.at))))} ago ` : ""}(“${line(last.error, 50)}”)` : ""}`;
    return { bad: !last || !!recent, icon: "warn", text, to: link(["queues", queue], { state: "dead" }) };
  }, (rest) => ({ bad: true, icon: "warn", text: `dead jobs in ${counted(rest, "further queue")}`, to: "#/failures" }));
  tell(worst(waitsLong), ({ queue, oldest_seconds }) => {
    const why = reasons.value.get(queue);
    return { bad: false, icon: "warn", text: `${queue}: the oldest waits ${brief(oldest_seconds)}${why ? `, ${why}` : ""}`, to: link(["queues", queue], { state: "ready" }) };
  }, (rest) => ({ bad: false, icon: "warn", text: `jobs wait long in ${counted(rest, "further queue")}`, to: link([], { sort: "oldest" }) }));
  tell(worst((queue) => (queue.status ? 0 : queue.ready + queue.scheduled)), (queue) => ({
    bad: false, icon: "stop", text: `${queue.queue}: stopped, ${counted(queue.ready + queue.scheduled, "job")} wait${queue.ready + queue.scheduled === 1 ? "s" : ""}`, to: link(["queues", queue.queue]),
  }), (rest) => ({ bad: false, icon: "stop", text: `${counted(rest, "further queue")} stopped`, to: "#/" }));
  for (const worker of (workers.value ?? []).filter(holdsAndIsSilent).slice(0, QUEUES_MOST)) {
    const [job] = worker.report.jobs;
    found.push({ bad: true, icon: "silent", text: `worker ${worker.worker_id} silent for ${duration(worker.silent_seconds)}, holds ${job.queue}/${job.id}`, to: "#/workers" });
  }
  for (const cron of (crons.value ?? []).filter((one) => one.broken)) {
    found.push({ bad: true, icon: "cron", text: `recurring job ${cron.name}: ${cron.broken}`, to: "#/recurring" });
  }
  return found;
});

/** A worker that reports and has said nothing for longer is silent, as for `presque workers` and explain. */
export const SILENT_S = 20;

/** @param {any} worker */
const holdsAndIsSilent = (worker) => worker.silent_seconds > SILENT_S && worker.report?.jobs?.length > 0;

/** The last error that killed a job of a queue. @param {string} queue */
function lastOf(queue) {
  let last = /** @type {{at: number, error: string}|null} */ (null);
  for (const one of failures.value) {
    const at = Date.parse(one.last_at);
    if (queue in one.queues && (!last || at > last.at)) last = { at, error: one.error };
  }
  return last;
}

/** Why the next job of a queue does not run, in a few words. @param {string} queue */
async function reasonOf(queue) {
  const { jobs: [next] } = await get(at`j/${queue}`, { state: "ready", limit: 1 });
  if (!next) return "";
  const { reasons: [first] } = await get(at`j/${queue}/${next.id}/explain`);
  const short = /** @type {Record<string, string>} */ ({ "no-worker": "no worker", busy: "workers are busy", "max-leased": "the limit of leases is reached", rate: "the rate is reached" });
  return first ? short[first.code] ?? "" : "";
}

let looks = 0;
let looking = false;
let wanted = false; // another look while one was under way
/** @type {ReturnType<typeof setTimeout>|undefined} */
let next;
let lastDead = 0;

async function look() {
  if (looking) {
    wanted = true;
    return;
  }
  looking = true;
  if (!document.hidden && connection.peek().state === "live") {
    const found = /** @type {Map<string, string>} */ (new Map());
    const waiting = worst(waitsLong);
    const families = familiesOf(waiting);
    const told = new Set();
    const shown = waiting.filter(({ queue }) => !families.has(familyOf(queue)) || (!told.has(familyOf(queue)) && told.add(familyOf(queue))));
    const dead = deadJobs.peek();
    const seldom = looks % SELDOM === 0;
    // Each for itself: what somebody may not look at, or what does not come, takes nothing from the others.
    await Promise.allSettled([
      ...shown.slice(0, 2 * QUEUES_MOST).map(async ({ queue }) => found.set(queue, await reasonOf(queue))),
      (async () => {
        if (dead !== lastDead || seldom) failures.value = dead ? (await readFailures({}, 1, AbortSignal.timeout(LOOK_MS))).failures : [];
        lastDead = dead;
      })(),
      (async () => {
        workers.value = (await get("w/", { with_desc: 1 })).workers;
      })(),
      (async () => {
        if (seldom) crons.value = (await get("cron/", { limit: 500 })).crons;
      })(),
    ]);
    reasons.value = found;
    looks += 1;
  }
  looking = false;
  next = setTimeout(look, wanted ? 0 : LOOK_MS);
  wanted = false;
}

/** Looks as soon as the page is live and when all queues are known, and then again and again. */
export function startLooking() {
  effect(() => {
    complete.value;
    if (connection.value.state !== "live") return;
    clearTimeout(next);
    next = setTimeout(look);
  });
}
