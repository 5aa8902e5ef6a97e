"""Backups of the embedded store, taken while it runs, and how they are restored.

The store sends a snapshot of one moment over a connection, as it does for a replica: it forks, so it goes on
meanwhile, and needs no room on its own disk. The snapshot ends with a checksum, and the store's own checker
reads it through. A backup is a directory that a store could start on, with a page about it beside. It is
made under another name and renamed when all of it is on disk, so a backup that is there is whole.

A restore copies a backup beside the data under the name `restoring`, and renames when all of it is on disk.
What was there before is kept. One that fails while it copies removes the copy: nothing was changed then. A
start refuses a directory that holds an unfinished one, as a kill leaves it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec
from msgspec.structs import asdict

from presque.errors import InTheWay, SetupError
from presque.store.data_files import (
    FOLDER,
    MANIFEST,
    NOTE,
    RESTORING,
    Note,
    sync_directory,
    write_note,
)
from presque.store.directory import lock, lock_itself, open_private, prepare, reason_of

PAGE = "backup.json"
BASE = "appendonly.aof.1.base.rdb"
LISTED = f"file {BASE} seq 1 type b\n"
"""The manifest of a backup."""
PATIENCE_S = 60.0
MARK = 40
PIECE = 1024 * 1024


Tell = Callable[[int], None]
"""Called with how many bytes were worked on since it was called last. What it raises ends the work."""


def _nobody(_: int) -> None:
    pass


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """What the page of a backup says. `at` is epoch seconds; `jobs` and `queues` were counted just before."""

    at: int
    presque: str
    store: str
    layout: int
    jobs: int
    queues: int
    size: int
    sha256: str


def take(
    connection: socket.socket,
    listens_at: Path,
    binary: Path,
    target: Path,
    *,
    presque: str,
    layout: int,
    jobs: int,
    queues: int,
    tell: Tell = _nobody,
) -> Backup:
    """Make the directory `target`, a backup of the store that listens at a socket, as it is now.

    `connection` is a new unix socket to use; another thread that shuts it down ends the work. `tell` hears of
    each part of the snapshot.

    `target` must not exist or be empty. Raises `SetupError` and leaves no backup behind.
    """
    try:
        with _alone(target) as new:
            if target.exists() and any(target.iterdir()):
                raise InTheWay(f"{target} is not empty; name a directory that does not exist yet")
            (new / FOLDER).mkdir(mode=0o700)
            path = new / FOLDER / BASE
            with open_private(path, os.O_WRONLY, "wb") as file:
                version, digest = _receive(connection, listens_at, file, tell)
                file.flush()
                os.fsync(file.fileno())
            _check_snapshot(binary, path)
            page = Backup(
                at=int(time.time()), presque=presque, store=version, layout=layout, jobs=jobs, queues=queues,
                size=path.stat().st_size, sha256=digest,
            )  # fmt: skip
            _write(new / FOLDER / MANIFEST, LISTED)
            write_note(new, Note(layout, version, {BASE: page.size}))
            _write(new / PAGE, json.dumps(asdict(page), indent=2) + "\n")
            for directory in (new / FOLDER, new):
                sync_directory(directory)
            new.rename(target)
            sync_directory(target.parent)
    except OSError as error:
        raise SetupError(f"cannot back up into {target}: {reason_of(error)}") from None
    return page


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[Path]:
    """A directory for the backup that is to become `target`, empty and this process's alone while inside. It
    is removed at the end, if it still has its name. What a killed backup left in it is removed at the begin.
    """
    new = target.parent / f".{target.name}.partial"
    new.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(new, os.O_RDONLY)
    try:
        lock_itself(descriptor)
        mine = os.fstat(descriptor)
        if not _is_at(new, mine):  # it was another's, who has just finished with it
            raise BlockingIOError
        try:
            for one in list(new.iterdir()):
                shutil.rmtree(one) if one.is_dir() else one.unlink()
            yield new
        finally:
            if _is_at(new, mine):
                shutil.rmtree(new, ignore_errors=True)
    except BlockingIOError:
        raise InTheWay(f"another `presque backup` writes into {target}; wait for it to end") from None
    finally:
        os.close(descriptor)


def _is_at(path: Path, facts: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), facts)
    except OSError:
        return False


def _receive(connection: socket.socket, listens_at: Path, file: IO[bytes], tell: Tell) -> tuple[str, str]:
    """Write a snapshot into a file. Returns product and version of the store, and the snapshot's SHA-256."""
    with connection:
        connection.settimeout(PATIENCE_S)
        connection.connect(str(listens_at))
        with connection.makefile("rb") as answers:
            connection.sendall(b"INFO server\r\n")
            said = answers.read(int(_line(answers)[1:]) + 2).decode(errors="replace")
            facts = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
            product = "Valkey" if "valkey_version" in facts else "Redis"
            version = f"{product} {facts.get('valkey_version') or facts.get('redis_version', '?')}"
            for words in (b"REPLCONF capa eof", b"REPLCONF rdb-only 1", b"SYNC"):
                connection.sendall(words + b"\r\n")
                answer = _line(answers)
                if answer.startswith(b"-"):
                    raise SetupError(f"the store sends no snapshot: {answer[1:].decode(errors='replace')}")
            digest = hashlib.sha256()
            if answer.startswith(b"$EOF:"):
                _copy_to_mark(answers, answer[5:], file, digest, tell)
            else:
                _copy(answers, int(answer[1:]), file, digest, tell)
    return version, digest.hexdigest()


def _line(answers: IO[bytes]) -> bytes:
    """The next line that is not empty: empty ones only say that the store still works on it."""
    while True:
        line = answers.readline(256)
        if not line:
            raise ConnectionResetError("the store closed the connection")
        if line.strip():
            return line.strip()


def _copy_to_mark(answers: IO[bytes], mark: bytes, file: IO[bytes], digest: Any, tell: Tell) -> None:
    """Copy until the mark that the store announced, which is as good as any random text of 40 bytes."""
    held = b""
    while True:
        part = answers.read1(PIECE)  # type: ignore[attr-defined]  # a BufferedReader
        if not part:
            raise ConnectionResetError("the store closed the connection in the middle of its snapshot")
        held += part
        done = held.endswith(mark)
        ready, held = held[:-MARK], held[-MARK:]
        digest.update(ready)
        file.write(ready)
        tell(len(part))
        if done:
            return


def _copy(answers: IO[bytes], left: int, file: IO[bytes], digest: Any, tell: Tell) -> None:
    while left:
        part = answers.read(min(left, PIECE))
        if not part:
            raise ConnectionResetError("the store closed the connection in the middle of its snapshot")
        digest.update(part)
        file.write(part)
        left -= len(part)
        tell(len(part))


def _check_snapshot(binary: Path, path: Path) -> None:
    """Read a snapshot through with the store's own checker. Raises `SetupError` if it is not whole."""
    said = ""
    for name in ("valkey-check-rdb", "redis-check-rdb"):  # the same program, by another name
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(
                [name, path], executable=binary, stdin=subprocess.DEVNULL, capture_output=True, check=False
            )
            said = (done.stdout + done.stderr).decode(errors="replace")
            if "RDB looks OK" in said:
                return
            if "RDB ERROR" in said:
                break
    raise SetupError(
        f"the snapshot that the store sent cannot be read back: {said.strip()[-200:] or 'no checker'}"
    )


# --- the way back


def size_of_snapshot(backup: Path) -> int:
    """The bytes of a backup's snapshot; 0 if it has none."""
    try:
        return (backup / FOLDER / BASE).stat().st_size
    except OSError:
        return 0


def read(backup: Path, tell: Tell = _nobody) -> Backup:
    """The page of a backup, after comparing the backup with it. Raises `SetupError` if anything is amiss."""
    try:
        page = Backup(**json.loads((backup / PAGE).read_bytes()))
        digest = hashlib.sha256()
        with (backup / FOLDER / BASE).open("rb") as file:
            while part := file.read(PIECE):
                digest.update(part)
                tell(len(part))
    except FileNotFoundError as error:
        raise SetupError(
            f"{backup} is not a backup of `presque backup`: {Path(error.filename).name} is missing. A copy "
            "of a whole data directory is put back as it is: name it with --data"
        ) from None
    except OSError as error:
        raise SetupError(f"cannot read the backup {backup}: {reason_of(error)}") from None
    except (ValueError, TypeError, RecursionError):
        raise SetupError(f"{backup / PAGE} is damaged: use another backup") from None
    if digest.hexdigest() != page.sha256:
        raise SetupError(f"the backup {backup} is damaged: {FOLDER}/{BASE} has changed; use another")
    return page


def restore(
    backup: Path, directory: Path, *, layout: int, replace: bool, tell: Tell = _nobody
) -> tuple[Backup, Path | None]:
    """Make a backup the data of a directory that no store uses. What is there already is moved aside, into
    the directory that is returned, and only with `replace`. Can be repeated when it was interrupted. `tell`
    hears of each part of the snapshot twice: when it is checked, and when it is copied.

    Raises `SetupError`.
    """
    page = read(backup, tell)
    if page.layout > layout:
        raise SetupError(
            f"{backup} was made by a later presque ({page.presque}, layout {page.layout}; this one reads "
            f"{layout})"
        )
    prepare(directory)
    with lock(directory):
        try:
            return page, _put_back(backup, page, directory, replace=replace, tell=tell)
        except OSError as error:
            told = (
                "run it again before you start presque" if is_unfinished(directory) else "nothing was changed"
            )
            raise SetupError(f"cannot restore into {directory}: {reason_of(error)}; {told}") from None


def _put_back(backup: Path, page: Backup, directory: Path, *, replace: bool, tell: Tell) -> Path | None:
    restoring, data = directory / RESTORING, directory / FOLDER
    if data.exists() and not restoring.exists() and not replace:
        raise InTheWay(
            f"{directory} holds data already; pass --replace to move it aside, or name another with --data"
        )
    anew = not restoring.exists()  # else the data may be between its two places
    try:
        _copy_beside(backup, page, restoring, tell)
    except BaseException:
        if anew:
            shutil.rmtree(restoring, ignore_errors=True)
        raise
    aside = None
    if data.exists():
        aside = directory / f"replaced-{time.time_ns() // 1_000_000}"
        aside.mkdir(mode=0o700)
        data.rename(aside / FOLDER)
    with contextlib.suppress(FileNotFoundError):
        (directory / NOTE).rename((aside or restoring) / NOTE)
    (restoring / FOLDER).rename(data)
    write_note(directory, Note(page.layout, page.store, {BASE: page.size}))
    sync_directory(directory)
    shutil.rmtree(restoring)
    sync_directory(directory)
    return aside


def _copy_beside(backup: Path, page: Backup, restoring: Path, tell: Tell) -> None:
    shutil.rmtree(restoring, ignore_errors=True)
    (restoring / FOLDER).mkdir(parents=True, mode=0o700)
    sync_directory(restoring.parent)
    with (
        (backup / FOLDER / BASE).open("rb") as source,
        open_private(restoring / FOLDER / BASE, os.O_WRONLY, "wb") as copy,
    ):
        digest = hashlib.sha256()
        while part := source.read(PIECE):
            digest.update(part)
            copy.write(part)
            tell(len(part))
        copy.flush()
        os.fsync(copy.fileno())
    if digest.hexdigest() != page.sha256:
        raise SetupError(f"{backup} has changed while it was restored; run `presque restore` again")
    _write(restoring / FOLDER / MANIFEST, LISTED)  # that of the backup has no checksum
    sync_directory(restoring / FOLDER)


def is_unfinished(directory: Path) -> bool:
    """Whether a restore into a directory has to be run again."""
    return (directory / RESTORING).exists()


def is_restored(backup: Path, directory: Path) -> bool:
    """Whether a directory holds just what a restore of this backup makes, before a store is started on it."""
    folder = directory / FOLDER
    try:
        listed, size = (folder / MANIFEST).read_text(), (folder / BASE).stat().st_size
    except OSError:
        return False
    return listed == LISTED and size == size_of_snapshot(backup)


def running_at(directory: Path) -> Path | None:
    """The socket of the store that uses a data directory, as its address says; None if there is none."""
    try:
        _, _, path = (directory / "store.address").read_bytes().strip().partition(b" ")
    except OSError:
        return None
    return Path(os.fsdecode(path))


def _write(path: Path, text: str) -> None:
    with open_private(path, os.O_WRONLY, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
