"""`presque worker MODULE` finds what a module declares and runs it in one process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from presque import App, Client
from presque.worker import WrongSetting
from tests import rig
from tests.tasks.conftest import Run
from tests.worker.conftest import alive, settled

JOBS = "tests.tasks.jobs"


def push(client: Client, queue: str, task: str, *args: Any, **kwargs: Any) -> str:
    """Push a call as any language would."""
    name = f"{JOBS}.{task}" if "." not in task else task
    return client.push(queue, {"task": name, "args": args, "kwargs": kwargs}, keep=60)


def result(client: Client, queue: str, id: str) -> Any:
    """What became of a job."""
    job = client.job(queue, id, wait=rig.PATIENCE)
    return job["result"] if job["state"] == "done" else (job["state"], job["errors"][-1]["error"])


def test_everything_that_a_module_declares_runs_in_one_process(
    run: Run, client: Client, queue_name: str
) -> None:
    ids = {
        queue_name: [push(client, queue_name, "add", 1), push(client, queue_name, "add", a=1, b=5)],
        f"{queue_name}.both": [
            push(client, f"{queue_name}.both", "plain", 1), push(client, f"{queue_name}.both", "later", 2),
            push(client, f"{queue_name}.both", "apart", 3),
        ],
        f"{queue_name}.net": [push(client, f"{queue_name}.net", "net", 3)],
    }  # fmt: skip
    client.push(f"{queue_name}.old", {"n": 4})
    worker = run(JOBS, "--burst")
    assert worker.wait(rig.PATIENCE) == 0, worker.said()
    found = {queue: [result(client, queue, id) for id in some] for queue, some in ids.items()}
    assert found == {
        queue_name: [2, 6], f"{queue_name}.both": ["plain 1", "later 2", "apart 3"],
        f"{queue_name}.net": [3],
    }  # fmt: skip
    assert [one["job"] for one in worker.notes("class")] == [{"n": 4}]
    [apart] = worker.notes("apart")
    assert {one["pid"] for one in worker.notes() if one is not apart} == {worker.pid, apart["pid"]}
    assert apart["parent_of"] != worker.pid  # a process with threads does not fork
    assert client.job(f"{queue_name}.both", apart["id"])["progress"] == {"number": 3}
    loops = {one["loop"] for one in (*worker.notes("later"), *worker.notes("net"))}
    assert len(loops) == 1  # so that async tasks may share connections
    [inner] = worker.notes("net in a thread")
    assert inner["id"] == "1"


def test_a_process_is_one_worker_however_many_limits_it_has(
    run: Run, client: Client, queue_name: str
) -> None:
    worker = run(JOBS, "--worker-id", f"{queue_name}.w")
    worker.says("worker.started")

    def mode() -> object:
        found = [one for one in client.worker_records() if one["worker_id"] == f"{queue_name}.w"]
        return (found[0]["report"] or {}).get("mode") if found else None

    rig.eventually(lambda: mode() == "threads+async+mixed+fork", say=mode)
    [record] = [one for one in client.worker_records() if one["worker_id"] == f"{queue_name}.w"]
    assert {queue_name, f"{queue_name}.net", f"{queue_name}.old"} <= set(record["queues"])
    client.tell_worker(f"{queue_name}.w", "stop")
    assert worker.wait(rig.PATIENCE) == 0, worker.said()
    assert worker.said().count("worker.asked what=finish") == 1


def test_a_queue_has_the_limit_that_its_task_says(run: Run, client: Client, queue_name: str) -> None:
    for _ in range(4):
        push(client, f"{queue_name}.slow", "slow", 0.3)
    push(client, queue_name, "add", 1)
    worker = run(JOBS, "--burst", "--concurrency", "4")
    assert worker.wait(rig.PATIENCE) == 0, worker.said()
    marks = sorted(
        [(one["at"], 1) for one in worker.notes("slow began")]
        + [(one["at"], -1) for one in worker.notes("slow ended")]
    )
    running = most = 0
    for _, step in marks:
        running += step
        most = max(most, running)
    assert len(marks) == 8
    assert most <= 2
    assert worker.notes("add")


def test_a_worker_that_ends_when_all_is_empty_waits_for_what_its_jobs_push(
    run: Run, client: Client, queue_name: str
) -> None:
    push(client, f"{queue_name}.chain", "chain", 6)
    worker = run(JOBS, "--burst")
    assert worker.wait(rig.PATIENCE) == 0, worker.said()
    steps = [one["left"] for one in worker.notes() if one["what"] in ("chain", "hop")]
    assert sorted(steps, reverse=True) == [6, 5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("flags", "done", "unknown"),
    [
        (["--only", "{}"], {"add"}, 0),
        (["--only", "{}*", "--except", "{},{}.o*"], {"net"}, 0),
        (["--except", "{}.net,{}.old"], {"add"}, 0),
        (["--only", "{},{}.nett", "--except", "{}.*,{}.odl"], {"add"}, 2),
    ],
)
def test_a_worker_takes_jobs_of_the_queues_that_it_is_told(
    run: Run, client: Client, queue_name: str, flags: list[str], done: set[str], unknown: int
) -> None:
    push(client, queue_name, "add", 1)
    push(client, f"{queue_name}.net", "net", 1)
    client.push(f"{queue_name}.old", 1)
    worker = run(JOBS, "--burst", *(flag.replace("{}", queue_name) for flag in flags))
    assert worker.wait(rig.PATIENCE) == 0, worker.said()
    assert {one["what"] for one in worker.notes()} & {"add", "net", "class"} == done
    assert worker.said().count("worker.queue_unknown") == unknown


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"task": f"{JOBS}.ad"}, f"this worker has no task `{JOBS}.ad`, did you mean `{JOBS}.add`?"),
        ({"task": "elsewhere.add"}, f"this worker has no task `elsewhere.add`, is it `{JOBS}.add` now?"),
        ({"task": f"{JOBS}.add", "version": 7}, f"this worker has no version 7 of the task `{JOBS}.add`"),
        ({"task": f"{JOBS}.add"}, "the job does not fit the task: missing a required argument: 'a'"),
        ({"task": f"{JOBS}.add", "args": [1, 2, 3]}, "the job does not fit the task: too many positional"),
        (
            {"task": f"{JOBS}.add", "args": ["x"]},
            f"the job does not fit the task: `a` of `{JOBS}.add` should be a whole number, not `x`",
        ),
        ({"task": f"{JOBS}.add", "args": {"a": 1}}, "`args` should be a list, not an object"),
        ({"task": f"{JOBS}.add", "kwargs": [1]}, "`kwargs` should be an object, not a list"),
        ({"task": f"{JOBS}.add", "version": "2"}, "`version` should be a whole number, not `2`"),
        ([1, 2], "the job is not a task: its body should look like"),
        ({"task": ["x"]}, "the job is not a task: its body should look like"),
    ],
)  # fmt: skip
def test_what_is_no_call_of_a_task_is_dead_at_once_and_says_why(
    module_worker: Client, queue_of_module: str, body: Any, said: str
) -> None:
    id = module_worker.push(queue_of_module, body)
    job = module_worker.job(queue_of_module, id, wait=rig.PATIENCE)
    assert (job["state"], job["attempt"]) == ("dead", 1)
    assert job["errors"][-1]["error"].startswith(said)


def test_versions_of_a_task_live_side_by_side(module_worker: Client, queue_of_module: str) -> None:
    queue = queue_of_module
    name = f"{queue}.versioned"
    ids = [
        module_worker.push(queue, {"task": name, "args": [1]}, keep=60),
        module_worker.push(queue, {"task": name, "version": 2, "args": [1, 2]}, keep=60),
        module_worker.push(queue, {"task": "long.ago.moved"}, keep=60),
    ]
    assert [result(module_worker, queue, id) for id in ids] == ["1 1", "2 1 2", "moved"]


@pytest.fixture(scope="module")
def queue_of_module() -> str:
    return "tasks.module"


@pytest.fixture(scope="module")
def module_worker(server: rig.Server, queue_of_module: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A worker for several tests, and a client."""
    from tests.worker.conftest import starting

    with starting(tmp_path_factory.mktemp("module")) as start, Client(server.url) as client:
        start("worker", JOBS, url=server.url, QUEUE=queue_of_module)
        yield client


def test_recurring_jobs_are_put_on_the_server_and_orphans_are_told_and_stay(
    run: Run, client: Client, queue_name: str
) -> None:
    gone = {"task": f"{JOBS}.gone", "args": [], "kwargs": {}, "cron": JOBS}
    client.put_cron(f"{queue_name}.gone", queue_name, gone, "@daily")
    client.put_cron(f"{queue_name}.others", queue_name, {**gone, "cron": "elsewhere"}, "@daily")
    client.put_cron(f"{queue_name}.by-hand", queue_name, {"task": f"{JOBS}.gone"}, "@daily")
    try:
        worker = run(JOBS, "--burst", "--only", queue_name)
        assert worker.wait(rig.PATIENCE) == 0, worker.said()
        found = client.cron(f"{queue_name}.nightly")
        assert (found["schedule"], found["timezone"], found["overlap"]) == (
            "0 3 * * *",
            "Europe/Paris",
            "skip",
        )
        assert found["body"] == {
            "task": f"{JOBS}.report", "args": [], "kwargs": {"a": 1, "b": 2}, "cron": JOBS,
        }  # fmt: skip
        assert f"cron.orphaned name={queue_name}.gone" in worker.said()
        assert f"{queue_name}.others" not in worker.said()
        assert f"{queue_name}.by-hand" not in worker.said()
        assert client.cron(f"{queue_name}.gone")["queue"] == queue_name
        listed = subprocess.run(
            [sys.executable, "-m", "presque", "worker", JOBS, "--list", "--url", client.transport.base_url],
            capture_output=True, text=True, timeout=60, check=True, env={**os.environ, "QUEUE": queue_name},
        )  # fmt: skip
        assert f"{JOBS}.net" in listed.stdout
        [orphan] = [line for line in listed.stdout.splitlines() if line.startswith(f"{queue_name}.gone")]
        assert orphan.split() == [f"{queue_name}.gone", queue_name, "@daily"]
        assert f"{queue_name}.by-hand" not in listed.stdout
        id = client.run_cron(f"{queue_name}.nightly")
        assert run(JOBS, "--burst").wait(rig.PATIENCE) == 0
        assert result(client, queue_name, id) == 3
    finally:
        for name in ("gone", "others", "by-hand", "nightly"):
            client.delete_cron(f"{queue_name}.{name}")


def test_tasks_that_fork_have_a_process_each_and_may_crash(run: Run, client: Client, queue_name: str) -> None:
    module = "tests.tasks.forking"
    ids = [
        client.push(queue_name, {"task": f"{module}.{name}"}, keep=60, attempts=1)
        for name in ("where", "where_async", "crash")
    ]
    worker = run(module, "--burst")
    assert worker.wait(rig.PATIENCE) == 0, worker.said()
    first, second, third = [result(client, queue_name, id) for id in ids]
    assert first[0] != second[0]
    assert first[1] == second[1] == worker.pid
    assert [first[2], second[2]] == ids[:2]
    assert third == ("dead", "its process ended with exit status 3 before the job was done")


@pytest.mark.parametrize("levels", range(900, 976, 15))
def test_a_job_as_deep_as_the_server_takes_stops_no_worker_that_forks_beside_threads(
    run: Run, client: Client, queue_name: str, levels: int
) -> None:
    queue = f"{queue_name}.both"
    client.change_policy(queue, max_attempts=1)
    deep = f"{'[' * levels}{']' * levels}"
    id = client.push_text(queue, f'{{"task": "tests.tasks.jobs.apart", "args": [{deep}]}}', keep=60)
    worker = run(JOBS)
    assert result(client, queue, id)[0] == "dead"
    assert result(client, queue, push(client, queue, "apart", 1)) == "apart 1"
    assert worker.process.poll() is None


def test_forked_jobs_beside_threads_crash_and_stop_alone(run: Run, client: Client, queue_name: str) -> None:
    queue = f"{queue_name}.forks"
    client.change_policy(queue, max_attempts=1)
    ids = [push(client, queue, "crash", how) for how in ("exit", "raise")]
    worker = run(JOBS)
    assert [result(client, queue, id) for id in ids] == [
        ("dead", "its process ended with exit status 3 before the job was done"), ("dead", "ValueError: no"),
    ]  # fmt: skip
    push(client, queue, "crash", "sleep")
    [*_, sleeping] = worker.noted("crash", 3)
    added = push(client, queue_name, "add", 1)
    assert result(client, queue_name, added) == 2
    worker.signal(signal.SIGTERM)
    assert worker.wait(rig.PATIENCE) == 0, worker.said()
    assert not alive(sleeping["pid"])
    assert client.stats(queue)["ready"] == 1


def test_forked_jobs_beside_threads_end_when_the_worker_is_killed(
    run: Run, client: Client, queue_name: str
) -> None:
    push(client, f"{queue_name}.forks", "crash", "sleep")
    worker = run(JOBS)
    [sleeping] = worker.noted("crash")
    worker.signal(signal.SIGKILL)
    worker.wait()
    rig.eventually(lambda: not alive(sleeping["pid"]))


def test_a_worker_ends_when_the_process_that_forks_for_it_does(
    run: Run, client: Client, queue_name: str
) -> None:
    push(client, f"{queue_name}.forks", "crash", "sleep")
    worker = run(JOBS, "--grace", "1")
    [sleeping] = worker.noted("crash")
    os.kill(sleeping["parent"], signal.SIGKILL)
    assert worker.wait(rig.PATIENCE) == 1
    assert "worker.forker_lost" in worker.said()
    assert client.stats(f"{queue_name}.forks")["ready"] == 1


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def refused(directory: Path, *words: str) -> str:
    """What `presque worker` says, as it refuses to start."""
    done = subprocess.run(
        [sys.executable, "-m", "presque", "worker", *words],
        cwd=directory, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


TASK = "from presque import App\napp = App()\n"


def test_what_cannot_be_run_is_refused_with_a_sentence(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "nothing.py": "x = 1\n",
            "one.py": f"{TASK}@app.task\ndef f(): pass\n",
            "limits.py": (
                f"{TASK}@app.task(concurrency=1)\ndef f(): pass\n@app.task(concurrency=2)\ndef g(): pass\n"
            ),
            "forks.py": (f"{TASK}@app.task(fork=True, timeout=5)\ndef f(): pass\n@app.task\ndef g(): pass\n"),
            "hidden.py": (
                "from __future__ import annotations\n"
                f"{TASK}from typing import TYPE_CHECKING\n"
                "if TYPE_CHECKING:\n    from decimal import Decimal\n"
                "@app.task\ndef f(x: Decimal): pass\n"
            ),
            "pack/__init__.py": "",
            "pack/broken.py": "import not_there_at_all\n",
            "script.py": f"{TASK}import quits\n@app.task\ndef f(): pass\n",
            "quits.py": "import sys\nsys.exit(0)\n",
            "arguments.py": "import argparse\nargparse.ArgumentParser().parse_args()\n",
            "made.py": (
                f"{TASK}def make():\n    @app.task\n    def f(): pass\n    return app\ndef other(): pass\n"
            ),
            "two.py": (
                "from presque import App\na, b = App('http://127.0.0.1:1'), App('http://127.0.0.1:2')\n"
                "@a.task\ndef f(): pass\n@b.task\ndef g(): pass\n"
            ),
            "queueless.py": "from presque import Worker\nclass W(Worker):\n    def work(self, job): pass\n",
        },
    )
    for words, said in {
        ("nothing",): "module `nothing` has no task and no class that derives from Worker",
        ("gone",): "there is no module `gone`: run this where it can be imported",
        ("one.py",): "there is no module `one.py`: say `one`, as in an import",
        ("one:g",): "module `one` has no `g`, expected one of `app`",
        ("made:app",): "the App `made:app` has no task in what is imported so far: name the module",
        ("made:make",): "takes no job: give the function a parameter for it, or, if it makes an App, name it",
        ("made:other()",): "`made:other()` made no App, but a `NoneType`: let it return one",
        ("one.f",): "there is no module `one.f`: `f` is in the module `one`, so say `one`",
        ("two",): "talk to several servers: run a worker for each, as MODULE:APP, or say with --url",
        ("one:f",): "`one:f` is a task, and others may share its queue: name its module, `one`, or its App",
        ("one:",): "`one:` is not a worker: use MODULE",
        ("one", "--only", "other"): "only other leaves no queue of a task or of a worker class; the code has",
        ("one", "--only", "!x"): "this list only excludes",
        ("one", "--queues", "x"): "`queues` is for a single worker class: `only` picks queues of modules",
        ("queueless:W", "--queues", "x", "--only", "x"): "`only` and `except` are for modules",
        ("queueless",): "`W` names no queue",
        ("limits",): "`concurrency` of the queue `default` is 1 for `limits.f` and 2 for `limits.g`",
        ("forks",): "of which some tasks fork and others do not: give them queues of their own",
        ("script",): "`script` ends the program when it is imported (SystemExit(0) in ",
        ("arguments", "--log-level", "info"): "`arguments` ends the program when it is imported",
        ("hidden",): "the annotation `Decimal` means nothing when the task runs",
    }.items():  # fmt: skip
        assert said in refused(tmp_path, *words), words
    done = subprocess.run(
        [sys.executable, "-m", "presque", "worker", "pack"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "not_there_at_all" in done.stderr
    assert done.returncode != 0


async def test_a_worker_runs_in_the_loop_of_a_program_beside_others(
    server: rig.Server, queue_name: str
) -> None:
    app = App(server.url, queue=queue_name, keep=60)
    loops = []

    @app.task
    async def here(number: int) -> int:
        loops.append(asyncio.get_running_loop())
        return number

    @app.task(queue=f"{queue_name}.plain")
    def there(number: int) -> int:
        return number * 2

    worker, other = app.worker(only=queue_name), app.worker(except_=queue_name)
    tasks = [asyncio.create_task(one.run()) for one in (worker, other)]
    pushed = [await here.apush(1), await there.apush(2)]
    assert [await one.aresult() for one in pushed] == [1, 4]
    assert loops == [asyncio.get_running_loop()]
    worker.stop()
    tasks[1].cancel()  # as a lifespan does at its end
    found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), rig.PATIENCE)
    assert found[0] is None
    assert isinstance(found[1], asyncio.CancelledError)
    app.async_client.close()


async def test_a_job_that_runs_when_its_loop_ends_is_given_back(
    server: rig.Server, client: Client, queue_name: str
) -> None:
    app = App(server.url, queue=queue_name)
    began = asyncio.Event()

    @app.task
    async def endless() -> None:
        began.set()
        await asyncio.sleep(600)

    await endless.apush()
    running = asyncio.create_task(app.worker().run())
    await asyncio.wait_for(began.wait(), rig.PATIENCE)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await asyncio.to_thread(client.stats, queue_name))["ready"] == 1
    app.async_client.close()


def test_a_job_that_runs_when_its_program_ends_is_given_back(
    server: rig.Server, client: Client, queue_name: str
) -> None:
    code = f"""
import asyncio
from presque import App
app = App({server.url!r}, queue={queue_name!r})
began = asyncio.Event()

@app.task
async def endless() -> None:
    began.set()
    await asyncio.sleep(600)

async def main():
    await endless.apush()
    running = asyncio.create_task(app.worker().run())
    await began.wait()

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert client.stats(queue_name)["ready"] == 1
    assert client.job(queue_name, "1")["errors"] == []


def test_a_worker_runs_in_a_thread_and_leaves_signals_alone(
    server: rig.Server, client: Client, queue_name: str
) -> None:
    code = f"""
import signal
from presque import App
app = App({server.url!r}, queue={queue_name!r}, keep=60)

@app.task
def handled() -> bool:
    return signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

pushed = handled.push()
app.worker(burst=True).start(handle_signals=False)
print(pushed.result())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "True\n", done.stderr
    assert settled(client, queue_name)


def test_a_worker_in_a_loop_obeys_signals_if_it_is_told_to(
    server: rig.Server, client: Client, queue_name: str
) -> None:
    code = f"""
import asyncio, os, signal
from presque import Worker

class Seeing(Worker):
    async def work(self, job):
        signal.setitimer(signal.ITIMER_REAL, 0)
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGQUIT)

async def main():
    before = signal.getsignal(signal.SIGQUIT)
    await Seeing({server.url!r}, queue={queue_name!r}).run(handle_signals=True)
    print(signal.getsignal(signal.SIGQUIT) is before)

asyncio.run(main())
"""
    client.push(queue_name, 1)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "True\n", done.stderr
    assert settled(client, queue_name)


async def test_a_worker_that_forks_is_refused_in_somebody_elses_loop(server: rig.Server) -> None:
    app = App(server.url, fork=True)

    @app.task
    def forked() -> None: ...

    with pytest.raises(WrongSetting, match="`fork` needs a process of its own"):
        await app.worker().run()
