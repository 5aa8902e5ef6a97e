// The public API of presque, over HTTP. The page holds no access token: the cookie of its session, which no script can
// read, is sent by the browser itself.

import { read } from "./json.js";

// static/VERSION/api.js stands two folders below the address of the server, whatever that is.
export const BASE = new URL("../../", import.meta.url);
const PATIENCE_MS = 20000;

/** The server refused: its own sentence, with the status and the code. */
export class Refused extends Error {
  /** @param {number} status @param {string} code @param {string} text */
  constructor(status, code, text) {
    super(text);
    this.status = status;
    this.code = code;
  }
}

/** The server, or its store, does not answer. */
export class Away extends Error {}

/**
 * A path out of parts, each encoded: at`j/${queue}/${id}`.
 * @param {TemplateStringsArray} strings
 * @param {(string|number)[]} values
 */
export function at(strings, ...values) {
  return strings.reduce((path, text, index) => {
    const value = values[index];
    return path + text + (value === undefined ? "" : encodeURIComponent(value));
  }, "");
}

/** @param {Record<string, unknown>} fields */
function query(fields) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) {
    if (value !== undefined && value !== null && value !== "") found.set(name, String(value));
  }
  return found.size ? `?${found}` : "";
}

/**
 * Asks, and returns the answer; null where there is none. Throws `Refused` or `Away`.
 * @param {string} method
 * @param {string} path
 * @param {{fields?: Record<string, unknown>, body?: unknown, text?: string, signal?: AbortSignal}} [more]
 * @returns {Promise<any>}
 */
export async function ask(method, path, more = {}) {
  const body = more.text ?? (more.body === undefined ? undefined : JSON.stringify(more.body));
  const patience = AbortSignal.timeout(PATIENCE_MS);
  const signal = more.signal ? AbortSignal.any([more.signal, patience]) : patience;
  const address = new URL(path + query(more.fields ?? {}), BASE);
  let response;
  let text;
  try {
    response = await fetch(address, { method, body, signal });
    text = await response.text();
  } catch (error) {
    if (more.signal?.aborted) throw error;
    throw new Away(patience.aborted ? "it takes longer than 20 s" : "there is no connection");
  }
  if (response.ok) return text ? read(text) : null;
  let said;
  try {
    said = JSON.parse(text);
  } catch {
    said = { error: `${response.status} ${response.statusText}` };
  }
  const error = String(said.error ?? said.detail ?? response.status);
  if (response.status >= 502 && response.status <= 504) throw new Away(error);
  const code = response.headers.get("Presque-Error") ?? String(said.code ?? "");
  throw new Refused(response.status, code, error);
}

/** @param {string} path @param {Record<string, unknown>} [fields] @param {AbortSignal} [signal] */
export const get = (path, fields, signal) => ask("GET", path, { fields, signal });

/** @param {string} path @param {unknown} [body] */
export const post = (path, body) => ask("POST", path, { body });

/** @param {unknown} error */
export const said = (error) => (error instanceof Error ? error.message : String(error));
