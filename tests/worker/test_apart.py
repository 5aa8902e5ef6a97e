"""Nothing that a job does to its process reaches the next job, or the worker."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from presque import Client
from tests import rig
from tests.worker import wild
from tests.worker.conftest import Work, alive, counts, heard, settled
from tests.worker.test_outcomes import WILD

every_mode = pytest.mark.parametrize("mode", WILD)


def ask(client: Client, queue: str, job: Any) -> Any:
    """Push a job and return what it returned. Fails when it failed."""
    found = client.job(queue, client.push(queue, job, keep=60), wait=rig.PATIENCE)
    assert found["state"] == "done", found
    return found["result"]


def as_ours(mode: str) -> tuple[str, ...]:
    """One job at a time, except where several run anyway."""
    kind, *flags = WILD[mode]
    return (kind, "--concurrency", "1") if mode == "async" else (kind, *flags)


@every_mode
def test_the_next_job_finds_its_process_as_it_was(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    client.change_policy(queue_name, max_attempts=1)
    worker = work(*as_ours(mode), module="wild")
    before = ask(client, queue_name, "look")
    for what in wild.MESSES:
        ask(client, queue_name, {"do": "mess", "what": what})
        assert ask(client, queue_name, "look") == before, what
        assert ask(client, queue_name, "look") == before, what
    assert worker.process.poll() is None
    assert worker.said().count("seen") == 1 + 2 * len(wild.MESSES), "standard output is still ours"
    client.push(queue_name, "huge")
    worker.says("job.failed")
    rig.eventually(lambda: heard(worker.pid))  # a handler that C code sets is put back within a second
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


@every_mode
def test_a_child_that_a_job_ends_is_not_the_worker(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    worker = work(*WILD[mode], module="wild")
    for _ in range(3):
        assert ask(client, queue_name, "ends_a_child") == -signal.SIGTERM
    assert "worker.asked" not in worker.said()
    assert worker.process.poll() is None


@every_mode
def test_a_term_to_the_whole_group_counts_once(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    client.push(queue_name, "has_children")
    worker = work(*WILD[mode], "--grace", "1", module="wild")
    [children] = worker.noted("children")
    os.killpg(worker.pid, signal.SIGTERM)
    worker.wait()
    assert worker.said().count("worker.asked what=stop") == 1
    assert client.job(queue_name, "1")["state"] == "ready", "given back"
    assert client.job(queue_name, "1")["attempt"] == 0
    rig.eventually(lambda: not any(alive(pid) for pid in children["pids"]))


@every_mode
def test_a_child_that_comes_back_from_a_job_does_not_work(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    for _ in range(5):
        client.push(queue_name, "comes_back_from_a_fork")
        client.push(queue_name, "fine")
    worker = work(*WILD[mode], "--burst", module="wild")
    assert worker.wait() == 0
    assert counts(client, queue_name)["processed"] == 10
    assert len([one for one in worker.notes("began") if one["do"] == "fine"]) == 5


@every_mode
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGUSR2])
def test_a_job_that_signals_its_worker_has_failed_and_the_worker_goes_on(
    work: Work, client: Client, queue_name: str, mode: str, number: int
) -> None:
    client.change_policy(queue_name, max_attempts=1)
    worker = work(*WILD[mode], module="wild")
    parent = mode.startswith("fork")
    client.push(queue_name, {"do": "signals_its_worker", "number": number, "parent": parent})
    job = client.job(queue_name, "1", wait=rig.PATIENCE)
    assert job["errors"][0]["error"].startswith(
        "PermissionError: a job must not send its own worker a signal"
    )
    assert ask(client, queue_name, "fine") is None
    assert worker.process.poll() is None


@every_mode
@pytest.mark.parametrize("thread", [False, True], ids=["itself", "in a thread"])
def test_a_job_that_would_end_its_worker_has_failed_and_the_worker_goes_on(
    work: Work, client: Client, queue_name: str, mode: str, thread: bool
) -> None:
    client.change_policy(queue_name, max_attempts=1)
    worker = work(*WILD[mode], module="wild")
    for how in wild.ENDERS:
        id = client.push(queue_name, {"do": "ends_its_worker", "how": how, "thread": thread})
        job = client.job(queue_name, id, wait=rig.PATIENCE)
        assert worker.process.poll() is None, how
        if not mode.startswith("fork"):  # there it ends what is its own
            assert job["state"] == "dead", how
            assert job["errors"][0]["error"].startswith("PermissionError: a job must not"), how
        assert ask(client, queue_name, "fine") is None, how
    ask(client, queue_name, "exits_in_a_thread")
    assert "worker.asked" not in worker.said()
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


@pytest.mark.parametrize("mode", ["inline", "threads"])
def test_a_second_term_ends_a_worker_whose_interpreter_a_job_has_broken(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    worker = work(*WILD[mode], "--grace", "600", module="wild")
    client.push(queue_name, "breaks_the_interpreter")
    worker.noted("broken")

    def is_ended() -> bool:
        """By the second, or by itself before that: the lease loop may break first."""
        if worker.process.poll() is None:
            worker.signal(signal.SIGTERM)
            time.sleep(0.1)
        return worker.process.poll() is not None

    rig.eventually(is_ended)
    assert worker.wait() != 0


@pytest.mark.parametrize("mode", ["inline", "threads", "async"])
def test_a_worker_in_which_c_code_raises_an_exit_does_not_seem_to_have_ended_well(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    worker = work(*WILD[mode], "--grace", "1", module="wild")
    client.push(queue_name, "exits_everywhere")
    worker.noted("exits")
    client.push(queue_name, "fine")  # its answer wakes the lease loop
    assert worker.wait() == 1, worker.said()


@pytest.mark.parametrize("mode", ["fork", "fork and async"])
def test_a_forked_job_that_signals_the_group_of_its_worker_has_failed(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    client.change_policy(queue_name, max_attempts=1)
    worker = work(*WILD[mode], module="wild")
    client.push(queue_name, {"do": "sends_a_signal_by_its_group", "number": signal.SIGTERM})
    job = client.job(queue_name, "1", wait=rig.PATIENCE)
    assert job["errors"][0]["error"].startswith("PermissionError: a job must not send its own worker")
    assert ask(client, queue_name, "fine") is None
    assert "worker.asked" not in worker.said()


@every_mode
def test_locks_that_a_job_keeps_are_given_back_for_it(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    client.change_policy(queue_name, max_attempts=1)
    worker = work(*WILD[mode], module="wild")
    for what in ("locks of logging", "lock of imports"):
        ask(client, queue_name, {"do": "mess", "what": what})
        ask(client, queue_name, "fine")
    client.push(queue_name, "huge")
    worker.says("job.failed")
    if not mode.startswith("fork"):
        worker.says('what="locks of logging"')
        worker.says('what="lock of imports"')
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert "worker.asked what=stop" in worker.said()


@pytest.mark.parametrize("mode", ["inline", "threads", "async"])
@pytest.mark.parametrize("thread", [False, True], ids=["itself", "in a thread that has ended"])
def test_leases_are_renewed_and_log_lines_come_while_a_job_holds_the_locks_of_logging(
    work: Work, client: Client, queue_name: str, mode: str, thread: bool, tmp_path: Path
) -> None:
    client.change_policy(queue_name, max_attempts=1, lease=1)
    until = tmp_path / "until"
    worker = work(*WILD[mode], "--grace", "1", module="wild")
    job = {"do": "holds_the_locks_of_logging", "until": str(until), "thread": thread}
    holding = client.push(queue_name, job, keep=60)
    worker.noted("holding")
    if mode == "threads":
        for _ in range(5):
            ask(client, queue_name, "fine")
    worker.signal(signal.SIGUSR2)
    worker.says("worker.asked what=quiet")
    time.sleep(2.5)  # longer than a lease
    assert client.job(queue_name, holding)["state"] == "leased"
    until.touch()
    assert client.job(queue_name, holding, wait=rig.PATIENCE)["state"] == "done"
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert worker.said().count("job.done") == (6 if mode == "threads" else 1)


@pytest.mark.parametrize("mode", ["threads", "async"])
@pytest.mark.parametrize("what", ["pipes_over_the_descriptors", "closes_the_descriptors"])
def test_the_standard_descriptors_are_put_back_though_others_run(
    work: Work, client: Client, queue_name: str, mode: str, what: str, tmp_path: Path
) -> None:
    until = tmp_path / "until"
    worker = work(*WILD[mode], module="wild")
    before = ask(client, queue_name, "look")["descriptors"]
    waits = "waits_async" if mode == "async" else "waits"
    running = client.push(queue_name, {"do": waits, "until": str(until)}, keep=60)
    worker.noted("waiting")
    ask(client, queue_name, what)
    assert ask(client, queue_name, "look")["descriptors"] == before
    assert client.job(queue_name, running)["state"] == "leased"
    until.touch()
    assert client.job(queue_name, running, wait=rig.PATIENCE)["state"] == "done"
    client.push(queue_name, "huge")
    worker.says("job.failed")


@every_mode
def test_a_job_that_changes_its_own_view_of_itself_is_settled_all_the_same(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    worker = work(*WILD[mode], module="wild")
    assert ask(client, queue_name, "changes_its_job") is None
    assert ask(client, queue_name, "fine") is None
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


def test_an_alarm_that_a_job_does_not_hear_is_its_failure(
    work: Work, client: Client, queue_name: str
) -> None:
    client.change_policy(queue_name, max_attempts=1)
    worker = work("Wild", module="wild")
    client.push(queue_name, "is_rung")
    job = client.job(queue_name, "1", wait=rig.PATIENCE)
    assert job["state"] == "dead"
    assert job["errors"][0]["error"] == "its alarm rang (SIGALRM), and it has no handler for that signal"
    assert ask(client, queue_name, "fine") is None
    assert worker.process.poll() is None


@pytest.mark.parametrize("what", ["handler", "factory", "debug", "executor", "generators"])
def test_what_a_job_does_to_the_loop_of_all_jobs_reaches_no_other(
    work: Work, client: Client, queue_name: str, what: str
) -> None:
    client.change_policy(queue_name, max_attempts=1)
    worker = work("LoopAsync", "--concurrency", "2", module="wild")
    before = ask(client, queue_name, "look")
    ask(client, queue_name, what)
    assert ask(client, queue_name, "look") == before
    worker.says('what="event loop"')
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


def test_a_thread_that_a_job_has_left_holds_up_the_end_for_the_grace_at_most(
    work: Work, client: Client, queue_name: str
) -> None:
    worker = work("Wild", "--grace", "1", module="wild")
    client.push(queue_name, "leaves_an_endless_thread", keep=60)
    assert client.job(queue_name, "1", wait=rig.PATIENCE)["state"] == "done"
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


def test_a_job_that_raises_a_signal_uses_up_its_attempt(work: Work, client: Client, queue_name: str) -> None:
    client.change_policy(queue_name, max_attempts=1)
    client.push(queue_name, "raises_a_signal")
    worker = work("Wild", module="wild")
    assert worker.wait() == 0
    job = client.job(queue_name, "1")
    assert (job["state"], job["errors"][0]["error"]) == (
        "dead", "the job sent its own worker a signal that stopped it",
    )  # fmt: skip


@pytest.mark.parametrize(("kind", "job"), [("Wild", "own_loop"), ("OwnLoopAsync", "any")])
def test_a_worker_whose_job_had_signal_handlers_of_its_own_still_hears(
    work: Work, client: Client, queue_name: str, kind: str, job: str
) -> None:
    worker = work(kind, module="wild")
    client.push(queue_name, job)
    worker.noted("ended")
    rig.eventually(lambda: settled(client, queue_name))
    worker.signal(signal.SIGUSR2)
    worker.says("worker.asked what=quiet")
    worker.signal(signal.SIGCONT)
    worker.says("worker.asked what=resume")
    client.push(queue_name, job)
    worker.noted("ended", 2)
    rig.eventually(lambda: settled(client, queue_name))  # what it changed is put back when it is over
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    worker.says("job.left_changed")


def test_a_time_limit_is_not_raised_where_a_log_handler_has_its_lock(
    work: Work, client: Client, queue_name: str
) -> None:
    client.change_policy(queue_name, max_attempts=1, backoff={"first": 0.05, "factor": 1, "jitter": 0})
    client.push_many(queue_name, ["logs_without_end"] * 5)
    client.push(queue_name, "fine", attempts=1000)  # on a machine that stands still it is late, too
    worker = work("Wild", "--timeout", "0.1", module="wild")
    rig.eventually(lambda: settled(client, queue_name))
    assert counts(client, queue_name)["dead"] == 5
    assert counts(client, queue_name)["processed"] == 1
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


def test_tasks_of_an_async_job_that_exit_or_stop_the_loop_end_nothing_else(
    work: Work, client: Client, queue_name: str
) -> None:
    client.change_policy(queue_name, max_attempts=1)
    for job in ("gather", "task", "stop", "fine"):
        client.push_many(queue_name, [job, "fine"])
    worker = work("TasksAsync", "--burst", module="wild")
    assert worker.wait() == 0
    assert counts(client, queue_name)["processed"] == 7, worker.said()
    assert client.job(queue_name, "1")["errors"][0]["error"] == "SystemExit: 3"
    assert "job.task_raised" in worker.said()
    client.push(queue_name, "cancel all")
    worker = work("TasksAsync", "--burst", module="wild")
    assert worker.wait() == 0
    client.push(queue_name, "fine")
    assert work("TasksAsync", "--burst", module="wild").wait() == 0
    assert counts(client, queue_name)["processed"] == 8


def test_one_job_sees_nothing_of_the_context_of_another(work: Work, client: Client, queue_name: str) -> None:
    """Many at once, where a task is often begun as another ends."""
    jobs = [{"do": "mess", "what": "context"}, "look"] * 100
    ids = client.push_many(queue_name, jobs, keep=60)
    worker = work("WildAsync", "--concurrency", "3", "--burst", module="wild")
    assert worker.wait() == 0
    seen = {client.job(queue_name, id)["result"]["context"] for id in ids[1::2]}
    assert seen == {"nothing"}


def test_the_directory_that_a_worker_was_started_in_is_looked_through_wherever_a_job_goes(
    server: rig.Server, client: Client, queue_name: str, tmp_path: Any
) -> None:
    import subprocess
    import sys

    (tmp_path / "helper_beside.py").write_text("value = 7\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "statistics.py").write_text("raise SystemExit('not this one')\n")
    (tmp_path / "tasks.py").write_text(
        "import os\n"
        "def work(job):\n"
        "    os.chdir('elsewhere')\n"
        "    import helper_beside, statistics\n"
        "    return helper_beside.value\n"
    )
    client.push(queue_name, 1, keep=60)
    done = subprocess.run(
        [sys.executable, "-m", "presque", "worker", "tasks:work", "--queues", queue_name, "--burst",
         "--url", server.url],
        cwd=tmp_path, check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert client.job(queue_name, "1")["result"] == 7, done.stderr


def test_an_async_job_in_a_fork_that_closes_all_files_has_failed_and_says_so(
    work: Work, client: Client, queue_name: str
) -> None:
    client.change_policy(queue_name, max_attempts=1)
    client.push(queue_name, "closes_all")
    worker = work("WildAsync", "--fork", "--burst", module="wild")
    assert worker.wait() == 0
    [error] = client.job(queue_name, "1")["errors"]
    assert error["error"] == "the job failed and could not say why, since it has closed its files"


@every_mode
def test_a_job_that_empties_its_worker_object_harms_no_other(
    work: Work, client: Client, queue_name: str, mode: str
) -> None:
    client.change_policy(queue_name, max_attempts=1)
    kind, *flags = WILD[mode]
    worker = work(kind.replace("Wild", "Forgets"), *flags, module="wild")
    client.push_many(queue_name, [1, 2, 3])
    rig.eventually(lambda: counts(client, queue_name)["processed"] == 3)
    assert len(worker.notes("hooked")) == 3
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert "Traceback" not in worker.said()


def test_a_job_that_leaves_no_stack_stops_no_worker(work: Work, client: Client, queue_name: str) -> None:
    """The recursion limit is that of all threads, and what puts it back needs a few levels itself."""
    client.push_many(queue_name, ["shallow", "next", "shallow", "next"])
    worker = work("Shallow", "--burst", module="wild")
    assert worker.wait() == 0, worker.said()
    assert counts(client, queue_name)["processed"] == 4
    assert 'what="recursion limit"' in worker.said()


def test_a_job_that_breaks_its_worker_uses_up_its_attempt(
    work: Work, client: Client, queue_name: str
) -> None:
    client.change_policy(queue_name, max_attempts=1)
    client.push(queue_name, 1)
    worker = work("ClosesItsLoop", "--concurrency", "1", module="wild")
    assert worker.wait() == 1
    [error] = client.job(queue_name, "1")["errors"]
    assert error["error"].startswith("the worker broke while the job ran: ValueError: ")
    assert counts(client, queue_name)["dead"] == 1
