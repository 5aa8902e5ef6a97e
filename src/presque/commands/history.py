"""What happened over time: to one queue, or to all that somebody may see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from presque.commands.call import Call, Reply
from presque.commands.queues import EVERYTHING
from presque.commands.times import moment
from presque.engine.history import DEPTH, Happened, History
from presque.periods import quantile_ms
from presque.verbs.bounds import OVER

SUMMED_MOST = 1000
TOLD = {
    "pushed": "pushed",
    "fetched": "fetched",
    "done": "done",
    "failed": "failed",
    "dead": "died",
    "expired": "expired",
}


async def run_history(call: Call) -> Reply:
    """What happened to a queue, or to all of them together, in a period."""
    over, queue = call.get("over", OVER), call.get("queue")
    histories = call.engine.histories
    if queue is not None:
        found = await histories.of(queue, over)
    elif call.who.sees_all:
        found = await histories.of_all(over)
    else:
        index = call.engine.queues.index
        names, _ = await index.select(index.names, call.who.within("read", EVERYTHING), "", SUMMED_MOST)
        found = await histories.of_some(names, over)
    return Reply.of({"queue": queue} | as_json(found))


def as_json(history: History) -> dict[str, Any]:
    """A history as it is answered: its buckets, oldest first, and their sum."""
    ms = history.period.ms
    total, buckets, depth = Happened(), [], history.now_holds
    for number in range(history.last, history.first - 1, -1):
        happened = history.buckets.get(number, _NOTHING)
        total.add(happened)
        bucket = {"at": moment(number * ms)} | _told(happened, _depth(depth))
        if history.oldest is not None:
            ends, since = min((number + 1) * ms, history.now), history.oldest[number]
            bucket["oldest_seconds"] = max(0, ends - since) / 1000 if since else None
        buckets.append(bucket)
        depth = [one - grown for one, grown in zip(depth, happened.depth, strict=True)]
    return {
        "over": history.period.name,
        "seconds": ms // 1000,
        "until": moment(history.now),
        "total": _told(total, _depth(history.now_holds)),
        "buckets": buckets[::-1],
    }


_NOTHING = Happened()


def _depth(depth: list[int]) -> Mapping[str, int]:
    return {name: max(0, count) for name, count in zip(DEPTH, depth, strict=True)}


def _told(happened: Happened, depth: Mapping[str, int]) -> dict[str, Any]:
    return {
        **{word: happened.count(counter) for word, counter in TOLD.items()},
        "depth": depth,
        "wait": _times(happened, "w", "waited_ms"),
        "run": _times(happened, "r", "ran_ms"),
    }


def _times(happened: Happened, letter: str, of_sum: str) -> dict[str, float] | None:
    """Two quantiles and the mean of times, in seconds; None where there are none."""
    times = happened.histogram(letter)
    p50, p95 = quantile_ms(0.5, times), quantile_ms(0.95, times)
    if p50 is None or p95 is None:
        return None
    mean = happened.count(of_sum) / sum(times.values())
    return {"p50": round(p50 / 1000, 3), "p95": round(p95 / 1000, 3), "mean": round(mean / 1000, 3)}
