"""What `presque top` shows: the state of its screen, and the lines that follow from it. No I/O."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from presque.cli.columns import GAP, cut, fitted, width_of, wrapped
from presque.cli.full_screen import Line
from presque.cli.terminal import age, one_line, printable
from presque.cli.trouble import ordered, trouble
from presque.cli.worker import is_silent, memory_of, works_on
from presque.client.answers import Disk, JobRecord, QueueCounts, WorkerRecord
from presque.client.json_values import encoded
from presque.quantities import counted

Panel = Literal["queues", "workers", "failures"]
PANELS: tuple[Panel, ...] = ("queues", "workers", "failures")
HELP = (
    ("up, down, page", "choose a row"),
    ("tab", "queues, workers, failures"),
    ("enter", "the failures of the chosen queue"),
    ("s", "stop the queue; let the worker finish and be quiet"),
    ("g", "start the queue, or the worker, again"),
    ("x", "let the worker finish and end"),
    ("r", "retry the dead jobs of the queue, or this job"),
    ("d", "delete this dead job"),
    ("o", "next order: trouble, name, ready, dead, oldest, done"),
    ("/", "show only names that contain a text; empty for all"),
    ("space", "freeze the numbers, or let them run"),
    ("q, Ctrl-C", "end; Ctrl-Z stops"),
)
STALE_S = 6.0


Row = tuple[str, tuple[str, ...], str]
"""A row of a table: the key by which it is known, its cells, and its style."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the server said at a moment. `at` is of the wall clock, `heard` of the monotonic one."""

    at: float
    heard: float
    version: str
    disk: Disk | None
    size: int
    queues: Mapping[str, QueueCounts]
    workers: Sequence[WorkerRecord] = ()
    failures: Sequence[JobRecord] = ()


@dataclass(slots=True)
class Page:
    """What somebody who sits in front of it has chosen."""

    url: str
    panel: Panel = "queues"
    order: str = "trouble"
    holding: str = ""
    of_queue: str | None = None
    """Whose failures are shown; None for those of all queues with dead jobs."""
    chosen: dict[Panel, str] = field(default_factory=dict)
    """The key of the chosen row of each panel: it stays chosen when the order changes."""
    first: dict[Panel, int] = field(default_factory=dict)
    """The first row that is shown."""
    typing: bool = False
    question: str = ""
    message: str = ""
    helping: bool = False
    held: bool = False
    away: str = ""

    def keys(self, seen: Seen) -> list[str]:
        """The keys of the rows of the panel, in order."""
        return [key for key, _, _ in self._rows(seen)]

    def here(self, seen: Seen) -> str | None:
        """The key of the row that is chosen: the first, unless another one is."""
        keys = self.keys(seen)
        found = self.chosen.get(self.panel)
        return found if found in keys else keys[0] if keys else None

    def move(self, seen: Seen, by: int) -> None:
        """Choose the row this many further down."""
        keys = self.keys(seen)
        if keys:
            now = keys.index(self.here(seen) or keys[0])
            self.chosen[self.panel] = keys[min(max(now + by, 0), len(keys) - 1)]

    def _rows(self, seen: Seen) -> list[Row]:
        if self.panel == "workers":
            return _worker_rows(seen, self.holding)
        return _failure_rows(seen, self.holding) if self.panel == "failures" else _queue_rows(seen, self)

    def lines(self, seen: Seen, columns: int, height: int, now: float) -> list[Line]:
        """The screen. No line is wider than `columns`, and there are no more than `height`."""
        top = self._top(seen, columns, now)
        body = (
            self._help(columns, height - len(top) - 1)
            if self.helping
            else self._table(seen, columns, height - len(top) - 1)
        )
        room = max(height - len(top) - 1, 0)
        lines = [*top, *body[:room], *[Line("")] * (room - len(body)), self._bottom(columns)]
        return [Line(cut(printable(line.text), columns), line.style) for line in lines[-height:]]

    # --- top and bottom

    def _top(self, seen: Seen, columns: int, now: float) -> list[Line]:
        clock = time.strftime("%H:%M:%S", time.localtime(seen.at))
        lines = [Line(f"{clock}  presque {seen.version}  {self.url}", "head")]
        lines += [Line(part) for part in wrapped(_totals(seen), columns, "  ")]
        tabs = "  ".join(f"[{name}]" if name == self.panel else name for name in PANELS)
        facts = [tabs]
        if self.panel == "queues":
            facts.append(f"by {self.order}")
        if self.panel == "failures":
            facts.append(f"of {self.of_queue or 'all queues'}")
        if self.holding:
            facts.append(f"holding {self.holding!r}")
        if self.held:
            facts.append("held")
        if len(keys := self.keys(seen)) > 1:
            facts.append(f"row {keys.index(self.here(seen) or '') + 1} of {len(keys)}")
        lines.append(Line("   ".join(facts)))
        silent = now - seen.heard
        if self.away:
            lines.append(Line(f"AWAY for {age(silent)}: {self.away}; trying again", "bad"))
        elif silent > STALE_S and not self.held:
            lines.append(Line(f"NO ANSWER for {age(silent)}; waiting", "bad"))
        elif seen.disk is not None and seen.disk["full"]:
            lines.append(Line("DISK FULL: pushes are refused; see `presque doctor`", "bad"))
        return lines

    def _bottom(self, columns: int) -> Line:
        if self.question:
            return Line(f"{self.question} [y/N]", "warn")
        if self.typing:
            return Line(f"/{self.holding}_", "warn")
        if self.message:
            return Line(self.message, "warn")
        return Line(wrapped(_KEYS[self.panel], columns, "  ")[0], "old")

    def _help(self, columns: int, room: int) -> list[Line]:
        column = max(width_of(keys) for keys, _ in HELP) + GAP
        lines = [Line("")]
        for keys, means in HELP:
            parts = wrapped(means.split(), max(columns - column, 1))
            lines += [Line(f"{keys if i == 0 else '':{column}}{part}") for i, part in enumerate(parts)]
        if len(lines) > room:  # then rather all keys, each with the beginning of what it does
            lines = [Line(""), *(Line(line) for line in fitted(HELP, columns, (), (1,), ())[0])]
        return lines

    # --- the table

    def _table(self, seen: Seen, columns: int, room: int) -> list[Line]:
        rows = self._rows(seen)
        if not rows:
            return [Line(""), Line(_NOTHING[self.panel], "old")]
        keys = [key for key, _, _ in rows]
        here = keys.index(self.here(seen) or keys[0])
        shown = max(room - 1, 1)
        first = min(max(self.first.get(self.panel, 0), here - shown + 1, 0), here)
        first = max(min(first, len(rows) - shown), 0)
        self.first[self.panel] = first
        part = rows[first : first + shown]
        header, right, elastic, going = _COLUMNS[self.panel]
        cells = [header, *(tuple(map(printable, one)) for _, one, _ in part)]
        written, _ = fitted(cells, columns - 2, right, elastic, going)
        lines = [Line(f"  {written[0]}", "head")]
        for i, text in enumerate(written[1:]):
            mark, style = ("> ", "chosen") if first + i == here else ("  ", part[i][2])
            lines.append(Line(f"{mark}{text}", style))
        return lines


_KEYS: Mapping[Panel, Sequence[str]] = {
    "queues": ("? help", "q quit", "s stop", "g start", "r retry", "o order", "/ filter", "tab workers"),
    "workers": ("? help", "q quit", "s quiet", "g start", "x stop", "/ filter", "tab failures"),
    "failures": ("? help", "q quit", "r retry", "d delete", "/ filter", "tab queues"),
}
"""What the last line says, as far as there is room."""
_NOTHING = {
    "queues": "no queues: presque push QUEUE BODY makes one",
    "workers": "no workers: presque worker MODULE:CLASS starts one",
    "failures": "no dead jobs",
}
_COLUMNS: Mapping[Panel, tuple[tuple[str, ...], Collection[int], Collection[int], Sequence[int]]] = {
    "queues": (
        ("queue", "ready", "leased", "later", "dead", "oldest", "in/min", "out/min", "failed/min", ""),
        range(1, 9), (0,), (3, 2, 6, 8, 7, 4, 5),
    ),
    "workers": (
        ("worker", "state", "works on", "done", "failed", "memory", "seen"),
        (3, 4, 5), (1, 2), (4, 3, 5, 6, 2),
    ),
    "failures": (("queue", "job", "attempt", "when", "error"), (2,), (0, 4), (3, 2)),
}  # fmt: skip
_STYLE_OF = {4: "bad", 3: "bad", 2: "warn", 1: "", 0: ""}


def _totals(seen: Seen) -> list[str]:
    of = seen.queues.values()
    minute = [one["last_minute"] for one in of]
    silent = sum(map(is_silent, seen.workers))
    queues = counted(seen.size, "queue")
    return [
        f"{len(seen.queues)} of {queues}: presque top 'PATTERN'" if len(seen.queues) < seen.size else queues,
        f"{sum(one['ready'] for one in of)} ready",
        f"{sum(one['leased'] for one in of)} leased",
        f"{sum(one['scheduled'] for one in of)} later",
        f"{sum(one['dead'] for one in of)} dead",
        f"{sum(one['pushed'] for one in minute)}/min in",
        f"{sum(one['processed'] for one in minute)}/min out",
        f"{sum(one['failed'] for one in minute)}/min failed",
        counted(len(seen.workers), "worker") + (f", {silent} silent" if silent else ""),
    ]


def _queue_rows(seen: Seen, page: Page) -> list[Row]:
    found: list[Row] = []
    for name, of in ordered(seen.queues, page.order, page.holding):
        minute, wrong = of["last_minute"], trouble(of)
        numbers = (of["ready"], of["leased"], of["scheduled"], of["dead"])
        rates = (minute["pushed"], minute["processed"], minute["failed"])
        cells = (name, *map(str, numbers), age(of["oldest_seconds"]), *map(str, rates), wrong.word)
        found.append((name, cells, _STYLE_OF[wrong.level]))
    return found


def _worker_rows(seen: Seen, holding: str) -> list[Row]:
    found: list[Row] = []
    for one in sorted(seen.workers, key=lambda one: (not is_silent(one), one["worker_id"])):
        report, silent = one["report"] or {}, is_silent(one)
        if holding.lower() not in one["worker_id"].lower():
            continue
        state = "silent" if silent else str(report.get("state", "-"))
        if not silent and one["status"] != "start":
            state = f"{state}, asked to {one['status']}"
        done, failed = report.get("processed", one["processed"]), report.get("failed", one["failed"])
        cells = (
            one["worker_id"], one_line(state), one_line(works_on(report)) or "-", str(done), str(failed),
            memory_of(report), f"{age(one['silent_seconds'])} ago",
        )  # fmt: skip
        found.append((one["worker_id"], cells, "bad" if silent else ""))
    return found


def _failure_rows(seen: Seen, holding: str) -> list[Row]:
    found: list[Row] = []
    for job in seen.failures:
        error = job["errors"][-1]["error"] if job["errors"] else job.get("reason", "")
        text = one_line(f"{error}  {encoded(job['body'])}")
        if holding.lower() not in f"{job['queue']} {text}".lower():
            continue
        attempt = f"{job['attempt']}/{job['max_attempts']}"
        cells = (job["queue"], job["id"], attempt, str(job["finished_at"] or "-"), text)
        found.append((f"{job['queue']}/{job['id']}", cells, ""))
    return found
