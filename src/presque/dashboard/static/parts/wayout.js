// What gets jobs going again that do not run: stands below the reason why they do not.

import { start } from "../acts.js";
import { html } from "../ui.js";
import { editPolicy } from "../views/policy.js";
import { Act, Copy } from "./basics.js";

/** Reasons that do not go away by waiting. */
export const HELD = new Set(["stopped", "no-worker", "max-leased", "group-leased", "rate"]);

/** @param {{queue: string, code: string}} props `code` as `explain` says it */
export function WayOut({ queue, code }) {
  if (code === "stopped") {
    return html`<p class="way"><${Act} scope="control" queue=${queue} icon="start" class="main" onClick=${() => start(queue)}>Start the queue</${Act}></p>`;
  }
  if (code === "no-worker") {
    const command = `presque work ${queue} --exec './do-it'`;
    return html`<p class="way">Start a worker for it: <code>${command}</code> <${Copy} text=${() => command} what="The command" /></p>`;
  }
  if (!HELD.has(code)) return null;
  return html`<p class="way"><button type="button" class="button" onClick=${() => editPolicy(queue)}>Change the policy…</button></p>`;
}
