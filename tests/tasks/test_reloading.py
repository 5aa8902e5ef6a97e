"""`presque worker --reload` starts the worker again when its code changes."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from presque import Client
from presque.tasks.reloading import LOOK_S, pause_after
from tests import rig

MODULE = """
from presque import App
app = App(queue={queue!r}, keep=60)

@app.task
def which() -> int:
    {work}
"""


class Reloading:
    """A worker with `--reload`, and the file of its code."""

    def __init__(self, directory: Path, queue: str, url: str) -> None:
        self.file, self.log, self.queue = directory / "code.py", directory / "log", queue
        self.write("return 1")
        without_its_rule = {**os.environ}
        without_its_rule.pop("PYTHONDONTWRITEBYTECODE", None)  # as for anybody
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "presque", "worker", "code", "--reload", "--log-format", "plain"],
                cwd=directory, stdout=log, stderr=log, start_new_session=True, stdin=subprocess.DEVNULL,
                env={**without_its_rule, "PRESQUE_URL": url},
            )  # fmt: skip

    def write(self, work: str, at_ns: int | None = None) -> None:
        new = self.file.with_suffix(".new")  # as an editor does
        new.write_text(MODULE.format(queue=self.queue, work=work))
        if at_ns is not None:
            os.utime(new, ns=(at_ns, at_ns))
        new.replace(self.file)

    def says(self, text: str, count: int = 1) -> None:
        rig.eventually(lambda: self.log.read_text().count(text) >= count)

    def result(self, client: Client) -> object:
        id = client.push(self.queue, {"task": "code.which"}, keep=60)
        return client.job(self.queue, id, wait=rig.PATIENCE)["result"]


@pytest.fixture
def reloading(tmp_path: Path, queue_name: str, server: rig.Server) -> Iterator[Reloading]:
    found = Reloading(tmp_path, queue_name, server.url)
    yield found
    if found.process.poll() is None:
        os.killpg(found.process.pid, signal.SIGKILL)
    found.process.wait()


def test_a_change_is_run_and_a_mistake_waits_until_it_is_mended(reloading: Reloading, client: Client) -> None:
    assert reloading.result(client) == 1
    reloading.write("return 2")
    reloading.says("worker.reloads")
    assert reloading.result(client) == 2
    reloading.write("return (")
    reloading.says("worker.waits_for_change")
    assert "SyntaxError" in reloading.log.read_text()
    reloading.write("return 3")
    assert reloading.result(client) == 3
    reloading.write("return 4\nraise SystemExit(0)")  # is no end as it should be
    reloading.says("worker.waits_for_change", 2)
    reloading.write("return 5")
    assert reloading.result(client) == 5
    (reloading.file.parent / "more").mkdir()
    (reloading.file.parent / "more" / "new.py").write_text("")
    reloading.says("worker.started", 5)
    reloading.process.terminate()
    assert reloading.process.wait(rig.PATIENCE) == 0
    assert reloading.log.read_text().count("worker.started") == reloading.log.read_text().count(
        "worker.stopped"
    )


def test_two_changes_within_a_second_are_both_run(reloading: Reloading, client: Client) -> None:
    def is_result(number: int) -> bool:
        return reloading.result(client) == number

    second = 1_900_000_000
    for number in (1, 2, 3):  # all files are as long, and compiled ones are told apart by the second
        reloading.write(f"return {number}", at_ns=second * 10**9 + number * 10**8)
        rig.eventually(functools.partial(is_result, number))
    assert not (reloading.file.parent / "__pycache__").exists()


def test_a_look_takes_little_of_a_processor_however_many_files_there_are() -> None:
    assert pause_after(0.01) == LOOK_S
    for look_s in (0.2, 5.0):
        assert look_s / (look_s + pause_after(look_s)) == pytest.approx(0.1)


def test_a_worker_that_ends_as_it_should_is_not_started_again(
    tmp_path: Path, queue_name: str, server: rig.Server
) -> None:
    (tmp_path / "code.py").write_text(MODULE.format(queue=queue_name, work="return 1"))
    done = subprocess.run(
        [sys.executable, "-m", "presque", "worker", "code", "--reload", "--burst"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PRESQUE_URL": server.url},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "reload" not in done.stderr
