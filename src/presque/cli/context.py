"""context: the commands about named servers."""

from __future__ import annotations

import sys

import click

from presque import names
from presque.cli.connection import context_names
from presque.cli.contexts import Context, changing, read
from presque.cli.fields import json_option
from presque.cli.groups import NearestGroup
from presque.cli.terminal import print_json, table
from presque.client.address import server, token_of
from presque.errors import InvalidName
from presque.exits import CONFLICT, Failure

STANDARD_INPUT = "-"
NAME = click.argument("name", shell_complete=context_names)


@click.group(cls=NearestGroup, short_help="Name servers, and choose the one to talk to.")
def context() -> None:
    """Name servers and their tokens, and choose the one that commands talk to.

    `--context NAME` or PRESQUE_CONTEXT chooses one for a command, `presque context use` from now on.
    """


@context.command(short_help="Name a server.")
@click.argument("name")
@click.argument("url")
@click.option(
    "--token", metavar="TOKEN", help="Your access token there; - asks for it, or reads standard input."
)
@click.option("--use", "use_it", is_flag=True, help="Use it from now on.")
@click.option("--replace", is_flag=True, help="Replace one of the same name.")
def new(name: str, url: str, token: str | None, use_it: bool, replace: bool) -> None:
    """Let NAME stand for the server at URL, and for your token there.

    The token is kept in a file that you alone can read, and is never shown. `--token -` keeps it out of the
    history of your shell.
    """
    try:
        names.queue(name, "context")
        address = server(url).url
        if token == STANDARD_INPUT:
            token = _asked()
        if token is not None:
            token_of(token)
    except (InvalidName, ValueError) as error:
        raise click.UsageError(str(error)) from None
    with changing() as found:
        if name in found.named and not replace:
            raise Failure(f"there is a context `{name}` already: pass --replace", CONFLICT)
        found.named[name] = Context(address, token)
        if use_it:
            found.used = name
    click.echo(f"{name} is {address}" + ("" if token is None else ", with a token"))


def _asked() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Token", hide_input=True, err=True))
    return sys.stdin.readline().strip()


@context.command("list", short_help="List the named servers.")
@json_option("Print an array.")
def list_(as_json: bool) -> None:
    """List the named servers. Tokens are not shown, only whether there is one."""
    found = read()
    said = [
        {"name": name, "url": of.url, "token": of.token is not None, "used": name == found.used}
        for name, of in sorted(found.named.items())
    ]
    if as_json:
        print_json(said)
    elif not said:
        click.echo("no contexts: presque context new NAME URL makes one")
    else:
        rows = [
            (name, of.url, "yes" if of.token else "-", "in use" if name == found.used else "")
            for name, of in sorted(found.named.items())
        ]
        click.echo(table(("name", "url", "token", ""), rows, elastic=(1,)))


@context.command(short_help="Use a named server from now on.")
@click.argument("name", required=False, shell_complete=context_names)
@click.option("--none", is_flag=True, help="Use none of them, but the one on this machine.")
def use(name: str | None, none: bool) -> None:
    """Make NAME the server that commands talk to by default."""
    if (name is None) is not none:
        raise click.UsageError("give a name, or --none")
    with changing() as found:
        at = None if name is None else found[name].url
        found.used = name
    click.echo("no context is in use" if at is None else f"{name} is in use: {at}")


@context.command(short_help="Forget a named server.")
@NAME
def remove(name: str) -> None:
    """Forget the server NAME and its token. The token stays valid: `presque token revoke` ends it."""
    with changing() as found:
        found.remove(name)
    click.echo(f"{name} is removed")
