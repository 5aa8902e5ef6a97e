"""The plugin for pytest: a throw-away server, as people use it in tests of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from tests import rig

TESTS = """
import time
from datetime import datetime, timedelta, timezone

import pytest

from presque import App, Client, Snooze, Worker, current_job


def sign_up(name):
    with Client() as client:  # PRESQUE_URL says where
        client.push("mail", {"to": name})
        client.push("reminders", {"to": name}, delay="1d")


class Mailer(Worker):
    def work(self, job):
        return f"to {job['to']}"


@pytest.mark.parametrize("turn", range(5))
def test_each_test_finds_it_empty(presque, turn):
    assert presque.pushed() == []
    assert presque.client.queues() == [] and presque.client.crons() == [] == presque.client.workers()
    assert all(task["ended_at"] or task["status"] == "cancelling" for task in presque.client.tasks()[0])
    assert abs(presque.clock.now - datetime.now(timezone.utc)) < timedelta(seconds=30)
    sign_up("ana")
    presque.client.put_cron("c", "q", 1, "@every 1h")
    presque.client.change_policy("mail", max_attempts=1)
    presque.client.stop("mail")
    presque.client.register("mail", "w1")
    for number in range(3):
        presque.client.push("slow", number)
    presque.client.new_task("delete", "slow", state="ready", rate=0.01)
    presque.clock.advance("3d")


def test_what_was_pushed(presque):
    sign_up("ana")
    first, second = presque.pushed()
    assert (first.queue, first.value, first.run_at) == ("mail", {"to": "ana"}, None)
    assert second.run_at - second.pushed_at >= timedelta(days=1)
    assert [job.value for job in presque.pushed("rem*")] == [{"to": "ana"}]
    assert presque.pushed("other") == []


def test_what_is_due(presque):
    sign_up("ana")
    works = {"mail": Mailer, "rem*": lambda job: 1 / 0}
    [done] = presque.run_due(works)
    assert (done.state, done.result, done.queue) == ("done", "to ana", "mail")
    assert presque.run_due(works) == []
    presque.clock.advance("1d")
    [failed] = presque.run_due(works)
    assert (failed.state, failed.error) == ("scheduled", "ZeroDivisionError: division by zero")
    assert "lambda" in failed.backtrace
    for attempt in range(2, 6):
        presque.clock.advance("1h")
        [failed] = presque.run_due(works)
        assert failed.attempt == attempt
    assert failed.state == "dead"


def test_jobs_push_jobs_until_nothing_is_due(presque):
    def count(n):
        if n:
            presque.client.push("count", n - 1)

    presque.client.push("count", 7)
    assert [run.value for run in presque.run_due({"*": count})] == list(range(7, -1, -1))
    presque.client.push("count", 10)
    with pytest.raises(RuntimeError, match="5 jobs were done"):
        presque.run_due({"*": count}, most=5)


def test_jobs_save_show_and_snooze(presque):
    class Slow(Worker):
        def work(self, job):
            self.job.progress(0.5)
            if self.job.saved is None:
                assert self.job.save(job)
                raise Snooze("1h")
            return self.job.saved

    presque.client.push("slow", [1], keep="1d")
    [run] = presque.run_due({"slow": Slow})
    assert run.state == "scheduled"
    presque.clock.advance("1h")
    [run] = presque.run_due({"slow": Slow})
    assert (run.state, run.result, run.attempt) == ("done", [1], 1)
    assert presque.client.job("slow", run.id)["progress"] == 0.5


def test_recurring_jobs_come_at_their_moments(presque):
    presque.client.put_cron("nightly", "reports", {}, "0 3 * * *")
    presque.clock.advance("7d")
    assert len(presque.run_due({"reports": lambda job: None})) == 7


def test_async_work(presque):
    async def double(job):
        return 2 * job

    presque.client.push("numbers", 4)
    assert [run.result for run in presque.run_due({"numbers": double})] == [8]


app = App(queue="calls", keep="1d")


@app.task
def greet(name: str, *, loud: bool = False) -> str:
    current_job().save(name)
    return name.upper() if loud else name


@app.task
async def wait_for(name: str) -> str:
    return name


@app.cron("0 3 * * *")
@app.task(queue="nightly")
def clean_up() -> None: ...


def test_tasks(presque):
    pushed = greet.push("ana", loud=True)
    wait_for.options(delay="1h").push("bob")
    [call] = presque.pushed(greet)
    assert (call.args, call.kwargs) == (["ana"], {"loud": True})
    assert [run.result for run in presque.run_due(app)] == ["ANA"]
    assert pushed.result() == "ANA"
    presque.put_crons(app)
    presque.clock.advance("1d")
    assert sorted(run.queue for run in presque.run_due(app)) == ["calls", "nightly"]
    with app.inline() as ran:
        greet.push("eve")
    assert ran.outcomes[0].result == "eve"


async def test_async_tests(presque):
    await wait_for.apush("ana")
    assert [run.result for run in await presque.run_due_async(app)] == ["ana"]


def test_it_is_quick(presque):
    began = time.perf_counter()
    presque.clean()
    print("cleaned in", time.perf_counter() - began)
"""


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")


OTHERS = "schemathesis", "hypothesispytest", "anyio"
"""Plugins that these tests do not need: to import them takes two thirds of a run."""


def run(directory: Path, tests: str, *flags: str, of: str = "test_it.py", **environment: str) -> str:
    """What pytest says of a file of tests, when it is asked to run that or, as `of`, something else."""
    (directory / "test_it.py").write_text(tests)
    without = [part for name in ("cacheprovider", *OTHERS) for part in ("-p", f"no:{name}")]
    command = [sys.executable, "-m", "pytest", *without, "-o", "asyncio_mode=auto", "-q"]
    done = subprocess.run(
        [*command, *flags, of],
        cwd=directory,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("flags", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_tests_share_a_server_and_find_it_empty(tmp_path: Path, flags: tuple[str, ...]) -> None:
    (tmp_path / "presque.yaml").write_text("nonsense: true\n")  # is not for the server of tests
    said = run(tmp_path, TESTS, *flags, PRESQUE_TOKEN="not for it", PRESQUE_MEMORY="no")
    assert "14 passed" in said, said


def test_it_does_nothing_until_a_test_asks_for_it(tmp_path: Path) -> None:
    tests = """
import os, sys

def test_nothing():
    assert "presque.pytest_plugin" in sys.modules
    assert not [name for name in sys.modules if name.startswith(("presque.client", "presque.worker"))]
    assert "PRESQUE_URL" not in os.environ
"""
    assert "1 passed" in run(tmp_path, tests)


def test_a_project_may_call_its_files_as_it_likes(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    for name in ("uvloop", "msgspec", "signal"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not for the server')\n")
    (tmp_path / "tests" / "test_it.py").write_text("def test_it(presque): pass\n")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],  # as `pytest tests`
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("import sys\n\nsys.executable = '/bin/false'\n")
    said = run(tmp_path, "def test_it(presque): pass\n")
    assert "the server of the fixture `presque` did not start" in said


def test_an_old_pytest_is_told_and_runs_all_other_tests(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(presque): pass\ndef test_other(): pass\n")
    old = "import pytest, sys; del pytest.StashKey; sys.exit(pytest.main(sys.argv[1:]))"  # as before pytest 7
    done = subprocess.run(
        [sys.executable, "-c", old, "-q", "-p", "no:cacheprovider", "-p", "presque.pytest_plugin"],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "the fixture `presque` needs pytest 7 or later; this is" in done.stdout, done.stdout
    assert "1 passed, 1 error" in done.stdout


SERVERS = """
import os

import presque
import pytest

from tests import rig


def servers():
    mark = "PLUGIN_TEST=" + os.environ["PLUGIN_TEST"]
    return [one for one in rig.processes_with(mark) if "presque.server.throw_away" in one]
"""


def run_with_servers(directory: Path, tests: str, *flags: str, of: str = "test_it.py") -> str:
    """What pytest says of tests that look at which servers run. None is left when it has ended."""
    mark = uuid4().hex
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {"PLUGIN_TEST": mark, "PYTHONPATH": path}
    said = run(directory, f"{SERVERS}\n\n{tests}\n", *flags, of=of, **environment)
    assert not rig.processes_with(f"PLUGIN_TEST={mark}")
    return said


@needs_proc
@pytest.mark.parametrize(
    "asks",
    [
        "def test_later(presque): assert servers()",
        "def test_later(tmp_path,\n        presque_server: str): assert servers()",
        "@pytest.mark.usefixtures('presque')\ndef test_later(): assert servers()",
        "@pytest.fixture\ndef shop(presque): pass\ndef test_later(shop): assert servers()",
        "@pytest.fixture\ndef shop(tmp_path, *, presque): pass\ndef test_later(shop): assert servers()",
    ],
)
def test_the_server_starts_before_its_first_test(tmp_path: Path, asks: str) -> None:
    said = run_with_servers(tmp_path, f"def test_first(): assert servers()\n{asks}")
    assert "2 passed" in said, said


@needs_proc
@pytest.mark.parametrize(
    ("of", "flags", "ran"),
    [
        (".", (), "1"),
        ("test_it.py::test_it", (), "1"),
        (".", ("-n", "1"), "0"),  # what controls the others runs no test, so it needs no server
        (".", ("--collect-only",), "0"),
        ("other", (), "0"),
    ],
)
def test_the_server_starts_while_pytest_gets_ready(
    tmp_path: Path, of: str, flags: tuple[str, ...], ran: str
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "build").mkdir()  # pytest does not look into it
    (tmp_path / "other" / "build" / "test_built.py").write_text("def test_it(presque): pass\n")
    asking = """
import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session):
    if not hasattr(session.config, "workerinput"):
        with open("ran", "w") as file:
            file.write(str(len(servers())))
"""
    (tmp_path / "conftest.py").write_text(f"{SERVERS}\n\n{asking}\n")
    said = run_with_servers(tmp_path, "def test_it(presque): pass", *flags, of=of)
    assert (tmp_path / "ran").read_text() == ran, said


@needs_proc
@pytest.mark.parametrize(
    ("tests", "flags", "expected"),
    [
        (
            "def test_first(): assert not servers()\ndef test_later(presque): pass",
            ("-k", "first"),
            "1 passed",
        ),
        ("def call(presque): pass\ndef test_first(): assert not servers()", (), "1 passed"),
        ("def test_first(presque_url=None): assert not servers()", (), "1 passed"),
        ("def call(client: presque.Client): pass\ndef test_first(): assert not servers()", (), "1 passed"),
        (
            "@pytest.fixture\ndef presque(): return 1\ndef test_first(presque): assert not servers()",
            (),
            "1 passed",
        ),
        ("def test_first(presque): pass", ("--collect-only",), "1 test collected"),
        ("def test_first(presque): pass\nraise RuntimeError('broken')", (), "RuntimeError: broken"),
    ],
)
def test_no_server_runs_that_no_test_wants(
    tmp_path: Path, tests: str, flags: tuple[str, ...], expected: str
) -> None:
    said = run_with_servers(tmp_path, tests, *flags)
    assert expected in said, said


@pytest.mark.parametrize("of", ["gone", "x" * 300, "gone.py::test_it", "--pyargs gone"])
def test_pytest_itself_says_that_there_is_no_such_file(tmp_path: Path, of: str) -> None:
    said = run(tmp_path, "def test_it(presque): pass", *of.split()[:-1], of=of.split()[-1])
    assert "not found" in said
    for where in (str(tmp_path), sys.prefix, str(Path(__file__).parents[2])):
        said = said.replace(where, "")
    assert "presque" not in said


def test_a_fixture_that_is_asked_for_by_name_has_a_server_too(tmp_path: Path) -> None:
    tests = """
def test_it(request):
    presque = request.getfixturevalue("presque")
    presque.client.push("q", 1)
    assert len(presque.pushed()) == 1
"""
    assert "1 passed" in run(tmp_path, tests)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: the kernel tells the server")
def test_its_server_ends_when_pytest_is_killed(tmp_path: Path) -> None:
    tests = """
import os, signal

def test_it(presque):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    mark = f"KILLED_WITH={uuid4().hex}"
    name, _, value = mark.partition("=")
    run(tmp_path, tests, **{name: value})
    rig.eventually(lambda: not rig.processes_with(mark))
