"""token: make, list and revoke access tokens, over HTTP or directly in the store, and narrow one without a
server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import click

from presque import tokens
from presque.cli.backup import directory_of, own_store
from presque.cli.connection import connected, server_options
from presque.cli.fields import json_option
from presque.cli.groups import NearestGroup
from presque.cli.settings import loaded
from presque.cli.terminal import print_answer, print_json, table
from presque.client.address import token_of
from presque.commands.tokens import described
from presque.config.settings import Settings
from presque.engine.access import Access, NewToken
from presque.engine.engine import Engine
from presque.errors import PresqueError, shown
from presque.exits import NOT_FOUND, Failure, wrong_or_failed
from presque.quantities import milliseconds, moment
from presque.server.serving import address_of
from presque.store.address import Address

Command = TypeVar("Command", bound=Callable[..., Any])
T = TypeVar("T")

source_option = click.option(
    "--source",
    "sources",
    metavar="NETWORK",
    multiple=True,
    help="It is valid from this network only; repeatable.",
)


@click.group(cls=NearestGroup, short_help="Make, list, revoke and narrow access tokens.")
def token() -> None:
    """Make, list, revoke and narrow access tokens.

    `new`, `list` and `revoke` ask the server at --url, with a token that allows `admin:*`. With --data,
    --redis or --config they work on the store itself instead, whether a server runs or not: so the first
    token is made.
    """


def store_options(command: Command) -> Command:
    """Add the options that name a store to work on directly. The command gets the settings of the store as
    `store`, None if a server is to be asked."""

    @wraps(command)
    def at_store(
        *args: Any,
        data: str | None,
        redis: str | None,
        config: str | None,
        store_namespace: str | None,
        **others: Any,
    ) -> Any:
        return command(*args, store=_store_of(data, redis, config, store_namespace), **others)

    for flag, variable, text in (
        ("--store-namespace", "NAME", "The setting `namespace` of that store.  [default: presque]"),
        ("--config", "FILE", "Work directly on the store that this settings file names."),
        ("--redis", "URL", "Work directly on this store."),
        ("--data", "DIR", "Work directly on presque's own store in this directory."),
    ):
        at_store = click.option(flag, metavar=variable, help=text)(at_store)
    return cast(Command, at_store)


@token.command(short_help="Make an access token and print it, this once.")
@click.argument("name")
@click.option(
    "--allow",
    metavar="RULE",
    multiple=True,
    required=True,
    help="What it allows, such as push:mail*; repeatable.",
)
@click.option("--deny", metavar="RULE", multiple=True, help="What it denies, whatever it allows; repeatable.")
@click.option("--expires", metavar="WHEN", help="It expires after this long (`30d`), or at this moment.")
@source_option
@click.option("--rate", metavar="COUNT[/TIME]", help="How many requests at most, such as `100/1s`.")
@click.option("--namespace", metavar="NAME", help="It is valid in this namespace only.")
@json_option("Print all of it as JSON.")
@store_options
@server_options
def new(
    name: str,
    allow: tuple[str, ...],
    deny: tuple[str, ...],
    expires: str | None,
    sources: tuple[str, ...],
    rate: str | None,
    namespace: str | None,
    as_json: bool,
    store: Settings | None,
    url: str,
    token: str | None,
) -> None:
    """Make an access token for NAME and print it. Nobody can show it again.

    A rule is CLASS:PATTERN. The classes are push, fetch, lease (with all that ends a lease), read, control
    and admin, or * for all of them; the pattern is that of a queue, such as `mail` or `mail*`.
    """
    ends = None if expires is None else _moment(expires)
    count, ms = (None, None) if rate is None else _rate(rate)
    if store is None:
        told = {"count": count, "seconds": ms / 1000} if count is not None and ms is not None else None
        with connected(url, token) as client:
            made: Mapping[str, Any] = client.new_token(
                name,
                allow=allow,
                deny=deny,
                expires=None if ends is None else ends / 1000,
                sources=sources,
                rate=told,
                namespace=namespace,
            )
    else:
        wanted = NewToken(
            name=name, allow=allow, deny=deny, expires=ends, sources=sources,
            rate=None if count is None or ms is None else (count, ms), namespace=namespace,
        )  # fmt: skip

        async def make(access: Access) -> Mapping[str, Any]:
            text, record = await access.make(wanted)
            return {"token": text, **described(record)}

        made = _directly(store, make)
    print_answer(made, made["token"], as_json=as_json)


@token.command("list", short_help="List the access tokens, without their secrets.")
@json_option()
@store_options
@server_options
def list_(
    as_json: bool,
    store: Settings | None,
    url: str,
    token: str | None,
) -> None:
    """List the access tokens, without their secrets, which nobody can show again."""
    if store is None:
        with connected(url, token) as client:
            found: Sequence[Mapping[str, Any]] = client.tokens()
    else:

        async def read(access: Access) -> list[Mapping[str, Any]]:
            await access.look()
            return [described(record) for _, record in sorted(access.records.items())]

        found = _directly(store, read)
    found = sorted(found, key=lambda one: one["created_at"])
    if as_json:
        print_json(found)
    elif not found:
        click.echo("there are no access tokens")
    else:
        header = ("id", "name", "namespace", "allow", "deny", "expires", "sources")
        rows = [_row(one) for one in found]
        click.echo(table(header, rows, elastic=(1, 3, 4, 6), first_to_go=(6, 5, 4)))


@token.command(short_help="Make an access token invalid, everywhere and at once.")
@click.argument("id")
@store_options
@server_options
def revoke(
    id: str,
    store: Settings | None,
    url: str,
    token: str | None,
) -> None:
    """Make the access token ID invalid, and what was made of it: narrower tokens, sessions, links.

    Every server refuses it within a second, and ends what still waits or streams in its name. You may give
    the token itself in place of its id: only the id in it is used.
    """
    id = tokens.id_of(id)
    if store is None:
        with connected(url, token) as client:
            client.revoke_token(id)
    elif not _directly(store, lambda access: access.remove(id)):
        raise Failure(f"there is no access token `{shown(id)}`", NOT_FOUND)
    click.echo(f"{id} is revoked")


@token.command(short_help="Make a token that may do less, without asking a server.")
@click.option("--allow", metavar="RULE", multiple=True, help="It allows nothing but this; repeatable.")
@click.option("--deny", metavar="RULE", multiple=True, help="It denies this; repeatable.")
@click.option("--expires", metavar="WHEN", help="It expires after this long (`1h`), or at this moment.")
@source_option
@click.option(
    "--namespace", metavar="NAME", help="It is valid in this namespace only; for a token of no namespace."
)
@click.option(
    "--token", envvar="PRESQUE_TOKEN", metavar="TOKEN", help="The token to narrow; better in PRESQUE_TOKEN."
)
def narrow(
    allow: tuple[str, ...],
    deny: tuple[str, ...],
    expires: str | None,
    sources: tuple[str, ...],
    namespace: str | None,
    token: str | None,
) -> None:
    """Print a token that may do less than the one in PRESQUE_TOKEN. It ends when that one is revoked."""
    try:
        given = token_of(token)
        if given is None:
            raise click.UsageError("say which token to narrow, in PRESQUE_TOKEN")
        ends = None if expires is None else _moment(expires) / 1000
        click.echo(
            tokens.narrow(given, allow=allow, deny=deny, expires=ends, sources=sources, namespace=namespace)
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None


# --- how it is written


def _moment(text: str) -> int:
    """A time from now, or a moment, as epoch milliseconds."""
    with contextlib.suppress(ValueError):
        if not text.isdigit():
            return int(time.time() * 1000) + milliseconds(text)
    try:
        return moment(text)
    except ValueError:
        raise click.UsageError(f"`--expires` should be a time as 30d, or a moment, not `{text}`") from None


def _rate(text: str) -> tuple[int, int]:
    count, _, within = text.partition("/")
    with contextlib.suppress(ValueError):
        if count.isdigit() and int(count) > 0 and (ms := milliseconds(within or "1s")) > 0:
            return int(count), ms
    raise click.UsageError(f"`--rate` should be a count and a time, such as 100/1s, not `{text}`")


def _row(of: Mapping[str, Any]) -> tuple[str, ...]:
    lists = {name: " ".join(of[name]) or "-" for name in ("allow", "deny", "sources")}
    return (
        of["id"],
        of["name"],
        of["namespace"] or "-",
        lists["allow"],
        lists["deny"],
        of["expires"] or "-",
        lists["sources"],
    )


# --- directly on the store


def _store_of(
    data: str | None, redis: str | None, config: str | None, namespace: str | None
) -> Settings | None:
    """The settings of the store to work on directly, None if a server is to be asked."""
    if data is None and redis is None and config is None:
        if namespace is not None:
            raise click.UsageError("--store-namespace goes with --data, --redis or --config")
        return None
    return loaded({"data": data, "redis.url": redis, "namespace": namespace}, config=config).settings


def _directly(settings: Settings, work: Callable[[Access], Coroutine[Any, Any, T]]) -> T:
    try:
        return asyncio.run(_on_store(settings, work))
    except PresqueError as error:
        raise Failure(str(error), wrong_or_failed(error)) from None


async def _on_store(settings: Settings, work: Callable[[Access], Coroutine[Any, Any, T]]) -> T:
    async with _address(settings) as address:
        engine = Engine(address, settings.namespace)
        try:
            await engine.store.connect()
            return await work(engine.access)
        finally:
            await engine.stop()


@contextlib.asynccontextmanager
async def _address(settings: Settings) -> AsyncIterator[Address]:
    if settings.redis is not None:
        yield address_of(settings.redis)
        return
    async with own_store(settings, directory_of(settings, "")) as path:
        yield Address(unix=str(path))
