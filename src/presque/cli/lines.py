"""export and import: jobs as lines, with all that is known of them."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import urlencode

import click

from presque.cli.bulk import FILTER, STATE
from presque.cli.connection import connected, failure, server_options
from presque.cli.fields import given, json_option, options_of
from presque.cli.inputs import bytes_of, refuse_packed
from presque.cli.queues import note_unknown
from presque.cli.standard_output import silence
from presque.cli.streaming import opened
from presque.cli.terminal import Counter, print_json
from presque.client import Client, ClientError
from presque.client.address import Address, server, token_of
from presque.client.exchange import reason_of
from presque.client.json_values import checked
from presque.exits import DONE, FAILED, INTERRUPTED, NOT_REACHED, USAGE, Failure
from presque.quantities import counted
from presque.verbs.bounds import STATES
from presque.verbs.vocabulary import ANY_STATE

BATCH_JOBS = 500
BATCH_BYTES = 512 * 1024  # half of what a server takes in one request by default
COUNTED_WITHIN_S = 2.0
"""How long an export on a terminal asks how many jobs there are, before it begins without a bar."""
TRIES, TRY_S = 5, 1.0  # while the server is away, without a single job in between


class Lost(Exception):
    """The stream ended before its last line."""


@click.command(short_help="Write jobs to standard output, one per line, without taking them.")
@click.argument("queues", nargs=-1, required=True)
@STATE
@options_of("export", *FILTER, find="grep")
@click.option("--cursor", metavar="TEXT", help="Continue where an export broke off, as its message says.")
@server_options
def export(
    queues: tuple[str, ...], state: str | None, cursor: str | None, url: str, token: str | None, **only: Any
) -> int:
    """Write jobs to standard output, one per line, with all that is known of them. They stay where they are.

    QUEUES are names and patterns. Each line is a JSON object that `presque import` reads. The last line says
    that the export is whole. When the server is away for a moment the export goes on where it was.
    """
    try:
        address, bearer = server(url), token_of(token)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    asked = {"queues": ",".join(queues), "state": state, **given(only)}
    all_of_them = not given(only) and cursor is None and sys.stderr.isatty()
    whole = how_many(url, token, asked["queues"], state) if all_of_them else None
    counter, written, tries = Counter("exported", of=whole), 0, 0
    try:
        while True:
            try:
                for lines, count, following in _pieces(address, bearer, asked, cursor):
                    _write(lines, written, cursor)
                    written, cursor, tries = written + count, following, 0
                    counter.show(written)
                break
            except (OSError, http.client.HTTPException, Lost) as error:
                tries += 1
                if tries > TRIES:
                    counter.clear()
                    raise _broken(
                        f"the server is away ({reason_of(error)})", written, cursor, NOT_REACHED
                    ) from None
                time.sleep(TRY_S)
    except KeyboardInterrupt:
        counter.clear()
        raise _broken("stopped", written, cursor, INTERRUPTED) from None
    counter.clear()
    if not written:
        with contextlib.suppress(ClientError), Client(url, token) as client:
            for queue in queues:
                if not set("*?!,") & set(queue):
                    note_unknown(client, queue)
    click.echo(f"{counted(written, 'job')} exported", err=True)
    return DONE


def how_many(url: str, token: str | None, queues: str, state: str | None) -> int | None:
    """How many jobs these queues hold, for the progress; None if the server does not say so soon."""
    count, cursor = 0, None
    ends = time.monotonic() + COUNTED_WITHIN_S
    try:
        with Client(url, token, timeout=COUNTED_WITHIN_S) as client:
            while time.monotonic() < ends:
                page: Mapping[str, Any] = client.all_stats(queues, cursor=cursor)
                for of in page["by_queue"].values():
                    count += sum(of[one] for one in (STATES if state in (None, ANY_STATE) else (state,)))
                cursor = page.get("cursor")
                if cursor is None:
                    return count
    except ClientError:
        pass
    return None


def _pieces(
    address: Address, token: str | None, asked: dict[str, Any], cursor: str | None
) -> Iterator[tuple[bytes, int, str | None]]:
    """Lines, how many jobs they are, and where to go on behind them. Raises `Lost` if the last one is
    missing."""
    query = {name: str(value) for name, value in {**asked, "cursor": cursor}.items() if value is not None}
    with opened(address, token, f"/export?{urlencode(query)}", {}) as answer:
        lines: list[bytes] = []
        for line in answer:
            if not line.startswith(b'{"cursor":'):
                lines.append(line)
                continue
            end = json.loads(line)
            if end["cursor"] is None:
                yield b"".join(lines) + line, len(lines), None
                return
            yield b"".join(lines), len(lines), end["cursor"]
            lines = []
    raise Lost("the export ended in the middle")


def _write(lines: bytes, written: int, cursor: str | None) -> None:
    """Raises `Failure` when standard output cannot be written to, and says how to continue."""
    try:
        sys.stdout.buffer.write(lines)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        silence()
        why = f"cannot write to standard output ({error.strerror or error})"
        raise _broken(why, written, cursor, FAILED) from None


def _broken(why: str, written: int, cursor: str | None, code: int) -> Failure:
    how = f"; continue with --cursor {cursor}" if cursor else ""
    return Failure(f"{why}: {counted(written, 'job')} written for sure, and none was taken{how}", code)


@click.command("import", short_help="Put exported jobs back on their queues.")
@click.argument("file", required=False, metavar="[FILE | -]")
@click.option("--name", metavar="TEXT", help="What the import is called; by default, what the file holds.")
@json_option("Print an object with the counts.")
@server_options
def import_(file: str | None, name: str | None, as_json: bool, url: str, token: str | None) -> int:
    """Put jobs that were exported on their queues, as they were: with their states, attempts and errors.

    A job that was leased becomes ready. Each job gets a new id. An import that broke off can be run again:
    what is stored already is not stored twice. To import the same file twice, give another --name.

    Exits with 2 when the input is cut off: what came is stored then, and the message says how to go on. End
    lines of your own with the line {"cursor":null}, which says that they are whole.
    """
    if file is None and sys.stdin.isatty():
        raise click.UsageError("FILE is missing: give a file, or - for standard input")
    try:
        source = sys.stdin.buffer if file in (None, "-") else Path(str(file)).open("rb")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise click.UsageError(f"cannot read {file}: {error.strerror}") from None
    with source, connected(url, token) as client:
        refuse_packed(source, "presque import")
        called = name or (_name_of(source) if source is not sys.stdin.buffer else secrets.token_hex(8))
        return _import(client, source, called, as_json=as_json)


def _name_of(source: BinaryIO) -> str:
    """A name for the contents of a file."""
    found = hashlib.sha256()
    while part := source.read(1024 * 1024):
        found.update(part)
    source.seek(0)
    return found.hexdigest()


def _import(client: Client, source: BinaryIO, name: str, *, as_json: bool) -> int:
    stored, jobs, batch = 0, 0, Batch(b"", 0, 1, 0, 0)
    counter, size = Counter("imported"), bytes_of(source)
    try:
        for batch in _batches(source):
            if batch.jobs:
                stored += client.import_lines(batch.lines, name, batch.last)
                jobs += batch.jobs
                counter.show(jobs, batch.read / size if size else None)
    except (ClientError, KeyboardInterrupt) as error:
        counter.clear()
        far = f"{counted(jobs, 'job')} of the input stored; run it again with --name {name} for the rest"
        if isinstance(error, ClientError):
            raise failure(_of_the_input(error, batch.first), f"; {far}") from None
        raise Failure(f"stopped: {far}", INTERRUPTED) from None
    counter.clear()
    if as_json:
        print_json({"imported": stored, "known": jobs - stored, "whole": batch.whole})
    else:
        known = f"; {counted(jobs - stored, 'job')} stored before" if jobs > stored else ""
        click.echo(f"{counted(stored, 'job')} imported{known}")
    if batch.whole:
        return DONE
    if not batch.read:
        raise Failure("the input is empty: an export has one line at least", USAGE)
    raise Failure(
        f"the input is cut off: it does not end as an export does; its {counted(batch.last, 'line')} are "
        f"stored; the rest, from a whole copy: tail -n +{batch.last + 1} COPY | presque import",
        USAGE,
    )


def _of_the_input(error: ClientError, first: int) -> ClientError:
    """The refusal of a batch, with the number that its line has in the whole input."""
    found = re.match(r"line (\d+): ", error.text)
    if found is None:
        return error
    text = f"line {int(found[1]) + first - 1}: {error.text[found.end() :]}"
    return type(error)(text, status=error.status, code=error.code)


class Batch(NamedTuple):
    """Lines that are sent at once, and where they are in the input."""

    lines: bytes
    jobs: int
    first: int
    """The number of the first line."""
    last: int
    """The number of the last line, and of the batch: if this input is cut off, and the whole one comes later
    under the same name, no job is taken for stored that is not."""
    read: int
    """The bytes of the input up to there."""
    whole: bool = False
    """Whether an export ended there."""


def _batches(source: BinaryIO) -> Iterator[Batch]:
    """The batches of an input, the last of which tells whether it is whole; half a line at its end is left
    out. The same input is always cut at the same places."""
    lines: list[bytes] = []
    jobs = size = read = number = 0
    whole = False
    for line in source:
        if _is_half(line):
            whole = False
            read += len(line)
            break
        end, job = line.startswith(b'{"cursor":'), bool(line.strip())
        if job and not end:
            whole = False
            if jobs == BATCH_JOBS or (jobs and size + len(line) > BATCH_BYTES):
                yield Batch(b"".join(lines), jobs, number - len(lines) + 1, number, read)
                lines, jobs, size = [], 0, 0
            jobs += 1
        elif end:
            whole = line.startswith(b'{"cursor":null')
        number += 1
        read += len(line)
        size += len(line)
        lines.append(line if line.endswith(b"\n") else line + b"\n")
    yield Batch(b"".join(lines), jobs, number - len(lines) + 1, number, read, whole)


def _is_half(line: bytes) -> bool:
    """Whether it is the last line of an input that was cut off in it."""
    if line.endswith(b"\n"):
        return False
    try:
        checked(line.decode())
    except ValueError:
        return True
    return False
