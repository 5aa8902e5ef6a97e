"""jobs, job, retry, delete, and the leases by hand: the commands about jobs that are in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

import click

from presque.cli.bulk import FILTER, STATE, filter_options, work
from presque.cli.connection import QUEUE, QUEUES, connected, failure, server_options
from presque.cli.fields import given, json_option, option_for, options_of, watch_option
from presque.cli.remedies import for_reason
from presque.cli.terminal import (
    EVERY_S,
    Counter,
    confirmed,
    look_before_taking,
    one_line,
    pairs,
    print_answer,
    print_job,
    print_json,
    printable,
    table,
    watched,
)
from presque.client import Client, ClientError
from presque.client.answers import JobRecord, Settled
from presque.client.json_values import encoded
from presque.exits import DONE, FAILED, INTERRUPTED, NOTHING_THERE, Failure
from presque.fields import whole
from presque.quantities import counted
from presque.verbs.bounds import PAGE_MOST, STATES

BY_HAND = "failed by hand"
"""The error of a job that somebody fails without saying why."""
T = TypeVar("T")
SHOWN_OF_A_BODY = 60
OF_EACH = "Print what the server says of each job as a line of JSON; of many jobs at once, the task."
HEADER = ("queue", "id", "state", "attempt", "when", "job")
WHEN = {"scheduled": "run_at", "leased": "lease_until", "done": "finished_at", "dead": "finished_at"}


@click.command(short_help="List jobs.")
@QUEUES
@click.option("--state", type=click.Choice(STATES), metavar="STATE", help=f"Only these: {', '.join(STATES)}.")
@options_of("search", *FILTER, find="grep")
@option_for(whole("limit", "How many at most.", 1, 10**9, default=100))
@json_option("Print each job as a line of JSON.")
@watch_option
@server_options
def jobs(
    queues: str,
    state: str | None,
    limit: int,
    as_json: bool,
    watch: bool,
    url: str,
    token: str | None,
    **only: Any,
) -> int:
    """List jobs without taking them, state by state: those that are ready in the order in which they will be
    handed out, the others newest first. QUEUES is a queue or a list such as 'mail*,video'.

    Exits with 7 when there is none.
    """
    with connected(url, token) as client:

        def look() -> tuple[list[JobRecord], bool]:
            wanted = found(client, queues, {"state": state, **only})
            return list(islice(wanted, limit)), next(wanted, None) is not None

        def text(shown: list[JobRecord]) -> str:
            return "\n".join(map(encoded, shown)) if as_json else all_jobs(shown, queues)

        if watch:
            watched(lambda: text(look()[0]) or "no job", EVERY_S)
        shown, more = look()
    if shown:
        print_job(text(shown))
    else:
        click.echo("presque: no job", err=True)
    if more:
        click.echo(f"presque: the first {counted(limit, 'job')}; --limit shows more", err=True)
    return DONE if shown else NOTHING_THERE


def all_jobs(shown: list[JobRecord], queues: str) -> str:
    """One row a job; nothing if there is none."""
    if not shown:
        return ""
    first = 0 if set("*?!,") & set(queues) else 1  # a column for the queue if there may be several
    rows = [_row(one)[first:] for one in shown]
    least, right = (4 - first, 3 - first), (3 - first,)
    return table(HEADER[first:], rows, right=right, elastic=(5 - first, 0), first_to_go=least)


def found(client: Client, queues: str, only: Mapping[str, Any]) -> Iterator[JobRecord]:
    """The jobs of these queues that match, page by page."""
    cursor: str | None = None
    while True:
        page = client.search(queues, limit=PAGE_MOST, cursor=cursor, **given(only))
        yield from page["jobs"]
        cursor = page["cursor"]
        if cursor is None:
            break


def _row(job: JobRecord) -> tuple[str, ...]:
    errors, body = job["errors"], encoded(job["body"])
    short = body if len(body) <= SHOWN_OF_A_BODY else f"{body[: SHOWN_OF_A_BODY - 1]}…"
    what = f"{short}  {errors[-1]['error']}" if errors else short
    when: Any = job.get(WHEN.get(job["state"], "pushed_at")) or job["pushed_at"]
    attempt = f"{job['attempt']}/{job['max_attempts']}"
    return job["queue"], job["id"], job["state"], attempt, str(when), printable(one_line(what))


@click.command(short_help="Show one job, or why it does not run.")
@QUEUE
@click.argument("id")
@options_of("job", "wait")
@click.option("--explain", is_flag=True, help="Say why it does not run.")
@json_option()
@server_options
def job(
    queue: str, id: str, wait: float | None, explain: bool, as_json: bool, url: str, token: str | None
) -> int:
    """Show all that is known of one job.

    With --wait it is shown once it is done or dead, and the exit code is 1 unless it is done.
    """
    with connected(url, token) as client:
        if explain:
            reasons = client.explain(queue, id)
            if as_json:
                print_json(reasons)
            else:
                column = max(len("reason"), *(len(one["code"]) for one in reasons)) + 2
                rows = [("reason", "")]
                for one in reasons:
                    rows.append((one["code"], one["text"]))
                    if todo := for_reason(one, queue, id):
                        rows.append(("", f"→ {todo}"))
                click.echo(pairs(rows, column))
            return DONE
        record = client.job(queue, id, wait)
    print_answer(record, _described(record), as_json=as_json)
    return DONE if wait is None or record["state"] == "done" else FAILED


def _described(job: JobRecord) -> str:
    """One line a fact, those that there are."""
    rows = []
    for name, value in job.items():
        if value is None or value == [] or name == "errors":
            continue
        text = value if isinstance(value, str) and name != "body" else encoded(value)
        rows.append((name, printable(one_line(text))))
    for one in job["errors"]:
        by = f" ({one['worker']})" if one["worker"] else ""
        rows.append(("error", printable(one_line(f"{one['at']}{by} {one['error']}"))))
    return pairs(rows, 14)


@click.command(short_help="Retry dead jobs.")
@QUEUE
@click.argument("ids", nargs=-1, metavar="[ID…]")
@click.option(
    "--all", "all_of_them", is_flag=True, help="All dead jobs, beginning with those that died first."
)
@filter_options
@json_option(OF_EACH)
@server_options
def retry(
    queue: str,
    ids: tuple[str, ...],
    all_of_them: bool,
    as_json: bool,
    url: str,
    token: str | None,
    **options: Any,
) -> int:
    """Retry dead jobs, with all their attempts: those with these ids, or all.

    With --all the other options choose which of them, QUEUE may be a list such as 'mail*,video', and the
    server retries them in the background while this command shows how far it is.
    """
    if bool(ids) == all_of_them:
        raise click.UsageError("give ids, or --all for every dead job of the queue")
    if ids and any(given(options).values()):
        raise click.UsageError("--rate, --limit and the options that choose jobs go with --all")
    with connected(url, token) as client:
        if ids:
            each(ids, lambda id: client.retry(queue, id), "retried", as_json=as_json)
            return DONE
        return work(client, "retry", queue, options, as_json=as_json)


@click.command(short_help="Delete jobs.")
@QUEUE
@click.argument("ids", nargs=-1, metavar="[ID…]")
@STATE
@filter_options
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option(OF_EACH)
@server_options
def delete(
    queue: str,
    ids: tuple[str, ...],
    state: str | None,
    yes: bool,
    as_json: bool,
    url: str,
    token: str | None,
    **options: Any,
) -> int:
    """Delete jobs: those with these ids, or those in one state.

    With --state the other options choose which of them, QUEUE may be a list such as 'mail*,video', and the
    server deletes them in the background while this command shows how far it is. A leased job is deleted when
    its lease ends.
    """
    if bool(ids) == bool(state):
        raise click.UsageError("give ids, or --state for all jobs in one state")
    if ids and any(given(options).values()):
        raise click.UsageError("the options that choose jobs go with --state")
    with connected(url, token) as client:
        if ids:

            def one(id: str) -> dict[str, Any]:
                return {"queue": queue, "id": id, "deleted": client.delete(queue, id)}

            each(ids, one, "deleted", as_json=as_json, waits=lambda said: not said["deleted"])
            return DONE

        def ask(many: str) -> bool:
            return confirmed(f"Delete {many} of {queue} ({state})?")

        return work(client, "delete", queue, options, ask=None if yes else ask, as_json=as_json, state=state)


def each(
    ids: tuple[str, ...],
    act: Callable[[str], T],
    what: str,
    *,
    as_json: bool,
    waits: Callable[[T], bool] = lambda _: False,
) -> None:
    """Do something to each job, and say how far it came whatever stops it. With `as_json` each answer is a
    line; `waits` tells from an answer whether the job is leased, and so goes later."""
    counter = Counter(what, of=len(ids))
    done = leased = 0
    try:
        for id in ids:
            said = act(id)
            if as_json:
                print_json(said)
            leased += waits(said)
            done += 1
            counter.show(done)
    except ClientError as error:
        counter.clear()
        raise failure(error, f"; {counted(done, 'job')} {what} before job {id}") from None
    except KeyboardInterrupt:
        counter.clear()
        told = f"{counted(done, 'job')} of {len(ids)} {what}"
        raise Failure(f"stopped: {told}; the rest begins with job {ids[done]}", INTERRUPTED) from None
    counter.clear()
    if not as_json:
        later = f", {leased} of them leased: gone when the worker lets go" if leased else ""
        click.echo(f"{counted(done, 'job')} {what}{later}")


# --- leases by hand


@click.command(short_help="Take jobs for a while, to ack them later.")
@QUEUES
@options_of("lease", "count", "seconds", "wait")
@click.option("--worker", metavar="ID", help="The id of the worker that takes them, shown to people.")
@server_options
def lease(queues: str, worker: str | None, url: str, token: str | None, **options: Any) -> int:
    """Take jobs for a while and print each as a line of JSON, with the token of its lease in `lease`.

    They come again unless `presque ack` says in time that they are done. Exits with 7 when there is no job.
    """
    look_before_taking()
    with connected(url, token, worker=worker) as client:
        taken = client.lease(queues, **given(options))
    lines = [
        encoded({
            "queue": one.queue, "id": one.id, "job": one.value, "attempt": one.attempt,
            "max_attempts": one.max_attempts, "lease": one.lease, "lease_until": one.lease_until,
        })
        for one in taken
    ]  # fmt: skip
    if taken:
        print_job("\n".join(lines), taken=True)
    else:
        click.echo("presque: no job", err=True)
    return DONE if taken else NOTHING_THERE


def _settles(
    name: str,
    *fields: str,
    more: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda command: command,
) -> Callable[[Callable[..., Settled]], click.Command]:
    """A command that ends or extends a lease; `more` adds options that are not fields."""

    def make(act: Callable[..., Settled]) -> click.Command:
        @options_of(name, *fields)
        @more
        @json_option()
        @server_options
        def command(
            queue: str, id: str, token_of: str, as_json: bool, url: str, token: str | None, **options: Any
        ) -> None:
            with connected(url, token) as client:
                held = {"queue": queue, "id": id, "lease": token_of}
                settled = act(client, held, given(options))
            print_answer(settled, _state(settled), as_json=as_json)

        for argument, metavar in (("token_of", "LEASE"), ("id", "ID"), ("queue", "QUEUE")):
            command = click.argument(argument, metavar=metavar)(command)
        short = (act.__doc__ or "").partition("\n")[0]
        return click.command(name, help=act.__doc__, short_help=short)(command)

    return make


def _state(settled: Settled) -> str:
    """The job's new state, and the moment that it speaks of."""
    until = settled.get("run_at") or settled.get("lease_until")
    cancel = "; somebody wants it to stop" if settled.get("cancel") else ""
    return settled["state"] + (f" until {until}" if until else "") + cancel


@_settles("ack", "result", "progress")
def ack(client: Client, held: dict[str, str], options: dict[str, Any]) -> Settled:
    """Report that a leased job is done.

    LEASE is the token that `presque lease` printed.
    """
    return client.ack(held, **options)


@_settles(
    "fail", "error", "backtrace", "retry_in", "progress", "saved",
    more=click.option("--dead", is_flag=True, default=None, help="Do not retry it."),
)  # fmt: skip
def fail(client: Client, held: dict[str, str], options: dict[str, Any]) -> Settled:
    """Report that a leased job failed.

    It is retried as the policy of its queue says, or after --retry-in; after its last attempt it is dead.
    """
    retry = False if options.pop("dead", None) else None
    return client.fail(held, options.pop("error", BY_HAND), retry=retry, **options)


@_settles("release", "delay", "progress", "saved")
def release(client: Client, held: dict[str, str], options: dict[str, Any]) -> Settled:
    """Give a leased job back, which is not a failure.

    The job is ready again, at once or after --delay.
    """
    return client.release(held, **options)


@_settles("extend", "seconds", "progress", "saved")
def extend(client: Client, held: dict[str, str], options: dict[str, Any]) -> Settled:
    """Extend the lease of a job.

    The lease then lasts --seconds from now, or as long as it was first given for.
    """
    return client.extend(held, **options)
