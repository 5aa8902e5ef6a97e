"""What would a library cost that speaks HTTP for presque, against presque's own connection?

presque as it is, and beside it the same engine and verbs behind uvicorn (httptools, uvloop), granian
(RSGI, one worker, uvloop) and hypercorn (uvloop), as an application without a framework
(peers/http_app.py). The libraries come from PyPI into an environment of their own. The application leaves
out what presque does besides: the gate, limits and deadlines, waiting, errors. So the libraries are
measured without what would have to be built on them.

The same wrk load on each, 64 connections: push, fetch, settle of one lease that has ended, and `GET
/control/`. Counted is user and system time of all processes of the server during the run, divided by the
answers that wrk got. Each has a store of its own, which is not counted.

Nothing is owed. A library that comes within 1.3 x on all four verbs would be worth its dependency.

run:          python bench/http_servers.py
last result:  2026-11-25, 2 cores, other work beside it; push, fetch, settle, control: uvicorn 3.3, 3.4, 1.8,
              1.3 x; granian 3.0, 1.9, 1.2, 0.9 x; hypercorn 20, 13, 5.8, 7.9 x
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import rig
from workers import ENVIRONMENTS, PEERS, Peer, install

SOURCE = Path(__file__).parent.parent / "src"
PACKAGES = (
    "uvicorn==0.54.*", "httptools", "uvloop", "granian[uvloop]>=2.8,<3", "hypercorn[uvloop]==0.18.*",
    "hiredis", "msgspec", "cronsim", "tzdata",
)  # fmt: skip
ENDED = '{"ack":[{"queue":"bench","id":"1","lease":"gone"}]}'
VERBS = {
    "push": rig.Request("POST", "/q/bench", rig.BODY),
    "fetch": rig.Request("GET", "/q/bench"),
    "settle": rig.Request("POST", "/settle", ENDED),
    "control": rig.Request("GET", "/control/bench"),
}
ADDRESS = "--host 127.0.0.1 --port {port} http_app:app"
COMMANDS = {
    "uvicorn": f"uvicorn --http httptools --loop uvloop --no-access-log --log-level warning {ADDRESS}",
    "granian": f"granian --interface rsgi --workers 1 --loop uvloop --no-ws --log-level warning {ADDRESS}",
    "hypercorn": "hypercorn --worker-class uvloop --bind 127.0.0.1:{port} http_app:app",
}


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    peer = Peer("http", PACKAGES, "")
    install(peer)
    costs: dict[str, dict[str, list[float]]] = {verb: {} for verb in VERBS}
    with contextlib.ExitStack() as stack:
        servers = {"presque": stack.enter_context(rig.presque(bench.directory / "presque"))}
        for name in COMMANDS:
            servers[name] = stack.enter_context(behind(name, bench.directory / name))
        for server in servers.values():
            rig.load(server, VERBS["push"], 2 * rig.WARM_UP_S)  # and enough to fetch
        for verb, request in VERBS.items():
            seconds = max(1, bench.seconds // 2) if verb == "fetch" else bench.seconds
            sides = {name: functools.partial(cost, one, request, seconds) for name, one in servers.items()}
            costs[verb] = rig.in_turns(bench.rounds, sides)
    verdicts = []
    for verb, found in costs.items():
        rig.table(f"{verb}: CPU microseconds for each request", found, "{:.1f}")
        for name in COMMANDS:
            ratio = rig.median_ratio(found[name], found["presque"])
            verdicts.append(rig.noted(f"{verb}: {name} / presque, server CPU", f"{ratio:.2f} x"))
    return verdicts


@contextlib.contextmanager
def behind(name: str, directory: Path) -> Iterator[rig.Program]:
    """The application behind one library, on a store of its own."""
    home, port = ENVIRONMENTS / "http" / "bin", rig.free_port()
    program, *flags = COMMANDS[name].format(port=port).split()
    with rig.valkey(directory / "store") as valkey:
        environment = ["env", f"BENCH_STORE={valkey.socket}", f"PYTHONPATH={SOURCE}:{PEERS}"]
        command = [*environment, str(home / program), *flags]
        with rig.started(command, directory, rig.answers(port, "/control/bench")) as pid:
            yield rig.Program(pid, port)


def cost(server: rig.Program, request: rig.Request, seconds: int) -> float:
    """CPU microseconds for each request, of the server and its workers."""
    pids = [server.pid, *workers_of(server.pid)]
    before = sum(map(rig.cpu_s, pids))
    load = rig.load(server, request, seconds)
    return (sum(map(rig.cpu_s, pids)) - before) / load.requests * 1e6


def workers_of(pid: int) -> Sequence[int]:
    """The processes below it that serve; presque's own store does not."""
    return [one for one in rig.descendants(pid) if b"valkey" not in Path(f"/proc/{one}/cmdline").read_bytes()]


SCRIPT = rig.Script(measure, __doc__, rounds=3, seconds=2)

if __name__ == "__main__":
    os.environ.pop("PYTHONPATH", None)
    sys.exit(rig.main([SCRIPT], __doc__))
