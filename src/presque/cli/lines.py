"""export and import: jobs as lines, with all that is known of them."""

from __future__ import annotations

import hashlib
import http.client
import json
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlencode

import click

from presque.cli.bulk import FILTER, STATE
from presque.cli.connection import connected, failure, server_options
from presque.cli.exits import DONE, FAILED, INTERRUPTED, NOT_REACHED, Failure
from presque.cli.fields import given, options_of
from presque.cli.standard_output import silence
from presque.cli.streaming import opened
from presque.cli.terminal import Counter, counted
from presque.client import Client, ClientError
from presque.client.address import Address, server, token_of
from presque.client.exchange import reason_of

BATCH_JOBS = 500
BATCH_BYTES = 512 * 1024  # half of what a server takes in one request by default
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
    counter, written, tries = Counter("exported"), 0, 0
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
    click.echo(f"{counted(written, 'job')} exported", err=True)
    return DONE


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
@server_options
def import_(file: str | None, name: str | None, url: str, token: str | None) -> int:
    """Put jobs that were exported on their queues, as they were: with their states, attempts and errors.

    A job that was leased becomes ready. Each job gets a new id. An import that broke off can be called again:
    what is there already is not stored again. To import the same file twice, give another --name.
    """
    try:
        source = sys.stdin.buffer if file in (None, "-") else Path(str(file)).open("rb")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise click.UsageError(f"cannot read {file}: {error.strerror}") from None
    with source, connected(url, token) as client:
        called = name or (_name_of(source) if source is not sys.stdin.buffer else secrets.token_hex(8))
        return _import(client, source, called)


def _name_of(source: BinaryIO) -> str:
    """A name for the contents of a file."""
    found = hashlib.sha256()
    while part := source.read(1024 * 1024):
        found.update(part)
    source.seek(0)
    return found.hexdigest()


def _import(client: Client, source: BinaryIO, name: str) -> int:
    stored, read, whole = 0, 0, False
    counter = Counter("imported")
    try:
        for number, (lines, jobs, whole) in enumerate(_batches(source), 1):  # noqa: B007
            if jobs:
                stored += client.import_lines(lines, name, number)
                read += jobs
                counter.show(read)
    except (ClientError, KeyboardInterrupt) as error:
        counter.clear()
        far = f"{counted(read, 'job')} of the input are stored; call it again with --name {name} for the rest"
        if isinstance(error, ClientError):
            raise failure(error, f"; {far}") from None
        raise Failure(f"stopped: {far}", INTERRUPTED) from None
    counter.clear()
    known = f"; {counted(read - stored, 'job')} stored before" if read > stored else ""
    click.echo(f"{counted(stored, 'job')} imported{known}")
    if not whole:
        click.echo("presque: the input does not end as an export does: it may be cut off", err=True)
    return DONE


def _batches(source: BinaryIO) -> Iterator[tuple[bytes, int, bool]]:
    """Lines as they are sent at once, how many jobs they are, and whether an export ended there. The same
    input is always cut at the same places."""
    lines: list[bytes] = []
    size, whole = 0, False
    for line in source:
        if not line.strip():
            continue
        if line.startswith(b'{"cursor":'):
            whole = line.startswith(b'{"cursor":null')
            continue
        whole = False
        if len(lines) == BATCH_JOBS or (lines and size + len(line) > BATCH_BYTES):
            yield b"".join(lines), len(lines), False
            lines, size = [], 0
        lines.append(line if line.endswith(b"\n") else line + b"\n")
        size += len(line)
    yield b"".join(lines), len(lines), whole
