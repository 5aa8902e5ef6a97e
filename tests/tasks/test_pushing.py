"""Pushing calls of tasks, and hearing how they went."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import functools
import pickle
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from presque import App, Client, Dead, Retry, Snooze, current_job
from presque.client import Conflict, NotAllowed, ServerNotReached
from presque.tasks.errors import NoResult, TaskFailed, WrongTask
from tests import rig
from tests.tasks import jobs


@dataclasses.dataclass
class Letter:
    """What is sent."""

    to: str
    when: datetime


@pytest.fixture
def app(server: rig.Server, queue_name: str) -> Iterator[App]:
    found = App(server.url, queue=queue_name, keep=60)
    yield found
    found.client.close()


def work(app: App) -> None:
    """Do what was pushed."""
    app.worker(burst=True).start(handle_signals=False)


def test_a_push_is_a_job_that_any_language_can_read(app: App, client: Client, queue_name: str) -> None:
    @app.task(name="letters.send", priority=7, group="ana")
    def send(letter: Letter, *, copies: int = 1) -> None: ...

    pushed = send.push(Letter("ana", datetime(2031, 5, 7, 9, 30, tzinfo=UTC)), copies=2)
    job = client.job(queue_name, pushed.id)
    assert job["body"] == {
        "task": "letters.send",
        "args": [{"to": "ana", "when": "2031-05-07T09:30:00+00:00"}],
        "kwargs": {"copies": 2},
    }
    assert (job["priority"], job["group"], pushed.queue) == (7, "ana", queue_name)
    assert send.body(Letter("ana", datetime(2031, 5, 7, 9, 30, tzinfo=UTC)), copies=2) == job["body"]


def test_a_result_is_awaited_and_has_the_type_that_the_task_says(app: App) -> None:
    @app.task
    def due(days: timedelta) -> Letter:
        return Letter("ana", datetime(2031, 5, 7, tzinfo=UTC) + days)

    pushed = due.push(timedelta(days=2))
    with pytest.raises(TimeoutError, match=r"has not ended within 0.1 s: it goes on"):
        pushed.result(timeout=0.1)
    work(app)
    assert pushed.result() == Letter("ana", datetime(2031, 5, 9, tzinfo=UTC))
    assert pushed.job()["state"] == "done"
    assert due(timedelta(days=2)) == pushed.result()


def test_a_job_that_is_dead_raises_where_its_result_is_awaited(app: App) -> None:
    @app.task(attempts=1)
    def fails() -> None:
        raise ValueError("no such user")

    @app.task
    def gives_up() -> None:
        raise Dead("never")

    first, second = fails.push(), gives_up.push()
    work(app)
    with pytest.raises(TaskFailed, match="ValueError: no such user") as raised:
        first.result()
    assert raised.value.backtrace is not None
    assert "presque/tasks" not in raised.value.backtrace
    assert "in fails" in raised.value.backtrace
    with pytest.raises(TaskFailed, match="never"):
        second.result()


async def test_a_result_that_was_not_kept_is_not_taken_for_none(app: App) -> None:
    @app.task(keep=0)
    def answer() -> int:
        return 42

    @app.task(keep=0)
    def nothing() -> None: ...

    pushed, other = await answer.apush(), await nothing.apush()
    waiting = [asyncio.create_task(one.aresult()) for one in (pushed, other)]
    found = await asyncio.gather(*waiting, asyncio.to_thread(work, app), return_exceptions=True)
    assert isinstance(found[0], NoResult)
    assert str(found[0]) == f"job 1 of `{pushed.queue}` is done, and was not kept: give the task a `keep`"
    assert found[1] is None
    with pytest.raises(NoResult, match="it was deleted, or it is done and was not kept"):
        await other.aresult()
    app.async_client.close()


def test_many_are_pushed_in_requests_of_a_thousand(app: App, client: Client, queue_name: str) -> None:
    @app.task
    def count(number: int, text: str = "") -> None: ...

    pushed = count.push.many((number,) for number in range(1001))
    pushed += count.push.many([{"number": 1}, count.arguments(2, text="x"), (3, "y")])
    assert [one.id for one in pushed] == [str(number) for number in range(1, 1005)]
    assert client.stats(queue_name)["ready"] == 1004
    assert client.job(queue_name, "1003")["body"]["kwargs"] == {"text": "x"}
    with pytest.raises(TypeError, match="missing a required argument: 'number'"):
        count.push.many([(1,), ()])
    wrong: Any = ["x"]
    with pytest.raises(TypeError, match=r"a call is `task.arguments\(…\)`"):
        count.push.many(wrong)
    assert client.stats(queue_name)["ready"] == 1004


def test_large_jobs_are_pushed_in_several_requests(app: App, client: Client, queue_name: str) -> None:
    @app.task
    def store(text: str) -> None: ...

    assert len(store.push.many([("x" * 400_000,)] * 5)) == 5
    assert client.stats(queue_name)["ready"] == 5


async def test_pushes_on_asyncio_are_the_same(app: App) -> None:
    @app.task
    def count(number: int) -> int:
        return number

    one = await count.apush(1)
    more = await count.apush.many([(2,), (3,)])
    await asyncio.to_thread(work, app)
    assert [await pushed.aresult() for pushed in (one, *more)] == [1, 2, 3]
    assert (await one.ajob())["state"] == "done"
    with pytest.raises(TypeError, match="too many positional"):
        await count.apush(*(1, 2))  # type: ignore[call-arg]
    app.async_client.close()


def test_more_can_be_said_about_a_push(app: App, client: Client, queue_name: str) -> None:
    @app.task(priority=3)
    def send(to: str) -> None: ...

    later = send.options(delay="5m", priority=9, queue=f"{queue_name}.other").push("ana")
    job = client.job(f"{queue_name}.other", later.id)
    assert (job["state"], job["priority"], later.queue) == ("scheduled", 9, f"{queue_name}.other")
    soon = send.options(delayed=datetime.now(UTC) + timedelta(hours=1), ttl=timedelta(days=1)).push("bob")
    assert client.job(queue_name, soon.id)["state"] == "scheduled"
    assert client.job(queue_name, send.push("eve").id)["priority"] == 3


def test_a_unique_task_waits_once_for_each_of_its_arguments_or_for_what_they_say(app: App) -> None:
    @app.task(uniq=True)
    def build(project: str, branch: str = "main") -> None: ...

    @app.task(uniq=lambda to, **_: f"mail-{to}", group=lambda to, **_: to)
    def send(to: str, text: str) -> None: ...

    build.push("a")
    build.push("b")
    with pytest.raises(Conflict):
        build.push("a")
    build.options(uniq=False).push("a")
    send.push("ana", text="1")
    with pytest.raises(Conflict):
        send.push("ana", text="2")
    send.push("bob", text="3")
    with pytest.raises(TypeError, match="has unique jobs: push them one by one"):
        build.push.many([("c",)])


def test_arguments_that_do_not_fit_are_refused_where_they_are_pushed(app: App, client: Client) -> None:
    @app.task(name="t.send")
    def send(to: str, /, count: int, *more: int, when: datetime | None = None, **extra: float) -> None: ...

    wrong: Any = send
    for call, error, said in (
        (lambda: wrong.push(), TypeError, "missing a required argument: 'to': the task is `t.send(to, /,"),
        (lambda: wrong.push(1, 2), ValueError, "`to` of `t.send` should be a text, not `1`"),
        (lambda: wrong.push("a", "2"), ValueError, "should be a whole number, not the text `2`"),
        (lambda: wrong.push("a", 2, "3"), ValueError, "`more` of `t.send` should be a whole number"),
        (lambda: wrong.push("a", 2, when=5.5j), TypeError, "`when` of `t.send`: JSON cannot represent"),
        (lambda: wrong.push("a", 2, when="x"), ValueError, "`when` of `t.send` should be a date and time"),
        (lambda: wrong.push("a", 2, size="x"), ValueError, "`size` of `t.send` should be a number, not `x`"),
    ):  # fmt: skip
        refused: Any = call
        with pytest.raises(error) as raised:
            refused()
        assert said in str(raised.value)
    assert send.push("a", 2, 3, 4, when=datetime.now(UTC), size=1.5).id == "1"


def test_anything_to_call_can_be_a_task(app: App) -> None:
    class Doubling:
        def __call__(self, self_: int) -> int:
            return 2 * self_

    def power(base: int, exponent: int) -> int:
        return int(base**exponent)

    def odd(self: int, /, task: int, *, args: int) -> int:
        return self + task + args

    doubled = app.task(Doubling())
    squared = app.task(name="squared")(functools.partial(power, exponent=2))
    added = app.task(odd)
    assert doubled.name.endswith("Doubling")
    pushed = [doubled.push(self_=21), squared.push(5), added.push(1, task=2, args=3)]
    work(app)
    assert [one.result() for one in pushed] == [42, 25, 6]


def test_declarations_that_cannot_work_are_refused_with_a_sentence() -> None:
    app = App()

    @app.task
    def send(to: str) -> None: ...

    def another(to: str) -> None: ...

    def generator() -> Iterator[int]:
        yield 1

    class Mailer:
        def send(self, to: str) -> None: ...

        @classmethod
        def of(cls, to: str) -> None: ...

        @staticmethod
        def well(to: str) -> None: ...

    app.task(Mailer.well)
    app.task(Mailer().send)

    def declare(**options: Any) -> Callable[[], object]:
        return lambda: app.task(**options)(lambda: None)

    cron: Any = app.cron
    anything: Any = app
    nothing: Any = None
    for call, said in (
        (declare(prority=9), "unknown option `prority`, did you mean `priority`?"),
        (declare(priority=19), "`priority` should be"),
        (declare(queue="no queue"), "`no queue` is not a valid queue name"),
        (declare(delay="5x"), "`delay` should be a duration"),
        (declare(concurrency=0), "`concurrency` should be 1 to 10000, not `0`"),
        (declare(timeout=5), "a thread cannot be stopped, so `timeout` needs `fork` or `async def`"),
        (declare(max_memory="1GiB"), "`max_memory` is for the process of a job, so it needs `fork`"),
        (declare(version=0), "`version` should be a whole number from 1 on"),
        (declare(aliases="x"), "`aliases` should be a list of names"),
        (declare(aliases=[5]), "`aliases` should be a list of names"),
        (declare(name=5), "`name` should be a text, not `5`"),
        (declare(fork="yes"), "`fork` should be True or False, not `yes`"),
        (declare(queue=True), "`queue` should be a text, not `true`"),
        (declare(keep=True), "`keep` should be a duration such as"),
        (declare(priority=True), "`priority` should be a whole number from 1 to 9, not `true`"),
        (declare(attempts=False), "`attempts` should be a whole number from 1 to 1000, not `false`"),
        (declare(group=True), "`group` should be a text, not `true`"),
        (declare(idempotency_key=5), "`idempotency_key` should be a text, not `5`"),
        (declare(idempotency_key="a"), "an `idempotency_key` is that of one job, and all others would be"),
        (lambda: App(idempotency_key="a"), "an `idempotency_key` is that of one job"),
        (declare(uniq=["a"]), "`uniq` should be a text, not a list"),
        (declare(ttl=lambda to: 5), "`ttl` should be a duration such as"),
        (lambda: App(keep=True), "`keep` should be a duration such as"),
        (lambda: App(queue=nothing), "`queue` should be a text, not null"),
        (lambda: anything.task(another).options(delay=True), "`delay` should be a duration such as"),
        (lambda: App(attempts=0), "`attempts` should be"),
        (lambda: anything.task(send), "is a task already"),
        (lambda: anything.task(5), "a task is a function, not of type `int`"),
        (lambda: anything.task("mail"), 'a queue is said as `@app.task(queue="mail")`'),
        (lambda: anything.task(Mailer), "not a class such as `Mailer`"),
        (lambda: anything.task(Mailer.send), "is a method, and a worker has no object to call it on"),
        (lambda: anything.task(vars(Mailer)["of"]), "make it a function or a staticmethod"),
        (declare(max_retries=3), "here it is `attempts`, which counts the first one, too"),
        (declare(countdown=3), "here it is `delay`"),
        (lambda: anything.task(another).options(timeout=5), "`timeout` is for workers, say it in `@app.task"),
        (lambda: app.task(generator), "has a `yield`, so calling it does nothing"),
        (lambda: app.task(name=send.name)(lambda: None), "two tasks are called"),
        (lambda: anything.task(another).options(retries=5), "unknown option `retries`, here it is"),
        (lambda: cron()(another), "give a schedule such as"),
        (lambda: cron("@daily", every="5m")(another), "give a schedule such as"),
        (lambda: cron(another), 'say when: `@app.cron("0 3 * * *")`'),
        (lambda: cron("0 3 * *")(another), "has five fields, which are minute, hour, day, month and weekday"),
        (lambda: cron(5)(another), "a schedule should be a text"),
        (lambda: cron(every=0)(another), "`every` should be whole seconds, 1 or more, not `0`"),
        (lambda: cron(every="500ms")(another), "whole seconds"),
        (lambda: cron("@daily", timezone="Europe/Pari")(another), "did you mean `Europe/Paris`?"),
        (lambda: cron("@daily")(send), "missing a required argument: 'to'"),
        (lambda: cron("@daily", name="no name")(send), "is not a valid recurring job name"),
        (lambda: cron("@daily", priority=3)(send), "give the options of a task where it is declared"),
    ):  # fmt: skip
        with pytest.raises(WrongTask) as raised:
            call()
        assert said in str(raised.value)


def test_a_task_is_copied_and_pickled_as_a_function_is() -> None:
    assert pickle.loads(pickle.dumps(jobs.add)) is jobs.add  # as for a pool of processes
    assert copy.deepcopy({"call": jobs.add})["call"] is jobs.add
    with pytest.raises(pickle.PicklingError):
        pickle.dumps(jobs.add.options(priority=9))


def test_a_module_that_is_loaded_again_declares_its_tasks_again(app: App) -> None:
    def declare() -> Any:
        @app.task
        @app.cron(every="5m")
        def again() -> None: ...

        return again

    with pytest.raises(WrongTask, match="is a task already"):
        declare()

    def declare_well() -> Any:
        @app.cron(every=timedelta(minutes=5))
        @app.task
        def well() -> None: ...

        return well

    assert declare_well() is not declare_well()
    [found] = [one for one in app.recurring if one.task.name.endswith("well")]
    assert found.schedule == "@every 300s"


def test_a_server_that_refuses_or_is_away_is_told_as_for_a_client(app: App) -> None:
    away = App("http://127.0.0.1:9", token="no-token", request_timeout=1)

    @away.task
    def send() -> None: ...

    with pytest.raises(ServerNotReached):
        send.push()
    assert NotAllowed is not None


def test_pushes_run_at_once_inline() -> None:
    app = App("http://127.0.0.1:9", queue="mail", attempts=2)

    @app.task
    def add(a: int, when: timedelta) -> timedelta:
        return when * a

    @app.task
    async def add_async(a: int) -> int:
        await asyncio.sleep(0)
        await add.apush(a, timedelta(1))
        return a + 1

    @app.task
    def fails() -> None:
        raise ValueError("no")

    with app.inline() as ran:
        assert add.push(2, timedelta(seconds=3)).result() == timedelta(seconds=6)
        assert add_async.push(1).result() == 2
        assert [one.result() for one in add.push.many([(1, timedelta(1)), (2, timedelta(2))])] != []
        failed = fails.options(delay="5m").push()
        with pytest.raises(TaskFailed, match="ValueError: no"):
            failed.result()

    async def on_a_loop() -> int:
        with app.inline():
            await add.apush.many([(1, timedelta(1))])
            return await (await add_async.apush(5)).aresult()

    assert asyncio.run(on_a_loop()) == 6
    assert [one.task.rpartition(".")[2] for one in ran.outcomes] == [
        "add", "add", "add_async", "add", "add", "fails", "fails",
    ]  # fmt: skip
    last = ran.outcomes[-1]
    assert (last.state, last.error, last.options) == (
        "dead",
        "ValueError: no",
        {"attempts": 2, "delay": "5m"},
    )
    with pytest.raises(ServerNotReached):
        fails.push()


def test_inline_a_task_comes_again_at_once_until_its_attempts_are_over() -> None:
    app = App(attempts=3)

    @app.task
    def steps(raises: list[str]) -> list[int]:
        job = current_job()
        done = (job.saved or 0) + 1
        job.save(done)
        job.progress({"done": done})
        if done <= len(raises):
            raise {"snooze": Snooze("1h"), "retry": Retry(in_="1h"), "error": ValueError("no")}[
                raises[done - 1]
            ]
        return [done, job.attempt]

    @app.task
    async def steps_async(raises: list[str]) -> list[int]:
        return steps(raises)

    @app.task
    def never() -> None:
        raise Snooze("1h")

    @app.task
    def hopeless() -> None:
        raise Dead("no such user")

    for task in (steps, steps_async):
        with app.inline() as ran:
            pushed = task.push(["snooze", "retry", "snooze", "error"])
            assert pushed.result() == [5, 3]
            told = pushed.job()
            assert (told["state"], told["attempt"], told["progress"]) == ("done", 3, {"done": 5})
            assert [one["error"] for one in told["errors"]] == ["Retry", "ValueError: no"]
        assert [(one.state, one.attempt) for one in ran.outcomes] == [
            ("released", 1), ("failed", 1), ("released", 2), ("failed", 2), ("done", 3),
        ]  # fmt: skip
    with app.inline() as ran:
        with pytest.raises(TaskFailed, match="ValueError: no"):
            steps.push(["error", "error", "error"]).result()
        assert [one.state for one in ran.outcomes] == ["failed", "failed", "dead"]
        with pytest.raises(TaskFailed, match="no such user"):
            hopeless.push().result()
        assert len(ran.outcomes) == 4
        with pytest.raises(RuntimeError, match=r"never` was snoozed or given back 1000 times.*let the test"):
            never.push()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("delay", "here it is `send.push(…)`"),
        ("enqueue", "here it is `send.push(…)`"),
        ("send", "here it is `send.push(…)`"),
        ("apply_async", 'here it is `send.options(delay="5m").push(…)`'),
        ("starmap", "here it is `send.push.many(…)`"),
        ("nonsense", "a task has no `nonsense`"),
    ],
)
def test_a_word_of_another_queue_is_answered_with_the_one_here(name: str, said: str) -> None:
    app = App()

    @app.task
    def send(to: str) -> None: ...

    with pytest.raises(AttributeError) as raised:
        getattr(send, name)
    assert str(raised.value).endswith(said)
    assert not hasattr(send, name)
    assert copy.copy(send).name == send.name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("enqueue", "here it is `f.push(…)` of a task `f`"),
        ("send_task", "here it is `f.push(…)` of a task `f`"),
        ("enqueue_in", 'here it is `f.options(delay="5m").push(…)` of a task `f`'),
        ("actor", "here it is `@app.task`"),
        ("periodic_task", 'here it is `@app.cron("0 3 * * *")`'),
        ("autodiscover_tasks", "here it is `presque worker MODULE…` in a shell"),
        ("conf", "here it is the arguments of `App(…)`"),
        ("nonsense", "an App has no `nonsense`"),
    ],
)
def test_a_word_of_another_app_is_answered_with_the_one_here(name: str, said: str) -> None:
    app = App(queue="mail")
    with pytest.raises(AttributeError) as raised:
        getattr(app, name)
    assert str(raised.value).endswith(said)
    assert not hasattr(app, name)
    assert copy.copy(app).tasks == []
