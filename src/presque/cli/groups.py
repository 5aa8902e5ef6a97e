"""Groups of commands, and the sentences about command lines that cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

import click

from presque.errors import nearest, shown

OF_COMMANDS = ("--url", "--token", "--context", "--json")
"""Options that many a program wants in front, and that are options of single commands here."""
LISTED_MOST = 8
"""How many a sentence names; the help lists more."""

COMPLETE = "_PRESQUE_COMPLETE"
"""The variable by which a shell asks for what completes a line."""


def unknown(what: str, name: str, known: Sequence[str]) -> str:
    """A sentence about a command or an option that does not exist: what was probably meant, else
    what there is, unless that is too much for a sentence."""
    begun = [one for one in known if one.startswith(name)]
    if name.strip("-") and len(begun) <= 3 and begun:
        return f"unknown {what} `{shown(name)}`, did you mean {' or '.join(f'`{one}`' for one in begun)}?"
    far = len(known) > LISTED_MOST and not get_close_matches(name, known, n=1)
    return f"unknown {what} `{shown(name)}`" + ("" if far else f", {nearest(name, known)}")


def told(error: click.UsageError) -> str:
    """The sentence for a command line that cannot be read, with the way to the help."""
    return f"{sentence(error)} (see `{error.ctx.command_path if error.ctx else 'presque'} --help`)"


def sentence(error: click.UsageError) -> str:
    """What is wrong with a command line."""
    if isinstance(error, click.NoSuchOption):
        name, of = error.option_name, error.ctx.command if error.ctx else None
        known = [opt for p in (of.params if of else []) for opt in p.opts]
        if isinstance(of, click.Group) and name in OF_COMMANDS:
            text = f"`{name}` goes after the command, as in `presque stats {name} …`"
        else:
            text = unknown("option", name, [*known, "--help"])
    elif isinstance(error, click.BadOptionUsage) and (value := _wanted(error)) is not None:
        text = f"`{error.option_name}` needs a value: {error.option_name} {value}"
    else:
        text = error.format_message().rstrip(".")
        text = text[:1].lower() + text[1:] if text[1:2].islower() else text
    return text


def called(command: click.Command, arguments: Sequence[str]) -> click.Context:
    """The command that arguments begin with, for errors of click that do not say where they happened."""
    found = click.Context(command, info_name=command.name)
    for one in arguments:
        inner = found.command.get_command(found, one) if isinstance(found.command, click.Group) else None
        if inner is None:
            break
        found = click.Context(inner, info_name=one, parent=found)
    return found


def _wanted(error: click.BadOptionUsage) -> str | None:
    """What the help shows for the value of an option that was given without one."""
    context = error.ctx
    if context is None or "requires an argument" not in error.message:
        return None
    options = (one for one in context.command.params if error.option_name in one.opts)
    return next((one.make_metavar(context) for one in options), None)


class NearestGroup(click.Group):
    """As click's group, with our sentence for a command that does not exist."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that `args` begin with. Raises `click.UsageError`."""
        name, known = args[0], self.list_commands(ctx)
        if not name.startswith("-") and name not in known:
            raise click.UsageError(unknown("command", name, known), ctx)
        return super().resolve_command(ctx, args)
