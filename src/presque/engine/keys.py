"""Every key in the store, built here. lua/head.lua says what each one holds."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from functools import lru_cache

import msgspec

PER_QUEUE = 7
REGISTRY, WORKERS, CRONS = ":queues", ":workers", ":cron"
ACCESS, TASKS, ALERTS = ":access", ":tasks", ":alerts"
"""Hash tags of what belongs to no queue; that of a queue is its name. All keys of one call share a tag."""
_PARTS = ("meta", "jobs", "ready", "due", "ttl", "uniq", "wake")


class Keys(msgspec.Struct, frozen=True):
    """The keys of one namespace. A namespace is a prefix: two of them in one store never meet."""

    namespace: str

    def of(self, queue: str) -> tuple[str, ...]:
        """The keys of one queue, all under its hash tag, in the order the functions expect."""
        return _of_queue(self.namespace, queue)

    def of_all(self, queues: Iterable[str]) -> tuple[str, ...]:
        """The keys of each of these queues, one queue after the other."""
        return tuple(itertools.chain.from_iterable(map(self.of, queues)))

    def registry(self) -> tuple[str, str, str]:
        """The set of all queue names, the channel that tells of new ones, and the number of the layout."""
        names = f"{self.namespace}:{{{REGISTRY}}}"
        return names, f"{names}:new", f"{names}:layout"

    def busy(self) -> str:
        """The names of queues in which there may be something to do."""
        return f"{self.namespace}:{{{REGISTRY}}}:busy"

    def stopped(self) -> str:
        """The names of queues that are stopped."""
        return f"{self.namespace}:{{{REGISTRY}}}:stopped"

    def usage(self) -> tuple[str, str, str]:
        """The keys that hold how much there is in a namespace that was made, and how much there may be."""
        names = f"{self.namespace}:{{{REGISTRY}}}"
        return names, f"{names}:used", f"{names}:used:open"

    def inside(self, name: str) -> Keys:
        """The keys of a namespace that was made in this one."""
        return Keys(f"{self.namespace}:{name}")

    def wake_any(self) -> str:
        """The channel that tells of jobs becoming ready in any queue, and of counts that change."""
        return f"{self.namespace}:{{{REGISTRY}}}:wake"

    def events_any(self) -> str:
        """The channel that tells what happens to the jobs of any queue."""
        return f"{self.namespace}:{{{REGISTRY}}}:events"

    def workers(self) -> tuple[str, ...]:
        """The keys that hold what is known of the workers."""
        prefix = f"{self.namespace}:{{{WORKERS}}}"
        parts = ("queues", "started", "processed", "failed", "seen", "report", "asked", "takers")
        return tuple(f"{prefix}:{part}" for part in parts)

    def crons(self) -> tuple[str, ...]:
        """The keys that hold the recurring jobs."""
        parts = ("jobs", "bodies", "due", "steady", "notes", "clock")
        return tuple(f"{self.namespace}:{{{CRONS}}}:{part}" for part in parts)

    def access(self) -> tuple[str, ...]:
        """The keys that hold the access tokens, the namespaces and the audit, and the channel that tells of
        changes."""
        parts = ("tokens", "meta", "acts", "new", "names", "active", "spent", "refused", "ended")
        return tuple(f"{self.namespace}:{{{ACCESS}}}:{part}" for part in parts)

    def tasks(self) -> tuple[str, ...]:
        """The keys that hold the bulk tasks."""
        parts = ("meta", "what", "how", "status", "due", "holder", "ended")
        return tuple(f"{self.namespace}:{{{TASKS}}}:{part}" for part in parts)

    def alerts(self) -> tuple[str, ...]:
        """The key that holds the alerts that people asked for."""
        return (f"{self.namespace}:{{{ALERTS}}}:wanted",)

    def wake(self, queue: str) -> str:
        """The channel that tells of jobs becoming ready in one queue."""
        return self.of(queue)[6]

    def ends(self, queue: str) -> str:
        """The channel that tells of jobs that are finished."""
        return self.of(queue)[0].removesuffix("meta") + "ends"

    def events(self, queue: str) -> str:
        """The channel that tells what happens to the jobs of a queue."""
        return f"{self.namespace}:{{{queue}}}:events"

    def recurred(self, queue: str) -> str:
        """How the jobs of recurring jobs ended in a queue."""
        return f"{self.namespace}:{{{queue}}}:recurred"

    def cast(self, queue: str) -> str:
        """The channel that jobs for every listener go out on."""
        return f"{self.namespace}:{{{queue}}}:cast"

    def turns(self, queue: str) -> str:
        """Whose turn it is among the listeners of a queue that deals its jobs in turn."""
        return f"{self.namespace}:{{{queue}}}:turns"


@lru_cache(maxsize=16384)
def _of_queue(namespace: str, queue: str) -> tuple[str, ...]:
    prefix = f"{namespace}:{{{queue}}}"
    return tuple(f"{prefix}:{part}" for part in _PARTS)
