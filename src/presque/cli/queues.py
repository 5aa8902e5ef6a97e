"""stats, start, stop, purge: the commands about queues."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import click

from presque.cli.connection import connected, server_options
from presque.cli.exits import DONE, FAILED
from presque.cli.terminal import table

_COUNTS = ("ready", "scheduled", "leased", "done", "dead", "processed", "failed", "expired")


@click.command(short_help="Show what the queues hold and did.")
@click.argument("queue", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print what the server says, as JSON.")
@server_options
def stats(queue: str | None, as_json: bool, url: str, token: str | None) -> None:
    """Show what the queues hold and did: all of them, or one."""
    with connected(url, token) as client:
        answer: Mapping[str, Any] = client.all_stats() if queue is None else client.stats(queue)
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False, indent=2))
    elif queue is not None:
        click.echo(one_queue(answer))
    else:
        click.echo(all_queues(answer))


def all_queues(answer: Mapping[str, Any]) -> str:
    """Where the store is and what it promises, then one row a queue."""
    rows = [("store", str(answer.get("redis", ""))), ("durability", str(answer.get("durability", "")))]
    top = "\n".join(f"{name:10}  {value}" for name, value in rows if value)
    queues = answer.get("by_queue", {})
    if not queues:
        return f"{top}\n\nno queues yet: presque push QUEUE BODY makes one"
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
    return f"{top}\n\n{table(header, body, right=range(1, len(header) - 1))}"


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
    return "\n".join(f"{name:11}  {value}" for name, value in rows)


def age(seconds: float | None) -> str:
    """How long something waits, in its two largest units: `1.2s`, `4m05s`, `3h20m`, `2d4h`."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600}h"


@click.command(short_help="Let a stopped queue hand out jobs again.")
@click.argument("queue")
@server_options
def start(queue: str, url: str, token: str | None) -> None:
    """Let a stopped queue hand out jobs again."""
    with connected(url, token) as client:
        client.start(queue)
    click.echo(f"{queue} is started")


@click.command(short_help="Let a queue hand out nothing; it still takes jobs.")
@click.argument("queue")
@server_options
def stop(queue: str, url: str, token: str | None) -> None:
    """Let a queue hand out nothing. It still takes jobs."""
    with connected(url, token) as client:
        client.stop(queue)
    click.echo(f"{queue} is stopped: it takes jobs and hands out none")


@click.command(short_help="Delete all jobs of a queue, and its counters.")
@click.argument("queue")
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
            if not click.confirm(question, err=True):
                click.echo("nothing was deleted", err=True)
                return FAILED
        client.purge(queue)
    click.echo(f"{queue} is purged")
    return DONE
