"""How long does the largest request of each verb hold up the store, and the event loop of the server?

The verbs of src/presque/verbs.py are asked for as much as their bounds allow, of jobs, errors, queues,
workers and names that are as large and as many as they may be. Printed for each: the longest function in
the store and the longest that the thread of the event loop was busy without a break, both in milliseconds
of CPU (turns.py). A round is repeated with new queues, and the shorter one counts. `ONLY=lease,settle`
before the command measures only what has one of these words in its name.

Owed: 20 ms for both.

run:          python bench/longest_hold.py
last result:  2026-11-30, 2 cores, load 13 to 30, in parts, one round: in the store at most 15.3 ms (a push
              of 1,000 jobs with a ttl and a group); sweep of 300 done jobs of 1 MiB 6.5 ms,
              and 33 ms in one run, with the threads that write the store's log (so is CPU
              counted); in the event loop 35 ms (a fetch of 4 MiB, twice what an idle machine
              shows) before its list was written once instead of twice; 11.5 ms with 10,000
              access tokens, 22 ms when Python still looked through them for garbage. Purge
              and forget free in the background: 20,000 jobs of 10 KiB 1.2 ms, 300 of 1 MiB 11
              ms. Before work was bounded by bytes: settle of 500 jobs with long errors 360 to
              870 ms, a fetch of jobs of 1 MiB 517 ms, retry of 100 of them 1.4 s, a lease of
              jobs with long errors 855 ms (wall time). What no bound helps is one job of 40
              MiB: docs/guides/operations.md says how long it takes
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import itertools
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rig
import turns

from presque import tokens
from presque.engine.access import NewToken
from presque.engine.importing import Arriving
from presque.engine.keys import Keys
from presque.engine.library import NAME
from presque.engine.quotas import NamespaceRecord, Quotas
from presque.job import Failure

OWED_MS = 20.0
LONG = 64 * 1024
JOBS = 1000
MIB = 1024 * 1024
KEYS = Keys("presque")
NOTE = "x" * 200
_names = (f"q{number}" for number in itertools.count())


class World:
    """The server, its store, and what is there before the request that is measured."""

    def __init__(self, server: rig.Program, store: rig.Store) -> None:
        self.port = server.port
        self.store = store
        self.token = ""

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> bytes:
        """One request, which must be answered well."""
        if self.token:
            headers = {"Authorization": f"Bearer {self.token}"} | headers
        text = body if body is None or isinstance(body, str | bytes) else json.dumps(body)
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        ) as connection:
            connection.request(method, path, text, headers)
            answer = connection.getresponse()
            said = answer.read()
        if answer.status >= 400 and answer.status != 404:
            raise rig.Broken(f"{method} {path[:80]} answered {answer.status}: {said[:300]!r}")
        return said

    def call(self, name: str, keys: tuple[str, ...], *args: str | int | bytes) -> Any:
        """A function of the store."""
        return self.store("FCALL", f"{NAME}_{name}", len(keys), *keys, *args)

    def jobs(self, count: int, queue: str = "", **about: Any) -> str:
        """A queue with so many jobs, all as `about` says."""
        queue = queue or next(_names)
        said: dict[str, Any] = dict.fromkeys(Arriving.__struct_fields__)
        said |= {"body": b'"x"', "state": "ready", "priority": 5, "attempt": 0, "worker": "w", "errors": ()}
        said["until_done"] = False
        each = about.pop("each", lambda number: {})
        self.call("register", KEYS.registry(), queue)
        for first in range(0, count, 100):
            parts: list[bytes | str | int] = [f"import:{queue}", first + 1]
            for number in range(first, min(first + 100, count)):
                parts += Arriving(**said | about | each(number)).packed(int(time.time() * 1000))
            self.call("import", KEYS.of(queue), *parts)
        return queue

    def leased(self, count: int, queue: str, seconds: int = 600) -> list[dict[str, Any]]:
        """Lease so many jobs of a queue: what names each in a settle."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            jobs = json.loads(self.ask("POST", f"/q/{queue}/lease", {"count": 1000, "seconds": seconds}))[
                "jobs"
            ]
            found += [{name: job[name] for name in ("queue", "id", "lease")} for job in jobs]
        return found


def soon() -> int:
    """A moment after the preparation has ended."""
    return int(time.time() * 1000) + 3000


def fat(last: int = LONG) -> dict[str, Any]:
    """A job that failed ten times, with errors as long as they are kept."""
    old = tuple(Failure(1, "w", "e" * 7000, None) for _ in range(9))
    return {"errors": (*old, Failure(1, "w", "e" * last, "b" * last)), "attempt": 10}


Case = Callable[[World], Callable[[], object]]
CASES: dict[str, Case] = {}


def case(name: str) -> Callable[[Case], Case]:
    """What is asked in the end, of which verb, and what there is before: the function returns the request."""

    def keep(prepare: Case) -> Case:
        CASES[name] = prepare
        return prepare

    return keep


# --- push and fetch


@case("push: one job of 1 MiB, as nested as may be")
def _(world: World) -> Callable[[], object]:
    body = "[" + ",".join(["[" * 90 + "1" + "]" * 90] * 5700) + "]"
    return lambda: world.ask("POST", f"/q/{next(_names)}", body)


@case("put_back: one job of 1 MiB, of small numbers")
def _(world: World) -> Callable[[], object]:
    body = "[" + ",".join(["1.5"] * 250_000) + "]"
    return lambda: world.ask("PUT", f"/q/{next(_names)}", body)


@case("push_many: 1,000 jobs of 1 KiB with a ttl and a group")
def _(world: World) -> Callable[[], object]:
    body = {"jobs": ["x" * 1000] * JOBS}
    return lambda: world.ask("POST", f"/qb/{next(_names)}?group=g&ttl=1000&priority=3&delay=60", body)


@case("push_many: by lines, 20 MB of small jobs")
def _(world: World) -> Callable[[], object]:
    return lambda: world.ask(
        "POST", f"/qb/{next(_names)}", b'{"a":1}\n' * 200_000, **{"Content-Type": "application/x-ndjson"}
    )


@case("fetch: the first of jobs of 1 MiB, 500 due")
def _(world: World) -> Callable[[], object]:
    queue = world.jobs(500, body=b'"%b"' % (b"x" * (MIB - 100)), state="scheduled", run_at=soon())

    def ask() -> None:
        time.sleep(3)
        world.ask("GET", f"/q/{queue}")

    return ask


@case("fetch: of 100 queues, in each 500 jobs due")
def _(world: World) -> Callable[[], object]:
    due = soon() + 10_000
    for _ in range(100):
        world.jobs(500, f"due-{next(_names)}", state="scheduled", run_at=due)

    def ask() -> None:
        time.sleep(max(0.0, due / 1000 - time.time()))
        world.ask("GET", "/q/due-*")
        time.sleep(2)

    return ask


@case("fetch: 62 patterns, 2,000 queues")
def _(world: World) -> Callable[[], object]:
    world.call("register", KEYS.registry(), *[f"{'a' * 100}-{next(_names)}" for _ in range(2000)])
    patterns = ",".join(f"*{'a*' * 50}{number}" for number in range(10, 72))
    return lambda: world.ask("GET", f"/q/{patterns}")


@case("fetch_many: 1,000 jobs of 8 KiB")
def _(world: World) -> Callable[[], object]:
    queue = world.jobs(JOBS, body=b'"%b"' % (b"x" * 8192))
    return lambda: world.ask("GET", f"/qb/{queue}?batch_size=1000")


@case("fetch_many: jobs of 1 MiB, 100 ready")
def _(world: World) -> Callable[[], object]:
    queue = world.jobs(100, body=b'"%b"' % (b"x" * (MIB - 100)))
    return lambda: world.ask("GET", f"/qb/{queue}?batch_size=1000")


@case("fetch_many: 1,000 jobs whose ttl has run out, of 64 KiB")
def _(world: World) -> Callable[[], object]:
    queue = world.jobs(JOBS, body=b'"%b"' % (b"x" * LONG), expires_at=1)
    return lambda: world.ask("GET", f"/qb/{queue}?batch_size=1000")


@case("fetch_many: 1,000 jobs of 1,000 groups, of all priorities")
def _(world: World) -> Callable[[], object]:
    queue = world.jobs(9000, each=lambda n: {"group": f"g{n % 1000}", "priority": n % 9 + 1})
    return lambda: world.ask("GET", f"/qb/{queue}?batch_size=1000")


# --- leases


@case("lease: 1,000 jobs that failed ten times, at length")
def _(world: World) -> Callable[[], object]:
    queue = world.jobs(JOBS // 2, **fat(), attempts=1000)
    return lambda: world.ask("POST", f"/q/{queue}/lease", {"count": 1000})


@case("lease: 1,000 jobs that saved 64 KiB each")
def _(world: World) -> Callable[[], object]:
    queue = world.jobs(JOBS // 2, saved=b'"%b"' % (b"s" * (LONG - 10)), attempt=1)
    return lambda: world.ask("POST", f"/q/{queue}/lease", {"count": 1000})


@case("lease: again with its attempt_id, 500 jobs with long errors")
def _(world: World) -> Callable[[], object]:
    queue = world.jobs(JOBS // 2, **fat(), attempts=1000)
    name = f"again-{queue}"
    world.ask("POST", f"/q/{queue}/lease", {"count": 1000, "attempt_id": name})
    return lambda: world.ask("POST", f"/q/{queue}/lease", {"count": 1000, "attempt_id": name})


@case("lease: 1,000 jobs of groups with a limit")
def _(world: World) -> Callable[[], object]:
    queue = world.jobs(9000, each=lambda n: {"group": f"g{n % 1000}", "priority": n % 9 + 1})
    world.ask("PATCH", f"/p/{queue}", {"group_leased": 1, "rate": {"count": 100_000, "seconds": 60}})
    return lambda: world.ask("POST", f"/q/{queue}/lease", {"count": 1000})


@case("lease: while 500 leases of jobs with long errors end")
def _(world: World) -> Callable[[], object]:
    queue = world.jobs(JOBS // 2, **fat(), attempts=1000)
    world.leased(JOBS // 2, queue, seconds=600)
    keys = KEYS.of(queue)
    members = world.store("ZRANGE", f"{keys[0][:-4]}leased", 0, -1)
    for member in members:
        world.store("ZADD", f"{keys[0][:-4]}leased", 1, member)
    return lambda: world.ask("POST", f"/q/{queue}/lease", {"count": 1})


def _settled(world: World, verb: str, more: dict[str, Any], **about: Any) -> Callable[[], object]:
    leases = world.leased(JOBS // 2, world.jobs(JOBS // 2, attempts=1000, **about))
    return lambda: world.ask("POST", "/settle", {verb: [one | more for one in leases]})


for _verb, _more in {
    "ack": {"result": NOTE},
    "fail": {"error": NOTE, "backtrace": NOTE, "saved": NOTE},
    "release": {"progress": NOTE},
    "extend": {"progress": NOTE},
}.items():
    CASES[f"settle: {_verb} 500 jobs with long errors"] = lambda world, verb=_verb, more=_more: _settled(  # type: ignore[misc]
        world, verb, more, keep=600, **fat()
    )


@case("settle: fail 500 jobs of groups with a limit, of all priorities")
def _(world: World) -> Callable[[], object]:
    queue = world.jobs(9000, each=lambda n: {"group": f"g{n % 1000}", "priority": n % 9 + 1})
    world.ask("PATCH", f"/p/{queue}", {"group_leased": 1})
    leases = world.leased(JOBS // 2, queue)
    return lambda: world.ask("POST", "/settle", {"fail": [one | {"retry_in": 0} for one in leases]})


@case("settle: 1,000 leases of 1,000 queues")
def _(world: World) -> Callable[[], object]:
    names = [world.jobs(1, f"one-{next(_names)}") for _ in range(JOBS)]
    leases = []
    for some in (
        itertools.batched(names, 50)
        if hasattr(itertools, "batched")
        else [names[n : n + 50] for n in range(0, JOBS, 50)]
    ):
        found = json.loads(world.ask("POST", f"/q/{','.join(some)}/lease", {"count": 1000}))["jobs"]
        leases += [{name: job[name] for name in ("queue", "id", "lease")} for job in found]
    return lambda: world.ask("POST", "/settle", {"ack": leases})


@case("ack: a job with long errors and result")
def _(world: World) -> Callable[[], object]:
    [lease] = world.leased(1, world.jobs(1, **fat(), attempts=1000))
    path = f"/j/{lease['queue']}/{lease['id']}/ack?lease={lease['lease']}"
    return lambda: world.ask("POST", path, {"result": "r" * 60_000})


# --- single jobs, and many


@case("jobs: dead, 500 with long errors")
def _(world: World) -> Callable[[], object]:
    queue = world.jobs(JOBS // 2, state="dead", **fat())
    return lambda: world.ask("GET", f"/j/{queue}?state=dead&limit=500")


@case("jobs: ready, 500 of 1 MiB")
def _(world: World) -> Callable[[], object]:
    queue = world.jobs(100, body=b'"%b"' % (b"x" * (MIB - 100)))
    return lambda: world.ask("GET", f"/j/{queue}?state=ready&limit=500")


@case("job: with long errors; explain: 20,000 ahead; change: its body")
def _(world: World) -> Callable[[], object]:
    queue = world.jobs(1, state="dead", **fat())
    other = world.jobs(20_000)

    def ask() -> None:
        world.ask("GET", f"/j/{queue}/1")
        world.ask("GET", f"/j/{other}/20000/explain")
        world.ask("PATCH", f"/j/{other}/20000", {"body": "x" * 900_000, "priority": 9})
        world.ask("DELETE", f"/j/{other}/20000")
        world.ask("POST", f"/j/{queue}/1/retry")

    return ask


@case("retry_all: 500 dead jobs with long errors")
def _(world: World) -> Callable[[], object]:
    queue = world.jobs(JOBS // 2, state="dead", **fat())
    return lambda: world.ask("POST", f"/j/{queue}/retry", {})


@case("retry_all: 100 dead jobs of 1 MiB")
def _(world: World) -> Callable[[], object]:
    queue = world.jobs(100, state="dead", attempt=5, body=b'"%b"' % (b"x" * (MIB - 100)))
    return lambda: world.ask("POST", f"/j/{queue}/retry", {})


@case("retry_all: 10,000 dead jobs")
def _(world: World) -> Callable[[], object]:
    queue = world.jobs(10_000, state="dead", attempt=5)
    return lambda: world.ask("POST", f"/j/{queue}/retry", {})


def _many_jobs(world: World, about: dict[str, Any], count: int) -> str:
    return world.jobs(count, state="dead", **about)


@case("search: all, in long errors")
def _(world: World) -> Callable[[], object]:
    queue = _many_jobs(world, fat(), 300)
    return lambda: world.ask("GET", f"/search?queues={queue}&find=nothing&limit=500")


@case("search: 10,000 small jobs, nothing found")
def _(world: World) -> Callable[[], object]:
    queue = _many_jobs(world, {"errors": (Failure(1, "w", "boom 12345", None),)}, 10_000)
    return lambda: world.ask("GET", f"/search?queues={queue}&like=nothing&limit=500")


@case("search: 500 found, with long errors")
def _(world: World) -> Callable[[], object]:
    queue = _many_jobs(world, fat(), 500)
    return lambda: world.ask("GET", f"/search?queues={queue}&limit=500")


@case("failures: 10,000 of 10,000 kinds")
def _(world: World) -> Callable[[], object]:
    queue = _many_jobs(
        world,
        {"each": lambda n: {"errors": (Failure(1, "w", ("k" * 150) + "abc"[n % 3] * (n % 400), None),)}},
        10_000,
    )
    return lambda: world.ask("GET", f"/failures?queues={queue}")


@case("failures: long errors")
def _(world: World) -> Callable[[], object]:
    queue = _many_jobs(world, fat(), 500)
    return lambda: world.ask("GET", f"/failures?queues={queue}")


@case("export: 300 jobs with long errors, 20,000 small ones")
def _(world: World) -> Callable[[], object]:
    queue, other = _many_jobs(world, fat(), 300), world.jobs(20_000)
    return lambda: world.ask("GET", f"/export?queues={queue},{other}")


@case("import: 1,000 lines of 1 KiB; 8 with errors of 128 KiB")
def _(world: World) -> Callable[[], object]:
    queue = next(_names)
    small = "\n".join(json.dumps({"queue": queue, "body": "x" * 900}) for _ in range(JOBS))
    errors = [{"at": "2020-01-01T00:00:00Z", "error": "e" * 60_000, "backtrace": "b" * 60_000}]
    large = "\n".join(
        json.dumps({"queue": queue, "state": "dead", "body": 1, "errors": errors}) for _ in range(8)
    )

    def ask() -> None:
        world.ask("POST", "/import", small)
        world.ask("POST", "/import", large)

    return ask


def _task(world: World, act: str, queue: str, **more: Any) -> Callable[[], object]:
    def ask() -> None:
        task = json.loads(world.ask("POST", "/tasks", {"act": act, "queues": queue, "state": "dead", **more}))
        deadline = time.monotonic() + 120
        while json.loads(world.ask("GET", f"/tasks/{task['id']}"))["status"] == "running":
            if time.monotonic() > deadline:
                raise rig.Broken("a task does not end")
            time.sleep(0.05)

    return ask


def _run_task(act: str, about: dict[str, Any], count: int, world: World) -> Callable[[], object]:
    more = {"to": next(_names)} if act == "move" else {}
    return _task(world, act, _many_jobs(world, dict(about), count), **more)


for _act in ("retry", "delete", "move"):
    for _what, _about, _count in (
        ("3,000 small jobs", {"errors": (Failure(1, "w", "boom", None),), "attempt": 5}, 3000),
        ("300 jobs with long errors", fat(), 300),
        ("100 jobs of 1 MiB", {"body": b'"%b"' % (b"x" * (MIB - 100)), "attempt": 5}, 100),
        ("3,000 jobs of 1,000 groups", {"attempt": 5, "each": lambda n: {"group": f"g{n % 1000}"}}, 3000),
    ):
        CASES[f"new_task: {_act} {_what}"] = functools.partial(_run_task, _act, _about, _count)


# --- policies, recurring jobs, queues


@case("change_policy: with 20,000 groups that hold leases")
def _(world: World) -> Callable[[], object]:
    queue = world.jobs(20_000, each=lambda n: {"group": f"g{n}"})
    world.leased(20_000, queue)
    return lambda: world.ask("PATCH", f"/p/{queue}", {"group_leased": 1})


@case("crons: 1,000, with bodies of 64 KiB; pause, run, resume, delete")
def _(world: World) -> Callable[[], object]:
    for number in range(1000):
        cron = {"queue": "cron", "schedule": "0 0 29 2 *", "body": "x" * LONG, "timezone": "Europe/Paris"}
        world.ask("PUT", f"/cron/c{number:04}", cron)

    def ask() -> None:
        for verb in ("pause", "resume", "run"):
            world.ask("POST", f"/cron/c0500/{verb}")
        world.ask("GET", "/cron/?limit=500")
        world.ask("GET", "/cron/c0500")

    return ask


@case("purge: 50,000 jobs of as many groups")
def _(world: World) -> Callable[[], object]:
    queue = world.jobs(50_000, each=lambda n: {"group": f"g{n}", "priority": n % 9 + 1})

    def ask() -> None:
        world.ask("DELETE", f"/q/{queue}")
        world.ask("DELETE", f"/q/{queue}?forget=true")

    return ask


@case("size: with the texts of 1,000 jobs of 8 KiB; info; control")
def _(world: World) -> Callable[[], object]:
    queue = world.jobs(JOBS, body=b'"%b"' % (b"x" * 8192))

    def ask() -> None:
        world.ask("GET", f"/status/{queue}?with_desc=1")
        world.ask("GET", f"/j/{queue}")
        world.ask("POST", f"/control/{queue}", {"status": "stop"})

    return ask


@case("all_stats, queues, metrics: 1,000 queues, jobs of all priorities")
def _(world: World) -> Callable[[], object]:
    for _ in range(100):
        world.jobs(
            180, f"st-{next(_names)}", each=lambda n: {"priority": n % 9 + 1, "body": b'"%b"' % (b"x" * 8192)}
        )
    for _ in range(900):
        world.jobs(9, f"st-{next(_names)}", each=lambda n: {"priority": n % 9 + 1, "group": f"g{n}"})

    def ask() -> None:
        world.ask("GET", "/stats/?queues=st-*")
        world.ask("GET", "/status/?queues=st-*&busy=1")
        world.ask("GET", "/metrics")
        world.ask("GET", "/history?over=7d")

    return ask


@case("stats: 100 jobs of 1 MiB whose ttl has run out before the oldest")
def _(world: World) -> Callable[[], object]:
    queue = world.jobs(100, body=b'"%b"' % (b"x" * (MIB - 100)), each=lambda n: {"priority": n % 9 + 1})

    def ask() -> None:
        world.ask("GET", f"/stats/{queue}")
        world.ask("GET", f"/j/{queue}")
        world.ask("GET", f"/history?queue={queue}&over=7d")

    return ask


# --- workers, streams, the rest


@case("workers: 10,000, of which 100 have 256 queues")
def _(world: World) -> Callable[[], object]:
    keys = KEYS.workers()
    for number in range(9_900):
        world.call("worker_report", keys, f"w{number}", json.dumps({"said": "x" * 200}), f"wq-{number % 50}")
    for number in range(100):
        names = [f"{'n' * 110}-{one}" for one in range(256)]
        world.call("worker_report", keys, f"z{number}", json.dumps({"said": "x" * 10_000}), *names)

    def ask() -> None:
        world.ask("GET", "/w/")
        world.ask("GET", "/w/?with_desc=1")
        world.ask("GET", "/w/?queue_name=wq-1")
        world.ask("GET", "/w/?worker_id=z1")
        report = {"queues": [f"{'m' * 50}-{one}" for one in range(256)], "pid": 1}
        world.ask("PUT", "/w/", report, **{"X-presque-workerid": f"fresh-{next(_names)}"})
        world.ask("DELETE", "/w/", **{"X-presque-workerid": "z5"})

    return ask


def _commands(name: str, count: int, commands: Callable[[World], list[dict[str, Any]]]) -> None:
    def prepare(world: World) -> Callable[[], object]:
        asked = (commands(world) * count)[:1000]
        return lambda: world.ask("POST", "/queue", asked)

    CASES[f"commands: 1,000 x {name}"] = prepare


_commands(
    "push to 1,000 queues",
    1,
    lambda world: [{"cmd": "push", "queue": f"p-{next(_names)}", "job": "x" * 500} for _ in range(1000)],
)
_commands(
    "peek 1,000",
    1000,
    lambda world: [{"cmd": "peek", "queue": world.jobs(1000, body=b'"%b"' % (b"x" * 8192)), "count": 1000}],
)
_commands("all_stats", 1000, lambda world: [{"cmd": "all_stats"}])
_commands(
    "stats",
    1000,
    lambda world: [{"cmd": "stats", "queue": world.jobs(20, body=b'"%b"' % (b"x" * (MIB - 100)))}],
)
_commands(
    "search",
    1000,
    lambda world: [{"cmd": "search", "queues": _many_jobs(world, {}, 10_000), "find": "nothing"}],
)
_commands(
    "jobs",
    1000,
    lambda world: [{"cmd": "jobs", "queue": _many_jobs(world, fat(), 200), "state": "dead", "limit": 500}],
)
_commands("history", 1000, lambda world: [{"cmd": "history", "over": "7d"}])
_commands("workers", 1000, lambda world: [{"cmd": "workers", "with_desc": True}])
_commands("crons", 1000, lambda world: [{"cmd": "crons", "limit": 500}])
_commands(
    "fetch", 1000, lambda world: [{"cmd": "fetch", "queue": ",".join(world.jobs(20) for _ in range(60))}]
)


@case("openapi, server, livez, readyz, tasks")
def _(world: World) -> Callable[[], object]:
    def ask() -> None:
        for path in ("/openapi.json", "/server", "/livez", "/readyz", "/tasks", "/"):
            world.ask("GET", path)

    return ask


@case("purge, forget: 20,000 jobs of 10 KiB")
def _(world: World) -> Callable[[], object]:
    return _emptied(world, world.jobs(20_000, body=b'"%b"' % (b"x" * 10_000)))


@case("purge, forget: 300 jobs of 1 MiB")
def _(world: World) -> Callable[[], object]:
    return _emptied(world, world.jobs(300, body=b'"%b"' % (b"x" * (MIB - 100))))


@case("purge, forget: 60 jobs of 1 MiB, few enough to be freed at once")
def _(world: World) -> Callable[[], object]:
    return _emptied(world, world.jobs(60, body=b'"%b"' % (b"x" * (MIB - 100))))


@case("purge, forget: 60 dead jobs with long errors and saved texts")
def _(world: World) -> Callable[[], object]:
    return _emptied(world, world.jobs(60, state="dead", saved=b'"%b"' % (b"s" * (LONG - 10)), **fat()))


def _emptied(world: World, queue: str) -> Callable[[], object]:
    def ask() -> None:
        world.ask("DELETE", f"/q/{queue}")
        world.ask("DELETE", f"/q/{queue}?forget=true")

    return ask


@case("sweep: 300 done jobs of 1 MiB that were kept long enough")
def _(world: World) -> Callable[[], object]:
    queue = world.jobs(
        300, body=b'"%b"' % (b"x" * (MIB - 100)), state="done", finished_at=1, kept_until=soon()
    )
    return lambda: _until_empty(world, queue, "done")


@case("sweep: 20,000 jobs whose ttl has run out")
def _(world: World) -> Callable[[], object]:
    queue = world.jobs(20_000, expires_at=soon())
    return lambda: _until_empty(world, queue, "ready")


def _until_empty(world: World, queue: str, state: str) -> None:
    deadline = time.monotonic() + 60
    while json.loads(world.ask("GET", f"/stats/{queue}"))[state]:
        if time.monotonic() > deadline:
            raise rig.Broken("jobs do not expire")
        time.sleep(0.05)


@case("events, ws: 50 readers of each, 1,000 jobs pushed, fetched")
def _(world: World) -> Callable[[], object]:
    queue = next(_names)
    streams = []
    for _ in range(50):
        for path in ("/events", f"/j/events?queues={queue}"):
            streams.append(socket.create_connection(("127.0.0.1", world.port)))
            streams[-1].sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            threading.Thread(target=_drain, args=(streams[-1],), daemon=True).start()

    def ask() -> None:
        for _ in range(3):
            world.ask("POST", f"/qb/{queue}", {"jobs": ["x"] * JOBS})
            world.ask("GET", f"/qb/{queue}?batch_size=1000")
        time.sleep(1)
        for one in streams:
            one.close()

    return ask


def _drain(stream: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while stream.recv(65536):
            pass


# --- access: last, since from here on each request needs a token


def _admitted(world: World) -> None:
    """Have the requests of the bench show a token."""
    if not world.token:
        id, world.token, key = tokens.make()
        _put_token(world, id, NewToken(name="bench", allow=["*:*"]), key)
        time.sleep(1.5)


def _put_token(world: World, id: str, token: NewToken, key: bytes) -> None:
    world.call("access_put", KEYS.access(), id, token.packed(key, 1, None), 100_000, "", b"s" * 32)


def _rules(kind: str) -> list[str]:
    return [f"{kind}:{'a*' * 60}{number:02}" for number in range(64)]


@case("new_token: with 128 rules")
def _(world: World) -> Callable[[], object]:
    _admitted(world)

    def ask() -> None:
        body = {"name": "t", "allow": _rules("*"), "deny": _rules("*")}
        made = json.loads(world.ask("POST", "/tokens", body))
        for number in range(10):
            narrow = tokens.narrow(made["token"], allow=_rules("read")[number : number + 20])
            world.ask("GET", "/login", None, Authorization=f"Bearer {narrow}")
            with contextlib.suppress(rig.Broken):
                world.ask("GET", "/stats/", None, Authorization=f"Bearer {narrow}")

    return ask


@case("tokens: 10,000, of which 1,000 have 128 rules")
def _(world: World) -> Callable[[], object]:
    _admitted(world)
    long = NewToken(
        name=f"{next(_names):t<100}", allow=_rules("push"), deny=_rules("read"), sources=["10.0.0.0/8"] * 16
    )
    for number in range(9_990):
        _put_token(
            world,
            f"t{number}",  # the same in each round, as there may be no more
            long if number % 10 == 0 else NewToken(name=long.name[:9], allow=["*:*"]),
            b"k" * 32,
        )

    def ask() -> None:
        time.sleep(3)
        world.ask("GET", "/tokens?limit=500")
        made = json.loads(world.ask("POST", "/tokens", {"name": "t", "allow": ["push:*"]}))
        world.ask("DELETE", f"/tokens/{made['id']}")
        time.sleep(3)

    return ask


@case("audit: full, of long notes")
def _(world: World) -> Callable[[], object]:
    _admitted(world)
    note = json.dumps(
        {
            "kind": "act",
            "outcome": "done",
            "verb": "purge",
            "about": "q" * 200,
            "token": "t" * 10,
            "name": "n" * 128,
            "from": "2001:db8::1",
        }
    )
    for _ in range(100):
        for kind in ("", "1"):
            world.call("access_note", KEYS.access(), 10_000, *([kind, note] * 100))

    def ask() -> None:
        world.ask("GET", "/audit?limit=500")
        world.ask("DELETE", f"/q/{next(_names)}")

    return ask


@case("namespaces: 10,000, of which 1,000 are used; delete one of 1,000 queues")
def _(world: World) -> Callable[[], object]:
    _admitted(world)
    access = KEYS.access()
    for number in range(9_000):
        one = NamespaceRecord.new(f"{'n' * 50}{number}", Quotas(jobs=1000), 1, None)
        world.call("namespace_put", access, one.name, one.packed, 100_000, "")
        if number < 1000:
            world.call("namespace_use", access, one.name)
    made = f"made-{next(_names)}"
    world.ask("POST", "/namespaces", {"namespace": made})
    for first in range(0, 1000, 100):
        commands = [{"cmd": "push", "queue": f"q{first + n}", "job": "x" * 1000} for n in range(100)]
        world.ask("POST", "/queue", commands, **{"Presque-Namespace": made})

    def ask() -> None:
        time.sleep(3)
        world.ask("GET", "/namespaces?limit=500")
        world.ask("GET", f"/namespaces/{made}")
        world.ask("PATCH", f"/namespaces/{made}", {"quotas": {"jobs": 5000}})
        world.ask("DELETE", f"/namespaces/{made}")
        time.sleep(8)

    return ask


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    found: dict[str, tuple[float, str, float]] = {}
    chosen = [name for name in CASES if any(word in name for word in ONLY)]
    told = bench.directory / "longest"
    here = str(Path(__file__).parent)
    change = f"import sys; sys.path.insert(0, {here!r}); import turns; turns.install({str(told)!r})"
    bench.directory.mkdir(parents=True, exist_ok=True)
    longest = turns.Longest(told)
    with rig.presque(bench.directory / "presque", change=change) as server:  # noqa: SIM117
        with rig.store(rig.listening_socket(rig.store_of(server))) as store:
            world = World(server, store)
            for name in chosen:
                rounds = [once(world, longest, CASES[name]) for _ in range(bench.rounds)]
                in_store, function = min((one[:2] for one in rounds), default=(0.0, ""))
                found[name] = (in_store, function, min(one[2] for one in rounds))
                print(f"{found[name][0]:9.1f} {found[name][2]:9.1f}  {name}  {found[name][1]}", flush=True)
    verdicts = []
    for name, (in_store, function, turn) in found.items():
        verdicts.append(
            rig.at_most(f"{name}: in the store{function and ', ' + function}", in_store, OWED_MS, "ms")
        )
        verdicts.append(rig.at_most(f"{name}: in the event loop", turn, OWED_MS, "ms"))
    return verdicts


def once(world: World, longest: turns.Longest, prepare: Case) -> tuple[float, str, float]:
    """One round: the longest command in the store, which it was, and the longest turn of the event loop."""
    do = prepare(world)
    time.sleep(0.3)
    world.store("FCALL", turns.TOLD, 0)
    longest.ms = 0.0
    do()
    name, microseconds = world.store("FCALL", turns.TOLD, 0)
    return microseconds / 1000, name.decode(), longest.ms


ONLY = os.environ.get("ONLY", "").split(",")  # words of the cases to measure

SCRIPT = rig.Script(measure, __doc__, rounds=2, seconds=1)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
