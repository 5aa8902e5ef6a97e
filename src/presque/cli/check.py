"""check: one line and an exit code for Nagios, Icinga and all that call plugins like theirs.

The form is that of the Monitoring Plugins Development Guidelines: the state and a text, then `|` and the
numbers, each as `'label'=value;warn;crit;min`. A number is wrong when it is above its threshold; free disk,
when it is below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from presque.cli.connection import queue_names, server_options
from presque.cli.groups import sentence
from presque.cli.terminal import age, printable
from presque.cli.trouble import SERIOUS, trouble
from presque.cli.worker import SILENT_S, is_silent
from presque.client import Client, ClientError, ServerNotReached, Unavailable
from presque.client.answers import Disk, QueueCounts
from presque.exits import Failure
from presque.quantities import counted, milliseconds, size
from presque.server.about import size_of

Command = TypeVar("Command", bound=Callable[..., Any])
OK, WARNING, CRITICAL, UNKNOWN = range(4)
WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
SHOWN_MOST = 60
"""Numbers behind `|`; if there are more, only those that are wrong are shown."""
TIMEOUT_S = 10


class Plugin(click.Command):
    """A command whose every end is a state: what cannot be found out is UNKNOWN, and a server that does not
    answer is CRITICAL."""

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """Read the command line; a mistake in it is UNKNOWN."""
        try:
            return super().make_context(*args, **options)
        except click.UsageError as error:
            error.ctx = error.ctx or click.Context(self, info_name=self.name)
            raise _ended(UNKNOWN, sentence(error)) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            ended = _ended(UNKNOWN, sentence(error))
        except (ServerNotReached, Unavailable) as error:
            ended = _ended(CRITICAL, str(error))
        except (Failure, ClientError, ValueError) as error:
            ended = _ended(UNKNOWN, str(error))
        raise ended


def _ended(state: int, text: str) -> click.exceptions.Exit:
    # A bar would begin the numbers.
    click.echo(f"PRESQUE {WORDS[state]} - {printable(' '.join(text.split())).replace('|', '/')}")
    return click.exceptions.Exit(state)


@dataclass(frozen=True, slots=True)
class Bounds:
    """From where on a number is a warning, and from where on critical."""

    warning: float | None
    critical: float | None

    def state(self, value: float, *, least: bool = False) -> int:
        """OK, WARNING or CRITICAL, for a value above the bounds, or below them if they are the `least`."""
        for state, bound in ((CRITICAL, self.critical), (WARNING, self.warning)):
            if bound is not None and (value < bound if least else value > bound):
                return state
        return OK

    def written(self, *, least: bool = False) -> str:
        """As the numbers behind `|` have them."""
        ends = ":" if least else ""
        return ";".join("" if one is None else f"{one:.15g}{ends}" for one in (self.warning, self.critical))


NONE = Bounds(None, None)


class OfBounds(click.ParamType[Bounds]):
    """`WARN,CRIT`, `WARN` or `,CRIT`, each a number, a duration or a size."""

    name = "WARN,CRIT"

    def __init__(self, kind: str, *, least: bool = False) -> None:
        self.kind, self.least = kind, least

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Bounds:
        """Read the two, or fail as click wants it."""
        if isinstance(value, Bounds):
            return value
        warning, _, critical = str(value).partition(",")
        try:
            found = Bounds(self._one(warning), self._one(critical))
        except ValueError:
            self.fail(f"should be WARN,CRIT, each {self.kind}, not `{value}`", param, ctx)
        if found == NONE:
            self.fail("has neither WARN nor CRIT", param, ctx)
        if found.warning is not None and found.critical is not None:
            ordered = sorted((found.warning, found.critical), reverse=self.least)
            if ordered[0] != found.warning:
                self.fail(f"WARN should come before CRIT, not `{value}`", param, ctx)
        return found

    def _one(self, text: str) -> float | None:
        text = text.strip()
        if not text:
            return None
        if self.kind.startswith("a duration"):
            return milliseconds(text) / 1000
        if self.kind.startswith("a size"):
            return size(text)
        if not text.isdecimal():
            raise ValueError(text)
        return float(text)


COUNT, DURATION, SIZE = "a whole number", "a duration such as 5m", "a size such as 5GiB"


def _bounds(flag: str, kind: str, text: str, *, least: bool = False) -> Callable[[Command], Command]:
    return click.option(flag, type=OfBounds(kind, least=least), metavar="WARN,CRIT", default=NONE, help=text)


@click.command(cls=Plugin, short_help="Check queues for a monitoring system, as a Nagios plugin does.")
@click.argument("queues", required=False, shell_complete=queue_names)
@_bounds("--ready", COUNT, "More ready jobs in a queue than this.")
@_bounds("--oldest", DURATION, "A job has been ready longer than this, such as 5m,1h.")
@_bounds("--dead", COUNT, "More dead jobs in a queue than this; 0 is a good WARN.")
@_bounds("--silent", COUNT, f"More workers than this not heard from for {SILENT_S} s.")
@_bounds("--disk", SIZE, "Less free disk under presque's own store, such as 20GiB,5GiB.", least=True)
@server_options
def check(
    queues: str | None, ready: Bounds, oldest: Bounds, dead: Bounds, silent: Bounds, disk: Bounds, url: str,
    token: str | None,
) -> None:  # fmt: skip
    """Check queues for a monitoring system, as a Nagios plugin does.

    Prints one line with numbers. Exits with 0 for OK, 1 for WARNING, 2 for CRITICAL, 3 for UNKNOWN.

    QUEUES are names and patterns; without them all queues are looked at, each by itself. A server that is not
    reached, has no store or refuses pushes since its disk is full is CRITICAL. A queue that is named and not
    there is UNKNOWN. Needs a token that allows `read`.
    """
    with Client(url, token, timeout=TIMEOUT_S) as client:
        counts, about = _counts(client, queues)
        workers = client.worker_records() if silent != NONE else []
    for name in _named(queues):
        if name not in counts:
            raise click.UsageError(f"there is no queue `{name}`")
    asked = (("ready", ready), ("oldest", oldest), ("dead", dead))
    numbers = [number for name, of in counts.items() for number in _of_queue(name, of, asked)]
    if silent != NONE:
        gone = sum(map(is_silent, workers))
        numbers.append(
            Number("silent_workers", gone, "", silent, f"{counted(gone, 'worker')} not heard from")
        )
    if disk != NONE or (about and about["full"]):
        numbers.append(_free(about, disk))
    bounds = (*asked, ("silent", silent), ("disk", disk))
    _say(numbers, counts, unbounded=all(bound == NONE for _, bound in bounds))


@dataclass(frozen=True, slots=True)
class Number:
    """One number that was looked at, its bounds, and how it reads in a sentence."""

    label: str
    value: float
    unit: str
    bounds: Bounds
    text: str
    least: bool = False
    wrong: bool = False
    """Whether it is critical, whatever the bounds say."""

    @property
    def state(self) -> int:
        return CRITICAL if self.wrong else self.bounds.state(self.value, least=self.least)

    def __str__(self) -> str:
        """As it stands behind `|`."""
        label = f"'{self.label}'" if not self.label.replace("_", "").isalnum() else self.label
        return f"{label}={self.value:.15g}{self.unit};{self.bounds.written(least=self.least)};0"


def _counts(client: Client, queues: str | None) -> tuple[dict[str, QueueCounts], Disk | None]:
    """The counts of all queues that are looked at, page by page, and what the server says of its disk."""
    found: dict[str, QueueCounts] = {}
    cursor: str | None = None
    while True:
        answer = client.all_stats(queues, cursor=cursor)
        found |= answer["by_queue"]
        cursor = answer.get("cursor")
        if cursor is None:
            return found, answer["disk"]


def _named(queues: str | None) -> list[str]:
    """Those parts of a queue list that are names."""
    return [one for one in (queues or "").split(",") if one and not set("*?!") & set(one)]


def _of_queue(name: str, of: QueueCounts, asked: Iterable[tuple[str, Bounds]]) -> Iterator[Number]:
    oldest = of["oldest_seconds"]
    stopped = "" if of["status"] else ", and the queue is stopped"
    values: Mapping[str, tuple[float, str, str]] = {
        "ready": (of["ready"], "", f"{name} has {counted(of['ready'], 'ready job')}{stopped}"),
        "oldest": (oldest or 0, "s", f"the oldest job of {name} is ready for {age(oldest)}{stopped}"),
        "dead": (of["dead"], "", f"{name} has {counted(of['dead'], 'dead job')}"),
    }
    for what, bounds in asked:
        value, unit, text = values[what]
        yield Number(f"{name} {what}", value, unit, bounds, text)


def _free(about: Disk | None, bounds: Bounds) -> Number:
    if about is None or about["free"] is None:
        raise click.UsageError("the server does not know how much disk its store has: watch that disk itself")
    text = f"{size_of(about['free'])} of disk free"
    if about["full"]:
        text = f"pushes are refused: {text}, and min_free_disk is {size_of(about['min_free'])}"
    return Number("disk_free", about["free"], "B", bounds, text, least=True, wrong=about["full"])


def _hints(counts: Mapping[str, QueueCounts]) -> list[str]:
    """Which queues need somebody, though no threshold says so."""
    found = [f"{name}: {trouble(of).word}" for name, of in counts.items() if trouble(of).level >= SERIOUS]
    return found[:3] + ([f"{len(found) - 3} more in trouble"] if len(found) > 3 else [])


def _say(numbers: list[Number], counts: Mapping[str, QueueCounts], *, unbounded: bool) -> None:
    worst = sorted(numbers, key=lambda one: -one.state)
    state = worst[0].state if worst else OK
    wrong = [one for one in worst if one.state]
    if wrong:
        text = "; ".join(one.text for one in wrong[:3])
        text += f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    else:
        ready = sum(of["ready"] for of in counts.values())
        text = f"{counted(len(counts), 'queue')}, {counted(ready, 'ready job')}"
        text = "; ".join((text, *_hints(counts), *(["no thresholds given"] if unbounded else [])))
    shown = worst if len(worst) <= SHOWN_MOST else wrong[:SHOWN_MOST]
    behind = f" | {' '.join(map(str, shown))}" if shown else ""
    click.echo(f"PRESQUE {WORDS[state]} - {text}{behind}")
    raise click.exceptions.Exit(state)
