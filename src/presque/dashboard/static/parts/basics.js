// The small parts that every view is made of.

import { note } from "./notes.js";
import { exact, moment, since, duration } from "../format.js";
import { second } from "../live.js";
import { maySome, refusal } from "../rights.js";
import { html, useEffect, useRef, useState } from "../ui.js";
import { Icon } from "./icons.js";

/**
 * A button for something that needs a right. One that the viewer does not have is greyed, and says why when it is pressed.
 * @param {{scope: import("../rights.js").Scope, queue: string, icon?: string, label?: string, class?: string,
 *   onClick: () => unknown, children?: unknown, hot?: string, some?: boolean}} props
 * `some`: it is enough to have the right for some queue; the server looks at each.
 */
export function Act({ scope, queue, icon, label, class: more = "", onClick, children, hot, some = false }) {
  const no = some && maySome(scope) ? "" : refusal(scope, queue);
  return html`<button type="button" class=${`button ${more}`} aria-disabled=${no ? "true" : undefined} aria-label=${label}
    title=${no || label} data-hot=${hot} onClick=${() => (no ? note(no, { bad: true }) : onClick())}>
    ${icon && html`<${Icon} name=${icon} />`}${children}
  </button>`;
}

const WORDS = /** @type {Record<string, string>} */ ({
  started: "start", stopped: "stop", ready: "ready", leased: "leased", scheduled: "scheduled", dead: "dead", done: "done",
});

/** A state, by icon and word. @param {{state: string}} props */
export function State({ state }) {
  return html`<span class=${`state ${state}`}><${Icon} name=${WORDS[state] ?? "more"} />${state}</span>`;
}

/** A moment; hovering shows all of it. @param {{at: string|null|undefined, ago?: boolean}} props */
export function When({ at, ago = false }) {
  if (ago) second.value;
  if (!at) return html`<span class="soft">–</span>`;
  const seconds = since(at);
  const text = !ago ? moment(at) : seconds >= 0 ? `${duration(Math.max(1, seconds))} ago` : `in ${duration(-seconds)}`;
  return html`<time datetime=${at} title=${exact(at)}>${text}</time>`;
}

/** @param {{lines?: number}} props */
export function Loading({ lines = 6 }) {
  return html`<div class="loading" role="status" aria-label="Loading">
    ${Array.from({ length: lines }, (_, index) => html`<div key=${index} class="bone"></div>`)}
  </div>`;
}

/** @param {{title: string, icon?: string, page?: boolean, children?: unknown}} props `page`: it is all that the page shows */
export function Empty({ title, icon = "done", page = false, children }) {
  return html`<section class="empty"><${Icon} name=${icon} />${page ? html`<h1>${title}</h1>` : html`<h2>${title}</h2>`}${children}</section>`;
}

/** Why something is not shown. @param {{error: string, status?: number, page?: boolean, again?: () => void}} props */
export function Refusal({ error, status = 0, page = false, again }) {
  const forbidden = status === 403;
  return html`<${Empty} title=${forbidden ? "Not for this access token" : status === 404 ? "It is not there" : "No answer"} icon=${forbidden ? "lock" : "fail"} page=${page}>
    <p>${error}</p>
    ${again && !forbidden && html`<button type="button" class="button" onClick=${again}><${Icon} name="retry" />Retry</button>`}
  </${Empty}>`;
}

/** A text that can be copied, also where the clipboard is not to be had (plain HTTP). @param {{text: () => string, label?: string, what?: string}} props */
export function Copy({ text, label = "Copy", what = "" }) {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text());
    } catch {
      const area = document.createElement("textarea");
      area.value = text();
      (document.querySelector("dialog[open]") ?? document.body).append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    note(`${what || "It"} is in the clipboard.`);
  };
  return html`<button type="button" class="button small" onClick=${copy}><${Icon} name="copy" />${label}</button>`;
}

/**
 * A button that opens a list of further acts below it.
 * @param {{label: string, children?: unknown}} props
 */
export function Menu({ label, children }) {
  const [open, setOpen] = useState(false);
  const box = useRef(/** @type {HTMLDivElement|null} */ (null));
  useEffect(() => {
    if (!open) return undefined;
    const list = box.current?.querySelector(".menu-list");
    const room = list?.getBoundingClientRect();
    // Below the last line of a page there is no room, above it there is.
    if (room && room.bottom > innerHeight && (box.current?.getBoundingClientRect().top ?? 0) > room.height) list?.classList.add("up");
    const shut = (/** @type {Event} */ event) => {
      if (event instanceof KeyboardEvent ? event.key === "Escape" : !box.current?.contains(/** @type {Node} */ (event.target))) {
        setOpen(false);
        if (event instanceof KeyboardEvent) box.current?.querySelector("button")?.focus();
      }
    };
    document.addEventListener("click", shut);
    document.addEventListener("keydown", shut);
    return () => {
      document.removeEventListener("click", shut);
      document.removeEventListener("keydown", shut);
    };
  }, [open]);
  return html`<div class="menu" ref=${box}>
    <button type="button" class="button icon-only ghost" aria-label=${label} title=${label} aria-expanded=${open} onClick=${() => setOpen(!open)}><${Icon} name="more" class="more" /></button>
    ${open && html`<div class="menu-list" onClick=${() => setOpen(false)}>${children}</div>`}
  </div>`;
}

/** A line of a few values; for a look, not for reading off. @param {{values: (number|null)[], label?: string}} props */
export function Spark({ values, label = "" }) {
  const known = values.filter((value) => value !== null);
  if (known.length < 2) return null;
  const most = Math.max(1e-9, ...known);
  const step = 60 / (values.length - 1);
  let path = "";
  let up = false;
  values.forEach((value, index) => {
    if (value === null) {
      up = false;
      return;
    }
    path += `${up ? "L" : "M"}${(index * step).toFixed(1)} ${(15 - (13 * value) / most).toFixed(1)}`;
    up = true;
  });
  return html`<svg class="spark" viewBox="0 0 60 16" preserveAspectRatio="none" role=${label ? "img" : undefined} aria-label=${label || undefined} aria-hidden=${label ? undefined : "true"}><path d=${path} /></svg>`;
}
