// The server: what it is, what a crash can lose, its disk and its clock; who did what; the access tokens.

import { ask, at, BASE, get } from "../api.js";
import { count, counted, duration, exact, size } from "../format.js";
import { changed, connection, server } from "../live.js";
import { useLoaded } from "../load.js";
import { Act, Empty, Loading, Refusal, When } from "../parts/basics.js";
import { askFor } from "../parts/dialog.js";
import { Icon } from "../parts/icons.js";
import { attempt } from "../parts/notes.js";
import { lookOnly, rights } from "../rights.js";
import { link, place } from "../router.js";
import { html, useState } from "../ui.js";

const AGAIN_MS = 10000;

export function Server() {
  changed.value;
  const tab = place.value.said.get("tab") ?? "";
  const tabs = [["", "This server"], ["settings", "Settings"], ["audit", "Who did what"], ["tokens", "Access tokens"]];
  return html`<div class="stack">
    <div class="head"><h1>Server</h1><div class="segments" role="group" aria-label="What is shown">
      ${tabs.map(([name, label]) => html`<a key=${name} class="button small" href=${link(["server"], { tab: name })} aria-current=${name === tab ? "true" : undefined}>${label}</a>`)}
    </div></div>
    ${tab === "settings" ? html`<${Settings} />` : tab === "audit" ? html`<${Audit} />` : tab === "tokens" ? html`<${Tokens} />` : html`<${About} />`}
  </div>`;
}

function About() {
  const about = server.value;
  const ready = useLoaded((signal) => get("readyz", {}, signal), [], AGAIN_MS);
  const answer = useLoaded(timed, [], AGAIN_MS);
  const facts = useLoaded((signal) => get("server", {}, signal), [], AGAIN_MS);
  if (!about) return html`<${Loading} />`;
  const { disk, found_at_start: found } = about;
  const { rules, tokens, name, expires } = rights.value;
  return html`
    <section class="card"><header><h2 class="grow">How it is</h2>
      <span class=${`state ${ready.error ? "stopped" : "started"}`}><${Icon} name=${ready.error ? "warn" : "done"} />${ready.error || ready.value?.status || "…"}</span></header>
      <p>${about.durability}</p>
      <dl class="facts">
        <div><dt>Version</dt><dd>presque ${about.version}</dd></div>
        <div><dt>Store</dt><dd>${about.redis}</dd></div>
        <div><dt>Queues</dt><dd>${count(about.size)}</dd></div>
        ${about.namespace && html`<div><dt>Namespace</dt><dd>${about.namespace}</dd></div>`}
        ${found && html`<div><dt>Found when it started</dt><dd>${counted(found.jobs, "job")} in ${counted(found.queues, "queue")}</dd></div>`}
        <div><dt>Disk</dt><dd class=${disk?.full ? "bad-text" : ""}>${disk?.free == null ? "no disk of its own" : html`${size(disk.free)} free; pushes are refused below ${size(disk.min_free)}${disk.full ? ": they are now" : ""}`}</dd></div>
        <div><dt>It answers in</dt><dd>${answer.value ? duration(answer.value.took) : "…"}</dd></div>
        <div><dt>Its clock</dt><dd>${answer.value ? html`${exact(answer.value.at).replace(/ \(.*$/, "")}<br /><span class=${Math.abs(answer.value.apart) > 5 ? "warn-text" : "soft"}>${Math.abs(answer.value.apart) > 2 ? `${duration(Math.abs(answer.value.apart))} ${answer.value.apart > 0 ? "ahead of" : "behind"} this device` : "as this device's"}</span>` : "…"}</dd></div>
        ${facts.value && html`<${StoreFacts} facts=${facts.value} />`}
        <div><dt>Connection</dt><dd>${connection.value.state} since <${When} at=${connection.value.since.toISOString()} /></dd></div>
      </dl></section>
    <section class="card"><header><h2>You</h2></header>
      ${!tokens && html`<p>No access tokens are used: everybody who reaches this server may do everything.</p>`}
      ${tokens && html`<p>${name ?? "An access token"}${expires ? html`, until <${When} at=${expires} />` : ""}. ${rules.length > 1 ? "All of these must allow what you do:" : "It says:"}</p>
        <ul>${rules.map((one, index) => html`<li key=${index}>${one.allow ? html`allows ${one.allow.map((rule) => html`<code key=${rule}>${rule}</code> `)}` : ""}${one.deny.length ? html`${one.allow ? ", " : ""}denies ${one.deny.map((rule) => html`<code key=${rule}>${rule}</code> `)}` : ""}</li>`)}</ul>`}
      ${lookOnly.value && html`<p class="warn-text"><${Icon} name="eye" /> Read-only mode is on: this page changes nothing.</p>`}
    </section>`;
}

/** @param {{facts: any}} props */
function StoreFacts({ facts }) {
  const { store } = facts;
  const apart = (Date.parse(store.now) - Date.parse(facts.now)) / 1000;
  return html`
    <div><dt>Started</dt><dd><${When} at=${facts.started_at} ago /> <span class="soft">process ${facts.pid}</span></dd></div>
    <div><dt>Connections</dt><dd>${count(facts.connections)} <span class="soft">to this process</span></dd></div>
    <div><dt>Memory of the store</dt><dd>${size(store.memory.used)}${store.memory.limit ? html` of ${size(store.memory.limit)} <progress max="100" value=${(100 * store.memory.used) / store.memory.limit} aria-label="Memory used"></progress>` : html` <span class="soft">no limit is set</span>`}</dd></div>
    <div><dt>The store answers in</dt><dd>${duration(store.answered_in)} <span class="soft">${count(store.commands_per_second)} commands a second</span></dd></div>
    <div><dt>Its disk</dt><dd class=${store.last_write === "ok" ? "" : "bad-text"}>${store.last_write === "ok" ? "the last write went well" : `the last write: ${store.last_write}`}${store.fsyncs_delayed ? html`, <span class="warn-text">${count(store.fsyncs_delayed)} fsyncs were late</span>` : ""}</dd></div>
    <div><dt>Clocks of store and server</dt><dd class=${Math.abs(apart) > 2 ? "warn-text" : ""}>${Math.abs(apart) > 1 ? `${duration(Math.abs(apart))} apart` : "agree"}</dd></div>`;
}

function Settings() {
  const facts = useLoaded((signal) => get("server", {}, signal), []);
  if (!facts.value) return facts.error ? html`<div class="card"><${Refusal} error=${facts.error} status=${facts.status} again=${facts.again} /></div>` : html`<${Loading} />`;
  const rows = /** @type {{setting: string, value: unknown, from: string}[]|null} */ (facts.value.settings);
  if (!rows) return html`<div class="card"><${Empty} title="Not for this access token" icon="lock"><p>Settings are shown to a token that allows <code>admin:*</code>.</p></${Empty}></div>`;
  return html`<section class="card flush"><div class="scroll settings" tabindex="0" role="region" aria-label="Settings"><table>
    <thead><tr><th scope="col">Setting</th><th scope="col">Value</th><th scope="col">From</th></tr></thead>
    <tbody>${rows.map((one) => html`<tr key=${one.setting}><th scope="row" class="mono">${one.setting}</th><td class="mono">${one.value === null ? html`<span class="soft">–</span>` : typeof one.value === "object" ? JSON.stringify(one.value) : String(one.value)}</td>
      <td class=${one.from === "default" ? "soft" : ""}>${one.from}</td></tr>`)}</tbody></table></div></section>`;
}

/** How long an answer takes, and how far the clocks are apart. */
async function timed() {
  const before = Date.now();
  const response = await fetch(new URL("livez", BASE), { cache: "no-store" });
  const took = (Date.now() - before) / 1000;
  const at = Date.parse(response.headers.get("date") ?? "") || Date.now();
  return { took, at, apart: (at - before) / 1000 };
}

function Audit() {
  const [pages, setPages] = useState(1);
  const found = useLoaded(async (signal) => {
    const lines = [];
    let cursor = null;
    for (let page = 0; page < pages; page += 1) {
      const answer = /** @type {any} */ (await get("audit", { limit: 100, cursor }, signal));
      lines.push(...answer.audit);
      cursor = answer.cursor;
      if (!cursor) break;
    }
    return { lines, more: cursor !== null };
  }, [pages], AGAIN_MS);
  if (!found.value) return found.error ? html`<div class="card"><${Refusal} error=${found.error} status=${found.status} again=${found.again} /></div>` : html`<${Loading} />`;
  const { lines, more } = found.value;
  if (!lines.length) return html`<div class="card"><${Empty} title="Nothing is noted" icon="eye"><p>With access tokens, what was steered and what was refused is noted here.</p></${Empty}></div>`;
  return html`<section class="card flush"><div class="scroll" tabindex="0" role="region" aria-label="Who did what"><table>
    <thead><tr><th scope="col">When</th><th scope="col">Who</th><th scope="col">What</th><th scope="col">About</th><th scope="col">Outcome</th><th scope="col">From</th></tr></thead>
    <tbody>${lines.map((/** @type {any} */ one, /** @type {number} */ index) => html`<tr key=${`${one.at} ${index}`}>
      <td class="number"><${When} at=${one.at} /></td><td>${one.name ?? one.token ?? "–"}</td><td>${one.verb ?? one.kind}</td><td class="mono">${one.about ?? ""}</td>
      <td class=${one.kind === "refused" ? "warn-text" : ""}>${one.kind === "refused" ? html`<${Icon} name="lock" /> ` : ""}${one.outcome ?? ""}${one.count ? ` ×${count(one.count)}` : ""}</td><td class="mono">${one.from ?? ""}</td></tr>`)}</tbody>
  </table></div>${more && html`<div class="pager"><button type="button" class="button small" onClick=${() => setPages(pages + 1)}>Earlier</button></div>`}</section>`;
}

function Tokens() {
  const found = useLoaded((signal) => get("tokens", { limit: 500 }, signal), []);
  if (!found.value) return found.error ? html`<div class="card"><${Refusal} error=${found.error} status=${found.status} again=${found.again} /></div>` : html`<${Loading} />`;
  const tokens = /** @type {any[]} */ (found.value.tokens);
  if (!tokens.length) return html`<div class="card"><${Empty} title="No access token was made" icon="lock"><p>Once one is made, every request needs one.</p><pre><code>presque token new admin --allow '*:*'</code></pre></${Empty}></div>`;
  return html`<section class="card flush"><div class="scroll" tabindex="0" role="region" aria-label="Access tokens"><table>
    <thead><tr><th scope="col">Name</th><th scope="col">Id</th><th scope="col">Allows</th><th scope="col">Denies</th><th scope="col">Until</th><th scope="col">Made</th><th scope="col"><span class="unseen">Acts</span></th></tr></thead>
    <tbody>${tokens.map((one) => html`<tr key=${one.id}><th scope="row">${one.name}</th><td class="mono">${one.id}</td><td class="mono">${one.allow.join(" ")}</td><td class="mono">${one.deny.join(" ")}</td>
      <td><${When} at=${one.expires} /></td><td><${When} at=${one.created_at} /></td>
      <td class="n"><${Act} scope="admin" queue="*" icon="remove" class="bad small" label=${`Revoke ${one.name}`} onClick=${() => revoke(one, found.again)}>Revoke…</${Act}></td></tr>`)}</tbody>
  </table></div></section>`;
}

/** @param {any} token @param {() => void} again */
function revoke(token, again) {
  askFor({
    title: `Revoke ${token.name}`,
    body: html`<p>The token and everything that was made of it is invalid within a second, on every server. There is no way back.</p>`,
    act: "Revoke", bad: true, typed: token.id,
    run: () => attempt(async () => {
      await ask("DELETE", at`tokens/${token.id}`);
      again();
    }, `${token.name} is revoked.`),
  });
}
