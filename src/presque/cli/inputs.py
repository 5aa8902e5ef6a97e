"""What commands read: a file, or standard input."""

from __future__ import annotations

import io
import os
import shlex
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from presque.masking import without_tokens

TYPED = "presque.typed"
"""Where the context of click has the arguments as they were typed."""
PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ": "xz", b"BZh": "bzip2"}
"""How compressed files begin, and the programs that made them."""


@contextmanager
def source(body: str | None, wanted_by: str) -> Iterator[BinaryIO]:
    """The file that @FILE, - or a missing BODY stands for."""
    if body is not None and body.startswith("@"):
        try:
            file = Path(body[1:]).open("rb")  # noqa: SIM115  (the caller closes it)
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


def go_on(line: int, file: str | None) -> str:
    """The command that was typed, for the rest of its input: from this line on, which it reads out of a pipe.

    `file` is the argument that named the input, `@many` for instance; None or `-` is standard input.
    """
    typed = click.get_current_context().meta.get(TYPED, [])
    command = without_tokens(shlex.join(["presque", *(one for one in typed if one != file)]))
    name = "INPUT" if file in (None, "-") else shlex.quote(str(file).removeprefix("@"))
    return f"tail -n +{line} {name} | {command}"


def bytes_of(file: BinaryIO) -> int | None:
    """How much there is to read, None for what is not a file."""
    try:
        status = os.fstat(file.fileno())
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def refuse_packed(file: BinaryIO, reader: str) -> None:
    """Raises `click.UsageError` if lines are wanted and the file is a compressed one."""
    begin = file.peek(8)[:8] if isinstance(file, io.BufferedReader) else b""
    for mark, program in PACKED.items():
        if begin.startswith(mark):
            raise click.UsageError(f"the input is compressed: {program} -dc FILE | {reader}")
