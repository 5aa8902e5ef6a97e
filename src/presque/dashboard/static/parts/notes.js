// What was just done, said for a while at the edge of the page, with the way back where there is one.

import { Away, said } from "../api.js";
import { html, signal } from "../ui.js";
import { Icon } from "./icons.js";

/** @typedef {{id: number, text: string, bad: boolean, undo?: () => Promise<unknown>}} Note */

const STAYS_MS = 12000;
const MOST = 4;
const notes = signal(/** @type {Note[]} */ ([]));
/** How often the viewer has done something: what is shown is asked for again then, even where it is held. */
export const acted = signal(0);
let last = 0;

/** @param {string} text @param {{bad?: boolean, undo?: () => Promise<unknown>}} [more] */
export function note(text, { bad = false, undo } = {}) {
  last += 1;
  const id = last;
  notes.value = [...notes.value, { id, text, bad, undo }].slice(-MOST);
  setTimeout(() => drop(id), STAYS_MS);
}

/** @param {number} id */
function drop(id) {
  notes.value = notes.value.filter((one) => one.id !== id);
}

/**
 * Does something and says so, or why it did not happen. Returns whether it was done.
 * @param {() => Promise<unknown>} act
 * @param {string | ((answer: any) => string)} done
 * @param {() => Promise<unknown>} [undo]
 */
export async function attempt(act, done, undo) {
  try {
    const answer = await act();
    acted.value += 1;
    note(typeof done === "string" ? done : done(answer), { undo });
    return true;
  } catch (error) {
    note(error instanceof Away ? `No answer: ${error.message}` : `Not done: ${said(error)}`, { bad: true });
    return false;
  }
}

export function Notes() {
  return html`<div class="notes" role="status" aria-live="polite">
    ${notes.value.map(
      (one) => html`<div key=${one.id} class=${one.bad ? "note bad" : "note"}>
        <${Icon} name=${one.bad ? "fail" : "done"} />
        <span>${one.text}</span>
        ${one.undo && html`<button type="button" class="plain" onClick=${() => {
          drop(one.id);
          attempt(/** @type {() => Promise<unknown>} */ (one.undo), "Undone.");
        }}>Undo</button>`}
        <button type="button" class="plain bare" aria-label="Dismiss" onClick=${() => drop(one.id)}><${Icon} name="close" /></button>
      </div>`,
    )}
  </div>`;
}
