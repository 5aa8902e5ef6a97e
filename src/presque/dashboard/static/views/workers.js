// Workers: where they run, what they do and for how long, and those that fell silent.

import { ask, get, post } from "../api.js";
import { count, counted, duration, line, size } from "../format.js";
import { useLoaded } from "../load.js";
import { Act, Empty, Loading, Menu, Refusal, When } from "../parts/basics.js";
import { Icon } from "../parts/icons.js";
import { attempt } from "../parts/notes.js";
import { link, place, say } from "../router.js";
import { SILENT_S } from "../triage.js";
import { html } from "../ui.js";

/** @typedef {import("../acts.js").Job} Job */
/** @typedef {{worker_id: string, queues: string[], started_at: string, seen_at: string, silent_seconds: number, processed: number, failed: number, status: string, report: any}} Worker */

const AGAIN_MS = 4000;
const SHOWN_MOST = 300;
const HELD_SHOWN = 6; // jobs of one worker
const LONG_S = 1; // what is done sooner is over when it is looked for
const ASKED_MOST = 200;
const AT_ONCE = 20;

/** @param {Worker[]} workers @param {string} filter */
function matching(workers, filter) {
  return workers.filter((one) => !filter || `${one.worker_id} ${one.queues.join(" ")} ${one.report?.host ?? ""}`.toLowerCase().includes(filter))
    .sort((a, b) => (a.worker_id < b.worker_id ? -1 : 1));
}

/** @param {Worker} worker @returns {{queue: string, id: string, seconds: number|null}[]} what it holds, as far as it is shown */
function heldBy({ report, silent_seconds }) {
  const jobs = Array.isArray(report?.jobs) ? report.jobs.filter((/** @type {any} */ one) => typeof one?.queue === "string" && typeof one.id === "string") : [];
  return jobs.slice(0, HELD_SHOWN).map((/** @type {any} */ one) => ({ queue: one.queue, id: one.id, seconds: typeof one.seconds === "number" ? one.seconds + silent_seconds : null }));
}

/** The workers, and what is known of the jobs that they hold for a while. @param {string} filter @param {AbortSignal} signal */
async function read(filter, signal) {
  const { workers } = await get("w/", { with_desc: 1 }, signal);
  const held = matching(workers, filter).slice(0, SHOWN_MOST).flatMap(heldBy).filter((one) => (one.seconds ?? LONG_S) >= LONG_S).slice(0, ASKED_MOST);
  const jobs = /** @type {Map<string, Job|null>} */ (new Map());
  for (let first = 0; first < held.length; first += AT_ONCE) {
    const some = held.slice(first, first + AT_ONCE);
    // As commands: one that has ended meanwhile is an answer like the others.
    const answers = await ask("POST", "queue", { body: some.map(({ queue, id }) => ({ cmd: "job", queue, id })), signal });
    some.forEach(({ queue, id }, index) => jobs.set(`${queue}/${id}`, answers[index]?.id ? answers[index] : null));
  }
  return { workers, jobs };
}

export function Workers() {
  const { said } = place.value;
  const filter = (said.get("q") ?? "").toLowerCase();
  const found = useLoaded((signal) => read(filter, signal), [], AGAIN_MS);
  if (!found.value) return found.error ? html`<${Refusal} page error=${found.error} status=${found.status} again=${found.again} />` : html`<${Loading} />`;
  const all = /** @type {Worker[]} */ (found.value.workers);
  const workers = matching(all, filter);
  const heard = workers.filter((one) => one.silent_seconds <= SILENT_S);
  const silent = workers.filter((one) => one.silent_seconds > SILENT_S);
  if (!all.length) {
    return html`<div class="card"><${Empty} page title="No worker has been heard from" icon="worker">
      <p>Start one: a program for each job, in any language, or a class in Python.</p>
      <pre><code>presque work hello --exec './do-it'</code></pre></${Empty}></div>`;
  }
  return html`<div class="stack">
    <div class="head"><h1>Workers <span class="soft number">${count(all.length)}</span></h1>
      <label class="unseen" for="filter">Filter workers</label>
      <input id="filter" type="search" data-hot="/" placeholder="Name, queue or host" value=${said.get("q") ?? ""} autocomplete="off" spellcheck=${false}
        onInput=${(/** @type {InputEvent} */ event) => say({ q: /** @type {HTMLInputElement} */ (event.target).value || null })} /></div>
    ${heard.length > 0 && html`<${List} title="At work" workers=${heard} jobs=${found.value.jobs} />`}
    ${silent.length > 0 && html`<${List} title=${`Silent for more than ${SILENT_S} s`} workers=${silent} jobs=${found.value.jobs} />`}
    ${!workers.length && html`<div class="card"><${Empty} title="No worker matches" icon="search"></${Empty}></div>`}
  </div>`;
}

/** @param {{title: string, workers: Worker[], jobs: Map<string, Job|null>}} props */
function List({ title, workers, jobs }) {
  return html`<section class="card flush"><header><h2>${title} <span class="soft number">${count(workers.length)}</span></h2></header>
    <ul class="lines">${workers.slice(0, SHOWN_MOST).map((one) => html`<${WorkerLine} key=${one.worker_id} worker=${one} known=${jobs} />`)}</ul>
    ${workers.length > SHOWN_MOST && html`<p class="pager">The first ${SHOWN_MOST} are shown; filter for others.</p>`}
  </section>`;
}

/** @param {Worker} worker @param {"quiet"|"stop"|"start"} status */
const tell = (worker, status) => attempt(
  () => post("w/", { worker_id: worker.worker_id, status }),
  { quiet: "It finishes what it holds and takes no further job.", stop: "It finishes what it holds and ends.", start: "It takes jobs again." }[status],
  status === "quiet" ? () => post("w/", { worker_id: worker.worker_id, status: "start" }) : undefined,
);

/** @param {{worker: Worker, known: Map<string, Job|null>}} props */
function WorkerLine({ worker, known }) {
  const { report } = worker;
  const silent = worker.silent_seconds > SILENT_S;
  const jobs = heldBy(worker);
  const running = Number(report?.running) || (Array.isArray(report?.jobs) ? report.jobs.length : 0);
  const word = silent ? "silent" : report ? line(String(report.state ?? "working"), 40) : "fetches";
  const scope = worker.queues.find((name) => !/[*?!]/.test(name)) ?? "*";
  return html`<li class="worker">
    <div class="row">
      <span class="state ${silent ? "silent" : "started"}"><${Icon} name=${silent ? "silent" : "worker"} />${word}</span>
      <strong class="mono grow" data-line tabindex="-1">${worker.worker_id}</strong>
      ${worker.status && worker.status !== "start" && html`<span class="warn-text small">asked to ${worker.status === "quiet" ? "be quiet" : worker.status}</span>`}
      ${report && html`<${Menu} label=${`More for ${worker.worker_id}`}>
        <${Act} scope="control" queue=${scope} icon="pause" onClick=${() => tell(worker, "quiet")}>Quiet: take no further job</${Act}>
        <${Act} scope="control" queue=${scope} icon="start" onClick=${() => tell(worker, "start")}>Take jobs again</${Act}>
        <hr /><${Act} scope="control" queue=${scope} icon="stop" class="bad" onClick=${() => tell(worker, "stop")}>Finish, and end</${Act}>
      </${Menu}>`}
    </div>
    <p class="soft small">
      ${report?.host && html`<span>${String(report.host)}${report.pid ? `, process ${report.pid}` : ""}; </span>`}${report?.mode && html`<span>${String(report.mode)}${report.concurrency ? `, ${report.concurrency} at once` : ""}; </span>`}
      ${typeof report?.memory === "number" && html`<span>${size(report.memory)}; </span>`}${report?.version && html`<span>presque ${String(report.version)}; </span>`}
      heard of <${When} at=${worker.seen_at} ago />, first <${When} at=${worker.started_at} ago />; ${counted(worker.processed, "job")} done${worker.failed ? html`, <span class="bad-text">${count(worker.failed)} failed</span>` : ""}</p>
    <p class="small">on ${worker.queues.length ? worker.queues.slice(0, 12).map((name) => html`<a key=${name} href=${link(["queues", name])}>${name}</a> `) : "no queue by name"}${worker.queues.length > 12 && ` and ${count(worker.queues.length - 12)} more`}</p>
    ${jobs.length > 0 && html`<ul class="held">${jobs.map((one) => html`<${Held} key=${`${one.queue}/${one.id}`} held=${one} job=${known.get(`${one.queue}/${one.id}`)} silent=${silent} />`)}
      ${running > jobs.length && html`<li class="soft small">and ${count(running - jobs.length)} more</li>`}</ul>`}
    ${!jobs.length && !silent && report && html`<p class="soft small">idle</p>`}
  </li>`;
}

/**
 * A job that a worker holds: for how long, how far, and when its lease ends.
 * @param {{held: {queue: string, id: string, seconds: number|null}, job: Job|null|undefined, silent: boolean}} props `job`: null if it has ended
 */
function Held({ held: { queue, id, seconds }, job, silent }) {
  const left = job?.lease_until ? (Date.parse(job.lease_until) - Date.now()) / 1000 : null;
  const over = job === null ? "ended" : job && job.state !== "leased" ? job.state : "";
  return html`<li><a href=${link(["jobs", queue, id])}>${queue}/${id}</a> ${seconds !== null && !over && html`<span class="number">for ${duration(seconds)}</span>`}
    ${job?.progress && html`<code class="soft">${job.progress.slice(0, 60)}</code>`}
    ${left !== null && html`<span class=${`small number ${left < 5 || silent ? "warn-text" : "soft"}`}>lease ${left > 0 ? `ends in ${duration(left)}` : "has ended"}</span>`}
    ${over && html`<span class="soft small">${over} since its last report</span>`}</li>`;
}
