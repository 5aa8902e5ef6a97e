"""tail: shows what happens, as it happens, out of the events of a server."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlencode

import click

from presque.cli.connection import server_options
from presque.cli.fields import json_option
from presque.cli.streaming import opened
from presque.cli.terminal import print_answer, printable
from presque.client.address import Address, server, token_of
from presque.client.exchange import reason_of
from presque.exits import NOT_REACHED, Failure

AGAIN_S, AGAIN_MOST_S = 0.5, 10.0
COUNTS = ("ready", "scheduled", "leased", "done", "dead")


class Lost(Exception):
    """The connection to the server."""


class Event(NamedTuple):
    """One event of a server: its name, what it says, and where to go on after it."""

    name: str
    said: dict[str, Any]
    id: str


@click.command(short_help="Show what happens, as it happens.")
@click.argument("queues", required=False)
@click.option("--jobs", is_flag=True, help="Also what happens to each job.")
@json_option("Print each event as a line of JSON.")
@server_options
def tail(queues: str | None, jobs: bool, as_json: bool, url: str, token: str | None) -> None:
    """Show what happens, as it happens: how the counts of queues change, until Ctrl-C.

    QUEUES are names and patterns: 'critical,mail_*'. It waits for a server that is away.
    """
    try:
        address, bearer = server(url), token_of(token)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    asked = {name: value for name, value in (("queues", queues), ("jobs", "1" if jobs else None)) if value}
    last, pause, reached = "", AGAIN_S, False
    while True:
        try:
            for event in _events(address, bearer, asked, last):
                reached, pause, last = True, AGAIN_S, event.id or last
                print_answer({"event": event.name, **event.said}, line_of(event), as_json=as_json)
            why = "the server ended the stream"
        except Lost as error:  # what cannot be printed is another thing, and ends the command
            why = str(error)
        if not reached:
            raise Failure(
                f"no server at {url}: {why}; start one with `presque serve`, or pass --url",
                NOT_REACHED,
            )
        click.echo(f"presque: {printable(why)}; trying again", err=True)
        time.sleep(pause)
        pause = min(pause * 2, AGAIN_MOST_S)


def _events(address: Address, token: str | None, asked: dict[str, str], last: str) -> Iterator[Event]:
    """The events of one connection. Raises `Failure` when the server refuses, `Lost` when it goes."""
    headers = {"Accept": "text/event-stream"}
    headers |= {"Last-Event-ID": last} if last else {}
    try:
        with opened(address, token, f"/events?{urlencode(asked)}", headers) as answer:
            yield from parsed(line.decode() for line in answer)
    except (OSError, http.client.HTTPException) as error:
        raise Lost(reason_of(error)) from error


def parsed(lines: Iterator[str]) -> Iterator[Event]:
    """The events in a stream of server-sent events, as the HTML standard says: one may hold several pairs of
    `event` and `data` before its `id`, as presque writes them."""
    name, told, id = "", list[tuple[str, str]](), ""
    for line in lines:
        field, _, value = line.rstrip("\r\n").partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            told.append((name, value))
        elif field == "id":
            id = value
        elif not field and not value and told:
            for position, (of, text) in enumerate(told):
                yield Event(of, json.loads(text), id if position == len(told) - 1 else "")
            told = []


def line_of(event: Event) -> str:
    """An event for people."""
    said, now = event.said, time.strftime("%H:%M:%S")
    if event.name == "job":
        return printable(f"{now}  {said['queue']}/{said['id']}  {said['what']}")
    if event.name == "left_out":
        count = "some jobs" if said["count"] is None else f"{said['count']} more"
        return printable(f"{now}  {said['queue'] or '*'}  {count}")
    if said.get("forgotten"):
        return printable(f"{now}  {said['queue']}  forgotten")
    counts = ", ".join(f"{said[name]} {name}" for name in COUNTS if said.get(name)) or "empty"
    new = ", ".join(f"{count} {name}" for name, count in said["new"].items())
    return printable(f"{now}  {said['queue']}  {counts}" + (f"  (new: {new})" if new else ""))
