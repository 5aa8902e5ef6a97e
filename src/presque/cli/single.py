"""change and link: what is done to one job that waits, and who else may look at it."""

from __future__ import annotations

from typing import Any, Literal

import click

from presque.cli.connection import QUEUE, connected, server_options
from presque.cli.fields import given, json_option, options_of
from presque.cli.jobs import text_of
from presque.cli.terminal import print_answer
from presque.client.json_values import decoded
from presque.verbs import VERBS

LINK = VERBS["link"].fields


@click.command(short_help="Change a waiting job.")
@QUEUE
@click.argument("id")
@click.argument("body", required=False, metavar="[BODY | @FILE | -]")
@options_of("change", "priority", "delay", "delayed", delayed="at")
@json_option()
@server_options
def change(
    queue: str, id: str, body: str | None, as_json: bool, url: str, token: str | None, **options: Any
) -> None:
    """Change a job that waits: its priority, when it is ready, or its body.

    BODY is the new job, a JSON document; @FILE reads it from a file, - from standard input. A job that is
    leased, done or dead cannot be changed: then the exit code is 6.
    """
    changes = given(options)
    if "delay" in changes and "delayed" in changes:
        raise click.UsageError("--delay and --at contradict each other: use one of them")
    if body is not None:
        try:
            changes["body"] = decoded(text_of(body).decode())
        except ValueError:
            raise click.UsageError('BODY should be a JSON document, such as \'{"to": "ana"}\'') from None
    if not changes:
        raise click.UsageError("say what to change: --priority, --delay, --at or BODY")
    with connected(url, token) as client:
        job = client.change(queue, id, **changes)
    due = f", ready at {job['run_at']}" if job["state"] == "scheduled" else ""
    text = f"job {job['id']} of {job['queue']} is {job['state']}, priority {job['priority']}{due}"
    print_answer(job, text, as_json=as_json)


@click.command(short_help="Make a link with which anyone can read or cancel one job.")
@QUEUE
@click.argument("id")
@click.option(
    "--allow",
    type=click.Choice(LINK["allow"].words),
    default="read",
    show_default=True,
    help=LINK["allow"].means,
)
@options_of("link", "expires")
@json_option()
@server_options
def link(
    queue: str,
    id: str,
    allow: Literal["read", "cancel"],
    expires: float | None,
    as_json: bool,
    url: str,
    token: str | None,
) -> None:
    """Make a link with which anyone who has it can read or cancel one job, and print it.

    It ends with the token that made it, in a day unless --expires names another moment. The server must use
    access tokens.
    """
    with connected(url, token) as client:
        made = client.link(queue, id, allow, expires)
    print_answer(made, f"{url.rstrip('/')}{made['url']}", as_json=as_json)
