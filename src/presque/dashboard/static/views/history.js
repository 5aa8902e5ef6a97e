// What happened over time, to one queue or to all together, as the server keeps it.

import { get } from "../api.js";
import { count, counted, duration } from "../format.js";
import { useLoaded } from "../load.js";
import { Chart } from "../parts/chart.js";
import { Loading } from "../parts/basics.js";
import { place, say } from "../router.js";
import { html, useMemo } from "../ui.js";

/** @typedef {{p50: number, p95: number, mean: number}|null} Times */
/** @typedef {{at: string, pushed: number, fetched: number, done: number, failed: number, dead: number, expired: number,
 *   depth: {ready: number, leased: number, scheduled: number, dead: number}, wait: Times, run: Times}} Bucket */
/** @typedef {{over: string, seconds: number, until: string, buckets: Bucket[], total: Bucket}} History */

const OVER = [["5m", "5 minutes", 5000], ["1h", "hour", 15000], ["1d", "day", 60000], ["7d", "week", 60000]];

/** @param {{queue?: string}} props */
export function HistoryCharts({ queue }) {
  const said = place.value.said.get("over") ?? "1h";
  const [over = "1h", , every = 15000] = OVER.find(([name]) => name === said) ?? OVER[1] ?? [];
  const found = useLoaded((signal) => get("history", { queue, over }, signal), [queue, over], Number(every));
  const history = /** @type {History|null} */ (found.value);
  const lines = useMemo(() => history && linesOf(history), [history]);
  if (found.error && !history) return null;
  return html`<section class=${queue ? "inside" : "card"} aria-label="Over time">
    <header class="row"><h2 class="grow">Over time</h2><div class="segments" role="group" aria-label="Period">
      ${OVER.map(([name, label]) => html`<button key=${name} type="button" class="button small" aria-pressed=${name === over} onClick=${() => say({ over: name === "1h" ? null : String(name) })}>${label}</button>`)}
    </div></header>
    ${!lines || !history ? html`<${Loading} lines=${3} />` : html`
      <p class="soft small">${counted(history.total.pushed, "job")} in, ${count(history.total.done + history.total.fetched)} done, ${count(history.total.failed)} failed, ${count(history.total.dead)} died${
        history.total.wait ? `; waited ${duration(history.total.wait.p50)} (p95 ${duration(history.total.wait.p95)})` : ""}${history.total.run ? `, ran ${duration(history.total.run.p50)} (p95 ${duration(history.total.run.p95)})` : ""}.</p>
      <div class="charts">
        <${Chart} title="Jobs" each="a minute" kind="rate" at=${lines.at} lines=${lines.jobs} />
        <${Chart} title="Depth" each="jobs at the time" kind="count" at=${lines.at} lines=${lines.depth} />
        <${Chart} title="Wait" each="until a worker has the job" kind="seconds" at=${lines.at} lines=${lines.wait} />
        <${Chart} title="Run" each="until the job is done or failed" kind="seconds" at=${lines.at} lines=${lines.run} />
      </div>`}
  </section>`;
}

/** @param {History} history */
function linesOf(history) {
  const { buckets, seconds } = history;
  const end = Date.parse(history.until) / 1000;
  const at = buckets.map((one) => Date.parse(one.at) / 1000);
  /** @param {(one: Bucket) => number} value */
  const aMinute = (value) => buckets.map((one, index) => (60 * value(one)) / Math.max(1, Math.min(seconds, end - (at[index] ?? 0))));
  /** @param {(one: Bucket) => number|null|undefined} value */
  const plain = (value) => buckets.map((one) => value(one) ?? null);
  return {
    at,
    jobs: [
      { name: "in", ink: "--soft", values: aMinute((one) => one.pushed), dash: [4, 3] },
      { name: "done", ink: "--accent", values: aMinute((one) => one.done + one.fetched) },
      { name: "failed", ink: "--bad", values: aMinute((one) => one.failed), dash: [2, 2] },
    ],
    depth: [
      { name: "ready", ink: "--accent", values: plain((one) => one.depth?.ready) },
      { name: "leased", ink: "--soft", values: plain((one) => one.depth?.leased), dash: [4, 3] },
      { name: "dead", ink: "--bad", values: plain((one) => one.depth?.dead), dash: [2, 2] },
    ],
    wait: [
      { name: "p50", ink: "--accent", values: plain((one) => one.wait?.p50) },
      { name: "p95", ink: "--warn", values: plain((one) => one.wait?.p95), dash: [4, 3] },
    ],
    run: [
      { name: "p50", ink: "--accent", values: plain((one) => one.run?.p50) },
      { name: "p95", ink: "--warn", values: plain((one) => one.run?.p95), dash: [4, 3] },
    ],
  };
}
