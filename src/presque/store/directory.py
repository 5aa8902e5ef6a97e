"""The data directory of the embedded store, its lock, the directory of its socket, and its log."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Self

from presque.errors import SetupError

LOG_MOST = 8 * 1024 * 1024
PRIVATE_PREFIX = "presque-"
SOCKET_MOST = 100
"""Bytes in the path of a socket. Linux takes 107, macOS 103."""


def prepare(directory: Path) -> None:
    """Make the data directory, or refuse one that others could reach into.

    It belongs to us and nobody else may write to it. One exception: a volume as Kubernetes makes it for a
    pod with an `fsGroup`, owned by root or us, set-group-id, writable by a group that we are in.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = directory.stat()
    except OSError as error:
        reason = "not a directory" if isinstance(error, FileExistsError) else reason_of(error)
        raise SetupError(f"cannot keep data in {directory}: {reason}; choose with --data") from None
    _check(directory, facts)


def check_owner(directory: Path) -> None:
    """The same about a directory that is there. Nothing is made. Raises `SetupError`."""
    try:
        facts = directory.stat()
    except OSError as error:
        raise SetupError(f"cannot look at {directory}: {reason_of(error)}") from None
    _check(directory, facts)


def _check(directory: Path, facts: os.stat_result) -> None:
    shared = _is_volume(facts)
    if facts.st_uid != os.geteuid() and not shared:
        raise SetupError(f"{directory} belongs to another user; choose a directory of your own with --data")
    if stat.S_IMODE(facts.st_mode) & (0o002 if shared else 0o022):
        raise SetupError(f"others may write to {directory}: `chmod go-w` it, or choose another with --data")
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise SetupError(f"cannot write to {directory}; choose another directory with --data")


def _is_volume(facts: os.stat_result) -> bool:
    """Whether a directory is a volume that Kubernetes gave to a group of ours."""
    mode = stat.S_IMODE(facts.st_mode)
    ours = facts.st_gid in {os.getegid(), *os.getgroups()}
    return facts.st_uid in (0, os.geteuid()) and ours and mode & 0o2020 == 0o2020


def make_private(directory: Path) -> bool:
    """Let nobody but their owner read the files that earlier versions left readable. Whether any was.

    Raises `SetupError` if a mode cannot be changed.
    """
    changed = False
    try:
        for path in (
            directory / "appendonlydir",
            *directory.glob("appendonlydir/*"),
            *directory.glob("store.*"),
        ):
            facts = path.lstat()
            if not stat.S_ISLNK(facts.st_mode) and stat.S_IMODE(facts.st_mode) & 0o077:
                path.chmod(stat.S_IMODE(facts.st_mode) & ~0o077)
                changed = True
    except FileNotFoundError:
        pass
    except OSError as error:
        raise SetupError(f"cannot make {path} private: {reason_of(error)}") from None
    return changed


class Lock:
    """A directory that this process has for itself. It is free again when the process ends, however."""

    def __init__(self, file: IO[str], directory: int) -> None:
        self._file = file
        self._directory = directory

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others have it."""
        self._file.close()
        os.close(self._directory)


def lock(directory: Path) -> Lock:
    """Take the directory for this process alone. Raises `SetupError`.

    The file says who has it. The directory itself is locked as well, where its file system can do that: the
    file may be removed by somebody who takes it for left over.
    """
    try:
        # Not inherited by the store, as all that Python opens.
        file = open_private(directory / "presque.lock", os.O_RDWR | os.O_APPEND, "a+")
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise SetupError(f"cannot open {directory / 'presque.lock'}: {reason_of(error)}") from None
    found = Lock(file, descriptor)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock_itself(descriptor)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip()
        found.close()
        raise SetupError(
            f"another presque (pid {holder or 'unknown'}) uses the data in {directory}; stop it, "
            "or choose another directory with --data"
        ) from None
    except OSError as error:
        with contextlib.suppress(OSError):  # closing tries to write once more
            found.close()
        raise SetupError(f"cannot lock {directory / 'presque.lock'}: {reason_of(error)}") from None
    return found


def lock_itself(descriptor: int) -> None:
    """Take a directory that was opened, where its file system can do that. Raises `BlockingIOError` if
    somebody else has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # NFS locks what is open for writing alone
        pass


def open_private(path: Path, flags: int, mode: str) -> IO[Any]:
    """Open a file, making it if need be, so that nobody else can read it. Raises `OSError`."""
    return os.fdopen(os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600), mode)


def private_directory() -> Path:
    """A new directory that only we may enter, with a path short enough for a socket in it."""
    usual = tempfile.gettempdir()
    fits = len(os.fsencode(usual)) + len(f"/{PRIVATE_PREFIX}12345678/store.sock") <= SOCKET_MOST
    try:
        return Path(tempfile.mkdtemp(prefix=PRIVATE_PREFIX, dir=usual if fits else "/tmp"))  # noqa: S108  (mkdtemp makes it private)  # nosec B108
    except OSError as error:
        raise SetupError(f"cannot make a directory for the store's socket: {reason_of(error)}") from None


def is_private(directory: Path) -> bool:
    """Whether only we may have put there what is in it."""
    try:
        facts = directory.lstat()
    except OSError:
        return False
    mode = facts.st_mode
    return stat.S_ISDIR(mode) and facts.st_uid == os.geteuid() and not stat.S_IMODE(mode) & 0o077


def remove_private(socket: Path) -> None:
    """Remove the directory that a killed presque made for its socket; one that it did not make stays."""
    if socket.parent.name.startswith(PRIVATE_PREFIX):
        socket.unlink(missing_ok=True)
        socket.parent.rmdir()


def is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def free_bytes(directory: Path) -> int:
    """How many bytes we may still write on the disk that holds a directory. Raises `OSError`."""
    facts = os.statvfs(directory)
    return facts.f_bavail * facts.f_frsize


def free_files(directory: Path) -> int | None:
    """How many files that disk still takes; None if it knows no bound. Raises `OSError`."""
    facts = os.statvfs(directory)
    return facts.f_favail if facts.f_files else None


def rotate(log_file: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if log_file.stat().st_size > LOG_MOST:
            log_file.replace(log_file.with_suffix(".log.1"))


def remove_unfinished(directory: Path) -> int:
    """Remove what a store left that died while it copied itself, which no store removes. Returns the bytes.

    No store may use the directory. The copy that a dead one had begun may still be written; it ends when it
    finds its file gone.
    """
    freed = 0
    for pattern in ("temp-rewriteaof-*.aof", "temp-*.rdb"):
        for path in directory.glob(pattern):
            with contextlib.suppress(OSError):  # it costs room, and nothing else
                size = path.stat().st_size
                path.unlink()
                freed += size
    return freed


def last_lines(log_file: Path, said_before: int) -> str:
    """The end of what the store has logged since the file had `said_before` bytes: why it stopped."""
    try:
        lines = list(_said(log_file, said_before, 3))
    except OSError as error:
        return f"its log cannot be read, {reason_of(error)}"
    return " / ".join(lines) or "its log is empty"


def last_warnings(log_file: Path, said_before: int) -> str:
    """The last warnings in what the store has logged since the file had `said_before` bytes, without their
    times; empty if there is none."""
    try:
        lines = [line.partition(" # ")[2] for line in _said(log_file, said_before, 20)]
    except OSError as error:
        return f"its log cannot be read, {reason_of(error)}"
    return " / ".join([line for line in lines if line][-3:])


def _said(log_file: Path, said_before: int, most: int) -> Iterator[str]:
    with log_file.open("rb") as file:
        file.seek(max(said_before, file.seek(0, os.SEEK_END) - 65536))
        yield from (line.decode(errors="replace").strip() for line in deque(file, most))


def reason_of(error: Exception) -> str:
    """What the system says, as part of a sentence."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text[:1].lower() + text[1:]
