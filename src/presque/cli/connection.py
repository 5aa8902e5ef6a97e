"""What the commands that talk to a server share: which one it is, and what becomes of a refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

import click

from presque.cli.contexts import chosen, read
from presque.cli.remedies import remedy
from presque.client import Client, ClientError
from presque.client.address import DEFAULT_URL
from presque.client.exits import exit_code
from presque.exits import Failure

Command = TypeVar("Command", bound=Callable[..., Any])


def server_options(command: Command) -> Command:
    """Add `--url`, `--token` and `--context` to a command. It gets the server that they mean as `url` and
    `token`."""

    @wraps(command)
    def at_server(*args: Any, url: str | None, token: str | None, context: str | None, **others: Any) -> Any:
        server = chosen(url, token, context)
        click.get_current_context().meta[ORIGIN] = server.origin
        return command(*args, url=server.url, token=server.token, **others)

    whose = "Your access token; better in PRESQUE_TOKEN, or in a context."
    named = "The server of this name: see `presque context`."
    for option in (
        click.option("--token", metavar="TOKEN", help=whose),
        click.option("--context", metavar="NAME", shell_complete=context_names, help=named),
        click.option("--url", metavar="URL", help=f"The server; also PRESQUE_URL.  [default: {DEFAULT_URL}]"),
    ):
        at_server = option(at_server)
    return cast(Command, at_server)


ORIGIN = "presque.server.origin"
"""Where the context of click says who named the server; empty if nobody did."""


def context_names(_context: click.Context, _param: click.Parameter, begun: str) -> list[str]:
    """The named servers that complete what was begun."""
    try:
        return [name for name in read().named if name.startswith(begun)]
    except Failure:
        return []


def queue_names(context: click.Context, _param: click.Parameter, begun: str) -> list[str]:
    """The names of queues that complete what was begun; none if the server does not say so at once."""
    said = (context.params.get(name) for name in ("url", "token", "context"))
    try:
        server = chosen(*said)
        with Client(server.url, server.token, timeout=1) as client:
            return client.queues(f"{begun}*")
    except (ClientError, ValueError, Failure):
        return []


QUEUE = click.argument("queue", shell_complete=queue_names)
QUEUES = click.argument("queues", shell_complete=queue_names)


@contextmanager
def connected(url: str, token: str | None, worker: str | None = None) -> Iterator[Client]:
    """A client for one command. What the server refuses inside becomes a `Failure`."""
    try:
        client = Client(url, token, worker=worker)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    try:
        with client:
            yield client
    except ClientError as error:
        raise failure(error) from None


def failure(error: ClientError, more: str = "") -> Failure:
    """`error` with its exit code, and with `more` to say about it."""
    todo = remedy(error)
    return Failure(f"{error}{more}{f'; {todo}' if todo else ''}", exit_code(error))
