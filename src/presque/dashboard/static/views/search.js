// Search: a queue or a job by its name at once; texts in bodies and errors by a bounded scan that says how far it looked.

import { ask, at, get, said } from "../api.js";
import { count, counted, line, upper } from "../format.js";
import { queues } from "../live.js";
import { useLoaded } from "../load.js";
import { Act, Empty, Loading, Refusal, State, When } from "../parts/basics.js";
import { Icon } from "../parts/icons.js";
import { note } from "../parts/notes.js";
import { begin, inWords, Tasks } from "../parts/tasks.js";
import { go, link, place } from "../router.js";
import { narrow } from "../prefs.js";
import { html, useEffect, useMemo, useState } from "../ui.js";

/** @typedef {import("../acts.js").Job} Job */

const FIELDS = ["queues", "state", "find", "text", "error", "like", "older", "newer", "group", "worker", "priority"];
const STATES = ["any", "ready", "leased", "scheduled", "dead", "done"];
const LIMIT = 100;
const EAGER = 5; // pages that are looked at without being asked, while nothing is found
const SHORT = /** @type {Record<string, string>} */ ({ queue: "queues", body: "text" });

/** What was typed, as a filter: `state:dead queue:mail* codec`. @param {string} text */
export function parsed(text) {
  const filter = /** @type {Record<string, string>} */ ({});
  const rest = text.replace(/(\w+):("[^"]*"|\S+)/g, (whole, name, value) => {
    const field = SHORT[name] ?? name;
    if (!FIELDS.includes(field)) return whole;
    filter[field] = value.replace(/^"|"$/g, "");
    return "";
  }).trim();
  if (rest) filter.find = rest;
  return filter;
}

export function Search() {
  const { said: asks } = place.value;
  const typed = asks.get("q") ?? "";
  const filter = useMemo(() => {
    const given = Object.fromEntries([...asks].filter(([name]) => FIELDS.includes(name)));
    return /** @type {Record<string, string>} */ ({ state: "any", ...parsed(typed), ...given });
  }, [asks]);
  const asked = JSON.stringify(filter);
  const named = typed.trim();
  return html`<div class="stack">
    <${Tasks} />
    <h1>Search</h1>
    <${Form} filter=${filter} key=${asked} />
    ${named && html`<${Named} text=${named} key=${named} />`}
    ${(Object.keys(filter).length > 1 || !named) && Object.keys(filter).length > 1 && html`<${Found} key=${asked} filter=${filter} />`}
    ${Object.keys(filter).length <= 1 && !named && html`<${Empty} title="Find a job" icon="search"><p>An id, <code>queue/id</code>, or a text that stands in a body or an error.
      In the field on top you can also write <code>state:dead queue:mail* codec</code>.</p></${Empty}>`}
  </div>`;
}

/** @param {{filter: Record<string, string>}} props */
function Form({ filter }) {
  /** @param {SubmitEvent} event */
  const submit = (event) => {
    event.preventDefault();
    const form = new FormData(/** @type {HTMLFormElement} */ (event.target));
    const next = Object.fromEntries([...form].map(([name, value]) => [name, String(value).trim()]));
    go(link(["search"], { ...(filter.like ? { like: filter.like } : {}), ...next }));
  };
  const open = !narrow.peek() || FIELDS.some((name) => name !== "find" && filter[name] && filter[name] !== "any");
  return html`<form class="card" onSubmit=${submit}><div class="fields">
    <label class="field"><span>In the body or an error</span><input name="find" data-hot="/" defaultValue=${filter.find ?? ""} autocomplete="off" spellcheck=${false} /></label>
    <div class="row end last"><button class="button main"><${Icon} name="search" />Search</button></div>
  </div>
  <details open=${open}><summary>Narrow it down</summary><div class="fields">
    <label class="field"><span>Queues</span><input name="queues" defaultValue=${filter.queues ?? ""} placeholder="all; mail,video*" autocomplete="off" spellcheck=${false} /></label>
    <label class="field"><span>State</span><select name="state">${STATES.map((one) => html`<option key=${one} selected=${one === filter.state}>${one}</option>`)}</select></label>
    <label class="field"><span>Newer than</span><input name="newer" defaultValue=${filter.newer ?? ""} placeholder="1h, 2d" autocomplete="off" /></label>
    <label class="field"><span>Older than</span><input name="older" defaultValue=${filter.older ?? ""} placeholder="30d" autocomplete="off" /></label>
    <label class="field"><span>Group</span><input name="group" defaultValue=${filter.group ?? ""} autocomplete="off" spellcheck=${false} /></label>
  </div></details></form>`;
}

/** Queues that are called so, and jobs whose id it is. @param {{text: string}} props */
function Named({ text }) {
  const [jobs, setJobs] = useState(/** @type {Job[]} */ ([]));
  const near = useMemo(() => [...queues.keys()].filter((name) => name.toLowerCase().includes(text.toLowerCase())).sort((a, b) => a.length - b.length).slice(0, 8), [text, queues.size]);
  useEffect(() => {
    const gone = new AbortController();
    const [queue, id] = text.includes("/") ? /** @type {[string, string]} */ (text.split("/", 2)) : ["", text];
    const places = queue ? [queue] : /^[0-9]+$/.test(id) ? [...queues.keys()].slice(0, 20) : [];
    if (!/^[\w-]{1,40}$/.test(id)) return undefined;
    if (queue) {
      get(at`j/${queue}/${id}`, {}, gone.signal).then((job) => setJobs([job]), () => setJobs([]));
    } else if (places.length) {
      ask("POST", "queue", { body: places.map((one) => ({ cmd: "job", queue: one, id })), signal: gone.signal })
        .then((answers) => setJobs(answers.filter((/** @type {any} */ one) => one.id)), () => setJobs([]));
    }
    return () => gone.abort();
  }, [text]);
  if (!near.length && !jobs.length) return null;
  return html`<section class="card" aria-label="Found by name"><ul class="stack">
    ${jobs.map((job) => html`<li key=${`${job.queue}/${job.id}`} class="row"><a data-line href=${link(["jobs", job.queue, job.id])}>Job ${job.queue}/${job.id}</a><${State} state=${job.state} /></li>`)}
    ${near.map((name) => html`<li key=${name}>Queue <a data-line href=${link(["queues", name])}>${name}</a></li>`)}
  </ul></section>`;
}

/** The first page that has something, or the last of a few. @param {Record<string, string>} filter @param {AbortSignal} signal */
async function eagerly(filter, signal) {
  let page = /** @type {any} */ (await get("search", { ...filter, limit: LIMIT }, signal));
  for (let pages = 1; pages < EAGER && !page.jobs.length && page.cursor; pages += 1) {
    const next = /** @type {any} */ (await get("search", { ...filter, limit: LIMIT, cursor: page.cursor }, signal));
    page = { ...next, looked: { ...next.looked, jobs: page.looked.jobs + next.looked.jobs } };
  }
  return page;
}

/** @param {{filter: Record<string, string>}} props */
function Found({ filter }) {
  const [more, setMore] = useState(/** @type {any[]} */ ([]));
  const [busy, setBusy] = useState(false);
  const first = useLoaded((signal) => eagerly(filter, signal), []);
  if (!first.value) return first.error ? html`<${Refusal} error=${first.error} status=${first.status} again=${first.again} />` : html`<${Loading} />`;
  const pages = [first.value, ...more];
  const jobs = /** @type {Job[]} */ (pages.flatMap((page) => page.jobs));
  const { cursor } = pages[pages.length - 1];
  const looked = pages.reduce((sum, page) => sum + page.looked.jobs, 0);
  const goOn = async () => {
    setBusy(true);
    try {
      setMore([...more, await get("search", { ...filter, limit: LIMIT, cursor })]);
    } catch (error) {
      note(`Not found out: ${said(error)}`, { bad: true });
    }
    setBusy(false);
  };
  const dead = filter.state === "dead";
  const task = { ...filter, queues: filter.queues || "*" };
  return html`<section class="card flush" aria-label="Jobs that match">
    <header><h2 class="grow">${upper(inWords(filter))}</h2>
      ${dead && jobs.length > 0 && html`<${Act} scope="control" queue=${task.queues} some icon="retry" onClick=${() => begin("retry", task)}>Retry all…</${Act}>`}
      ${filter.state !== "any" && filter.state !== "leased" && jobs.length > 0 && html`<${Act} scope="control" queue=${task.queues} some icon="open" onClick=${() => begin("move", task)}>Move all…</${Act}>`}
      ${filter.state !== "any" && jobs.length > 0 && html`<${Act} scope="control" queue=${task.queues} some icon="remove" class="bad" onClick=${() => begin("delete", task)}>Delete all…</${Act}>`}
    </header>
    ${!jobs.length && html`<${Empty} title=${cursor ? "Nothing so far" : "Nothing matches"} icon="search"></${Empty}>`}
    ${jobs.length > 0 && html`<table class="jobs folding found"><thead><tr><th scope="col">Job</th><th scope="col">State</th><th scope="col">Error, and body</th><th scope="col">Pushed</th></tr></thead>
      <tbody>${jobs.map((job) => {
        const error = job.errors?.[job.errors.length - 1]?.error ?? "";
        return html`<tr key=${`${job.queue}/${job.id}`}><th scope="row"><span class="name"><a data-line href=${link(["jobs", job.queue, job.id])}>${job.queue}/${job.id}</a></span></th>
          <td><${State} state=${job.state} /></td>
          <td class="body-cell">${error && html`<span class=${job.state === "dead" ? "bad-text" : "warn-text"}>${line(error)}</span>`}<code class=${error ? "soft small" : ""}>${line(job.body, 200)}</code></td>
          <td class="hide"><${When} at=${job.pushed_at} ago /></td></tr>`;
      })}</tbody></table>`}
    <div class="pager"><span class="number" role="status">${counted(jobs.length, "job")} found; ${count(looked)} looked at${cursor ? " so far" : ", which is all"}.</span><span class="grow"></span>
      ${cursor && html`<button type="button" class="button small" disabled=${busy} onClick=${goOn}>${busy ? "Looking…" : "Go on"}</button>`}</div>
  </section>`;
}
