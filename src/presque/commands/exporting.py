"""Jobs as lines: all that is known of them goes out, and comes in again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from presque import codec
from presque.commands.call import Call, Reply
from presque.commands.finding import filter_of, sealed, states_of, wanted_by
from presque.commands.job import told
from presque.commands.trace_context import trace_context
from presque.commands.who import Who, not_allowed
from presque.engine.engine import Engine
from presque.engine.finding import Place
from presque.engine.importing import Arriving
from presque.errors import CallerError, NotJson, PresqueError, StoreUnavailable, reworded
from presque.fields import check_together, of, read_values
from presque.job import Failure, Job
from presque.verbs.bounds import BATCH_MOST, PRIORITY
from presque.verbs.vocabulary import NOT_IMPORTED, OF_AN_EXPORT

_FIELDS = of(*OF_AN_EXPORT)


def place_of(who: Who, fields: Mapping[str, Any]) -> Place:
    """Where an export is to begin. Raises `CallerError`."""
    return Place.of(who.opened(fields.get("cursor", "")))


async def lines(engine: Engine, who: Who, fields: Mapping[str, Any], begin: Place) -> AsyncIterator[bytes]:
    """The jobs that match, one a line, in pieces. Behind each piece a line says where to go on, and the last
    line that there is nothing more. Without that line the export is not whole."""
    wanted, states, only = wanted_by(who, fields), states_of(fields), filter_of(fields)
    exported = 0
    try:
        async for jobs, looked in engine.finding.every(wanted, states, only, begin):
            exported += len(jobs)
            cursor = sealed(who, looked)
            end: dict[str, Any] = {"cursor": cursor, "exported": exported}
            if cursor is None:
                end["spoilt"] = sorted(set(looked.spoilt))
            yield b"".join(line(job) for job in jobs) + codec.encode(end) + b"\n"
            if engine.stopping:
                return
    except StoreUnavailable:
        return  # the last line is missing


def line(job: Job) -> bytes:
    """A job as one line: outside a text a line break is only space."""
    found = {name: value for name, value in told(job).items() if value is not None}
    some = {
        "attempts": job.attempts,
        "keep": job.keep,
        "uniq_until": "done" if job.until_done else None,
    }
    found |= {name: value for name, value in some.items() if value is not None}
    if not job.errors:
        del found["errors"]
    return codec.encode(found).replace(b"\r", b" ").replace(b"\n", b" ") + b"\n"


async def run_import(call: Call) -> Reply:
    """Store the jobs of some lines as they were. With a name and a number, once."""
    name, number = call.get("import_name"), call.get("batch")
    if (name is None) != (number is None):
        raise CallerError("give both `import_name` and `batch`, or neither")
    by_queue: dict[str, list[Arriving]] = {}
    for position, text in enumerate(call.body.split(b"\n"), 1):
        if text.strip():
            try:
                found = _read(text)
            except PresqueError as error:
                raise reworded(error, f"line {position}: {error}; nothing was stored") from None
            if found is not None:
                by_queue.setdefault(found[0], []).append(found[1])
    count = sum(map(len, by_queue.values()))
    if count > BATCH_MOST:
        raise CallerError(f"an import should have at most {BATCH_MOST} jobs at once, not {count}")
    for queue in by_queue:
        if not call.who.allows("push", queue):
            raise not_allowed("push", queue)
    imported = 0
    for queue, jobs in by_queue.items():
        imported += await call.engine.importing.put(queue, jobs, name, number)
    return Reply.of({"imported": imported, "known": count - imported})


def _read(text: bytes) -> tuple[str, Arriving] | None:
    """The queue and the job of a line; None for one that only says where to go on."""
    codec.check(text)
    given = codec.decode_request(text, dict[str, codec.Raw])
    if "body" not in given and "cursor" in given:
        return None
    members = {
        name: bytes(raw) if name in _FIELDS and _FIELDS[name].raw else codec.decode(bytes(raw))
        for name, raw in given.items()
        if name not in NOT_IMPORTED
    }
    if not given:
        raise NotJson("it is an empty object")
    fields = read_values(_FIELDS, members)
    check_together(_FIELDS, fields)
    return fields["queue"], _arriving(fields)


def _arriving(fields: Mapping[str, Any]) -> Arriving:
    keep, (traceparent, tracestate) = fields.get("keep"), trace_context(fields)
    return Arriving(
        body=fields["body"],
        state=fields.get("state", "ready"),
        priority=fields.get("priority", PRIORITY),
        pushed_at=fields.get("pushed_at"),
        run_at=fields.get("run_at"),
        expires_at=fields.get("expires_at"),
        finished_at=fields.get("finished_at"),
        kept_until=fields.get("kept_until"),
        leased_at=fields.get("leased_at"),
        attempt=fields.get("attempt", 0),
        attempts=fields.get("attempts"),
        keep=None if keep is None else -(-keep // 1000),
        group=fields.get("group"),
        uniq=fields.get("uniq"),
        until_done=fields.get("uniq_until") == "done",
        traceparent=traceparent,
        tracestate=tracestate,
        cron=fields.get("cron"),
        worker=fields.get("worker", ""),
        progress=fields.get("progress"),
        saved=fields.get("saved"),
        result=fields.get("result"),
        reason=fields.get("reason"),
        errors=_errors(fields.get("errors", ())),
    )


def _errors(said: Sequence[Mapping[str, Any]]) -> tuple[Failure, ...]:
    return tuple(
        Failure(one["at"], one.get("worker", ""), one.get("error", ""), one.get("backtrace")) for one in said
    )
