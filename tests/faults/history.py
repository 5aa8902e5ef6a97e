"""Holds what workers wrote down against what leases promise: no job lost, none held twice, none done twice.

The idea is that of Jepsen's checkers: let clients keep a history while things break, and look afterwards for
anything in it that no correct queue could have answered.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.faults.worker import SECONDS

TOLERANCE_S = 0.005
"""Moments are cut to milliseconds, here and there."""


@dataclass
class Lease:
    """One lease of one job, as its holder saw it. `until` is the latest end it may have had."""

    token: str
    until: float
    settled_from: float | None = None  # when a settle that would end it was sent at the earliest
    acked: bool = False
    ends: list[float] = field(default_factory=list)

    @property
    def number(self) -> int:
        return int(self.token.partition("-")[0])

    @property
    def began(self) -> float:
        return self.ends[0] - SECONDS


def read(logs: Iterable[Path]) -> dict[int, list[Lease]]:
    """The leases of each job, in the order in which they were given."""
    found: dict[int, dict[str, Lease]] = defaultdict(dict)
    for log in logs:
        whole, _, _ = log.read_bytes().rpartition(b"\n")  # the last line may be half written
        for line in whole.splitlines():
            event = json.loads(line)
            _note(found[event["job"]], event)
    return {job: sorted(leases.values(), key=lambda one: one.number) for job, leases in found.items()}


def _note(leases: dict[str, Lease], event: dict[str, Any]) -> None:
    token = event["token"]
    if event["what"] == "leased":
        until = datetime.fromisoformat(event["until"]).timestamp()
        leases[token] = Lease(token, until, ends=[until])
    elif event["what"] == "settling" and event["verb"] != "extend":
        leases[token].settled_from = event["at"]
    elif event["what"] == "settled" and event["status"] == 200:
        if event["verb"] == "ack":
            leases[token].acked = True
        elif event["verb"] == "extend":
            until = datetime.fromisoformat(event["until"]).timestamp()
            leases[token].until = max(leases[token].until, until)


def problems(pushed: Iterable[int], history: dict[int, list[Lease]]) -> list[str]:
    """What no correct queue could have answered."""
    found = []
    for job in pushed:
        leases = history.get(job, [])
        if not any(lease.acked or lease.settled_from for lease in leases):
            found.append(f"job {job} is lost: nobody ever settled it")
        if sum(lease.acked for lease in leases) > 1:
            found.append(f"job {job} is done twice")
        for one, other in itertools.pairwise(leases):
            over = one.until if one.settled_from is None else min(one.until, one.settled_from)
            if other.began < over - TOLERANCE_S:
                early = over - other.began
                found.append(f"job {job} is held twice: lease {other.token} began {early:.3f} s early")
    return found
