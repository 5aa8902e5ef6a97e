// One dialog at a time, in front of the page: a question, or a form. Esc closes it.

import { html, signal, useEffect, useRef, useState } from "../ui.js";

/**
 * @typedef {object} Question
 * @property {string} title
 * @property {unknown} [body] what it shows
 * @property {string} act the word on the button
 * @property {boolean} [bad] whether something is lost
 * @property {string} [typed] what must be typed before
 * @property {(form: FormData) => unknown} [run] carried out; the dialog stays open if it answers `false`
 * @property {boolean} [wide]
 */

const open = signal(/** @type {Question|null} */ (null));

/** @param {Question} question */
export function askFor(question) {
  open.value = question;
}

/** @param {string} title @param {unknown} body */
export function show(title, body) {
  open.value = { title, body, act: "" };
}

export const isOpen = () => open.peek() !== null;

export function Dialogs() {
  const question = open.value;
  return question && html`<${Dialog} key=${question.title} question=${question} />`;
}

/** @param {{question: Question}} props */
function Dialog({ question }) {
  const box = useRef(/** @type {HTMLDialogElement|null} */ (null));
  const [typed, setTyped] = useState("");
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    const before = /** @type {HTMLElement|null} */ (document.activeElement);
    box.current?.showModal();
    /** @type {HTMLElement|null|undefined} */ (box.current?.querySelector("[data-first]:not([data-first=false])") ?? box.current?.querySelector("h2"))?.focus();
    return () => before?.focus?.();
  }, []);
  const close = () => box.current?.close();
  /** @param {SubmitEvent} event */
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    const stays = (await question.run?.(new FormData(/** @type {HTMLFormElement} */ (event.target)))) === false;
    setBusy(false);
    if (!stays) close();
  };
  const waits = busy || (question.typed !== undefined && typed !== question.typed);
  return html`<dialog ref=${box} class=${question.wide ? "wide" : ""} aria-labelledby="dialog-title" onClose=${() => {
    if (open.peek() === question) open.value = null;
  }}>
    <form onSubmit=${submit}>
      <h2 id="dialog-title" tabindex="-1">${question.title}</h2>
      <div class="dialog-body">${question.body}</div>
      ${question.typed !== undefined && html`<label class="field">
        <span>Type <code>${question.typed}</code> to go on</span>
        <input value=${typed} onInput=${(/** @type {InputEvent} */ event) => setTyped(/** @type {HTMLInputElement} */ (event.target).value)} autocomplete="off" spellcheck=${false} data-first />
      </label>`}
      <div class="row end">
        <button type="button" class="button" onClick=${close}>${question.act ? "Cancel" : "Close"}</button>
        ${question.act && html`<button class=${question.bad ? "button bad" : "button main"} disabled=${waits}>${question.act}</button>`}
      </div>
    </form>
  </dialog>`;
}
