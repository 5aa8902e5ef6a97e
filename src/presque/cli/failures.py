"""failures: the command that shows the errors of all queues by their kind."""

from __future__ import annotations

from typing import Literal

import click

from presque.cli.connection import connected, queue_names, server_options
from presque.cli.fields import json_option, watch_option
from presque.cli.terminal import EVERY_S, print_job, table, watched
from presque.client import Client
from presque.client.answers import FailureKind
from presque.client.json_values import encoded
from presque.exits import DONE, NOTHING_THERE
from presque.quantities import counted
from presque.verbs import VERBS

QUEUES_NAMED = 3


@click.command(short_help="Show the errors of dead jobs, grouped by their kind.")
@click.argument("queues", required=False, shell_complete=queue_names)
@click.option(
    "--state",
    type=click.Choice(VERBS["failures"].fields["state"].words),
    default="dead",
    show_default=True,
    help="Errors of dead jobs, or of jobs scheduled for a retry.",
)
@json_option("Print the kinds as an array.")
@watch_option
@server_options
def failures(
    queues: str | None,
    state: Literal["dead", "scheduled"],
    as_json: bool,
    watch: bool,
    url: str,
    token: str | None,
) -> int:
    """Show the errors of dead jobs, grouped by their kind: those of most jobs first.

    QUEUES is a queue or a list such as 'mail*,video'; without it all queues are looked at. Two errors are of
    the same kind if their first lines differ in numbers only. `presque retry` and `presque delete` take a
    kind as --like. Exits with 7 when there is none.
    """
    with connected(url, token) as client:

        def look() -> tuple[str, bool]:
            kinds, spoilt = found(client, queues, state)
            for queue in spoilt:
                click.echo(f"presque: the queue {queue} cannot be read", err=True)
            return (encoded(kinds) if as_json else all_kinds(kinds)), bool(kinds)

        if watch:
            watched(lambda: look()[0] or "no failures", EVERY_S)
        said, some = look()
    if said:
        print_job(said)
    else:
        click.echo("presque: no failures", err=True)
    return DONE if some else NOTHING_THERE


def all_kinds(kinds: list[FailureKind]) -> str:
    """One row a kind; nothing if there is none."""
    header = ("jobs", "first", "last", "kind", "queues", "sample")
    rows = [
        (str(one["count"]), one["first_at"], one["last_at"], one["like"], where(one),
         f"{one['sample']['queue']}/{one['sample']['id']}")
        for one in kinds
    ]  # fmt: skip
    return table(header, rows, right=(0,), elastic=(3, 4), first_to_go=(1, 4, 2)) if kinds else ""


def found(
    client: Client, queues: str | None, state: Literal["dead", "scheduled"]
) -> tuple[list[FailureKind], list[str]]:
    """Every kind of error, those of most jobs first, and the queues that cannot be read."""
    kinds: dict[str, FailureKind] = {}
    spoilt: set[str] = set()
    cursor = None
    while True:
        page = client.failures(queues, state=state, cursor=cursor)
        spoilt |= set(page["spoilt"])
        for one in page["failures"]:
            known = kinds.get(one["like"])
            kinds[one["like"]] = one if known is None else together(known, one)
        cursor = page["cursor"]
        if cursor is None:
            break
    return sorted(kinds.values(), key=lambda one: (-one["count"], one["like"])), sorted(spoilt)


def together(known: FailureKind, more: FailureKind) -> FailureKind:
    """A kind that two pages have."""
    later = more if more["last_at"] > known["last_at"] else known
    queues = dict(known["queues"])
    for queue, count in more["queues"].items():
        queues[queue] = queues.get(queue, 0) + count
    return {
        **later,
        "first_at": min(known["first_at"], more["first_at"]),
        "count": known["count"] + more["count"],
        "queues": queues,
        "more_queues": known["more_queues"] + more["more_queues"],
    }


def where(kind: FailureKind) -> str:
    """The queues with most of its jobs, and how many others there are."""
    most = sorted(kind["queues"].items(), key=lambda one: (-one[1], one[0]))
    named = ", ".join(f"{queue} {count}" for queue, count in most[:QUEUES_NAMED])
    others = len(most[QUEUES_NAMED:]) + kind["more_queues"]
    return f"{named} and {counted(others, 'other')}" if others else named
