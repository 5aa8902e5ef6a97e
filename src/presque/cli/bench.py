"""bench: how quick a server is for the clients of this process, on a queue of its own."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import click

from presque.cli.columns import terminal_width
from presque.cli.connection import connected, failure, server_options
from presque.cli.fields import json_option, option_for
from presque.cli.terminal import Counter, print_json, table
from presque.client import Client, ClientError
from presque.exits import INTERRUPTED, Failure
from presque.fields import duration, whole
from presque.quantities import counted

BATCH = 500
LEASE_S = 60
ENDING_S = 5
BAR = 30
WIDE = 60
BUSY = 0.8
"""From this share of a core on the clients are what is measured."""

Act = Callable[[Client], bool]
"""One thing that is measured; false when there is nothing left to do."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one verb took: the nanoseconds of each request, sorted, and the seconds of all together."""

    verb: str
    took: Sequence[int]
    seconds: float
    cpu: float
    """The share of a core that the clients used."""

    def at(self, share: float) -> float:
        """The milliseconds within which this share of them was answered."""
        return self.took[math.ceil(share * len(self.took)) - 1] / 1e6 if self.took else 0

    @property
    def rate(self) -> float:
        """How many a second."""
        return len(self.took) / self.seconds if self.seconds else 0


@click.command(short_help="Measure how fast a server is.")
@option_for(whole("jobs", "At most this many jobs for each verb.", 1, 1_000_000, default=10_000))
@option_for(duration("seconds", "At most this long for each verb.", 0.1, 600, default=5))
@option_for(whole("clients", "This many clients at once, each with its own connection.", 1, 64, default=4))
@option_for(whole("size", "The size of a job.", 2, 1_000_000, default=100), "BYTES")
@json_option("Print an object.")
@server_options
def bench(
    jobs: int, seconds: float, clients: int, size: int, as_json: bool, url: str, token: str | None
) -> None:
    """Measure how fast a server is: push, fetch, and lease with ack, one job a request.

    It works on a queue of its own, `bench-…`, and forgets that queue afterwards. Other queues are not
    touched, but other users of the server will notice. The clients are threads of this process, which share
    one core: if they use most of it, the server may be capable of more than is shown.
    """
    queue = f"bench-{secrets.token_hex(6)}"
    body = json.dumps("x" * (size - 2))
    with connected(url, token) as client:
        about = client.all_stats(queue)
        try:
            found = list(_measured(client, queue, body, jobs, seconds, clients))
        except KeyboardInterrupt:
            raise Failure(f"stopped; {_forget(client, queue)}", INTERRUPTED) from None
        except ClientError as error:
            raise failure(error, f"; {_forget(client, queue)}") from None
        except BaseException:
            _forget(client, queue)
            raise
        said = _forget(client, queue)
    if as_json:
        plain = {
            "url": url, "version": about["version"],
            "store": about["redis"], "durability": about["durability"],
            "clients": clients, "size": size, "measured": [_plain(one) for one in found],
        }  # fmt: skip
        print_json(plain)
        return
    click.echo(f"presque {about['version']} at {url}; store: {about['redis']}")
    click.echo(about["durability"])
    click.echo(
        f"{counted(clients, 'client')}, jobs of {size} bytes, one a request; for each verb at most "
        f"{counted(jobs, 'job')} or {seconds:g} s\n"
    )
    click.echo(_written(found))
    click.echo(said)


def _measured(
    client: Client, queue: str, body: str, jobs: int, seconds: float, clients: int
) -> Iterator[Measured]:
    def push(own: Client) -> bool:
        own.push_text(queue, body)
        return True

    def fetch(own: Client) -> bool:
        return own.fetch(queue) is not None

    def lease(own: Client) -> bool:
        for job in own.lease(queue, seconds=LEASE_S):
            own.ack(job)
            return True
        return False

    pushed = _measure(client, "push", push, jobs, seconds, clients)
    yield pushed
    yield _measure(client, "fetch", fetch, len(pushed.took), seconds, clients)
    client.purge(queue)
    _fill(client, queue, body, len(pushed.took))
    yield _measure(client, "lease+ack", lease, len(pushed.took), seconds, clients)


def _fill(client: Client, queue: str, body: str, jobs: int) -> None:
    """Push as many again, which is not measured."""
    progress = Counter("put back for the next verb", of=jobs)
    for done in range(0, jobs, BATCH):
        client.push_texts(queue, [body] * min(BATCH, jobs - done))
        progress.show(done)
    progress.clear()


class _Run:
    """Clients in threads that do the same again and again, until it is enough or takes too long."""

    def __init__(self, act: Act, most: int, seconds: float) -> None:
        self.act, self.most = act, most
        self.took: list[int] = []
        self.error: BaseException | None = None
        self._next = itertools.count()
        self._until = time.monotonic() + seconds
        self._over = threading.Event()

    def work(self, client: Client) -> None:
        clock, own = time.perf_counter_ns, self.took
        try:
            while not self._over.is_set() and time.monotonic() < self._until and next(self._next) < self.most:
                began = clock()
                if not self.act(client):
                    return
                own.append(clock() - began)
        except BaseException as error:  # noqa: BLE001 (raised again in the caller)
            self.error = error
            self._over.set()

    def stop(self) -> None:
        self._over.set()


def _measure(client: Client, verb: str, act: Act, most: int, seconds: float, clients: int) -> Measured:
    """Do something up to this many times, for this long at most. Raises what a client raised."""
    run = _Run(act, most, seconds)
    progress = Counter(f"of {verb}", of=most)
    threads = [threading.Thread(target=run.work, args=(client,), daemon=True) for _ in range(clients)]
    began, cpu = time.monotonic(), time.process_time()
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)
                progress.show(len(run.took))
    finally:
        run.stop()
        progress.clear()
        for thread in threads:  # what is under way should not come after the queue is forgotten
            if thread.ident is not None:
                thread.join(ENDING_S)
    lasted = time.monotonic() - began
    used = (time.process_time() - cpu) / lasted if lasted else 0
    if run.error is not None:
        raise run.error
    return Measured(verb, sorted(run.took), lasted, used)


def _forget(client: Client, queue: str) -> str:
    """Take the queue away, and say so."""
    with contextlib.suppress(ClientError):
        client.purge(queue, forget=True)
        return f"the queue {queue} is forgotten"
    with contextlib.suppress(ClientError):
        if not client.queues(queue):
            return "nothing was pushed"
    return f"the queue {queue} is still there: presque queues forget {queue} --yes"


# --- how it is written


def _plain(one: Measured) -> dict[str, Any]:
    return {
        "verb": one.verb, "jobs": len(one.took),
        "seconds": round(one.seconds, 3), "per_second": round(one.rate, 1),
        "ms": {"p50": one.at(0.5), "p99": one.at(0.99), "p99.9": one.at(0.999), "most": one.at(1)},
        "histogram": [{"up_to_ms": up_to, "count": count} for up_to, count in histogram(one.took)],
        "clients_cpu": round(one.cpu, 2),
    }  # fmt: skip


def _written(found: Sequence[Measured]) -> str:
    header = ("", "jobs", "seconds", "a second", "p50 ms", "p99 ms", "p99.9 ms", "most ms")
    rows = [
        (
            one.verb, str(len(one.took)), f"{one.seconds:.2f}", f"{one.rate:.0f}",
            *(f"{one.at(share):.2f}" for share in (0.5, 0.99, 0.999, 1)),
        )
        for one in found
    ]  # fmt: skip
    parts = [table(header, rows, right=range(1, len(header)), first_to_go=(2, 7, 1, 6))]
    for one in found:
        counts = histogram(one.took)
        most = max((count for _, count in counts), default=1)
        bar = BAR if terminal_width() >= WIDE else BAR // 3
        lines = [
            (f"{up_to:g} ms", str(count), "#" * math.ceil(bar * count / most) if count else "")
            for up_to, count in counts
        ]
        parts.append(table((f"{one.verb} up to", "jobs", ""), lines, right=(0, 1), elastic=(2,)))
    busy = max((one.cpu for one in found), default=0)
    if busy > BUSY:
        parts.append(
            f"The clients used {busy:.0%} of a core, so the server may be capable of more than this."
        )
    return "\n\n".join(parts)


def histogram(took: Sequence[int]) -> list[tuple[float, int]]:
    """How many took up to this many milliseconds, but longer than the step before, which is half of it."""
    if not took:
        return []
    found: list[tuple[float, int]] = []
    step = 2.0 ** math.floor(math.log2(max(took[0], 1) / 1e6) + 1)
    begin = 0
    while begin < len(took):
        end = begin
        while end < len(took) and took[end] <= step * 1e6:
            end += 1
        found.append((float(f"{step:.3g}"), end - begin))
        begin, step = end, step * 2
    return found
