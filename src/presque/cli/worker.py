"""worker, work, workers: the commands that run workers and list them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from presque.cli.connection import connected, failure, server_options
from presque.cli.fields import json_option, watch_option
from presque.cli.terminal import age, one_line, shown, table
from presque.client import ClientError
from presque.client.answers import WorkerRecord
from presque.client.json_values import encoded
from presque.errors import PresqueError
from presque.log import configure
from presque.quantities import MIB
from presque.tasks.command import run as run_targets
from presque.worker import first_process
from presque.worker.settings import OPTIONS
from presque.worker.worker import Program
from presque.worker.worker import run as run_worker

SILENT_S = 20
Command = TypeVar("Command", bound=Callable[..., Any])


def worker_options(*without: str, **helps: str) -> Callable[[Command], Command]:
    """Add a flag for each setting of a worker, with other help for some, and those of logging."""

    def add(command: Command) -> Command:
        command = click.option(
            "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info",
            show_default=True, help="The lowest level that is logged.",
        )(command)  # fmt: skip
        command = click.option(
            "--log-format", type=click.Choice(["auto", "plain", "json"]), default="auto",
            show_default=True, help="Plain for people, JSON for programs.",
        )(command)  # fmt: skip
        for name, option in reversed(OPTIONS.items()):
            if name in without:
                continue
            flag, text = f"--{name.replace('_', '-')}", helps.get(name, option.help)
            if option.kind == "switch":
                command = click.option(flag, name, is_flag=True, default=None, help=text)(command)
            else:
                command = click.option(flag, name, metavar=option.metavar, help=text)(command)
        return command

    return add


@click.command(short_help="Run tasks and workers that are written in Python.")
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.option("--only", metavar="QUEUES", help="Of modules, take the jobs of these queues, in this order.")
@click.option("--except", "except_", metavar="QUEUES", help="Of modules, leave out these queues.")
@click.option("--list", "show", is_flag=True, help="Print what the modules declare, and exit.")
@click.option("--reload", is_flag=True, help="Start again when a file of the code changes.")
@worker_options()
@server_options
@click.pass_context
def worker(
    context: click.Context,
    /,
    targets: tuple[str, ...],
    only: str | None,
    except_: str | None,
    show: bool,
    reload: bool,
    url: str,
    token: str | None,
    log_format: str,
    log_level: str,
    **options: Any,
) -> int:
    """Run tasks and workers that are written in Python.

    TARGET is a module or a package, whose tasks, worker classes and recurring jobs are found; or
    MODULE:CLASS, a class that derives from presque.Worker; or MODULE:FUNCTION, a function of one argument;
    or MODULE:APP. Each setting may also be in the environment, as PRESQUE_WORKER_…, or in the code.

    QUIT finishes the jobs and ends; TERM, INT and HUP stop the jobs, give them back and end; USR1 stops the
    jobs and fails them; USR2 takes no further jobs; CONT takes jobs again.
    """
    first_process.step_aside()
    said = context.get_parameter_source("url") is ParameterSource.COMMANDLINE
    with refusals_shown():
        return run_targets(
            targets, reload=reload, show=show, url=url if said else None, token=token, only=only,
            except_=except_, log_format=log_format, log_level=log_level, settings=options,
        )  # fmt: skip


@click.command(short_help="Run any program for each job.")
@click.argument("queues")
@click.option("--exec", "command", required=True, metavar="COMMAND", help="What the shell runs for each job.")
@worker_options(
    "queues",
    "fork",
    "prefetch",
    concurrency="How many programs at once.",
    max_memory="Fail a program that uses more.",
)
@server_options
def work(
    queues: str,
    command: str,
    url: str,
    token: str | None,
    log_format: str,
    log_level: str,
    **options: Any,
) -> None:
    """Run any program for each job.

    COMMAND reads the job from its standard input, as it was pushed. Exit status 0 acks the job, 65 makes it
    dead, 75 and any other fail it: it is retried later, until its attempts are used up. The environment
    names the job: PRESQUE_JOB_QUEUE, PRESQUE_JOB_ID, PRESQUE_JOB_ATTEMPT, PRESQUE_JOB_MAX_ATTEMPTS,
    PRESQUE_JOB_LEASE.
    """
    if not command.strip():
        raise click.UsageError("`--exec` has no command")
    first_process.step_aside()
    configure(log_format, log_level)
    with refusals_shown():
        run_worker(Program(command, url, token=token, queues=queues, **options))


@contextmanager
def refusals_shown() -> Iterator[None]:
    """An error becomes one line and an exit code."""
    try:
        yield
    except PresqueError as error:
        raise click.UsageError(str(error)) from None
    except ClientError as error:
        raise failure(error) from None


@click.command(short_help="Show the workers and their jobs, or tell one to be quiet or to stop.")
@click.option("--quiet", metavar="ID", help="Let it finish what it holds and take no further job.")
@click.option("--stop", metavar="ID", help="Let it finish what it holds and end.")
@click.option("--start", metavar="ID", help="Let a quiet one take jobs again.")
@json_option()
@watch_option
@server_options
def workers(
    quiet: str | None, stop: str | None, start: str | None, as_json: bool, watch: bool, url: str,
    token: str | None,
) -> None:  # fmt: skip
    """Show the workers and their jobs, or tell one to be quiet or to stop.

    A worker hears of it within about 5 s.
    """
    orders = [(id, status) for id, status in ((quiet, "quiet"), (stop, "stop"), (start, "start")) if id]
    if orders and watch:
        raise click.UsageError("--watch shows the workers; it goes with no order to one")
    with connected(url, token) as client:

        def text() -> str:
            found = client.worker_records()
            return encoded(found) if as_json else all_workers(found)

        if not orders:
            shown(text, watch=watch)
        for id, status in orders:
            client.tell_worker(id, status)
            click.echo(f"{id} is asked to {'be quiet' if status == 'quiet' else status}")


def all_workers(found: list[WorkerRecord]) -> str:
    """One row a worker; those that have fallen silent stand apart, behind the others."""
    silent = [one for one in found if is_silent(one)]
    living = [one for one in found if not is_silent(one)]
    parts = [rows_of(living)] if living or not silent else []
    if silent:
        parts.append(f"not heard from for {SILENT_S} s or more:\n{rows_of(silent)}")
    return "\n\n".join(parts)


def is_silent(one: WorkerRecord) -> bool:
    """Whether a worker that reports every few seconds has stopped doing so, and so is probably gone."""
    return one["silent_seconds"] > SILENT_S and bool(one["report"])


def rows_of(found: list[WorkerRecord]) -> str:
    """A table of workers."""
    if not found:
        return "no workers: presque worker MODULE starts one"
    header = (
        "worker", "state", "queues", "works on", "processed", "failed", "seen", "host", "memory", "version",
    )  # fmt: skip
    rows = []
    for one in found:
        report = one["report"] or {}
        state = str(report.get("state", "-"))
        if is_silent(one):
            state = "silent"
        elif one["status"] != "start" and state not in ("quiet", "stopping"):
            state = f"{state}, asked to {one['status']}"
        rows.append(
            (
                one["worker_id"],
                one_line(state),
                one_line(str(report.get("list") or ",".join(one["queues"]))),
                one_line(works_on(report)) or "-",
                str(report.get("processed", one["processed"])),
                str(report.get("failed", one["failed"])),
                f"{age(one['silent_seconds'])} ago",
                one_line(str(report.get("host", "-"))),
                memory_of(report),
                one_line(str(report.get("version", "-"))),
            )
        )
    return table(header, rows, right=(4, 5, 8), elastic=(1, 2, 3), first_to_go=(9, 7, 5, 4, 8, 2, 3, 6))


def memory_of(report: dict[str, Any]) -> str:
    """How much memory a worker says that it has. A report may hold anything: not all workers are ours."""
    told = report.get("memory")
    return f"{told / MIB:,.0f} MiB" if isinstance(told, int) and told >= 0 else "-"


def works_on(report: dict[str, Any]) -> str:
    """The first two jobs, and how many more. A report may hold anything: not all workers are ours."""
    told, running = report.get("jobs"), report.get("running")
    jobs = [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []
    count = running if isinstance(running, int) else len(jobs)
    names = ", ".join(_job(one) for one in jobs[:2])
    return f"{names} and {count - 2} more" if count > 2 and names else names


def _job(told: dict[str, Any]) -> str:
    """A job, and for how long it has been worked on."""
    seconds = told.get("seconds")
    since = f" for {age(float(seconds))}" if isinstance(seconds, (int, float)) and seconds >= 1 else ""
    return f"{told.get('queue', '-')}/{told.get('id', '-')}{since}"
