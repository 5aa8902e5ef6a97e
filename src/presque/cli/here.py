"""open, completion: the commands that have to do with where you sit."""

from __future__ import annotations

import webbrowser

import click
from click.shell_completion import get_completion_class

from presque.cli.connection import server_options
from presque.cli.groups import COMPLETE
from presque.client.address import server
from presque.exits import Failure


@click.command("open", short_help="Open the dashboard in a browser.")
@server_options
def open(url: str, token: str | None) -> None:  # noqa: A001, ARG001
    """Open the dashboard in a browser, and print its address."""
    try:
        address = server(url).url
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    click.echo(f"{address}/")
    if not webbrowser.open(f"{address}/"):
        raise Failure("there is no browser here: open that address in one")


@click.command(short_help="Let the shell complete commands and queues.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what lets a shell complete commands, options and the names of queues.

    bash: put `source <(presque completion bash)` into ~/.bashrc; zsh: the same into ~/.zshrc; fish: write it
    to ~/.config/fish/completions/presque.fish.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    presque = click.get_current_context().find_root().command
    click.echo(kind(presque, {}, "presque", COMPLETE).source())
