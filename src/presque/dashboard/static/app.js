// The frame around every view, and where each address leads.

import { count, moment, duration, since } from "./format.js";
import { KEYS, listen } from "./keys.js";
import { connection, known, pause, paused, second, server, start } from "./live.js";
import { Dialogs, show } from "./parts/dialog.js";
import { Icon } from "./parts/icons.js";
import { Notes } from "./parts/notes.js";
import { narrow, nextTheme, theme } from "./prefs.js";
import { lookOnly, rights, setLookOnly } from "./rights.js";
import { go, link, place } from "./router.js";
import { crons, deadJobs, issues, startLooking, workers } from "./triage.js";
import { html, render, useEffect, useRef, useState } from "./ui.js";
import { Empty, Menu } from "./parts/basics.js";
import { Failures } from "./views/failures.js";
import { JobView } from "./views/job.js";
import { Forbidden, Login, logout } from "./views/login.js";
import { QueueView } from "./views/queue.js";
import { Queues } from "./views/queues.js";
import { Recurring } from "./views/recurring.js";
import { Search } from "./views/search.js";
import { Server } from "./views/server.js";
import { Tail } from "./views/tail.js";
import { Workers } from "./views/workers.js";

const ICON = new URL("icon.svg", import.meta.url).href;

/** @type {{at: string, name: string, count?: () => number|null, bad?: () => boolean}[]} */
const TABS = [
  { at: "", name: "Queues", count: () => known.value },
  { at: "failures", name: "Failures", count: () => deadJobs.value || null, bad: () => true },
  { at: "workers", name: "Workers", count: () => workers.value?.length ?? null },
  { at: "recurring", name: "Recurring", count: () => crons.value?.length ?? null },
  { at: "tail", name: "Tail" },
  { at: "server", name: "Server" },
];

const ISSUES_MOST = 6;

function App() {
  const { state } = connection.value;
  if (state === "login") return html`<${Login} /><${Notes} />`;
  if (state === "forbidden") return html`<${Forbidden} /><${Notes} />`;
  return html`
    <a class="skip" href="#main" onClick=${(/** @type {Event} */ event) => {
      event.preventDefault();
      document.getElementById("main")?.focus();
    }}>To the content</a>
    <div class="frame">
      <${Bar} />
      <${Triage} />
      <${Tabs} />
      <${Banner} />
      <main id="main" tabindex="-1"><${View} /></main>
    </div>
    <${Dialogs} /><${Notes} />`;
}

function View() {
  const { parts } = place.value;
  const [first = "", second_ = "", third = ""] = parts;
  useEffect(() => {
    const title = [third ? `job ${third} of ${second_}` : second_, first || "queues"].filter(Boolean).join(" · ");
    document.title = `${title} – presque`;
  }, [first, second_, third]);
  const before = useRef(first + second_ + third);
  useEffect(() => {
    const now = first + second_ + third;
    if (before.current === now) return;
    before.current = now;
    scrollTo(0, 0);
    document.getElementById("main")?.focus({ preventScroll: true });
  }, [first, second_, third]);
  if (!first) return html`<${Queues} />`;
  if (first === "queues" && second_) return html`<${QueueView} key=${second_} name=${second_} />`;
  if (first === "jobs" && third) return html`<${JobView} key=${`${second_}/${third}`} queue=${second_} id=${third} />`;
  const one = /** @type {Record<string, unknown>} */ ({ failures: Failures, workers: Workers, recurring: Recurring, tail: Tail, search: Search, server: Server })[first];
  if (one && !second_) return html`<${one} />`;
  return html`<${Empty} title="There is no such page" icon="search" page><p><a href="#/">To the queues</a></p></${Empty}>`;
}

function Bar() {
  const field = useRef(/** @type {HTMLInputElement|null} */ (null));
  const { said, parts } = place.value;
  /** @param {SubmitEvent} event */
  const search = (event) => {
    event.preventDefault();
    const text = field.current?.value.trim() ?? "";
    if (text) go(link(["search"], { q: text }));
  };
  return html`<header class="bar">
    <a class="brand" href="#/"><img src=${ICON} alt="" />presque</a>
    ${rights.value.namespace && html`<span class="soft namespace" title="The namespace of your access token">${rights.value.namespace}</span>`}
    <form role="search" onSubmit=${search}>
      <${Icon} name="search" />
      <label class="unseen" for="search">Search for a queue, a job, or a text</label>
      <input ref=${field} id="search" type="search" data-hot="/" placeholder="Search queue, queue/id, text" autocomplete="off" spellcheck=${false}
        value=${parts[0] === "search" ? said.get("q") ?? "" : ""} />
      <kbd aria-hidden="true">/</kbd>
    </form>
    <${Connection} />
    <${Menu} label="Menu">
      <button type="button" class="button" onClick=${nextTheme}><${Icon} name=${theme.value} />Theme: ${theme.value === "auto" ? "automatic" : theme.value}</button>
      <button type="button" class="button" aria-pressed=${lookOnly.value} onClick=${() => setLookOnly(!lookOnly.value)}><${Icon} name="eye" />Read-only mode: ${lookOnly.value ? "on" : "off"}</button>
      <button type="button" class="button" onClick=${help}><${Icon} name="help" />Keys</button>
      ${rights.value.tokens && html`<hr /><button type="button" class="button" id="logout" onClick=${logout}><${Icon} name="lock" />Log out${rights.value.name ? ` (${rights.value.name})` : ""}</button>`}
    </${Menu}>
  </header>`;
}

function Connection() {
  const { state } = connection.value;
  const words = /** @type {Record<string, [string, string, string]>} */ ({
    live: ["live", "live", "What moves is live; press to pause"], paused: ["pause", "paused", "Paused; press to go on"],
    away: ["fail", "away", "The server does not answer"], starting: ["live", "connecting", "Connecting"],
  });
  const [icon, word, title] = words[state] ?? ["live", state, ""];
  return html`<button type="button" class=${`button ghost connection ${state}`} title=${title} aria-pressed=${paused.value} onClick=${() => pause(!paused.peek())}>
    <${Icon} name=${icon} />${word}</button>`;
}

function Triage() {
  const { state } = connection.value;
  const [all, setAll] = useState(false);
  const issue = issues.value;
  if (!server.value) return null;
  const home = !place.value.parts.length;
  const most = narrow.value ? (home ? 3 : 1) : ISSUES_MOST;
  // A single one more takes no more room than the words that it is there.
  const found = all || issue.length <= most + (narrow.value ? 0 : 1) ? issue : issue.slice(0, most);
  return html`<section class=${all || home ? "triage" : "triage one"} aria-label="What is wrong">
    ${found.length ? found.map((one) => html`<a key=${one.to + one.icon} class=${one.bad ? "bad" : ""} href=${one.to}><${Icon} name=${one.icon} /><span>${one.text}</span></a>`)
      : state !== "away" && html`<p class="calm"><${Icon} name="done" /><span>All is well: no job is dead, none waits long, and no queue is stopped.</span></p>`}
    ${(found.length < issue.length || (all && issue.length > most)) && html`<button type="button" class="plain" aria-expanded=${all} onClick=${() => setAll(!all)}>${all ? "fewer" : `${count(issue.length - found.length)} more`}</button>`}
  </section>`;
}

function Tabs() {
  const here = place.value.parts[0] ?? "";
  const within = { queues: "", jobs: "" };
  const now = /** @type {Record<string, string>} */ (within)[here] ?? here;
  const bar = useRef(/** @type {HTMLElement|null} */ (null));
  useEffect(() => { // on a telephone not all of them are in sight
    const tab = /** @type {HTMLElement|null} */ (bar.current?.querySelector("[aria-current]") ?? null);
    if (bar.current && tab) bar.current.scrollLeft = tab.offsetLeft - (bar.current.clientWidth - tab.offsetWidth) / 2;
  }, [now, narrow.value, workers.value === null, crons.value === null]);
  return html`<nav class="tabs" aria-label="Views" ref=${bar}>
    ${TABS.map((tab) => {
      const value = tab.count?.() ?? null;
      return html`<a key=${tab.at} href=${`#/${tab.at}`} aria-current=${tab.at === now ? "page" : undefined}>${tab.name}
        ${value !== null && html`<span class=${tab.bad?.() ? "count bad" : "count"}>${count(value)}</span>`}</a>`;
    })}
  </nav>`;
}

function Banner() {
  const { state, since: from, why } = connection.value;
  if (state === "away") {
    second.value;
    return html`<div class="banner" role="status" id="away"><${Icon} name="fail" /><span class="grow">No answer from the server since ${moment(from)}${" "}
      (${duration(Math.max(1, since(from)))}): ${why}. It is asked again every few seconds; what you see is as it was then.</span>
      <button type="button" class="button small" onClick=${start}>Try now</button></div>`;
  }
  if (state === "paused") {
    return html`<div class="banner quiet" role="status"><${Icon} name="pause" /><span class="grow">Paused since ${moment(from)}: nothing here moves.</span>
      <button type="button" class="button small" onClick=${() => pause(false)}>Go on</button></div>`;
  }
  return null;
}

function help() {
  show("Keys", html`<table><tbody>${KEYS.map(([key, what]) => html`<tr key=${key}><th scope="row">${key.split(" ").map((one) => html`<kbd>${one}</kbd> `)}</th><td>${what}</td></tr>`)}</tbody></table>`);
}

const root = document.createElement("div");
document.body.append(root);
render(html`<${App} />`, root);
listen(help);
start();
startLooking();
