"""How many bytes of answers may be on their way at once.

The store keeps an answer in its memory until it is read, and all answers come over one connection, in the
order of the calls: a large one holds up those behind it. So calls with large answers say how large, and only
a bounded number of bytes is asked for at once. Calls take turns, first come first served. Small ones have
room of their own and never stand behind large ones: what is under way makes them late, by some milliseconds.
"""

from __future__ import annotations

from collections import deque

from presque.store.wire import Call

SMALL = 64 * 1024
SMALL_MOST = 4 * 1024 * 1024
LARGE_MOST = 16 * 1024 * 1024


class Budget:
    """The calls whose answers are counted: those under way, and those that wait for room."""

    def __init__(self) -> None:
        self._small = _Room(SMALL_MOST)
        self._large = _Room(LARGE_MOST)

    def take(self, call: Call, now: float) -> bool:
        """Whether the call may go now. If not, it waits, and `free` returns it when it may."""
        room = self._room(call.answer)
        if not room.waiting and room.fits(call.answer):
            room.taken += call.answer
            return True
        room.waiting.append((now, call))
        return False

    def take_again(self, size: int) -> None:
        """Count a call that goes a second time, at once."""
        self._room(size).taken += size

    def free(self, size: int) -> list[Call]:
        """An answer of this size has come. Returns the calls that may go now, and counts them."""
        room = self._room(size)
        room.taken -= size
        found = []
        while room.waiting and room.fits(room.waiting[0][1].answer):
            _, call = room.waiting.popleft()
            room.taken += call.answer
            found.append(call)
        return found

    def late(self, moment: float) -> list[Call]:
        """Those that have waited since before a moment; they wait no more."""
        found = []
        for room in (self._small, self._large):
            while room.waiting and room.waiting[0][0] <= moment:
                found.append(room.waiting.popleft()[1])
        return found

    def reset(self) -> list[Call]:
        """Nothing is under way any more. Returns those that wait, small ones first."""
        waiting = [call for room in (self._small, self._large) for _, call in room.waiting]
        self._small, self._large = _Room(SMALL_MOST), _Room(LARGE_MOST)
        return waiting

    def __len__(self) -> int:
        """How many wait."""
        return len(self._small.waiting) + len(self._large.waiting)

    def _room(self, size: int) -> _Room:
        return self._small if size <= SMALL else self._large


class _Room:
    """Room for answers of one kind."""

    __slots__ = ("most", "taken", "waiting")

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0
        self.waiting: deque[tuple[float, Call]] = deque()

    def fits(self, size: int) -> bool:
        """Whether an answer may be asked for. One that is larger than all the room goes alone."""
        return self.taken == 0 or self.taken + size <= self.most
