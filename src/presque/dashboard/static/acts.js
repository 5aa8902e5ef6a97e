// What the viewer can do to queues and jobs: each act says what it did, and how to take it back where that is possible.

import { BASE, ask, at, get, post } from "./api.js";
import { counted, count } from "./format.js";
import { fault, pretty } from "./json.js";
import { forget, queues } from "./live.js";
import { askFor } from "./parts/dialog.js";
import { attempt } from "./parts/notes.js";
import { go, link } from "./router.js";
import { html } from "./ui.js";

/**
 * @typedef {object} Job
 * @property {string} queue
 * @property {string} id
 * @property {string} state
 * @property {string} body its JSON as it came
 * @property {number} priority
 * @property {number} attempt
 * @property {number} max_attempts
 * @property {string} pushed_at
 * @property {string|null} run_at
 * @property {string|null} leased_at
 * @property {string|null} lease_until
 * @property {string|null} worker
 * @property {string|null} progress
 * @property {string|null} result
 * @property {{at: string, worker: string|null, error: string|null, backtrace: string|null}[]} errors
 * @property {string|null} finished_at
 * @property {string} [group]
 * @property {string} [uniq]
 * @property {string} [traceparent]
 * @property {string} [cron] the recurring job that pushed it
 * @property {string} [expires_at]
 * @property {string} [kept_until]
 * @property {string} [reason]
 * @property {boolean} [cancel]
 * @property {string|null} [saved]
 */

/** @param {string} name @param {"start"|"stop"} status */
const control = (name, status) => post(at`control/${name}`, { status });

/** @param {string} name */
export const stop = (name) => attempt(() => control(name, "stop"), `${name} is stopped: it takes jobs and hands out none.`, () => control(name, "start"));

/** @param {string} name */
export const start = (name) => attempt(() => control(name, "start"), `${name} is started.`, () => control(name, "stop"));

/** @param {string} name */
export function purge(name) {
  const known = queues.get(name);
  const all = known ? known.ready + known.scheduled + known.leased + known.done + known.dead : null;
  askFor({
    title: `Purge ${name}`,
    body: html`<p>${all === null ? "All its jobs" : `Its ${counted(all, "job")} of every state`}, its counters and unique keys are deleted.
      Its policy stays. <strong>There is no way back.</strong></p>`,
    act: "Purge", bad: true, typed: name,
    run: () => attempt(() => ask("DELETE", at`q/${name}`), `${name} is empty.`),
  });
}

/** @param {string} name */
export function forgetQueue(name) {
  askFor({
    title: `Forget ${name}`,
    body: html`<p>The queue itself goes, with all its jobs, its policy and its counters. A push makes it again.
      <strong>There is no way back.</strong></p>`,
    act: "Forget", bad: true, typed: name,
    run: async () => {
      const done = await attempt(() => ask("DELETE", at`q/${name}`, { fields: { forget: true } }), `${name} is forgotten.`);
      if (done) {
        forget(name);
        go("#/");
      }
      return done;
    },
  });
}

/** @param {Job} job */
export function retry(job) {
  askFor({
    title: `Retry job ${job.id}`,
    body: html`<p>It is ready at once, its attempts count from 0 again, and its errors are kept.</p>`,
    act: "Retry",
    run: () => attempt(() => post(at`j/${job.queue}/${job.id}/retry`), `Job ${job.id} of ${job.queue} is ready again.`),
  });
}

/** Several jobs of one queue, one command each. @param {string} queue @param {string[]} ids @param {"retry"|"delete"} cmd */
export async function several(queue, ids, cmd) {
  const answers = /** @type {{error?: string}[]} */ (await post("queue", ids.map((id) => ({ cmd, queue, id }))));
  const wrong = answers.filter((one) => one.error);
  const done = counted(ids.length - wrong.length, "job");
  const what = cmd === "retry" ? "ready again" : "deleted";
  return `${done} ${ids.length - wrong.length === 1 ? "is" : "are"} ${what}.${wrong.length ? ` ${count(wrong.length)} not: ${wrong[0]?.error}` : ""}`;
}

/** What a push needs to make the same job again. @param {Job} job */
function options(job) {
  return {
    priority: job.priority,
    attempts: job.max_attempts,
    group: job.group,
    uniq: job.uniq,
    delayed: job.state === "scheduled" ? job.run_at : undefined,
    ttl: job.expires_at ? Math.max(1, Math.round((Date.parse(job.expires_at) - Date.now()) / 1000)) : undefined,
  };
}

/** @param {Job} job @param {string} queue @param {string} body */
const pushLike = (job, queue, body) => ask("POST", at`q/${queue}`, { fields: options(job), text: body });

/** @param {Job} job */
export function remove(job) {
  const waits = job.state === "ready" || job.state === "scheduled";
  askFor({
    title: `Delete job ${job.id}`,
    body: html`<p>${job.state === "leased"
      ? "A worker holds it. The worker is told to stop when it extends its lease, and the job is not retried."
      : `It is taken out of ${job.queue}.`} ${waits ? "You can push it again right after, as a new job." : "There is no way back."}</p>`,
    act: "Delete", bad: true,
    run: () => attempt(
      () => ask("DELETE", at`j/${job.queue}/${job.id}`),
      job.state === "leased" ? `The holder of job ${job.id} will be told.` : `Job ${job.id} is deleted.`,
      waits ? () => pushLike(job, job.queue, job.body) : undefined,
    ),
  });
}

/** @param {Job} job */
export const runNow = (job) => attempt(
  () => ask("PATCH", at`j/${job.queue}/${job.id}`, { body: { delay: 0 } }),
  `Job ${job.id} is ready.`,
  job.run_at ? () => ask("PATCH", at`j/${job.queue}/${job.id}`, { body: { delayed: job.run_at } }) : undefined,
);

/** @param {Job} job @param {number} priority */
export const prioritise = (job, priority) => attempt(
  () => ask("PATCH", at`j/${job.queue}/${job.id}`, { body: { priority } }),
  `Job ${job.id} has priority ${priority}.`,
  () => ask("PATCH", at`j/${job.queue}/${job.id}`, { body: { priority: job.priority } }),
);

/** @param {Job} job */
export function edit(job) {
  const waits = job.state === "ready" || job.state === "scheduled";
  askFor({
    title: waits ? `Edit job ${job.id}` : `Retry job ${job.id}, edited`,
    wide: true,
    body: html`<p>${waits
      ? "The job keeps its id and its place."
      : "The edited body is pushed as a new job with the same options, and this one is deleted then."}</p>
      <label class="field"><span>Body, JSON</span><textarea name="body" spellcheck=${false} data-first rows="14">${pretty(job.body)}</textarea></label>`,
    act: waits ? "Save" : "Push and delete this one",
    run: (form) => {
      const body = String(form.get("body"));
      if (waits) {
        return attempt(() => ask("PATCH", at`j/${job.queue}/${job.id}`, { text: `{"body":${body}}` }), `Job ${job.id} is changed.`,
          () => ask("PATCH", at`j/${job.queue}/${job.id}`, { text: `{"body":${job.body}}` }));
      }
      return attempt(async () => {
        const made = await pushLike(job, job.queue, body);
        await ask("DELETE", at`j/${job.queue}/${job.id}`);
        go(link(["jobs", job.queue, made.id]));
        return made;
      }, (made) => `Pushed as job ${made.id}.`);
    },
  });
}

/** @param {Job} job */
export function move(job) {
  askFor({
    title: `Move job ${job.id}`,
    body: html`<p>It is pushed to the other queue as a new job with the same body and options, then deleted here.</p>
      <label class="field"><span>To the queue</span><input name="queue" list="queue-names" required data-first autocomplete="off" spellcheck=${false} /></label>
      <datalist id="queue-names">${[...queues.keys()].slice(0, 500).map((name) => html`<option value=${name} />`)}</datalist>`,
    act: "Move",
    run: (form) => {
      const to = String(form.get("queue"));
      /** @type {any} */
      let made;
      return attempt(
        async () => {
          made = await pushLike(job, to, job.body);
          await ask("DELETE", at`j/${job.queue}/${job.id}`);
          go(link(["jobs", to, made.id]));
        },
        () => `It is job ${made.id} of ${to}.`,
      );
    },
  });
}

const OPTIONS = /** @type {[string, string, string][]} */ ([
  ["delay", "Delay", "5m, 90s, 2h"], ["delayed", "Not before", "2031-05-07T09:30:00Z"], ["priority", "Priority, 1 to 9", "5"],
  ["ttl", "Dropped after", "1h"], ["attempts", "Attempts", "as the policy says"], ["keep", "Kept when done", "10m"],
  ["group", "Group", "a customer"], ["uniq", "Unique key", ""],
]);

const NUMBERS = new Set(["delay", "priority", "ttl", "attempts", "keep"]);

/** @param {string} queue @param {Job} [like] */
export function push(queue, like) {
  askFor({
    title: like ? `Push job ${like.id} again` : queue ? `Push a job to ${queue}` : "Push a job",
    wide: true,
    body: html`${!queue && html`<label class="field"><span>Queue</span><input name="queue" required data-first autocomplete="off" spellcheck=${false} /></label>`}
      <label class="field"><span>Body, JSON</span><textarea name="body" required spellcheck=${false} data-first=${!!queue}>${like ? pretty(like.body) : '{"to": "you"}'}</textarea></label>
      <details open=${!!like}><summary>Options</summary><div class="fields">
        ${OPTIONS.map(([name, label, hint]) => html`<label class="field" key=${name}><span>${label}</span>
          <input name=${name} placeholder=${hint} autocomplete="off" spellcheck=${false} defaultValue=${like ? optionOf(like, name) : ""} /></label>`)}
        <label class="field"><span>The unique key is free again</span><select name="uniq_until"><option value="">when it is taken</option><option value="done">when it is finished</option></select></label>
        <label class="field"><span>Idempotency key</span><input name="idempotency_key" autocomplete="off" spellcheck=${false} /></label>
      </div></details>`,
    act: "Push",
    run: (form) => {
      const body = String(form.get("body"));
      const to = queue || String(form.get("queue"));
      const given = [...form].filter(([name, value]) => value && !["body", "queue"].includes(name));
      const said = Object.fromEntries(given.map(([name, value]) => [name, NUMBERS.has(name) && Number(value) ? Number(value) : value]));
      const wrong = fault(body);
      if (wrong) return attempt(() => Promise.reject(new Error(`the body is not JSON: ${wrong}`)), "");
      const command = JSON.stringify({ cmd: "push", queue: to, ...said });
      return attempt(
        () => ask("POST", "queue", { text: `${command.slice(0, -1)},"job":${body}}` }),
        (made) => `Pushed as job ${made.id} of ${to}.`,
      );
    },
  });
}

/** @param {Job} job @param {string} name */
function optionOf(job, name) {
  if (name === "priority") return job.priority;
  if (name === "attempts") return job.max_attempts;
  if (name === "group") return job.group ?? "";
  return "";
}

/** The shell command that pushes the same job. @param {Job} job */
export function asCurl(job) {
  const fields = new URLSearchParams();
  for (const [name, value] of Object.entries(options(job))) {
    if (value !== undefined && value !== null && !(name === "priority" && value === 5)) fields.set(name, String(value));
  }
  const address = new URL(`q/${encodeURIComponent(job.queue)}${fields.size ? `?${fields}` : ""}`, BASE);
  return `curl '${address}' -d '${job.body.replaceAll("'", "'\\''")}'`;
}

/** All dead jobs of a queue. @param {string} queue @param {number} dead */
export function retryAll(queue, dead) {
  askFor({
    title: `Retry all dead jobs of ${queue}`,
    body: html`<p>${counted(dead, "job")}, those that died first come first. Their attempts count from 0 again.</p>
      <label class="field"><span>At most so many a second (empty: all at once)</span><input name="rate" inputmode="numeric" pattern="[0-9]*" placeholder="50" /></label>`,
    act: `Retry ${counted(dead, "job")}`,
    run: (form) => {
      const rate = Number(form.get("rate")) || undefined;
      return attempt(() => post(at`j/${queue}/retry`, rate ? { rate } : {}), (answer) => `${counted(answer.retried, "job")} of ${queue} will be retried.`);
    },
  });
}

/** The last error of a job, in its first line. @param {Job} job */
export const lastError = (job) => job.errors?.[job.errors.length - 1]?.error ?? "";

/** @param {string} queue @param {string} id @param {AbortSignal} [signal] @returns {Promise<Job>} */
export const readJob = (queue, id, signal) => get(at`j/${queue}/${id}`, {}, signal);
