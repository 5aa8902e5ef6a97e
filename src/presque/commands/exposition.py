"""Figures as Prometheus and OpenMetrics write them, by prometheus-client. No I/O.

That library is imported at the first request: it takes as long as the rest of presque, and most servers are
never asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from presque.engine.history import DEPTH, Happened
from presque.periods import TIME_MOST

if TYPE_CHECKING:
    from prometheus_client.core import Metric

COUNTED = {
    "pushed": "Jobs stored",
    "fetched": "Jobs fetched",
    "done": "Leased jobs that were acked",
    "failed": "Jobs put back, and leases that failed or ran out",
    "died": "Jobs that died: they will not be retried",
    "expired": "Jobs whose ttl ran out",
}
TIMED = {
    "wait": ("w", "waited_ms", "How long jobs waited until they were handed out for the first time"),
    "run": ("r", "ran_ms", "How long jobs were leased until they were acked or failed"),
}
EVERY_CLASS = 2
"""Of the classes of waits and runs every second one is reported: a bound is four times the one before."""


class OfDisk(msgspec.Struct, frozen=True):
    """The disk that holds the data. `free` is None if nobody could tell."""

    free: int | None
    min_free: int
    full: bool
    fsync_seconds: float | None


class OfStore(msgspec.Struct, frozen=True):
    """The store. `memory_limit` is 0 for none."""

    round_trip: float
    memory: int
    memory_limit: int
    delayed_fsyncs: int
    writes_fail: bool


class OfQueue(msgspec.Struct, frozen=True):
    """A queue: what happened since it was made or purged, with its depth, and since when its oldest ready job
    waits (ms, 0 for none)."""

    happened: Happened
    oldest: int


class Figures(msgspec.Struct):
    """All figures. What belongs to the store is left out while that is away: `store` is None."""

    version: str
    processes: Mapping[int, Mapping[str, Any]]
    disk: OfDisk | None = None
    store: OfStore | None = None
    now: int = 0
    queues: int = 0
    workers: int = 0
    total: Happened = msgspec.field(default_factory=Happened)
    by_queue: dict[str, OfQueue] = msgspec.field(default_factory=dict)
    oldest_of_others: int = 0
    """Since when the oldest ready job waits, over all queues without figures of their own."""

    def age(self, since: int) -> float:
        """How long ago that was, in seconds; 0 for never."""
        return max(0, self.now - since) / 1000 if since else 0.0


def text(figures: Figures, accept: str) -> tuple[bytes, str]:
    """The figures in the format that an `Accept` header asks for, and its media type."""
    from prometheus_client.exposition import choose_encoder

    encode, kind = choose_encoder(accept)
    registry: Any = _Told(figures)  # of a registry it only asks for `collect`
    return encode(registry), kind


class _Told:
    """What prometheus-client asks for the figures."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """Each family of figures once."""
        yield from _of_processes(self._figures)
        yield from _of_the_disk(self._figures)
        if self._figures.store is not None:
            yield from _of_the_store(self._figures, self._figures.store)
            yield from _of_jobs(self._figures)


def _of_processes(figures: Figures) -> Iterator[Metric]:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    info = GaugeMetricFamily("presque_info", "1, with the version of presque", labels=("version",))
    info.add_metric((figures.version,), 1)
    yield info
    requests = CounterMetricFamily(
        "presque_requests", "Requests answered over HTTP", labels=("verb", "status", "process")
    )
    seconds = HistogramMetricFamily(
        "presque_request_seconds",
        "From the complete arrival of a request to its answer, intended waits included",
        labels=("verb", "process"),
    )
    asked = CounterMetricFamily(
        "presque_verbs", "What was asked for, through any door", labels=("verb", "process")
    )
    for number, of in figures.processes.items():
        process = str(number)
        for verb, tally in of["tallies"].items():
            for status, count in tally["statuses"].items():
                requests.add_metric((verb, status, process), count)
            buckets = _added_up([(2**n / 2048, count) for n, count in enumerate(tally["times"])])
            seconds.add_metric((verb, process), buckets, tally["seconds"])
        for verb, count in of["verbs"].items():
            asked.add_metric((verb, process), count)
    yield from (requests, seconds, asked)
    gauges: tuple[tuple[str, str, str], ...] = (
        ("presque_connections", "connections", "Open connections, without WebSockets"),
        ("presque_websockets", "websockets", "Open WebSockets"),
        ("presque_requests_under_way", "under_way", "Requests that are not answered yet"),
        ("presque_store_connected", "store_connected", "1 while the store can be called"),
        ("process_resident_memory_bytes", "memory", "Memory of the process"),
        ("process_open_fds", "files", "Open files and connections"),
        ("process_max_fds", "files_most", "How many may be open"),
        ("process_start_time_seconds", "started_at", "When the process started, since the epoch"),
    )
    for name, key, means in gauges:
        gauge = GaugeMetricFamily(name, means, labels=("process",))
        for number, of in figures.processes.items():
            if of[key] is not None:
                gauge.add_metric((str(number),), of[key])
        yield gauge
    cpu = CounterMetricFamily("process_cpu_seconds", "CPU time, user and system", labels=("process",))
    for number, of in figures.processes.items():
        cpu.add_metric((str(number),), of["cpu_seconds"])
    yield cpu


def _of_the_disk(figures: Figures) -> Iterator[Metric]:
    disk = figures.disk
    if disk is None:
        return
    if disk.free is not None:
        yield _gauge("presque_disk_free_bytes", "Free bytes on the disk that holds the data", disk.free)
    yield _gauge(
        "presque_disk_min_free_bytes", "Pushes are refused below this many free bytes", disk.min_free
    )
    yield _gauge("presque_disk_full", "1 while pushes are refused because the disk is nearly full", disk.full)
    if disk.fsync_seconds is not None:
        yield _gauge(
            "presque_disk_fsync_seconds",
            "How long an fsync of a small file took just now",
            disk.fsync_seconds,
        )


def _of_the_store(figures: Figures, store: OfStore) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    yield _gauge("presque_store_round_trip_seconds", "How long the store took to answer", store.round_trip)
    yield _gauge("presque_store_memory_bytes", "Memory that the store uses", store.memory)
    yield _gauge(
        "presque_store_memory_limit_bytes", "How much it may use; 0 for no limit", store.memory_limit
    )
    yield _gauge("presque_store_writes_fail", "1 if its last write to its log failed", store.writes_fail)
    yield CounterMetricFamily(
        "presque_store_delayed_fsyncs", "Writes that had to wait for an fsync", value=store.delayed_fsyncs
    )
    yield _gauge("presque_queues", "How many queues there are", figures.queues)
    yield _gauge("presque_workers", "Workers heard from in the last minute", figures.workers)


def _of_jobs(figures: Figures) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    jobs = GaugeMetricFamily(
        "presque_jobs",
        'Jobs by state; those of all queues without figures of their own have queue=""',
        labels=("queue", "state"),
    )
    oldest = GaugeMetricFamily(
        "presque_oldest_ready_seconds",
        "How long the oldest ready job has waited; 0 if there is none",
        labels=("queue",),
    )
    others = list(figures.total.depth)
    for queue, of in figures.by_queue.items():
        for place, state in enumerate(DEPTH):
            jobs.add_metric((queue, state), of.happened.depth[place])
            others[place] -= of.happened.depth[place]
        oldest.add_metric((queue,), figures.age(of.oldest))
    if figures.queues > len(figures.by_queue):
        for place, state in enumerate(DEPTH):
            jobs.add_metric(("", state), max(0, others[place]))
        oldest.add_metric(("",), figures.age(figures.oldest_of_others))
    yield from (jobs, oldest)
    for counter, means in COUNTED.items():
        yield CounterMetricFamily(
            f"presque_{counter}", f"{means}, in all queues", value=figures.total.count(counter)
        )
        by_queue = CounterMetricFamily(f"presque_queue_{counter}", f"{means}", labels=("queue",))
        for queue, of in figures.by_queue.items():
            by_queue.add_metric((queue,), of.happened.count(counter))
        yield by_queue
    for name, timed in TIMED.items():
        yield from _histograms(figures, name, *timed)


def _histograms(figures: Figures, name: str, letter: str, of_sum: str, means: str) -> Iterator[Metric]:
    from prometheus_client.core import HistogramMetricFamily

    together = HistogramMetricFamily(f"presque_{name}_seconds", f"{means}, in all queues", labels=())
    together.add_metric((), *_times(figures.total, letter, of_sum))
    yield together
    by_queue = HistogramMetricFamily(f"presque_queue_{name}_seconds", means, labels=("queue",))
    for queue, of in figures.by_queue.items():
        by_queue.add_metric((queue,), *_times(of.happened, letter, of_sum))
    yield by_queue


def _times(happened: Happened, letter: str, of_sum: str) -> tuple[list[tuple[str, int]], float]:
    """The waits or the runs as a histogram: its bounds in seconds with how many are below, and the sum."""
    found = happened.histogram(letter)
    each = [found.get(n, 0) for n in range(TIME_MOST + 1)]
    classes = [
        (2**n / 1000, sum(each[max(0, n - EVERY_CLASS + 1) : n + 1]))
        for n in range(0, TIME_MOST, EVERY_CLASS)
    ]
    buckets = _added_up([*classes, (0.0, found.get(TIME_MOST, 0))])
    return buckets, happened.count(of_sum) / 1000


def _added_up(classes: list[tuple[float, int]]) -> list[tuple[str, int]]:
    """How many are below each bound; the last class has none."""
    buckets, below = [], 0
    for bound, count in classes[:-1]:
        below += count
        buckets.append((repr(bound), below))
    return [*buckets, ("+Inf", below + classes[-1][1])]


def _gauge(name: str, means: str, value: float) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(name, means, value=value)
