// What failed, over all queues, one line a kind of error.

import { get } from "../api.js";
import { count, counted, line } from "../format.js";
import { changed, queues as known } from "../live.js";
import { useLoaded, useTurn } from "../load.js";
import { Act, Empty, Loading, Refusal, When } from "../parts/basics.js";
import { Icon } from "../parts/icons.js";
import { begin, Tasks, toSearch } from "../parts/tasks.js";
import { link, place, say } from "../router.js";
import { html, useEffect, useRef, useState } from "../ui.js";

/** @typedef {{like: string, error: string, count: number, first_at: string, last_at: string, queues: Record<string, number>, more_queues: number, sample: {queue: string, id: string}}} Failure */

const PAGES = 4; // that are asked for at once; further ones when the viewer asks
const AGAIN_MS = 20000;
const MOVED_MS = 2500; // after the number of dead jobs has changed

/** Reads pages, and adds kinds that come again to those before. @param {Record<string, unknown>} fields @param {number} pages @param {AbortSignal} signal */
export async function readFailures(fields, pages, signal) {
  const found = /** @type {Map<string, Failure>} */ (new Map());
  let looked = 0;
  let cursor = null;
  for (let page = 0; page < pages; page += 1) {
    const answer = /** @type {any} */ (await get("failures", { ...fields, cursor }, signal));
    for (const one of /** @type {Failure[]} */ (answer.failures)) {
      const old = found.get(one.like);
      found.set(one.like, old ? added(old, one) : one);
    }
    looked += answer.looked.jobs;
    cursor = answer.cursor;
    if (!cursor) break;
  }
  return { failures: [...found.values()].sort((a, b) => b.count - a.count), looked, more: cursor !== null };
}

/** @param {Failure} a @param {Failure} b @returns {Failure} */
function added(a, b) {
  const last = a.last_at > b.last_at ? a : b;
  const queues = { ...a.queues };
  for (const [name, many] of Object.entries(b.queues)) queues[name] = (queues[name] ?? 0) + many;
  return {
    ...last, count: a.count + b.count, queues, more_queues: Math.max(a.more_queues, b.more_queues),
    first_at: a.first_at < b.first_at ? a.first_at : b.first_at,
  };
}

export function Failures() {
  const { said } = place.value;
  const queues = said.get("queues") ?? "";
  const state = said.get("state") === "scheduled" ? "scheduled" : "dead";
  const [pages, setPages] = useState(PAGES);
  const [pointed, setPointed] = useState(false);
  const order = useRef(/** @type {string[]} */ ([]));
  changed.value;
  const turn = useTurn([...known.values()].reduce((sum, queue) => sum + queue.dead, 0), MOVED_MS);
  const found = useLoaded((signal) => readFailures({ queues, state }, pages, signal), [queues, state, pages, turn], AGAIN_MS);
  useEffect(() => setPages(PAGES), [queues, state]);
  const value = found.value;
  // The figures move under the viewer's hand, the lines do not.
  if (!pointed && value) order.current = value.failures.map((one) => one.like);
  const rank = (/** @type {Failure} */ one) => (order.current.includes(one.like) ? order.current.indexOf(one.like) : 1e6);
  const lines = [...(value?.failures ?? [])].sort((a, b) => rank(a) - rank(b));
  const filter = { queues: queues || "*", state };
  const all = /** @type {Failure[]} */ (value?.failures ?? []).reduce((sum, one) => sum + one.count, 0);
  return html`<div class="stack">
    <${Tasks} />
    <section class="card flush" aria-labelledby="failures-title">
      <header>
        <h1 id="failures-title" class="grow">Failures${value ? html` <span class="soft number">${count(all)}${value.more ? " or more" : ""}</span>` : ""}</h1>
        <div class="segments" role="group" aria-label="Which failures">
          <button type="button" class="button small" aria-pressed=${state === "dead"} onClick=${() => say({ state: null })}>Dead</button>
          <button type="button" class="button small" aria-pressed=${state === "scheduled"} onClick=${() => say({ state: "scheduled" })}>Retried later</button>
        </div>
        <label class="unseen" for="of">Only these queues</label>
        <input id="of" type="search" data-hot="/" placeholder="Filter queues" title="Names and patterns, such as mail,video*" value=${queues} autocomplete="off" spellcheck=${false}
          onChange=${(/** @type {Event} */ event) => say({ queues: /** @type {HTMLInputElement} */ (event.target).value.trim() || null })} />
        ${state === "dead" && all > 0 && html`<${Act} scope="control" queue=${queues || "*"} some icon="retry" onClick=${() => begin("retry", filter)}>Retry all…</${Act}>`}
      </header>
      ${!value && (found.error ? html`<${Refusal} error=${found.error} status=${found.status} again=${found.again} />` : html`<${Loading} />`)}
      ${value && !value.failures.length && html`<${Empty} title=${state === "dead" ? "No job is dead" : "No job that failed waits"}>
        <p>${state === "dead" ? "Jobs that failed as often as they may stand here, grouped by their error." : "Jobs that failed and are retried later stand here."}</p></${Empty}>`}
      ${lines.length > 0 && html`<ul class="failures" onPointerEnter=${(/** @type {PointerEvent} */ event) => event.pointerType === "mouse" && setPointed(true)} onPointerLeave=${() => setPointed(false)}>
        ${lines.map((one) => html`<${FailureLine} key=${one.like} failure=${one} filter=${filter} />`)}</ul>`}
      ${value?.more && html`<div class="pager"><span>The first ${count(value.looked)} jobs were looked at.</span><button type="button" class="button small" onClick=${() => setPages(pages + PAGES)}>Look further</button></div>`}
    </section>
  </div>`;
}

/** @param {{failure: Failure, filter: Record<string, string>}} props */
function FailureLine({ failure, filter }) {
  const names = Object.entries(failure.queues).sort((a, b) => b[1] - a[1]);
  const mine = { ...filter, like: failure.like };
  const one = names.length === 1 && !failure.more_queues ? names[0]?.[0] ?? "*" : filter.queues ?? "*";
  return html`<li class="failure">
    <strong class="many number">${count(failure.count)}<span class="unseen"> jobs</span></strong>
    <div class="what">
      <p><a href=${toSearch({ ...mine, queues: filter.queues ?? "*" })} data-line class="bad-text">${line(failure.error) || "no reason given"}</a></p>
      <p class="soft small">last <${When} at=${failure.last_at} ago />, first <${When} at=${failure.first_at} ago />, in
        ${names.slice(0, 4).map(([name, many]) => html` <a href=${link(["queues", name], { state: filter.state })}>${name}</a>${names.length > 1 ? ` ${count(many)}` : ""}`)}
        ${names.length + failure.more_queues > 4 && ` and ${counted(names.length - Math.min(4, names.length) + failure.more_queues, "further queue")}`},
        such as <a href=${link(["jobs", failure.sample.queue, failure.sample.id])}>${failure.sample.queue}/${failure.sample.id}</a></p>
    </div>
    <div class="row acts">
      ${filter.state === "dead" && html`<${Act} scope="control" queue=${one} some icon="retry" hot="r" onClick=${() => begin("retry", mine)}>Retry…</${Act}>`}
      <${Act} scope="control" queue=${one} some icon="remove" class="bad" label=${`Delete all “${failure.like}”`} onClick=${() => begin("delete", mine)}><span class="wide-only">Delete…</span></${Act}>
      <a class="button wide-only" href=${toSearch(mine)}><${Icon} name="open" />Show</a>
    </div>
  </li>`;
}
