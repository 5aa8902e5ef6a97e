// Where the viewer is: the part of the address behind `#`, so that it works below any path, and can be shared.

import { computed, signal } from "./ui.js";

const here = signal(location.hash);
addEventListener("hashchange", () => {
  here.value = location.hash;
});

/** The parts of the path, decoded, and what stands behind its `?`. */
export const place = computed(() => {
  const [path = "", said = ""] = here.value.replace(/^#?\/?/, "").split("?", 2);
  return { parts: path.split("/").filter(Boolean).map(decoded), said: new URLSearchParams(said) };
});

/** @param {string} part */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/**
 * An address within the dashboard: link(["jobs", queue, id], {tab: "errors"}).
 * @param {(string|number)[]} parts
 * @param {Record<string, string|number|null|undefined>} [said]
 */
export function link(parts, said = {}) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(said)) {
    if (value !== undefined && value !== null && value !== "") found.set(name, String(value));
  }
  return `#/${parts.map((part) => encodeURIComponent(part)).join("/")}${found.size ? `?${found}` : ""}`;
}

/** Goes there. @param {string} address @param {boolean} [instead] in place of where the viewer is */
export function go(address, instead = false) {
  if (instead) {
    here.value = address;
    try {
      history.replaceState(null, "", address);
    } catch {
      // Some browsers allow a hundred changes in half a minute. The view is right, the address follows later.
    }
  } else {
    location.hash = address;
  }
}

/** Changes what stands behind the `?` of where the viewer is. @param {Record<string, string|null>} fields */
export function say(fields) {
  const { parts, said } = place.peek();
  go(link(parts, { ...Object.fromEntries(said), ...fields }), true);
}
