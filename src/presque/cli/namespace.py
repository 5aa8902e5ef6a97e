"""namespace: make, list, show, change and delete namespaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from presque.cli.connection import connected, server_options
from presque.cli.fields import json_option
from presque.cli.groups import NearestGroup
from presque.cli.terminal import confirmed, print_json, table
from presque.client.answers import NamespaceInfo
from presque.exits import DONE, FAILED
from presque.quantities import size, size_text, whole

Command = TypeVar("Command", bound=Callable[..., Any])

KINDS = {
    "queues": "How many queues there may be.",
    "jobs": "How many jobs there may be, of every state.",
    "bytes": "How many bytes of jobs there may be, such as 100MiB.",
    "connections": "How many connections may be open.",
    "requests": "How many requests there may be in a second.",
}
NONE = "none"


@click.group(cls=NearestGroup, short_help="Make, list, show, change and delete namespaces.")
def namespace() -> None:
    """Make, list, show, change and delete namespaces: separate sets of queues, each for one tenant. The
    holder of a token of a namespace (`presque token new NAME --namespace NAMESPACE …`) sees nothing else.
    These commands need a token that allows `admin:*` and is of no namespace; `list` and `show` one that
    allows `read:*`.
    """


def quota_options(command: Command) -> Command:
    """Add an option for each quota."""
    for kind, means in reversed(KINDS.items()):
        metavar = "SIZE" if kind == "bytes" else "COUNT"
        command = click.option(f"--{kind}", metavar=metavar, help=f"{means} `{NONE}` for any number.")(
            command
        )
    return command


@namespace.command(short_help="Make a namespace.")
@click.argument("name")
@quota_options
@json_option()
@server_options
def new(name: str, as_json: bool, url: str, token: str | None, **quotas: str | None) -> None:
    """Make the namespace NAME. What no option limits is unlimited."""
    wanted = _quotas(quotas)
    with connected(url, token) as client:
        made = client.new_namespace(name, wanted)
    if as_json:
        print_json(made)
        return
    click.echo(
        f"{name} is made; give out a token with `presque token new NAME --namespace {name} --allow RULE`"
    )


@namespace.command("list", short_help="List the namespaces and their quotas.")
@json_option()
@server_options
def list_(as_json: bool, url: str, token: str | None) -> None:
    """List the namespaces and their quotas, by name."""
    with connected(url, token) as client:
        found = client.namespaces()
    if as_json:
        print_json(found)
    elif not found:
        click.echo("there are no namespaces")
    else:
        rows = [(_called(one), *(_most(one, kind) for kind in KINDS)) for one in found]
        click.echo(table(("name", *KINDS), rows, right=tuple(range(1, 1 + len(KINDS)))))


@namespace.command(short_help="Show one namespace: its quotas, and what there is in it.")
@click.argument("name")
@json_option()
@server_options
def show(name: str, as_json: bool, url: str, token: str | None) -> None:
    """Show the namespace NAME: its quotas, and how much of each is used."""
    with connected(url, token) as client:
        found = client.namespace(name)
    if as_json:
        print_json(found)
    else:
        _print(found)


@namespace.command("set", short_help="Change quotas of a namespace.")
@click.argument("name")
@quota_options
@json_option()
@server_options
def set_(name: str, as_json: bool, url: str, token: str | None, **quotas: str | None) -> None:
    """Change these quotas of the namespace NAME, on every server at once; the others stay as they are."""
    wanted = _quotas(quotas)
    if not wanted:
        raise click.UsageError(f"give a quota to change: one of {', '.join(f'--{kind}' for kind in KINDS)}")
    with connected(url, token) as client:
        changed = client.change_namespace(name, wanted)
    print_json(changed) if as_json else _print(changed)


@namespace.command(short_help="Delete a namespace with all that is in it.")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@server_options
def delete(name: str, yes: bool, url: str, token: str | None) -> int:
    """Delete the namespace NAME with its queues, jobs and tokens. That cannot be undone."""
    if not yes and not confirmed(f"delete the namespace {name} with all its jobs and tokens?"):
        return FAILED
    with connected(url, token) as client:
        client.delete_namespace(name)
    click.echo(f"{name} is being deleted; it will be gone within seconds")
    return DONE


def _quotas(given: Mapping[str, str | None]) -> dict[str, int | None]:
    return {kind: _number(kind, text) for kind, text in given.items() if text is not None}


def _number(kind: str, text: str) -> int | None:
    if text == NONE:
        return None
    try:
        return size(text) if kind == "bytes" else whole(text)
    except ValueError as error:
        raise click.UsageError(f"`--{kind}` {error}") from None


def _called(one: NamespaceInfo) -> str:
    return f"{one['namespace']} (being deleted)" if one["deleting"] else one["namespace"]


def _most(one: NamespaceInfo, kind: str) -> str:
    return _shown(kind, one["quotas"].get(kind))


def _shown(kind: str, count: Any) -> str:
    if count is None:
        return "-"
    return size_text(count) if kind == "bytes" else str(count)


def _print(one: NamespaceInfo) -> None:
    usage = one.get("usage", {})
    rows = [(kind, _shown(kind, usage.get(kind)), _most(one, kind)) for kind in KINDS]
    click.echo(f"namespace {_called(one)}, made {one['created_at']}")
    click.echo(table(("", "used", "quota"), rows, right=(1, 2)))
