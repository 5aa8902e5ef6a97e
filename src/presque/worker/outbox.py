"""What to tell the server about leases, until the server has confirmed it.

Settling a lease twice does no harm, so whatever has not been answered is sent again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any, Literal, NamedTuple

from presque.client.options import Settlements

Verb = Literal["ack", "fail", "release", "extend"]
VERBS: tuple[Verb, ...] = ("ack", "fail", "release", "extend")
BYTES_MOST = 512 * 1024
"""Of one request: half of what a server takes by default."""
COUNT_MOST = 500
UNTOLD = "its error could not be told"


class Letter(NamedTuple):
    """One lease to settle. `bytes` is about how long it is in a request.

    `pushed_at` is given when the job ran to its end: with queue and id it tells the job when it comes again.
    """

    verb: Verb
    queue: str
    id: str
    lease: str
    fields: Mapping[str, Any]
    bytes: int = 160
    pushed_at: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Which job it is about, in which lease: jobs that were leased together have the same token."""
        return self.queue, self.id, self.lease

    def bare(self) -> Letter:
        """The same with nothing that the server could refuse for its size or value."""
        fields = {name: value for name, value in self.fields.items() if name == "retry"}
        if self.verb == "fail":
            fields["error"] = UNTOLD
        return Letter(self.verb, self.queue, self.id, self.lease, fields, pushed_at=self.pushed_at)


class Outbox:
    """Letters in the order in which they are to be sent."""

    def __init__(self) -> None:
        self._letters: deque[Letter] = deque()
        self.most = COUNT_MOST

    def __len__(self) -> int:
        return len(self._letters)

    def put(self, letter: Letter) -> None:
        """To be sent with the next request."""
        self._letters.append(letter)

    def put_back(self, letters: Iterable[Letter]) -> None:
        """These were sent and not answered: they come first."""
        self._letters.extendleft(reversed(list(letters)))

    def take(self) -> list[Letter]:
        """As many as fit into one request, in the order in which the server answers them."""
        taken: list[Letter] = []
        letters = self._letters
        size = 0
        while letters and len(taken) < self.most:
            size += letters[0].bytes
            if taken and size > BYTES_MOST:
                break
            taken.append(letters.popleft())
        if any(map("ack".__ne__, map(_verb_of, taken))):
            taken.sort(key=_order)
        return taken


_verb_of = itemgetter(0)
_ORDER = {verb: number for number, verb in enumerate(VERBS)}


def _order(letter: Letter) -> int:
    return _ORDER[letter.verb]


def settlements(letters: Iterable[Letter]) -> Settlements:
    """The body of a request that settles these: neighbours that have nothing but the same token together."""
    found: Settlements = {}
    ids: list[str] = []
    last = None
    for verb, queue, id, lease, fields, _, _ in letters:
        if not fields and (verb, queue, lease) == last:
            ids.append(id)
            continue
        ids, last = [id], None if fields else (verb, queue, lease)
        found.setdefault(verb, []).append({"queue": queue, "ids": ids, "lease": lease, **fields})
    return found
