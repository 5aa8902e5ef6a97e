"""cron: the commands about recurring jobs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from presque.cli.connection import connected, server_options
from presque.cli.fields import given, json_option, options_of, watch_option
from presque.cli.groups import NearestGroup
from presque.cli.terminal import one_line, pairs, print_answer, print_json, printable, shown, table
from presque.client.answers import Cron
from presque.client.json_values import decoded, encoded

OPTIONS = ("timezone", "missed", "overlap", "priority", "ttl", "attempts", "keep", "group")


@click.group(cls=NearestGroup, short_help="Show and control recurring jobs.")
def cron() -> None:
    """Define, list, run, pause or delete recurring jobs: jobs that are pushed on a schedule."""


@cron.command("list", short_help="List the recurring jobs.")
@json_option()
@watch_option
@server_options
def list_of_crons(as_json: bool, watch: bool, url: str, token: str | None) -> None:
    """List the recurring jobs: when each is pushed, when next, and how its last job ended."""
    with connected(url, token) as client:

        def text() -> str:
            found = client.crons()
            if as_json:
                return encoded(found)
            if not found:
                return "no recurring jobs: presque cron set NAME QUEUE BODY SCHEDULE makes one"
            header = ("name", "queue", "schedule", "zone", "next", "last", "")
            return table(header, map(_row, found), elastic=(0, 1, 2, 5, 6), first_to_go=(3, 1))

        shown(text, watch=watch)


def _row(one: Cron) -> tuple[str, ...]:
    state = f"broken: {one['broken']}" if one["broken"] else "paused" if one["paused"] else ""
    following = one["next"][0] if one["next"] and not one["paused"] else "-"
    named = (one["name"], one["queue"], one["schedule"], one["timezone"], following, _last(one), state)
    return tuple(printable(one_line(str(text or "-" if text is None else text))) for text in named)


def _last(one: Cron) -> str:
    """How the job ended that ended last."""
    found = one["last_outcome"]
    if found is None:
        return "-"
    error = f": {found['error']}" if "error" in found else ""
    return f"{found['outcome']} {found['at']}{error}"


@cron.command("show", short_help="Show one recurring job.")
@click.argument("name")
@json_option()
@server_options
def show(name: str, as_json: bool, url: str, token: str | None) -> None:
    """Show all that is known of one recurring job."""
    with connected(url, token) as client:
        found = client.cron(name)
    print_answer(found, pairs(_rows(found), 15), as_json=as_json)


def _rows(of: Cron) -> Iterator[tuple[str, str]]:
    """One row a fact, those that there are; the moments to come one below the other."""
    for name, value in of.items():
        if name == "next":
            moments = of["next"] or ["-"]
            yield from (("next" if position == 0 else "", moment) for position, moment in enumerate(moments))
        elif value is not None:
            text = value if isinstance(value, str) and name != "body" else encoded(value)
            yield name, printable(one_line(text))


@cron.command("set", short_help="Define a recurring job.")
@click.argument("name")
@click.argument("queue")
@click.argument("body")
@click.argument("schedule")
@options_of("put_cron", *OPTIONS)
@json_option()
@server_options
def define(
    name: str,
    queue: str,
    body: str,
    schedule: str,
    as_json: bool,
    url: str,
    token: str | None,
    **options: Any,
) -> None:
    """Push BODY to QUEUE on a schedule, under NAME.

    SCHEDULE is cron fields, `@daily` and the like, or `@every 5m`. A recurring job of the same name is
    replaced.
    """
    try:
        value = decoded(body)
    except ValueError:
        raise click.UsageError('BODY should be a JSON document, such as \'{"report": "daily"}\'') from None
    with connected(url, token) as client:
        made = client.put_cron(name, queue, value, schedule, **given(options))
    if as_json:
        print_json(made)
    else:
        words = made["words"] or "on its schedule"
        click.echo(f"{name} is pushed {words[:1].lower()}{words[1:]}, next at {made['next'][0]}")


@cron.command("run", short_help="Push the job of a recurring job now.")
@click.argument("name")
@json_option("Print an object with the name and the id.")
@server_options
def run(name: str, as_json: bool, url: str, token: str | None) -> None:
    """Push the job of a recurring job now, and print its id. Its moments stay as they are."""
    with connected(url, token) as client:
        id = client.run_cron(name)
    print_answer({"name": name, "id": id}, id, as_json=as_json)


@cron.command("pause", short_help="Pause a recurring job until it is resumed.")
@click.argument("name")
@json_option()
@server_options
def pause(name: str, as_json: bool, url: str, token: str | None) -> None:
    """Pause a recurring job until it is resumed."""
    with connected(url, token) as client:
        found = client.pause_cron(name)
    print_answer(found, f"{name} is paused", as_json=as_json)


@cron.command("resume", short_help="Resume a recurring job, from its next moment on.")
@click.argument("name")
@json_option()
@server_options
def resume(name: str, as_json: bool, url: str, token: str | None) -> None:
    """Resume a recurring job, from its next moment on."""
    with connected(url, token) as client:
        found = client.resume_cron(name)
    following = f", next at {found['next'][0]}" if found["next"] else ""
    print_answer(found, f"{name} is resumed{following}", as_json=as_json)


@cron.command("delete", short_help="Delete a recurring job.")
@click.argument("name")
@server_options
def delete(name: str, url: str, token: str | None) -> None:
    """Delete a recurring job. The jobs that it has pushed stay."""
    with connected(url, token) as client:
        client.delete_cron(name)
    click.echo(f"{name} is deleted")
