// Charts of what happened over time, drawn by uPlot, each with a table that says the same.

import { count, duration, moment, rate } from "../format.js";
import { html, useEffect, useRef } from "../ui.js";

/** @typedef {{name: string, values: (number|null)[], ink: string, dash?: number[]}} Line */

const UPLOT = "../vendor/uplot.js";
/** @type {Promise<any>|null} */
let loading = null;

/** uPlot is fetched when the first chart is drawn. */
function uPlot() {
  loading ??= import(UPLOT).then((found) => found.default);
  return loading;
}

/**
 * @param {{title: string, at: number[], lines: Line[], kind: "count"|"rate"|"seconds", each: string}} props `at` in epoch seconds
 */
export function Chart({ title, at, lines, kind, each }) {
  const box = useRef(/** @type {HTMLDivElement|null} */ (null));
  const drawn = useRef(/** @type {any} */ (null));
  const text = kind === "seconds" ? duration : kind === "rate" ? rate : count;
  const names = lines.map((line) => line.name).join();

  useEffect(() => {
    let gone = false;
    const look = matchMedia("(prefers-color-scheme: dark)");
    /** @type {ResizeObserver|undefined} */
    let sizes;
    const draw = async () => {
      const Plot = await uPlot();
      const place = box.current;
      if (gone || !place) return;
      drawn.current?.destroy();
      const colour = (/** @type {string} */ name) => getComputedStyle(place).getPropertyValue(name);
      const resolved = (/** @type {string} */ name) => resolve(place, name) || colour(name);
      const axis = { stroke: resolved("--soft"), grid: { stroke: resolved("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
      drawn.current = new Plot({
        width: place.clientWidth, height: place.clientHeight, legend: { show: false }, cursor: { y: false, points: { size: 6 } },
        scales: { y: { range: (/** @type {any} */ _, /** @type {number} */ low, /** @type {number} */ high) => [0, Math.max(high, kind === "seconds" ? 0.01 : 1) * 1.1 + Math.min(0, low)] } },
        axes: [{ ...axis, space: 70, size: 26, values: [[3600 * 24, "{DD}.{MM}."], [3600, "{HH}:{mm}"], [60, "{HH}:{mm}"], [1, "{HH}:{mm}:{ss}"]].map(([step, format]) => [step, format, null, null, null, null, null, null, 1]) },
          { ...axis, size: 58, space: 34, values: (/** @type {any} */ _, /** @type {number[]} */ marks) => marks.map((mark) => text(mark)) }],
        series: [{}, ...lines.map((line) => ({ label: line.name, stroke: resolved(line.ink), width: 1.5, dash: line.dash, points: { size: 4 }, spanGaps: false }))],
      }, [at, ...lines.map((line) => line.values)], place);
    };
    draw();
    if (box.current) {
      sizes = new ResizeObserver(() => {
        const place = box.current;
        if (place && drawn.current) drawn.current.setSize({ width: place.clientWidth, height: place.clientHeight });
      });
      sizes.observe(box.current);
    }
    const themes = new MutationObserver(draw);
    themes.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    look.addEventListener("change", draw);
    return () => {
      gone = true;
      sizes?.disconnect();
      themes.disconnect();
      look.removeEventListener("change", draw);
      drawn.current?.destroy();
      drawn.current = null;
    };
  }, [names, kind]);
  useEffect(() => {
    drawn.current?.setData([at, ...lines.map((line) => line.values)]);
  }, [at]);

  return html`<figure class="stack chart-figure">
    <figcaption><h3>${title} <span class="soft small">${each}</span></h3>
      <span class="chart-legend">${lines.map((line) => html`<span key=${line.name}><svg viewBox="0 0 20 8" aria-hidden="true"><path d="M0 4H20" stroke=${`var(${line.ink})`} stroke-dasharray=${line.dash?.join(" ")} /></svg>${line.name}</span>`)}</span></figcaption>
    <div class="chart" ref=${box} role="img" aria-label=${`${title}: ${lines.map((line) => `${line.name} last ${textOf(line, text)}`).join(", ")}. The table below says the same.`}></div>
    <details><summary class="small">As a table</summary><div class="scroll twin" tabindex="0" role="region" aria-label=${`${title}, as a table`}><table><thead><tr><th scope="col">From</th>${lines.map((line) => html`<th key=${line.name} class="n" scope="col">${line.name}</th>`)}</tr></thead>
      <tbody>${[...at.keys()].reverse().map((index) => html`<tr key=${at[index]}><th scope="row" class="number">${moment((at[index] ?? 0) * 1000)}</th>${lines.map((line) => html`<td key=${line.name} class="n">${line.values[index] == null ? "–" : text(/** @type {number} */ (line.values[index]))}</td>`)}</tr>`)}</tbody></table></div></details>
  </figure>`;
}

/** @param {Line} line @param {(value: number) => string} text */
function textOf(line, text) {
  const last = line.values[line.values.length - 1];
  return last == null ? "unknown" : text(last);
}

/** A colour token as the canvas understands it. @param {HTMLElement} place @param {string} name */
function resolve(place, name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  place.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
