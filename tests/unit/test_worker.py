"""Workers without a server: what a class must have, what its settings may be, one job's life."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from presque import Dead, Retry, Worker
from presque.client import LeasedJob
from presque.testing import InlineClient, Outcome, perform
from presque.worker import Job, JobTimeout, WrongSetting, interrupts, to_file
from presque.worker.ahead import ROOM_MOST, Ahead
from presque.worker.backoff import Backoff
from presque.worker.execution import DONE
from presque.worker.executors import Finishing
from presque.worker.held import Held
from presque.worker.outbox import BYTES_MOST, COUNT_MOST, UNTOLD, Letter, Outbox, settlements
from presque.worker.report import report, some
from presque.worker.settings import OPTIONS, Options
from presque.worker.signals import Signals


class Double(Worker):
    def work(self, job: Any) -> Any:
        return job * 2


def does(work: Callable[[Any, Any], Any], **attributes: Any) -> type[Worker]:
    """A worker class with this `work`."""
    return type("Some", (Worker,), {"work": work, **attributes})


# --- construction


def test_a_class_without_work_cannot_be_constructed() -> None:
    class Idle(Worker):
        pass

    with pytest.raises(TypeError, match="`Idle` has no `work`: a worker needs a method"):
        Idle(queue="q")


def test_a_subclass_with_its_own_constructor_needs_work_too() -> None:
    class Idle(Worker):
        def __init__(self) -> None:
            pass

    with pytest.raises(TypeError, match="has no `work`"):
        Idle()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "the worker has no queue: give `queue` or `queues`"),
        ({"queue": "a", "queues": "b"}, "give `queue` or `queues`, not both"),
        ({"queue": "a b"}, "`a b` is not a queue name or pattern"),
        ({"queue": "q", "interval": 0}, "`interval` should be 0.1 to 60, not 0"),
        ({"queue": "q", "lease": "1 minute"}, "`lease` should be a duration"),
        ({"queue": "q", "concurrency": "many"}, "`concurrency` should be a whole number"),
        ({"queue": "q", "concurrency": 0}, "`concurrency` should be 1 to 10000, not 0"),
        ({"queue": "q", "max_memory": "1G"}, "it needs `fork`"),
        ({"queue": "q", "max_memory": "much", "fork": True}, "`max_memory` should be a size"),
        ({"queue": "q", "concurrency": 2, "timeout": 1}, "a thread cannot be stopped"),
        ({"queue": "q", "worker_id": "a b"}, "is not a valid worker id"),
        ({"queue": "q", "burst": "maybe"}, "`burst` should be true or false"),
        ({"queue": "q", "max_memory": 5, "fork": True}, "`max_memory` should be at least 1048576, not 5"),
        ({"queue": "q", "base_uri": "ftp://x"}, "`ftp://x` is not a server URL: use http://host:port"),
        ({"queue": "q", "token": "a b"}, "a token is visible ASCII characters without a space"),
    ],
)
def test_a_wrong_setting_is_told_with_what_to_do(options: dict[str, Any], said: str) -> None:
    with pytest.raises(WrongSetting) as caught:
        Double(**options)
    assert said in str(caught.value)


def test_an_unknown_setting_names_its_nearest_neighbour() -> None:
    misspelt: dict[str, Any] = {"queue": "q", "concurency": 3}
    with pytest.raises(TypeError, match="unknown setting `concurency`, did you mean `concurrency`"):
        Double(**misspelt)


def test_the_arguments_that_a_type_checker_knows_are_those_that_there_are() -> None:
    assert set(Options.__annotations__) == {*OPTIONS, "token"} - {"queues"}


def test_an_unknown_setting_in_the_environment_names_its_nearest_neighbour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PRESQUE_WORKER_PORT", "tcp://10.0.0.7:80")  # Kubernetes, of a Service of this name
    Double(queue="q")
    monkeypatch.setenv("PRESQUE_WORKER_CONCURENCY", "3")
    with pytest.raises(WrongSetting, match="`PRESQUE_WORKER_CONCURENCY` in the environment, did you mean"):
        Double(queue="q")


def test_an_argument_is_stronger_than_the_environment_and_that_than_the_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = does(lambda _self, _job: None, queue="of-class", concurrency=2, interval="5s")
    assert kind().settings.queues == "of-class"
    monkeypatch.setenv("PRESQUE_WORKER_QUEUES", "of-environment")
    monkeypatch.setenv("PRESQUE_WORKER_CONCURRENCY", "3")
    assert (kind().settings.queues, kind().settings.concurrency) == ("of-environment", 3)
    found = kind(queues=["a", "b*"], concurrency=4).settings
    assert (found.queues, found.concurrency, found.interval) == ("a,b*", 4, 5.0)


def test_each_worker_has_an_id_of_its_own() -> None:
    assert Double(queue="q").settings.worker_id != Double(queue="q").settings.worker_id


def test_the_job_is_for_use_inside_of_work() -> None:
    with pytest.raises(RuntimeError, match="inside of `work`"):
        _ = Double(queue="q").job


# --- one job's life


def test_a_job_is_done_with_its_result() -> None:
    assert perform(Double, 21) == Outcome("done", 42)


def test_a_job_that_raises_has_failed_and_on_its_last_attempt_is_dead() -> None:
    def work(_self: Any, job: Any) -> None:
        raise ValueError(job)

    assert perform(does(work), "no").state == "failed"
    assert perform(does(work), "no", attempt=5).state == "dead"
    assert perform(does(work), "no").error == "ValueError: no"


def test_retry_and_dead_say_what_is_to_become_of_the_job() -> None:
    def work(_self: Any, job: Any) -> None:
        if job == "dead":
            raise Dead("no such user")
        raise Retry("busy", in_=30)

    assert perform(does(work), "dead") == Outcome("dead", error="no such user")
    assert perform(does(work), "retry") == Outcome("failed", error="busy", retry_in=30)


@pytest.mark.parametrize("in_", [-1, float("nan"), float("inf")])
def test_a_retry_that_names_no_time_is_refused_where_it_is_raised(in_: float) -> None:
    def work(_self: Any, _job: Any) -> None:
        raise Retry("busy", in_=in_)

    outcome = perform(does(work), 1)
    assert (outcome.state, outcome.retry_in) == ("failed", None)
    assert "a job is retried after 0 to 315360000 seconds" in (outcome.error or "")


@pytest.mark.parametrize("raised", [SystemExit(1), KeyboardInterrupt(), JobTimeout("too long")])
def test_whatever_a_job_raises_is_its_failure_and_not_the_workers(raised: BaseException) -> None:
    def work(_self: Any, _job: Any) -> None:
        raise raised

    assert perform(does(work), 1).state == "failed"


@pytest.mark.parametrize("result", [float("nan"), object(), "\ud800", "x" * 65_536])
def test_a_result_that_cannot_be_sent_is_dropped_and_the_job_is_done(
    result: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert perform(does(lambda _self, _job: result), 1) == Outcome("done")
    assert "job.result_dropped" in caplog.text


def test_progress_and_extension_are_told() -> None:
    def work(self: Any, _job: Any) -> None:
        self.job.progress({"done": 1})
        self.job.extend(600)
        with pytest.raises(ValueError, match="Out of range"):
            self.job.progress(float("inf"))
        with pytest.raises(ValueError, match="it has 65537 bytes, 65536 at most are kept"):
            self.job.progress("x" * 65_535)
        for seconds in (0.5, 43_201, float("nan")):
            with pytest.raises(ValueError, match="held for 1 to 43200 seconds"):
                self.job.extend(seconds)

    assert perform(does(work), 1) == Outcome("done", progress=[{"done": 1}], extended=[600])


def test_an_async_work_is_awaited() -> None:
    class Later(Worker):
        async def work(self, job: Any) -> Any:
            return self.job.id, job

    assert perform(Later, "x", id="7") == Outcome("done", ["7", "x"])


def test_hooks_and_middleware_go_around_the_job_in_order() -> None:
    seen: list[str] = []

    def outer(job: Job, call_next: Callable[[], Any]) -> Any:
        seen.append(f"outer {job.value}")
        result = call_next()
        seen.append("outer again")
        return result + 1

    def inner(_job: Job, call_next: Callable[[], Any]) -> Any:
        seen.append("inner")
        return call_next()

    class Hooked(Double):
        def before_work(self, job: Job) -> None:
            seen.append("before")

        def after_work(self, job: Job, result: Any) -> None:
            seen.append(f"after {result}")

    assert perform(Hooked(queue="q", middleware=[outer, inner]), 2).result == 5
    assert seen == ["outer 2", "inner", "before", "after 4", "outer again"]


def test_middleware_of_an_async_work_is_async() -> None:
    async def plus_one(_job: Job, call_next: Callable[[], Any]) -> Any:
        return await call_next() + 1

    async def work(_self: Any, job: Any) -> Any:
        return job

    assert perform(does(work)(queue="q", middleware=[plus_one]), 1).result == 2


def test_fail_and_the_back_ends_are_told_and_may_break(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[Any, str]] = []

    class Bad(Worker):
        def work(self, job: Any) -> None:
            raise ValueError("no")

        def fail(self, job: Any, error: BaseException) -> None:
            told.append((job, str(error)))
            raise RuntimeError("fail fails")

    worker = Bad(queue="q", failure_backends=[to_file(tmp_path / "failed.jsonl")])
    assert perform(worker, {"n": 1}).error == "ValueError: no"
    assert told == [({"n": 1}, "no")]
    assert "job.fail_raised" in caplog.text
    line = json.loads((tmp_path / "failed.jsonl").read_text())
    assert (line["job"], line["error"], line["queue"]) == ({"n": 1}, "ValueError: no", "test")


def test_the_log_of_a_worker_names_the_job(caplog: pytest.LogCaptureFixture) -> None:
    class Loud(Worker):
        def work(self, job: Any) -> None:
            self.log.warning("working on %s", job)

    perform(Loud, "x", queue="mail", id="9")
    [record] = caplog.records
    assert record.getMessage() == "working on x"
    assert record.__dict__["fields"] == {"queue": "mail", "id": "9", "attempt": 1}


def test_an_inline_client_does_each_job_at_once() -> None:
    client = InlineClient({"double": Double})
    assert client.push_many("double", [1, 2]) == ["1", "2"]
    assert [one.result for one in client.outcomes] == [2, 4]


# --- what goes to the server


def test_nothing_is_raised_in_a_job_where_another_signal_is_noted() -> None:
    class Writing:
        def fileno(self) -> int:
            may.append(interrupts.may_raise(sys._getframe()))
            return -1

    may: list[bool] = []
    signals = Signals(set(), lambda _: None, {})
    for one in (signals._reading, signals._writing):
        one.close()
    signals._writing = Writing()  # type: ignore[assignment]
    interrupts.theirs(signals._noted, signal.SIGINT, None)
    assert may == [False]


def test_neighbours_with_the_same_token_and_no_fields_are_told_together() -> None:
    letters = [
        Letter("ack", "q", "1", "a", {}), Letter("ack", "q", "2", "a", {}),
        Letter("ack", "q", "3", "a", {"result": 1}), Letter("ack", "q", "4", "a", {"result": 1}),
        Letter("ack", "q", "5", "a", {}), Letter("ack", "q", "6", "b", {}), Letter("ack", "r", "7", "b", {}),
        Letter("extend", "r", "8", "b", {}),
    ]  # fmt: skip
    assert settlements(letters) == {
        "ack": [
            {"queue": "q", "ids": ["1", "2"], "lease": "a"},
            {"queue": "q", "ids": ["3"], "lease": "a", "result": 1},
            {"queue": "q", "ids": ["4"], "lease": "a", "result": 1},
            {"queue": "q", "ids": ["5"], "lease": "a"},
            {"queue": "q", "ids": ["6"], "lease": "b"},
            {"queue": "r", "ids": ["7"], "lease": "b"},
        ],
        "extend": [{"queue": "r", "ids": ["8"], "lease": "b"}],
    }


def test_letters_go_out_in_the_order_of_their_answers_and_come_back_to_the_front() -> None:
    outbox = Outbox()
    for n, verb in enumerate(("release", "ack", "extend", "fail", "ack")):
        outbox.put(Letter(verb, "q", str(n), "t", {}))  # type: ignore[arg-type]
    taken = outbox.take()
    assert [letter.id for letter in taken] == ["1", "4", "3", "0", "2"]
    assert list(settlements(taken)) == ["ack", "fail", "release", "extend"]
    outbox.put(Letter("ack", "q", "9", "t", {}))
    outbox.put_back(taken)
    assert len(outbox.take()) == 6


def test_one_request_carries_a_bounded_number_of_letters_and_bytes() -> None:
    outbox = Outbox()
    for n in range(COUNT_MOST + 5):
        outbox.put(Letter("ack", "q", str(n), "t", {}))
    assert len(outbox.take()) == COUNT_MOST
    assert len(outbox.take()) == 5
    for n in range(3):
        outbox.put(Letter("ack", "q", str(n), "t", {}, BYTES_MOST - 10))
    assert [len(outbox.take()) for _ in range(3)] == [1, 1, 1]


def test_a_letter_that_is_refused_goes_without_its_fields() -> None:
    fail = Letter("fail", "q", "1", "t", {"error": "x" * 9000, "backtrace": "y", "retry": False}, 9200)
    assert fail.bare().fields == {"error": UNTOLD, "retry": False}
    assert fail.bare().bare() == fail.bare()
    assert Letter("ack", "q", "1", "t", {"result": 1}).bare().fields == {}


def a_held_job(lease_s: float, queue: str = "q", id: str = "1") -> Held:
    job = LeasedJob(queue, id, 1, 1, 5, 5, "p", "t1", "u")
    return Held(job, lambda *_: None, 100.0, lease_s)


def test_a_lease_is_renewed_after_a_third_of_its_time_and_once_at_a_time() -> None:
    held = a_held_job(lease_s=60)
    assert not held.is_due(119)
    assert held.is_due(121)
    assert held.renewal(121) == {}
    assert not held.is_due(200), "the server has not answered yet"
    held.renewed(201)
    assert not held.is_due(220)
    assert held.is_due(222)


def test_a_renewal_never_makes_a_lease_shorter_than_the_job_wished_or_a_whole_lease() -> None:
    held = a_held_job(lease_s=60)
    held.wishes = {"seconds": 600, "progress": 1}
    assert held.is_due(100)
    assert held.renewal(100) == {"seconds": 600, "progress": 1}
    held.renewed(100)
    assert held.renewal(200) == {"seconds": 500}
    held.renewed(200)
    assert held.renewal(650) == {}, "less than a lease is left"
    held.renewed(650)
    held.wishes = {"seconds": 5}
    assert held.renewal(700) == {}


def test_jobs_are_held_ahead_by_how_long_they_take() -> None:
    ahead = Ahead(slots=1, most=200)
    assert ahead.room(0) == 1
    ahead.learn(0.001, 1)
    assert ahead.room(0) == 33
    for _ in range(10):
        ahead.learn(0.001, 10)
    assert ahead.room(0) == 201
    assert ahead.room(151) == 50
    assert ahead.room(152) == 0, "a quarter of them has not begun"
    ahead.learn(10, 1)
    assert ahead.room(0) == 1, "one that takes long is enough"
    ahead.forget()
    assert ahead.room(1) == 0
    assert Ahead(slots=4, most=0).room(3) == 1
    assert Ahead(slots=5000, most=0).room(0) == ROOM_MOST


def test_the_lease_loop_is_woken_once_for_many_outcomes(monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[Any] = []
    told: list[tuple[int, int]] = []

    async def all_are_told() -> None:
        loop = asyncio.get_running_loop()
        wake, over, finishing = loop.call_soon_threadsafe, asyncio.Event(), Finishing()

        def counted(step: Callable[[], None]) -> None:
            woken.append(step)
            wake(step)

        def finished(done: list[Any]) -> None:
            told.append((len(done), len(woken)))
            if len(told) == 3:
                over.set()
                return
            finishing.add(a_held_job(60), DONE)
            if len(told) == 2:
                finishing.rest()

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        finishing.attach(loop, finished)
        for _ in range(100):
            finishing.add(a_held_job(60), DONE)
        await over.wait()

    asyncio.run(asyncio.wait_for(all_are_told(), 30))
    assert told[0] == (100, 1)
    assert told[1] == (1, 1), "it looks again by itself"
    assert told[2] == (1, 2), "no other job runs, so it is told at once"


def test_a_report_fits_into_what_the_server_takes() -> None:
    long = [f"{'q' * 120}-{number:07}" for number in range(1000)]
    queues = ",".join(long[:64])
    running = [a_held_job(60, long[0], "9" * 15) for _ in range(1000)]
    body = report(
        lists=[queues, queues], state="working", mode="async", slots=10_000, queues=long,
        running=running, held=1000, processed=10**9, failed=10**9, memory=10**12, now=1e9,
    )  # fmt: skip
    assert len(json.dumps(body)) < 16 * 1024
    assert (len(body["jobs"]), body["running"]) == (10, 1000)
    assert some(["a", "b"]) == ["a", "b"]


def test_backoff_grows_to_its_bound_and_begins_anew() -> None:
    backoff = Backoff()
    waits = [backoff.next() for _ in range(12)]
    assert waits[0] < 0.13
    assert all(wait <= 6 for wait in waits)
    assert min(waits[8:]) >= 4
    backoff.reset()
    assert backoff.next() < 0.13
