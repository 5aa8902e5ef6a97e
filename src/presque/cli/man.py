"""man: manual pages, made from the commands' own help.

The macros are those of man(7), which groff and mandoc both understand.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from presque.exits import FAILED, MEANINGS, Failure
from presque.quantities import counted
from presque.version import __version__

OF_CHECK = ((0, "OK"), (1, "WARNING"), (2, "CRITICAL"), (3, "UNKNOWN"))
ENVIRONMENT = (
    ("PRESQUE_URL", "The server to talk to."),
    ("PRESQUE_TOKEN", "The access token to send."),
    ("PRESQUE_CONTEXT", "The named server to talk to: see presque-context(1)."),
    ("NO_COLOR", "If it is set, nothing is coloured."),
)


@click.command(short_help="Write manual pages for man.")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
def man(directory: Path) -> None:
    """Write a manual page for each command into DIR, such as ~/.local/share/man/man1.

    Then `man presque` and `man presque-push` show them.
    """
    presque = click.get_current_context().find_root().command
    count = 0
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for names, command, context in commands(presque, click.Context(presque, info_name="presque")):
            path = directory / f"{'-'.join(names)}.1"
            path.write_text(page(names, command, context), "utf-8")
            count += 1
    except OSError as error:
        raise Failure(f"cannot write {error.filename}: {error.strerror}", FAILED) from None
    click.echo(f"{counted(count, 'page')} in {directory}: man {directory.absolute()}/presque.1")


def commands(
    command: click.Command, context: click.Context, above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command, click.Context]]:
    """A command and all below it, each with its names and its context."""
    names = (*above, context.info_name or "")
    yield names, command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, click.Context(inner, info_name=name, parent=context), names)


def page(names: tuple[str, ...], command: click.Command, context: click.Context) -> str:
    """The manual page of a command."""
    name = "-".join(names)
    lines = [
        f'.TH "{name.upper()}" "1" "" "presque {__version__}" "presque"',
        ".SH NAME",
        f"{roff(name)} \\- {roff(_short(command))}",
        ".SH SYNOPSIS",
        f".B {roff(' '.join(names))}",
        roff(" ".join(command.collect_usage_pieces(context))),
        ".SH DESCRIPTION",
        *paragraphs(command.help or ""),
    ]
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for inner in command.list_commands(context):
            of = command.get_command(context, inner)
            assert of is not None
            lines += item(f"{name}-{inner}(1)", _short(of))
    records = [param.get_help_record(context) for param in command.get_params(context)]
    lines.append(".SH OPTIONS")
    for record in records:
        if record is not None:
            lines += item(*record)
    lines.append(".SH EXIT STATUS")
    for code, means in OF_CHECK if names[1:] == ("check",) else MEANINGS:
        lines += item(str(code), means)
    lines.append(".SH ENVIRONMENT")
    for variable, means in ENVIRONMENT:
        lines += item(variable, means)
    lines += [".SH SEE ALSO", roff(_see(names))]
    return "\n".join(lines) + "\n"


def _short(command: click.Command) -> str:
    return command.get_short_help_str(100).rstrip(".") or "a persistent job queue over HTTP"


def _see(names: tuple[str, ...]) -> str:
    if len(names) == 1:
        return "Every command has a page of its own: presque-serve(1), presque-push(1), presque-worker(1)."
    above = ["-".join(names[:i]) for i in range(1, len(names))]
    return ", ".join(f"{one}(1)" for one in above)


def paragraphs(text: str) -> Iterator[str]:
    """A docstring as paragraphs."""
    for i, part in enumerate(re.split(r"\n\s*\n", inspect.cleandoc(text))):
        if i:
            yield ".PP"
        yield roff(" ".join(part.split()))


def item(what: str, means: str) -> Iterable[str]:
    """One row of a list: what it is called, and what it means."""
    return (".TP", f".B {roff(what)}", roff(" ".join(means.split())) or "\\&")


def roff(text: str) -> str:
    """A text in which roff finds nothing to obey. Hyphens stay those that can be typed."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga").replace("^", "\\(ha")
    text = text.replace("~", "\\(ti").replace("'", "\\(aq").replace('"', "\\(dq")
    return f"\\&{text}" if text.startswith(".") else text
