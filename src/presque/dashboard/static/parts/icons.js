// Icons: lines on a grid of 16, drawn in the colour of the text. They repeat a word beside them, so no reader hears them.

import { html } from "../ui.js";

const PATHS = /** @type {Record<string, string>} */ ({
  warn: "M8 1.8 15 14H1zM8 6v4M8 12v.2",
  stop: "M4 4h8v8H4z",
  start: "M5 3.5v9l7.5-4.5z",
  pause: "M5.5 3.5v9M10.5 3.5v9",
  ready: "M8 2v9M4.5 7.5 8 11l3.5-3.5M3 14h10",
  leased: "M8 1.5a6.5 6.5 0 1 0 6.5 6.5M8 4.5V8l2.5 1.5",
  scheduled: "M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13M8 4.5V8l2.5 1.5",
  dead: "M4 4l8 8M12 4l-8 8",
  done: "M2.5 8.5 6.5 12.5 13.5 4",
  retry: "M13.5 8a5.5 5.5 0 1 1-1.8-4M12 1v3.2H8.8",
  remove: "M3 4.5h10M6.5 4.5V3h3v1.5M4.5 4.5l.5 9h6l.5-9",
  more: "M8 2.900v.01M8 8v.01M8 13.100v.01",
  search: "M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9M10.3 10.3 14 14",
  pin: "M6 2h4l-.5 5 2 2.5h-7l2-2.5zM8 9.5V14",
  open: "M6 4l4 4-4 4",
  fold: "M4 6l4 4 4-4",
  copy: "M5.5 5.5V3h7.5v7.5h-2.5M3 5.5h7.5V13H3z",
  plus: "M8 3v10M3 8h10",
  worker: "M8 2.5a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5M3 14c0-3 2-4.5 5-4.5s5 1.500 5 4.500",
  silent: "M2 8h2l2-4M10 12l2-4h2M3 13 13 3",
  disk: "M2.5 5C2.500 3 13.500 3 13.500 5v6c0 2-11 2-11 0zM2.500 5c0 2 11 2 11 0",
  light: "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6M8 1v1.500M8 13.500V15M1 8h1.500M13.500 8H15M3 3l1 1M12 12l1 1M3 13l1-1M12 4l1-1",
  dark: "M13.500 9.500A6 6 0 0 1 6.500 2.500a6 6 0 1 0 7 7",
  auto: "M8 1.500a6.500 6.500 0 1 0 0 13 6.500 6.500 0 0 0 0-13M8 1.500v13M10 3v10M12 4.500v7",
  help: "M6 6a2 2 0 1 1 2.700 1.900c-.5.2-.7.6-.7 1.600M8 12v.2",
  cron: "M3 3.500h10v10H3zM3 6.500h10M6 2v3M10 2v3",
  edit: "M10.500 2.500l3 3L6 13l-3.500.5L3 10z",
  close: "M4 4l8 8M12 4l-8 8",
  live: "M2 8h3l2-5 2.500 10L11.500 8H14",
  lock: "M4 7.500h8v6H4zM5.500 7.500V5a2.500 2.500 0 0 1 5 0v2.500",
  eye: "M1.500 8C4 3.500 12 3.500 14.500 8 12 12.500 4 12.500 1.500 8M8 6a2 2 0 1 0 0 4 2 2 0 0 0 0-4",
  fail: "M8 1.500a6.500 6.500 0 1 0 0 13 6.500 6.500 0 0 0 0-13M8 4.500v4M8 11v.2",
});

/** @param {{name: string, class?: string}} props */
export function Icon({ name, class: more = "" }) {
  return html`<svg class=${`icon ${more}`} viewBox="0 0 16 16" aria-hidden="true" focusable="false">
    <path d=${PATHS[name] ?? PATHS.more} />
  </svg>`;
}
