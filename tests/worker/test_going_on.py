"""A job saves how far it got, comes again later without using up an attempt, and its last words are heard."""

from __future__ import annotations

import signal
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from presque import Client, Retry, Snooze, Worker
from presque.testing import InlineClient, perform, perform_async
from tests import rig
from tests.worker.conftest import MODES, Work, counts

every_mode = pytest.mark.parametrize("mode", MODES)


def begin(work: Work, mode: str, *more: str) -> Any:
    return work(*MODES[mode], *more, module="going_on")


# --- what a job saves


@every_mode
def test_the_next_attempt_finds_what_was_saved_though_the_worker_was_killed(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    client.change_policy(queue_name, lease=5, keep=60)
    states = [{"n": n} for n in range(5)]
    client.push(queue_name, {"save": states, "stay": 1})
    first = begin(work, mode)
    assert first.noted("saved")[0]["stored"] is True
    first.signal(signal.SIGKILL)
    begin(work, mode)
    again = rig.eventually(lambda: [one for one in first.notes("began") if one["attempt"] == 2])
    assert again[0]["saved"] == states[-1]
    job = client.job(queue_name, "1", wait=rig.PATIENCE)
    assert job["state"] == "done"
    assert "saved" not in job


@every_mode
def test_what_is_saved_as_a_job_fails_is_not_lost(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    client.change_policy(queue_name, backoff={"first": 0.1, "jitter": 0}, keep=60)
    client.push(queue_name, {"late_save": [1, {"two": None}], "raise": "later"})
    worker = begin(work, mode)
    assert client.job(queue_name, "1", wait=rig.PATIENCE)["state"] == "done"
    assert [one["saved"] for one in worker.notes("began")] == [None, [1, {"two": None}]]


@every_mode
def test_the_last_progress_of_a_quick_job_is_kept(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    client.change_policy(queue_name, keep=60, max_attempts=1)
    client.push_many(queue_name, [{"progress": [0.1, 0.5, n]} for n in range(20)])
    dead = client.push(queue_name, {"progress": ["almost"], "raise": "no"})
    begin(work, mode, "--burst").wait()
    for n in range(20):
        assert client.job(queue_name, str(n + 1))["progress"] == n
    assert client.job(queue_name, dead)["progress"] == "almost"


def test_a_job_that_saves_in_vain_goes_on(tmp_path: Path, queue_name: str) -> None:
    """The lease was lost: nobody waits for an answer that does not come."""

    class Saves(Worker):
        def work(self, job: Any) -> Any:
            self.job.cancelled = True
            self.job.tell = lambda *_: None
            return self.job.save(1)

    assert perform(Saves, {}).result is False


def test_what_cannot_be_saved_is_refused() -> None:
    class Saves(Worker):
        def work(self, job: Any) -> Any:
            for bad in (float("nan"), {1, 2}, "x" * 65_535):
                with pytest.raises((TypeError, ValueError)):
                    self.job.save(bad)
            assert self.job.saved == {"n": 1}
            self.job.save(None)
            return self.job.saved

    outcome = perform(Saves, {}, saved={"n": 1})
    assert (outcome.state, outcome.result, outcome.saved) == ("done", None, [None])


# --- later


@every_mode
@pytest.mark.parametrize("group", [False, True])
def test_a_job_that_snoozes_comes_again_and_its_attempt_does_not_count(
    work: Work, client: Client, queue_name: str, mode: str, group: bool
) -> None:
    client.change_policy(queue_name, max_attempts=1, keep=60)
    client.push(queue_name, {"snooze": "300ms", **({"group": 1} if group else {})})
    worker = begin(work, mode)
    job = client.job(queue_name, "1", wait=rig.PATIENCE)
    assert (job["state"], job["attempt"], job["errors"]) == ("done", 1, [])
    assert [one["attempt"] for one in worker.notes("began")] == [1, 1]
    assert worker.notes("began")[1]["saved"] == {"snoozed": 1}
    assert worker.notes("failed") == []
    assert counts(client, queue_name)["failed"] == 0
    assert "snoozed for 0.3 s: the other side is busy" in worker.said()


def test_a_snooze_has_bounds_and_can_be_sent_between_processes() -> None:
    for bad in (-1, "soon", "11y", 10**12, None):
        with pytest.raises((TypeError, ValueError)):
            Snooze(bad)  # type: ignore[arg-type]
    assert Snooze("5m").in_ == 300
    with get_context("fork").Pool(1) as pool, pytest.raises(Snooze) as raised:
        pool.apply(snoozes)
    assert (raised.value.in_, raised.value.reason) == (60, "busy")


def snoozes() -> None:
    raise Snooze(60, "busy")


async def test_it_can_be_tried_without_a_server() -> None:
    class Later(Worker):
        def work(self, job: Any) -> None:
            self.job.save(job)
            raise Snooze("2m")

    for outcome in (perform(Later, {"n": 1}), await perform_async(Later, {"n": 1})):
        assert (outcome.state, outcome.retry_in, outcome.saved) == ("released", 120, [{"n": 1}])


def test_inline_a_job_comes_again_at_once() -> None:
    class Steps(Worker):
        def work(self, job: Any) -> Any:
            done = (self.job.saved or 0) + 1
            self.job.save(done)
            if done == 1:
                raise Snooze("2m")
            if done == 2:
                raise Retry(in_="1h")
            if done == 3:
                raise ValueError("no")
            return [done, self.job.attempt, self.job.max_attempts]

    class Never(Worker):
        def work(self, job: Any) -> None:
            raise Snooze("2m")

    inline = InlineClient({"q": Steps, "never": Never})
    inline.push("q", 1)
    assert [one.state for one in inline.outcomes] == ["released", "failed", "failed", "done"]
    assert (inline.outcomes[0].retry_in, inline.outcomes[-1].result) == (120, [4, 3, 5])
    del inline.outcomes[:]
    inline.push("q", 1, attempts=2)
    assert [one.state for one in inline.outcomes] == ["released", "failed", "dead"]
    with pytest.raises(RuntimeError, match=r"of `never` was snoozed or given back 1000 times.*let the test"):
        inline.push("never", 1)


# --- programs


def test_a_program_tells_through_its_third_descriptor(program: Work, client: Client, queue_name: str) -> None:
    client.change_policy(queue_name, keep=60, max_attempts=1)
    client.push(queue_name, 1)
    command = """
        if [ -z "$PRESQUE_JOB_SAVED" ]; then
            echo '{"saved": {"line": 7}, "progress": "half"}' >&3
            echo '{"snooze": "200ms"}' >&3
            exit 0
        fi
        echo "{\\"result\\": $PRESQUE_JOB_SAVED, \\"progress\\": \\"whole\\"}" >&3
    """
    program(command)
    job = client.job(queue_name, "1", wait=rig.PATIENCE)
    assert job["state"] == "done"
    assert (job["result"], job["progress"], job["attempt"]) == ({"line": 7}, "whole", 1)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("hello", "Expecting value"),
        ("[1]", "job.told_nonsense"),
        ('{"progres": 1}', "it has `progres`"),
        ('{"snooze": "soon"}', "job.told_nonsense"),
        ('{"saved": NaN}', "job.told_nonsense"),
    ],
)
def test_what_a_program_tells_and_nobody_understands_is_logged(
    program: Work, client: Client, queue_name: str, line: str, said: str
) -> None:
    client.change_policy(queue_name, keep=60)
    client.push(queue_name, 1)
    command = f"""
        echo '{line}' >&3
        echo '{{"result": 5}}' >&3
        head -c 70000 /dev/zero | tr '\\0' x >&3
    """
    worker = program(command)
    assert client.job(queue_name, "1", wait=rig.PATIENCE)["result"] == 5
    worker.says("job.told_nonsense")
    assert said in worker.said()


def test_programs_that_snooze_and_fail_fail(program: Work, client: Client, queue_name: str) -> None:
    client.change_policy(queue_name, max_attempts=1)
    client.push(queue_name, 1)
    program("""echo '{"snooze": "1s"}' >&3; exit 3""")
    job = client.job(queue_name, "1", wait=rig.PATIENCE)
    assert (job["state"], job["errors"][0]["error"]) == ("dead", "exit status 3")


def test_a_program_has_no_other_descriptor_of_the_worker(
    program: Work, client: Client, queue_name: str
) -> None:
    client.change_policy(queue_name, keep=60)
    client.push(queue_name, 1)
    worker = program("ls /proc/$$/fd >&2; true")
    assert client.job(queue_name, "1", wait=rig.PATIENCE)["state"] == "done"
    found = {line for line in worker.said().splitlines() if line.isdecimal() and int(line) < 10}
    assert found == {"0", "1", "2", "3"}  # the shell's own begin with 10
