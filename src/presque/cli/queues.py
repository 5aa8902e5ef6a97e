"""stats, queues, start, stop, purge: the commands about queues."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, cast

import click

from presque.cli.connection import QUEUE, connected, queue_names, server_options
from presque.cli.fields import assigned, json_option, watch_option
from presque.cli.groups import NearestGroup
from presque.cli.terminal import age, confirmed, pairs, print_json, shown, table
from presque.client import Client
from presque.client.json_values import encoded
from presque.errors import nearest
from presque.exits import DONE, FAILED, NOT_FOUND, Failure
from presque.verbs import VERBS

FIELDS_OF_A_POLICY = {name: field for name, field in VERBS["change_policy"].fields.items() if name != "queue"}
_COUNTS = ("ready", "scheduled", "leased", "done", "dead", "processed", "failed", "expired")

LEAST = (
    "expired",
    "done",
    "failed",
    "processed",
    "done/min",
    "pushed/min",
    "scheduled",
    "dead",
    "leased",
    "oldest",
)
"""Which columns of `stats` a narrow terminal does without, these first."""


@click.command(short_help="Show what the queues hold and have done.")
@click.argument("queue", required=False, shell_complete=queue_names)
@click.option("--queues", metavar="LIST", help="Only these queues, such as 'mail_*,!mail_test'.")
@click.option("--busy", is_flag=True, help="Only queues that hold jobs which are not dead.")
@json_option()
@watch_option
@server_options
def stats(
    queue: str | None, queues: str | None, busy: bool, as_json: bool, watch: bool, url: str, token: str | None
) -> None:
    """Show what queues hold and have done: one queue, or all of them, at most 1000."""
    if queue is not None and (queues is not None or busy):
        raise click.UsageError("name one queue, or choose among all with --queues and --busy")
    with connected(url, token) as client:
        if queue is not None and not watch and (unknown := no_such_queue(client, queue)):
            raise Failure(unknown, NOT_FOUND)

        def text() -> str:
            answer: Mapping[str, Any] = (
                client.all_stats(queues, busy=busy or None) if queue is None else client.stats(queue)
            )
            if as_json:
                return encoded(answer)
            return all_queues(answer) if queue is None else one_queue(answer)

        shown(text, watch=watch)


def no_such_queue(client: Client, queue: str) -> str:
    """A sentence if there is no queue of this name, with the one that may have been meant; else nothing."""
    if client.queues(queue):
        return ""
    known = client.queues()
    close = f", {nearest(queue, known)}" if known and get_close_matches(queue, known, n=1) else ""
    return f"there is no queue `{queue}`{close}"


def note_unknown(client: Client, queue: str) -> None:
    """Say so on standard error if there is no queue of this name: it may be a typing error, or meant for
    later."""
    if unknown := no_such_queue(client, queue):
        click.echo(f"presque: note: {unknown}", err=True)


def all_queues(answer: Mapping[str, Any]) -> str:
    """Where the store is and what it promises, then one row a queue."""
    rows = [("store", str(answer.get("redis", ""))), ("durability", str(answer.get("durability", "")))]
    top = pairs([row for row in rows if row[1]], 12)
    queues = answer.get("by_queue", {})
    if not queues:
        none = (
            "no queue matches" if answer.get("size") else "no queues yet: presque push QUEUE BODY makes one"
        )
        return f"{top}\n\n{none}"
    header = ("queue", *_COUNTS, "oldest", "pushed/min", "done/min", "")
    body = [
        (
            name,
            *(str(of[count]) for count in _COUNTS),
            age(of["oldest_seconds"]),
            str(of["last_minute"]["pushed"]),
            str(of["last_minute"]["processed"]),
            "" if of["status"] else "stopped",
        )
        for name, of in sorted(queues.items())
    ]
    columns = table(
        header,
        body,
        right=range(1, len(header) - 1),
        elastic=(0,),
        first_to_go=[header.index(one) for one in LEAST],
    )
    said = f"{top}\n\n{columns}"
    if "cursor" in answer:
        said += f"\n\n{len(queues)} of {answer['size']} queues; for others: presque stats --queues 'PATTERN'"
    return said


def one_queue(of: Mapping[str, Any]) -> str:
    """One line a number."""
    minute = of["last_minute"]
    rows = [
        ("queue", of["queue"]),
        ("status", "started" if of["status"] else "stopped"),
        *((count, str(of[count])) for count in _COUNTS),
        ("oldest", age(of["oldest_seconds"])),
        (
            "last minute",
            f"{minute['pushed']} pushed, {minute['processed']} processed, {minute['failed']} failed",
        ),
    ]
    return pairs(rows, 13)


@click.command(short_help="Let a stopped queue hand out jobs again.")
@QUEUE
@server_options
def start(queue: str, url: str, token: str | None) -> None:
    """Let a stopped queue hand out jobs again."""
    with connected(url, token) as client:
        note_unknown(client, queue)
        client.start(queue)
    click.echo(f"{queue} is started")


@click.command(short_help="Stop a queue from handing out jobs; it still accepts them.")
@QUEUE
@server_options
def stop(queue: str, url: str, token: str | None) -> None:
    """Stop a queue from handing out jobs. It still accepts them."""
    with connected(url, token) as client:
        note_unknown(client, queue)
        client.stop(queue)
    click.echo(f"{queue} is stopped: it accepts jobs but hands out none")


@click.command(short_help="Delete all jobs of a queue, and its counters.")
@QUEUE
@click.option("--yes", is_flag=True, help="Do not ask.")
@server_options
def purge(queue: str, yes: bool, url: str, token: str | None) -> int:
    """Delete all jobs of a queue, in every state, and its counters."""
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("not a terminal: pass --yes to delete all jobs of the queue")
    with connected(url, token) as client:
        if not yes:
            waiting = client.size(queue)
            question = f"Delete all jobs of {queue}, {waiting} of them waiting, and its counters?"
            if not confirmed(question):
                return FAILED
        note_unknown(client, queue)
        client.purge(queue)
    click.echo(f"{queue} is purged")
    return DONE


@click.group(cls=NearestGroup, short_help="List, set up or forget queues.")
def queues() -> None:
    """List the queues, show or change the policy of one, or forget one."""


@queues.command("list", short_help="Print the names of all queues.")
@json_option("Print one array.")
@server_options
def list_of_queues(as_json: bool, url: str, token: str | None) -> None:
    """Print the names of all queues, one a line."""
    with connected(url, token) as client:
        names = client.queues()
    if as_json:
        print_json(names)
    else:
        click.echo("".join(f"{name}\n" for name in names), nl=False)


@queues.command("policy", short_help="Show or change the policy of a queue.")
@QUEUE
@click.argument("changes", nargs=-1, metavar="[NAME=VALUE…]")
@json_option()
@server_options
def policy(queue: str, changes: tuple[str, ...], as_json: bool, url: str, token: str | None) -> None:
    """Show the policy of a queue, after changing the fields that are given.

    As in `lease=5m max_leased=20 rate.count=10 rate.seconds=1m`. A value of `null` restores the default.
    """
    wanted = assigned(FIELDS_OF_A_POLICY, changes)
    with connected(url, token) as client:
        found = client.change_policy(queue, **cast(Any, wanted)) if wanted else client.policy(queue)
    if as_json:
        print_json(found)
    else:
        click.echo(pairs(_lines_of(found), 22))


def _lines_of(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The fields of a policy as `policy` takes them."""
    for name, value in found.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{part}", _text(of)) for part, of in value.items())
        else:
            yield name, _text(value)


def _text(value: object) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


@queues.command("forget", short_help="Delete a queue and all that is known of it.")
@QUEUE
@click.option("--yes", is_flag=True, help="Do not ask.")
@server_options
def forget(queue: str, yes: bool, url: str, token: str | None) -> int:
    """Delete all jobs of a queue, and the queue itself: its name, policy, ids and counters."""
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("not a terminal: pass --yes to delete the queue and all its jobs")
    with connected(url, token) as client:
        if not yes and not confirmed(f"Delete {queue}, its {client.size(queue)} waiting jobs and all else?"):
            return FAILED
        note_unknown(client, queue)
        client.purge(queue, forget=True)
    click.echo(f"{queue} is forgotten")
    return DONE
