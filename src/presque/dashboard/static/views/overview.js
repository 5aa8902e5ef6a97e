// All queues together, with the last hour as small lines, and as charts when asked.

import { get } from "../api.js";
import { brief, count, rate } from "../format.js";
import { changed, complete, queues } from "../live.js";
import { useLoaded } from "../load.js";
import { Spark } from "../parts/basics.js";
import { Icon } from "../parts/icons.js";
import { place, say } from "../router.js";
import { of } from "../sparks.js";
import { html, useMemo } from "../ui.js";
import { HistoryCharts } from "./history.js";

const AGAIN_MS = 30000;

export function Overview() {
  const sum = useMemo(() => {
    const total = { ready: 0, leased: 0, scheduled: 0, dead: 0, pushed: 0, processed: 0, failed: 0 };
    for (const queue of queues.values()) {
      total.ready += queue.ready;
      total.leased += queue.leased;
      total.scheduled += queue.scheduled;
      total.dead += queue.dead;
      total.pushed += queue.last_minute?.pushed ?? 0;
      total.processed += queue.last_minute?.processed ?? 0;
      total.failed += queue.last_minute?.failed ?? 0;
    }
    return total;
  }, [changed.value, complete.value]);
  const hour = useLoaded((signal) => get("history", { over: "1h" }, signal), [], AGAIN_MS).value;
  const lines = useMemo(() => hour && of(hour), [hour]);
  const charts = place.value.said.has("charts");
  return html`<div class="stack">
    <dl class="totals" aria-label="All queues together">
      <div><dt>Waiting</dt><dd>${count(sum.ready)} ${sum.scheduled > 0 && html`<small>+ ${count(sum.scheduled)} later</small>`}</dd></div>
      <div><dt>Leased</dt><dd>${count(sum.leased)}</dd></div>
      <div><dt>In/min</dt><dd>${rate(sum.pushed)} ${lines && html`<${Spark} values=${lines.pushed} />`}</dd></div>
      <div><dt>Done/min</dt><dd>${rate(sum.processed)} ${lines && html`<${Spark} values=${lines.done} />`}</dd></div>
      <div><dt>Failed/min</dt><dd class=${sum.failed ? "bad-text" : ""}>${rate(sum.failed)} ${lines && html`<${Spark} values=${lines.failed} />`}</dd></div>
      <div><dt><span title="in the last hour, 95 of 100 jobs waited for no longer">Wait p95</span></dt><dd>${brief(hour?.total.wait?.p95)}</dd></div>
      <div class="over"><dt class="unseen">Charts</dt><dd><button type="button" class="plain" aria-expanded=${charts} onClick=${() => say({ charts: charts ? null : "1", over: null })}>
        <${Icon} name=${charts ? "fold" : "open"} /> over time</button></dd></div>
    </dl>
    ${charts && html`<${HistoryCharts} />`}
  </div>`;
}
