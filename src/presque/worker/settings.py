"""The settings of a worker: from its constructor, the environment or its class, in this order."""

from __future__ import annotations

import math
import os
import re
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypedDict

from presque import names
from presque.client.address import DEFAULT_URL, server, token_of
from presque.client.exchange import ANSWER_MOST
from presque.client.options import Duration
from presque.errors import InvalidName, PresqueError, nearest, shown
from presque.quantities import seconds, size, whole, yes_or_no
from presque.worker.job import LEASE_MOST

PREFETCH_MOST = 1000
INTERVAL_MOST = 60


class WrongSetting(PresqueError, ValueError):
    """A setting of a worker is missing or wrong."""

    code = "setup"


class NoWork(PresqueError, TypeError):
    """A class derives from `Worker` and has no `work`."""

    code = "setup"


@dataclass(frozen=True, slots=True)
class Option:
    """A setting: how a text is read, its default, and what it means."""

    kind: str
    default: Any
    help: str
    metavar: str = ""


# One row a setting. The constructor, the environment (PRESQUE_WORKER_…) and the command line take them all.
OPTIONS: dict[str, Option] = {
    "queues": Option("text", None, "Names and patterns in order of preference: critical,*,!low.", "QUEUES"),
    "concurrency": Option("count", None, "How many jobs at once: in threads, forks or tasks.", "N"),
    "fork": Option("switch", False, "A process for each job: it may crash, hang or leak."),
    "burst": Option("switch", False, "End when the queues are empty."),
    "fair": Option("switch", False, "Begin with a different queue each time, not always with the first."),
    "interval": Option("seconds", 20.0, "How long one request waits for a job, 60 s at most.", "20"),
    "lease": Option(
        "seconds",
        None,
        "How long a lease lasts before it must be renewed; the policy decides by default.",
        "60",
    ),
    "timeout": Option("seconds", None, "Stop and fail a job that takes longer.", "5m"),
    "max_answer": Option(
        "bytes", ANSWER_MOST, "The largest answer to accept from the server: the jobs of one lease.", "64MiB"
    ),
    "max_memory": Option("bytes", None, "Fail a job whose process uses more; needs --fork.", "512M"),
    "max_jobs": Option("count", None, "End after this many jobs, to be restarted.", "N"),
    "prefetch": Option(
        "whole", 1000, "How many quick jobs may be held ahead; one a process with --fork.", "N"
    ),
    "grace": Option("seconds", 5.0, "How long jobs may take to stop when the worker is asked to.", "5"),
    "term": Option(
        "term", "stop", "What TERM means: `stop` the jobs, or `finish` them first.", "stop|finish"
    ),
    "worker_id": Option("text", None, "The id of this worker; made of host and process by default.", "ID"),
    "traces": Option("switch", False, "Send traces with OpenTelemetry, as the OTEL_… variables say."),
    "pidfile": Option("text", None, "Write the process id to this file; also PIDFILE.", "FILE"),
}


class Options(TypedDict, total=False):
    """The same as arguments of the constructor, where a text is read as the command line reads it."""

    token: str | None
    concurrency: int | str | None
    fork: bool | str | None
    burst: bool | str | None
    fair: bool | str | None
    interval: Duration | None
    lease: Duration | None
    timeout: Duration | None
    max_answer: int | str | None
    max_memory: int | str | None
    max_jobs: int | str | None
    prefetch: int | str | None
    grace: Duration | None
    term: Literal["stop", "finish"] | None
    worker_id: str | None
    traces: bool | str | None
    pidfile: str | None


@dataclass(frozen=True, slots=True)
class Settings:
    """A worker's settings, checked. Times are seconds, memory is bytes."""

    base_uri: str
    token: str | None = field(repr=False)
    queues: str
    concurrency: int | None
    fork: bool
    burst: bool
    fair: bool
    interval: float
    lease: float | None
    timeout: float | None
    max_answer: int
    max_memory: int | None
    max_jobs: int | None
    prefetch: int
    grace: float
    term: str
    worker_id: str
    traces: bool
    pidfile: str | None


def read(
    given: Mapping[str, Any], of_class: Mapping[str, Any], environ: Mapping[str, str] = os.environ
) -> Settings:
    """The settings of a worker. Raises `WrongSetting` with a sentence."""
    _check_names(environ)
    found: dict[str, Any] = {
        "base_uri": _first(
            given.get("base_uri"), environ.get("PRESQUE_URL"), of_class.get("base_uri"), DEFAULT_URL
        ),
        "token": _first(given.get("token"), environ.get("PRESQUE_TOKEN"), of_class.get("token")),
    }
    for name, option in OPTIONS.items():
        value = _first(given.get(name), _of_environ(name, environ), of_class.get(name), option.default)
        found[name] = value if value is None else _KINDS[option.kind](name, value)
    if not found["queues"]:
        raise WrongSetting('the worker has no queue: give `queue` or `queues`, such as "critical,*"')
    found["worker_id"] = found["worker_id"] or _own_id()
    try:
        server(found["base_uri"])
        if found["token"] is not None:
            token_of(found["token"])
        names.queue_list(found["queues"])
        names.worker(found["worker_id"])
    except (ValueError, InvalidName) as error:
        raise WrongSetting(str(error)) from None
    _check_bounds(found)
    return Settings(**{one.name: found[one.name] for one in fields(Settings)})


def known(name: str) -> str:
    """Finish the sentence about a setting that does not exist."""
    return nearest(name, ["base_uri", "token", "queue", *OPTIONS])


def _own_id() -> str:
    """Host and process are not enough: in containers of one host all workers may be process 1."""
    return f"{socket.gethostname()[:64]}:{os.getpid()}:{secrets.token_hex(4)}"


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _of_environ(name: str, environ: Mapping[str, str]) -> str | None:
    found = environ.get(f"PRESQUE_WORKER_{name.upper()}") or None
    if found is None and name == "pidfile":  # as resque calls it
        found = environ.get("PIDFILE") or None
    return found


# Kubernetes tells every container about the Services around it. One may be called `presque-worker`.
_service_link = re.compile(r"_(?:SERVICE_HOST|SERVICE_PORT|PORT)(?:_|\Z)").search


def _check_names(environ: Mapping[str, str]) -> None:
    known = [f"PRESQUE_WORKER_{name.upper()}" for name in OPTIONS]
    for name in environ:
        if name.startswith("PRESQUE_WORKER_") and name not in known and not _service_link(name):
            text = f"unknown setting `{shown(name)}` in the environment, {nearest(name, known)}"
            raise WrongSetting(text)


def _check_bounds(found: Mapping[str, Any]) -> None:
    bounds = {
        "interval": (0.1, INTERVAL_MOST),
        "lease": (1, LEASE_MOST),
        "timeout": (0.001, 365 * 86_400),
        "concurrency": (1, 10_000),
        "max_jobs": (1, math.inf),
        "prefetch": (0, PREFETCH_MOST),
        "grace": (0, 86_400),
        "max_answer": (1 << 20, math.inf),
        "max_memory": (1 << 20, math.inf),
    }
    for name, (least, most) in bounds.items():
        value = found[name]
        if value is not None and not least <= value <= most:
            bounds_said = f"at least {least:.15g}" if most == math.inf else f"{least:.15g} to {most:.15g}"
            raise WrongSetting(f"`{name}` should be {bounds_said}, not {value:.15g}")
    if found["max_memory"] is not None and not found["fork"]:
        raise WrongSetting("`max_memory` is for the process of a job: it needs `fork`")


def _read(reader: Callable[[object], Any]) -> Callable[[str, Any], Any]:
    """A reader of quantities.py whose `ValueError` becomes a whole sentence about a setting."""

    def read(name: str, value: Any) -> Any:
        try:
            return reader(value)
        except ValueError as error:
            raise WrongSetting(f"`{name}` {error}") from None

    return read


def _switch(value: object) -> bool:
    return yes_or_no(str(value) if type(value) is int else value)


def _term(name: str, value: Any) -> str:
    if value not in ("stop", "finish"):
        raise WrongSetting(f"`{name}` should be stop or finish, not `{value}`")
    return str(value)


_KINDS = {
    "term": _term,
    "text": lambda _, value: str(value),
    "seconds": _read(seconds),
    "bytes": _read(size),
    "count": _read(whole),
    "whole": _read(whole),
    "switch": _read(_switch),
}
