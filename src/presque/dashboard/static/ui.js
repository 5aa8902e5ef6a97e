// What the views are made of: components and their state, from Preact, its signals and htm. Types: ui.d.ts.

import htm from "./vendor/htm.js";
import { h } from "./vendor/preact.js";

export { Fragment, render } from "./vendor/preact.js";
export { useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
export { batch, computed, effect, signal, useComputed, useSignal } from "./vendor/signals.js";

// Texts become text nodes; nothing here makes markup out of a text.
export const html = htm.bind(h);
