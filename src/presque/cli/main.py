"""`presque`: finds the command, runs it, and turns whatever went wrong into one line and an exit code.

A command's module is imported when the command is run, so that `presque --help` stays quick: nothing
here may import more than click and the ground.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from keyword import iskeyword
from typing import NoReturn

import click
from click.shell_completion import shell_complete

from presque.cli.groups import COMPLETE, NearestGroup, called, told
from presque.cli.inputs import TYPED
from presque.cli.standard_output import open_or_silence, silence
from presque.errors import PresqueError
from presque.exits import (
    BROKEN_PIPE,
    DONE,
    FAILED,
    INTERRUPTED,
    MEANINGS,
    USAGE,
    Failure,
    wrong_or_failed,
)
from presque.version import __version__

COMMANDS = {
    "serve": ("presque.cli.serve", "Run the server."),
    "xmpp": ("presque.cli.xmpp", "Let people and programs reach the queues over XMPP."),
    "push": ("presque.cli.jobs", "Put a job on a queue and print its id."),
    "fetch": ("presque.cli.jobs", "Take a job off a queue for good and print it."),
    "peek": ("presque.cli.jobs", "Print the jobs that wait, without taking them."),
    "jobs": ("presque.cli.stored", "List jobs."),
    "job": ("presque.cli.stored", "Show one job, or why it does not run."),
    "change": ("presque.cli.single", "Change a waiting job."),
    "link": ("presque.cli.single", "Make a link with which anyone can read or cancel one job."),
    "failures": ("presque.cli.failures", "Show the errors of dead jobs, grouped by their kind."),
    "retry": ("presque.cli.stored", "Retry dead jobs."),
    "delete": ("presque.cli.stored", "Delete jobs."),
    "move": ("presque.cli.bulk", "Move jobs to another queue."),
    "tasks": ("presque.cli.bulk", "Show and control bulk tasks."),
    "export": ("presque.cli.lines", "Write jobs to standard output, one per line, without taking them."),
    "import": ("presque.cli.lines", "Put exported jobs back on their queues."),
    "lease": ("presque.cli.stored", "Take jobs for a while, to ack them later."),
    "ack": ("presque.cli.stored", "Report that a leased job is done."),
    "fail": ("presque.cli.stored", "Report that a leased job failed."),
    "release": ("presque.cli.stored", "Give a leased job back, which is not a failure."),
    "extend": ("presque.cli.stored", "Extend the lease of a job."),
    "worker": ("presque.cli.worker", "Run tasks and workers that are written in Python."),
    "work": ("presque.cli.worker", "Run any program for each job."),
    "workers": ("presque.cli.worker", "Show the workers and their jobs, or tell one to be quiet or to stop."),
    "top": ("presque.cli.top", "Watch and control queues, workers and failures on a live screen."),
    "stats": ("presque.cli.queues", "Show what the queues hold and have done."),
    "history": ("presque.cli.history", "Show what happened over time, as sparklines."),
    "tail": ("presque.cli.tail", "Show what happens, as it happens."),
    "queues": ("presque.cli.queues", "List, set up or forget queues."),
    "start": ("presque.cli.queues", "Let a stopped queue hand out jobs again."),
    "stop": ("presque.cli.queues", "Stop a queue from handing out jobs; it still accepts them."),
    "purge": ("presque.cli.queues", "Delete all jobs of a queue, and its counters."),
    "token": ("presque.cli.token", "Make, list, revoke and narrow access tokens."),
    "audit": ("presque.cli.audit", "Show who changed what, and who was refused."),
    "namespace": ("presque.cli.namespace", "Make, list, show, change and delete namespaces."),
    "context": ("presque.cli.context", "Name servers, and choose the one to talk to."),
    "cron": ("presque.cli.cron", "Show and control recurring jobs."),
    "open": ("presque.cli.here", "Open the dashboard in a browser."),
    "completion": ("presque.cli.here", "Let the shell complete commands and queues."),
    "man": ("presque.cli.man", "Write manual pages for man."),
    "backup": ("presque.cli.backup", "Back up the data of presque's own store, running or not."),
    "restore": ("presque.cli.backup", "Restore a backup."),
    "bench": ("presque.cli.bench", "Measure how fast a server is."),
    "check": ("presque.cli.check", "Check queues for a monitoring system, as a Nagios plugin does."),
    "doctor": ("presque.cli.doctor", "Check this installation and say what to do."),
    "config": ("presque.cli.config", "Show or check the settings."),
}

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""Why a file takes nothing: its disk is full, somebody limited it, it is broken, or open for reading."""


class LazyGroup(NearestGroup):
    """The commands of presque, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (the signature is click's)
        """All names, in the order of the table: first things first."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  (as above)
        """Import and return the command, or None if it does not exist."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(
            import_module(COMMANDS[cmd_name][0]), f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name
        )
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  (as above)
        """List the commands from the table, so that help imports none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  (as above)
        """List the exit codes."""
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), means) for code, means in MEANINGS])


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="presque", message="%(prog)s %(version)s")
def presque() -> None:
    """A persistent job queue over HTTP.

    `presque serve` runs the server; the other commands talk to one, at --url, PRESQUE_URL or
    the server that `presque context use` chose.
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. Errors go to standard error, one line each."""
    open_or_silence()
    try:
        try:
            with presque.make_context("presque", list(arguments)) as context:
                context.meta[TYPED] = list(arguments)
                code = presque.invoke(context)
        finally:
            sys.stdout.flush()
    except click.exceptions.Exit as request:
        return request.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE
    except click.UsageError as error:
        error.ctx = error.ctx or called(presque, arguments)
        complain(told(error))
        return USAGE
    except Failure as error:
        complain(str(error))
        return error.exit_code
    except PresqueError as error:
        complain(str(error))
        return wrong_or_failed(error)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has ended
        silence()
        return BROKEN_PIPE
    except OSError as error:
        if error.filename is not None or error.errno not in UNWRITABLE:
            raise
        silence()
        complain(f"cannot write to standard output: {error.strerror}")
        return FAILED
    return code if isinstance(code, int) else DONE


def complain(text: str) -> None:
    """One line on standard error, whatever `text` holds."""
    line = " ".join(text.split())
    click.echo("presque: " + "".join(c if c.isprintable() else "?" for c in line), err=True)


def main() -> NoReturn:
    """The entry point."""
    if (asked := os.environ.get(COMPLETE)) is not None:  # a shell that completes: see `presque completion`
        sys.exit(shell_complete(presque, {}, "presque", COMPLETE, asked))
    sys.exit(run(sys.argv[1:]))
