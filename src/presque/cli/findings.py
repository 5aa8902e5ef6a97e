"""What doctor finds about the store and its disk: one function a question."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from presque.config.settings import Settings, TlsSettings, data_directory
from presque.engine import library
from presque.errors import SetupError
from presque.http import certificates
from presque.http.gate import LOOPBACK
from presque.server.about import size_of
from presque.store import backup, data_files
from presque.store.address import Address
from presque.store.directory import check_owner, free_bytes
from presque.store.facts import Facts, look

SKEW_S = 1.0
RENEWAL = timedelta(days=7)
NEARLY_FULL = 0.8


@dataclass(frozen=True, slots=True)
class Finding:
    """One row: what was looked at, how it is, what was seen, and what to do if it is not ok."""

    check: str
    result: Literal["ok", "warn", "fail"]
    seen: str
    todo: str = ""


HUNG = "; if that goes on, end its process: a store of presque's own is started again by itself"


def store(address: Address) -> Iterator[Finding]:
    """A store answers, lets us in, and is set up to lose no job."""
    try:
        facts = look(address)
    except SetupError as error:
        todo = f"{error}{HUNG}" if "does not answer" in str(error) else str(error)
        yield Finding("store", "fail", f"{address}: not usable", todo)
        return
    yield version(facts, address)
    yield eviction(facts)
    yield persistence(facts)
    yield memory(facts)
    yield clock(facts)


def version(facts: Facts, address: Address) -> Finding:
    """It is recent enough, a primary, and has read its data."""
    seen = f"{facts.product} at {address}"
    first = facts.info.get("redis_version", "0").split(".")[0]
    if "valkey_version" not in facts.info and (not first.isdigit() or int(first) < 7):
        return Finding("store", "fail", seen, "presque needs Redis 7.0 or later, or Valkey")
    if facts.info.get("role") == "slave":
        return Finding("store", "fail", f"{seen}, a replica", "name its primary")
    if facts.info.get("loading") == "1":
        return Finding("store", "warn", f"{seen}, still reading its data", "wait; presque waits, too")
    return Finding("store", "ok", seen)


def eviction(facts: Facts) -> Finding:
    """It throws no jobs away."""
    policy = facts.info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        return Finding(
            "eviction",
            "fail",
            policy,
            "it throws jobs away when memory is short: set it to noeviction",
        )
    return Finding("eviction", "ok", policy)


def persistence(facts: Facts) -> Finding:
    """It writes to its disk, and its last writes went well."""
    if facts.info.get("aof_enabled") != "1":
        return Finding(
            "persistence", "warn", "no log of writes (appendonly no)",
            "a restart of the store loses jobs: set appendonly yes, unless you can lose them",
        )  # fmt: skip
    seen = f"appendonly yes, appendfsync {facts.fsync or 'unknown (CONFIG is not allowed)'}"
    if facts.info.get("aof_last_write_status", "ok") != "ok":
        return Finding("persistence", "fail", f"{seen}; its last write failed", "is its disk full?")
    if facts.info.get("aof_last_bgrewrite_status", "ok") != "ok":
        return Finding(
            "persistence", "warn", f"{seen}; it could not rewrite its log",
            "see its own log: memory or disk may be short",
        )  # fmt: skip
    if facts.fsync == "no":
        return Finding("persistence", "warn", seen, "a power cut loses half a minute: set appendfsync always")
    return Finding("persistence", "ok", seen)


def memory(facts: Facts) -> Finding:
    """There is room for jobs."""
    used, most = facts.number("used_memory"), facts.number("maxmemory")
    there = facts.number("total_system_memory")
    if most:
        seen = f"{size_of(used)} of maxmemory {size_of(most)}"
        if used >= most:
            return Finding("memory", "fail", seen, "pushes are refused: fetch or purge, or raise maxmemory")
        if used > most * NEARLY_FULL:
            return Finding(
                "memory", "warn", seen, "at the limit pushes are refused: fetch, or raise maxmemory"
            )
        return Finding("memory", "ok", seen)
    seen = f"{size_of(used)}, no maxmemory" + (f", the machine has {size_of(there)}" if there else "")
    if there and used > there * NEARLY_FULL:
        return Finding("memory", "fail", seen, "the kernel may kill the store: set maxmemory")
    return Finding("memory", "ok", seen)


def clock(facts: Facts) -> Finding:
    """The store's clock, which decides when jobs are due, is that of this machine."""
    seen = f"{abs(facts.skew_s):.1f} s {'ahead of' if facts.skew_s > 0 else 'behind'} this machine"
    if abs(facts.skew_s) < SKEW_S:
        return Finding("clock", "ok", "as this machine's")
    return Finding(
        "clock",
        "warn",
        f"the store's is {seen}",
        "jobs are due by the store's clock: let both use NTP",
    )


def certificate(settings: TlsSettings, hosts: Sequence[str]) -> Finding:
    """The certificate can be shown, clients will take it for a while, and nobody else has its key."""
    try:
        facts = certificates.facts_of(settings)
    except SetupError as error:
        return Finding("certificate", "fail", str(settings.cert), str(error))
    if facts.until is None:
        return Finding("certificate", "fail", f"{settings.cert}, not valid now", "renew it")
    seen = f"for {', '.join(facts.names) or 'no name'}, until {facts.until:%Y-%m-%d}"
    if certificates.others_may_read(settings):
        key = settings.key or settings.cert
        return Finding("certificate", "warn", seen, f"every user here may read the key: chmod o-r {key}")
    unknown = [name for name in facts.names if name.lower() not in (*hosts, *LOOPBACK) and "*" not in name]
    if unknown:
        todo = f"presque does not answer to the host {unknown[0]}: add it with --allow-host"
        return Finding("certificate", "warn", seen, todo)
    if facts.until - datetime.now(UTC) < RENEWAL:
        return Finding("certificate", "warn", seen, "renew it; presque reads the new one by itself")
    return Finding("certificate", "ok", seen)


def data(settings: Settings) -> Iterator[Finding]:
    """The data directory can be written, or made, its data is whole, there is room. Nothing is changed."""
    try:
        directory = data_directory(settings)
    except SetupError as error:
        yield Finding("data", "fail", "nowhere", str(error))
        return
    if directory is None:
        yield Finding("data", "warn", "in memory only", "jobs are gone when the server stops")
        return
    there = next(path for path in (directory, *directory.parents) if path.exists())
    seen = str(directory) if there == directory else f"{directory} (will be made)"
    if not there.is_dir():
        yield Finding("data", "fail", seen, f"{there} is not a directory")
        return
    if not os.access(there, os.W_OK | os.X_OK):
        yield Finding("data", "fail", seen, f"this user may not write in {there}; choose another with --data")
        return
    running = None
    try:
        if there == directory:
            check_owner(directory)
            running = backup.running_at(directory)
            data_files.check(directory, library.LAYOUT)
    except SetupError as error:
        yield Finding("data", "fail", seen, str(error))
    else:
        yield Finding("data", "ok", seen)
    yield disk(there, settings.min_free_disk)
    yield from overcommit(there)
    if running is not None and running.exists():
        yield from store(Address(unix=str(running)))


def disk(there: Path, least: int) -> Finding:
    """There is more room on the disk than the limit below which pushes are refused."""
    try:
        free = free_bytes(there)
    except OSError as error:
        return Finding("disk", "fail", str(there), f"it cannot be read: {error.strerror}")
    limit = f"min_free_disk is {size_of(least)}" if least else "there is no min_free_disk"
    seen = f"{size_of(free)} free where the data is, {limit}"
    if least and free < least:
        return Finding("disk", "fail", seen, "pushes are refused: make room, or fetch or purge jobs")
    if free < 2 * least:
        return Finding("disk", "warn", seen, "pushes are refused below the limit: make room")
    return Finding("disk", "ok", seen)


def overcommit(there: Path) -> Iterator[Finding]:
    """The kernel lets the store copy itself, which it does to rewrite its log and for a backup."""
    if sys.platform != "linux":
        return
    try:
        setting = Path("/proc/sys/vm/overcommit_memory").read_text().strip()
        facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        available = int(facts["MemAvailable"].split()[0]) * 1024
        size = sum(data_files.sizes(there).values())
    except (OSError, KeyError, ValueError):
        return
    seen = f"vm.overcommit_memory is {setting}"
    if setting == "2" or (setting == "0" and size > available):
        yield Finding(
            "overcommit",
            "warn",
            seen,
            "the store may not be able to copy itself: sysctl vm.overcommit_memory=1",
        )
    else:
        yield Finding("overcommit", "ok", seen)
