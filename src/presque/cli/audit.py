"""audit: the command that shows who changed what, and who was refused."""

from __future__ import annotations

from typing import Any

import click

from presque.cli.connection import connected, server_options
from presque.cli.fields import json_option, option_for
from presque.cli.terminal import print_json, table
from presque.exits import DONE, NOTHING_THERE
from presque.fields import whole

PAGE = 500


@click.command(short_help="Show who changed what, and who was refused.")
@option_for(whole("limit", "How many at most.", 1, 20_000, default=100))
@json_option("Print each entry as a line of JSON.")
@server_options
def audit(limit: int, as_json: bool, url: str, token: str | None) -> int:
    """Show who changed what, and who was refused, newest first. Needs a token that allows `admin:*`.

    Where no tokens are used, only the making of tokens is recorded. Exits with 7 when nothing is recorded.
    """
    found: list[dict[str, Any]] = []
    with connected(url, token) as client:
        cursor: str | None = None
        while len(found) < limit:
            page, cursor = client.audit(min(limit - len(found), PAGE), cursor)
            found += page
            if cursor is None:
                break
    if as_json:
        for one in found:
            print_json(one)
    elif found:
        header = ("at", "by", "verb", "of", "from", "outcome")
        click.echo(table(header, map(_row, found), elastic=(3, 1), first_to_go=(4, 0)))
    else:
        click.echo("presque: nothing is recorded", err=True)
    return DONE if found else NOTHING_THERE


def _row(of: dict[str, Any]) -> tuple[str, ...]:
    named = (of.get(name) for name in ("at", "name", "verb", "about", "from", "outcome"))
    return tuple("-" if one is None else str(one) for one in named)
