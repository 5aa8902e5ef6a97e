"""What does it cost the store to keep a history of each queue?

The functions in the store are measured in turn as they are and without what they do for the history: no times
are counted and no notes made. Counted is the CPU time of the store for each job, with calls of one job and of
a hundred: pushed and fetched; pushed, leased and acked. The calls come over one connection, many at a time.

Owed: at most 10 %.

run:          python bench/history.py
last result:  2026-11-29, 2 busy cores: 2 to 7 %, 2 to 4 %, 6 to 8 %, 0 to 2 %, PASS
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

import rig

from presque.engine import calls, library, records
from presque.engine.keys import Keys

JOBS = 10_000
AT_ONCE = 50
WITHOUT = "count_waits", "ran", "note"
"""Functions of the history that the other side calls for nothing."""


def measure(bench: rig.Bench) -> list[rig.Verdict]:
    plain = library.source().replace(f"name={library.NAME}", "name=plain")
    plain = plain.replace(f"'presque_{library.VERSION}_'", "'plain_'")
    for name in WITHOUT:
        empty = rf"\nfunction {name}() end\nlocal function _\1\n"
        plain, found = re.subn(rf"\nfunction {name}(\(.*\))\n", empty, plain)
        if found != 1:
            raise rig.Broken(f"the functions no longer have {name}")
    with rig.valkey(bench.directory / "valkey") as valkey, rig.calls(valkey, AT_ONCE) as ask:
        with rig.store(valkey.socket) as store:
            for source in (library.source(), plain):
                store("FUNCTION", "LOAD", "REPLACE", source)
        sides: dict[str, Callable[[], float]] = {}
        for size in (1, 100):
            for work in (_fetched, _leased):
                for name, prefix in (("with", library.NAME), ("without", "plain")):
                    sides[f"{work.__name__[1:]}, {size} a call, {name}"] = _side(
                        valkey.pid, ask, work, prefix, size
                    )
        for side in sides.values():
            side()
        costs = rig.in_turns(bench.rounds, sides)
    rig.table("CPU microseconds of the store for each job", costs, "{:.2f}")
    verdicts = []
    for size, owed in ((1, 10), (100, 10)):
        for kind in ("fetched", "leased"):
            ours, reference = (costs[f"{kind}, {size} a call, {name}"] for name in ("with", "without"))
            more = (rig.median_ratio(ours, reference) - 1) * 100
            verdicts.append(rig.at_most(f"{kind}, {size} a call: history", more, owed, "%"))
    return verdicts


def _side(
    pid: int, ask: rig.Ask, work: Callable[[rig.Ask, str, int], None], prefix: str, size: int
) -> Callable[[], float]:
    def side() -> float:
        before = rig.cpu_s(pid)
        work(ask, prefix, size)
        return (rig.cpu_s(pid) - before) / JOBS * 1e6

    return side


def _call(prefix: str, name: str, *args: bytes | str | int) -> bytes:
    call = calls.encode(name, Keys("bench").of(prefix), *args)
    return call.replace(
        b"$%d\r\n%b_%b\r\n" % (len(library.NAME) + 1 + len(name), library.NAME.encode(), name.encode()),
        b"$%d\r\n%b_%b\r\n" % (len(prefix) + 1 + len(name), prefix.encode(), name.encode()),
    )


def _push(ask: rig.Ask, prefix: str, size: int) -> None:
    body = records.seal(rig.BODY.encode())
    ask([_call(prefix, "push", 0, 0, *[b"", body] * size)] * (JOBS // size))


def _fetched(ask: rig.Ask, prefix: str, size: int) -> None:
    _push(ask, prefix, size)
    ask([_call(prefix, "fetch", size, 1 << 20)] * (JOBS // size))


def _leased(ask: rig.Ask, prefix: str, size: int) -> None:
    _push(ask, prefix, size)
    leased = ask([_call(prefix, "lease", size, 1 << 20, 60_000, "worker", "nonce", "")] * (JOBS // size))
    settles = []
    for reply in leased:
        _, ids, _, held, *_ = reply[3]
        settles.append(_call(prefix, "settle", "0.5", "ack", held[0], b"", b" ".join(ids)))
    ask(settles)


SCRIPT = rig.Script(measure, __doc__)

if __name__ == "__main__":
    sys.exit(rig.main([SCRIPT], __doc__))
