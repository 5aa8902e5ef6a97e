// What the viewer likes, kept by the browser: the theme, and the queues on top of the list. Nothing else is kept. And how
// wide the page is.

import { signal } from "./ui.js";

const THEMES = /** @type {const} */ (["auto", "light", "dark"]);
/** @typedef {typeof THEMES[number]} Theme */

/** @param {string} name @param {string} fallback */
function kept(name, fallback) {
  try {
    return localStorage.getItem(name) ?? fallback;
  } catch {
    return fallback;
  }
}

/** @param {string} name @param {string} value @param {string} fallback */
function keep(name, value, fallback) {
  try {
    if (value === fallback) localStorage.removeItem(name);
    else localStorage.setItem(name, value);
  } catch {
    // A browser that keeps nothing forgets it with the tab.
  }
}

export const theme = signal(/** @type {Theme} */ (kept("presque.theme", "auto")));
export const pinned = signal(new Set(kept("presque.pinned", "").split(" ").filter(Boolean)));

/** @param {Theme} value */
function setTheme(value) {
  theme.value = value;
  keep("presque.theme", value, "auto");
  if (value === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = value;
}

export function nextTheme() {
  const next = THEMES[(THEMES.indexOf(theme.peek()) + 1) % THEMES.length] ?? "auto";
  setTheme(next);
  return next;
}

/** Puts a queue on top of the list, or back. @param {string} queue */
export function pin(queue) {
  const next = new Set(pinned.peek());
  if (!next.delete(queue)) next.add(queue);
  pinned.value = next;
  keep("presque.pinned", [...next].join(" "), "");
}

setTheme(theme.peek());

const NARROW = matchMedia("(max-width: 46rem)");
/** Whether the page is as narrow as a telephone: the same width as in style.css. */
export const narrow = signal(NARROW.matches);
NARROW.addEventListener("change", () => {
  narrow.value = NARROW.matches;
});
