"""`presque`: finds the command, runs it, and turns whatever went wrong into one line and an exit code.

A command's module is imported when the command is run, so that `presque --help` stays quick: nothing
here may import more than click and the ground.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click

from presque.cli.exits import BROKEN_PIPE, DONE, FAILED, INTERRUPTED, USAGE, Failure
from presque.cli.groups import NearestGroup
from presque.errors import PresqueError, nearest, shown
from presque.version import __version__

COMMANDS = {
    "serve": ("presque.cli.serve", "Run the server."),
    "push": ("presque.cli.jobs", "Put a job on a queue and print its id."),
    "fetch": ("presque.cli.jobs", "Take a job off a queue for good and print it."),
    "peek": ("presque.cli.jobs", "Print the jobs that wait, without taking them."),
    "worker": ("presque.cli.worker", "Run a worker that is written in Python."),
    "work": ("presque.cli.worker", "Make a worker of any program."),
    "workers": ("presque.cli.worker", "Show who works on what, or tell a worker to be quiet or to stop."),
    "stats": ("presque.cli.queues", "Show what the queues hold and did."),
    "start": ("presque.cli.queues", "Let a stopped queue hand out jobs again."),
    "stop": ("presque.cli.queues", "Let a queue hand out nothing; it still takes jobs."),
    "purge": ("presque.cli.queues", "Delete all jobs of a queue, and its counters."),
    "backup": ("presque.cli.backup", "Back up the data of presque's own store, running or not."),
    "restore": ("presque.cli.backup", "Put a backup back."),
    "doctor": ("presque.cli.doctor", "Check this installation and say what to do."),
    "config": ("presque.cli.config", "Show or check the settings."),
}

OF_COMMANDS = ("--url", "--token", "--json")
"""Options that many a program wants in front, and that are options of single commands here."""


class LazyGroup(NearestGroup):
    """The commands of presque, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """All names, in the order of the table: first things first."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return the command, or None if there is no such command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[cmd_name][0]), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands from the table, so that help imports none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="presque", message="%(prog)s %(version)s")
def presque() -> None:
    """A persistent job queue over HTTP.

    `presque serve` runs the server; the other commands talk to one, at --url or PRESQUE_URL.
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. Errors go to standard error, one line each."""
    try:
        try:
            with presque.make_context("presque", list(arguments)) as context:
                code = presque.invoke(context)
        finally:
            if sys.stdout is not None:  # it may have been closed before we began
                sys.stdout.flush()
    except click.exceptions.Exit as request:
        return request.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE
    except click.UsageError as error:
        complain(usage(error))
        return USAGE
    except Failure as error:
        complain(str(error))
        return error.exit_code
    except PresqueError as error:
        complain(str(error))
        return FAILED
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has left. The interpreter must not find out again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return code if isinstance(code, int) else DONE


def usage(error: click.UsageError) -> str:
    """The sentence for a command line that cannot be read, with the way to the help."""
    if isinstance(error, click.NoSuchOption):
        name = error.option_name
        known = [opt for p in (error.ctx.command.params if error.ctx else []) for opt in p.opts]
        if error.ctx and error.ctx.command is presque and name in OF_COMMANDS:
            text = f"`{name}` stands behind the command, as in `presque stats {name} …`"
        else:
            text = f"unknown option `{shown(name)}`, {nearest(name, [*known, '--help'])}"
    else:
        text = error.format_message().rstrip(".")
        text = text[:1].lower() + text[1:] if text[1:2].islower() else text
    where = error.ctx.command_path if error.ctx else "presque"
    return f"{text} (see `{where} --help`)"


def complain(text: str) -> None:
    """One line on standard error, whatever `text` holds."""
    line = " ".join(text.split())
    click.echo("presque: " + "".join(c if c.isprintable() else "?" for c in line), err=True)


def main() -> NoReturn:
    """The entry point."""
    sys.exit(run(sys.argv[1:]))
