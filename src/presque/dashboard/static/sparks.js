// The last hour of the queues in sight, for the small lines beside their rates: asked for one after the other, and kept for a
// minute, so that a long list costs the server little.

import { get } from "./api.js";
import { connection } from "./live.js";
import { signal } from "./ui.js";

/** @typedef {{pushed: number[], done: number[], failed: number[]}} Sparks */

const KEPT_MS = 60000;
const EACH_MS = 150;
const MOST = 60;

const known = /** @type {Map<string, {at: number, sparks: Sparks|null}>} */ (new Map());
const wanted = /** @type {Set<string>} */ (new Set());
const turn = signal(0);
let asking = false;

/** The lines of a queue, as far as they are known; asks for them unless the screen is small. @param {string} queue @returns {Sparks|null} */
export function sparksOf(queue) {
  turn.value;
  const found = known.get(queue);
  if ((!found || Date.now() - found.at > KEPT_MS) && wanted.size < MOST && innerWidth > 900) {
    wanted.add(queue);
    if (!asking) next();
  }
  return found?.sparks ?? null;
}

async function next() {
  const [queue] = wanted;
  if (queue === undefined || document.hidden || connection.peek().state !== "live") {
    asking = false;
    wanted.clear();
    return;
  }
  asking = true;
  wanted.delete(queue);
  try {
    known.set(queue, { at: Date.now(), sparks: of(await get("history", { queue, over: "1h" })) });
  } catch {
    known.set(queue, { at: Date.now(), sparks: null });
  }
  if (known.size > 4 * MOST) known.delete(/** @type {string} */ (known.keys().next().value));
  turn.value += 1;
  setTimeout(next, EACH_MS);
}

/** Twenty points of three minutes each. @param {any} history @returns {Sparks} */
export function of(history) {
  const sums = { pushed: /** @type {number[]} */ ([]), done: /** @type {number[]} */ ([]), failed: /** @type {number[]} */ ([]) };
  const each = Math.max(1, Math.ceil(history.buckets.length / 20));
  for (let first = 0; first < history.buckets.length; first += each) {
    const part = history.buckets.slice(first, first + each);
    sums.pushed.push(sum(part, (one) => one.pushed));
    sums.done.push(sum(part, (one) => one.done + one.fetched));
    sums.failed.push(sum(part, (one) => one.failed));
  }
  return sums;
}

/** @param {any[]} buckets @param {(one: any) => number} value */
const sum = (buckets, value) => buckets.reduce((total, one) => total + value(one), 0);
