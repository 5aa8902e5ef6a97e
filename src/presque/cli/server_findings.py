"""What doctor finds through a server that answers: one function a question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from presque.cli.findings import Finding
from presque.cli.remedies import remedy
from presque.cli.terminal import age
from presque.cli.trouble import trouble
from presque.cli.worker import SILENT_S, is_silent
from presque.client import Client, ClientError, ServerNotReached
from presque.config.settings import is_loopback
from presque.quantities import counted
from presque.version import __version__

TIMEOUT_S = 5
NAMED_MOST = 3
BAD = 3
"""The level of trouble from which on doctor speaks of a queue."""
KEPT = ("Every job is on disk", "A crash of presque or the store loses no job")
"""How the sentence about durability begins when a crash of the server loses nothing."""
TODO = {
    "stopped": "`presque start {queue}`, unless somebody stopped it on purpose",
    "no worker": "start a worker, or see why none asks for it: presque workers",
    "failing": "see why: presque jobs {queue} --state dead, or presque top",
    "late": "start more workers, or see what holds them up: presque job {queue} ID --explain",
}


def of_server(url: str, token: str | None, *, named: bool) -> Iterator[Finding]:
    """A server answers, and what it knows of itself, its queues and its workers. Only one that was asked for
    by name must be there."""
    try:
        with Client(url, token, timeout=TIMEOUT_S) as client:
            answer = client.all_stats()
            yield server(url, answer)
            yield durability(answer)
            yield from tokens(url, answer)
            for look in (queues, workers, recurring):
                try:
                    yield from look(client, answer)
                except ServerNotReached:
                    raise
                except ClientError as error:  # a token may allow to read some things only
                    yield Finding(look.__name__, "warn", "not looked at", str(error))
    except ClientError as error:
        absent = isinstance(error, ServerNotReached) and not error.sent
        todo = remedy(error) or f"see whether {url} is a presque server"
        yield Finding("server", "warn" if absent and not named else "fail", str(error), todo)
    except ValueError as error:
        yield Finding("server", "fail", str(error), "correct --url or --token")


def server(url: str, answer: Mapping[str, Any]) -> Finding:
    """It takes jobs, and is of this version."""
    size = answer.get("size", "?")
    seen = f"{answer.get('version', 'unknown version')} at {url}, {counted(size, 'queue')}"
    disk = answer.get("disk")
    if disk and disk.get("full"):
        return Finding("server", "fail", seen, "it refuses pushes: its disk is nearly full, so make room")
    if answer.get("version") != __version__:
        return Finding("server", "warn", seen, f"this command line is {__version__}: use the same version")
    return Finding("server", "ok", f"{seen}; store: {answer.get('redis', '?')}")


def durability(answer: Mapping[str, Any]) -> Finding:
    """A crash of it loses no job."""
    said = str(answer.get("durability", "unknown"))
    if said.startswith(KEPT):
        return Finding("durability", "ok", said)
    return Finding("durability", "warn", said, "keep jobs on a disk, unless you can lose them: --data")


def tokens(url: str, answer: Mapping[str, Any]) -> Iterator[Finding]:
    """A server on a network has access tokens."""
    if "tokens" not in answer:
        return
    if answer["tokens"]:
        yield Finding("tokens", "ok", "requests need one")
    elif is_loopback(urlsplit(url).hostname or ""):
        yield Finding("tokens", "ok", "none; it is reached from this machine")
    else:
        todo = "anybody who reaches it can take and delete jobs: presque token new"
        yield Finding("tokens", "warn", "none, and it is on a network", todo)


def queues(client: Client, answer: Mapping[str, Any]) -> Iterator[Finding]:
    """Queues are worked on: all of them, page by page."""
    found = dict(answer.get("by_queue", {}))
    while cursor := answer.get("cursor"):
        answer = client.all_stats(cursor=cursor)
        found |= answer["by_queue"]
    bad = [(name, of, trouble(of)) for name, of in found.items()]
    bad = sorted((one for one in bad if one[2].level >= BAD), key=lambda one: (-one[2].level, one[0]))
    if not bad:
        yield Finding("queues", "ok", "none is late, failing or without workers")
    for name, of, wrong in bad[:NAMED_MOST]:
        seen = f"{name}: {wrong.word}, {of['ready']} ready, the oldest for {age(of['oldest_seconds'])}"
        yield Finding("queue", "warn", seen, TODO[wrong.word].format(queue=name))
    if len(bad) > NAMED_MOST:
        yield Finding("queues", "warn", f"{len(bad) - NAMED_MOST} more in trouble", "presque top")


def workers(client: Client, _: Mapping[str, Any]) -> Iterator[Finding]:
    """Workers report."""
    found = client.worker_records()
    silent = [one["worker_id"] for one in found if is_silent(one)]
    if not silent:
        yield Finding("workers", "ok", counted(len(found), "worker"))
        return
    named = ", ".join(silent[:NAMED_MOST]) + (", …" if len(silent) > NAMED_MOST else "")
    todo = "end them where they run; their jobs come back when the leases end"
    yield Finding("workers", "warn", f"not heard from for {SILENT_S} s or more: {named}", todo)


def recurring(client: Client, _: Mapping[str, Any]) -> Iterator[Finding]:
    """Recurring jobs can be read."""
    found = client.crons()
    broken = [one for one in found if one["broken"]]
    if not broken:
        yield Finding("recurring", "ok", counted(len(found), "recurring job"))
    for one in broken[:NAMED_MOST]:
        todo = f"define it again: presque cron set {one['name']} …"
        yield Finding("recurring", "warn", f"{one['name']} is not pushed: {one['broken']}", todo)
