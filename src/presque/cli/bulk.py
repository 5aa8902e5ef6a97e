"""What is done to many jobs: the work of a bulk task, watched from here, and move and tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from presque.cli.connection import QUEUES, connected, server_options
from presque.cli.fields import json_option, options_of, watch_option
from presque.cli.groups import NearestGroup
from presque.cli.terminal import (
    Counter,
    confirmed,
    one_line,
    pairs,
    print_answer,
    print_json,
    printable,
    shown,
    table,
)
from presque.client import Client
from presque.client.answers import DryRun, Task
from presque.client.json_values import encoded
from presque.exits import DONE, FAILED, INTERRUPTED, Failure
from presque.quantities import counted
from presque.verbs.bounds import STATES
from presque.verbs.vocabulary import ANY_STATE

Command = TypeVar("Command", bound=Callable[..., Any])

FILTER = ("find", "error", "like", "text", "older", "newer", "group", "worker", "priority")
LOOK_S = 0.25
ENDED = ("done", "cancelled", "failed")
DID = {"retry": "retried", "delete": "deleted", "move": "moved"}

OF_A_TASK = "Print the task, or what a dry run found, as JSON."

STATE = click.option(
    "--state",
    type=click.Choice((*STATES, ANY_STATE)),
    metavar="STATE",
    help=f"Jobs in this state: {', '.join((*STATES, ANY_STATE))}.",
)


def filter_options(command: Command) -> Command:
    """Add options that say which jobs are meant, and how they are worked on."""
    for option in (
        click.option("--detach", is_flag=True, help="Print the task's id and do not wait for its end."),
        click.option("--cancel", is_flag=True, help="Let Ctrl-C end the task, not only this command."),
        click.option("--dry-run", is_flag=True, help="Say how many jobs match, and change nothing."),
    ):
        command = option(command)
    return options_of("new_task", *FILTER, "rate", "limit", find="grep")(command)


def only(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a task that were given."""
    return {name: options[name] for name in (*FILTER, "rate", "limit") if options.get(name) is not None}


def work(
    client: Client,
    act: str,
    queues: str,
    options: Mapping[str, Any],
    *,
    ask: Callable[[str], bool] | None = None,
    as_json: bool = False,
    **more: Any,
) -> int:
    """Begin a task and watch it, as `filter_options` says; `ask` is asked before. Returns the exit code."""
    asked = {**only(options), **more}
    if options["dry_run"] or ask is not None:
        found = client.dry_run(act, queues, **asked)  # type: ignore[arg-type]
        many = _many(found)
        if options["dry_run"]:
            print_answer(found, f"{many} would be {DID[act]}", as_json=as_json)
            return DONE
        if ask is not None and found["matched"] and not ask(many):
            return FAILED
    task = client.new_task(act, queues, **asked)  # type: ignore[arg-type]
    if options["detach"]:
        print_answer(task, task["id"], as_json=as_json)
        return DONE
    return watch(client, task, cancel=options["cancel"], as_json=as_json)


def _many(found: DryRun) -> str:
    many = counted(found["matched"], "job")
    return many if found["complete"] else f"at least {many} ({found['looked']['jobs']} were looked at)"


def watch(client: Client, task: Task, *, cancel: bool = False, as_json: bool = False) -> int:
    """Show how far a task is until it ends, then what became of it. Ctrl-C ends that, and the task too with
    `cancel`."""
    counter = Counter(DID.get(task["act"], task["act"]))
    try:
        while task["status"] not in ENDED:
            total = task["total"]
            counter.show(task["done"], task["looked"] / total if total else None)
            if task["status"] == "paused":
                counter.clear()
                click.echo(f"the task is paused: presque tasks resume {task['id']}", err=True)
                return DONE
            time.sleep(LOOK_S)
            task = client.task(task["id"])
    except KeyboardInterrupt:
        counter.clear()
        raise _interrupted(client, task, cancel=cancel) from None
    counter.clear()
    for problem in task["problems"]:
        click.echo(f"presque: {printable(one_line(problem))}", err=True)
    print_answer(task, _told(task), as_json=as_json)
    return DONE if task["status"] == "done" and not task["problems"] else FAILED


def _interrupted(client: Client, task: Task, *, cancel: bool) -> Failure:
    """What to say when somebody leaves in the middle of it."""
    far = f"{counted(task['done'], 'job')} {DID.get(task['act'], task['act'])}"
    if cancel:
        client.cancel_task(task["id"])
        return Failure(f"cancelled: {far}; run it again for the rest", INTERRUPTED)
    id = task["id"]
    return Failure(
        f"{far}, and the task continues on the server: `presque tasks show {id}` says how far it is, "
        f"`presque tasks cancel {id}` ends it",
        INTERRUPTED,
    )


def _told(task: Task) -> str:
    """What became of a task, in a sentence."""
    said = f"{counted(task['done'], 'job')} {DID.get(task['act'], task['act'])}"
    if task["refused"]:
        said += f", {counted(task['refused'], 'job')} left where they are"
    return said if task["status"] == "done" else f"{said}; the task is {task['status']}"


@click.command(short_help="Move jobs to another queue.")
@QUEUES
@click.argument("to")
@STATE
@filter_options
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option(OF_A_TASK)
@server_options
def move(
    queues: str,
    to: str,
    state: str | None,
    yes: bool,
    as_json: bool,
    url: str,
    token: str | None,
    **options: Any,
) -> int:
    """Move jobs to the queue TO, with all that is known of them.

    The server does it in the background, and this command shows how far it is. Leased jobs stay where they
    are.
    """
    if state is None:
        raise click.UsageError(f"pass --state to say which jobs to move: {', '.join(STATES)} or {ANY_STATE}")
    with connected(url, token) as client:

        def ask(many: str) -> bool:
            return yes or confirmed(f"Move {many} of {queues} to {to}?")

        return work(
            client, "move", queues, options, ask=None if yes else ask, as_json=as_json, to=to, state=state
        )


# --- tasks


@click.group(cls=NearestGroup, short_help="Show and control bulk tasks.")
def tasks() -> None:
    """List, watch, pause, resume or cancel bulk tasks, which do something to many jobs in the background."""


@tasks.command("list", short_help="List the tasks.")
@json_option()
@watch_option
@server_options
def list_of_tasks(as_json: bool, watch: bool, url: str, token: str | None) -> None:
    """List the tasks, the newest first: those that have not ended, and the last that ended within a week."""
    with connected(url, token) as client:

        def text() -> str:
            found, cursor = client.tasks()
            while cursor is not None:
                more, cursor = client.tasks(cursor=cursor)
                found += more
            if as_json:
                return encoded(found)
            if not found:
                return "no tasks: presque retry, delete and move begin them"
            header = ("id", "what", "queues", "status", "done", "looked at", "began")
            return table(header, map(_row, found), right=(0, 4, 5), elastic=(2,), first_to_go=(6, 5))

        shown(text, watch=watch)


def _row(task: Task) -> tuple[str, ...]:
    total = task["total"]
    looked = f"{task['looked']} of {total}" if total is not None else str(task["looked"])
    what = task["act"] if task["to"] is None else f"{task['act']} to {task['to']}"
    return (
        task["id"], what, task["queues"], task["status"], str(task["done"]), looked, task["began_at"]
    )  # fmt: skip


@tasks.command("show", short_help="Show one task, and how far it is.")
@click.argument("id")
@click.option("--watch", "watches", is_flag=True, help="Go on until it ends.")
@json_option()
@server_options
def show(id: str, watches: bool, as_json: bool, url: str, token: str | None) -> int:
    """Show one task, and how far it is.

    With --watch it is shown until it ends, and the exit code is 1 unless it did all there was to do.
    """
    with connected(url, token) as client:
        task = client.task(id)
        if watches:
            return watch(client, task, as_json=as_json)
    print_answer(task, _described(task), as_json=as_json)
    return DONE


def _described(task: Task) -> str:
    rows = [
        (name, printable(one_line(value if isinstance(value, str) else encoded(value))))
        for name, value in task.items()
        if value not in (None, [], {})
    ]
    return pairs(rows, 14)


def _steers(word: str, said: str) -> None:
    """A command that pauses tasks, resumes or cancels them."""

    @tasks.command(word, short_help=said, help=said)
    @click.argument("ids", nargs=-1, required=True, metavar="ID…")
    @json_option("Print each task as a line of JSON.")
    @server_options
    def command(ids: tuple[str, ...], as_json: bool, url: str, token: str | None) -> None:
        with connected(url, token) as client:
            for id in ids:
                task: Task = getattr(client, f"{word}_task")(id)
                if as_json:
                    print_json(task)
                    continue
                click.echo(f"task {task['id']} is {task['status']}: {_told(task).partition(';')[0]}")


_steers("pause", "Pause tasks until they are resumed.")
_steers("resume", "Resume tasks where they were paused.")
_steers("cancel", "Cancel tasks. What they have done stays done.")
