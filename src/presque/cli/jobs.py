"""push, fetch, peek: the commands about jobs."""

from __future__ import annotations

import json
from typing import Any, BinaryIO, cast

import click

from presque.cli.connection import QUEUE, QUEUES, connected, failure, server_options
from presque.cli.fields import given, json_option, options_of
from presque.cli.inputs import bytes_of, go_on, refuse_packed, source
from presque.cli.standard_output import silence
from presque.cli.terminal import Counter, look_before_taking, one_line, print_job
from presque.client import BatchOptions, Client, ClientError, ServerNotReached, Unavailable
from presque.client.json_values import checked, encoded
from presque.exits import DONE, INTERRUPTED, NOTHING_THERE, USAGE, Failure
from presque.quantities import counted

OPTIONS = (
    "delay", "delayed", "priority", "ttl", "attempts", "keep", "group", "uniq", "uniq_until",
    "idempotency_key", "traceparent", "tracestate",
)  # fmt: skip
OF_ONE_JOB = ("uniq", "idempotency_key")
PEEKED_MOST = 1000
BATCH_JOBS = 500
BATCH_BYTES = 512 * 1024  # Half of what a server takes in one request by default.


@click.command(short_help="Put a job on a queue and print its id.")
@QUEUE
@click.argument("body", required=False, metavar="[BODY | @FILE | -]")
@options_of("push", *OPTIONS, delayed="at")
@click.option("--jsonl", is_flag=True, help="Every line of the input is a job.")
@json_option("Print an object instead of an id.")
@server_options
def push(
    queue: str,
    body: str | None,
    jsonl: bool,
    as_json: bool,
    url: str,
    token: str | None,
    **options: Any,
) -> None:
    """Put a job on a queue and print its id.

    BODY is a JSON document. @FILE reads it from a file, - from standard input; so does a missing BODY
    when something is piped in. When the id is printed, the server has stored the job.

    With --jsonl every line is a job. They are pushed in order, up to 500 at once; a line that is not a JSON
    document ends the push; the jobs before it stay pushed.
    """
    options = given(options)
    if "delay" in options and "delayed" in options:
        raise click.UsageError("--delay and --at contradict each other: use one of them")
    if "uniq_until" in options and "uniq" not in options:
        raise click.UsageError("--uniq-until goes with --uniq")
    for name in OF_ONE_JOB if jsonl else ():
        if name in options:
            flag = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{flag} and --jsonl contradict each other: it is for one job")
    with connected(url, token) as client:
        if jsonl:
            with source(body, "--jsonl") as lines:
                refuse_packed(lines, f"presque push {queue} --jsonl")
                push_lines(client, queue, lines, cast(BatchOptions, options), as_json=as_json, file=body)
            return
        text = text_of(body)
        print_id(queue, client.push_text(queue, text, **options), as_json=as_json)


def text_of(body: str | None) -> bytes:
    """The job from where BODY says, without the line end that files and `echo` add."""
    if body is not None and body != "-" and not body.startswith("@"):
        return body.encode(errors="surrogateescape")
    with source(body, "BODY") as file:
        text = file.read().rstrip(b"\r\n")
    if not text:
        raise click.UsageError(f"there is no job in {body[1:] if body and body != '-' else 'standard input'}")
    return text


def push_lines(
    client: Client, queue: str, lines: BinaryIO, options: BatchOptions, *, as_json: bool, file: str | None
) -> None:
    """Push every line. Raises `Failure` that says how far it came, and how to go on."""
    pushing = _Lines(client, queue, options, whole=bytes_of(lines), as_json=as_json, file=file)
    number = 0
    try:
        for number, line in enumerate(lines, 1):
            try:
                pushing.add(number, line)
            except ValueError as error:
                pushing.flush()
                cut = "" if line.endswith(b"\n") else ", and has no end: it may be cut off"
                raise Failure(
                    f"line {number} is not a JSON document ({reason(error)}){cut}; "
                    f"{counted(pushing.pushed, 'job')} pushed, all before that line; correct it, then: "
                    f"{go_on(number, file)}",
                    USAGE,
                ) from None
        pushing.flush()
    except KeyboardInterrupt:
        raise Failure(f"stopped in line {number}: {pushing.how_far()}", INTERRUPTED) from None
    finally:
        pushing.progress.clear()
    click.echo(f"{counted(pushing.pushed, 'job')} pushed", err=True)


class _Lines:
    """Gathers lines and pushes them, up to 500 at once, and knows how far it came."""

    def __init__(
        self,
        client: Client,
        queue: str,
        options: BatchOptions,
        *,
        whole: int | None,
        as_json: bool,
        file: str | None,
    ) -> None:
        self.client, self.queue, self.options = client, queue, options
        self.whole, self.as_json, self.file = whole, as_json, file
        self.pushed = 0
        self.progress = Counter("pushed")
        self._batch, self._size, self._read = list[str](), 0, 0
        self._line = self._sure = 0  # the last line that was added, and the last of those that are pushed
        self._under_way = False

    def add(self, number: int, line: bytes) -> None:
        """Take a line on, and push those before it if there is no room. Raises `ValueError` for what is not
        JSON."""
        self._read += len(line)
        if line.strip():
            text = checked(line.decode().rstrip("\r\n"))
            if len(self._batch) == BATCH_JOBS or self._size + len(line) > BATCH_BYTES:
                self.flush()
            self._batch.append(text)
            self._size += len(line)
        self._line = number

    def flush(self) -> None:
        """Push what was gathered and print the ids. Raises `Failure` when the server refuses."""
        if not self._batch:
            return
        self._under_way = True
        try:
            ids = self.client.push_texts(self.queue, self._batch, **self.options)
        except ClientError as error:
            unknown = isinstance(error, ServerNotReached) and error.sent
            told = self.how_far() if unknown or isinstance(error, Unavailable) else self._sure_of()
            raise failure(error, f"; {told}") from None
        self.pushed += len(self._batch)
        self._under_way, self._sure = False, self._line
        self._batch.clear()
        self._size = 0
        try:
            click.echo("\n".join(said_of(self.queue, id, as_json=self.as_json) for id in ids))
        except BrokenPipeError:
            raise
        except OSError as error:
            silence()
            why = f"cannot write to standard output ({error.strerror})"
            raise Failure(f"{why}, so it stopped; {self._sure_of()}") from None
        self.progress.show(self.pushed, self._read / self.whole if self.whole else None)

    def _sure_of(self) -> str:
        if not self.pushed:
            return "no job pushed before"
        return f"{counted(self.pushed, 'job')} pushed before, up to line {self._sure}; {self._go_on()}"

    def how_far(self) -> str:
        """What is pushed for sure, what may be, and how to go on."""
        told = f"{counted(self.pushed, 'job')} pushed for sure, up to line {self._sure}"
        if self._under_way:  # its answer was not awaited
            told += f", and the next {counted(len(self._batch), 'job')} perhaps"
            told += f": `presque stats {self.queue}` tells"
        return f"{told}; {self._go_on()}"

    def _go_on(self) -> str:
        return f"the rest: {go_on(self._sure + 1, self.file)}"


def reason(error: ValueError) -> str:
    """What the parser found, without its idea of line numbers."""
    if isinstance(error, json.JSONDecodeError):
        found = error.msg.removesuffix(" starting at")
        return f"{found[:1].lower()}{found[1:]} at column {error.colno}"
    return "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)


def print_id(queue: str, id: str, *, as_json: bool) -> None:
    """Print what `said_of` says."""
    click.echo(said_of(queue, id, as_json=as_json))


def said_of(queue: str, id: str, *, as_json: bool) -> str:
    """The id alone, or an object with its queue."""
    return encoded({"queue": queue, "id": id}) if as_json else id


@click.command(short_help="Take a job off a queue for good and print it.")
@QUEUES
@options_of("fetch", "wait")
@json_option("Print an object with queue, id and job.")
@server_options
def fetch(queues: str, wait: float | None, as_json: bool, url: str, token: str | None) -> int:
    """Take a job off a queue for good and print it.

    QUEUES are names and patterns in order of preference: 'critical,*,!bulk_*'. Exits with 7 when there
    is no job.
    """
    look_before_taking()
    with connected(url, token) as client:
        job = client.fetch(queues, wait)
    if job is None:
        click.echo("presque: no job", err=True)
        return NOTHING_THERE
    if as_json:
        about = encoded({"queue": job.queue, "id": job.id})
        print_job(f'{about[:-1]},"job":{one_line(job.body)}}}', taken=True)
    else:
        print_job(job.body, taken=True)
    return DONE


@click.command(short_help="Print the jobs that wait, without taking them.")
@QUEUE
@json_option("Print one array.")
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
    if len(texts) == PEEKED_MOST:
        more = f"presque jobs {queue} --state ready --limit N"
        click.echo(f"presque: the next {PEEKED_MOST} jobs; there may be others: {more}", err=True)
    return DONE if texts else NOTHING_THERE
