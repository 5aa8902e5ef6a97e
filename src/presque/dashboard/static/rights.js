// What the viewer may do, as `GET /login` says it; the same rules that the server goes by (docs/protocol.md).

import { get } from "./api.js";
import { signal } from "./ui.js";

/** @typedef {{allow: string[]|null, deny: string[]}} Rules */
/** @typedef {{tokens: boolean, name: string|null, namespace?: string|null, expires: string|null, rules: Rules[]}} Rights */
/** @typedef {"push"|"fetch"|"lease"|"read"|"control"|"admin"} Scope */

/** @type {import("./ui.js").Signal<Rights>} */
export const rights = signal({ tokens: false, name: null, expires: null, rules: [] });

/** Whether the viewer chose to change nothing. Kept by the browser. */
export const lookOnly = signal(localStorage.getItem("presque.look-only") === "1");

/** @param {boolean} on */
export function setLookOnly(on) {
  lookOnly.value = on;
  if (on) localStorage.setItem("presque.look-only", "1");
  else localStorage.removeItem("presque.look-only");
}

export async function learn() {
  rights.value = await get("login");
}

/** @param {string} pattern @param {string} text */
function matches(pattern, text) {
  const source = pattern.replace(/[.+^${}()|[\]\\]/g, "\\$&").replaceAll("*", ".*").replaceAll("?", ".");
  return new RegExp(`^${source}$`).test(text);
}

/** @param {string[]} rules @param {Scope} scope @param {string} queue */
function covers(rules, scope, queue) {
  return rules.some((rule) => {
    const [one, pattern = ""] = [rule.slice(0, rule.indexOf(":")), rule.slice(rule.indexOf(":") + 1)];
    return (one === "*" || one === scope) && (queue === "*" ? pattern === "*" : matches(pattern, queue));
  });
}

/**
 * Why the viewer may not do this to a queue, or to all of them (`*`); "" if they may.
 * @param {Scope} scope
 * @param {string} queue
 */
export function refusal(scope, queue) {
  if (scope !== "read" && lookOnly.value) return "Read-only mode is on; switch it off in the menu.";
  const { tokens, rules } = rights.value;
  if (!tokens) return "";
  const may = rules.every(({ allow, deny }) => (allow === null || covers(allow, scope, queue)) && !covers(deny, scope, queue));
  return may ? "" : `This access token does not allow ${scope}:${queue}.`;
}

/** Whether the viewer may do this to some queue, as far as the rules tell. @param {Scope} scope */
export function maySome(scope) {
  const { tokens, rules } = rights.value;
  if (scope !== "read" && lookOnly.value) return false;
  return !tokens || rules.every(({ allow, deny }) => {
    const some = allow === null || allow.some((rule) => rule.startsWith("*:") || rule.startsWith(`${scope}:`));
    return some && !deny.some((rule) => rule === `${scope}:*` || rule === "*:*");
  });
}
