"""Clients that do anything in any form and leave in any way, and what they know of each job afterwards.

Each client is a thread with chances of its own, from one seed. It writes down what it was told: `Known` is
what all of them know, and is held against the server when everything has ended.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import itertools
import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from presque import frames
from tests import rig

PLAIN, LEASED = "plain", "leased"  # jobs of the one are taken for good, those of the other leased
PRIORITIES = (1, 5, 9)
TOLERANCE_S = 0.01
SOME = 5  # jobs at once


@dataclass
class Lease:
    """One lease, as its holder saw it."""

    began: float
    until: float
    token: str
    given_up: float | None = None  # when its end was sent at the earliest, or its connection ended


@dataclass
class Known:
    """What all clients know."""

    sent: set[int] = field(default_factory=set)
    acknowledged: set[int] = field(default_factory=set)
    taken: list[int] = field(default_factory=list)
    acked: Counter[int] = field(default_factory=Counter)
    leases: dict[int, list[Lease]] = field(default_factory=dict)
    unclear: int = 0  # jobs that may have been on their way to somebody who did not read them
    unclear_acks: set[int] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def new(self) -> int:
        with self.lock:
            number = next(self.numbers)
            self.sent.add(number)
            return number

    def took(self, number: int) -> None:
        with self.lock:
            self.taken.append(number)

    def held(self, job: Any) -> None:
        until = datetime.fromisoformat(job["lease_until"]).timestamp()
        with self.lock:
            self.leases.setdefault(job["body"], []).append(Lease(time.time(), until, job["lease"]))

    def gives_up(self, number: int, token: str) -> None:
        """The end of a lease is about to be sent, or its connection to end."""
        with self.lock:
            for lease in self.leases[number]:
                if lease.token == token and lease.given_up is None:
                    lease.given_up = time.time()

    def problems(self, left: list[int]) -> list[str]:
        """What no correct queue could have answered; `left` was in the queues in the end."""
        found = list(self.wrong)
        out = Counter(self.taken) + Counter(left) + Counter(self.acked.keys())
        found += [f"job {number} came out {times} times" for number, times in out.items() if times > 1]
        found += [f"job {number} is done twice" for number, times in self.acked.items() if times > 1]
        found += [f"nobody pushed job {number}" for number in out.keys() - self.sent]
        lost = self.acknowledged - out.keys() - self.unclear_acks
        if len(lost) > self.unclear:
            found.append(f"{len(lost)} jobs are lost, {self.unclear} may be: {sorted(lost)[:20]}")
        for number, leases in self.leases.items():
            in_order = sorted(leases, key=lambda one: int(one.token.partition("-")[0]))
            for one, other in itertools.pairwise(in_order):
                over = one.until if one.given_up is None else min(one.until, one.given_up)
                if other.token != one.token and other.began < over - TOLERANCE_S:
                    found.append(f"job {number} is held twice: {over - other.began:.3f} s too early")
        return found


class Away(Exception):
    """The connection has ended, or this client has ended it."""


class _Shared:
    """Lets several answers be read from one connection."""

    def __init__(self, plain: socket.socket) -> None:
        self._file = plain.makefile("rb")
        self.close = self._file.close
        self._file.close = lambda: None  # type: ignore[method-assign]

    def makefile(self, _mode: str) -> io.BufferedReader:
        return self._file


class Stranger(threading.Thread):
    """One client. `ports` are those of the servers, `seconds` for how long it leases over a WebSocket."""

    def __init__(
        self, known: Known, ports: list[int], seed: str, over: threading.Event, seconds: int
    ) -> None:
        super().__init__(name=seed)
        self._known = known
        self._ports = ports
        self._chance = random.Random(seed)
        self._over = over
        self._seconds = seconds
        self._socket: socket.socket | None = None
        self._shared: _Shared

    def run(self) -> None:
        acts: list[tuple[int, Callable[[], None]]] = [
            (6, self._push), (4, self._fetch), (3, self._lease), (1, self._stream), (1, self._speak),
            (1, self._look), (1, self._pipeline),
        ]  # fmt: skip
        weights, names = zip(*acts, strict=True)
        while not self._over.is_set():
            [act] = self._chance.choices(names, weights)
            try:
                act()
            except (Away, OSError, http.client.HTTPException):
                self._leave()
                time.sleep(0.01)  # the server may be away
            except Exception as error:  # noqa: BLE001  (told in the end)
                self._known.wrong.append(f"{self.name}: {act.__name__}: {error!r}")
                self._leave()
        self._leave()

    # --- connections

    def _connect(self) -> socket.socket:
        if self._socket is None:
            port = self._chance.choice(self._ports)
            self._socket = socket.create_connection(("127.0.0.1", port), timeout=15)
            self._shared = _Shared(self._socket)
        return self._socket

    def _leave(self) -> None:
        """Leave, by FIN or RST."""
        if self._socket is not None:
            if self._chance.random() < 0.5:
                with contextlib.suppress(OSError):
                    self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._shared.close()
            self._socket.close()
            self._socket = None

    def _request(self, method: str, target: str, body: bytes = b"", **headers: str) -> bytes:
        """A request in a form by chance."""
        chance = self._chance
        version = "1.0" if chance.random() < 0.1 else "1.1"
        if chance.random() < 0.1:
            target = f"http://localhost{target}"
        lines = [f"{method} {target} HTTP/{version}", "Host: localhost"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body and version == "1.1" and chance.random() < 0.3:
            lines.append("Transfer-Encoding: chunked")
            cut = chance.randrange(len(body) + 1)
            parts = [part for part in (body[:cut], body[cut:]) if part]
            body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        elif body or chance.random() < 0.3:
            lines.append(f"Content-Length: {len(body)}")
        if body and version == "1.1" and chance.random() < 0.1:
            lines.append("Expect: 100-continue")
        if chance.random() < 0.1:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode() + body

    def _send(self, data: bytes) -> None:
        plain, cut = self._connect(), self._chance.randrange(len(data))
        if self._chance.random() < 0.2:
            plain.sendall(data[:cut])
            time.sleep(self._chance.uniform(0, 0.01))
            data = data[cut:]
        plain.sendall(data)

    def _answer(self) -> tuple[http.client.HTTPResponse, bytes]:
        if self._socket is None:
            raise Away
        response = http.client.HTTPResponse(self._shared)  # type: ignore[arg-type]
        response.begin()
        body = response.read()
        if response.status in (400, 405, 500, 501, 505):
            self._known.wrong.append(f"{self.name}: {response.status} {body[:200]!r}")
        if response.will_close:
            self._leave()
        return response, body

    def _ask(self, data: bytes, *, jobs: int = 0, waits: bool = False) -> tuple[int, bytes]:
        """Send a request that may take so many jobs, and read its answer, or leave before."""
        self._send(data)
        way = self._chance.random()
        if waits and way < 0.3:
            time.sleep(self._chance.uniform(0, 0.1))
            if way < 0.1 and self._socket is not None:
                self._socket.shutdown(socket.SHUT_WR)  # what still comes is ours
                try:
                    response, body = self._answer()
                except (OSError, http.client.HTTPException) as error:
                    raise Away from error
                finally:
                    self._leave()
                return response.status, body
            with self._known.lock:
                self._known.unclear += jobs
            raise Away
        try:
            response, body = self._answer()
        except (OSError, http.client.HTTPException):
            with self._known.lock:
                self._known.unclear += jobs
            raise
        if response.status == 503 and jobs:
            with self._known.lock:
                self._known.unclear += jobs
        return response.status, body

    # --- what it does

    def _push(self) -> None:
        chance, known = self._chance, self._known
        queue, priority = chance.choice((PLAIN, LEASED)), chance.choice(PRIORITIES)
        way, count = chance.randrange(5), chance.randint(1, SOME)
        numbers = [known.new() for _ in range(1 if way < 2 else count)]
        if way == 0:
            data = self._request("POST", f"/q/{queue}?priority={priority}", b"%d" % numbers[0])
        elif way == 1:
            put = chance.choice(("PUT", "POST"))
            data = self._request(put, f"/q/{queue}?priority={priority}", b" %d\n" % numbers[0])
        elif way == 2:
            data = self._request(
                "POST", f"/qb/{queue}?priority={priority}", json.dumps({"jobs": numbers}).encode()
            )
        elif way == 3:
            lines = "".join(f"{number}\n" for number in numbers).encode()
            kind = "application/x-ndjson"
            data = self._request("POST", f"/qb/{queue}?priority={priority}", lines, Content_Type=kind)
        else:
            commands = [
                {"cmd": "push", "queue": queue, "job": number, "priority": priority} for number in numbers
            ]
            data = self._request("POST", "/queue", json.dumps(commands).encode())
        status, body = self._ask(data)
        if way == 4 and status == 200:
            done = [number for number, one in zip(numbers, json.loads(body), strict=True) if "id" in one]
        else:
            done = numbers if status == 201 else []
        with known.lock:
            known.acknowledged.update(done)

    def _fetch(self) -> None:
        chance, known = self._chance, self._known
        wait = chance.choice((0, 0, 0.05, 0.3, 1))
        lists = chance.choice((PLAIN, PLAIN, f"{PLAIN},nothing", "pla*,!leas*"))
        way = chance.randrange(5)
        if way == 0:
            status, body = self._ask(self._request("GET", f"/q/{lists}?wait={wait}"), jobs=1, waits=wait > 0)
            found = [body] if status == 200 else []
        elif way == 1:
            wish = f"wait={int(wait)}"
            status, body = self._ask(
                self._request("GET", f"/q/{lists}", Prefer=wish), jobs=1, waits=wait >= 1
            )
            found = [body] if status == 200 else []
        elif way == 2:
            count = chance.randint(1, SOME)
            status, body = self._ask(self._request("GET", f"/qb/{PLAIN}?batch_size={count}"), jobs=count)
            found = json.loads(body) if status == 200 else []
        else:
            some = [
                {"cmd": "fetch", "queue": lists, "wait": wait},
                {"cmd": "take", "queue": PLAIN},
                {"cmd": "fetch_many", "queue": PLAIN, "batch_size": 2},
                {"cmd": "stats"},
            ]
            commands = chance.sample(some, chance.randint(1, len(some)))
            data = self._request("POST", "/queue", json.dumps(commands).encode())
            status, body = self._ask(data, jobs=4, waits=wait > 0)
            answers = json.loads(body) if status == 200 else []
            found = [one.get("body", one.get("value")) for one in answers if "id" in one or "key" in one]
            found += [text for one in answers for text in one.get("jobs", ())]
            with known.lock:  # its job may have been taken
                known.unclear += 4 * sum("unknown" in str(one.get("error")) for one in answers)
        for one in found:
            known.took(int(one))

    def _lease(self) -> None:
        chance, known = self._chance, self._known
        wait, asked = chance.choice((0, 0.05, 0.5)), {"count": chance.randint(1, SOME), "seconds": 2}
        if chance.random() < 0.5:
            data = self._request("POST", f"/q/{LEASED}/lease", json.dumps(asked | {"wait": wait}).encode())
        else:
            query = "&".join(f"{name}={value}" for name, value in (asked | {"wait": wait}).items())
            data = self._request("POST", f"/q/{LEASED},nothing/lease?{query}")
        status, body = self._ask(data, waits=wait > 0)
        jobs = json.loads(body)["jobs"] if status == 200 else []
        for job in jobs:
            known.held(job)
        for job in jobs:
            verb = chance.choice(("ack", "ack", "ack", "release", "extend", "nothing", "fail"))
            if verb == "nothing":
                continue
            if verb != "extend":
                known.gives_up(job["body"], job["lease"])
            if verb == "ack":
                with known.lock:
                    known.unclear_acks.add(job["body"])
            one = {name: job[name] for name in ("queue", "id", "lease")}
            if chance.random() < 0.5:
                data = self._request("POST", "/settle", json.dumps({verb: [one]}).encode())
            else:
                data = self._request("POST", f"/j/{LEASED}/{job['id']}/{verb}", Presque_Lease=job["lease"])
            status, body = self._ask(data)
            if status != 200:
                continue
            told = json.loads(body)
            told = told["settled"][0] if "settled" in told else told
            if told["status"] == 200 and verb == "ack":
                with known.lock:
                    known.acked[job["body"]] += 1
            elif told["status"] == 200 and verb == "extend":
                until = datetime.fromisoformat(told["lease_until"]).timestamp()
                with known.lock:
                    for lease in known.leases[job["body"]]:
                        if lease.token == job["lease"]:
                            lease.until = max(lease.until, until)

    def _stream(self) -> None:
        """Take lines for a moment, then say that no more are wanted, and read what has come."""
        self._leave()
        wait = self._chance.choice(("", "?wait=0.2", "?wait=1"))
        plain = self._connect()
        version = self._chance.choice(("1.0", "1.1"))
        plain.sendall(f"GET /c/{PLAIN}{wait} HTTP/{version}\r\nHost: localhost\r\n\r\n".encode())
        timer = threading.Timer(self._chance.uniform(0, 0.3), self._end_of, (plain,))
        timer.start()
        response = http.client.HTTPResponse(plain)
        received = b""
        try:
            response.begin()
            while response.status == 200 and (part := response.read1(65536)):
                received += part
        except (OSError, http.client.HTTPException):
            pass
        finally:
            timer.cancel()
            timer.join()
            response.close()
        for line in received.splitlines(keepends=True):
            if line.endswith(b"\n") and response.status == 200:
                self._known.took(json.loads(line)["body"])
        if not received.endswith(b"\n"):
            with self._known.lock:
                self._known.unclear += 1
        self._leave()

    @staticmethod
    def _end_of(plain: socket.socket) -> None:
        with contextlib.suppress(OSError):
            plain.shutdown(socket.SHUT_WR)

    def _speak(self) -> None:
        """Consume over a WebSocket for a moment, then leave by any way."""
        self._leave()
        plain, chance, known = self._connect(), self._chance, self._known
        plain.sendall(
            b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        response = http.client.HTTPResponse(self._shared)  # type: ignore[arg-type]
        response.begin()
        if response.status != 101:
            raise Away
        reader = frames.Reader(masked=False, most=1 << 24)
        mine: dict[str, Any] = {}

        def say(command: Any) -> None:
            plain.sendall(frames.frame(frames.TEXT, json.dumps(command).encode(), b"abcd"))

        try:
            say({"cmd": "lease", "queue": LEASED, "count": SOME, "seconds": self._seconds})
            ends = time.monotonic() + chance.uniform(0, 0.5)
            while (left := ends - time.monotonic()) > 0:
                plain.settimeout(max(left, 0.01))
                try:
                    data = self._shared.makefile("rb").read1(65536)
                except TimeoutError:
                    break
                if not data:
                    break
                for message in reader.feed(data):
                    if message.opcode == frames.CLOSE:
                        raise Away
                    if message.opcode != frames.TEXT:
                        continue
                    job = json.loads(message.payload)
                    if job.get("event") != "job":
                        continue
                    known.held(job)
                    mine[job["id"]] = job
                    if chance.random() < 0.5:
                        with known.lock:
                            known.unclear_acks.add(job["body"])
                        known.gives_up(job["body"], job["lease"])
                        say({"cmd": "ack", **{name: job[name] for name in ("queue", "id", "lease")}})
        finally:
            for job in mine.values():
                known.gives_up(job["body"], job["lease"])
            if chance.random() < 0.5:
                with contextlib.suppress(OSError):
                    plain.sendall(frames.frame(frames.CLOSE, frames.close(1000), b"abcd"))
            self._leave()

    def _look(self) -> None:
        looks = ("/stats/", f"/stats/{PLAIN}", f"/j/{LEASED}?state=leased", f"/j/{PLAIN}/1/explain", "/w/",
                 f"/status/{PLAIN}?with_desc=1", "/metrics", "/readyz", "/")  # fmt: skip
        target = self._chance.choice(looks)
        if self._chance.random() < 0.2:
            plain = self._connect()
            plain.sendall(b"GET /events?jobs=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            time.sleep(self._chance.uniform(0, 0.2))
            raise Away
        self._ask(self._request("GET", target))

    def _pipeline(self) -> None:
        """Several requests at once, answered in their order."""
        self._leave()
        self._connect()
        head = "Host: localhost\r\nContent-Length: "
        numbers = [self._known.new() for _ in range(SOME)]
        bodies = [str(number) for number in numbers]
        asked = "".join(
            f"POST /q/{PLAIN} HTTP/1.1\r\n{head}{len(body)}\r\n\r\n{body}"
            f"GET /q/{PLAIN}?wait=0.05 HTTP/1.1\r\n{head}0\r\n\r\n"
            for body in bodies
        )
        self._send(asked.encode())
        waited = SOME
        try:
            for number in numbers:
                response, _ = self._answer()
                if response.status == 201:
                    with self._known.lock:
                        self._known.acknowledged.add(number)
                response, body = self._answer()
                waited -= response.status in (200, 404)
                if response.status == 200:
                    self._known.took(int(body))
        finally:
            with self._known.lock:
                self._known.unclear += waited


@contextlib.contextmanager
def strangers(ports: list[int], seed: int, count: int, seconds: int) -> Iterator[Known]:
    """Let so many do as they like; all have left afterwards."""
    known, over = Known(), threading.Event()
    them = [Stranger(known, ports, f"{seed}-{number}", over, seconds) for number in range(count)]
    for one in them:
        one.start()
    try:
        yield known
    finally:
        over.set()
        for one in them:
            one.join(2 * rig.PATIENCE)
        assert not any(one.is_alive() for one in them)
