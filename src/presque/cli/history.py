"""history: the command that shows what happened over time."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from presque.cli.columns import GAP, terminal_width, width_of
from presque.cli.connection import connected, queue_names, server_options
from presque.cli.fields import json_option, watch_option
from presque.cli.queues import no_such_queue
from presque.cli.terminal import age, shown, table
from presque.client.json_values import encoded
from presque.exits import NOT_FOUND, Failure
from presque.verbs import VERBS
from presque.verbs.bounds import OVER

BARS = "▁▂▃▄▅▆▇█"
WIDEST = 60  # columns of a sparkline
Join = Callable[[Sequence[float]], float]
COUNTERS = ("pushed", "fetched", "done", "failed", "dead", "expired")
STATES = ("ready", "leased", "scheduled", "dead")


@click.command(short_help="Show what happened over time, as sparklines.")
@click.argument("queue", required=False, shell_complete=queue_names)
@click.option(
    "--over",
    type=click.Choice(VERBS["history"].fields["over"].words),
    default=OVER,
    show_default=True,
    help="The period, up to now.",
)
@json_option()
@watch_option
@server_options
def history(queue: str | None, over: str, as_json: bool, watch: bool, url: str, token: str | None) -> None:
    """Show what happened in a period: to one queue, or to all together.

    On a terminal each figure is a line with its sum, or what holds now, and a sparkline. Elsewhere each
    bucket of time is a line.
    """
    with connected(url, token) as client:
        if queue is not None and not watch and (unknown := no_such_queue(client, queue)):
            raise Failure(unknown, NOT_FOUND)

        def text() -> str:
            answer = client.history(queue, over=over)
            if as_json:
                return encoded(answer)
            return lines(answer) if sys.stdout.isatty() else rows(answer)

        shown(text, watch=watch)


def rows(answer: Mapping[str, Any]) -> str:
    """One row a bucket, the oldest first."""
    of_a_queue = answer["queue"] is not None
    header = ("at", *COUNTERS, *(f"{state} at end" for state in STATES), *(("oldest",) if of_a_queue else ()),
              "wait p50", "wait p95", "run p50", "run p95")  # fmt: skip
    body = [
        (
            one["at"],
            *(str(one[counter]) for counter in COUNTERS),
            *(str(one["depth"][state]) for state in STATES),
            *((_seconds(one["oldest_seconds"]),) if of_a_queue else ()),
            *(_seconds(one[of] and one[of][share]) for of in ("wait", "run") for share in ("p50", "p95")),
        )
        for one in answer["buckets"]
    ]
    return table(header, body, right=range(1, len(header)))


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def lines(answer: Mapping[str, Any]) -> str:
    """One line a figure, with its sparkline."""
    buckets, total = answer["buckets"], answer["total"]
    whose = answer["queue"] or "all queues"
    minutes = answer["seconds"] * len(buckets) / 60
    found: list[tuple[tuple[str, str, str], list[float], Join]] = []
    for counter in COUNTERS:
        said = (counter, str(total[counter]), f"{total[counter] / minutes:.3g}/min")
        found.append((said, [one[counter] for one in buckets], sum))
    for state in STATES:
        name = "dead now" if state == "dead" else state
        said = (name, str(total["depth"][state]), "")
        found.append((said, [one["depth"][state] for one in buckets], max))
    if answer["queue"] is not None:
        oldest = [one["oldest_seconds"] for one in buckets]
        found.append((("oldest", age(oldest[-1]), ""), [one or 0 for one in oldest], max))
    for of in ("wait", "run"):
        values = [one[of] and one[of]["p95"] for one in buckets]
        p50, p95 = (None, None) if total[of] is None else (total[of]["p50"], total[of]["p95"])
        found.append(((f"{of} p95", age(p95), f"p50 {age(p50)}"), [one or 0 for one in values], max))
    words = sum(max(width_of(said[at]) for said, _, _ in found) + GAP for at in range(3))
    room = min(terminal_width() - words, WIDEST)
    rows = [(*said, spark(values, join, room)) for said, values, join in found]
    title = f"{whose}, over {answer['over']}"
    return f"{title}\n\n{table(('', '', '', ''), rows, right=(1, 2)).lstrip()}"


def spark(values: Sequence[float], join: Join, room: int) -> str:
    """A line of at most `room` bars, the highest for the largest value. Values that share a column are
    joined. The least that is not nothing is higher than nothing."""
    if room < 1 or not _has_bars():
        return ""
    each = math.ceil(len(values) / room) or 1
    columns = [join(values[at : at + each]) for at in range(0, len(values), each)]
    most = max(columns, default=0)
    return "".join(
        BARS[min(len(BARS) - 1, math.ceil(value / most * (len(BARS) - 1)))] if most else BARS[0]
        for value in columns
    )


def _has_bars() -> bool:
    """Whether the terminal can show them."""
    try:
        BARS.encode(sys.stdout.encoding or "ascii")
    except (UnicodeError, LookupError):
        return False
    return os.environ.get("TERM") != "dumb"
