"""How forked jobs end: as Python programs do, within the grace. And what each begins with."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from presque import Client, Worker
from presque.worker import to_queue
from tests import rig
from tests.worker import wild
from tests.worker.conftest import Work, counts


def test_a_forked_job_ends_as_a_program_does(work: Work, client: Client, queue_name: str) -> None:
    client.push_many(queue_name, ["leaves_exits", "fine"])
    worker = work("Wild", "--fork", "--burst", module="wild")
    assert worker.wait() == 0
    assert counts(client, queue_name)["processed"] == 2
    assert len(worker.notes("thread ended")) == 1
    assert len(worker.notes("exit function")) == 1
    assert "in the buffer" in Path(f"{worker.diary}.log").read_text()
    [directory] = worker.notes("directory")
    assert not Path(directory["path"]).exists()
    exits = worker.notes("exit of the worker")
    assert [one["pid"] for one in exits] == [worker.pid], "what the worker registered is for the worker"
    assert not Path(directory["of_the_module"]).exists()


@pytest.mark.parametrize("kind", ["Wild", "WildAsync"])
def test_what_is_in_the_buffers_of_a_forked_job_is_written_once(
    work: Work, client: Client, queue_name: str, tmp_path: Path, kind: str
) -> None:
    client.push_many(queue_name, ["leaves_files_with_buffers", "fine", "fine"])
    file = tmp_path / "of-the-worker"
    worker = work(kind, "--fork", "--burst", module="wild", OF_THE_WORKER=str(file))
    assert worker.wait() == 0
    assert counts(client, queue_name)["processed"] == 3
    for end in ("text", "bytes", "both"):
        assert Path(f"{worker.diary}.{end}").read_text() == "kept"
    for end in ("gz", "text.gz"):
        assert gzip.decompress(Path(f"{worker.diary}.{end}").read_bytes()) == b"kept"
    assert file.read_text() == "once", "the worker's own buffer is the worker's to write"


def test_what_the_worker_has_open_outlives_its_children(work: Work, client: Client, queue_name: str) -> None:
    client.push(queue_name, "leaves_exits")
    worker = work("Wild", "--fork", module="wild")
    [directory] = worker.noted("directory")
    client.push(queue_name, "fine")
    worker.noted("ended", 2)
    assert Path(directory["of_the_module"]).is_dir()


def test_a_thread_without_end_is_cut_off_after_the_grace_and_the_job_is_done(
    work: Work, client: Client, queue_name: str
) -> None:
    client.push(queue_name, "leaves_an_endless_thread")
    worker = work("Wild", "--fork", "--burst", "--grace", "1", module="wild")
    assert worker.wait() == 0
    assert counts(client, queue_name)["processed"] == 1
    assert "job.exit_cut_off" in worker.said()


def test_each_forked_job_draws_other_random_numbers(work: Work, client: Client, queue_name: str) -> None:
    ids = client.push_many(queue_name, ["draws"] * 5, keep=60)
    worker = work("Wild", "--fork", "--burst", module="wild")
    assert worker.wait() == 0
    assert len({client.job(queue_name, id)["result"] for id in ids}) == 5


def test_numpy_begins_anew_in_each_forked_job(work: Work, client: Client, queue_name: str) -> None:
    client.push_many(queue_name, [1, 2])
    worker = work("Seeded", "--fork", "--burst", module="wild", WITH_NUMPY="1")
    assert worker.wait() == 0
    assert [one["count"] for one in worker.notes("seeds")] == [1, 1]


@pytest.mark.parametrize("flags", [(), ("--timeout", "30")])
def test_an_alarm_of_a_forked_job_is_its_own(
    work: Work, client: Client, queue_name: str, flags: tuple[str, ...]
) -> None:
    client.change_policy(queue_name, max_attempts=1, keep=60)
    client.push_many(queue_name, ["is_rung", "rings"])
    worker = work("Wild", "--fork", "--burst", *flags, module="wild")
    assert worker.wait() == 0
    [error] = client.job(queue_name, "1")["errors"]
    assert error["error"] == "its process was killed by signal 14 (SIGALRM)"
    assert client.job(queue_name, "2")["result"] == "True"


def test_a_memory_error_of_a_library_is_named_as_the_limit_that_it_is(
    work: Work, client: Client, queue_name: str
) -> None:
    client.change_policy(queue_name, max_attempts=1)
    client.push(queue_name, "array")
    worker = work("Wild", "--fork", "--burst", "--max-memory", "1G", module="wild")
    assert worker.wait() == 0
    [error] = client.job(queue_name, "1")["errors"]
    assert error["error"] == "over its memory limit of 1024 MiB (MemoryError)"


def test_failures_that_no_queue_would_take_as_they_are_reach_their_queue(
    server: rig.Server, client: Client, queue_name: str
) -> None:
    failures = f"{queue_name}-failures"

    class Failing(Worker):
        failure_backends = (to_queue(client, failures),)

        def work(self, job: object) -> None:
            wild.JOBS["surrogate" if job == "small" else "huge"](None)

    client.push_many(queue_name, ["small", "x" * 500_000])
    client.change_policy(queue_name, max_attempts=1)
    Failing(server.url, queue=queue_name, burst=True).start()
    small, large = map(json.loads, client.fetch_many(failures))
    assert (small["job"], small["error"]) == ("small", "ValueError: half ?")
    assert (large["job"], large["error"][:12]) == (None, "ValueError: ")
