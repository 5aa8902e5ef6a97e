"""What an application has set up for logging stays, in either order; what presque has to tell is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from presque import Client
from tests import rig

TASKS = """
import logging, logging.config
{set_up}
log = logging.getLogger("app.tasks")

def work(job):
    log.info("the application says %s", job)
    log.debug("and whispers")
    raise ValueError("no")
"""


def run(
    server: rig.Server, queue: str, directory: Path, set_up: str, *flags: str, module: str = "presque"
) -> str:
    (directory / "tasks.py").write_text(TASKS.format(set_up=set_up))
    command = ["presque", "worker"] if module == "presque" else ["presque.worker"]
    done = subprocess.run(
        [sys.executable, "-m", *command, "tasks:work", "--queues", queue, "--burst", "--url", server.url,
         "--log-format", "plain", *flags],
        cwd=directory, check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("module", ["presque", "presque.worker"])
def test_lines_of_the_application_are_seen_at_the_level_that_was_asked_for(
    server: rig.Server, client: Client, queue_name: str, tmp_path: Path, module: str
) -> None:
    client.push(queue_name, 1)
    said = run(server, queue_name, tmp_path, "", module=module)
    assert "the application says 1" in said
    assert "whispers" not in said
    assert "job.failed" in said
    client.push(queue_name, 1)
    assert "whispers" in run(server, queue_name, tmp_path, "", "--log-level", "debug", module=module)
    client.push(queue_name, 1)
    said = run(server, queue_name, tmp_path, "", "--log-level", "error", module=module)
    assert "application" not in said


def test_a_set_up_of_the_application_stays(
    server: rig.Server, client: Client, queue_name: str, tmp_path: Path
) -> None:
    client.push(queue_name, 1)
    basic = 'logging.basicConfig(level="INFO", format="OURS %(name)s %(message)s")'
    said = run(server, queue_name, tmp_path, basic)
    assert "OURS app.tasks the application says 1" in said
    assert "OURS presque.worker job.failed" in said
    assert all(line.startswith("OURS") for line in said.splitlines() if "job." in line)


@pytest.mark.parametrize(
    "set_up",
    [
        'logging.config.dictConfig({"version": 1})',
        """logging.config.dictConfig({
            "version": 1, "root": {"level": "ERROR", "handlers": ["h"]},
            "handlers": {"h": {"class": "logging.StreamHandler"}},
        })""",
        "logging.getLogger('presque').disabled = True",
    ],
)
@pytest.mark.parametrize("flags", [(), ("--fork",)], ids=["inline", "fork"])
def test_a_set_up_that_disables_all_loggers_does_not_silence_failures(
    server: rig.Server, client: Client, queue_name: str, tmp_path: Path, set_up: str, flags: tuple[str, ...]
) -> None:
    client.push(queue_name, 1)
    assert "job.failed" in run(server, queue_name, tmp_path, set_up, *flags)


def burst(target: str, queue: str, server: rig.Server) -> list[str]:
    command = [sys.executable, "-m", "presque", "worker", target, "--queues", queue, "--burst"]
    return [*command, "--url", server.url]


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("flags", ["", "--fork"])
def test_a_worker_runs_without_its_standard_streams(
    server: rig.Server, client: Client, queue_name: str, closed: str, flags: str, tmp_path: Path
) -> None:
    client.push_many(queue_name, [{}] * 3)
    command = burst("tests.worker.jobs:Plain", queue_name, server)
    done = subprocess.run(
        ["sh", "-c", f"{' '.join(command)} {flags} {closed}"],
        check=False, timeout=60, env={**os.environ, "DIARY": str(tmp_path / "diary")},
    )  # fmt: skip
    assert done.returncode == 0
    assert client.stats(queue_name)["processed"] == 3


def test_a_hook_that_prints_to_a_closed_pipe_is_no_reason_not_to_fork(
    server: rig.Server, client: Client, queue_name: str, tmp_path: Path
) -> None:
    client.push_many(queue_name, [{}] * 3)
    (tmp_path / "prints.py").write_text(
        "from presque import Worker\n"
        "class Prints(Worker):\n"
        "    def before_fork(self, job): print('about to fork')\n"
        "    def work(self, job): pass\n"
    )
    command = burst("prints:Prints", queue_name, server)
    done = subprocess.run(
        ["sh", "-c", f"{' '.join(command)} --fork | true"],
        check=False, timeout=60, cwd=tmp_path, capture_output=True, text=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )  # fmt: skip
    assert client.stats(queue_name)["processed"] == 3, done.stderr


def test_a_log_handler_that_raises_stops_no_worker(
    server: rig.Server, client: Client, queue_name: str, tmp_path: Path
) -> None:
    client.push_many(queue_name, [1, 2, 3])
    bad = (
        "class Bad(logging.Handler):\n"
        "    def emit(self, record):\n"
        "        if record.name.startswith('presque'): raise RuntimeError('no log today')\n"
        "logging.getLogger().addHandler(Bad())"
    )
    run(server, queue_name, tmp_path, bad)
    assert client.stats(queue_name)["failed"] == 3


def test_a_failure_is_followed_by_when_it_is_retried_or_that_it_is_dead(
    server: rig.Server, client: Client, queue_name: str, tmp_path: Path
) -> None:
    client.change_policy(queue_name, max_attempts=2, backoff={"first": 3600, "jitter": 0})
    job = client.push(queue_name, 1)
    said = run(server, queue_name, tmp_path, "")
    due = client.job(queue_name, job)["run_at"]
    assert f"job.retried queue={queue_name} id={job} at={due}" in said
    client.change(queue_name, job, delay=0)
    assert f"job.dead queue={queue_name} id={job}" in run(server, queue_name, tmp_path, "")
