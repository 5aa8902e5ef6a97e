"""Options of commands, made from the rows in verbs/: one grammar of values, one text for help."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from presque.client.json_values import decoded
from presque.errors import CallerError, nearest, shown
from presque.fields import Field, Kind
from presque.verbs import VERBS

Command = TypeVar("Command", bound=Callable[..., Any])

METAVARS = {
    Kind.TEXT: "TEXT",
    Kind.WHOLE: "N",
    Kind.NUMBER: "N",
    Kind.DURATION: "5m",
    Kind.MOMENT: "TIME",
    Kind.JSON: "JSON",
}


def json_option(text: str = "Print what the server says, as JSON.") -> Callable[[Command], Command]:
    """Add `--json`, which a command gets as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help=text)


def watch_option(command: Command) -> Command:
    """Add `--watch`, for `terminal.shown`."""
    return click.option("--watch", is_flag=True, help="Refresh it every two seconds, until Ctrl-C.")(command)


class OfField(click.ParamType[Any]):
    """A value as the row of its field reads it: as the clients take it, with durations in seconds."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.name = field.kind.value

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the text, or fail as click wants it."""
        try:
            return value_of(self.field, str(value))
        except CallerError as error:
            self.fail(str(error).removeprefix(f"`{self.field.name}` "), param, ctx)


def value_of(field: Field, text: str) -> Any:
    """What a text means for a field, as the clients take it. Raises `CallerError`."""
    if field.kind is Kind.JSON:
        try:
            return decoded(text)
        except ValueError:
            raise field.wrong("a JSON document", text) from None
    found = field.read_text(text)
    return found / 1000 if field.kind in (Kind.DURATION, Kind.MOMENT) else found


def options_of(verb: str, *names: str, **flags: str) -> Callable[[Command], Command]:
    """Add an option for each of these fields of a verb, in their order. `flags` calls some otherwise."""

    def add(command: Command) -> Command:
        for name in reversed(names):
            command = _option(VERBS[verb].fields[name], flags.get(name, name))(command)
        return command

    return add


def _option(field: Field, called: str) -> Callable[[Command], Command]:
    flag = f"--{called.replace('_', '-')}"
    if field.kind is Kind.FLAG:
        return click.option(flag, field.name, is_flag=True, default=None, help=field.means)
    if field.kind is Kind.WORD:
        chosen = click.Choice(field.words)
        return click.option(flag, field.name, type=chosen, metavar="|".join(field.words), help=help_of(field))
    return click.option(
        flag, field.name, type=OfField(field), metavar=METAVARS[field.kind], help=help_of(field)
    )


def option_for(field: Field, metavar: str | None = None) -> Callable[[Command], Command]:
    """Add an option that is of no verb, with the bounds and the default of this field."""
    shown_as = metavar or METAVARS[field.kind]
    return click.option(
        f"--{field.name}", type=OfField(field), metavar=shown_as, default=field.default, help=help_of(field)
    )


def help_of(field: Field) -> str:
    """What the field means, and what holds when it is not given."""
    return field.means if field.default is None else f"{field.means}  [default: {field.default}]"


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def assigned(fields: Mapping[str, Field], texts: tuple[str, ...]) -> dict[str, Any]:
    """`key=value …` as the fields read them; `null` goes back to the default, `rate.count=10` sets a part.

    Raises `click.UsageError`.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"`{text}` should be name=value, as in lease=5m")
        outer, _, inner = name.partition(".")
        field = fields.get(outer)
        parts = {} if field is None else {one.name: one for one in field.fields}
        known = [*(one for one in fields if not fields[one].fields), *_parts(fields)]
        if field is None or (inner and inner not in parts):
            raise click.UsageError(f"unknown field `{shown(name)}`, {nearest(name, known)}")
        try:
            if value == "null" and not inner:
                found[outer] = None
            elif inner:
                found.setdefault(outer, {})[inner] = value_of(parts[inner], value)
            elif parts:
                first = next(iter(parts))
                raise click.UsageError(f"`{outer}` has parts: set them one by one, as in {outer}.{first}=…")
            else:
                found[outer] = value_of(field, value)
        except CallerError as error:
            raise click.UsageError(str(error)) from None
    return found


def _parts(fields: Mapping[str, Field]) -> list[str]:
    return [f"{name}.{part.name}" for name, field in fields.items() for part in field.fields]
