"""The consumers over XMPP: each client that is present at an address, what it asked for and what it holds.

A seat is a client's full address at one address of ours. It begins with available presence sent there, and
ends with unavailable presence, with a message of ours that comes back, or with the connection to the server.
Whatever ends it, the jobs that it holds are given back at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from presque.commands import jobs, leases
from presque.commands.call import Service
from presque.commands.consuming import Consumer
from presque.errors import CallerError, PresqueError
from presque.job import Fetched, Leased, Settle, Settled
from presque.names import QueueList, worker
from presque.xmpp.addresses import address, bare
from presque.xmpp.stanzas import not_kept, payload, tag, text

SEATS_MOST = 1000
"""How many places one account may have."""

OF_JOB = "job-"
"""How the id of a message begins that brings a job; the job's id follows."""

TOO_LARGE = "the job is too large for XMPP: take it over HTTP, or raise `xmpp.max_stanza`"


class NotPresent(CallerError):
    """Somebody wants jobs whose going away we would not hear of."""

    code = "not-present"

    def __init__(self) -> None:
        super().__init__(
            "send available presence to this address first, so that presque hears when you go, and gives "
            "your jobs to somebody else"
        )


@dataclass(slots=True)
class Seat:
    """One client at one address of ours."""

    client: str
    at: str
    consumer: Consumer
    silent: int = 0
    """How many heartbeats ago it was heard from."""


class Consumers:
    """All clients that are present. `send` takes a stanza; `most` is how large one may be."""

    def __init__(self, service: Service, domain: str, send: Callable[[str], None], most: int) -> None:
        self._engine = service.engine
        self._domain = domain
        self._send = send
        self._most = most
        self._seats: dict[tuple[str, str], Seat] = {}
        self._by_account: dict[str, int] = {}
        self._paused = False

    # --- coming and going -----------------------------------------------------------------------

    def seat(self, client: str, at: str) -> Seat | None:
        """The place of a client at an address, if it is present there."""
        found = self._seats.get((client, at))
        if found is not None:
            found.silent = 0
        return found

    def sit(self, client: str, at: str) -> Seat:
        """The client is present at this address. Raises `CallerError`."""
        found = self.seat(client, at)
        if found is not None:
            return found
        account = bare(client)
        if self._by_account.get(account, 0) >= SEATS_MOST:
            raise CallerError(f"one account is present at most {SEATS_MOST} times")
        self._by_account[account] = self._by_account.get(account, 0) + 1

        def deliver(job: Leased | Fetched) -> None:
            self._deliver(seat, job)

        def cut() -> None:
            self.leave(client, at, lost=True)

        seat = Seat(client, at, Consumer(self._engine, _worker_of(client), deliver, cut))
        if self._paused:
            seat.consumer.pause()
        self._seats[client, at] = seat
        return seat

    def leave(self, client: str, at: str, *, lost: bool) -> None:
        """The client is not present at this address any more."""
        seat = self._seats.pop((client, at), None)
        if seat is None:
            return
        account = bare(client)
        self._by_account[account] -= 1
        if not self._by_account[account]:
            del self._by_account[account]
        seat.consumer.end(lost=lost)

    def gone(self, client: str, *, lost: bool) -> None:
        """The client does not get what it is sent."""
        for seat in list(self.of(client)):
            self.leave(client, seat.at, lost=lost)

    def end(self) -> None:
        """The connection to the server is lost, and all clients with it."""
        for client, at in list(self._seats):
            self.leave(client, at, lost=False)

    def pause(self) -> None:
        """The server does not read: ask for no more jobs."""
        self._paused = True
        for seat in self._seats.values():
            seat.consumer.pause()

    def resume(self) -> None:
        """The server reads again."""
        self._paused = False
        for seat in list(self._seats.values()):
            seat.consumer.resume()

    # --- who they are ---------------------------------------------------------------------------

    def of(self, client: str) -> Iterator[Seat]:
        """The places of a client."""
        return (seat for seat in self._seats.values() if seat.client == client)

    def all(self) -> list[Seat]:
        """Every place."""
        return list(self._seats.values())

    def holder(self, client: str, queue: str | None, id: str | None) -> tuple[Seat, str, str, str]:
        """The place of a client, queue, id and token of the job that it means: the one with this id, else
        the only one that it holds there. Raises `CallerError`."""
        held = [
            (seat, *job)
            for seat in self.of(client)
            for job in seat.consumer.held
            if (queue is None or job[0] == queue) and (id is None or job[1] == id)
        ]
        if len(held) == 1:
            return held[0]
        if not held:
            raise CallerError(
                "you hold no job here"
                if id is None
                else f"you do not hold job {id} here: its lease may have ended"
            )
        some = ", ".join(job for _, _, job, _ in held[:10])
        raise CallerError(f"you hold {len(held)} jobs: say which one, as in `ack {held[0][2]}` (of {some})")

    async def grant(self, seat: Seat, queues: QueueList, count: int, ms: int | None) -> dict[str, object]:
        """Let a client have up to `count` jobs of a list at any time. Returns what to answer. Raises
        `PresqueError`."""
        return await seat.consumer.listen_or_grant(queues, count, ms)

    # --- jobs -----------------------------------------------------------------------------------

    def _deliver(self, seat: Seat, job: Leased | Fetched) -> None:
        answer = leases.job_answer(job) if isinstance(job, Leased) else jobs.fetched_answer(job)
        inside = payload(b'{"event":"job",' + answer[1:])
        for_people = tag("body", text(job.body.decode()))
        stanza = self._message(seat, job, inside + for_people)
        if len(stanza.encode()) > self._most:
            stanza = self._message(seat, job, inside)
            if len(stanza.encode()) > self._most:
                return self._refuse(seat, job)
        self._send(stanza)
        return None

    def _message(self, seat: Seat, job: Leased | Fetched, inside: str) -> str:
        sender = address(job.queue, self._domain)
        return tag(
            "message",
            inside,
            not_kept,
            **{"from": sender},
            to=seat.client,
            id=f"{OF_JOB}{job.id}",
            type="chat",
        )

    def _refuse(self, seat: Seat, job: Leased | Fetched) -> None:
        """A stanza that large would end the connection to the server, and all that goes over it."""
        if isinstance(job, Leased):
            fail = Settle("fail", job.queue, job.id, job.token, {"error": TOO_LARGE})
            seat.consumer.settle(fail, _ignore)


def _worker_of(client: str) -> str | None:
    """What a client is called as a worker: its address, if a worker may be called so."""
    try:
        return worker(client)
    except PresqueError:
        return None


def _ignore(_result: Settled | PresqueError) -> None:
    pass
