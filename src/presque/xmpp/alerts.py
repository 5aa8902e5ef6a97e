"""Alerts: who wants a message about what: jobs that died, queues that stop, jobs that wait too
long, workers that fall silent.

What is wanted is in the store, so it outlives this process. While anything is, the queues are looked at every
LOOK_S; what is new becomes a line. An account gets one message for all of them, and the next one EVERY_S
later at the earliest: what happens meanwhile waits, LINES_MOST lines of it, and the rest is counted.

A queue that is stopped, a job that waits too long and a worker that is silent are reported once, until that
is over. After a restart what still holds is reported again; jobs that died while nobody looked are not.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from presque import codec
from presque.commands.call import Call, Service
from presque.commands.carrying import carry_out
from presque.commands.who import Who
from presque.commands.workers import SILENT_MS
from presque.errors import CallerError, PresqueError, Refused, shown
from presque.fields import duration, of, word
from presque.job import JobState, WorkerRecord
from presque.names import QueueList, queue_list
from presque.quantities import counted
from presque.verbs import VERBS
from presque.verbs.bounds import DELAY_MOST, QUEUES_PAGE
from presque.verbs.verb import Verb
from presque.verbs.vocabulary import QUEUES
from presque.xmpp.accounts import Accounts
from presque.xmpp.stanzas import body, payload, tag

log = logging.getLogger("presque.xmpp")

LOOK_S = 5.0
EVERY_S = 60.0
LINES_MOST = 50
WANTED_MOST = 1000
READ_AT_ONCE = 20  # of them, in a turn of the event loop: each names up to 64 patterns
WANTED_OF_ONE_MOST = 50
DEAD_AT_ONCE = 10
WORKERS_MOST = 1000

KINDS = ("dead", "stopped", "oldest", "silent")
_WHAT = word("what", "Dead jobs, stopped queues, jobs that wait too long, or silent workers.", *KINDS)

ALERT = Verb(
    name="alert",
    means="Get a message when a job is dead, a queue stopped, the oldest job too old or a worker silent.",
    scope="read",
    fields=of(
        dataclasses.replace(_WHAT, required=True),
        QUEUES,
        duration("limit", "How long the oldest job may wait, with `oldest`.", 1, DELAY_MOST, default="10m"),
    ),
)
ALERTS = Verb(name="alerts", means="Your alerts.", scope="read", over="seen")
UNALERT = Verb(
    name="unalert",
    means="End alerts: those of one kind, those for one queue list, or all.",
    scope="read",
    over="seen",
    fields=of(_WHAT, dataclasses.replace(QUEUES, name="queue", required=False)),
)
OF_ALERTS = {one.name: one for one in (ALERT, ALERTS, UNALERT)}


@dataclass(slots=True)
class Wish:
    """An alert that somebody asked for, and what they already know."""

    account: str
    what: str
    queues: str
    limit_ms: int
    known: set[str] = field(default_factory=set)
    """The queues or workers that were reported and are still so."""
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    begun: bool = False
    """Whether it was looked at once: jobs that were dead then are not reported."""
    last: dict[str, tuple[int, frozenset[str]]] = field(default_factory=dict)
    """For each queue when the last job died that was reported, and the jobs of that moment."""

    @property
    def id(self) -> str:
        """What tells it from others."""
        return f"{self.account} {self.what} {self.queues}"

    @property
    def said(self) -> dict[str, Any]:
        """It as an answer shows it."""
        limit = {"limit": self.limit_ms / 1000} if self.what == "oldest" else {}
        return {"what": self.what, "queues": self.queues, **limit}


@dataclass(slots=True)
class _Box:
    """What an account is notified of."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    more: int = 0
    not_before: float = 0.0


class Alerts:
    """The alerts of one server. `send` is set while there is a connection."""

    def __init__(self, service: Service, accounts: Accounts, domain: str) -> None:
        self._service = service
        self._accounts = accounts
        self._domain = domain
        self._wishes: dict[str, Wish] | None = None
        self._boxes: dict[str, _Box] = {}
        self.send: Callable[[str], None] | None = None

    # --- what people want -----------------------------------------------------------------------

    async def do(self, who: Who, verb: Verb, fields: Any) -> dict[str, Any]:
        """Carry out one of the three verbs. Returns what to answer. Raises `PresqueError`."""
        wishes = await self._load()
        mine = [one for one in wishes.values() if one.account == who.name]
        if verb is ALERTS:
            return {"alerts": [one.said for one in mine]}
        if verb is UNALERT:
            queue = fields.get("queue")
            gone = [
                one
                for one in mine
                if fields.get("what", one.what) == one.what and (queue is None or queue.text == one.queues)
            ]
            for one in gone:
                await self._service.engine.wanted.remove(one.id)
                wishes.pop(one.id, None)
            return {"alerts": [one.said for one in mine if one not in gone]}
        if "limit" in fields and fields["what"] != "oldest":
            raise CallerError("`limit` goes with `oldest`")
        wish = Wish(who.name, fields["what"], fields["queues"].text, fields.get("limit", 600_000))
        if wish.id not in wishes and len(mine) >= WANTED_OF_ONE_MOST:
            raise CallerError(f"you have {WANTED_OF_ONE_MOST} alerts already, as many as you may")
        value = codec.pack([wish.account, wish.what, wish.queues, wish.limit_ms])
        if not await self._service.engine.wanted.put(wish.id, value, WANTED_MOST):
            raise CallerError(f"there are {WANTED_MOST} alerts already, the maximum")
        if wish.what == "dead":
            _ = [one async for one in self._of_queues(wish, who)]
        wishes[wish.id] = wish
        return {"alerts": [one.said for one in mine if one.id != wish.id] + [wish.said]}

    async def _load(self) -> dict[str, Wish]:
        """Everything that is wanted; read from the store once."""
        if self._wishes is None:
            found = await self._service.engine.wanted.all()
            wishes: dict[str, Wish] = {}
            for number, (id, packed) in enumerate(found.items()):
                if number % READ_AT_ONCE == 0:
                    await asyncio.sleep(0)
                try:
                    account, what, queues, limit_ms = codec.unpack(packed)
                    wishes[id] = Wish(account, what, queue_list(queues).text, limit_ms)
                except (ValueError, TypeError, PresqueError):
                    log.warning("xmpp.alert_damaged id=%s", shown(id))
            if self._wishes is None:
                self._wishes = wishes
        return self._wishes

    # --- looking --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look regularly, until cancelled."""
        while True:
            try:
                await self.look()
            except PresqueError:
                pass  # the store is away: the next look comes
            except Exception:
                log.exception("xmpp.alerts_broken")
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Find out what is new, and tell it as far as it is time."""
        wishes = await self._load()
        if not wishes:
            return
        workers: list[WorkerRecord] | None = None
        for wish in list(wishes.values()):
            who = self._accounts.who(wish.account)
            if who is None:
                continue
            try:
                if wish.what == "silent":
                    if workers is None:
                        workers = await self._service.engine.worker_records(WORKERS_MOST)
                    found = list(self._silent(wish, who, workers))
                else:
                    found = [one async for one in self._of_queues(wish, who)]
            except Refused:
                continue
            self._put(wish.account, found)
        self._tell()

    async def _of_queues(self, wish: Wish, who: Who) -> Any:
        stats = await self._stats(queue_list(wish.queues), who)
        holds = set()
        for queue, one in stats.items():
            if wish.what == "dead":
                async for line in self._dead(wish, queue, one):
                    yield line
                continue
            waited = one["oldest_seconds"] or 0
            if wish.what == "stopped" and not one["status"]:
                holds.add(queue)
                text = f"{queue} is stopped, with {counted(one['ready'], 'ready job')}"
            elif wish.what == "oldest" and waited * 1000 > wish.limit_ms:
                holds.add(queue)
                text = f"{queue}: {counted(one['ready'], 'ready job')}, the oldest has waited {waited:.0f} s"
            else:
                continue
            if queue not in wish.known:
                yield {"what": wish.what, "queue": queue, "text": text}
        wish.known, wish.begun = holds, True

    async def _stats(self, queues: QueueList, who: Who) -> dict[str, dict[str, Any]]:
        """What the queues hold; one that is named need not be there yet."""
        if queues.single is not None:
            call = Call(self._service, VERBS["stats"], {"queue": queues.single}, b"", None, who)
            return {queues.single: codec.decode((await carry_out(call)).object)}
        fields = {"queues": queues, "limit": QUEUES_PAGE}
        call = Call(self._service, VERBS["all_stats"], fields, b"", None, who)
        found: dict[str, dict[str, Any]] = codec.decode((await carry_out(call)).object)["by_queue"]
        return found

    async def _dead(self, wish: Wish, queue: str, one: dict[str, Any]) -> Any:
        counts = (one["dead"], one["failed"])
        if wish.counts.get(queue) == counts:
            return
        wish.counts[queue] = counts
        if not one["dead"]:
            return
        page, _ = await self._service.engine.jobs.page(queue, JobState.DEAD, DEAD_AT_ONCE + 1, "")
        last, told = wish.last.get(queue, (0, frozenset[str]()))
        died = [(job.finished_at or 0, job) for job in page]
        new = [job for at, job in died if at > last or (at == last and job.id not in told)]
        if not new:
            return
        latest = max(last, max(at for at, _ in died))
        wish.last[queue] = latest, frozenset(job.id for at, job in died if at == latest)
        if not wish.begun:
            return
        for job in new[:DEAD_AT_ONCE]:
            why = shown(job.errors[-1].error) if job.errors else job.reason or "no reason was given"
            text = f"{queue}: job {job.id} is dead: {why}"
            yield {"what": "dead", "queue": queue, "id": job.id, "text": text}
        if len(new) > DEAD_AT_ONCE:
            text = f"{queue}: more jobs are dead, {one['dead']} in all"
            yield {"what": "dead", "queue": queue, "text": text}

    def _silent(self, wish: Wish, who: Who, workers: list[WorkerRecord]) -> Iterator[dict[str, Any]]:
        queues = queue_list(wish.queues)
        holds = set()
        for one in workers:
            theirs = [queue for queue in one.queues if queues.matches(queue) and who.sees(queue)]
            if one.report and theirs and one.silent_ms > SILENT_MS:
                holds.add(one.worker)
                if one.worker not in wish.known:
                    silent_s = one.silent_ms // 1000
                    text = f"worker {one.worker} of {theirs[0]} has said nothing for {silent_s} s"
                    yield {"what": "silent", "queue": theirs[0], "worker": one.worker, "text": text}
        wish.known = holds

    # --- telling --------------------------------------------------------------------------------

    def _put(self, account: str, found: list[dict[str, Any]]) -> None:
        if found:
            box = self._boxes.setdefault(account, _Box())
            room = max(0, LINES_MOST - len(box.lines))
            box.lines += found[:room]
            box.more += len(found[room:])

    def _tell(self) -> None:
        if self.send is None:
            return
        now = time.monotonic()
        for account, box in list(self._boxes.items()):
            if now < box.not_before:
                continue
            if not box.lines:
                del self._boxes[account]
                continue
            texts = [one["text"] for one in box.lines]
            if box.more:
                texts.append(f"and {box.more} more")
            told = codec.encode({"event": "alert", "alerts": box.lines, "more": box.more})
            self.send(
                tag(
                    "message", payload(told), body("\n".join(texts)), **{"from": self._domain}, to=account,
                    id=f"alert-{int(now * 1000)}", type="chat",
                )
            )  # fmt: skip
            self._boxes[account] = _Box(not_before=now + EVERY_S)
