// The policy of a queue as a form: each default beside its field, only what was changed is sent.

import { ask, at, get, said } from "../api.js";
import { askFor } from "../parts/dialog.js";
import { attempt, note } from "../parts/notes.js";
import { refusal } from "../rights.js";
import { html } from "../ui.js";

/** @type {[string, string, string, string][]} path, label, default, what it does */
const FIELDS = [
  ["lease", "Lease, seconds", "60", "for how long a worker holds a job"],
  ["max_attempts", "Attempts", "5", "how often a job is leased before it is dead"],
  ["backoff.first", "Backoff: first, seconds", "15", "the wait after the first failure"],
  ["backoff.factor", "Backoff: factor", "2", "how much longer each time"],
  ["backoff.most", "Backoff: most, seconds", "3600", "the longest wait"],
  ["backoff.jitter", "Backoff: jitter", "0.1", "varied at random by this part of it"],
  ["ttl", "Dropped after, seconds", "never", "if nobody took the job by then"],
  ["keep", "Kept when done, seconds", "0", "how long a done job can be looked at"],
  ["dead_most", "Dead jobs kept", "10000", "beyond that the oldest go"],
  ["max_length", "Longest length", "no limit", "beyond that a push is refused"],
  ["max_leased", "Leased at once", "no limit", "jobs in flight"],
  ["group_leased", "Leased at once, of a group", "no limit", ""],
  ["rate.count", "Rate: jobs", "no limit", "handed out in so many seconds:"],
  ["rate.seconds", "Rate: seconds", "", ""],
  ["expires", "Forgotten after, seconds", "never", "when it is empty and unused"],
];

/** @param {any} policy @param {string} path */
const valueOf = (policy, path) => path.split(".").reduce((found, part) => found?.[part], policy) ?? null;

/** @param {string} name */
export async function editPolicy(name) {
  let policy;
  try {
    policy = await get(at`p/${name}`);
  } catch (error) {
    note(said(error), { bad: true });
    return;
  }
  const no = refusal("control", name);
  askFor({
    title: `Policy of ${name}`,
    wide: true,
    body: html`${no && html`<p class="soft">${no}</p>`}
      <p class="soft small">An empty field goes back to its default. It holds at once, on every server.</p>
      <div class="fields">
        ${FIELDS.map(([path, label, normal, means]) => html`<label class="field" key=${path}>
          <span>${label}</span>
          <input name=${path} defaultValue=${valueOf(policy, path) ?? ""} placeholder=${normal} inputmode="decimal" readonly=${!!no} autocomplete="off" />
          <small class="hint">${normal ? `default: ${normal}` : ""}${normal && means ? "; " : ""}${means}</small>
        </label>`)}
        <label class="field"><span>Delivery</span><select name="delivery" disabled=${!!no}>
          ${["queue", "broadcast", "roundrobin"].map((one) => html`<option value=${one} selected=${policy.delivery === one}>${one}</option>`)}
        </select><small class="hint">default: queue; who gets a job</small></label>
      </div>`,
    act: no ? "" : "Save",
    run: (form) => {
      const { changes, back } = differences(policy, form);
      if (!Object.keys(changes).length) return true;
      return attempt(() => ask("PATCH", at`p/${name}`, { body: changes }), `The policy of ${name} is changed.`,
        () => ask("PATCH", at`p/${name}`, { body: back }));
    },
  });
}

/** @param {any} policy @param {FormData} form */
function differences(policy, form) {
  const changes = /** @type {Record<string, any>} */ ({});
  const back = /** @type {Record<string, any>} */ ({});
  /** @param {string} path @param {any} value */
  const differs = (path, value) => String(valueOf(policy, path) ?? "") !== String(value ?? "");
  /** @param {string} path */
  const read = (path) => {
    const text = String(form.get(path) ?? "").trim();
    return text === "" ? null : Number.isFinite(Number(text)) ? Number(text) : text;
  };
  for (const [path] of FIELDS) {
    const [whole = "", part] = path.split(".");
    if (!differs(path, read(path))) continue;
    back[whole] = policy[whole];
    if (part) changes[whole] = partsOf(whole, read);
    else changes[whole] = read(path);
  }
  const delivery = String(form.get("delivery"));
  if (delivery !== policy.delivery) {
    changes.delivery = delivery;
    back.delivery = policy.delivery;
  }
  return { changes, back };
}

/** An object of fields; null when all of them are empty. @param {string} whole @param {(path: string) => unknown} read */
function partsOf(whole, read) {
  const found = FIELDS.filter(([path]) => path.startsWith(`${whole}.`)).map(([path]) => [path.split(".")[1], read(path)]);
  const given = found.filter(([, value]) => value !== null);
  return given.length ? Object.fromEntries(given) : null;
}
