"""Real processes for the tests: stores and presque servers, each in a directory of its own."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import secrets
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from presque.store.embedded import find_binary

PATIENCE = 30.0


def eventually(
    condition: Callable[[], Any], within: float = PATIENCE, say: Callable[[], object] = lambda: ""
) -> Any:
    """Return the first true answer of `condition`; fail when none comes in time, with what `say` says."""
    deadline = time.monotonic() + within
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"did not happen within {within} s: {say()}"
        time.sleep(0.01)


def processes_with(mark: str) -> list[str]:
    """The processes, but for this one, that were given `mark` (`NAME=value`) in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if entry.name != str(os.getpid()) and mark.encode() in (entry / "environ").read_bytes():
                found.append(f"{entry.name} {(entry / 'cmdline').read_bytes().decode(errors='replace')}")
        except OSError:  # it has ended meanwhile, or is not ours
            continue
    return found


def require(name: str) -> str:
    """A program that a test needs: skip without it on a laptop, fail without it in CI."""
    path = shutil.which(name)
    if path is None:
        message = f"{name} is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return path


@contextlib.contextmanager
def small_disk(size: str = "32m", files: int = 0) -> Iterator[Path]:
    """A file system of its own, with room for so many `files` (0: any number). Skips on a laptop
    that may not mount one, fails in CI."""
    directory = Path(tempfile.mkdtemp(prefix="disk-"))
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes={files},mode=700", "tmpfs", str(directory)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        directory.rmdir()
        message = f"cannot mount a small file system: {done.stderr.strip()}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)
        directory.rmdir()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on. It is none of those that the kernel gives to outgoing
    connections and to whoever asks for port 0, so nobody takes it by chance before it is used."""
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


STORES = {"valkey": lambda: str(find_binary(None)), "redis-7.0": lambda: require("redis-server")}


@dataclass
class Store:
    """A store of the given kind on a unix socket, keeping nothing."""

    kind: str
    binary: str
    directory: Path
    process: subprocess.Popen[bytes]

    @property
    def socket(self) -> str:
        return str(self.directory / "s")

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def client(self) -> redis.Redis:
        """An independent client, to look at what presque wrote."""
        return redis.Redis(unix_socket_path=self.socket)


@contextlib.contextmanager
def store(kind: str, *options: str) -> Iterator[Store]:
    """Run a store; `options` are further settings, as on its command line."""
    binary = STORES[kind]()
    directory = Path(tempfile.mkdtemp(prefix="store-"))
    process = subprocess.Popen(
        [binary, "--port", "0", "--unixsocket", str(directory / "s"), "--dir", str(directory), "--save", "",
         "--loglevel", "warning", *options],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    found = Store(kind, binary, directory, process)
    try:
        with found.client() as client:
            eventually(lambda: _answers(client))
        yield found
    finally:
        found.process.kill()  # a test may have put another one in place of the first
        found.process.wait()
        shutil.rmtree(directory, ignore_errors=True)


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Sent:
    """A request on its way; the answer has not been read."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection

    def answer(self) -> Answer:
        """Wait for the answer, then close the connection."""
        try:
            response = self._connection.getresponse()
            return Answer(
                response.status,
                {name.lower(): value for name, value in response.getheaders()},
                response.read(),
            )
        finally:
            self.leave()

    def leave(self) -> None:
        """Close the connection without looking at the answer."""
        self._connection.close()


class Encrypted:
    """A socket that speaks TLS and lets each side end by itself, which those of Python do not.

    One thread may send while another receives: OpenSSL takes one call at a time (`_one_at_a_time`), and what
    it has encrypted has to leave in that order (`_in_order`).
    """

    def __init__(self, plain: socket.socket, context: ssl.SSLContext) -> None:
        self.plain = plain
        self._one_at_a_time, self._in_order = threading.Lock(), threading.Lock()
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl = context.wrap_bio(self._in, self._out, server_hostname="localhost")
        while True:
            try:
                self.ssl.do_handshake()
            except ssl.SSLWantReadError:
                self.flush()
                self._receive()
            else:
                self.flush()
                return

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)  # settimeout, setsockopt, fileno, close

    def flush(self) -> None:
        with self._in_order:
            with self._one_at_a_time:
                data = self._out.read()
            if data:
                self.plain.sendall(data)

    def _receive(self) -> None:
        data = self.plain.recv(65536)
        with self._one_at_a_time:
            if data:
                self._in.write(data)
            else:
                self._in.write_eof()

    def sendall(self, data: bytes) -> None:
        if data:
            with self._one_at_a_time:
                self.ssl.write(data)
            self.flush()

    def recv(self, count: int, flags: int = 0) -> bytes:
        assert not flags, "TLS does not peek"
        while True:
            try:
                with self._one_at_a_time:
                    return self.ssl.read(count)
            except ssl.SSLWantReadError:
                self._receive()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def goodbye(self) -> None:
        """Say that nothing more comes, in TLS; the socket stays as it is."""
        with contextlib.suppress(ssl.SSLError), self._one_at_a_time:
            self.ssl.unwrap()
        self.flush()

    def shutdown(self, how: int) -> None:
        if how != socket.SHUT_RD:
            self.goodbye()
        try:
            self.plain.shutdown(how)
        except OSError as error:  # the other side may have answered and closed already
            if error.errno != errno.ENOTCONN:
                raise


def certificate(
    directory: Path, name: str, *more: str, by: Path | None = None, expired: bool = False
) -> Path:
    """A certificate and its key in one file, `name`.pem, for `more` (`DNS:localhost`); signed by another one,
    or by itself, as that of an authority is."""
    path = directory / f"{name}.pem"
    command = [require("faketime"), "-f", "-30d"] if expired else []
    command += [require("openssl"), "req", "-x509", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-keyout", f"{path}.key", "-out", f"{path}.cert"]
    if more:
        command += ["-addext", f"subjectAltName={','.join(more)}"]
    if by is not None:
        command += ["-CA", str(by), "-CAkey", str(by), "-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(command, check=True, capture_output=True)
    path.write_text("".join(Path(f"{path}.{part}").read_text() for part in ("cert", "key")))
    path.chmod(0o600)
    return path


class Door:
    """Something that answers HTTP, or HTTPS if there is a `context`, on a port of 127.0.0.1."""

    port: int
    context: ssl.SSLContext | None = None

    def connect(self, timeout: float = PATIENCE) -> Any:
        """A bare connection: a socket, or what looks like one and speaks TLS."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return plain if self.context is None else Encrypted(plain, self.context)

    def send(
        self, method: str, path: str, body: bytes | str | None = None, timeout: float = 30, **headers: str
    ) -> Sent:
        """Send one request on a connection of its own. Header names are given with underscores."""
        connection = (
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
            if self.context is None
            else http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=self.context)
        )
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, names)
        except BaseException:
            connection.close()
            raise
        return Sent(connection)

    def ask(
        self, method: str, path: str, body: bytes | str | None = None, timeout: float = 30, **headers: str
    ) -> Answer:
        """Send one request as `send` does, and return its answer."""
        return self.send(method, path, body, timeout, **headers).answer()

    def catch_up(self, **headers: str) -> None:
        """Return when what was sent before has been looked at, and who waits for something stands in line:
        calls of the store are answered in order, and the second of ours is made when the first has been
        answered."""
        for _ in range(2):
            self.ask("GET", "/control/anything", None, PATIENCE, **headers)

    def raw(self, data: bytes, within: float = PATIENCE) -> bytes:
        """Send bytes as they are, and return all that comes until the server closes or falls silent."""
        with contextlib.closing(self.connect(within)) as connection:
            connection.sendall(data)
            received = b""
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                while part := connection.recv(65536):
                    received += part
            return received


def _readable(file: int, within_ms: int) -> bool:
    """Whether something can be read from this file, or its end."""
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return bool(poll.poll(within_ms))


class Output:
    """The lines that a process prints. They are read as they come, so that it never waits for a reader."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._lines: list[str] = []
        self._rest = b""
        self._ended = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def lines(self) -> list[str]:
        """All lines that were printed before the call, each with its end."""
        self._take()
        return list(self._lines)

    def close(self) -> None:
        """Read what is left, if nobody holds the other end any more."""
        self._thread.join(5)
        with self._lock:
            self._ended = True

    def _read(self) -> None:
        while not self._ended:
            if _readable(self._file, 1000):
                self._take()

    def _take(self) -> None:
        """Read what is there."""
        with self._lock:
            if self._ended or not _readable(self._file, 0):
                return
            data = os.read(self._file, 1 << 20)  # a pipe holds no more
            *whole, self._rest = (self._rest + data).split(b"\n")
            if not data and self._rest:
                whole, self._rest = [self._rest], b""
            self._lines += [line.decode(errors="replace") + "\n" for line in whole]
            self._ended = not data


class Server(Door):
    """A `presque serve` process."""

    def __init__(self, process: subprocess.Popen[bytes], output: Output) -> None:
        self.process = process
        self.log: list[str] = []
        self._output = output
        self._seen = 0
        self.welcome = self._next()
        while " warning " in self.welcome or self.welcome.startswith("{"):
            self.log.append(self.welcome)
            if '"event":"server.started"' in self.welcome:
                break
            self.welcome = self._next()
        if self.welcome.startswith("{"):
            self.url = json.loads(self.welcome)["url"]
        else:
            assert "answers at" in self.welcome, self.said()
            self.url = self.welcome.split()[-1]
        self.port = int(self.url.rpartition(":")[2])

    @property
    def everything(self) -> list[str]:
        """Every line so far, those that `said` leaves out included."""
        return self._output.lines()

    def said(self) -> str:
        """All that the server has printed so far after its welcome, without what it says for information."""
        while (line := self._heard()) is not None:
            self.log.append(line)
        return "\n".join(self.log)

    def _next(self) -> str:
        """Wait for the next line of those that `said` has."""
        found: str = eventually(self._heard, say=lambda: self.everything)
        return found

    def _heard(self) -> str | None:
        lines = self._output.lines()
        while self._seen < len(lines):
            line = lines[self._seen]
            self._seen += 1
            if " info " not in line or "answers at" in line:
                return line.rstrip("\n")
        return None

    def stop(self, number: int = signal.SIGTERM, within: float = PATIENCE) -> int:
        """Send a signal and wait for the end. Returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(within)


@contextlib.contextmanager
def tls_server(pem: Path, *flags: str, trusted: Path | None = None, **environment: str) -> Iterator[Server]:
    """Run `presque serve` with this certificate, and trust it, or the authority `trusted`."""
    with server("--tls-cert", str(pem), *flags, **environment) as found:
        found.context = ssl.create_default_context(cafile=str(trusted or pem))
        yield found


@contextlib.contextmanager
def json_server(*flags: str) -> Iterator[Server]:
    """Run `presque serve` on a free port, with a log for programs."""
    with server("--log-format", "json", *flags) as found:
        yield found


@contextlib.contextmanager
def server(*flags: str, program: Sequence[str] = ("-m", "presque"), **environment: str) -> Iterator[Server]:
    """Run `presque serve` with these flags on a free port. `program` is how Python is told to run presque."""
    process = subprocess.Popen(
        [sys.executable, *program, "serve", "--port", "0", "--log-format", "plain", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    assert process.stdout is not None
    output = Output(process.stdout.fileno())
    try:
        yield Server(process, output)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        output.close()
        process.stdout.close()
