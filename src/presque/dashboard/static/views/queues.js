// The list of queues: those in trouble first. Names with a common beginning are folded, only the lines in sight are in the
// document, and the order is held while the viewer points at the list.

import { pin, pinned } from "../prefs.js";
import { push, purge, start, stop } from "../acts.js";
import { BASE } from "../api.js";
import { brief, count, rate } from "../format.js";
import { changed, complete, known, look, queues, server } from "../live.js";
import { Act, Empty, Loading, Menu, Spark } from "../parts/basics.js";
import { Icon } from "../parts/icons.js";
import { Overview } from "./overview.js";
import { link, place, say } from "../router.js";
import { sparksOf } from "../sparks.js";
import { emptyIn, inWords, trouble } from "../trouble.js";
import { html, useEffect, useMemo, useRef, useState } from "../ui.js";

/** @typedef {import("../live.js").Queue} Queue */
/** @typedef {{fold: string, members: Queue[], open: boolean, troubled: number}} Fold */
/** @typedef {Queue|Fold} Line */

const FOLD_FROM = 6;
const FOLD_ABOVE = 24;
const TROUBLED_ALONE = 3;
const LONG_NAME = 20;
const NAME_END = 8;
const MORE = 12; // lines that are drawn above and below what is in sight

/** @type {{key: string, name: string, value: (q: Queue) => number|string, kind: string}[]} */
const COLUMNS = [
  { key: "ready", name: "Ready", value: (q) => q.ready, kind: "n" },
  { key: "leased", name: "Leased", value: (q) => q.leased, kind: "n" },
  { key: "scheduled", name: "Scheduled", value: (q) => q.scheduled, kind: "n" },
  { key: "dead", name: "Dead", value: (q) => q.dead, kind: "n" },
  { key: "oldest", name: "Oldest", value: (q) => q.oldest_seconds ?? -1, kind: "n" },
  { key: "in", name: "In/min", value: (q) => q.last_minute?.pushed ?? 0, kind: "n wide" },
  { key: "out", name: "Done/min", value: (q) => q.last_minute?.processed ?? 0, kind: "n wide" },
  { key: "failed", name: "Failed/min", value: (q) => q.last_minute?.failed ?? 0, kind: "n" },
];

/** @param {Line} line @returns {line is Fold} */
const isFold = (line) => "fold" in line;

export function Queues() {
  changed.value;
  const { said } = place.value;
  const filter = (said.get("q") ?? "").trim().toLowerCase();
  const sort = said.get("sort") ?? "trouble";
  const up = said.get("up") === "1";
  const opened = said.get("open") ?? "";
  const [held, setHeld] = useState(false);
  const order = useRef(/** @type {string[]} */ ([]));
  const asked = `${filter} ${sort} ${up} ${[...pinned.value].join(" ")}`;
  const before = useRef("");

  if (!held || before.current !== asked || !order.current.length) {
    order.current = sorted(filter, sort, up).map((queue) => queue.queue);
    before.current = asked;
  }
  const found = /** @type {Queue[]} */ (order.current.map((name) => queues.get(name)).filter(Boolean));
  const lines = filter ? found : folded(found, new Set(opened.split(",")));

  if (!server.value) return html`<${Loading} lines=${10} />`;
  if (!queues.size && complete.value) return html`<${First} />`;
  return html`<div class="stack">
    <${Overview} />
    <section class="card flush" aria-labelledby="queues-title">
      <header>
        <h1 id="queues-title" class="grow">Queues <span class="soft number">${count(known.value ?? queues.size)}</span></h1>
        ${held && html`<span class="soft small wide-only" aria-hidden="true">order held while you point at it</span>`}
        ${!complete.value && html`<span class="soft small">reading ${count(queues.size)} of ${count(server.value.size)}…</span>`}
        ${filter && html`<span class="soft small number">${count(found.length)} shown</span>`}
        <label class="unseen" for="filter">Filter queues by a part of the name</label>
        <input id="filter" type="search" data-hot="/" placeholder="Filter" value=${said.get("q") ?? ""} autocomplete="off" spellcheck=${false}
          onInput=${(/** @type {InputEvent} */ event) => say({ q: /** @type {HTMLInputElement} */ (event.target).value || null })} />
        <${Act} scope="push" queue="*" some icon="plus" onClick=${() => push("")}>Push a job</${Act}>
      </header>
      <${Table} lines=${lines} sort=${sort} up=${up} hold=${setHeld} />
      ${!found.length && html`<${Empty} title="No queue is called so" icon="search"><p>Nothing matches “${filter}”.</p></${Empty}>`}
    </section>
  </div>`;
}

/** @param {string} filter @param {string} sort @param {boolean} up */
function sorted(filter, sort, up) {
  const pins = pinned.peek();
  const column = COLUMNS.find((one) => one.key === sort);
  const value = sort === "name" ? (/** @type {Queue} */ q) => q.queue : column ? column.value : (/** @type {Queue} */ q) => trouble(q).weight;
  const sign = (sort === "name" ? 1 : -1) * (up ? -1 : 1);
  // Each value is worked out once, not in each comparison: there may be thousands of queues, twice a second.
  const found = /** @type {{queue: Queue, value: number|string, last: number}[]} */ ([]);
  for (const queue of queues.values()) {
    if (filter && !queue.queue.toLowerCase().includes(filter)) continue;
    found.push({ queue, value: value(queue), last: pins.has(queue.queue) ? 0 : 1 });
  }
  found.sort((a, b) => a.last - b.last || (a.value < b.value ? -sign : a.value > b.value ? sign : 0) || (a.queue.queue < b.queue.queue ? -1 : 1));
  return found.map((one) => one.queue);
}

/** @typedef {{members: Queue[], inside: Queue[], troubled: number}} Family */

/** @param {Queue[]} found @param {Set<string>} opened @returns {Line[]} */
function folded(found, opened) {
  if (found.length <= FOLD_ABOVE) return found;
  const families = familiesOf(found);
  const lines = /** @type {Line[]} */ ([]);
  const told = new Set();
  for (const queue of found) {
    const prefix = beginningOf(queue.queue);
    const family = families.get(prefix);
    if (!family || (family.troubled <= TROUBLED_ALONE && trouble(queue).level > 1)) {
      lines.push(queue);
    } else if (!told.has(prefix)) {
      told.add(prefix);
      const open = opened.has(prefix);
      lines.push({ fold: prefix, members: family.inside, open, troubled: family.troubled <= TROUBLED_ALONE ? 0 : family.troubled });
      if (open) for (const one of family.inside) lines.push(one);
    }
  }
  return lines;
}

/** The part of a name that it may have in common with others, "" if there is none. @param {string} name */
const beginningOf = (name) => (pinned.peek().has(name) ? "" : /^[^-_.:@~+]+[-_.:@~+]/.exec(name)?.[0] ?? "");

/** Those with a common beginning that are folded. A few in trouble stand alone. @param {Queue[]} found */
function familiesOf(found) {
  const families = /** @type {Map<string, Family>} */ (new Map());
  for (const queue of found) {
    const prefix = beginningOf(queue.queue);
    if (!prefix) continue;
    const family = families.get(prefix) ?? { members: [], inside: [], troubled: 0 };
    families.set(prefix, family);
    family.members.push(queue);
    if (trouble(queue).level > 1) family.troubled += 1;
  }
  for (const [prefix, family] of families) {
    if (family.members.length < FOLD_FROM) families.delete(prefix);
    else family.inside = family.troubled <= TROUBLED_ALONE ? family.members.filter((one) => trouble(one).level <= 1) : family.members;
  }
  return families;
}

/** @param {{lines: Line[], sort: string, up: boolean, hold: (on: boolean) => void}} props */
function Table({ lines, sort, up, hold }) {
  const body = useRef(/** @type {HTMLTableSectionElement|null} */ (null));
  const [range, setRange] = useState(/** @type {[number, number, number]} */ ([0, 40, 40]));
  const shown = useRef(lines);
  shown.current = lines;
  const holding = useRef(hold);
  holding.current = hold;

  useEffect(() => {
    let asked = 0;
    const measure = () => {
      asked = 0;
      const rows = body.current;
      if (!rows) return;
      const line = /** @type {HTMLElement|null} */ (rows.querySelector("tr:not(.spacer)"));
      const height = line?.getBoundingClientRect().height || 40;
      const top = rows.getBoundingClientRect().top;
      const first = Math.max(0, Math.floor(-top / height) - MORE);
      const last = Math.ceil((innerHeight - top) / height) + MORE;
      setRange((old) => (old[0] === first && old[1] === last && old[2] === height ? old : [first, last, height]));
    };
    const soon = () => {
      asked ||= requestAnimationFrame(measure);
    };
    measure();
    addEventListener("scroll", soon, { passive: true });
    addEventListener("resize", soon);
    return () => {
      cancelAnimationFrame(asked);
      removeEventListener("scroll", soon);
      removeEventListener("resize", soon);
    };
  }, []);
  useEffect(() => {
    look(() => inSight(shown.current, range));
    return () => look(() => []);
  }, [range]);

  const [first, last, height] = range;
  const begin = Math.max(0, Math.min(first, lines.length - 1));
  const part = lines.slice(begin, last);
  const after = Math.max(0, lines.length - last);
  return html`<table class="queues folding">
    <thead><tr>
      <${Head} name="Queue" key="name" column="name" kind="q" sort=${sort} up=${up} />
      ${COLUMNS.map((column) => html`<${Head} key=${column.key} name=${column.name} column=${column.key} kind=${column.kind} sort=${sort} up=${up} />`)}
      <th class="n end" scope="col">Empty in</th>
      <th class="a" scope="col"><span class="unseen">Acts</span></th>
    </tr></thead>
    <tbody ref=${body} onPointerEnter=${(/** @type {PointerEvent} */ event) => event.pointerType === "mouse" && holding.current(true)}
      onPointerLeave=${() => holding.current(false)}
      onFocusIn=${() => holding.current(true)} onFocusOut=${() => holding.current(false)}>
      ${begin > 0 && html`<tr key="above" class="spacer" aria-hidden="true"><td colspan="11" style=${{ height: `${begin * height}px` }}></td></tr>`}
      ${part.map((line) => (isFold(line)
        ? html`<${FoldLine} key=${`fold ${line.fold}`} line=${line} />`
        : html`<${QueueLine} key=${line.queue} queue=${line} />`))}
      ${after > 0 && html`<tr key="below" class="spacer" aria-hidden="true"><td colspan="11" style=${{ height: `${after * height}px` }}></td></tr>`}
    </tbody>
  </table>`;
}

/** @param {Line[]} lines @param {[number, number, number]} range */
function inSight(lines, [first, last]) {
  const names = [];
  for (const line of lines.slice(first, last)) if (!isFold(line)) names.push(line.queue);
  return names;
}

/** @param {{name: string, column: string, kind: string, sort: string, up: boolean}} props */
function Head({ name, column, kind, sort, up }) {
  const mine = sort === column;
  const rises = (column === "name") !== up;
  return html`<th class=${kind} scope="col" aria-sort=${mine ? (rises ? "ascending" : "descending") : undefined}>
    <button type="button" onClick=${() => say({ sort: mine && up ? null : column, up: mine && !up ? "1" : null })}>
      ${name}${mine && html`<span aria-hidden="true">${rises ? " ↑" : " ↓"}</span>`}</button></th>`;
}

/** The name of a queue. Of one that has too little room the end stays, for names often differ there. @param {{name: string, title: string}} props */
function NameLink({ name, title }) {
  const parts = name.length > LONG_NAME ? html`<span>${name.slice(0, -NAME_END)}</span><span>${name.slice(-NAME_END)}</span>` : name;
  return html`<a href=${link(["queues", name])} class=${name.length > LONG_NAME ? "cut" : ""} aria-label=${name} data-line title=${title}>${parts}</a>`;
}

/** A figure; nothing of it draws the eye when it is 0. @param {{value: number, label?: string, class?: string, text?: string, line?: number[]}} props */
function Figure({ value, label, class: more = "", text, line }) {
  return html`<td class=${`n ${more}`} data-label=${label}>${line && html`<${Spark} values=${line} /> `}<span class=${value ? "" : "zero"}>${text ?? count(value)}</span></td>`;
}

/** @param {{queue: Queue}} props */
function QueueLine({ queue }) {
  const wrong = trouble(queue);
  const word = wrong.level ? inWords(queue) : "";
  const { pushed, processed, failed } = queue.last_minute ?? { pushed: 0, processed: 0, failed: 0 };
  const name = queue.queue;
  const lines = pushed || processed || failed || queue.leased ? sparksOf(name) : null;
  const isPinned = pinned.value.has(name);
  return html`<tr>
    <th scope="row"><span class="name">
      ${wrong.level > 0 && html`<${Icon} name=${wrong.icon} class=${wrong.level > 2 ? "bad" : "warn"} /><span class="unseen">${word}: </span>`}
      ${isPinned && html`<${Icon} name="pin" />`}
      <${NameLink} name=${name} title=${word ? `${name}: ${word}` : name} />
    </span></th>
    <${Figure} value=${queue.ready} label="ready" />
    <${Figure} value=${queue.leased} label="leased" />
    <${Figure} value=${queue.scheduled} class="hide" />
    <${Figure} value=${queue.dead} label="dead" class=${queue.dead ? "bad-text" : ""} />
    <${Figure} value=${queue.oldest_seconds ?? 0} label="oldest" class="last" text=${queue.oldest_seconds == null ? "–" : brief(queue.oldest_seconds)} />
    <${Figure} value=${pushed} class="hide" text=${rate(pushed)} line=${lines?.pushed} />
    <${Figure} value=${processed} class="hide" text=${rate(processed)} line=${lines?.done} />
    <${Figure} value=${failed} class=${failed ? "hide bad-text" : "hide"} text=${rate(failed)} />
    <td class="n hide">${queue.status ? emptyIn(queue) : html`<${StoppedWord} />`}</td>
    <td class="a"><${Menu} label=${`More for ${name}`}>
      ${queue.status
        ? html`<${Act} scope="control" queue=${name} icon="stop" onClick=${() => stop(name)}>Stop</${Act}>`
        : html`<${Act} scope="control" queue=${name} icon="start" onClick=${() => start(name)}>Start</${Act}>`}
      <button type="button" class="button" onClick=${() => pin(name)}><${Icon} name="pin" />${isPinned ? "Unpin" : "Keep on top"}</button>
      <${Act} scope="push" queue=${name} icon="plus" onClick=${() => push(name)}>Push a job…</${Act}>
      <hr />
      <${Act} scope="control" queue=${name} icon="remove" class="bad" onClick=${() => purge(name)}>Purge…</${Act}>
    </${Menu}></td>
  </tr>`;
}

function StoppedWord() {
  return html`<span class="state stopped"><${Icon} name="stop" />stopped</span>`;
}

/** @param {{line: Fold}} props */
function FoldLine({ line }) {
  const sum = useMemo(() => {
    const total = { ready: 0, leased: 0, scheduled: 0, dead: 0, oldest: 0, pushed: 0, processed: 0, failed: 0 };
    for (const queue of line.members) {
      total.ready += queue.ready;
      total.leased += queue.leased;
      total.scheduled += queue.scheduled;
      total.dead += queue.dead;
      total.oldest = Math.max(total.oldest, queue.oldest_seconds ?? 0);
      total.pushed += queue.last_minute?.pushed ?? 0;
      total.processed += queue.last_minute?.processed ?? 0;
      total.failed += queue.last_minute?.failed ?? 0;
    }
    return total;
  }, [changed.value, line.members.length]);
  const toggle = () => {
    const open = new Set((place.peek().said.get("open") ?? "").split(",").filter(Boolean));
    if (!open.delete(line.fold)) open.add(line.fold);
    say({ open: [...open].join(",") || null });
  };
  return html`<tr>
    <th scope="row"><span class="name fold">
      <button type="button" class="plain bare" data-line aria-expanded=${line.open} onClick=${toggle}>
        <${Icon} name=${line.open ? "fold" : "open"} /> ${line.fold}… <span class="soft">(${count(line.members.length)}<span class="unseen"> queues</span>)</span></button>
      ${line.troubled > 0 && html`<span class="warn-text small"><${Icon} name="warn" class="warn" /> ${count(line.troubled)}<span class="unseen"> in trouble</span></span>`}
    </span></th>
    <${Figure} value=${sum.ready} label="ready" />
    <${Figure} value=${sum.leased} label="leased" />
    <${Figure} value=${sum.scheduled} class="hide" />
    <${Figure} value=${sum.dead} label="dead" class=${sum.dead ? "bad-text" : ""} />
    <${Figure} value=${sum.oldest} label="oldest" class="last" text=${sum.oldest ? brief(sum.oldest) : "–"} />
    <${Figure} value=${sum.pushed} class="hide" text=${rate(sum.pushed)} />
    <${Figure} value=${sum.processed} class="hide" text=${rate(sum.processed)} />
    <${Figure} value=${sum.failed} class="hide" text=${rate(sum.failed)} />
    <td class="n hide"></td><td class="a hide"></td>
  </tr>`;
}

function First() {
  const shell = `curl ${BASE}q/hello -d '{"to": "you"}'\ncurl ${BASE}q/hello`;
  return html`<div class="card"><${Empty} page title="No queue yet" icon="ready">
    <p>A queue exists as soon as a job arrives. Push one, and take it off again:</p>
    <pre><code id="try">${shell}</code></pre>
    <${Act} scope="push" queue="*" some icon="plus" class="main" onClick=${() => push("")}>Push a job</${Act}>
  </${Empty}></div>`;
}
