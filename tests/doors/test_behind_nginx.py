"""What is malformed is refused behind nginx too, and never changes where one request ends.

nginx lets requests for `…-smuggled` through to nobody. So if one of them is ever carried out, nginx and
presque did not agree on where a request ends.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import rig
from tests.doors.test_raw_requests import ALL_MALFORMED, HOST, known, post

CONFIG = """
{user} daemon off; worker_processes 1; pid {d}/pid; error_log {d}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {d}/body; proxy_temp_path {d}/proxy; fastcgi_temp_path {d}/f;
  uwsgi_temp_path {d}/u; scgi_temp_path {d}/s; client_max_body_size 8m;
  upstream presque {{ server 127.0.0.1:{port}; keepalive 4; }}
  server {{
    listen 127.0.0.1:{own};
    location ~ smuggled {{ return 418; }}
    location / {{
      proxy_pass http://presque; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host localhost; proxy_request_buffering {buffering}; proxy_next_upstream off;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header Forwarded "";
    }}
  }}
}}
"""


USER = "user root;" if os.geteuid() == 0 else ""


class Nginx(rig.Door):
    """nginx in front of a server."""

    def __init__(self, port: int) -> None:
        self.port = port


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def behind() -> Iterator[rig.Server]:
    with rig.server("--memory", PRESQUE_PROXIES="127.0.0.1") as found:
        yield found


@pytest.fixture(scope="module", params=["on", "off"])
def nginx(
    request: pytest.FixtureRequest, behind: rig.Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Nginx]:
    """nginx that gathers bodies before it passes them on, or passes them on as they come."""
    directory, found = tmp_path_factory.mktemp("nginx"), Nginx(free_port())
    config = CONFIG.format(d=directory, port=behind.port, own=found.port, buffering=request.param, user=USER)
    (directory / "conf").write_text(config)
    process = subprocess.Popen(
        [rig.require("nginx"), "-p", str(directory), "-c", str(directory / "conf")], stderr=subprocess.DEVNULL
    )
    try:
        rig.eventually(lambda: answers(found))
        yield found
    finally:
        process.terminate()
        process.wait(10)


def answers(door: Nginx) -> bool:
    with contextlib.suppress(OSError):
        return door.ask("GET", "/status/").status == 200
    return False


@pytest.mark.parametrize("name", ALL_MALFORMED)
def test_nothing_is_smuggled_past_nginx(behind: rig.Server, nginx: Nginx, queue_name: str, name: str) -> None:
    request, _ = ALL_MALFORMED[name]
    request = request.replace(b"QUEUE", queue_name.encode())
    smuggled = f"{queue_name}-smuggled"
    received = nginx.raw(request + post(smuggled, b"1") * 2, within=0.7)
    if received and b"HTTP/" in received:
        status = int(received.split(b" ", 2)[1])
        assert status < 500 or status in (501, 505), received[:200]
    assert not known(behind, smuggled)
    # A connection to presque that nginx keeps gives the next client its own answer.
    for number in range(3):
        answer = nginx.ask("POST", f"/q/{queue_name}-own", str(number))
        assert (answer.status, answer.json["id"]) == (201, str(number + 1))


def test_there_are_enough_of_them() -> None:
    assert len(ALL_MALFORMED) >= 60


def test_what_is_well_formed_passes(behind: rig.Server, nginx: Nginx, queue_name: str) -> None:
    large = b'"%b"' % (b"x" * 1_000_000)
    assert nginx.ask("POST", f"/q/{queue_name}", large).status == 201
    more = HOST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n"
    head = b"POST /q/%b HTTP/1.1\r\n%b\r\n" % (queue_name.encode(), more)
    assert b" 201 " in nginx.raw(head + b"1\r\n7\r\n0\r\n\r\n")
    assert nginx.ask("GET", f"/q/{queue_name}").body == large
    assert nginx.ask("GET", f"/q/{queue_name}?wait=1").body == b"7"


def test_a_client_of_nginx_that_leaves_takes_nothing(
    behind: rig.Server, nginx: Nginx, queue_name: str
) -> None:
    waiting = [nginx.send("GET", f"/q/{queue_name}?wait=20") for _ in range(5)]
    for one in waiting:
        one.leave()
    rig.eventually(lambda: waiters(behind) == 0)
    assert nginx.ask("POST", f"/q/{queue_name}", "1").status == 201
    assert behind.ask("GET", f"/stats/{queue_name}").json["ready"] == 1


def waiters(server: rig.Server) -> int:
    """How many connections of others the server has that nginx does not keep for later."""
    port = f"{server.port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return max(0, sum(row[1].endswith(f":{port}") and row[3] == "01" for row in rows) - 4)
