"""The command table: every command of presque by its name, for the doors that speak JSON.

A command is an object such as `{"cmd":"push","queue":"mail","job":{"to":"ana"},"delay":5}`. Its fields are a
`Request`, and what it does is the verb that the REST routes call. A `ref` is echoed in the answer, so that
who sends many can tell the answers apart. RestMQ's own words stand beside ours: `add`, `take`, `get`, `del`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from presque import codec, names
from presque.commands import job, jobs, leases, params, queues
from presque.engine.engine import Engine
from presque.engine.lines import Waiter
from presque.errors import CallerError, JobMissing, NoJob, OurFault, PresqueError, shown
from presque.job import Fetched, Leased, PushOptions, Settle
from presque.names import QueueList

log = logging.getLogger("presque.commands")

COMMANDS_MOST = 1000
REF_MOST = 256
PEEK = 10


class Request(codec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What every command may say."""

    cmd: str
    ref: codec.Raw = codec.NOTHING


class _Envelope(codec.Struct, frozen=True):
    cmd: str
    ref: codec.Raw = codec.NOTHING


class Push(Request, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Put a job on a queue. The fields are the parameters of POST /q/{queue}."""

    queue: str
    job: codec.Raw = codec.NOTHING
    delayed: str | float | int | None = None
    delay: float | int | None = None
    priority: int | None = None
    ttl: float | int | None = None
    attempts: int | None = None
    keep: int | None = None
    uniq: str | None = None
    uniq_until: str | None = None
    group: str | None = None


class Fetch(Request, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Take a job for good, waiting up to `wait` seconds for it."""

    queue: str
    wait: float | int = 0


class Lease(Request, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Take up to `count` jobs for `seconds`."""

    queue: str
    count: int = 1
    seconds: float | int | None = None
    wait: float | int = 0
    attempt_id: str | None = None


class Ack(leases.Ack, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The job is done."""

    cmd: str
    ref: codec.Raw = codec.NOTHING


class Fail(leases.Fail, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The job did not work."""

    cmd: str
    ref: codec.Raw = codec.NOTHING


class Release(leases.Release, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The job is given back."""

    cmd: str
    ref: codec.Raw = codec.NOTHING


class Extend(leases.Extend, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The job takes longer."""

    cmd: str
    ref: codec.Raw = codec.NOTHING


class Peek(Request, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Look at the next jobs without taking them."""

    queue: str
    count: int = PEEK


class Stats(Request, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The counts of one queue, or of all."""

    queue: str | None = None


class OfQueue(Request, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Something that is done to a queue: start, stop, purge; or RestMQ's take and get."""

    queue: str


class Retry(Request, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Let one dead job, or without an `id` all of them, be tried again."""

    queue: str
    id: str | None = None
    limit: int | None = None
    rate: float | int | None = None


class Delete(Request, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Take a job away."""

    queue: str
    id: str


class Add(Request, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """RestMQ's push: any value is the job."""

    queue: str
    value: codec.Raw = codec.NOTHING


class Del(Request, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """RestMQ's delete: `key` is the queue and the id, as `add` has answered."""

    queue: str
    key: str


async def push(engine: Engine, asked: Push, _worker: str | None) -> bytes:
    options = push_options(asked)
    return codec.encode({"id": await _stored(engine, asked.queue, asked.job, options), "queue": asked.queue})


async def fetch(engine: Engine, asked: Fetch, worker: str | None) -> bytes:
    return fetched(await _fetched(engine, asked.queue, asked.wait, worker))


async def lease(engine: Engine, asked: Lease, worker: str | None) -> bytes:
    wanted = names.queue_list(asked.queue)
    request = leases.LeaseRequest(asked.count, asked.seconds, asked.wait, asked.attempt_id)
    ask, wait = leases.lease_ask(request, {}, worker)

    def begin(take: Callable[[Any], bool]) -> Waiter | None:
        return leases.lease(engine, wanted, ask, wait, take)

    found: list[Leased] | None = await awaited(engine, begin)
    return leases.lease_answer(found or [], b"")


async def settle(engine: Engine, asked: Ack | Fail | Release | Extend, worker: str | None) -> bytes:
    [told] = await leases.settle(engine, [settle_of(asked)], worker)
    return codec.encode(told)


async def peek(engine: Engine, asked: Peek, _worker: str | None) -> bytes:
    names.queue(asked.queue)
    if not 1 <= asked.count <= queues.PEEK_MOST:
        raise CallerError(f"`count` should be from 1 to {queues.PEEK_MOST}, not {asked.count}")
    ready, bodies = await engine.peek(asked.queue, asked.count)
    return b'{"queue":"%b","ready":%d,"jobs":[%b]}' % (asked.queue.encode(), ready, b",".join(bodies))


async def stats(engine: Engine, asked: Stats, _worker: str | None) -> bytes:
    if asked.queue is None:
        return codec.encode(await queues.all_stats(engine))
    return codec.encode(await queues.stats(engine, names.queue(asked.queue)))


async def start(engine: Engine, asked: OfQueue, _worker: str | None) -> bytes:
    await engine.start_queue(names.queue(asked.queue))
    return codec.encode({"queue": asked.queue, "status": 1})


async def stop(engine: Engine, asked: OfQueue, _worker: str | None) -> bytes:
    await engine.stop_queue(names.queue(asked.queue))
    return codec.encode({"queue": asked.queue, "status": 0})


async def purge(engine: Engine, asked: OfQueue, _worker: str | None) -> bytes:
    return codec.encode({"queue": asked.queue, "purged": await engine.purge(names.queue(asked.queue))})


async def retry(engine: Engine, asked: Retry, _worker: str | None) -> bytes:
    names.queue(asked.queue)
    if asked.id is None:
        body = codec.encode(
            {k: v for k, v in (("limit", asked.limit), ("rate", asked.rate)) if v is not None}
        )
        return codec.encode(await job.retry_all(engine, asked.queue, body))
    if asked.limit is not None or asked.rate is not None:
        raise CallerError("`limit` and `rate` are for a retry of all dead jobs: leave out `id`")
    await job.retry(engine, asked.queue, names.job(asked.id))
    return codec.encode({"queue": asked.queue, "id": asked.id, "state": "ready"})


async def delete(engine: Engine, asked: Delete, _worker: str | None) -> bytes:
    gone = await job.delete(engine, names.queue(asked.queue), names.job(asked.id))
    return codec.encode({"queue": asked.queue, "id": asked.id, "deleted": gone})


async def add(engine: Engine, asked: Add, _worker: str | None) -> bytes:
    job_id = await _stored(engine, asked.queue, asked.value, PushOptions())
    return b'{"queue":"%b","key":"%b:%b","value":%b}' % (
        asked.queue.encode(), asked.queue.encode(), job_id.encode(), bytes(asked.value),
    )  # fmt: skip


async def take(engine: Engine, asked: OfQueue, worker: str | None) -> bytes:
    found = await _fetched(engine, names.queue(asked.queue), 0, worker)
    return b'{"queue":"%b","key":"%b:%b","value":%b}' % (
        found.queue.encode(), found.queue.encode(), found.id.encode(), found.body,
    )  # fmt: skip


async def get(engine: Engine, asked: OfQueue, _worker: str | None) -> bytes:
    _, bodies = await engine.peek(names.queue(asked.queue), 1)
    if not bodies:
        raise NoJob
    return b'{"queue":"%b","value":%b}' % (asked.queue.encode(), bodies[0])


async def delete_key(engine: Engine, asked: Del, worker: str | None) -> bytes:
    queue, _, job_id = asked.key.rpartition(":")
    if queue not in ("", asked.queue):
        raise CallerError("`key` should be the queue and the id of a job, as `add` has answered")
    await delete(engine, Delete(cmd="delete", queue=asked.queue, id=job_id), worker)
    return codec.encode({"queue": asked.queue, "key": asked.key, "deleted": True})


@dataclass(frozen=True, slots=True)
class Command:
    """The fields of a command, and what it does; that returns a JSON object as bytes."""

    request: type[Any]
    run: Callable[[Engine, Any, str | None], Awaitable[bytes]]


COMMANDS: dict[str, Command] = {
    "push": Command(Push, push),
    "fetch": Command(Fetch, fetch),
    "lease": Command(Lease, lease),
    "ack": Command(Ack, settle),
    "fail": Command(Fail, settle),
    "release": Command(Release, settle),
    "extend": Command(Extend, settle),
    "peek": Command(Peek, peek),
    "stats": Command(Stats, stats),
    "start": Command(OfQueue, start),
    "stop": Command(OfQueue, stop),
    "purge": Command(OfQueue, purge),
    "retry": Command(Retry, retry),
    "delete": Command(Delete, delete),
    # RestMQ's words
    "add": Command(Add, add),
    "take": Command(OfQueue, take),
    "get": Command(OfQueue, get),
    "del": Command(Del, delete_key),
}


async def run_all(engine: Engine, body: bytes, worker: str | None) -> bytes:
    """Carry out one command, or an array of them in their order, and return the answer or their array.

    A single command that cannot be carried out raises why; in an array it is answered with its error, and
    those behind it are carried out nevertheless.
    """
    codec.check(body)
    if not body.lstrip(b" \t\r\n").startswith(b"["):
        asked = read(body)
        return with_ref(await COMMANDS[asked.cmd].run(engine, asked, worker), asked.ref)
    return b"[" + b",".join([await outcome(engine, one, worker) for one in split(body)]) + b"]"


async def outcome(engine: Engine, message: bytes, worker: str | None) -> bytes:
    """Carry out one command and return its answer, or its error as one."""
    try:
        asked = read(message)
        return with_ref(await COMMANDS[asked.cmd].run(engine, asked, worker), asked.ref)
    except PresqueError as error:
        return refusal(message, error)
    except Exception:  # noqa: BLE001  (the last resort)
        return broken(message)


def broken(message: bytes) -> bytes:
    """The answer to a command on which presque made a mistake; called where that is caught, for the log."""
    log.exception("command.broken bytes=%d", len(message))
    return refusal(message, OurFault("internal error; see the server log"))


def split(message: bytes) -> list[bytes]:
    """The commands of an array, each as its own bytes."""
    commands = codec.decode_request(message, list[codec.Raw])
    if len(commands) > COMMANDS_MOST:
        raise CallerError(f"at most {COMMANDS_MOST} commands in one array, not {len(commands)}")
    return [bytes(one) for one in commands]


def read(message: bytes, defaults: Mapping[str, str] | None = None) -> Any:
    """The request that a message holds, with every field checked for its type.

    `defaults` stand for fields that the message may leave out, where its command knows them.
    """
    envelope = codec.decode_request(message, _Envelope)
    command = COMMANDS.get(envelope.cmd)
    if command is None:
        raise CallerError(f"there is no command `{shown(envelope.cmd)}`: {', '.join(COMMANDS)}")
    _check_ref(envelope.ref)
    if defaults:
        given = codec.decode_request(message, dict[str, codec.Raw])
        fields = command.request.__struct_fields__
        missing = {k: v for k, v in defaults.items() if k not in given and k in fields}
        if missing:
            message = codec.encode({**given, **missing})
    return codec.decode_request(message, command.request)


def push_options(asked: Push) -> PushOptions:
    """How the job of a push is to be stored."""
    fields = {}
    for name in params.PUSH:
        value = getattr(asked, name)
        if value is not None:
            fields[name] = value if isinstance(value, str) else _number(value)
    return params.push_options(fields)


def settle_of(asked: Ack | Fail | Release | Extend) -> Settle:
    """The one lease that a settling command is about, checked."""
    request = leases.SettleRequest(
        ack=(asked,) if isinstance(asked, Ack) else (),
        fail=(asked,) if isinstance(asked, Fail) else (),
        release=(asked,) if isinstance(asked, Release) else (),
        extend=(asked,) if isinstance(asked, Extend) else (),
    )
    return leases.settles(request)[0]


def with_ref(reply: bytes, ref: codec.Raw) -> bytes:
    """The answer with the `ref` of its command."""
    return reply if not bytes(ref) else b'{"ref":%b,%b' % (bytes(ref), reply[1:])


def refusal(message: bytes, error: PresqueError) -> bytes:
    """Why a command was not carried out, with its `ref` as far as that can be read."""
    reply = codec.encode({"error": str(error), "code": error.code})
    try:
        ref = codec.decode_request(message, _Envelope).ref
        _check_ref(ref)
    except PresqueError:
        return reply
    return with_ref(reply, ref)


def fetched(found: Fetched) -> bytes:
    """A fetched job as the answers show it."""
    return b'{"queue":"%b","id":"%b","body":%b}' % (found.queue.encode(), found.id.encode(), found.body)


async def _stored(engine: Engine, queue: str, body: codec.Raw, options: PushOptions) -> str:
    names.queue(queue)
    if not bytes(body):
        raise JobMissing
    stored: asyncio.Future[int | PresqueError] = asyncio.get_running_loop().create_future()

    def done(result: int | PresqueError) -> None:
        _set(stored, result)

    jobs.push(engine, queue, bytes(body), options, done)
    result = await stored
    if isinstance(result, PresqueError):
        raise result
    return str(result)


async def _fetched(engine: Engine, queue: str, wait: float, worker: str | None) -> Fetched:
    wanted: QueueList = names.queue_list(queue)
    if not 0 <= wait <= params.WAIT_MOST:
        raise CallerError(f"`wait` should be from 0 to {params.WAIT_MOST}, not {params.figure(wait)}")

    def begin(take: Callable[[Any], bool]) -> Waiter | None:
        return jobs.fetch(engine, wanted, wait, worker, take)

    found: Fetched | None = await awaited(engine, begin)
    if found is None:
        raise NoJob
    return found


async def awaited(engine: Engine, begin: Callable[[Callable[[Any], bool]], Waiter | None]) -> Any:
    """What a fetch or a lease brings. Whoever is cancelled meanwhile takes no job."""
    found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    waiter = begin(lambda result: _set(found, result))
    try:
        result = await found
    except asyncio.CancelledError:
        if waiter is not None:
            engine.leave(waiter)
        if found.done() and not found.cancelled():
            brought = found.result()
            if not isinstance(brought, PresqueError):
                engine.give_back([brought] if isinstance(brought, Fetched) else brought or [])
        raise
    if isinstance(result, PresqueError):
        raise result
    return result


def _set(future: asyncio.Future[Any], result: Any) -> bool:
    """Tell the result, if somebody still waits for it."""
    if future.done():
        return False
    future.set_result(result)
    return True


def _check_ref(ref: codec.Raw) -> None:
    text = bytes(ref)
    if len(text) > REF_MOST or text[:1] in (b"{", b"["):
        raise CallerError(f"`ref` should be a text or a number of at most {REF_MOST} bytes")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6f}".rstrip("0").rstrip(".")
