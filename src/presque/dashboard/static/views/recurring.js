// Recurring jobs: when in words, the next moments in the viewer's zone and in their own, run now, pause, edit.

import { ask, at, get, post } from "../api.js";
import { counted, exact, line } from "../format.js";
import { fault, pretty } from "../json.js";
import { useLoaded } from "../load.js";
import { Act, Empty, Loading, Menu, Refusal, When } from "../parts/basics.js";
import { askFor } from "../parts/dialog.js";
import { Icon } from "../parts/icons.js";
import { attempt } from "../parts/notes.js";
import { go, link } from "../router.js";
import { crons as known } from "../triage.js";
import { html, useEffect, useState } from "../ui.js";

/** @typedef {{outcome: string, id: string, at: string, error?: string}} Outcome */
/** @typedef {{name: string, queue: string, body: string, schedule: string, words: string, timezone: string, missed: string, overlap: string,
 *   next: string[], last_fired: string|null, last_outcome: Outcome|null, paused: boolean, broken: string|null, priority?: number, ttl?: number, attempts?: number, keep?: number, group?: string}} Cron */

const AGAIN_MS = 10000;
const OPTIONS = /** @type {const} */ (["priority", "ttl", "attempts", "keep", "group"]);

export function Recurring() {
  const found = useLoaded((signal) => all(signal), [], AGAIN_MS);
  useEffect(() => {
    if (found.value) known.value = found.value;
  }, [found.value]);
  if (!found.value) return found.error ? html`<${Refusal} page error=${found.error} status=${found.status} again=${found.again} />` : html`<${Loading} />`;
  const crons = /** @type {Cron[]} */ (found.value);
  const add = html`<${Act} scope="admin" queue="*" some icon="plus" class=${crons.length ? "" : "main"} onClick=${() => define(null, found.again)}>New…</${Act}>`;
  return html`<section class="card flush" aria-labelledby="recurring-title">
    <header><h1 id="recurring-title" class="grow">Recurring jobs <span class="soft number">${crons.length}</span></h1>${crons.length > 0 && add}</header>
    ${!crons.length && html`<${Empty} title="Nothing recurs" icon="cron"><p>A recurring job is pushed again and again: at half past two each night in Paris, or every five minutes.</p>${add}</${Empty}>`}
    <ul class="lines">${crons.map((one) => html`<${CronLine} key=${one.name} cron=${one} again=${found.again} />`)}</ul>
  </section>`;
}

/** @param {AbortSignal} signal */
async function all(signal) {
  const found = [];
  let cursor = null;
  do {
    const page = /** @type {any} */ (await get("cron/", { limit: 500, cursor }, signal));
    found.push(...page.crons);
    cursor = page.cursor;
  } while (cursor);
  return found;
}

/** @param {{cron: Cron, again: () => void}} props */
function CronLine({ cron, again }) {
  const [open, setOpen] = useState(false);
  /** @param {() => Promise<unknown>} act @param {string | ((answer: any) => string)} text @param {() => Promise<unknown>} [undo] */
  const steer = (act, text, undo) => attempt(async () => {
    const answer = await act();
    again();
    return answer;
  }, text, undo && (async () => {
    await undo();
    again();
  }));
  const pause = () => post(at`cron/${cron.name}/pause`);
  const resume = () => post(at`cron/${cron.name}/resume`);
  const viewers = Intl.DateTimeFormat().resolvedOptions().timeZone;
  return html`<li class="cron">
    <div class="row">
      <strong class="grow" data-line tabindex="-1">${cron.name}</strong>
      ${cron.paused
        ? html`<${Act} scope="control" queue=${cron.queue} icon="start" onClick=${() => steer(resume, `${cron.name} goes on.`, pause)}>Resume</${Act}>`
        : html`<${Act} scope="control" queue=${cron.queue} icon="pause" onClick=${() => steer(pause, `${cron.name} is paused.`, resume)}>Pause</${Act}>`}
      <${Menu} label=${`More for ${cron.name}`}>
        <${Act} scope="control" queue=${cron.queue} icon="ready" onClick=${() => steer(() => post(at`cron/${cron.name}/run`), (made) => `Pushed as job ${made.id} of ${made.queue}.`)}>Run now</${Act}>
        <${Act} scope="admin" queue=${cron.queue} icon="edit" onClick=${() => define(cron, again)}>Edit…</${Act}>
        <hr /><${Act} scope="admin" queue=${cron.queue} icon="remove" class="bad" onClick=${() => remove(cron, again)}>Delete…</${Act}>
      </${Menu}>
    </div>
    ${cron.broken && html`<p class="bad-text"><${Icon} name="warn" /> ${cron.broken}</p>`}
    <p>${cron.words ?? "–"} <span class="soft"><code>${cron.schedule}</code> in ${cron.timezone}, to <a href=${link(["queues", cron.queue])}>${cron.queue}</a></span></p>
    <p class="soft small">${cron.paused && html`<span class="state stopped"><${Icon} name="pause" />paused</span>; `}${cron.next.length ? html`next <${When} at=${cron.next[0]} ago />; ` : ""}${cron.last_fired ? html`last pushed <${When} at=${cron.last_fired} ago />` : "never pushed so far"}
      ${cron.next.length > 0 && html` <button type="button" class="plain" aria-expanded=${open} onClick=${() => setOpen(!open)}>the next ${counted(cron.next.length, "moment")}</button>`}</p>
    ${cron.last_outcome && html`<${LastOutcome} cron=${cron} outcome=${cron.last_outcome} />`}
    ${open && html`<div class="scroll"><table><thead><tr><th scope="col">Here (${viewers})</th><th scope="col">There (${cron.timezone})</th></tr></thead>
      <tbody>${cron.next.map((one) => html`<tr key=${one}><td class="number">${exact(one).replace(/ \(.*$/, "")}</td><td class="number">${one.replace("T", " ")}</td></tr>`)}</tbody></table></div>`}
  </li>`;
}

const ENDED = /** @type {Record<string, [string, string]>} */ ({
  done: ["done", ""], dead: ["dead", ""], fetched: ["ready", "it was taken for good, so nobody knows more"], expired: ["warn", "nobody took it in time"],
});

/** How the job ended that ended last. @param {{cron: Cron, outcome: Outcome}} props */
function LastOutcome({ cron, outcome }) {
  const { outcome: word, id, at: when, error } = outcome;
  const [icon, means] = ENDED[word] ?? ["more", ""];
  return html`<p class="small"><span class="soft">last job</span> <span class=${`state ${word}`}><${Icon} name=${icon} />${word}</span>${" "}
    <span class="soft"><${When} at=${when} ago />, <a href=${link(["jobs", cron.queue, id])}>${cron.queue}/${id}</a>${means ? `; ${means}` : ""}</span>${error && html`<span class="bad-text">: ${line(error)}</span>`}</p>`;
}

/** What PUT takes of a recurring job, as text: its body stays byte for byte. @param {Record<string, any>} fields @param {string} body */
function definition(fields, body) {
  const said = JSON.stringify(fields);
  return `${said.slice(0, -1)}${said === "{}" ? "" : ","}"body":${body}}`;
}

/** @param {Cron} cron */
function fieldsOf(cron) {
  const { queue, schedule, timezone, missed, overlap } = cron;
  const more = Object.fromEntries(OPTIONS.filter((name) => cron[name] !== undefined && cron[name] !== null).map((name) => [name, cron[name]]));
  return { queue, schedule, timezone, missed, overlap, ...more };
}

/** @param {Cron} cron @param {() => void} again */
function remove(cron, again) {
  askFor({
    title: `Delete ${cron.name}`,
    body: html`<p>It is pushed no more. The jobs that are in ${cron.queue} stay.</p>`,
    act: "Delete", bad: true,
    run: () => attempt(async () => {
      await ask("DELETE", at`cron/${cron.name}`);
      again();
    }, `${cron.name} is deleted.`, cron.broken ? undefined : async () => {
      await ask("PUT", at`cron/${cron.name}`, { text: definition(fieldsOf(cron), cron.body) });
      again();
    }),
  });
}

/** @param {Cron|null} cron @param {() => void} again */
function define(cron, again) {
  const fields = cron ? fieldsOf(cron) : /** @type {Record<string, any>} */ ({});
  askFor({
    title: cron ? `Edit ${cron.name}` : "New recurring job",
    wide: true,
    body: html`<div class="fields">
      ${!cron && html`<label class="field"><span>Name</span><input name="name" required data-first autocomplete="off" spellcheck=${false} /></label>`}
      <label class="field"><span>Queue</span><input name="queue" required defaultValue=${cron?.queue ?? ""} autocomplete="off" spellcheck=${false} /></label>
      <label class="field"><span>Schedule</span><input name="schedule" required defaultValue=${cron?.schedule ?? ""} placeholder="30 2 * * *, @daily, @every 5m" autocomplete="off" spellcheck=${false} /></label>
      <label class="field"><span>Time zone</span><input name="timezone" defaultValue=${cron?.timezone ?? "UTC"} autocomplete="off" spellcheck=${false} /></label>
      <label class="field"><span>Missed moments</span><select name="missed">${["once", "all", "skip"].map((one) => html`<option selected=${cron?.missed === one}>${one}</option>`)}</select></label>
      <label class="field"><span>While the one before is not finished</span><select name="overlap">${["allow", "skip"].map((one) => html`<option selected=${cron?.overlap === one}>${one}</option>`)}</select></label>
    </div>
    <label class="field"><span>Body, JSON</span><textarea name="body" required spellcheck=${false}>${cron ? pretty(cron.body) : "{}"}</textarea></label>`,
    act: "Save",
    run: (form) => {
      const body = String(form.get("body"));
      const wrong = fault(body);
      const name = cron?.name ?? String(form.get("name"));
      const said = Object.fromEntries([...form].filter(([key, value]) => value && key !== "name" && key !== "body"));
      return attempt(async () => {
        if (wrong) throw new Error(`the body is not JSON: ${wrong}`);
        const made = await ask("PUT", at`cron/${name}`, { text: definition({ ...fields, ...said }, body) });
        again();
        go("#/recurring");
        return made;
      }, (made) => `${name}: ${made.words}.`, cron && !cron.broken ? async () => {
        await ask("PUT", at`cron/${name}`, { text: definition(fieldsOf(cron), cron.body) });
        again();
      } : undefined);
    },
  });
}
