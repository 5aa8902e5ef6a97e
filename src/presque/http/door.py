"""What all connections of a server share: who is connected, what they may hold, the clock of their deadlines.

A connection asks the door whether it may come in. Once a second the door looks for connections whose deadline
has passed. When access tokens change, and when the server stops, it tells all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

from presque.config.settings import LimitSettings
from presque.errors import PresqueError, Refused
from presque.http import answers
from presque.http.head import Head
from presque.http.outflow import Stuck
from presque.http.problems import Sums, TooMany
from presque.http.proxies import Proxies
from presque.http.tallies import Tallies, Tally

log = logging.getLogger("presque.http")

STUCK_S = 0.25  # who takes nothing for so long is a slow reader, if there are too many bytes
BODY_FREE_BYTES = 16 * 1024  # as much of a body as each connection may have whatever the others have
CLIENTS_MOST = 64  # kinds of clients for which heads are remembered apart
OUT_OF_FILES_S = 60.0  # so long without trouble ends a spell
CUT_OFF_S = 1.0  # how long those that are cut off may take to end


class Member(Protocol):
    """A connection, as the door sees it."""

    deadline: float
    transport: asyncio.Transport

    def forget(self) -> None:
        """Parse the next head again."""

    def time_is_up(self) -> None:
        """The deadline has passed."""

    def shutdown(self) -> None:
        """The server is stopping: end as soon as nothing is owed."""

    def reconsider(self) -> None:
        """Access tokens may have become invalid: end if its own has."""


class Upgraded(Protocol):
    """The protocol that a connection speaks after it was handed over. It calls `lost` when it has ended, and
    `hold` with how many bytes it keeps of what has not come whole: False if they are too many."""

    lost: Callable[[], object]
    hold: Callable[[int], bool]

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...

    def data_received(self, data: bytes) -> None: ...

    def shutdown(self) -> None:
        """The server is stopping."""

    def reconsider(self) -> None:
        """Access tokens may have become invalid: end if ours has."""


class Bodies:
    """The bytes of what clients have sent that has come in part or is under way, up to `most` (0: any)."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0

    def hold(self, size: int, before: int) -> bool:
        """Count bytes of a body that has come in part, of which there were so many before. Returns False if
        there are too many of all bodies."""
        self._held += size - before
        return size <= BODY_FREE_BYTES or not 0 < self._most < self._held


class Door:
    """What all connections of one server share."""

    def __init__(
        self,
        planner: Any,
        max_body: int,
        limits: LimitSettings | None = None,
        proxies: Proxies | None = None,
        refused: Callable[[Refused, str], None] | None = None,
    ) -> None:
        self.planner = planner
        self.refused = refused  # told of each client that may not do what it asked for, with its address
        self.max_body = max_body
        self.limits = limits = limits or LimitSettings()
        self.requests_most = limits.requests or sys.maxsize
        self.proxies = proxies or Proxies()
        self.under_way = 0  # requests
        self.bodies = Bodies(limits.bodies)
        self.hold = self.bodies.hold
        self.pinned = 0  # bytes of answers that were not taken
        self.stuck: dict[Stuck, float] = {}  # an answer that is not taken -> since when
        self.by_address: dict[str, int] = {}  # connections, or requests of clients of proxies
        self.connections: set[Member] = set()
        self.upgraded: set[Upgraded] = set()
        self.each_second: list[Callable[[], None]] = []
        self.now = self.idle_until = 0.0
        self.date = self.created = self.ok = self.mark = b""
        self.known_errors: dict[tuple[PresqueError, bool, bool], bytes] = {}
        self.tallies = Tallies()
        self.traced: Callable[[Tally, Head], Tally] | None = None  # where a request is counted that is traced
        self.unread = self.tallies.of("unread")  # requests that could not be read
        self.loop = asyncio.get_running_loop()
        self._understood: dict[tuple[str, tuple[str, ...]], dict[bytes, Any]] = {}
        self._empty: asyncio.Event | None = None
        self._out_of_files_at = -OUT_OF_FILES_S
        self._ticker: asyncio.TimerHandle | None = None
        self.sums = Sums()
        self.tick()

    def understood(self, *, proxy: str = "", names: tuple[str, ...] = ()) -> dict[bytes, Any]:
        """The heads that were understood before, of clients that are the same to us: what a head asks for
        depends on who shows a certificate, and on whether its proxy headers are believed. `proxy` is the
        address of a proxy that is believed: a head that names no client comes from there."""
        if len(self._understood) > CLIENTS_MOST:
            self.forget()
            self._understood.clear()
        return self._understood.setdefault((proxy, names), {})

    def forget(self) -> None:
        """Parse every head again."""
        for connection in self.connections:
            connection.forget()
        for heads_of_some in self._understood.values():
            heads_of_some.clear()

    def full(self, address: str) -> TooMany | None:
        """Why another connection from this address, "" for one that is not counted, is too many."""
        limits = self.limits
        if limits.connections and len(self.connections) + len(self.upgraded) > limits.connections:
            return TooMany(
                f"this server has {limits.connections} connections, the most that are allowed", 503
            )
        return self.crowded(address)

    def crowded(self, address: str) -> TooMany | None:
        """Why another connection, or request through a proxy, of this address is too many."""
        most = self.limits.by_address
        if most and address and self.by_address.get(address, 0) >= most:
            said = f"your address has {most} connections or requests under way, the most that are allowed"
            return TooMany(said, 429)
        return None

    def enter(self, address: str) -> None:
        """Count a connection or request of an address."""
        if address:
            self.by_address[address] = self.by_address.get(address, 0) + 1

    def leave(self, address: str) -> None:
        """It has ended."""
        if address:
            left = self.by_address[address] - 1
            if left:
                self.by_address[address] = left
            else:
                del self.by_address[address]

    def pin(self, stuck: Stuck) -> None:
        """A client does not take an answer. If there are too many bytes of all of them, cut off those that
        have been stuck for a while, the largest first: a quick reader is stuck for a moment."""
        now = self.loop.time()
        self.pinned += stuck.size
        self.stuck[stuck] = now
        most = self.limits.answers
        if not most or self.pinned <= most:
            return
        slow = [one for one, since in self.stuck.items() if now - since >= STUCK_S]
        slow.sort(key=lambda one: one.size, reverse=True)
        cut, size = 0, self.pinned
        for one in slow:
            if self.pinned <= most:
                break
            self.unpin(one)
            one.transport.abort()
            cut += 1
        if cut:
            log.warning("server.slow_readers_cut connections=%d bytes=%d", cut, size)

    def unpin(self, stuck: Stuck) -> None:
        """The client has taken the answer, or will not."""
        if self.stuck.pop(stuck, None) is not None:
            self.pinned -= stuck.size

    def hand_over(self, connection: Member, protocol: Upgraded, left: Callable[[], None]) -> None:
        """A connection speaks another protocol from now on. `left` is called when that has ended."""
        self.connections.discard(connection)
        self.upgraded.add(protocol)
        held = 0

        def hold(size: int) -> bool:
            nonlocal held
            before, held = held, size
            return self.hold(size, before)

        def lost() -> None:
            self.upgraded.discard(protocol)
            hold(0)
            left()
            self.ended()

        protocol.lost, protocol.hold = lost, hold

    def tell_turned_away(self, error: TooMany, address: str) -> None:
        """Log that a client was turned away: the first at once, the others as a sum."""
        self.sums.tell(str(error), functools.partial(_tell_turned_away, str(error), address))

    def mark_answers(self, header: str) -> None:
        """Have all answers from now on bear a header, in place of that of the call before."""
        self.mark = f"{header}\r\n".encode()
        self._date_answers()

    def _date_answers(self) -> None:
        """What the answers of the next second begin with."""
        self.date = b"Date: %b\r\n%b" % (_date(time.time()), self.mark)
        kind = b"Content-Type: application/json\r\n"
        self.created = answers.start(201, self.date) + kind
        self.ok = answers.start(200, self.date) + kind + answers.NO_STORE
        self.known_errors.clear()

    def tick(self) -> None:
        """Once a second: the date of the answers, and the deadlines of all connections."""
        self._ticker = self.loop.call_later(1, self.tick)
        before, self.now = self.now, self.loop.time()
        late = self.now - before - 1
        self.idle_until = self.now + self.limits.idle
        self._date_answers()
        if late > 1:  # presque itself did not run: what has come meanwhile was not read
            for connection in self.connections:
                connection.deadline += late if connection.deadline else 0
        for connection in [c for c in self.connections if 0 < c.deadline <= self.now]:
            connection.time_is_up()
        self._look_at_files()
        for look in self.each_second:
            look()

    def _look_at_files(self) -> None:
        """Log once for each spell that no descriptor is left for another connection. The loop closes those
        that it cannot take, and tells nobody."""
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                return
            if self.now - self._out_of_files_at >= OUT_OF_FILES_S:
                most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
                log.error("server.out_of_files connections=%d limit=%d", len(self.connections), most)
            self._out_of_files_at = self.now

    def reconsider(self) -> None:
        """Access tokens may have become invalid: forget what was understood, and end what only waits or
        streams and would be refused now. A call that is already under way in the store is answered as
        usual."""
        self.forget()
        for connection in list(self.connections):
            connection.reconsider()
        for other in list(self.upgraded):
            other.reconsider()

    def shutdown(self) -> None:
        """The server is stopping: let each connection end as soon as it owes nothing."""
        for connection in list(self.connections):
            connection.shutdown()
        for other in list(self.upgraded):
            other.shutdown()

    async def drained(self, within: float) -> None:
        """Wait until all connections have ended, then cut off those that have not: what their clients have
        not taken is on its way back when this returns."""
        self._empty = asyncio.Event()
        self.ended()
        try:
            await asyncio.wait_for(self._empty.wait(), within)
        except TimeoutError:
            log.warning("server.cut_off connections=%d", len(self.connections))
            for connection in list(self.connections):
                connection.transport.abort()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), CUT_OFF_S)
        if self._ticker is not None:
            self._ticker.cancel()

    def ended(self) -> None:
        """A connection has ended."""
        if self._empty is not None and not self.connections and not self.upgraded:
            self._empty.set()


def _tell_turned_away(reason: str, address: str, count: int) -> None:
    log.warning("server.turned_away reason=%s address=%s count=%d", reason, address, count)


def _date(at: float) -> bytes:
    """A moment as HTTP writes it. The library for e-mail does it, too, and takes 3 ms to import."""
    of = time.gmtime(at)
    day, month = _DAYS[of.tm_wday], _MONTHS[of.tm_mon - 1]
    return time.strftime(f"{day}, %d {month} %Y %H:%M:%S GMT", of).encode()


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
