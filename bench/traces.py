"""What do traces cost a server: one that makes spans, and the requests that ask for them?

Two servers of the same presque: one without `--traces`, and one with it that sends its spans to a collector
which throws them away. 64 connections push the same 25-byte body; in turn nobody asks for a span, and every
request does (a sampled `traceparent`, which the job keeps in either case). What counts is the CPU of the
server for each push.

Owed: at most 1.05 x where nobody asks.

run:          python bench/traces.py
last result:  2026-11-29, 2 cores, 7 rounds of 1 s beside other work (load 13): nobody asks 1.01 x, PASS;
              with a `traceparent` that is kept 3.2 x, with a span as well 10.5 x
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import rig

QUEUE = "mail_out"
SAMPLED = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


@dataclass(frozen=True, slots=True)
class Side:
    """A server, and what each push to it bears."""

    server: rig.Program
    headers: tuple[tuple[str, str], ...]


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    plain_dir, traced_dir = bench.directory / "plain", bench.directory / "traced"
    with collector(), rig.presque(plain_dir) as plain, traced(traced_dir) as server:
        sides = {
            "without": Side(plain, ()),
            "--traces": Side(server, ()),
            "asked, without": Side(plain, (SAMPLED,)),
            "asked, --traces": Side(server, (SAMPLED,)),
        }
        for side in sides.values():
            cpu_of_a_push(side, rig.WARM_UP_S)
        found = rig.in_turns(
            bench.rounds,
            {name: functools.partial(cpu_of_a_push, side, bench.seconds) for name, side in sides.items()},
        )
    rig.table("microseconds of the server's CPU for a push", found, "{:.2f}")
    idle = rig.median_ratio(found["--traces"], found["without"])
    kept = rig.median_ratio(found["asked, without"], found["without"])
    made = rig.median_ratio(found["asked, --traces"], found["without"])
    return [
        rig.at_most("a push to a server with --traces, nobody asks", idle, 1.05, "x"),
        rig.noted("a push with a traceparent, no span", f"{kept:.2f} x"),
        rig.noted("a push with a traceparent, and a span", f"{made:.2f} x"),
    ]


def cpu_of_a_push(side: Side, seconds: int) -> float:
    """Microseconds of the server's CPU."""
    before = rig.cpu_s(side.server.pid)
    load = rig.load(side.server, rig.Request("POST", f"/q/{QUEUE}", rig.BODY, side.headers), seconds)
    used = (rig.cpu_s(side.server.pid) - before) / load.requests * 1e6
    rig.ask(side.server.port, "DELETE", f"/q/{QUEUE}")
    return used


@contextlib.contextmanager
def traced(directory: Path) -> Iterator[rig.Program]:
    """A server that makes spans."""
    port = rig.free_port()
    command = [*rig.presque_command(directory, port, "everysec"), "--traces"]
    with rig.started(command, directory, rig.answers(port, "/livez")) as pid:
        yield rig.Program(pid, port)


@contextlib.contextmanager
def collector() -> Iterator[None]:
    """Takes spans and throws them away; the environment says where it is."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield
        finally:
            server.shutdown()


SCRIPT = rig.Script(measure, __doc__)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
