"""The whole life of jobs, driven at random against a model of it that is too simple to be wrong.

The functions run in a real store, with a clock that the test turns. After each step everything that they
answered and all that `stats` and the keys say must be as the model has it. Which group's turn it is the model
does not know: there it checks that what was handed out was fair, and goes on from that.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from presque import codec
from presque.engine import library, records, replies
from presque.engine.engine import pack
from presque.engine.keys import Keys
from presque.job import PushOptions
from tests import rig

MIB = 1024 * 1024
START_MS = 1_900_000_000_000
HOUR_MS = 3_600_000
MINUTE_MS = 60_000
GROUPS = (None, None, "a", "b", "c")
DEFAULTS: dict[str, int] = {
    "lease": 60_000, "max_attempts": 3, "backoff_first": 1000, "backoff_factor": 2, "backoff_jitter": 0,
    "ttl": 0, "keep": 0, "dead_most": 10_000, "max_length": 0, "max_leased": 0, "group_leased": 0,
    "rate_count": 0, "rate_ms": 0,
}  # fmt: skip

LIMITS = {"max_leased", "group_leased", "max_length", "dead_most", "keep", "ttl", "rate_count"}


@dataclass
class Job:
    """A job as the model has it. `state` is waiting, leased, done or dead; a waiting one with `due` is not
    ready until then, nor before the moment on the wall that was `named`."""

    id: int
    priority: int
    group: str | None
    expires_at: int | None
    due: int | None
    attempts: int | None
    keep: int | None
    uniq: str | None
    until_done: bool
    state: str = "waiting"
    attempt: int = 0
    token: str = ""
    ends: int = 0
    ms: int = 0
    moment: int = 0
    cancel: bool = False
    leased_ever: bool = False
    named: int | None = None


@dataclass
class Model:
    """What a queue should be like."""

    now: int = START_MS
    seq: int = 0
    processed: int = 0
    failed: int = 0
    expired: int = 0
    stopped: bool = False
    tokens: int = 0
    clock: int = 0
    skew: int = 0
    rated: int = 0
    memo_at: int = 0
    died: bool = False
    back: list[Job] = field(default_factory=list)
    memo: dict[tuple[int, str], Any] = field(default_factory=dict)
    memo_old: dict[tuple[int, str], Any] = field(default_factory=dict)
    jobs: dict[int, Job] = field(default_factory=dict)
    lists: dict[tuple[int, str | None], list[int]] = field(default_factory=dict)
    uniq: dict[str, int] = field(default_factory=dict)
    notes: list[tuple[int, int]] = field(default_factory=list)
    policy: dict[str, int] = field(default_factory=lambda: dict(DEFAULTS))

    # --- clocks and counts ----------------------------------------------------------------------

    def logical(self) -> tuple[int, int]:
        """The steady clock and its skew as a function sees them, which may not be remembered."""
        wall = self.now + self.skew
        return (self.clock, self.skew + self.clock - wall) if wall < self.clock else (wall, self.skew)

    def keep_clock(self) -> None:
        self.clock, self.skew = self.logical()

    def in_state(self, state: str) -> list[Job]:
        return [job for job in self.jobs.values() if job.state == state]

    def is_late(self, job: Job) -> bool:
        return (
            job.state == "waiting"
            and not job.leased_ever
            and job.expires_at is not None
            and job.expires_at <= self.logical()[0]
        )

    def is_early(self, job: Job) -> bool:
        return not job.leased_ever and job.named is not None and job.named > self.now

    def first_moment(self) -> int | None:
        """When the first lease ends, or the first job that waits is due or dropped."""
        waiting = [job for job in self.in_state("waiting") if not job.leased_ever]
        moments = [
            *(job.ends for job in self.in_state("leased")),
            *(job.due for job in self.in_state("waiting")),
            *(job.expires_at for job in waiting),
        ]
        return min((at for at in moments if at is not None), default=None)

    def is_timed(self) -> bool:
        """Whether anything waits for its time, as the queue knows once time has done its work."""
        waiting = self.in_state("waiting")
        return any(
            job.due is not None or (job.expires_at is not None and not job.leased_ever) for job in waiting
        )

    def counts(self) -> dict[str, int]:
        waiting = [job for job in self.in_state("waiting") if not self.is_late(job)]
        scheduled = sum(job.due is not None and job.due > self.logical()[0] for job in waiting)
        return {
            "ready": len(waiting) - scheduled,
            "scheduled": scheduled,
            "leased": len(self.in_state("leased")),
            "done": len(self.in_state("done")),
            "dead": len(self.in_state("dead")),
            "processed": self.processed,
            "failed": self.failed,
            "expired": self.expired + sum(map(self.is_late, self.jobs.values())),
        }

    # --- how jobs move --------------------------------------------------------------------------

    def put(self, job: Job, *, head: bool = False) -> None:
        job.state, job.due = "waiting", None
        if head:
            self.back.append(job)
        else:
            self.line_of(job).append(job.id)

    def line_of(self, job: Job) -> list[int]:
        return self.lists.setdefault((job.priority, job.group), [])

    def put_back(self) -> None:
        """All that go back to a head in a call keep their order."""
        for job in reversed(self.back):
            self.line_of(job).insert(0, job.id)
        self.back.clear()

    def drop(self, job: Job) -> None:
        del self.jobs[job.id]
        self.free(job)
        for line in self.lists.values():
            if job.id in line:
                line.remove(job.id)

    def free(self, job: Job) -> None:
        if job.uniq is not None and self.uniq.get(job.uniq) == job.id:
            del self.uniq[job.uniq]

    def die(self, job: Job) -> None:
        job.state, job.moment = "dead", self.now
        self.free(job)
        self.died = True

    def trim(self) -> None:
        """When all that die in a call are dead, the oldest go if there are too many."""
        if not self.died:
            return
        self.died = False
        dead = sorted(self.in_state("dead"), key=lambda one: (one.moment, one.id))
        for one in dead[: max(0, len(dead) - self.policy["dead_most"])]:
            del self.jobs[one.id]

    def most_attempts(self, job: Job) -> int:
        return int(job.attempts or self.policy["max_attempts"])

    def pass_time(self) -> None:
        logical, _ = self.logical()
        for job in sorted(self.in_state("leased"), key=lambda one: (one.ends, one.id)):
            if job.ends > logical:
                continue
            self.failed += 1
            if job.cancel:
                self.drop(job)
            elif job.attempt >= self.most_attempts(job):
                self.die(job)
            else:
                job.token = ""
                self.put(job, head=True)
        self.put_back()
        self.trim()
        for job in self.in_state("done"):
            if job.moment <= self.now:
                del self.jobs[job.id]
        for job in list(self.jobs.values()):
            if self.is_late(job):
                self.expired += 1
                self.drop(job)
        logical, skew = self.logical()
        due = [job for job in self.in_state("waiting") if job.due is not None and job.due <= logical]
        for job in sorted(due, key=lambda one: (one.due or 0, one.id)):
            if self.is_early(job):
                job.due = (job.named or 0) + skew
            else:
                self.put(job)

    def rate_room(self, wanted: int) -> int:
        count, window = self.policy["rate_count"], self.policy["rate_ms"]
        if not count:
            return wanted
        logical, _ = self.logical()
        while self.notes and self.notes[0][0] + window < logical:
            self.rated -= self.notes.pop(0)[1]
        return max(0, min(wanted, count - self.rated))

    def note_rate(self, jobs: int) -> None:
        if not self.policy["rate_count"]:
            return
        self.keep_clock()
        if jobs:
            self.notes.append((self.clock, jobs))
        self.rated += jobs

    def may_hold(self, group: str | None) -> int:
        most = self.policy["group_leased"]
        if not most or group is None:
            return 10**9
        return max(0, most - sum(job.group == group for job in self.in_state("leased")))

    def check_taken(self, taken: list[int], wanted: int, *, leasing: bool) -> None:
        """Whether these are jobs that should be handed out now, in this order."""
        room = {group: self.may_hold(group) for group in set(GROUPS)}
        if not leasing:
            room = {group: 10**9 if most else 0 for group, most in room.items()}
        left = {key: list(line) for key, line in self.lists.items() if line}
        total: dict[str | None, int] = {}
        for (_, group), line in left.items():
            total[group] = total.get(group, 0) + len(line)
        possible = sum(min(count, room[group]) for group, count in total.items())
        assert len(taken) == min(wanted, possible), (taken, wanted, left, room)
        by_line: dict[tuple[int, str | None], int] = {}
        for job_id in taken:
            job = self.jobs[job_id]
            key = (job.priority, job.group)
            higher = [k for k, line in left.items() if line and k[0] > key[0] and room[k[1]] > 0]
            assert not higher, "a job of a higher priority waits"
            assert left[key].pop(0) == job_id, "not the first of its group"
            room[job.group] -= 1
            assert room[job.group] >= 0, "its group holds too many"
            by_line[key] = by_line.get(key, 0) + 1
        for key, count in by_line.items():
            for other, line in left.items():
                if other[0] == key[0] and line and room[other[1]] > 0:
                    assert count <= by_line.get(other, 0) + 1, "a group was served out of turn"

    def take(self, job_id: int) -> Job:
        job = self.jobs[job_id]
        self.lists[job.priority, job.group].remove(job_id)
        return job


class Life(RuleBasedStateMachine):
    """One queue, and everything that can be done to it."""

    client: ClassVar[redis.Redis]
    names = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.keys = Keys("life").of(f"q{next(self.names)}")
        self.model = Model()
        self.known: list[tuple[int, str]] = [(1, "1-nonce")]
        self.tell_time()

    def teardown(self) -> None:
        for key in self.client.scan_iter(f"{self.keys[0].removesuffix('meta')}*", count=10_000):
            self.client.delete(key)

    def call(self, name: str, *args: Any) -> Any:
        return self.client.fcall(f"life_{name}", len(self.keys), *self.keys, *args)

    def tell_time(self) -> None:
        self.client.set("life:now", self.model.now)

    # --- time -----------------------------------------------------------------------------------

    @rule(ms=st.sampled_from([1, 7, 400, 999, 1000, 1001, 5000, 61_000, 200_000]))
    def time_passes(self, ms: int) -> None:
        self.model.now += ms
        self.tell_time()
        if ms % 2:
            self.sweep()

    @precondition(lambda self: self.model.is_timed())
    @rule(hours=st.sampled_from([-1, -1, 1]), ms=st.sampled_from([1000, 5001]))
    def the_clock_is_set_while_something_waits_for_its_time(self, hours: int, ms: int) -> None:
        self.sweep()
        self.model.now += hours * HOUR_MS
        self.tell_time()
        self.sweep()
        self.model.now += ms
        self.tell_time()

    def sweep(self) -> None:
        model = self.model
        before, was = model.first_moment(), model.clock
        self.call("sweep")
        model.pass_time()
        if before is None:
            return
        logical, skew = model.logical()
        if int(self.client.hget(self.keys[0], "clock") or 0) == logical:
            model.keep_clock()
        else:
            assert skew == model.skew, "time went back, and nobody noted it"
            assert 20 * (logical - was) < before - logical, "the noted clock is too old"

    # --- in and out -----------------------------------------------------------------------------

    @rule(
        count=st.integers(1, 4),
        options=st.fixed_dictionaries(
            {},
            optional={
                "priority": st.integers(4, 6),
                "delay": st.sampled_from([0, 1, 1000, 5000]),
                "delayed": st.sampled_from([-1000, 0, 1000, 5000, 2 * HOUR_MS]),
                "ttl": st.sampled_from([1, 1000, 5001]),
                "uniq": st.sampled_from(["x", "y"]),
                "uniq_until": st.sampled_from(["fetch", "done"]),
                "group": st.sampled_from(["a", "b", "c"]),
                "attempts": st.integers(1, 2),
                "keep": st.sampled_from([0, 3]),
            },
        ),
    )
    def push(self, count: int, options: dict[str, Any]) -> None:
        if "delayed" in options:
            options = options | {"delay": None, "delayed": self.model.now + options["delayed"]}
        packed = pack(PushOptions(**options)) if options else b""
        got = self.call("push", 0, 0, *[packed, records.seal(b"1")] * count)
        for answer in got:
            assert answer == self.pushed(options)

    def pushed(self, options: dict[str, Any]) -> int | bytes:
        model = self.model
        logical, skew = model.logical()
        delay, ttl = options.get("delay"), options.get("ttl") or model.policy["ttl"]
        due = logical + delay + 1 if delay else None
        named = options.get("delayed")
        named = named if named is not None and named > model.now else None
        if named is not None:
            due = named + skew
        expires_at = None
        if options.get("ttl"):
            expires_at = logical + ttl
        elif ttl:
            expires_at = (due or logical) + ttl
        most = model.policy["max_length"]
        if most and len(model.in_state("waiting")) >= most:
            return b"full"
        if expires_at is not None and due is not None and expires_at <= due:
            return b"late"
        key = options.get("uniq")
        holder = model.jobs.get(model.uniq.get(key, 0)) if key is not None else None
        if holder is not None and not model.is_late(holder):
            return b"exists"
        model.seq += 1
        job = Job(
            model.seq, options.get("priority", 5), options.get("group"), expires_at, due,
            options.get("attempts"), options.get("keep"), key,
            key is not None and options.get("uniq_until") == "done", named=named,
        )  # fmt: skip
        if due is not None or expires_at is not None:
            model.keep_clock()
        model.jobs[job.id] = job
        if key is not None:
            model.uniq[key] = job.id
        if due is None:
            model.put(job)
        return job.id

    @rule(count=st.integers(1, 5))
    def fetch(self, count: int) -> None:
        found = replies.fetched(self.call("fetch", count, MIB), ["q"])
        if self.model.stopped:
            assert (found.stopped, found.jobs) == (["q"], [])
            return
        self.model.pass_time()
        wanted = self.model.rate_room(count)
        taken = [int(job.id) for job in found.jobs]
        self.model.check_taken(taken, wanted, leasing=False)
        for job_id in taken:
            self.model.drop(self.model.jobs[job_id])
        self.model.processed += len(taken)
        self.model.note_rate(len(taken))

    @rule(count=st.integers(1, 5), ms=st.sampled_from([1, 1000, 60_000, HOUR_MS]))
    def lease(self, count: int, ms: int) -> None:
        model = self.model
        found = replies.leased(self.call("lease", count, MIB, ms, "w", "nonce", ""), ["q"])
        if model.stopped:
            assert (found.stopped, found.jobs) == (["q"], [])
            return
        model.pass_time()
        wanted, most = count, model.policy["max_leased"]
        if most:
            wanted = max(0, min(wanted, most - len(model.in_state("leased"))))
        wanted = model.rate_room(wanted) if wanted else 0
        taken = [int(job.id) for job in found.jobs]
        model.check_taken(taken, wanted, leasing=True)
        model.note_rate(len(taken))
        if taken or model.in_state("leased"):
            model.keep_clock()
        model.tokens += bool(taken)
        for job, told in zip(map(model.take, taken), found.jobs, strict=True):
            job.state, job.token, job.attempt = "leased", f"{model.tokens}-nonce", job.attempt + 1
            job.ends, job.ms, job.leased_ever, job.expires_at = model.clock + ms, ms, True, None
            if not job.until_done:
                model.free(job)
            assert (told.token, told.attempt, told.max_attempts) == (
                job.token, job.attempt, model.most_attempts(job),
            )  # fmt: skip
            assert told.ends_at == job.ends - model.skew
            self.known.append((job.id, job.token))

    # --- settle ---------------------------------------------------------------------------------

    @precondition(lambda self: len(self.known) > 1)
    @rule(
        verbs=st.lists(
            st.tuples(
                st.sampled_from(["ack", "fail", "fail for good", "retry soon", "release", "later", "extend"]),
                st.integers(0, 12),
            ),
            min_size=1,
            max_size=4,
        ),
    )
    def settle(self, verbs: list[tuple[str, int]]) -> None:
        args: list[Any] = []
        picked = []
        for verb, back in verbs:
            job_id, token = self.known[-1 - back % len(self.known)]
            picked.append((verb, job_id, token))
            told: dict[str, dict[str, Any]] = {
                "ack": {"result": '"result"'},
                "fail": {"error": "error"},
                "fail for good": {"error": "error", "backtrace": "trace", "retry": False},
                "retry soon": {"error": "error", "retry_in": 0},
                "release": {},
                "later": {"delay": 2000},
                "extend": {"ms": 5000, "progress": '"half"'},
            }
            fields = told[verb]
            name = {"fail for good": "fail", "retry soon": "fail", "later": "release"}.get(verb, verb)
            args += [name, token, codec.pack(fields) if fields else b"", job_id]
        got = self.call("settle", "0.5", *args)
        self.model.keep_clock()
        remembered: dict[tuple[int, str], Any] = {}
        if len(got) == 1:  # the same for all
            got *= len(picked)
        for answer, (verb, job_id, token) in zip(got, picked, strict=True):
            assert answer == self.settled(verb, job_id, token, remembered), (verb, job_id, token)
        self.model.put_back()
        self.model.trim()
        if remembered:
            model = self.model
            if model.now - model.memo_at > MINUTE_MS or model.now < model.memo_at:
                model.memo_old, model.memo, model.memo_at = model.memo, {}, model.now
            model.memo |= remembered

    def settled(self, verb: str, job_id: int, token: str, remembered: dict[tuple[int, str], Any]) -> Any:
        model, key = self.model, (job_id, token)
        job = model.jobs.get(job_id)
        held = job is not None and job.state == "leased" and job.token == token and job.ends > model.clock
        if key in remembered:
            return remembered[key]
        if not held or job is None:
            before = model.memo.get(key) or model.memo_old.get(key)
            if before:
                return before
            if job is not None and job.state != "done":
                return 409
            return 410 if job_id <= model.seq else 404
        if verb == "extend":
            job.ends = model.clock + 5000
            return [b"cancel" if job.cancel else b"leased", job.ends - model.skew]
        remembered[key] = answer = self.ended(verb, job)
        return answer

    def ended(self, verb: str, job: Job) -> Any:
        model = self.model
        if verb == "ack":
            model.processed += 1
            keep = job.keep if job.keep is not None else model.policy["keep"]
            if keep:
                job.state, job.moment = "done", model.now + keep * 1000
                model.free(job)
            else:
                model.drop(job)
            return b"done"
        if verb in ("release", "later"):
            if job.cancel:
                model.drop(job)
                return b"deleted"
            job.attempt -= 1
            return self.again(job, 2000 if verb == "later" else 0)
        model.failed += 1
        if job.cancel:
            model.drop(job)
            return b"deleted"
        if verb == "fail for good" or job.attempt >= model.most_attempts(job):
            model.die(job)
            return b"dead"
        return self.again(job, 0 if verb == "retry soon" else 1000 * 2 ** (job.attempt - 1))

    def again(self, job: Job, delay: int) -> Any:
        job.token = ""
        if delay == 0:
            self.model.put(job, head=True)
            return b"ready"
        job.state, job.due = "waiting", self.model.clock + delay
        return [b"scheduled", self.model.now + delay]

    @precondition(lambda self: self.model.seq > 0)
    @rule(
        what=st.sampled_from(["show", "patch", "patch", "remove", "retry", "retry some"]),
        back=st.integers(0, 8),
        priority=st.sampled_from([None, 4, 5, 6]),
        delay=st.sampled_from([None, None, 0, 3000]),
        delayed=st.sampled_from([None, None, -1000, 4000]),
    )
    def one_job(
        self, what: str, back: int, priority: int | None, delay: int | None, delayed: int | None
    ) -> None:
        job_id = max(1, self.model.seq - back)
        if what == "show":
            self.show(job_id)
        elif what == "patch":
            self.patch(job_id, priority, None if delayed is not None else delay, delayed)
        elif what == "remove":
            self.remove(job_id)
        elif what == "retry":
            self.retry_one(job_id)
        else:
            self.retry_some(back + 1, delay or 0)

    # --- single jobs ----------------------------------------------------------------------------

    def state_of(self, job_id: int) -> str:
        model, job = self.model, self.model.jobs.get(job_id)
        if job is None or model.is_late(job) or (job.state == "done" and job.moment <= model.now):
            return "missing"
        if job.state == "waiting":
            waits = job.due is not None and (job.due > model.logical()[0] or model.is_early(job))
            return "scheduled" if waits else "ready"
        return job.state

    def show(self, job_id: int) -> None:
        reply = self.call("show", job_id)
        state = self.state_of(job_id)
        assert (replies.job("q", reply).state.value if reply else "missing") == state
        if reply:
            shown, job = replies.job("q", reply), self.model.jobs[job_id]
            assert (shown.priority, shown.attempt, shown.group) == (job.priority, job.attempt, job.group)
            ahead = self.model.logical()[0] - self.model.now
            if state == "scheduled" and job.due is not None:
                assert shown.run_at == (job.named if self.model.is_early(job) else job.due - ahead)
            if state in ("ready", "scheduled") and job.expires_at is not None:
                assert shown.expires_at == job.expires_at - ahead

    def patch(self, job_id: int, priority: int | None, delay: int | None, delayed: int | None) -> None:
        model = self.model
        named = None if delayed is None else model.now + delayed
        numbers = ["" if number is None else number for number in (priority, named, delay)]
        got = self.call("patch", job_id, *numbers, "").decode()
        state = self.state_of(job_id)
        if state not in ("ready", "scheduled"):
            assert got == state
            return
        job = model.jobs[job_id]
        logical, skew = model.logical()
        moment = None if delay is None else logical + delay + (1 if delay else 0)
        if named is not None:
            moment = named + skew
        expires_at = None if job.leased_ever else job.expires_at
        if moment is not None and expires_at is not None and moment >= expires_at:
            assert got == "late"
            return
        assert got == "ok"
        moved = (priority is not None and priority != job.priority) or moment is not None
        if moment is not None:
            job.named = named
        due = job.due
        if not moved:
            return
        if due is None:
            self.model.lists[job.priority, job.group].remove(job_id)
        job.priority = priority or job.priority
        if named is not None:
            later = named > model.now
        else:
            later = delay > 0 if delay is not None else due is not None
        if later:
            job.due = due if moment is None else moment
            model.keep_clock()
        else:
            model.put(job)

    def remove(self, job_id: int) -> None:
        got, state = self.call("remove", job_id).decode(), self.state_of(job_id)
        if state == "missing":
            assert got == "missing"
        elif state == "leased":
            assert got == "cancelled"
            self.model.jobs[job_id].cancel = True
        else:
            assert got == "deleted"
            self.model.drop(self.model.jobs[job_id])

    def retry_some(self, limit: int, gap: int) -> None:
        model = self.model
        every = sorted(model.in_state("dead"), key=lambda one: (one.moment, one.id))
        dead = every[:limit]
        assert self.call("retry", "", limit, gap, 0) == [len(dead), len(every) - len(dead)]
        if dead:
            model.keep_clock()
        for position, job in enumerate(dead):
            self.revive(job, model.clock + gap * position)

    def retry_one(self, job_id: int) -> None:
        got, state = self.call("retry", job_id, 0, 0, 0).decode(), self.state_of(job_id)
        assert got == ("ready" if state == "dead" else state)
        if state == "dead":
            self.model.keep_clock()
            self.revive(self.model.jobs[job_id], self.model.clock)

    def revive(self, job: Job, at: int) -> None:
        job.attempt, job.token, job.cancel = 0, "", job.cancel
        if at > self.model.clock:
            job.state, job.due = "waiting", at
        else:
            self.model.put(job)

    # --- the queue ------------------------------------------------------------------------------

    def purge(self) -> None:
        self.call("purge")
        model = self.model
        model.jobs.clear()
        model.lists.clear()
        model.uniq.clear()
        model.memo.clear()
        model.memo_old.clear()
        model.processed = model.failed = model.expired = 0

    @initialize(
        limits=st.fixed_dictionaries(
            {},
            optional={
                "max_leased": st.just(2),
                "group_leased": st.integers(1, 2),
                "max_length": st.just(5),
                "dead_most": st.just(1),
                "keep": st.just(5),
                "ttl": st.just(3000),
                "max_attempts": st.integers(1, 4),
            },
        ),
        rate=st.booleans(),
    )
    def set_policy(self, limits: dict[str, int], rate: bool) -> None:
        names = ("max_attempts", "backoff_first", "backoff_jitter")
        self.call("policy", codec.pack({name: DEFAULTS[name] for name in names}))
        self.change_policy(limits | ({"rate_count": 2, "rate_ms": 1000} if rate else {}))

    def change_policy(self, changes: dict[str, int]) -> None:
        self.call("policy", codec.pack(changes))
        self.model.policy |= changes

    @rule(
        what=st.sampled_from(
            ["stop", "start", "start", "start", "purge", "set the clock", "policy", "policy"]
        ),
        hours=st.sampled_from([-1, 1]),
        name=st.sampled_from(
            ["max_leased", "group_leased", "max_length", "dead_most", "keep", "ttl", "rate_count"]
        ),
        unlimited=st.booleans(),
    )
    def change_the_queue(self, what: str, hours: int, name: str, unlimited: bool) -> None:
        if what == "set the clock":
            self.model.now += hours * HOUR_MS
            self.tell_time()
        elif what == "purge":
            self.purge()
        elif what == "policy":
            change = {name: DEFAULTS[name] if unlimited else 2}
            self.change_policy(change | ({"rate_ms": 1000} if name == "rate_count" else {}))
        else:
            self.call("control", what)
            self.model.stopped = what == "stop"

    # --- what must hold -------------------------------------------------------------------------

    @invariant()
    def the_counts_are_right(self) -> None:
        [found], _ = replies.stats(self.call("stats"), ["q"])
        assert {name: getattr(found, name) for name in self.model.counts()} == self.model.counts()

    @invariant()
    def no_key_holds_what_it_should_not(self) -> None:
        names = ("jobs", "leased", "groups", "runs", "dead", "done", "uniq")
        jobs, leased, groups, runs_key, dead_key, done_key, uniq_key = (
            self.keys[0].removesuffix("meta") + name for name in names
        )
        pipe = self.client.pipeline(transaction=False)
        pipe.hkeys(jobs)
        pipe.zrange(leased, 0, -1)
        pipe.hgetall(groups)
        pipe.hkeys(runs_key)
        pipe.zrange(dead_key, 0, -1)
        pipe.zrange(done_key, 0, -1)
        pipe.hgetall(uniq_key)
        ids, held, by_group, runs, dead, done, uniq = pipe.execute()
        model = self.model
        assert set(map(int, ids)) == set(model.jobs)
        for members, state in ((held, "leased"), (dead, "dead"), (done, "done")):
            assert sorted(map(int, members)) == sorted(job.id for job in model.in_state(state)), state
        counted: dict[bytes, int] = {}
        for job in model.in_state("leased"):
            if job.group is not None:
                counted[job.group.encode()] = counted.get(job.group.encode(), 0) + 1
        assert {group: int(count) for group, count in by_group.items()} == counted
        assert set(map(int, runs)) <= set(model.jobs)
        assert {key.decode(): int(job) for key, job in uniq.items()} == model.uniq


CLOCK = "tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)"


def load(client: redis.Redis, defect: tuple[str, str] | None = None) -> None:
    """Give the store the functions under other names, with a clock that the test turns."""
    source = library.source().replace(f"name={library.NAME}", "name=life")
    changes = [(f"{library.NAME}_", "life_"), (CLOCK, "tonumber(redis.call('GET', 'life:now'))")]
    for right, wrong in [*changes, *([defect] if defect else [])]:
        assert right in source, right
        source = source.replace(right, wrong)
    client.function_load(source, replace=True)


@pytest.fixture
def client(store: rig.Store) -> Iterator[redis.Redis]:
    with store.client() as found:
        load(found)
        yield found
        found.function_delete("life")


@pytest.fixture(scope="module")
def valkey() -> Iterator[redis.Redis]:
    with rig.store("valkey") as store, store.client() as found:
        yield found


def live(client: redis.Redis, examples: int, phases: tuple[Phase, ...] = tuple(Phase)) -> None:
    Life.client = client
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            phases=phases,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(600)  # a busy machine may be slow
def test_jobs_live_as_the_model_says(client: redis.Redis, store: rig.Store) -> None:
    live(client, 300 if store.kind == "valkey" else 60)


@pytest.mark.parametrize("then", ["counts", "patch"])
def test_a_job_that_outlives_its_ttl_before_its_named_moment_is_gone(client: redis.Redis, then: str) -> None:
    """The clock is set back while the job waits, so that its moment moves away, and its ttl does not."""
    Life.client = client
    life = Life()
    try:
        life.set_policy({}, rate=False)
        life.push(1, {"delayed": 1000, "ttl": 5001})
        life.the_clock_is_set_while_something_waits_for_its_time(-1, 1000)
        life.the_counts_are_right()
        life.the_clock_is_set_while_something_waits_for_its_time(-1, 5001)
        if then == "counts":
            life.the_counts_are_right()
        else:
            life.patch(1, 5, 0, None)
    finally:
        life.teardown()


@pytest.mark.parametrize("what", ["leased", "delayed", "with a ttl"])
def test_a_queue_at_rest_is_not_written_to_at_each_sweep(client: redis.Redis, what: str) -> None:
    Life.client = client
    life = Life()
    try:
        life.set_policy({}, rate=False)
        life.push(
            1, {} if what == "leased" else {"delay": 1_000_000} if what == "delayed" else {"ttl": 1_000_000}
        )
        if what == "leased":
            life.call("lease", 1, MIB, 1_000_000, "w", "n", "")
        noted = set()
        for _ in range(500):
            life.model.now += 1000
            life.tell_time()
            life.call("sweep")
            noted.add(client.hget(life.keys[0], "clock"))
        assert 8 < len(noted) < 20
    finally:
        life.teardown()


DEFECTS = {
    "a clock that is noted too late": ("20 * (q.clock - kept)", "(q.clock - kept)"),
    "a clock that is set back and not noted": ("if q.skew ~= skew then return keep_clock(q) end", ""),
    "a token that is not checked": ("run.token == token and", "true and"),
    "a lease that never ends": ("due_members(q.leased, steady_clock(q, now)", "due_members(q.leased, '-inf'"),
    "a delay by a clock that may go back": ("or q.clock + asked.delay + 1", "or now + asked.delay + 1"),
    "a ttl by a clock that may go back": ("q.clock + asked.ttl", "now + asked.ttl"),
    "a retry by a clock that may go back": (
        "add(fates.later, q.clock + delay",
        "add(fates.later, now + delay",
    ),
    "a named moment that comes early": (
        "if is_early(q, id, job, now) then\n        add",
        "if false then\n        add",
    ),
    "a named moment by the steady clock": ("asked.delayed and run_at + q.skew", "asked.delayed and run_at"),
    "a clock that may go back": ("if wall < q.clock then", "if false then"),
    "a uniq key that stays": ("release_uniq(q, uniq_keys, uniq_ids)", ""),
    "a release that counts as an attempt": ("run.attempt = run.attempt - 1", "run.attempt = run.attempt"),
    "an ended lease that is put last": (
        "list.group, list.entries, true) end\n  if #fates",
        "list.group, list.entries) end\n  if #fates",
    ),
    "a limit of leases that is off by one": ("most - q.in_flight", "most - q.in_flight + 1"),
    "a group that is not counted down": ("redis.call('HINCRBY', q.groups, group, -count)", "1"),
    "a window of the rate that is too short": (
        "tonumber(at) + policy.rate_ms >= logical then break",
        "tonumber(at) + policy.rate_ms - 999 >= logical then break",
    ),
    "a stale entry that is taken for a job": ("entry_of(id, job) == entries[i]", "true"),
    "a run that is shared with another job": ("fates.runs[id] or read_run(run.packed)", "run"),
    "an end of a lease that is not looked at": ("ends_of(q, run) > logical then", "true then"),
    "a plain run of a job that is not": (
        "run.plain, run.priority, run.attempt = job == NOTHING, priority,",
        "run.plain, run.priority, run.attempt = true, priority,",
    ),
    "an answer that is forgotten": ("remember(q, now, memo)", ""),
}


FOUND = (AssertionError, LookupError, ValueError, redis.ResponseError, Flaky, ExceptionGroup)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", DEFECTS)
def test_the_model_finds(valkey: redis.Redis, name: str) -> None:
    load(valkey, DEFECTS[name])
    with pytest.raises(FOUND):
        live(valkey, 2000, (Phase.generate,))
