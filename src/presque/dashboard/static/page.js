// Shows what /stats/ says, every two seconds while the page is seen. Names come from strangers: all text
// goes through textContent, and the page may load nothing from elsewhere (see pages.py).

const EVERY_MS = 2000;
const ROWS_MOST = 500;

const element = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const count = (value) => number.format(value);

const COLUMNS = [
  { name: "Queue", value: (q) => q.name, text: (q) => q.name, first: "ascending" },
  { name: "State", value: (q) => q.status, text: (q) => (q.status ? "▶ started" : "■ stopped"), first: "ascending" },
  { name: "Ready", value: (q) => q.ready },
  { name: "Scheduled", value: (q) => q.scheduled },
  { name: "Leased", value: (q) => q.leased },
  { name: "Dead", value: (q) => q.dead },
  { name: "Oldest", value: (q) => q.oldest_seconds ?? -1, text: (q) => duration(q.oldest_seconds) },
  { name: "In / min", value: (q) => q.last_minute.pushed },
  { name: "Out / min", value: (q) => q.last_minute.processed },
  { name: "Processed", value: (q) => q.processed },
  { name: "Failed", value: (q) => q.failed },
  { name: "Expired", value: (q) => q.expired },
];
const TOTALS = ["Ready", "Scheduled", "Leased", "Dead", "Processed", "Failed"].map((name) => [name, name.toLowerCase()]);

let queues = [];
let sorting = { column: 0, direction: "ascending" };
let awaySince = null;
let timer = null;

function duration(seconds) {
  if (seconds === null) return "–";
  if (seconds < 1) return "now";
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return `${Math.floor(seconds)} s`;
}

function make(tag, text, properties = {}) {
  return Object.assign(document.createElement(tag), { textContent: text }, properties);
}

function heads() {
  return COLUMNS.map((column, index) => {
    const head = make("th", "", { scope: "col" });
    if (index === sorting.column) head.setAttribute("aria-sort", sorting.direction);
    const button = make("button", column.name, { type: "button" });
    button.addEventListener("click", () => sortBy(index));
    head.append(button);
    return head;
  });
}

function sortBy(index) {
  const other = { ascending: "descending", descending: "ascending" };
  const direction = index === sorting.column ? other[sorting.direction] : COLUMNS[index].first ?? "descending";
  sorting = { column: index, direction };
  element("columns").replaceChildren(...heads());
  element("columns").children[index].firstChild.focus();
  showRows();
}

function row(queue) {
  const line = document.createElement("tr");
  COLUMNS.forEach((column, index) => {
    const text = column.text ? column.text(queue) : count(column.value(queue));
    const cell = make(index === 0 ? "th" : "td", text);
    if (index === 0) Object.assign(cell, { scope: "row", title: queue.name });
    if (text === "0" || text === "–") cell.className = "none";
    if (column.name === "State" && !queue.status) cell.className = "stopped";
    line.append(cell);
  });
  return line;
}

function showRows() {
  const wanted = element("filter").value.trim().toLowerCase();
  const found = queues.filter((queue) => queue.name.toLowerCase().includes(wanted));
  const { value } = COLUMNS[sorting.column];
  const sign = sorting.direction === "ascending" ? 1 : -1;
  found.sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    return (x < y ? -sign : x > y ? sign : 0) || (a.name < b.name ? -1 : 1);
  });
  element("rows").replaceChildren(...found.slice(0, ROWS_MOST).map(row));
  const all = queues.length === 1 ? "1 queue" : `${count(queues.length)} queues`;
  const parts = found.length === queues.length ? [all] : [count(found.length), all];
  if (found.length > ROWS_MOST) parts.unshift(`the first ${ROWS_MOST}`);
  element("shown").textContent = parts.join(" of ");
}

function show(stats) {
  queues = stats.queues.map((name) => ({ name, ...stats.by_queue[name] }));
  element("about").textContent = `${stats.version} · ${stats.redis}. ${stats.durability}`;
  element("totals").replaceChildren(
    ...TOTALS.map(([name, field]) => {
      const pair = document.createElement("div");
      pair.append(make("dt", name), make("dd", count(queues.reduce((sum, queue) => sum + queue[field], 0))));
      return pair;
    }),
  );
  element("totals").hidden = element("queues").hidden = queues.length === 0;
  element("empty").hidden = queues.length > 0;
  showRows();
}

function showAway(error) {
  awaySince ??= new Date();
  const away = element("away");
  away.hidden = false;
  away.textContent = `No answer from the server since ${awaySince.toLocaleTimeString()} (${error.message}). Trying again.`;
}

async function look() {
  try {
    const response = await fetch("stats/", { signal: AbortSignal.timeout(10000) });
    if (!response.ok) throw new Error((await response.json()).error);
    show(await response.json());
    awaySince = null;
    element("away").hidden = true;
  } catch (error) {
    showAway(error);
  }
  timer = document.hidden ? null : setTimeout(look, EVERY_MS);
}

element("columns").append(...heads());
element("filter").addEventListener("input", showRows);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && timer === null) look();
});
const here = new URL(".", location.href).href;
element("try").textContent = `curl ${here}q/hello -d '{"to": "you"}'\ncurl ${here}q/hello`;
look();
