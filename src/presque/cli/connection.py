"""What the commands that talk to a server share: --url and --token, and the exit code of each refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from presque.cli.exits import CONFLICT, FAILED, NOT_ALLOWED, NOT_FOUND, NOT_REACHED, NOTHING_THERE, Failure
from presque.client import (
    Client,
    ClientError,
    Conflict,
    NotAllowed,
    NotFound,
    QueueClosed,
    ServerNotReached,
)
from presque.client.address import DEFAULT_URL

_EXIT_CODES: tuple[tuple[type[ClientError], int], ...] = (
    (ServerNotReached, NOT_REACHED),
    (NotAllowed, NOT_ALLOWED),
    (QueueClosed, NOTHING_THERE),
    (NotFound, NOT_FOUND),
    (Conflict, CONFLICT),
    (ClientError, FAILED),
)

Command = TypeVar("Command", bound=Callable[..., Any])


def server_options(command: Command) -> Command:
    """Add `--url` and `--token` to a command."""
    command = click.option(
        "--token", envvar="PRESQUE_TOKEN", metavar="TOKEN", help="Who you are; better in PRESQUE_TOKEN."
    )(command)
    return click.option(
        "--url",
        envvar="PRESQUE_URL",
        default=DEFAULT_URL,
        metavar="URL",
        show_default=True,
        help="The server.",
    )(command)


@contextmanager
def connected(url: str, token: str | None) -> Iterator[Client]:
    """A client for one command. What the server refuses inside becomes a `Failure`."""
    try:
        client = Client(url, token)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    try:
        with client:
            yield client
    except ClientError as error:
        raise failure(error) from None


def failure(error: ClientError, more: str = "") -> Failure:
    """`error` with its exit code, and with `more` to say about it."""
    code = next(code for kind, code in _EXIT_CODES if isinstance(error, kind))
    if isinstance(error, ServerNotReached) and not error.sent:
        more += "; start one with `presque serve`, or say where it is with --url"
    return Failure(f"{error}{more}", code)
