"""The files in examples/proxies/, each in its real proxy, in front of a real server.

They are whole files, of which only the addresses and the certificate are replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from playwright.sync_api import expect, sync_playwright
from websockets.asyncio.client import connect

from presque import Client
from tests import rig
from tests.dashboard.conftest import FLAGS
from tests.doors.sockets import heard
from tests.doors.test_raw_requests import ALL_MALFORMED, HOST, post

FILES = Path(__file__).parents[2] / "examples" / "proxies"


@dataclass
class Proxied:
    """A server behind a proxy. `prefix` is the path under which the proxy offers it."""

    server: rig.Server
    port: int
    prefix: str
    pem: Path
    sends_little: bool
    """Whether the proxy has a bound for what it sends ahead. Caddy knows none."""

    @property
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.pem))

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}{self.prefix}"

    def open(self, timeout: float = 30) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("localhost", self.port, timeout=timeout, context=self.context)

    def begin(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> http.client.HTTPSConnection:
        """Send a request, and leave the answer for later."""
        connection = self.open()
        connection.request(method, self.prefix + path, body, headers or {})
        return connection

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> rig.Answer:
        with contextlib.closing(self.begin(method, path, body, headers)) as connection:
            return answer_of(connection)

    def waiting(self, queue: str) -> bool:
        """Whether somebody waits for a job of this queue, as the reasons of one tell that is not due."""
        if not self.server.ask("GET", f"/j/{queue}?state=scheduled").json["jobs"]:
            self.server.ask("POST", f"/q/{queue}?delay=1h", "0")
        [later] = self.server.ask("GET", f"/j/{queue}?state=scheduled").json["jobs"]
        reasons = self.server.ask("GET", f"/j/{queue}/{later['id']}/explain").json["reasons"]
        return not {"no-worker", "busy"} & {reason["code"] for reason in reasons}


def answer_of(connection: http.client.HTTPSConnection) -> rig.Answer:
    response = connection.getresponse()
    return rig.Answer(
        response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    )


def nginx(
    file: Path, port: int, upstream: int, pem: Path, directory: Path, *, guarding: bool = False
) -> list[str]:
    """The command that runs nginx with a file of ours; `guarding` adds that it lets `…-smuggled` through to
    nobody."""
    text = file.read_text()
    for theirs, ours in (
        ("listen 443 ssl sndbuf=16k;", f"listen 127.0.0.1:{port} ssl sndbuf=16k;"),
        ("127.0.0.1:5000;", f"127.0.0.1:{upstream};"),
        ("server_name queue.example;", "server_name localhost;"),
        ("/etc/ssl/queue.example.pem;", f"{pem}.cert;"),
        ("/etc/ssl/queue.example.key;", f"{pem}.key;"),
    ):
        assert text.count(theirs) == 1, theirs
        text = text.replace(theirs, ours)
    if guarding:
        text = text.replace(
            "        location ", "        location ~ smuggled { return 418; }\n        location ", 1
        )
    temporary = "".join(
        f"{name}_temp_path {directory}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = text.replace("http {", f"http {{ access_log off; {temporary}", 1)
    written = directory / "nginx.conf"
    written.write_text(text)
    globals_ = f"pid {directory}/pid; error_log stderr warn; daemon off; master_process off;"
    return [rig.require("nginx"), "-p", str(directory), "-e", "stderr", "-c", str(written), "-g", globals_]


def caddy(
    file: Path, port: int, upstream: int, pem: Path, directory: Path, *, guarding: bool = False
) -> list[str]:
    """The command that runs Caddy with a file of ours, as `nginx` does."""
    text = file.read_text()
    for theirs, ours in (
        ("\nqueue.example {", f"\nhttps://localhost:{port} {{\n\tbind 127.0.0.1"),
        ("reverse_proxy 127.0.0.1:5000 {", f"reverse_proxy 127.0.0.1:{upstream} {{"),
        (" /etc/ssl/queue.example.pem ", f" {pem}.cert "),
        (" /etc/ssl/queue.example.key\n", f" {pem}.key\n"),
    ):
        assert text.count(theirs) == 1, theirs
        text = text.replace(theirs, ours)
    if guarding:
        text = text.replace("\ttls ", "\t@smuggled path_regexp smuggled\n\tredir @smuggled / 308\n\ttls ", 1)
    written = directory / "Caddyfile"
    written.write_text("{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}\n" + text)
    return [rig.require("caddy"), "run", "--adapter", "caddyfile", "--config", str(written)]


@contextlib.contextmanager
def running(command: list[str], port: int, directory: Path) -> Iterator[None]:
    """A proxy that listens on `port`."""
    with (directory / "said").open("wb") as said:
        process = subprocess.Popen(
            command, stdout=said, stderr=said, env={"HOME": str(directory), "PATH": "/usr/bin:/bin"}
        )
        try:
            rig.eventually(lambda: process.poll() is not None or listens(port))
            assert process.poll() is None, (directory / "said").read_text()
            yield
        finally:
            process.terminate()
            try:
                process.wait(rig.PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.fixture(scope="module")
def server() -> Iterator[rig.Server]:
    """A server that believes the proxies of this machine."""
    with rig.server("--memory", PRESQUE_PROXIES="127.0.0.1") as found:
        yield found


NAMES = ["nginx.conf", "nginx-under-a-path.conf", "Caddyfile", "Caddyfile-under-a-path"]


@pytest.fixture(scope="module", params=NAMES)
def proxied(
    request: pytest.FixtureRequest, server: rig.Server, pem: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxied]:
    """A server behind one of the files."""
    directory, port = tmp_path_factory.mktemp("proxy"), rig.free_port()
    command = (caddy if request.param.startswith("Caddy") else nginx)(
        FILES / request.param, port, server.port, pem, directory
    )
    with running(command, port, directory):
        yield Proxied(
            server, port, "/presque" if "path" in request.param else "", pem, "nginx" in request.param
        )


def test_every_file_is_tried() -> None:
    assert {file.name for file in FILES.iterdir()} == set(NAMES)


def test_a_job_is_pushed_and_fetched_and_its_location_leads_back(proxied: Proxied, queue_name: str) -> None:
    pushed = proxied.ask("POST", f"/q/{queue_name}", '{"to": "ana"}')
    place = pushed.headers["location"]
    assert (pushed.status, place) == (201, f"{proxied.prefix}/j/{queue_name}/1")
    with contextlib.closing(proxied.open()) as connection:
        connection.request("GET", place)
        assert answer_of(connection).json["body"] == {"to": "ana"}
    assert proxied.ask("GET", f"/q/{queue_name}").body == b'{"to": "ana"}'
    assert proxied.ask("GET", f"/q/{queue_name}").json == {"error": "no job"}


def test_the_page_and_its_parts_are_there(proxied: Proxied) -> None:
    page = proxied.ask("GET", "/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    parts = re.findall(r'(?:src|href)="([^"]+)"', page.body.decode())
    assert any(part.endswith("/app.js") for part in parts)
    with contextlib.closing(proxied.open()) as connection:
        for part in parts:
            connection.request("GET", urljoin(f"{proxied.prefix}/", part))
            assert answer_of(connection).status == 200, part
    if proxied.prefix:
        with contextlib.closing(proxied.open()) as connection:
            connection.request("GET", proxied.prefix)
            moved = answer_of(connection)
        assert (
            moved.status,
            moved.headers["location"].removeprefix(f"https://localhost:{proxied.port}"),
        ) == (
            308,
            f"{proxied.prefix}/",
        )


def test_the_dashboard_is_live_behind_it(proxied: Proxied, queue_name: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=rig.require("chromium"), args=FLAGS)
        page = browser.new_context(ignore_https_errors=True).new_page()
        page.goto(f"{proxied.url}/")
        page.locator(".connection.live").wait_for()
        proxied.server.ask("POST", f"/q/{queue_name}", "1")
        page.get_by_label("Filter queues").fill(queue_name)  # many that begin alike are folded
        page.get_by_role("link", name=queue_name).click()
        page.get_by_role("link", name="1", exact=True).click()
        expect(page.get_by_role("heading", name="Job 1")).to_be_visible()
        browser.close()


def test_a_page_of_ours_may_act_and_others_may_not(proxied: Proxied, queue_name: str) -> None:
    ours = f"https://localhost:{proxied.port}"
    for origin, status in (ours, 201), ("https://evil.example", 403), (ours.replace("https", "http"), 403):
        assert proxied.ask("POST", f"/q/{queue_name}", "1", {"Origin": origin}).status == status


def test_a_waiting_fetch_gets_its_job_and_who_has_left_takes_none(proxied: Proxied, queue_name: str) -> None:
    for path, method in (f"/q/{queue_name}?wait=30", "GET"), (f"/q/{queue_name}/lease?wait=30", "POST"):
        gone = proxied.begin(method, path)
        rig.eventually(lambda: proxied.waiting(queue_name))
        gone.close()
        rig.eventually(lambda: not proxied.waiting(queue_name))

    with contextlib.closing(proxied.begin("GET", f"/q/{queue_name}?wait=30")) as waiting:
        rig.eventually(lambda: proxied.waiting(queue_name))
        proxied.ask("POST", f"/q/{queue_name}", "1")
        assert answer_of(waiting).body == b"1"


def test_a_client_waits_as_long_as_it_may(proxied: Proxied, queue_name: str) -> None:
    """Until its wait is over, and no proxy ends it before."""
    with contextlib.closing(proxied.begin("GET", f"/q/{queue_name}?wait=3")) as waiting:
        assert answer_of(waiting).json == {"error": "no job"}


def test_the_lines_of_a_queue_come_one_by_one(proxied: Proxied, queue_name: str) -> None:
    with contextlib.closing(proxied.begin("GET", f"/c/{queue_name}")) as open_:
        response = open_.getresponse()
        for number in range(3):
            proxied.ask("POST", f"/q/{queue_name}", str(number))
            assert json.loads(response.readline())["body"] == number
    rig.eventually(lambda: not proxied.waiting(queue_name))
    proxied.ask("POST", f"/q/{queue_name}", "4")
    assert proxied.ask("GET", f"/q/{queue_name}").body == b"4"


def test_events_come_as_they_happen(proxied: Proxied, queue_name: str) -> None:
    with contextlib.closing(proxied.begin("GET", f"/events?queues={queue_name}")) as open_:
        response = open_.getresponse()
        assert response.headers["content-type"] == "text/event-stream"
        proxied.ask("POST", f"/q/{queue_name}", "1")
        while not (line := response.readline()).startswith(b"data:"):
            pass
        assert json.loads(line.removeprefix(b"data: "))["queue"] == queue_name


async def test_sockets_speak_through_it(proxied: Proxied, queue_name: str) -> None:
    url = f"wss://localhost:{proxied.port}{proxied.prefix}/ws"
    async with connect(url, ssl=proxied.context, compression=None) as socket_:
        await socket_.send(json.dumps({"cmd": "lease", "queue": queue_name, "count": 1}))
        assert (await heard(socket_))["count"] == 1
        pushed = await asyncio.to_thread(proxied.ask, "POST", f"/q/{queue_name}", "1")
        assert pushed.status == 201
        job = await heard(socket_)
        assert (job["event"], job["body"]) == ("job", 1)
    # The socket is gone without an ack: the job is given back at once.
    again = await asyncio.to_thread(proxied.ask, "POST", f"/q/{queue_name}/lease?wait=30")
    assert [one["body"] for one in again.json["jobs"]] == [1]


def test_jobs_are_leased_and_settled(
    proxied: Proxied, queue_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESQUE_CA", str(proxied.pem))
    with Client(proxied.url) as client:
        client.push(queue_name, {"n": 1})
        [job] = client.lease(queue_name, wait=rig.PATIENCE)
        client.ack(job)
        assert client.stats(queue_name)["processed"] == 1


def test_jobs_are_pushed_as_lines_of_any_number(proxied: Proxied, queue_name: str) -> None:
    def lines() -> Iterator[bytes]:
        for first in range(0, 20_000, 1000):
            yield b"".join(b'"%06d-%b"\n' % (number, b"x" * 100) for number in range(first, first + 1000))

    pushed = proxied.ask("POST", f"/qb/{queue_name}", lines(), {"Content-Type": "application/x-ndjson"})
    assert (pushed.status, pushed.json["pushed"]) == (201, 20_000)


def test_nobody_can_pass_for_the_proxy(proxied: Proxied, queue_name: str) -> None:
    forged = {
        "X-Forwarded-Prefix": "/evil",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "http",
        "Forwarded": "for=1.2.3.4",
    }
    pushed = proxied.ask("POST", f"/q/{queue_name}", "1", forged)
    assert (pushed.status, pushed.headers["location"]) == (201, f"{proxied.prefix}/j/{queue_name}/1")
    assert proxied.ask("POST", f"/q/{queue_name}", "1", {"Host": "evil.example"}).status != 201


def test_what_is_sent_to_a_reader_that_does_not_read_comes_to_an_end(
    proxied: Proxied, queue_name: str
) -> None:
    """Without a bound for what nginx sends ahead it gets about 4000 of these jobs."""
    lines = b"".join(b'"%b"\n' % (b"x" * 1000) for _ in range(3000))
    kind = {"Content-Type": "application/x-ndjson"}
    assert proxied.ask("POST", f"/qb/{queue_name}", lines, kind).status == 201
    with contextlib.closing(proxied.begin("GET", f"/c/{queue_name}")):
        left = [-1]

        def stands_still() -> bool:
            left.append(proxied.server.ask("GET", f"/status/{queue_name}").json["size"])
            time.sleep(1)
            return left[-1] == left[-2] < 3000

        rig.eventually(stands_still, within=60)
    if proxied.sends_little:
        assert 3000 - left[-1] < 1000


# --- where one request ends, and who sends it

# What is well-formed, or nearly, and has led proxies and servers to disagree. FOLLOWS are further requests.
DOUBTFUL = {
    "chunked in capitals": b"Transfer-Encoding: cHuNkEd\r\n\r\n0\r\n\r\nFOLLOWS",
    "a list that ends with a comma": b"Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\nFOLLOWS",
    "chunked with an underscore": b"Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nFOLLOWS",
    "a length with an underscore": b"Content_Length: LENGTH\r\n\r\nFOLLOWS",
    "a request as a body": b"Content-Length: LENGTH\r\n\r\nFOLLOWS",
    "a request as a chunk": b"Transfer-Encoding: chunked\r\n\r\nHEX\r\nFOLLOWS\r\n0\r\n\r\n",
    "a request as a trailer": b"Transfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\nFOLLOWS\r\n",
    "a request that is expected": b"Expect: 100-continue\r\nContent-Length: LENGTH\r\n\r\nFOLLOWS",
    "Connection names the length": b"Connection: Content-Length\r\nContent-Length: LENGTH\r\n\r\nFOLLOWS",
    "Connection names the encoding": (
        b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\nHEX\r\nFOLLOWS\r\n0\r\n\r\n"
    ),
    "Connection names the host": b"Connection: Host\r\nContent-Length: LENGTH\r\n\r\nFOLLOWS",
    "HTTP/2 in clear": (
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
        b"Content-Length: 1\r\n\r\n1FOLLOWS"
    ),
    "a WebSocket elsewhere": (
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nContent-Length: LENGTH\r\n\r\nFOLLOWS"
    ),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", NAMES)
def test_proxy_and_presque_agree_on_where_a_request_ends(
    server: rig.Server, pem: Path, queue_name: str, tmp_path: Path, name: str
) -> None:
    """The proxy lets nobody ask for `…-smuggled`, and yet each message ends with two such requests."""
    prefix, port = ("/presque" if "path" in name else "").encode(), rig.free_port()
    command = (caddy if name.startswith("Caddy") else nginx)(
        FILES / name, port, server.port, pem, tmp_path, guarding=True
    )
    door = rig.Door()
    door.port, door.context = port, ssl.create_default_context(cafile=str(pem))
    # Caddy answers 502 where it cannot read the body.
    refusals = (b"501", b"505", b"502") if name.startswith("Caddy") else (b"501", b"505")
    queue, smuggled = queue_name.encode(), f"{queue_name}-smuggled"
    follows = post(smuggled, b"1") * 2
    follows += follows.replace(b"/q/", prefix + b"/q/") if prefix else b""
    messages = {what: request + follows for what, (request, _) in ALL_MALFORMED.items()}
    for method in b"POST", b"GET", b"DELETE":
        for what, rest in DOUBTFUL.items():
            rest = rest.replace(b"LENGTH", b"%d" % len(follows)).replace(b"HEX", b"%x" % len(follows))
            head = b"%b /q/QUEUE HTTP/1.1\r\n%b" % (method, HOST)
            messages[f"{method.decode()}: {what}"] = head + rest.replace(b"FOLLOWS", follows)

    def send(what: str) -> None:
        message = messages[what].replace(b" /q/QUEUE", b" %b/q/%b" % (prefix, queue))
        received = door.raw(message.replace(b"QUEUE", queue), within=1)
        for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", received):
            assert int(status) < 500 or status in refusals, (what, received[:200])

    with running(command, port, tmp_path):
        assert door.ask("POST", f"{prefix.decode()}/q/{smuggled}", "1", Host="localhost").status in (308, 418)
        with ThreadPoolExecutor(8) as several:
            for _ in several.map(send, messages):
                pass
        assert smuggled not in server.ask("GET", "/status/").json["queues"]
        # Connections that the proxy keeps to presque give the next client its own answer.
        for number in range(20):
            answer = door.ask("POST", f"{prefix.decode()}/q/{queue_name}-own", str(number), Host="localhost")
            assert (answer.status, answer.json["id"]) == (201, str(number + 1))


@pytest.mark.parametrize(
    "named", ["X-Forwarded-For", "X-Forwarded-Proto, X-Forwarded-Host", "Host", "Upgrade"]
)
def test_nobody_has_the_proxy_leave_out_who_it_is(proxied: Proxied, queue_name: str, named: str) -> None:
    """Some proxies take the headers that `Connection` names off those that they have set themselves."""
    cookie = proxied.ask("POST", "/logout", None, {"Connection": f"close, {named}"}).headers["set-cookie"]
    assert cookie.startswith("__Secure-" if proxied.prefix else "__Host-")  # it has come over TLS
