// What is wrong with a queue, as its own figures tell.

import { brief, count, duration } from "./format.js";

/** @typedef {import("./live.js").Queue} Queue */
/** @typedef {{level: 0|1|2|3, weight: number, icon: string}} Trouble */

export const WAITS_LONG_S = 60;
const WELL = /** @type {Trouble} */ ({ level: 0, weight: 0, icon: "" });
const BUSY = /** @type {Trouble} */ ({ level: 0, weight: 1, icon: "" });

/** How bad it is; asked for each of thousands of queues, so it makes no words. @param {Queue} queue @returns {Trouble} */
export function trouble(queue) {
  const oldest = Math.min(queue.oldest_seconds ?? 0, 1e11);
  const failing = queue.last_minute?.failed ?? 0;
  if (queue.dead) return { level: 3, weight: 3e12 + Math.min(queue.dead, 1e6) * 1e3 + failing, icon: "warn" };
  if (!queue.status && queue.ready + queue.scheduled) return { level: 2, weight: 2e12 + oldest, icon: "stop" };
  if (oldest > WAITS_LONG_S && queue.ready) return { level: 2, weight: 1e12 + oldest, icon: "warn" };
  if (!queue.status) return { level: 1, weight: 5e11, icon: "stop" };
  return busy(queue) ? BUSY : WELL;
}

/** The same in a few words; "" when all is well. @param {Queue} queue */
export function inWords(queue) {
  if (queue.dead) return `${count(queue.dead)} dead`;
  if (!queue.status) return queue.ready + queue.scheduled ? "stopped, jobs wait" : "stopped";
  return trouble(queue).level ? `the oldest waits ${duration(queue.oldest_seconds)}` : "";
}

/** Whether there is anything to see. No figure orders those that are well, or the lines would dance. @param {Queue} queue */
function busy(queue) {
  return queue.ready || queue.leased || queue.scheduled || queue.last_minute?.pushed || queue.last_minute?.processed ? 1 : 0;
}

/** When a queue would be empty if it went on as in the last minute. @param {Queue} queue */
export function emptyIn(queue) {
  const { pushed, processed } = queue.last_minute ?? { pushed: 0, processed: 0 };
  if (!queue.ready) return "–";
  if (!processed) return "never";
  if (processed <= pushed) return "grows";
  return brief((queue.ready / (processed - pushed)) * 60);
}
