// One queue: why it does not move, its jobs by state, what one can do to it.

import { asCurl, edit, forgetQueue, lastError, move, purge, push, remove, retry, retryAll, runNow, several, start, stop } from "../acts.js";
import { at, get } from "../api.js";
import { brief, count, counted, duration, line } from "../format.js";
import { changed, queues, watch, watched } from "../live.js";
import { useLoaded, useTurn } from "../load.js";
import { Act, Copy, Empty, Loading, Menu, Refusal, Spark, State, When } from "../parts/basics.js";
import { askFor } from "../parts/dialog.js";
import { Icon } from "../parts/icons.js";
import { attempt } from "../parts/notes.js";
import { WayOut } from "../parts/wayout.js";
import { HistoryCharts } from "./history.js";
import { editPolicy } from "./policy.js";
import { link, place } from "../router.js";
import { of } from "../sparks.js";
import { emptyIn, WAITS_LONG_S } from "../trouble.js";
import { html, useEffect, useState } from "../ui.js";

/** @typedef {import("../acts.js").Job} Job */
/** @typedef {import("../live.js").Queue} Stats */

const STATES = ["ready", "leased", "scheduled", "dead", "done"];
const PAGE = 50;
const AGAIN_MS = 5000;

/** @param {{name: string}} props */
export function QueueView({ name }) {
  changed.value;
  const { said } = place.value;
  useEffect(() => {
    watch(name);
    return () => watch("");
  }, [name]);
  const stats = useLoaded((signal) => get(at`stats/${name}`, {}, signal), [name], AGAIN_MS);
  const known = /** @type {Stats|null} */ (stats.value ? { ...stats.value, ...queues.get(name), ...fresh(stats.value) } : queues.get(name) ?? null);
  if (!known) return stats.error ? html`<${Refusal} page error=${stats.error} status=${stats.status} again=${stats.again} />` : html`<${Loading} />`;
  const state = said.get("state") ?? (known.dead && !known.ready && !known.leased ? "dead" : "ready");
  return html`<div class="stack">
    <p class="crumbs"><a href="#/">Queues</a> <span aria-hidden="true">›</span></p>
    <div class="head">
      <h1>${name}</h1>
      <${State} state=${known.status ? "started" : "stopped"} />
      ${known.status
        ? html`<${Act} scope="control" queue=${name} icon="stop" onClick=${() => stop(name)}>Stop</${Act}>`
        : html`<${Act} scope="control" queue=${name} icon="start" onClick=${() => start(name)}>Start</${Act}>`}
      <${Act} scope="push" queue=${name} icon="plus" onClick=${() => push(name)}>Push a job…</${Act}>
      <${Act} scope="read" queue=${name} icon="edit" onClick=${() => editPolicy(name)}>Policy…</${Act}>
      <${Menu} label=${`More for ${name}`}>
        <a class="button" href=${link(["tail"], { queues: name })}><${Icon} name="live" />Watch its jobs live</a>
        <hr />
        <${Act} scope="control" queue=${name} icon="remove" class="bad" onClick=${() => purge(name)}>Purge…</${Act}>
        <${Act} scope="control" queue=${name} icon="close" class="bad" onClick=${() => forgetQueue(name)}>Forget…</${Act}>
      </${Menu}>
    </div>
    <${WhyNot} name=${name} stats=${known} />
    <${Rates} stats=${known} />
    <section class="card flush" aria-label=${`Jobs of ${name}`}>
      <header>
        <div class="segments" role="group" aria-label="State">
          ${STATES.map((one) => html`<a key=${one} class="button small" href=${link(["queues", name], { state: one })} aria-current=${one === state ? "true" : undefined}>
            ${one} <span class="number">${count(/** @type {any} */ (known)[one] ?? 0)}</span></a>`)}
          <a class="button small" href=${link(["queues", name], { state: "history" })} aria-current=${state === "history" ? "true" : undefined}><${Icon} name="live" />over time</a>
        </div>
        <span class="grow"></span>
        ${state === "dead" && known.dead > 0 && html`<${Act} scope="control" queue=${name} icon="retry" onClick=${() => retryAll(name, known.dead)}>Retry all…</${Act}>`}
      </header>
      ${state === "history" ? html`<${HistoryCharts} queue=${name} />` : html`<${Jobs} key=${`${name} ${state}`} name=${name} state=${state} cursor=${said.get("cursor") ?? ""} />`}
    </section>
  </div>`;
}

/** What only the last answer knows, not the events. @param {any} answer */
function fresh({ oldest_seconds, last_minute }) {
  return { oldest_seconds, last_minute };
}

/** Why the next job does not run, where one has waited for long. @param {{name: string, stats: Stats}} props */
function WhyNot({ name, stats }) {
  const waits = stats.ready > 0 && (stats.oldest_seconds ?? 0) > 2;
  const stopped = !stats.status;
  const found = useLoaded(async (signal) => {
    if (!waits || stopped) return null;
    const page = await get(at`j/${name}`, { state: "ready", limit: 1 }, signal);
    const [next] = page.jobs;
    return next ? get(at`j/${name}/${next.id}/explain`, {}, signal) : null;
  }, [name, waits, stopped], AGAIN_MS);
  if (stopped) {
    return html`<div class="headline warn"><${Icon} name="stop" /><div><p>This queue is stopped: it takes jobs and hands out none.</p>
      <${WayOut} queue=${name} code="stopped" /></div></div>`;
  }
  if (!waits || !found.value) return null;
  const [reason] = found.value.reasons;
  if (!reason || reason.code === "next") return null;
  const bad = (stats.oldest_seconds ?? 0) > WAITS_LONG_S;
  return html`<div class=${`headline ${bad ? "warn" : ""}`}><${Icon} name=${bad ? "warn" : "ready"} /><div>
    <p>The oldest job waits ${duration(stats.oldest_seconds)}: ${reason.text}.</p>
    <${WayOut} queue=${name} code=${reason.code} />
  </div></div>`;
}

/** @param {{stats: Stats}} props */
function Rates({ stats }) {
  const hour = useLoaded((signal) => get("history", { queue: stats.queue, over: "1h" }, signal), [stats.queue], 6 * AGAIN_MS).value;
  const lines = hour && of(hour);
  const { pushed, processed, failed } = stats.last_minute ?? { pushed: 0, processed: 0, failed: 0 };
  return html`<dl class="totals" aria-label="The last minute">
    <div><dt>In/min</dt><dd>${count(pushed)} ${lines && html`<${Spark} values=${lines.pushed} />`}</dd></div>
    <div><dt>Done/min</dt><dd>${count(processed)} ${lines && html`<${Spark} values=${lines.done} />`}</dd></div>
    <div><dt>Failed/min</dt><dd class=${failed ? "bad-text" : ""}>${count(failed)} ${lines && html`<${Spark} values=${lines.failed} />`}</dd></div>
    <div><dt><span title="in the last hour, 95 of 100 jobs waited for no longer">Wait p95</span></dt><dd>${brief(hour?.total.wait?.p95)}</dd></div>
    <div><dt>Oldest waits</dt><dd>${stats.oldest_seconds == null ? "–" : brief(stats.oldest_seconds)}</dd></div>
    <div><dt>Empty in</dt><dd>${stats.status ? emptyIn(stats) : "stopped"}</dd></div>
  </dl>`;
}

/** The jobs of a queue in one state, a page of them. @param {{name: string, state: string, cursor: string}} props */
function Jobs({ name, state, cursor }) {
  const [picked, setPicked] = useState(/** @type {Set<string>} */ (new Set()));
  const [pointed, setPointed] = useState(false);
  const turn = useTurn(watched.value, 2000, pointed || picked.size > 0);
  const page = useLoaded((signal) => get(at`j/${name}`, { state, limit: PAGE, cursor }, signal), [name, state, cursor, turn]);
  useEffect(() => setPicked(new Set()), [name, state, cursor]);

  if (page.error && !page.value) return html`<${Refusal} error=${page.error} status=${page.status} again=${page.again} />`;
  if (!page.value) return html`<${Loading} lines=${4} />`;
  const jobs = /** @type {Job[]} */ (page.value.jobs);
  const next = page.value.cursor;
  if (!jobs.length && !cursor && !next) return html`<${NoJobs} state=${state} />`;
  /** @param {string} id */
  const pick = (id) => {
    const set = new Set(picked);
    if (!set.delete(id)) set.add(id);
    setPicked(set);
  };
  /** @param {"retry"|"delete"} cmd */
  const doAll = (cmd) => askFor({
    title: cmd === "retry" ? `Retry ${counted(picked.size, "job")}` : `Delete ${counted(picked.size, "job")}`,
    body: html`<p>${cmd === "retry" ? "Their attempts count from 0 again." : "There is no way back."}</p>`,
    act: cmd === "retry" ? "Retry" : "Delete", bad: cmd === "delete",
    run: () => attempt(async () => {
      const answer = await several(name, [...picked], cmd);
      setPicked(new Set());
      return answer;
    }, (answer) => answer),
  });
  return html`<div>
    <table class="jobs folding" onPointerEnter=${(/** @type {PointerEvent} */ event) => event.pointerType === "mouse" && setPointed(true)} onPointerLeave=${() => setPointed(false)}>
      <thead><tr>
        <th scope="col"><input type="checkbox" aria-label="Select all on this page" checked=${jobs.length > 0 && picked.size === jobs.length}
          onChange=${() => setPicked(picked.size === jobs.length ? new Set() : new Set(jobs.map((job) => job.id)))} /></th>
        <th scope="col">Job</th><th scope="col">${state === "dead" ? "Error, and body" : "Body"}</th>
        <th scope="col" class="n">Attempt</th><th scope="col">${WHEN[state]}</th><th scope="col"><span class="unseen">Acts</span></th>
      </tr></thead>
      <tbody>${jobs.map((job) => html`<${JobLine} key=${job.id} job=${job} picked=${picked.has(job.id)} pick=${() => pick(job.id)} />`)}</tbody>
    </table>
    <div class="pager">
      <span class="number">${counted(jobs.length, "job")} on this page${cursor ? "" : ", from the first"}</span>
      ${pointed && html`<span>held while you point at it</span>`}
      <span class="grow"></span>
      ${cursor && html`<a class="button small" href=${link(["queues", name], { state })}>First page</a>`}
      ${next && html`<a class="button small" href=${link(["queues", name], { state, cursor: next })}>Next page</a>`}
    </div>
    ${picked.size > 0 && html`<div class="selected">
      <strong class="number">${counted(picked.size, "job")} selected</strong><span class="grow"></span>
      ${state === "dead" && html`<${Act} scope="control" queue=${name} icon="retry" class="main" onClick=${() => doAll("retry")}>Retry</${Act}>`}
      <${Act} scope="control" queue=${name} icon="remove" class="bad" onClick=${() => doAll("delete")}>Delete</${Act}>
      <button type="button" class="button ghost" onClick=${() => setPicked(new Set())}>Select none</button>
    </div>`}
  </div>`;
}

const WHEN = /** @type {Record<string, string>} */ ({ ready: "Pushed", leased: "Lease ends", scheduled: "Due", dead: "Died", done: "Done" });

/** @param {Job} job */
function moment(job) {
  const { state } = job;
  if (state === "leased") return job.lease_until;
  if (state === "scheduled") return job.run_at;
  return state === "dead" || state === "done" ? job.finished_at : job.pushed_at;
}

/** @param {{job: Job, picked: boolean, pick: () => void}} props */
function JobLine({ job, picked, pick }) {
  const error = lastError(job);
  return html`<tr>
    <td class="pick"><input type="checkbox" aria-label=${`Select job ${job.id}`} checked=${picked} onChange=${pick} /></td>
    <th scope="row"><span class="name"><a href=${link(["jobs", job.queue, job.id])} data-line>${job.id}</a></span></th>
    <td class="body-cell">${error && html`<span class=${job.state === "dead" ? "bad-text" : "warn-text"}>${line(error)}</span>`}
      <code class=${error ? "soft small" : ""}>${line(job.body, 200)}</code></td>
    <td class="n hide">${job.attempt}/${job.max_attempts}</td>
    <td class="hide"><${When} at=${moment(job)} ago /></td>
    <td class="n"><${Menu} label=${`More for job ${job.id}`}>
      <${JobActs} job=${job} />
    </${Menu}></td>
  </tr>`;
}

/** What can be done to a job in its state. @param {{job: Job}} props */
export function JobActs({ job }) {
  const { queue, state } = job;
  const waits = state === "ready" || state === "scheduled";
  return html`
    ${state === "dead" && html`<${Act} scope="control" queue=${queue} icon="retry" hot="r" onClick=${() => retry(job)}>Retry…</${Act}>`}
    ${state === "scheduled" && html`<${Act} scope="control" queue=${queue} icon="start" onClick=${() => runNow(job)}>Run now</${Act}>`}
    ${waits && html`<${Act} scope="control" queue=${queue} icon="edit" onClick=${() => edit(job)}>Edit body…</${Act}>`}
    ${state === "dead" && html`<${Act} scope="control" queue=${queue} icon="edit" onClick=${() => edit(job)}>Retry, edited…</${Act}>`}
    ${state !== "leased" && state !== "done" && html`<${Act} scope="control" queue=${queue} icon="open" onClick=${() => move(job)}>Move to another queue…</${Act}>`}
    <${Act} scope="push" queue=${queue} icon="plus" onClick=${() => push(queue, job)}>Push it again…</${Act}>
    <${Copy} text=${() => asCurl(job)} label="Copy as curl" what="The command" />
    <hr />
    <${Act} scope="control" queue=${queue} icon="remove" class="bad" onClick=${() => remove(job)}>Delete…</${Act}>`;
}

/** @param {{state: string}} props */
function NoJobs({ state }) {
  const words = /** @type {Record<string, [string, string]>} */ ({
    ready: ["Nothing waits", "Jobs that can be taken now stand here."],
    leased: ["No job is being done", "Jobs that a worker holds stand here."],
    scheduled: ["Nothing is scheduled", "Jobs with a delay, and those that failed and are retried later, stand here."],
    dead: ["Nothing is dead", "Jobs that failed as often as they may stand here, to be looked at and retried."],
    done: ["Nothing is kept", "Done jobs stand here as long as the policy's keep says; unless it is set, they are not kept."],
  });
  const [title, text] = words[state] ?? ["No job", ""];
  return html`<${Empty} title=${title} icon=${state}><p>${text}</p></${Empty}>`;
}
