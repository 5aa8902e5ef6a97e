"""A group of commands that answers an unknown one with its nearest neighbour."""

from __future__ import annotations

import click

from presque.errors import nearest, shown

COMPLETE = "_PRESQUE_COMPLETE"
"""The variable by which a shell asks for what completes a line."""


class NearestGroup(click.Group):
    """As click's group, with our sentence for a command that does not exist."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that `args` begin with. Raises `click.UsageError`."""
        name, known = args[0], self.list_commands(ctx)
        if not name.startswith("-") and name not in known:
            raise click.UsageError(f"unknown command `{shown(name)}`, {nearest(name, known)}", ctx)
        return super().resolve_command(ctx, args)
