"""The policy of a queue: how long leases last, how often jobs are tried, what limits hold."""

from __future__ import annotations

from typing import Any

from presque import codec
from presque.commands import params
from presque.engine.engine import Engine
from presque.errors import CallerError

SECONDS_MOST = params.DELAY_MOST
LEASE_MOST = 12 * 3600
COUNT_MOST = 1_000_000_000
DELIVERIES = ("queue", "broadcast", "roundrobin")

DEFAULTS: dict[str, Any] = {
    "lease": 60,
    "max_attempts": 5,
    "backoff": {"first": 15, "factor": 2, "most": 3600, "jitter": 0.1},
    "ttl": None,
    "keep": 0,
    "dead_most": 10_000,
    "max_length": None,
    "overflow": "reject",
    "max_leased": None,
    "group_leased": None,
    "rate": None,
    "delivery": "queue",
}
"""Every field with its value when nobody has set it. Times are seconds; None is "no limit"."""


class Backoff(codec.Struct, forbid_unknown_fields=True, frozen=True):
    """How long a failed job waits: `first` seconds, then each time `factor` times as long, at most `most`,
    each time varied at random by `jitter` of it."""

    first: float | None = None
    factor: float | None = None
    most: float | None = None
    jitter: float | None = None


class Rate(codec.Struct, forbid_unknown_fields=True, frozen=True):
    """At most `count` jobs are handed out in any `seconds`."""

    count: int
    seconds: float


class Policy(codec.Struct, forbid_unknown_fields=True, frozen=True):
    """The body of a PATCH (RFC 7396): a field that is given is set, one that is null goes back to its
    default, others stay."""

    lease: float | codec.Unset | None = codec.UNSET
    max_attempts: int | codec.Unset | None = codec.UNSET
    backoff: Backoff | codec.Unset | None = codec.UNSET
    ttl: float | codec.Unset | None = codec.UNSET
    keep: int | codec.Unset | None = codec.UNSET
    dead_most: int | codec.Unset | None = codec.UNSET
    max_length: int | codec.Unset | None = codec.UNSET
    overflow: str | codec.Unset | None = codec.UNSET
    max_leased: int | codec.Unset | None = codec.UNSET
    group_leased: int | codec.Unset | None = codec.UNSET
    rate: Rate | codec.Unset | None = codec.UNSET
    delivery: str | codec.Unset | None = codec.UNSET


# field -> its name in the store, its bounds, and how many of the store's units it has
_NUMBERS: dict[str, tuple[str, float, float, int]] = {
    "lease": ("lease", 1, LEASE_MOST, 1000),
    "max_attempts": ("max_attempts", 1, params.ATTEMPTS_MOST, 1),
    "ttl": ("ttl", 0.001, SECONDS_MOST, 1000),
    "keep": ("keep", 0, params.KEEP_MOST, 1),
    "dead_most": ("dead_most", 0, COUNT_MOST, 1),
    "max_length": ("max_length", 1, COUNT_MOST, 1),
    "max_leased": ("max_leased", 1, COUNT_MOST, 1),
    "group_leased": ("group_leased", 1, COUNT_MOST, 1),
    "backoff.first": ("backoff_first", 0, SECONDS_MOST, 1000),
    "backoff.factor": ("backoff_factor", 1, 100, 1),
    "backoff.most": ("backoff_most", 0, SECONDS_MOST, 1000),
    "backoff.jitter": ("backoff_jitter", 0, 1, 1),
    "rate.count": ("rate_count", 1, COUNT_MOST, 1),
    "rate.seconds": ("rate_ms", 0.001, SECONDS_MOST, 1000),
}
_WORDS = {"overflow": ("reject",), "delivery": DELIVERIES}


async def show(engine: Engine, queue: str) -> dict[str, Any]:
    """The policy of a queue, every field of it."""
    return _told(queue, await engine.jobs.policy(queue))


async def change(engine: Engine, queue: str, body: bytes) -> dict[str, Any]:
    """Change some fields. Returns the whole policy as it is then."""
    asked = codec.decode_request(body, Policy)
    changes: dict[str, Any] = {}
    for field in DEFAULTS:
        value = getattr(asked, field)
        if value is not codec.UNSET:
            changes |= _change(field, value)
    return _told(queue, await engine.jobs.policy(queue, changes))


def _change(field: str, value: Any) -> dict[str, Any]:
    """One field in the words of the store; False goes back to the default."""
    if field in ("backoff", "rate"):
        parts = DEFAULTS["backoff"] if field == "backoff" else ("count", "seconds")
        found: dict[str, Any] = {}
        for part in parts:
            # A backoff is given whole or in part, and what is not given keeps its value.
            one = None if value is None else getattr(value, part)
            if value is None or one is not None:
                found |= _change(f"{field}.{part}", one)
        return found
    if field in _WORDS:
        if value is not None and value not in _WORDS[field]:
            words = " or ".join(f"`{word}`" for word in _WORDS[field])
            raise CallerError(f"`{field}` should be {words}")
        return {field: value or False}
    name, least, most, units = _NUMBERS[field]
    if value is None:
        return {name: False}
    if not least <= value <= most:
        raise CallerError(f"`{field}` should be from {least:.15g} to {most:.15g}, not {params.figure(value)}")
    return {name: value if units == 1 else int(value * units)}


def _told(queue: str, own: dict[str, Any]) -> dict[str, Any]:
    def number(field: str) -> Any:
        name, _, _, units = _NUMBERS[field]
        if name not in own:
            whole, _, part = field.partition(".")
            default = DEFAULTS[whole]
            return default[part] if part and default is not None else default
        found = own[name] / units if units > 1 else own[name]
        return int(found) if found == int(found) else found

    answer: dict[str, Any] = {"queue": queue}
    for field, default in DEFAULTS.items():
        if field == "backoff":
            answer[field] = {part: number(f"{field}.{part}") for part in default}
        elif field == "rate":
            rated = "rate_count" in own and "rate_ms" in own
            answer[field] = (
                {part: number(f"{field}.{part}") for part in ("count", "seconds")} if rated else None
            )
        elif field in _WORDS:
            answer[field] = own.get(field, default)
        else:
            answer[field] = number(field)
    return answer
