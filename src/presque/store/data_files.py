"""The files that hold the data: whether all of them are there and whole, and what to do with a torn end.

The store keeps a manifest, a base (a snapshot) and one or more increments (a log of writes) in
`appendonlydir`. Left to itself it takes a directory without a manifest for an empty one, and an increment
that breaks off for a complete one. So presque looks first:

- `check` compares what is there with the manifest and with a note of its own (`presque.json`), which holds
  how long each file was known to be. Whatever is missing or shorter is refused, with a sentence.
- The store itself refuses files that it cannot read to their end. `mend_end` then tells a torn end, which a
crash leaves in the middle of a write, from damage. Only a torn end is cut off, and what is cut off is
  kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec

from presque.errors import SetupError, shown
from presque.store.directory import open_private, reason_of

FOLDER = "appendonlydir"
MANIFEST = "appendonly.aof.manifest"
NOTE = "presque.json"
RESTORING = "restoring"
CUT_OFF = "cut-off"
TAIL_MOST = 256 * 1024 * 1024
"""Bytes. One write of the store is far smaller, so a longer end is damage."""

_data_file = re.compile(r"appendonly\.aof\.([0-9]+)\.(base|incr)\.(?:rdb|aof)").fullmatch
_listed = re.compile(r"file (\S+) seq ([0-9]+) type ([bhi])(?: .*)?").fullmatch
_analysed = re.compile(r"size=([0-9]+), ok_up_to=([0-9]+)").search
_begin = re.compile(rb"\*([0-9]{1,9})\r\n")
_length = re.compile(rb"\$([0-9]{1,10})\r\n")
_hidden_command = re.compile(rb"\r\n\*[0-9]{1,9}\r\n\$[0-9]{1,10}\r\n").search


class Note(msgspec.Struct, frozen=True):
    """What presque wrote down about its data: who wrote it last, and how long each file was known to be."""

    layout: int
    store: str
    files: dict[str, int]


class Cut(msgspec.Struct, frozen=True):
    """An end that was cut off: of which file, how many bytes, and where they are now."""

    file: str
    size: int
    kept_in: Path


def check(directory: Path, layout: int, *, ran: bool = False) -> None:
    """Refuse data that is incomplete, shorter than it was, or of a later presque. Changes nothing.

    `ran` says that a store of this process has worked on the data, so there must be some. `layout` is the
    number of the newest layout of keys that this presque reads. Raises `SetupError`.
    """
    note = read_note(directory)
    folder = directory / FOLDER
    names = _names_in(folder)
    if (directory / RESTORING).exists():
        raise SetupError(
            f"a restore into {directory} was interrupted: run `presque restore` again, then start presque"
        )
    if note is not None and note.layout > layout:
        raise SetupError(
            f"the data in {directory} was written by a later presque (layout {note.layout}, this one reads "
            f"{layout}): start that version, or restore a backup of this one"
        )
    if MANIFEST not in names:
        _refuse_without_manifest(directory, names, note)
        if ran:
            raise SetupError(
                f"the data in {directory} is gone: somebody has removed it while presque ran; {_PUT_BACK}, "
                "or stop presque and start it again to start empty"
            )
        return
    listed = _read_manifest(folder / MANIFEST)
    missing = sorted(name for name in listed if name not in names)
    if missing:
        raise SetupError(
            f"the data in {directory} is incomplete: {FOLDER}/{missing[0]}, which the manifest lists, is "
            f"missing; {_PUT_BACK}"
        )
    empty = sorted(name for name in listed if ".base." in name and not _size(folder / name))
    if empty:
        raise SetupError(f"the data in {directory} is damaged: {FOLDER}/{empty[0]} is empty; {_PUT_BACK}")
    later = _not_listed(folder, names, listed)
    if later:
        raise SetupError(
            f"the data in {directory} does not fit together: the manifest in {FOLDER} is older than {later}; "
            f"{_PUT_BACK}"
        )
    for name, size in (note.files if note is not None else {}).items():
        if name in listed and (now := _size(folder / name)) < size:
            raise SetupError(
                f"the data in {directory} is shorter than it was: {FOLDER}/{name} has {now} bytes, and had "
                f"{size}; {_PUT_BACK}, or remove {directory / NOTE} to start with what is there"
            )


_PUT_BACK = "put the whole directory back as it was, or restore a backup with `presque restore`"


def _refuse_without_manifest(directory: Path, names: set[str], note: Note | None) -> None:
    found = sorted(name for name in names if _data_file(name))
    if found:
        raise SetupError(
            f"the data in {directory} is incomplete: {FOLDER} holds {found[0]} but no {MANIFEST}, without "
            f"which the store would start empty; {_PUT_BACK}"
        )
    loose = sorted(
        name
        for name in _names_in(directory)
        if _data_file(name) or name in (MANIFEST, "appendonly.aof") or name.endswith(".rdb")
    )
    if loose:
        raise SetupError(
            f"{directory} holds {shown(loose[0])} outside of {FOLDER}, where the store does not look for it, "
            f"so it would start empty; {_PUT_BACK}, or move that file away"
        )
    if note is not None:
        raise SetupError(
            f"the data in {directory} is gone: presque ran here before, and {FOLDER}/{MANIFEST} is missing; "
            f"{_PUT_BACK}, or remove {directory / NOTE} to start empty"
        )


def _not_listed(folder: Path, names: set[str], listed: dict[str, int]) -> str | None:
    """A file of data that is newer than what the manifest lists. A crash while the store rewrites its log
    can leave an empty increment or an unused base of the very next number, which are harmless."""
    newest = max(listed.values(), default=0)
    for name in sorted(names):
        match = _data_file(name)
        if match is None or name in listed or int(match[1]) <= newest:
            continue
        if match[2] == "incr" and _size(folder / name) > 0:
            return name
    return None


def _read_manifest(path: Path) -> dict[str, int]:
    """The files in use, and the number of each."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else "it is not text"
        raise SetupError(f"cannot read {path}: {reason}; {_PUT_BACK}") from None
    listed = {}
    for line in lines:
        if not line or line.startswith("#"):
            continue
        match = _listed(line)
        if match is None:
            raise SetupError(f"{path} is damaged: it says `{shown(line)}`; {_PUT_BACK}")
        if match[3] != "h":  # history: about to be deleted
            listed[match[1]] = int(match[2])
    if not listed:
        raise SetupError(f"{path} is damaged: it lists no files; {_PUT_BACK}")
    return listed


# --- the note


def read_note(directory: Path) -> Note | None:
    """What an earlier presque wrote down; None if there is nothing. Raises `SetupError` if it is damaged."""
    path = directory / NOTE
    try:
        said: Any = json.loads(path.read_bytes())
        return Note(
            int(said["layout"]), str(said["store"]), {str(k): int(v) for k, v in said["files"].items()}
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SetupError(f"cannot read {path}: {reason_of(error)}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise SetupError(f"{path} is damaged; remove it if the rest of the data is whole") from None


def write_note(directory: Path, note: Note) -> None:
    """Replace the note, in one step. Raises `OSError`."""
    path = directory / NOTE
    new = path.with_suffix(".json.new")
    with open_private(new, os.O_WRONLY | os.O_TRUNC, "w") as file:
        json.dump({"layout": note.layout, "store": note.store, "files": note.files}, file)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def sizes(directory: Path) -> dict[str, int]:
    """The length of each file in use at this moment; empty if that is not known."""
    folder = directory / FOLDER
    try:
        listed = _read_manifest(folder / MANIFEST)
    except SetupError:
        return {}
    found = {}
    for name in listed:
        with contextlib.suppress(OSError):
            found[name] = (folder / name).stat().st_size
    return found


# --- an end that the store cannot read


def mend_end(binary: Path, directory: Path) -> Cut | None:
    """Cut off the end of the last increment if a crash tore it, and keep what is cut off.

    Called when the store would not read its data. Returns None if the increments are whole, so that the
    trouble is elsewhere. Raises `SetupError`, and changes nothing, if one of them is damaged.
    """
    folder = directory / FOLDER
    numbers = _read_manifest(folder / MANIFEST)
    increments = sorted((n for n in numbers if ".incr." in n), key=lambda n: numbers[n])
    for name in increments:
        size, whole = _analyse(binary, folder / name)
        if whole == size:
            continue
        tail = _end_of(folder / name, whole) if name == increments[-1] and size - whole <= TAIL_MOST else b""
        if not tail or not is_torn(tail):
            raise SetupError(
                f"the data in {directory} is damaged: {FOLDER}/{name} cannot be read beyond byte {whole} of "
                f"{size}. Nothing was changed. Restore a backup with `presque restore`; or, to go on without "
                f"what follows that byte, keep a copy and run `truncate -s {whole} {folder / name}`"
            )
        return _cut(directory, name, whole, tail)
    return None


def _analyse(binary: Path, path: Path) -> tuple[int, int]:
    """The size of an increment, and up to which byte it is whole, by the store's own checker."""
    for name in ("valkey-check-aof", "redis-check-aof"):  # the same program, by another name
        try:
            said = subprocess.run(
                [name, path], executable=binary, input=b"", capture_output=True, check=False, timeout=3600
            )
        except (OSError, subprocess.SubprocessError):
            continue
        text = (said.stdout + said.stderr).decode(errors="replace")
        match = _analysed(text)
        if match is not None:
            return int(match[1]), int(match[2])
        if "is empty" in text:
            return 0, 0
    raise SetupError(f"the store cannot read its data, and {binary} cannot check {path}")


def is_torn(tail: bytes) -> bool:
    """Whether this is what a crash leaves of a write: the beginning of commands, then perhaps zeros.

    A length that was altered makes one argument swallow all that follows; the commands inside it give it
    away. A complete transaction is not part of a torn end: the checker would have taken it.
    """
    rest = tail.rstrip(b"\0")
    return _breaks_off(tail) or (len(rest) < len(tail) and (not rest or _breaks_off(rest)))


def _breaks_off(data: bytes) -> bool:
    at = 0
    while at < len(data):
        begin = _begin.match(data, at)
        if begin is None:
            return len(data) - at < 12 and _could_grow(data[at:], b"*")
        at = begin.end()
        words: list[bytes] = []
        for _ in range(int(begin[1])):
            length = _length.match(data, at)
            if length is None:
                return len(data) - at < 13 and _could_grow(data[at:], b"$")
            first, at = length.end(), length.end() + int(length[1])
            if at + 2 > len(data):
                return _hidden_command(data, first) is None
            if data[at : at + 2] != b"\r\n":
                return False
            words.append(data[first:at] if int(length[1]) < 16 else b"")
            at += 2
        if words and words[0].upper() == b"EXEC":
            return False
    return True


def _could_grow(part: bytes, sign: bytes) -> bool:
    """Whether these bytes are the beginning of a line such as `*3` or `$12`, or nothing yet."""
    return re.fullmatch(rb"(?:" + re.escape(sign) + rb"(?:[0-9]+\r?)?)?", part) is not None


def _end_of(path: Path, whole: int) -> bytes:
    with path.open("rb") as file:
        file.seek(whole)
        return file.read()


def _cut(directory: Path, name: str, whole: int, tail: bytes) -> Cut:
    path = directory / FOLDER / name
    kept_in = directory / CUT_OFF / f"{name}.{whole}.{time.time_ns() // 1_000_000}"
    try:
        kept_in.parent.mkdir(mode=0o700, exist_ok=True)
        with open_private(kept_in, os.O_WRONLY | os.O_EXCL, "wb") as file:
            file.write(tail)
            file.flush()
            os.fsync(file.fileno())
        sync_directory(kept_in.parent)
        _forget_length(directory, name, whole)
        with path.open("r+b") as file:
            file.truncate(whole)
            os.fsync(file.fileno())
    except OSError as error:
        raise SetupError(
            f"a crash tore the end of {path}, which cannot be kept in {kept_in.parent}: {reason_of(error)}"
        ) from None
    return Cut(name, len(tail), kept_in)


def _forget_length(directory: Path, name: str, whole: int) -> None:
    note = read_note(directory)
    if note is not None and note.files.get(name, 0) > whole:
        write_note(directory, Note(note.layout, note.store, {**note.files, name: whole}))


def sync_directory(directory: Path) -> None:
    """Put the names in a directory on disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _names_in(directory: Path) -> set[str]:
    try:
        return {entry.name for entry in os.scandir(directory)}
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise SetupError(f"cannot read {directory}: {reason_of(error)}") from None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise SetupError(f"cannot read {path}: {reason_of(error)}") from None
