"""Whatever a job raises or returns becomes the end of that job, and of nothing else, in every mode."""

from __future__ import annotations

import time
from datetime import datetime

import pytest

from presque import Client, Worker
from presque.worker.errors import Dead, Retry
from presque.worker.settings import WrongSetting
from tests import rig
from tests.worker import wild
from tests.worker.conftest import Work, counts, settled

WILD = {
    "inline": ("Wild",),
    "threads": ("Wild", "--concurrency", "2"),
    "async": ("WildAsync", "--concurrency", "2"),
    "fork": ("Wild", "--fork", "--concurrency", "2"),
    "fork and async": ("WildAsync", "--fork", "--concurrency", "2"),
}
every_mode = pytest.mark.parametrize("mode", WILD)

ERRORS = {
    "str_none": "Odd: <cannot be printed>",
    "str_int": "Odd: <cannot be printed>",
    "str_raises": "Odd: <cannot be printed>",
    "str_exits": "Odd: <cannot be printed>",
    "class_raises": "Odd: odd",
    "module_none": "Odd: odd",
    "notes_odd": "Odd: odd",
    "traceback_odd": "Odd: odd",
    "huge": "ValueError: éééé",
    "surrogate": "ValueError: half ?",
    "exits": "SystemExit: 3",
    "exits_odd": "SystemExit: <cannot be printed>",
    "interrupts": "KeyboardInterrupt",
    "generator_exit": "GeneratorExit",
    "stop_iteration": "",
    "cancelled": "CancelledError",
    "recursion": "RecursionError: ",
    "memory": "MemoryError",
    "base": "Base: bare",
    "fail_exits": "ValueError: then fail exits",
    "fail_interrupts": "ValueError: then fail is interrupted",
    "fail_cancels": "ValueError: then fail cancels its task",
    "dead_huge": "xxxx",
    "dead_in_a_group": "no such user",
    "dead_deep_in_groups": "no such user",
    "group": "ExceptionGroup: several (2 sub-exceptions); first ValueError: the first",
    "retry_careless": "careless",
    "chain": "ValueError: 19999",
    "wide": "ExceptionGroup: wide (50000 sub-exceptions); first ValueError: 0",
    "wide_and_dead": "the last",
    "stops_itself": "JobStopped: of its own",
    "cancels_itself": "JobCancelled: of its own",
    "returns_a_generator": "`work` returned a generator, so none of its code ran",
    "returns_a_context": "`work` returned a context manager that nobody entered",
    "returns_an_async_context": "`work` returned a value with a context manager that nobody entered",
    "returns_what_a_pool_does": "`work` returned a result that a pool has not yet",
    "returns_a_map": "`work` returned a `map`, so none of its calls were made",
    "returns_a_starmap": "`work` returned a `starmap`, so none of its calls were made",
    "returns_a_function": "`work` returned a function that nobody called",
    "returns_a_partial": "`work` returned a function that nobody called",
    "returns_coroutines": "`work` returned a value with coroutines that nobody awaited",
    "returns_a_set_of_coroutines": "`work` returned a value with coroutines that nobody awaited",
    "returns_a_map_in_a_list": "`work` returned a value with a `map`, so none of its calls were made",
}


@every_mode
def test_whatever_a_job_raises_is_its_failure_and_nothing_else_stops(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    client.change_policy(queue_name, max_attempts=1, keep=60)
    sync = mode in ("inline", "threads", "fork")
    errors = {**ERRORS, **({"returns_a_coroutine": "`work` returned a coroutine"} if sync else {})}
    ids = {}
    for name in errors:
        ids[name] = client.push(queue_name, name)
        client.push(queue_name, "fine")
    worker = work(*WILD[mode], "--burst", module="wild")
    assert worker.wait(2 * rig.PATIENCE) == 0, worker.said()
    assert counts(client, queue_name) == {
        "ready": 0, "scheduled": 0, "leased": 0, "dead": len(errors), "processed": len(errors),
        "failed": len(errors),
    }, worker.said()  # fmt: skip
    for name, error in errors.items():
        job = client.job(queue_name, ids[name])
        assert (job["state"], job["attempt"]) == ("dead", 1), name
        assert job["errors"][0]["error"].startswith(error), name
        assert len(job["errors"][0]["error"]) <= 2000
        began = [one["id"] for one in worker.notes("began")]
        assert began.count(ids[name]) == 1, name
        told = [one["id"] for one in worker.notes("failed")]
        assert told.count(ids[name]) == 1, f"`fail` is told once: {name}"
    assert worker.notes("ran") == []
    assert max(map(len, worker.said().splitlines())) < 6000
    [huge] = client.job(queue_name, ids["huge"])["errors"]
    assert huge["backtrace"] is not None
    assert 'File "' in huge["backtrace"]


@every_mode
def test_retry_is_kept_however_long_or_deep_it_is(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    for name in ("retry_huge", "retry_in_a_group"):
        client.push(queue_name, name)
    worker = work(*WILD[mode], "--burst", module="wild")
    assert worker.wait() == 0
    for id in ("1", "2"):
        job = client.job(queue_name, id)
        assert job["state"] == "scheduled"
        assert 3500 < seconds_until(job["run_at"]) <= 3600


def seconds_until(moment: str | None) -> float:
    return datetime.fromisoformat(moment or "").timestamp() - time.time()


@every_mode
def test_a_result_that_is_no_json_is_dropped_and_the_job_is_done(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    client.change_policy(queue_name, max_attempts=1, keep=60)
    odd = [name for name in wild.JOBS if name.startswith("result_")]
    client.push_many(queue_name, [*odd, {"do": "fine", "return": [1]}])
    worker = work(*WILD[mode], "--burst", module="wild")
    assert worker.wait() == 0
    assert counts(client, queue_name)["processed"] == len(odd) + 1, worker.said()
    assert client.job(queue_name, str(len(odd) + 1))["result"] == [1]
    assert worker.said().count("job.result_dropped") == len(odd)


@every_mode
def test_what_a_job_tells_is_kept_however_long_its_integers_are(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    client.change_policy(queue_name, max_attempts=1, keep=60)
    ids = client.push_many(queue_name, ["tells_long_integers"] * 2 + ["fine"])
    worker = work(*WILD[mode], "--burst", module="wild")
    assert worker.wait() == 0, worker.said()
    assert counts(client, queue_name)["processed"] == 3, worker.said()
    assert sorted(one["levels"] for one in worker.notes("refused")) == [600, 600, 900, 900]
    assert client.job(queue_name, ids[0])["result"] == [10**5000]
    progress = client.job(queue_name, ids[1])["progress"]
    for _ in range(400):
        [progress] = progress
    assert progress == 10**5000


@pytest.mark.parametrize("flags", [(), ("--fork",)], ids=["async", "fork"])
@pytest.mark.parametrize("kind", ["Forgotten", "OfAnObject", "OfAPartial"])
def test_what_can_be_awaited_is_awaited_in_an_async_worker(
    work: Work, client: Client, queue_name: str, kind: str, flags: tuple[str, ...]
) -> None:
    client.push(queue_name, 1)
    worker = work(kind, "--burst", *flags, module="wild")
    assert worker.wait() == 0
    assert len(worker.notes("ran")) == 1
    assert counts(client, queue_name)["processed"] == 1


@pytest.mark.parametrize(
    "flags", [(), ("--concurrency", "2"), ("--fork",)], ids=["inline", "threads", "fork"]
)
def test_a_coroutine_that_nobody_awaits_is_a_failure(
    work: Work, client: Client, queue_name: str, flags: tuple[str, ...]
) -> None:
    client.change_policy(queue_name, max_attempts=1)
    client.push(queue_name, 1)
    worker = work("Decorated", "--burst", *flags, module="wild")
    assert worker.wait() == 0
    [error] = client.job(queue_name, "1")["errors"]
    assert error["error"] == "`work` returned a coroutine that nobody awaited: write `async def work`"
    assert "RuntimeWarning" not in worker.said()


@pytest.mark.parametrize("flags", [(), ("--fork",)], ids=["async", "fork"])
def test_async_hooks_are_awaited(work: Work, client: Client, queue_name: str, flags: tuple[str, ...]) -> None:
    client.change_policy(queue_name, max_attempts=1)
    client.push_many(queue_name, [{"n": 1}, "raise"])
    worker = work("HookedAsync", "--burst", *flags, module="wild")
    assert worker.wait() == 0
    assert len(worker.notes("before_work")) == 2
    assert [one["result"] for one in worker.notes("after_work")] == [{"n": 1}]
    assert [one["kind"] for one in worker.notes("failed")] == ["ValueError"]
    assert "never awaited" not in worker.said()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (wild.Yields, "`work` has a `yield`"),
        (wild.AsyncYields, "`work` has a `yield`"),
        (wild.SyncWithAsyncHook, "`before_work` cannot be `async def`: `work` is not"),
        (wild.SyncWithAsyncFail, "`fail` cannot be `async def`: `work` is not"),
        (wild.SyncWithAsyncMiddleware, "`around` cannot be `async def`: `work` is not"),
    ],
)
def test_what_would_never_run_is_refused_when_the_worker_is_made(kind: type[Worker], said: str) -> None:
    with pytest.raises(WrongSetting, match=said):
        kind(queue="q")


def test_a_job_with_a_bad_exception_does_not_stop_a_worker_in_a_program(
    server: rig.Server, client: Client, queue_name: str
) -> None:
    class Embedded(Worker):
        def work(self, job: object) -> None:
            raise wild.kind(__str__=lambda _: None)

    client.change_policy(queue_name, max_attempts=1)
    client.push(queue_name, 1)
    Embedded(server.url, queue=queue_name, burst=True).start()
    assert settled(client, queue_name)
    assert client.job(queue_name, "1")["state"] == "dead"


def test_the_seconds_of_a_retry_have_bounds() -> None:
    with pytest.raises(ValueError, match="0 to"):
        Retry(in_=float("nan"))
    assert str(Dead("why")) == "why"
