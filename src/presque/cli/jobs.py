"""push, fetch, peek: the commands about jobs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from presque.cli.connection import connected, failure, server_options
from presque.cli.exits import DONE, NOTHING_THERE, Failure
from presque.cli.terminal import one_line, print_job
from presque.cli.times import Duration, Moment
from presque.client import BatchOptions, Client, ClientError
from presque.client.json_values import checked

BATCH_JOBS = 500
BATCH_BYTES = 512 * 1024  # Half of what a server takes in one request unless it was told otherwise.


class Priority(click.ParamType[int]):
    """A priority as an option."""

    name = "priority"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the text, or fail as click wants it."""
        text = str(value)
        if len(text) != 1 or text not in "123456789":
            self.fail("should be a whole number from 1 to 9, 9 first", param, ctx)
        return int(text)


@click.command(short_help="Put a job on a queue and print its id.")
@click.argument("queue")
@click.argument("body", required=False, metavar="[BODY | @FILE | -]")
@click.option("--delay", type=Duration(), metavar="5m", help="Not before so much time has passed.")
@click.option("--at", type=Moment(), metavar="TIME", help="Not before this RFC 3339 time or epoch second.")
@click.option("--priority", type=Priority(), metavar="N", help="1 to 9, 9 first; 5 unless said.")
@click.option("--uniq", metavar="KEY", help="Refuse the job while another with this key waits (exit 6).")
@click.option("--jsonl", is_flag=True, help="Every line of the input is a job.")
@click.option("--json", "as_json", is_flag=True, help="Print an object instead of an id.")
@server_options
def push(
    queue: str,
    body: str | None,
    delay: float | None,
    at: float | None,
    priority: int | None,
    uniq: str | None,
    jsonl: bool,
    as_json: bool,
    url: str,
    token: str | None,
) -> None:
    """Put a job on a queue and print its id.

    BODY is a JSON document. @FILE reads it from a file, - from standard input; so does a missing BODY
    when something is piped in. When the id is printed, the server has stored the job.

    With --jsonl every line is a job. They are pushed in order, up to 500 at once; a line that is no
    JSON document ends it, after the jobs before that line were pushed.
    """
    if delay is not None and at is not None:
        raise click.UsageError("--delay and --at contradict each other: use one of them")
    if jsonl and uniq is not None:
        raise click.UsageError("--uniq and --jsonl contradict each other: a key is for one job")
    options: BatchOptions = {"delay": delay, "delayed": at, "priority": priority}
    with connected(url, token) as client:
        if jsonl:
            with source(body, "--jsonl") as lines:
                push_lines(client, queue, lines, options, as_json=as_json)
            return
        text = text_of(body)
        print_id(queue, client.push_text(queue, text, uniq=uniq, **options), as_json=as_json)


def text_of(body: str | None) -> bytes:
    """The job, from wherever BODY says; the line end that files and `echo` add is not part of it."""
    if body is not None and body != "-" and not body.startswith("@"):
        return body.encode(errors="surrogateescape")
    with source(body, "BODY") as file:
        text = file.read().rstrip(b"\r\n")
    if not text:
        raise click.UsageError(f"there is no job in {body[1:] if body and body != '-' else 'standard input'}")
    return text


@contextmanager
def source(body: str | None, wanted_by: str) -> Iterator[BinaryIO]:
    """The file that @FILE, - or a missing BODY stands for."""
    if body is not None and body.startswith("@"):
        try:
            file = Path(body[1:]).open("rb")  # noqa: SIM115
        except OSError as error:
            raise click.UsageError(f"cannot read {body[1:]}: {error.strerror}") from None
        with file:
            yield file
    elif body == "-" or (body is None and not sys.stdin.isatty()):
        yield sys.stdin.buffer
    elif body is None:
        raise click.UsageError("BODY is missing: give a JSON document, @FILE, or - for standard input")
    else:
        raise click.UsageError(f"{wanted_by} reads @FILE or standard input, not a job on the command line")


def push_lines(
    client: Client, queue: str, lines: Iterable[bytes], options: BatchOptions, *, as_json: bool
) -> None:
    """Push every line. Raises `Failure` that says how many were pushed before it went wrong."""
    pushed, batch, size = 0, list[str](), 0
    progress = Progress()

    def flush() -> None:
        nonlocal pushed, size
        if not batch:
            return
        try:
            ids = client.push_texts(queue, batch, **options)
        except ClientError as error:
            progress.clear()
            raise failure(error, f"; {jobs(pushed)} pushed before") from None
        pushed += len(batch)
        for id in ids:
            print_id(queue, id, as_json=as_json)
        batch.clear()
        size = 0
        progress.show(pushed)

    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            text = checked(line.decode().rstrip("\r\n"))
        except ValueError as error:
            flush()
            progress.clear()
            raise Failure(
                f"line {number} is not a JSON document ({reason(error)}); "
                f"{jobs(pushed)} pushed, all before that line"
            ) from None
        if len(batch) == BATCH_JOBS or size + len(line) > BATCH_BYTES:
            flush()
        batch.append(text)
        size += len(line)
    flush()
    progress.clear()
    click.echo(f"{jobs(pushed)} pushed", err=True)


class Progress:
    """How far we are, on standard error, for whoever looks at it: nothing when that is no terminal."""

    def __init__(self) -> None:
        self.on = sys.stderr.isatty()
        self.shown_at = 0.0

    def show(self, pushed: int) -> None:
        """Overwrite the line, a few times a second at most."""
        if self.on and time.monotonic() - self.shown_at > 0.2:
            self.shown_at = time.monotonic()
            click.echo(f"\r{jobs(pushed)} pushed …", err=True, nl=False)

    def clear(self) -> None:
        """Leave the line empty, for what is printed next."""
        if self.shown_at:
            click.echo("\r\x1b[K", err=True, nl=False)


def jobs(count: int) -> str:
    """`1 job`, `2 jobs`."""
    return f"{count} job" if count == 1 else f"{count} jobs"


def reason(error: ValueError) -> str:
    """What the parser found, without its idea of line numbers."""
    if isinstance(error, json.JSONDecodeError):
        found = error.msg.removesuffix(" starting at")
        return f"{found[:1].lower()}{found[1:]} at column {error.colno}"
    return "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)


def print_id(queue: str, id: str, *, as_json: bool) -> None:
    """The id alone, or an object with its queue."""
    click.echo(json.dumps({"queue": queue, "id": id}) if as_json else id)


@click.command(short_help="Take a job off a queue for good and print it.")
@click.argument("queues")
@click.option("--wait", type=Duration(), metavar="20", help="Wait so long for a job, 60 s at most.")
@click.option("--json", "as_json", is_flag=True, help="Print an object with queue, id and job.")
@server_options
def fetch(queues: str, wait: float | None, as_json: bool, url: str, token: str | None) -> int:
    """Take a job off a queue for good and print it.

    QUEUES are names and patterns in order of preference: 'critical,*,!bulk_*'. Exits with 7 when there
    is no job.
    """
    with connected(url, token) as client:
        job = client.fetch(queues, wait)
    if job is None:
        click.echo("presque: no job", err=True)
        return NOTHING_THERE
    if as_json:
        about = json.dumps({"queue": job.queue, "id": job.id})
        print_job(f'{about[:-1]}, "job": {one_line(job.body)}}}')
    else:
        print_job(job.body)
    return DONE


@click.command(short_help="Print the jobs that wait, without taking them.")
@click.argument("queue")
@click.option("--json", "as_json", is_flag=True, help="Print one array.")
@server_options
def peek(queue: str, as_json: bool, url: str, token: str | None) -> int:
    """Print the jobs that wait, without taking them.

    One a line, the next first, 1000 at most. Exits with 7 when none waits.
    """
    with connected(url, token) as client:
        texts = client.peek(queue)
    if as_json:
        print_job(f"[{', '.join(one_line(text) for text in texts)}]")
    elif texts:
        print_job("\n".join(one_line(text) for text in texts))
    else:
        click.echo("presque: no job", err=True)
    return DONE if texts else NOTHING_THERE
