"""`presque-client`: the client and the worker, built as a wheel and installed where there is nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests import rig

ROOT = Path(__file__).parents[2]

USE = """
import asyncio, os, sys
from presque import App, AsyncClient, Client, Worker
from presque.testing import perform

URL, QUEUE = os.environ["PRESQUE_URL"], os.environ["QUEUE"]
seen = []

class Seeing(Worker):
    def work(self, job):
        seen.append(job)

async def consumed():
    async with AsyncClient(URL) as client:
        async with client.consume(QUEUE) as jobs:
            async for job in jobs:
                job.ack()
                return job.value

with Client(URL) as client:
    client.push_many(QUEUE, [1, 2])
    Seeing(URL, queue=QUEUE, burst=True).start()
    client.push(QUEUE, 3)
    seen.append(asyncio.run(consumed()))
perform(Seeing, 4)

app = App(URL, queue=QUEUE, keep="1m")

@app.task
def double(number: int) -> int:
    return 2 * number

pushed = double.push(21)
app.worker(burst=True).start()
seen.append(pushed.result())
foreign = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
print(seen, sorted(foreign - {"__main__", "_distutils_hack", "sitecustomize", "usercustomize"}))
"""

PRINTING = """
from presque import Worker

class Printing(Worker):
    def work(self, job):
        print(job)

"""

TYPED = """
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from presque import AsyncClient, Client, Dead, Retry, Worker
from presque.client import AsyncPusher, LeasedJob, Pusher
from presque.testing import AsyncInlineClient, InlineClient, perform, perform_async
from presque.worker import Job, to_file


class Mailer(Worker):
    queue = "mail"
    concurrency = 4

    def before_work(self, job: Job) -> None:
        job.progress({"begun": True})

    def work(self, job: Any) -> str:
        if self.job.attempt > 3:
            raise Dead("no such user")
        if not job:
            raise Retry("busy", in_=timedelta(seconds=30))
        self.job.extend(60)
        return str(job["to"])

    def fail(self, job: Any, error: BaseException) -> None:
        self.log.warning("could not deliver: %s", error)


class Later(Worker):
    async def work(self, job: Any) -> None: ...


async def use(client: AsyncClient) -> list[str]:
    return [await client.push("mail", {"to": "ana"}, delay=1.5, priority=9)]


def sign_up(client: Client, pusher: Pusher, other: AsyncPusher) -> None:
    client.push("mail", 1, delay=timedelta(minutes=5), delayed=datetime.now(UTC), keep="1h")
    pusher.push_many("mail", [1, 2], ttl=timedelta(hours=1))
    client.change("mail", "1", delay="5m", body=None)
    client.change_policy("mail", lease=timedelta(minutes=5), backoff={"first": "1m"}, rate=None)
    names: list[str] = client.queues()
    ready: int = client.stats(names[0])["ready"]
    client.fetch("mail", wait=timedelta(seconds=ready))
    client.push("mail", 1, dellay=5)


def test(job: int, more: int = 0) -> int:
    return job + more


sign_up(InlineClient({"mail": test}), InlineClient({"*": Mailer}), AsyncInlineClient({"m*": partial(test)}))
sign_up(Client(timeout=timedelta(seconds=5), max_answer="1GiB"), Client(), AsyncClient())


async def tried() -> str | None:
    return (await perform_async(Later, 1)).error


def settle(client: Client) -> None:
    jobs: list[LeasedJob] = client.lease("mail", count=2, wait=1)
    for job in jobs:
        status: int = client.ack(job, result=1)["status"]
        print(status)


worker = Mailer("http://127.0.0.1:5000", fork=True, timeout="5m", failure_backends=[to_file("failed")])
error: str | None = perform(worker, {"to": "ana"}).error
InlineClient({"mail": Mailer}).push("mail", 1)
Later(queues=["a", "b*"], interval=5, worker_id="w", concurency=3)
"""

# What Windows lacks of what the worker uses on a Unix, taken away before anything is imported.
WITHOUT_UNIX = """
import os, select, signal, sys
for name in ("resource", "fcntl", "pwd", "grp", "termios"):
    sys.modules[name] = None
for name in ("QUIT", "USR1", "USR2", "CONT", "CHLD", "ALRM", "KILL"):
    delattr(signal, "SIG" + name)
for module, name in (
    (signal, "pthread_kill"), (select, "poll"), (select, "epoll"), (os, "fork"), (os, "killpg"),
    (os, "wait4"), (os, "setpgid"), (os, "setsid"),
):
    delattr(module, name)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    flags = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "wheel", *flags, "--wheel-dir", str(directory)]
    done = subprocess.run(
        [*command, str(ROOT / "packaging/client")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    [found] = directory.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with this wheel in it and nothing else."""
    home = tmp_path_factory.mktemp("empty")
    venv.create(home, with_pip=True)
    command = [str(home / "bin/python"), "-m", "pip", "install", "--quiet", "--no-index", str(wheel)]
    subprocess.run([*command, "--disable-pip-version-check"], check=True)
    return home / "bin/python"


def run(python: Path, code: str, server: rig.Server, queue: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PRESQUE_URL": server.url, "QUEUE": queue}
    return subprocess.run(
        [str(python), "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_it_is_for_any_platform_needs_nothing_and_has_no_part_of_the_server(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = [archive.read(name).decode() for name in names if name.endswith("METADATA")]
    needs = [line for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    assert [line for line in needs if "extra ==" not in line] == []
    assert "presque/py.typed" in names
    parts = {name.split("/")[1] for name in names if name.startswith("presque/")}
    assert parts == {
        "__init__.py", "py.typed", "client", "tasks", "testing", "traces", "verbs", "worker",
        "errors.py", "exits.py", "fields.py", "frames.py", "globs.py", "log.py", "masking.py", "misfits.py",
            "names.py",        "periods.py", "quantities.py", "tokens.py", "version.py",
    }  # fmt: skip


def test_it_works_where_there_is_nothing_else(python: Path, server: rig.Server, queue_name: str) -> None:
    done = run(python, USE, server, queue_name)
    assert done.stdout == "[1, 2, 3, 4, 42] ['presque']\n", done.stderr


def test_it_works_without_what_only_a_unix_has(python: Path, server: rig.Server, queue_name: str) -> None:
    done = run(python, WITHOUT_UNIX + USE, server, queue_name)
    assert done.stdout == "[1, 2, 3, 4, 42] ['presque']\n", done.stderr
    done = run(python, WITHOUT_UNIX + PRINTING + "Printing(fork=True, queue='q').start()", server, queue_name)
    assert "this system cannot fork: leave out `fork`, or run the worker on a Unix" in done.stderr


def test_who_uses_it_is_told_of_wrong_types_and_of_nothing_else(python: Path, tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text(TYPED)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python), "typed.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": os.environ["PATH"], "MYPY_CACHE_DIR": str(tmp_path / "cache")},
    )  # fmt: skip
    wrong = [line.partition("error: ")[2] for line in done.stdout.splitlines() if "error: " in line]
    assert [one.partition(";")[0] for one in wrong] == [
        'Unexpected keyword argument "dellay" for "push" of "Client"',
        'Unexpected keyword argument "concurency" for "Later"',
    ], done.stdout


def test_its_command_runs_a_worker(python: Path, server: rig.Server, queue_name: str, tmp_path: Path) -> None:
    (tmp_path / "printing.py").write_text(PRINTING)
    assert server.ask("POST", f"/q/{queue_name}", b'"a job"').status == 201
    done = subprocess.run(
        [str(python.parent / "presque-worker"), "printing:Printing", "--queues", queue_name, "--burst"],
        cwd=tmp_path, env={"PRESQUE_URL": server.url}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "a job\n"), done.stderr
