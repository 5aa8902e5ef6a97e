// JSON whose user parts stay text. A job's body may hold 2^64, 1.0 or a key twice: whoever parses it and prints it
// again shows something else. So bodies, results, progress and what was saved are cut out as they came, and never parsed.

const RAW = new Set(["body", "result", "progress", "saved"]);

/**
 * Reads an answer. What stands under `body`, `result`, `progress` or `saved` becomes its text, byte for byte.
 * @param {string} text
 * @returns {any}
 */
export function read(text) {
  let out = "";
  let from = 0;
  let at = 0;
  while (at < text.length) {
    if (text[at] !== '"') {
      at += 1;
      continue;
    }
    const end = endOfString(text, at);
    const colon = afterSpace(text, end);
    if (text[colon] === ":" && RAW.has(text.slice(at + 1, end - 1))) {
      const begin = afterSpace(text, colon + 1);
      at = endOfValue(text, begin);
      // No result is null; a body that is null is a text like any other.
      if (text.slice(begin, at) === "null" && !text.startsWith('"body"', end - 6)) continue;
      out += text.slice(from, begin) + JSON.stringify(text.slice(begin, at));
      from = at;
    } else {
      at = end;
    }
  }
  return JSON.parse(out + text.slice(from));
}

/**
 * The same document with a line for each value. Its tokens stay as they are.
 * @param {string} text
 * @returns {string}
 */
export function pretty(text) {
  let out = "";
  let depth = 0;
  const line = () => `\n${"  ".repeat(Math.min(depth, 40))}`;
  for (let at = 0; at < text.length; ) {
    const one = /** @type {string} */ (text[at]);
    if (one === '"') {
      const end = endOfString(text, at);
      out += text.slice(at, end);
      at = end;
      continue;
    }
    at += 1;
    if (one === "{" || one === "[") {
      const close = afterSpace(text, at);
      if (text[close] === "}" || text[close] === "]") {
        out += one + text[close];
        at = close + 1;
      } else {
        depth += 1;
        out += one + line();
      }
    } else if (one === "}" || one === "]") {
      depth -= 1;
      out += line() + one;
    } else if (one === ",") {
      out += one + line();
    } else if (one === ":") {
      out += ": ";
    } else if (!" \t\r\n".includes(one)) {
      out += one;
    }
  }
  return out;
}

/** What is wrong with a text that should be JSON, or "". @param {string} text */
export function fault(text) {
  try {
    JSON.parse(text);
    return "";
  } catch (error) {
    return /** @type {Error} */ (error).message;
  }
}

/** @param {string} text @param {number} at */
function afterSpace(text, at) {
  while (at < text.length && " \t\r\n".includes(/** @type {string} */ (text[at]))) at += 1;
  return at;
}

/** Behind the closing quote of the string that begins at `at`. @param {string} text @param {number} at */
function endOfString(text, at) {
  for (let end = at + 1; ; end += 1) {
    end = text.indexOf('"', end);
    if (end < 0) return text.length;
    let slashes = 0;
    while (text[end - 1 - slashes] === "\\") slashes += 1;
    if (slashes % 2 === 0) return end + 1;
  }
}

/** Behind the value that begins at `at`. @param {string} text @param {number} at */
function endOfValue(text, at) {
  let depth = 0;
  while (at < text.length) {
    const one = /** @type {string} */ (text[at]);
    if (one === '"') {
      at = endOfString(text, at);
      if (depth === 0) return at;
      continue;
    }
    if (one === "{" || one === "[") depth += 1;
    else if (one === "}" || one === "]") {
      if (depth === 0) return at;
      depth -= 1;
      if (depth === 0) return at + 1;
    } else if (depth === 0 && (one === "," || " \t\r\n".includes(one))) return at;
    at += 1;
  }
  return at;
}
