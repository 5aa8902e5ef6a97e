"""config show and config check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from presque.cli.fields import json_option
from presque.cli.groups import NearestGroup
from presque.cli.settings import loaded
from presque.cli.terminal import print_json, table
from presque.config.loading import Entry
from presque.config.settings import exposed, insecure_warning
from presque.quantities import size_text

SIZES = (
    "max_body", "maxmemory", "min_free_disk", "limits.bodies", "limits.answers", "xmpp.max_stanza",
)  # fmt: skip


@click.group(cls=NearestGroup, short_help="Show or check the settings.")
def config() -> None:
    """Show or check the settings that `presque serve` would use."""


@config.command(short_help="Show every setting and where it comes from.")
@click.option("--config", "file", metavar="FILE", help="Settings file, as for serve.")
@json_option("Print an object.")
def show(file: str | None, as_json: bool) -> None:
    """Show every setting and where it comes from. Passwords are shown as ***."""
    entries = loaded(config=file).entries()
    if as_json:
        said = {one.setting: {"value": _plain(one.value), "from": one.origin.short} for one in entries}
        print_json(said)
    else:
        rows = [(one.setting, _cell(one), one.origin.short) for one in entries]
        click.echo(table(("setting", "value", "from"), rows, elastic=(1, 2)))


@config.command(short_help="Say whether the settings are valid.")
@click.option("--config", "file", metavar="FILE", help="Settings file, as for serve.")
def check(file: str | None) -> None:
    """Say whether `presque serve` would accept the settings. Nothing is started."""
    settings = loaded(config=file).settings
    warning = insecure_warning(settings)
    if warning:
        click.echo(f"presque: warning: {warning}", err=True)
    why = exposed(settings)
    if why is not None and not settings.insecure:
        click.echo(f"presque: note: serve will not {why} before there is an access token", err=True)
    click.echo("the settings are valid")


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _of_key(one: Any) -> str:
    return " ".join(one) if isinstance(one, tuple) else str(one)


def _cell(entry: Entry) -> str:
    value = entry.value
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(value) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_of_key(one)}" for name, one in value.items()) or "-"
    if value == 0 and (entry.setting in SIZES or entry.setting.startswith("limits.")):
        return "no limit"
    if isinstance(value, float):
        return f"{value:g}s"
    return size_text(value) if entry.setting in SIZES else str(value)
