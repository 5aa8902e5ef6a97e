// Numbers, durations and moments as people read them.

const whole = new Intl.NumberFormat("en");
const fine = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const full = new Intl.DateTimeFormat("en-GB", { dateStyle: "full", timeStyle: "long" });
const STEPS = /** @type {[number, string][]} */ ([[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]]);

/** @param {number} value */
export const count = (value) => whole.format(value);

/** `1 job`, `2 jobs`. @param {number} value @param {string} what @param {string} [many] */
export const counted = (value, what, many) => `${count(value)} ${value === 1 ? what : many ?? `${what}s`}`;

/** A rate: 0, 0.3, 12, 1,204. @param {number} value */
export const rate = (value) => (value >= 10 ? whole.format(Math.round(value)) : fine.format(value));

/** `4 s`, `12 min`, `2 h 5 min`: two units at most, and the smaller only below ten of the larger.
 * @param {number|null|undefined} seconds */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds > 0 && seconds < 0.0005) return "< 1 ms";
  if (seconds < 1) return seconds > 0 ? `${Math.round(seconds * 1000)} ms` : "0 s";
  let left = Math.floor(seconds);
  for (const [index, [size, unit]] of STEPS.entries()) {
    if (left < size) continue;
    const many = Math.floor(left / size);
    const next = STEPS[index + 1];
    const rest = next && many < 10 ? Math.floor((left % size) / next[0]) : 0;
    return `${count(many)} ${unit}${next && rest ? ` ${rest} ${next[1]}` : ""}`;
  }
  return "0 s";
}

/** The same in one unit, for narrow columns. @param {number|null|undefined} seconds */
export const brief = (seconds) => duration(seconds).split(" ").slice(0, 2).join(" ");

/** How long ago a moment was, in seconds. @param {string|number|Date} when */
export const since = (when) => (Date.now() - new Date(when).getTime()) / 1000;

/** `10:11:03`, or `28 Nov, 10:11` on another day. @param {string|number|Date} when */
export function moment(when) {
  const date = new Date(when);
  return date.toDateString() === new Date().toDateString() ? clock.format(date) : day.format(date);
}

/** All of a moment, for a title. @param {string|number|Date} when */
export const exact = (when) => `${full.format(new Date(when))} (${new Date(when).toISOString()})`;

/** @param {number} bytes */
export function size(bytes) {
  for (const [unit, name] of /** @type {[number, string][]} */ ([[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [1024, "KiB"]])) {
    if (bytes >= unit) return `${fine.format(bytes / unit)} ${name}`;
  }
  return counted(bytes, "byte");
}

/** With a capital at the beginning. @param {string} text */
export const upper = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** The first line of a text, cut. @param {string} text @param {number} [most] */
export function line(text, most = 160) {
  const first = text.slice(0, most + 1).split(/\r?\n/, 1)[0] ?? "";
  return first.length < text.length ? `${first.slice(0, most)}…` : first;
}
