// One job: why it is not running, what happened to it and when, its body as it came, its errors.

import { asCurl, edit, lastError, prioritise, readJob, retry, runNow } from "../acts.js";
import { at, get } from "../api.js";
import { count, duration, exact, line, moment, size, upper } from "../format.js";
import { pretty } from "../json.js";
import { second, watch, watched } from "../live.js";
import { useLoaded, useTurn } from "../load.js";
import { Act, Copy, Loading, Menu, Refusal, State, When } from "../parts/basics.js";
import { Icon } from "../parts/icons.js";
import { HELD, WayOut } from "../parts/wayout.js";
import { refusal } from "../rights.js";
import { link } from "../router.js";
import { html, useEffect, useMemo, useState } from "../ui.js";
import { JobActs } from "./queue.js";

/** @typedef {import("../acts.js").Job} Job */

const AGAIN_MS = 3000;
const SHOWN_MOST = 100000;

/** @param {{queue: string, id: string}} props */
export function JobView({ queue, id }) {
  useEffect(() => {
    watch(queue);
    return () => watch("");
  }, [queue]);
  const turn = useTurn(watched.value, 500);
  const found = useLoaded((signal) => readJob(queue, id, signal), [queue, id, turn], AGAIN_MS);
  const why = useLoaded((signal) => get(at`j/${queue}/${id}/explain`, {}, signal), [queue, id, turn], AGAIN_MS);
  const gone = found.status === 404 || found.status === 410;
  const job = gone && !found.value ? null : found.value;
  return html`<div class="stack">
    <p class="crumbs"><a href="#/">Queues</a> <span aria-hidden="true">›</span> <a href=${link(["queues", queue], { state: job?.state })}>${queue}</a> <span aria-hidden="true">›</span></p>
    ${gone && job && html`<div class="headline"><${Icon} name="done" /><p>This job is finished or deleted, and is not kept. This is what it was last.</p></div>`}
    ${!job && (found.error ? html`<${Refusal} page error=${found.error} status=${found.status} again=${found.again} />` : html`<${Loading} />`)}
    ${job && html`<${Shown} job=${job} gone=${gone} reasons=${why.value?.reasons ?? []} />`}
  </div>`;
}

/** @param {{job: Job, gone: boolean, reasons: {code: string, text: string}[]}} props */
function Shown({ job, gone, reasons }) {
  const no = refusal("control", job.queue);
  const waits = job.state === "ready" || job.state === "scheduled";
  return html`
    <div class="head">
      <h1>Job ${job.id}</h1>
      <${State} state=${job.state} />
      ${!gone && job.state === "dead" && html`<${Act} scope="control" queue=${job.queue} icon="retry" class="main" hot="r" onClick=${() => retry(job)}>Retry…</${Act}>`}
      ${!gone && job.state === "dead" && html`<${Act} scope="control" queue=${job.queue} icon="edit" onClick=${() => edit(job)}>Edit and retry…</${Act}>`}
      ${!gone && job.state === "scheduled" && html`<${Act} scope="control" queue=${job.queue} icon="start" class="main" onClick=${() => runNow(job)}>Run now</${Act}>`}
      ${!gone && waits && html`<${Act} scope="control" queue=${job.queue} icon="edit" onClick=${() => edit(job)}>Edit…</${Act}>`}
      <span class="row"><${Menu} label=${`What can be done to job ${job.id}`}><${JobActs} job=${job} /></${Menu}></span>
    </div>
    ${!gone && html`<${Headline} job=${job} reasons=${reasons} />`}
    ${job.progress && html`<${Progress} text=${job.progress} />`}
    <section class="card"><header><h2>What happened</h2></header><${Timeline} job=${job} /></section>
    <section class="card"><header><h2 class="grow">Body</h2><${Copy} text=${() => job.body} what="The body" /><${Copy} text=${() => asCurl(job)} label="Copy as curl" what="The command" /></header>
      <${Raw} text=${job.body} /></section>
    ${job.result && html`<section class="card"><header><h2 class="grow">Result</h2><${Copy} text=${() => job.result} what="The result" /></header><${Raw} text=${job.result} /></section>`}
    ${job.saved && html`<section class="card"><header><h2 class="grow">Saved for the next attempt</h2><${Copy} text=${() => job.saved} what="What was saved" /></header><${Raw} text=${job.saved} /></section>`}
    ${job.errors.length > 0 && html`<section class="card"><header><h2>Errors</h2></header><${Errors} job=${job} /></section>`}
    <section class="card"><dl class="facts">
      <div><dt>Queue</dt><dd><a href=${link(["queues", job.queue])}>${job.queue}</a></dd></div>
      <div><dt><label for="priority">Priority</label></dt><dd><select id="priority" value=${job.priority} disabled=${!waits || !!no} title=${no || (waits ? "" : "only a job that waits can be changed")}
        onChange=${(/** @type {Event} */ event) => prioritise(job, Number(/** @type {HTMLSelectElement} */ (event.target).value))}>
        ${[9, 8, 7, 6, 5, 4, 3, 2, 1].map((one) => html`<option value=${one} selected=${one === job.priority}>${one}${one === 9 ? ", first" : one === 1 ? ", last" : ""}</option>`)}
      </select></dd></div>
      <div><dt>Attempt</dt><dd>${count(job.attempt)} of ${count(job.max_attempts)}</dd></div>
      <${Fact} name="Worker" value=${job.worker} /><${Fact} name="Group" value=${job.group} /><${Fact} name="Unique key" value=${job.uniq} />
      <${Fact} name="Trace" value=${job.traceparent} /><${Fact} name="Why it is dead" value=${job.reason} />
      ${job.cron && html`<div><dt>Pushed by the recurring job</dt><dd><a href="#/recurring">${job.cron}</a></dd></div>`}
      ${job.expires_at && html`<div><dt>Dropped if not taken by</dt><dd><${When} at=${job.expires_at} /></dd></div>`}
      ${job.kept_until && html`<div><dt>Kept until</dt><dd><${When} at=${job.kept_until} /></dd></div>`}
      <div><dt>Size</dt><dd>${size(new Blob([job.body]).size)}</dd></div>
    </dl></section>`;
}

/** @param {{name: string, value: string|null|undefined}} props */
function Fact({ name, value }) {
  return value ? html`<div><dt>${name}</dt><dd class="mono">${value}</dd></div>` : null;
}

/** @param {{job: Job, reasons: {code: string, text: string}[]}} props */
function Headline({ job, reasons }) {
  const [first, ...more] = reasons;
  if (!first) return null;
  const bad = job.state === "dead";
  const held = HELD.has(first.code);
  const text = sentence(first.text);
  return html`<div class=${`headline ${bad ? "bad" : held ? "warn" : ""}`}>
    <${Icon} name=${bad ? "dead" : held ? "warn" : job.state} />
    <div>${bad && lastError(job) && html`<p><strong>${line(lastError(job), 300)}</strong></p>`}<p>${text}.</p><${WayOut} queue=${job.queue} code=${first.code} />
      ${more.map((one) => html`<p key=${one.code}>${sentence(one.text)}.</p><${WayOut} queue=${job.queue} code=${one.code} />`)}</div>
  </div>`;
}

/** A sentence of the server, with its moments as the viewer reads them. @param {string} text */
export function sentence(text) {
  const local = text.replace(/; POST \S+ retries it/, "").replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, (at) => moment(at));
  return upper(local);
}

/** @param {{text: string}} props */
function Progress({ text }) {
  let value = null;
  try {
    const found = JSON.parse(text);
    const part = typeof found === "number" ? found : found?.percent ?? found?.progress ?? (found?.total ? (100 * found.done) / found.total : null);
    if (typeof part === "number" && part >= 0 && part <= 100) value = part <= 1 && typeof found === "number" ? part * 100 : part;
  } catch {
    // Whatever a worker says is shown as text below.
  }
  return html`<section class="card"><header><h2 class="grow">Progress</h2>${value !== null && html`<span class="number">${Math.round(value)} %</span>`}</header>
    ${value !== null && html`<progress max="100" value=${value} aria-label="Progress"></progress>`}
    <p><code>${text.length > 400 ? `${text.slice(0, 400)}…` : text}</code></p></section>`;
}

/** @param {{job: Job}} props */
function Timeline({ job }) {
  second.value;
  const steps = /** @type {{at: string, what: string, icon: string, bad?: boolean}[]} */ ([{ at: job.pushed_at, what: "pushed", icon: "plus" }]);
  for (const one of job.errors) {
    steps.push({ at: one.at, what: `failed${one.worker ? `, held by ${one.worker}` : ""}: ${one.error ?? "no reason given"}`, icon: "fail", bad: true });
  }
  if (job.leased_at) steps.push({ at: job.leased_at, what: `leased${job.worker ? ` by ${job.worker}` : ""}`, icon: "leased" });
  if (job.finished_at) steps.push({ at: job.finished_at, what: job.state, icon: job.state, bad: job.state === "dead" });
  steps.sort((a, b) => (a.at < b.at ? -1 : 1));
  if (job.run_at && job.state === "scheduled") steps.push({ at: job.run_at, what: "due", icon: "scheduled" });
  if (job.lease_until) steps.push({ at: job.lease_until, what: "the lease ends, unless it is extended", icon: "scheduled" });
  return html`<ol class="timeline">${steps.map((step, index) => {
    const last = steps[index - 1];
    const ahead = new Date(step.at).getTime() > Date.now();
    const gap = ahead ? `in ${duration((new Date(step.at).getTime() - Date.now()) / 1000)}` : last ? `+ ${duration(Math.max(0, (new Date(step.at).getTime() - new Date(last.at).getTime()) / 1000))}` : "";
    return html`<li key=${index} class=${step.bad ? "bad" : ""}><${Icon} name=${step.icon} />
      <time datetime=${step.at} title=${exact(step.at)} class="number">${moment(step.at)}</time>
      <span class="gap">${gap}</span><span class="what">${step.what.length > 300 ? `${step.what.slice(0, 300)}…` : step.what}</span></li>`;
  })}</ol>`;
}

/** A text of JSON, as it came or with a line for each value. @param {{text: string}} props */
function Raw({ text }) {
  const [asIs, setAsIs] = useState(false);
  const [all, setAll] = useState(false);
  const shown = useMemo(() => (asIs ? text : pretty(text)), [text, asIs]);
  const cut = !all && shown.length > SHOWN_MOST;
  return html`<div class="stack">
    <pre class="body" tabindex="0" role="region" aria-label="The text">${cut ? shown.slice(0, SHOWN_MOST) : shown}</pre>
    <div class="row"><div class="segments" role="group" aria-label="How it is shown">
      <button type="button" class="button small" aria-pressed=${!asIs} onClick=${() => setAsIs(false)}>Pretty</button>
      <button type="button" class="button small" aria-pressed=${asIs} onClick=${() => setAsIs(true)}>As it came</button></div>
      ${cut && html`<button type="button" class="button small" onClick=${() => setAll(true)}>Show all ${size(shown.length)}</button>`}
    </div></div>`;
}

/** @param {{job: Job}} props */
function Errors({ job }) {
  const errors = [...job.errors].reverse();
  return html`<ol class="stack errors">${errors.map((one, index) => html`<li key=${one.at}>
    <p><strong class="bad-text">${one.error ?? "no reason given"}</strong></p>
    <p class="soft small"><${When} at=${one.at} /> ${one.worker && html`<span>held by <span class="mono">${one.worker}</span></span>`}</p>
    ${one.backtrace && html`<details open=${index === 0}><summary>Backtrace</summary><pre class="body" tabindex="0" role="region" aria-label="Backtrace">${one.backtrace}</pre></details>`}
  </li>`)}</ol>`;
}
