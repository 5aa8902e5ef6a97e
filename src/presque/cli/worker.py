"""worker, work, workers: the commands that work jobs, and who does so."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

from presque.cli.connection import connected, failure, server_options
from presque.cli.queues import age
from presque.cli.terminal import one_line, table
from presque.client import ClientError
from presque.client.answers import WorkerRecord
from presque.errors import PresqueError
from presque.log import configure
from presque.worker import first_process
from presque.worker.loading import load
from presque.worker.settings import OPTIONS
from presque.worker.starting import set_up_logging
from presque.worker.worker import Program, Worker

Command = TypeVar("Command", bound=Callable[..., Any])


def worker_options(*without: str, **helps: str) -> Callable[[Command], Command]:
    """Add a flag for each setting of a worker, with other help for some, and those of logging."""

    def add(command: Command) -> Command:
        command = click.option(
            "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info",
            show_default=True, help="What is told at least.",
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


@click.command(short_help="Run a worker that is written in Python.")
@click.argument("target", metavar="MODULE:CLASS")
@worker_options()
@server_options
def worker(target: str, url: str, token: str | None, log_format: str, log_level: str, **options: Any) -> None:
    """Run a worker that is written in Python.

    MODULE:CLASS is a class that derives from presque.Worker, or a function of one argument. Each setting may
    also be in the environment, as PRESQUE_WORKER_…, or an attribute of the class.

    QUIT finishes the jobs and ends; TERM, INT and HUP stop them, give them back and end; USR1 stops them, and
    they have failed; USR2 takes no further jobs; CONT goes on.
    """
    first_process.step_aside()

    def make() -> Worker:
        kind = load(target)
        set_up_logging(log_format, log_level)
        return kind(url, token=token, **options)

    run(make)


@click.command(short_help="Make a worker of any program.")
@click.argument("queues")
@click.option("--exec", "command", required=True, metavar="COMMAND", help="What the shell runs for each job.")
@worker_options(
    "queues",
    "fork",
    "prefetch",
    concurrency="So many programs at once.",
    max_memory="A program that takes more has failed.",
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
    """Make a worker of any program.

    COMMAND gets the job on its standard input, as it was pushed. Exit status 0 acks the job, 65 makes it
    dead, 75 and all others fail it: it is tried again later, until its attempts are used up. The environment
    names the job: PRESQUE_JOB_QUEUE, PRESQUE_JOB_ID, PRESQUE_JOB_ATTEMPT, PRESQUE_JOB_MAX_ATTEMPTS,
    PRESQUE_JOB_LEASE.
    """
    if not command.strip():
        raise click.UsageError("`--exec` has no command")
    first_process.step_aside()
    configure(log_format, log_level)
    run(lambda: Program(command, url, token=token, queues=queues, **options))


def run(make: Callable[[], Worker]) -> None:
    """Start a worker; what is wrong with it becomes one line and an exit code."""
    try:
        make().start()
    except PresqueError as error:
        raise click.UsageError(str(error)) from None
    except ClientError as error:
        raise failure(error) from None


@click.command(short_help="Show who works on what, or tell a worker to be quiet or to stop.")
@click.option("--quiet", metavar="ID", help="Let it finish what it holds and take no further job.")
@click.option("--stop", metavar="ID", help="Let it finish what it holds and end.")
@click.option("--start", metavar="ID", help="Let a quiet one take jobs again.")
@click.option("--json", "as_json", is_flag=True, help="Print what the server says, as JSON.")
@server_options
def workers(
    quiet: str | None, stop: str | None, start: str | None, as_json: bool, url: str, token: str | None
) -> None:
    """Show who works on what, or tell a worker to be quiet or to stop.

    A worker that is told hears of it within about 5 s.
    """
    orders = [(id, status) for id, status in ((quiet, "quiet"), (stop, "stop"), (start, "start")) if id]
    with connected(url, token) as client:
        if not orders:
            found = client.worker_records()
            click.echo(json.dumps(found, ensure_ascii=False, indent=2) if as_json else all_workers(found))
        for id, status in orders:
            client.tell_worker(id, status)
            click.echo(f"{id} is asked to {'be quiet' if status == 'quiet' else status}")


def all_workers(found: list[WorkerRecord]) -> str:
    """One row a worker."""
    if not found:
        return "no workers: presque worker MODULE:CLASS starts one"
    header = ("worker", "state", "queues", "works on", "processed", "failed", "seen")
    rows = []
    for one in found:
        report = one["report"] or {}
        state = str(report.get("state", "-"))
        if one["silent_seconds"] > 20 and report:
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
            )
        )
    return table(header, rows, right=(4, 5))


def works_on(report: dict[str, Any]) -> str:
    """The first two jobs, and how many more. A report may hold anything: not all workers are ours."""
    told, running = report.get("jobs"), report.get("running")
    jobs = [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []
    count = running if isinstance(running, int) else len(jobs)
    names = ", ".join(f"{one.get('queue', '-')}/{one.get('id', '-')}" for one in jobs[:2])
    return f"{names} and {count - 2} more" if count > 2 and names else names
