// The keyboard: what each key does, and the list of them. No key alone deletes anything.

import { isOpen } from "./parts/dialog.js";
import { note } from "./parts/notes.js";
import { pause, paused } from "./live.js";
import { nextTheme } from "./prefs.js";
import { go } from "./router.js";

const PLACES = /** @type {Record<string, [string, string]>} */ ({
  q: ["#/", "queues"], f: ["#/failures", "failures"], d: ["#/failures", "failures: what is dead"], w: ["#/workers", "workers"],
  r: ["#/recurring", "recurring jobs"], l: ["#/tail", "the live tail"], s: ["#/server", "the server"],
});

/** @type {[string, string][]} */
export const KEYS = [
  ["?", "this list"],
  ["/", "search, or filter where a list can be filtered"],
  ...Object.entries(PLACES).map(([key, [, what]]) => /** @type {[string, string]} */ ([`g ${key}`, `go to ${what}`])),
  ["j k", "next and previous line"],
  ["Enter", "open it"],
  ["x", "select it"],
  ["r", "retry it, after a question"],
  ["p", "pause what moves, or go on"],
  ["t", "theme: automatic, light, dark"],
  ["Esc", "close, leave"],
];

let going = 0;

/** @param {() => void} help */
export function listen(help) {
  document.addEventListener("keydown", (event) => {
    const on = /** @type {HTMLElement} */ (event.target);
    const typing = on.closest("input:not([type=checkbox]), textarea, select, [contenteditable]");
    if (event.key === "Escape" && typing && !isOpen()) on.blur();
    if (typing || isOpen() || event.ctrlKey || event.metaKey || event.altKey) return;
    const done = pressed(event.key, on, help);
    if (done) event.preventDefault();
  });
}

/** @param {string} key @param {HTMLElement} on @param {() => void} help */
function pressed(key, on, help) {
  if (Date.now() - going < 1500 && PLACES[key]) {
    going = 0;
    go(PLACES[key][0]);
    return true;
  }
  going = 0;
  switch (key) {
    case "g":
      going = Date.now();
      return true;
    case "?":
      help();
      return true;
    case "/": {
      const field = /** @type {HTMLInputElement|null} */ (document.querySelector("main [data-hot='/']") ?? document.querySelector("header [data-hot='/']"));
      field?.focus();
      field?.select();
      return true;
    }
    case "j":
    case "k":
      return step(on, key === "j" ? 1 : -1);
    case "x":
      return press(on.closest("tr, li")?.querySelector("input[type=checkbox]"));
    case "r":
      return press(on.closest("tr, li")?.querySelector("[data-hot=r]") ?? document.querySelector("main [data-hot=r]"));
    case "p":
      pause(!paused.peek());
      note(paused.peek() ? "Paused: nothing moves until you press p again." : "Live again.");
      return true;
    case "t":
      note(`Theme: ${{ auto: "automatic, as the system", light: "light", dark: "dark" }[nextTheme()]}.`);
      return true;
    default:
      return false;
  }
}

/** @param {Element|null|undefined} what */
function press(what) {
  if (!what) return false;
  /** @type {HTMLElement} */ (what).click();
  return true;
}

/** Goes to the next line of a list. @param {HTMLElement} from @param {number} by */
function step(from, by) {
  const lines = /** @type {HTMLElement[]} */ ([...document.querySelectorAll("main [data-line]")]);
  if (!lines.length) return false;
  const now = lines.indexOf(/** @type {HTMLElement} */ (from.closest("tr, li")?.querySelector("[data-line]")));
  const next = lines[now < 0 ? (by > 0 ? 0 : lines.length - 1) : Math.min(lines.length - 1, Math.max(0, now + by))];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
  return true;
}
