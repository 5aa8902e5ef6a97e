// Bulk tasks: begun after a dry run that says what they would do, shown with their progress, paused and cancelled.

import { ask, at, get, post, said } from "../api.js";
import { count, counted, line } from "../format.js";
import { useLoaded } from "../load.js";
import { link } from "../router.js";
import { html, signal, useEffect, useState } from "../ui.js";
import { Act, Loading } from "./basics.js";
import { askFor } from "./dialog.js";
import { Icon } from "./icons.js";
import { attempt } from "./notes.js";

/** @typedef {Record<string, string>} Filter `queues`, `state`, `like`, `find`, `error`, … as in docs/protocol.md */
/** @typedef {{id: string, act: string, queues: string, state: string, filter: Filter, status: string, looked: number, total: number|null,
 *   matched: number, done: number, refused: number, waits: string|null, problems: string[], name: string|null}} Task */

const AGAIN_MS = 2000;
const begun = signal(0);
const ENDED = new Set(["done", "cancelled", "failed"]);

/** What a filter means, in words. @param {Filter} filter */
export function inWords(filter) {
  const { queues = "*", state, ...rest } = filter;
  const words = /** @type {Record<string, string>} */ ({ find: "with", text: "with", like: "like", older: "older than", newer: "newer than" });
  const more = Object.entries(rest).map(([name, value]) => `${words[name] ?? name} “${line(value, 80)}”`);
  return `${!state || state === "any" ? "jobs" : `${state} jobs`} of ${queues === "*" ? "all queues" : queues}${more.length ? `, ${more.join(", ")}` : ""}`;
}

const VERBS = /** @type {Record<string, string>} */ ({ retry: "Retry", delete: "Delete", move: "Move" });
const MEANS = /** @type {Record<string, string>} */ ({
  retry: "Their attempts count from 0 again, and their errors are kept.",
  delete: "There is no way back for what is deleted.",
  move: "They get ids of the other queue; everything else that is known of them stays. Leased jobs are not moved.",
});

/** Asks what a task would do, shows it, and begins it. @param {"retry"|"delete"|"move"} act @param {Filter} filter */
export function begin(act, filter) {
  const verb = VERBS[act] ?? act;
  askFor({
    title: `${verb}: ${inWords(filter)}`,
    wide: true,
    body: html`<${DryRun} act=${act} filter=${filter} />
      <div class="fields">
        ${act === "move" && html`<label class="field"><span>To the queue</span><input name="to" required data-first autocomplete="off" spellcheck=${false} /></label>`}
        <label class="field"><span>At most so many a second</span><input name="rate" inputmode="decimal" placeholder="no limit" defaultValue=${act === "retry" ? "50" : ""} /><small class="hint">so that what failed is not overrun again</small></label>
        <label class="field"><span>At most so many in all</span><input name="limit" inputmode="numeric" placeholder="all" /></label>
      </div>
      <p class="soft small">${MEANS[act]}${" "}
        It goes on in the background, also when you leave, and can be paused and cancelled.</p>`,
    act: verb, bad: act === "delete",
    run: (form) => attempt(async () => {
      const task = await post("tasks", { act, ...filter, ...number(form, "rate"), ...number(form, "limit"), ...(act === "move" ? { to: String(form.get("to")) } : {}) });
      begun.value += 1;
      return task;
    }, (task) => `Task ${task.id} has begun.`),
  });
}

/** @param {FormData} form @param {string} name */
function number(form, name) {
  const value = Number(form.get(name));
  return value > 0 ? { [name]: value } : {};
}

/** @param {{act: string, filter: Filter}} props */
function DryRun({ act, filter }) {
  const [found, setFound] = useState(/** @type {any} */ (null));
  const [error, setError] = useState("");
  useEffect(() => {
    post("tasks", { act: act === "move" ? "delete" : act, ...filter, dry_run: true }).then(setFound, (wrong) => setError(said(wrong)));
  }, []);
  if (error) return html`<p class="wrong" role="alert">${error}</p>`;
  if (!found) return html`<${Loading} lines=${3} />`;
  return html`<div class="stack" role="status">
    <p><strong class="number">${found.complete ? counted(found.matched, "job") : `${count(found.matched)} jobs or more`}</strong> match${found.complete ? "" : `, of the first ${count(found.looked.jobs)} looked at`}.
      ${found.sample.length > 0 && " Some of them:"}</p>
    ${found.sample.length > 0 && html`<ul class="sample">${found.sample.slice(0, 5).map((/** @type {any} */ job) => html`<li key=${`${job.queue}/${job.id}`}><code>${job.queue}/${job.id}</code> <code class="soft">${line(job.body ?? "", 90)}</code></li>`)}</ul>`}
  </div>`;
}

/** The tasks that go on, and those that ended while the page was open. */
export function Tasks() {
  const [first] = useState(() => Date.now());
  const [seen, setSeen] = useState(/** @type {Set<string>} */ (new Set()));
  const found = useLoaded((signal) => get("tasks", { limit: 20 }, signal), [begun.value], AGAIN_MS);
  const tasks = /** @type {Task[]} */ (found.value?.tasks ?? []);
  useEffect(() => {
    const going = tasks.filter((task) => !ENDED.has(task.status)).map((task) => task.id);
    if (going.some((id) => !seen.has(id))) setSeen(new Set([...seen, ...going]));
  }, [found.value]);
  const shown = tasks.filter((task) => !ENDED.has(task.status) || seen.has(task.id) || Date.parse(/** @type {any} */ (task).ended_at ?? 0) > first);
  if (!shown.length) return null;
  return html`<section class="card" aria-label="Bulk tasks"><ul class="stack">${shown.map((task) => html`<${TaskLine} key=${task.id} task=${task} again=${found.again} />`)}</ul></section>`;
}

/** @param {{task: Task, again: () => void}} props */
function TaskLine({ task, again }) {
  const ended = ENDED.has(task.status);
  const part = ended ? 100 : task.total ? Math.min(100, (100 * task.looked) / task.total) : 0;
  const first = /^[^*?!,]+$/.test(task.queues) ? task.queues : "*";
  /** @param {string} path @param {string} method @param {string} text @param {string} [undo] */
  const steer = (path, method, text, undo) => attempt(async () => {
    await ask(method, at`tasks/${task.id}` + path);
    again();
  }, text, undo ? () => post(at`tasks/${task.id}` + undo) : undefined);
  return html`<li class="stack task">
    <div class="row">
      <span class="grow"><strong>${VERBS[task.act] ?? task.act}</strong> <span>${inWords({ queues: task.queues, state: task.state, ...task.filter })}</span></span>
      <span class="number">${count(task.done)} done${task.refused ? `, ${count(task.refused)} refused` : ""}${ended ? `, ${task.status}` : task.total === null ? "" : ` of ${count(task.total)} looked at`}</span>
      ${task.status === "running" && html`<${Act} scope="control" queue=${first} icon="pause" class="small" onClick=${() => steer("/pause", "POST", `Task ${task.id} is paused.`, "/resume")}>Pause</${Act}>`}
      ${task.status === "paused" && html`<${Act} scope="control" queue=${first} icon="start" class="small" onClick=${() => steer("/resume", "POST", `Task ${task.id} goes on.`, "/pause")}>Go on</${Act}>`}
      ${!ended && html`<${Act} scope="control" queue=${first} icon="close" class="small" onClick=${() => steer("", "DELETE", `Task ${task.id} is cancelled; what it has done stays done.`)}>Cancel</${Act}>`}
    </div>
    <progress max="100" value=${part} aria-label=${`Task ${task.id}`}></progress>
    ${task.waits && html`<p class="warn-text small"><${Icon} name="warn" /> ${task.waits}</p>`}
    ${task.problems.map((text) => html`<p key=${text} class="warn-text small">${text}</p>`)}
  </li>`;
}

/** Where the jobs of a filter can be looked at. @param {Filter} filter */
export const toSearch = (filter) => link(["search"], filter);
