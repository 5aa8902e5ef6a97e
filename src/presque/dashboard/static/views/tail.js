// What happens to jobs, as it happens: the last few hundred events, filtered, and held when the viewer wants to read.

import { count, counted, moment } from "../format.js";
import { hearJobs } from "../live.js";
import { Empty } from "../parts/basics.js";
import { Icon } from "../parts/icons.js";
import { link, place, say } from "../router.js";
import { html, useEffect, useRef, useState } from "../ui.js";

/** @typedef {{key: number, at: string, what: string, queue: string|null, id: string|null, text: string}} Line */

const KEPT_MOST = 500;
const DRAW_MS = 250;
const WHAT = ["pushed", "ready", "leased", "fetched", "done", "failed", "dead", "retried", "moved", "released", "expired", "changed", "deleted"];
const ICONS = /** @type {Record<string, string>} */ ({
  pushed: "plus", ready: "ready", leased: "leased", fetched: "leased", done: "done", failed: "fail", dead: "dead", retried: "retry", moved: "open",
  released: "retry", expired: "scheduled", changed: "edit", deleted: "remove", left_out: "more",
});

export function Tail() {
  const { said } = place.value;
  const of = said.get("queues") ?? "";
  const what = said.get("what") ?? "";
  const [held, setHeld] = useState(false);
  const [lines, setLines] = useState(/** @type {Line[]} */ ([]));
  const [passed, setPassed] = useState(0);
  const kept = useRef(/** @type {Line[]} */ ([]));
  const state = useRef({ of, what, held, last: 0, passed: 0 });
  Object.assign(state.current, { of, what, held });

  useEffect(() => {
    /** @type {ReturnType<typeof setTimeout>|undefined} */
    let timer;
    const draw = () => {
      timer = undefined;
      if (state.current.held) setPassed(state.current.passed);
      else setLines([...kept.current]);
    };
    hearJobs((event) => {
      const now = state.current;
      if (!wanted(event.queue, now.of)) return;
      if ("what" in event && now.what && event.what !== now.what) return;
      now.last += 1;
      if (now.held) now.passed += 1;
      kept.current.unshift("what" in event
        ? { key: now.last, at: event.at, what: event.what, queue: event.queue, id: event.id, text: "" }
        : { key: now.last, at: new Date().toISOString(), what: "left_out", queue: event.queue, id: null, text: leftOut(event) });
      if (kept.current.length > KEPT_MOST) kept.current.length = KEPT_MOST;
      timer ??= setTimeout(draw, DRAW_MS);
    });
    return () => {
      clearTimeout(timer);
      hearJobs(null);
    };
  }, []);
  useEffect(() => {
    kept.current = [];
    setLines([]);
  }, [of, what]);
  const toggle = () => {
    state.current.passed = 0;
    setPassed(0);
    if (held) setLines([...kept.current]);
    setHeld(!held);
  };

  return html`<section class="card flush" aria-labelledby="tail-title">
    <header><h1 id="tail-title" class="grow">Live tail</h1>
      <label class="unseen" for="of">Only these queues</label>
      <input id="of" type="search" data-hot="/" placeholder="Filter queues" title="Names and patterns, such as mail,video*" value=${of} autocomplete="off" spellcheck=${false}
        onInput=${(/** @type {InputEvent} */ event) => say({ queues: /** @type {HTMLInputElement} */ (event.target).value.trim() || null })} />
      <label class="unseen" for="what">Only this</label>
      <select id="what" onChange=${(/** @type {Event} */ event) => say({ what: /** @type {HTMLSelectElement} */ (event.target).value || null })}>
        <option value="">everything</option>${WHAT.map((one) => html`<option key=${one} selected=${one === what}>${one}</option>`)}</select>
      <button type="button" class="button" aria-pressed=${held} onClick=${toggle}><${Icon} name=${held ? "start" : "pause"} />${held ? `Go on${passed ? `, ${count(passed)} came` : ""}` : "Hold"}</button>
    </header>
    ${!lines.length && html`<${Empty} title="Nothing has happened yet" icon="live"><p>What happens to jobs from now on stands here, the newest on top.</p></${Empty}>`}
    <ol class="tail">${lines.map((one) => html`<li key=${one.key} class=${one.what}>
      <time datetime=${one.at} class="soft">${moment(one.at)}</time>
      <span class=${`state ${one.what}`}><${Icon} name=${ICONS[one.what] ?? "more"} />${one.what === "left_out" ? "left out" : one.what}</span>
      ${one.id === null ? html`<span class="soft">${one.text}</span>` : html`<a href=${link(["jobs", one.queue ?? "", one.id])}>${one.queue}/${one.id}</a>`}</li>`)}</ol>
    ${lines.length >= KEPT_MOST && html`<p class="pager">The last ${count(KEPT_MOST)} events are kept here.</p>`}
  </section>`;
}

/** @param {string|null} queue @param {string} of */
function wanted(queue, of) {
  if (!of || queue === null) return true;
  return of.split(",").filter(Boolean).some((one) => {
    const pattern = one.trim().replace(/[.+^${}()|[\]\\]/g, "\\$&").replaceAll("*", ".*").replaceAll("?", ".");
    return new RegExp(`^${pattern}$`).test(queue);
  });
}

/** @param {{queue: string|null, count: number|null, by: Record<string, number>|null}} event */
function leftOut({ queue, count: many, by }) {
  const what = by ? Object.entries(by).map(([name, number]) => `${count(number)} ${name}`).join(", ") : "";
  return `${many === null ? "some events" : counted(many, "event")}${queue ? ` of ${queue}` : ""} too many to show${what ? `: ${what}` : ""}`;
}
