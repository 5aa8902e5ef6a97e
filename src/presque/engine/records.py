"""What the store holds of a job, as bytes: its record, and the run of one that was leased.

The layouts are those of lua/records.lua and lua/runs.lua. A body is sealed with its CRC-32 when it is pushed,
and the seal is looked at when it is handed out: memory and disks flip bits, and a job that was changed on the
way must not be carried out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple
from zlib import crc32

from presque import codec

PLAIN, EXTENDED = 0x10, 0x11
HEADER, SEAL = 8, 4
BODY = HEADER + SEAL

# Parts of plain records, as functions that `map` calls without a step of Python for each.
_kind: Callable[[bytes], int] = itemgetter(0)
_seal: Callable[[bytes], bytes] = itemgetter(slice(HEADER, BODY))
_body: Callable[[bytes], bytes] = itemgetter(slice(BODY, None))

_SEAL = struct.Struct(">I")
_RUN = struct.Struct(">BBH6sI6sBH")


def seal(body: bytes) -> bytes:
    """A body as it is pushed, and stored."""
    return crc32(body).to_bytes(SEAL, "big") + body


def body_of(record: bytes) -> bytes:
    """The body of a stored job, unchanged; empty, which no body is, if the record is damaged."""
    start = HEADER if record[0] == PLAIN else _extras_end(record)
    body = record[start + SEAL :]
    return body if crc32(body) == int.from_bytes(record[start : start + SEAL], "big") else b""


def seals_of(bodies: Sequence[bytes]) -> list[bytes]:
    """What `seal` puts before each of many bodies, in less time."""
    return list(map(_SEAL.pack, map(crc32, bodies)))


def bodies_of(records: Sequence[bytes]) -> list[bytes]:
    """The bodies of many records, as `body_of` has them, in less time if all are plain and sound."""
    if len(records) == 1:
        return [body_of(records[0])]
    if set(map(_kind, records)) == {PLAIN}:
        bodies = list(map(_body, records))
        seals = b"".join(map(_seal, records))
        if seals == struct.pack(f">{len(bodies)}I", *map(crc32, bodies)):
            return bodies
    return [body_of(record) for record in records]


def extras_of(record: bytes) -> dict[str, Any]:
    """What was asked for when the job was pushed, by the names of lua/records.lua."""
    if record[0] != EXTENDED:
        return {}
    return codec.unpack_map(record[HEADER + 2 : _extras_end(record)])  # if that is damaged its body tells


def _extras_end(record: bytes) -> int:
    return HEADER + 2 + int.from_bytes(record[HEADER : HEADER + 2], "big")


def trace_of(record: bytes) -> tuple[str, str | None] | None:
    """The traceparent and the tracestate that came with a job."""
    if record[0] == PLAIN:
        return None
    extras = extras_of(record)
    return (extras["trace"], extras.get("tracestate")) if "trace" in extras else None


def priority_of(record: bytes) -> int:
    """From 1 to 9."""
    return record[1]


def pushed_at_of(record: bytes) -> int:
    """Milliseconds since the epoch."""
    return int.from_bytes(record[2:8], "big")


def record_of(body: bytes, priority: int, pushed_at: int, extras: Mapping[str, Any]) -> bytes:
    """The record of a job with these extras."""
    head = bytes((EXTENDED if extras else PLAIN, priority)) + pushed_at.to_bytes(6, "big")
    if not extras:
        return head + seal(body)
    packed = codec.pack(dict(extras))
    return head + len(packed).to_bytes(2, "big") + packed + seal(body)


class Run(NamedTuple):
    """What happened to a job since it was first leased. Moments are milliseconds since the epoch.

    `more` holds what only some have: `errors`, `progress`, `result`, `saved`, `cancel`, `finished`, `reason`.
    """

    attempt: int = 0
    leased_at: int = 0
    worker: str = ""
    more: dict[str, Any] = {}  # noqa: RUF012 (read only)


NO_RUN = Run()


def run_of(packed: bytes) -> Run:
    """The run of a job; an empty text for one that was never leased."""
    if not packed:
        return NO_RUN
    _, _, attempt, _, _, at, of_token, of_worker = _RUN.unpack_from(packed)
    start = _RUN.size + of_token
    end = start + of_worker
    more = codec.unpack_map(packed[end:]) if len(packed) > end else {}
    return Run(attempt, int.from_bytes(at, "big"), packed[start:end].decode(), more)


def packed_run(run: Run, priority: int, *, plain: bool) -> bytes:
    """A run as the store has it, of a job that nobody holds."""
    worker, at = run.worker.encode(), run.leased_at.to_bytes(6, "big")
    fixed = _RUN.pack(PLAIN if plain else EXTENDED, priority, run.attempt, bytes(6), 0, at, 0, len(worker))
    return fixed + worker + (codec.pack(run.more) if run.more else b"")
