"""Starts a worker: picks its executor, obeys signals, writes its pid file, and ends it cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from presque.log import configure
from presque.worker import interrupts
from presque.worker.executors import Executor, Tasks, Threads
from presque.worker.forks import Forks
from presque.worker.logger import log
from presque.worker.programs import Programs
from presque.worker.runner import Runner
from presque.worker.settings import WrongSetting
from presque.worker.signals import heard
from presque.worker.work import Work

TASKS = 100
"""How many jobs an `async def work` does at once, unless told otherwise."""

# As resque's workers obey them, as far as the system has them: Windows knows INT and TERM alone.
_MEANING = {
    "SIGQUIT": "finish",
    "SIGTERM": "stop",
    "SIGINT": "stop",
    "SIGUSR1": "kill",
    "SIGUSR2": "quiet",
    "SIGCONT": "resume",
}
SIGNALS = {getattr(signal, name): what for name, what in _MEANING.items() if hasattr(signal, name)}


def start(work: Work, on_runner: Callable[[Runner], None]) -> None:
    """Run until told to stop: see `Worker.start`. `on_runner` gets what can be asked to stop."""
    if not logging.getLogger().handlers:  # nobody has said how log lines look
        configure()
    in_main = threading.current_thread() is threading.main_thread()
    executor = executor_of(work)
    if isinstance(executor, Forks) and not in_main:
        raise WrongSetting("a forking worker hears of its children by signals: start it in the main thread")
    runner = Runner(work, executor)
    on_runner(runner)
    with pid_file(work.settings.pidfile), obeyed(runner, executor) if in_main else contextlib.nullcontext():
        if isinstance(executor, Forks):
            executor.client = runner.client
            _run_loop(runner)
        else:
            run_beside(runner, executor)


def executor_of(work: Work) -> Executor:
    """What runs the jobs of this worker."""
    asked = work.settings
    if work.command is not None or asked.fork:
        if not hasattr(os, "fork"):
            raise WrongSetting("this system cannot fork: leave out `fork`, or run the worker on a Unix")
        return (Forks if work.command is None else Programs)(work, asked.concurrency or 1)
    if work.is_async:
        return Tasks(work, asked.concurrency or TASKS)
    return Threads(work, asked.concurrency or 1)


def run_beside(runner: Runner, executor: Executor) -> None:
    """The jobs run here, in the thread that was given to us; their leases are held in another one."""
    raised: list[BaseException] = []

    def hold() -> None:
        try:
            _run_loop(runner)
        except BaseException as error:  # noqa: BLE001  (raised again below)
            raised.append(error)
        finally:
            executor.close()
        if runner.left_running:
            end_at_once(runner, 1)

    thread = threading.Thread(target=hold, name="presque-leases", daemon=True)
    thread.start()
    try:
        executor.run()  # type: ignore[attr-defined]
    except BaseException:
        log.exception("worker.broke worker=%s", runner.settings.worker_id)
        runner.ask("stop")  # nothing runs jobs any more, so none is to be held
        raise
    finally:
        thread.join()
    if raised:
        raise raised[0]


def _run_loop(runner: Runner) -> None:
    """Run the lease loop, in a kind of event loop that can watch the socket of the signals anywhere."""
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as loop:
        loop.run(runner.run())


@contextlib.contextmanager
def obeyed(runner: Runner, executor: Executor) -> Iterator[None]:
    """Obey signals; those who were asked before come back afterwards."""
    handlers: dict[int, Callable[[], None]] = {
        number: functools.partial(obey, runner, executor, number) for number in SIGNALS
    }
    raising: dict[int, Callable[[FrameType | None], None]] = {}
    if isinstance(executor, Forks):
        handlers[signal.SIGCHLD] = executor.reap
    if isinstance(executor, Threads) and interrupts.SIGNAL is not None:
        raising[interrupts.SIGNAL] = executor.interrupted
    with heard(handlers, raising) as runner.signals:
        yield


def obey(runner: Runner, executor: Executor, number: signal.Signals) -> None:
    """Do what a signal asks for. A second TERM or INT ends the process where it stands."""
    what = SIGNALS[number]
    if what == "stop" and runner.stops_at_once:
        executor.kill()
        end_at_once(runner, 128 + number)
    runner.ask(what)


def end_at_once(runner: Runner, code: int) -> NoReturn:
    """End the process under jobs that will not stop: nothing else can end them."""
    forget_pid_file(runner.settings.pidfile)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


@contextlib.contextmanager
def pid_file(path: str | None) -> Iterator[None]:
    """Write our process id into a file, and remove the file at the end if it is still ours."""
    if path is None:
        yield
        return
    try:
        Path(path).write_text(f"{os.getpid()}\n")
    except OSError as error:
        raise WrongSetting(f"cannot write the pid file {path}: {error.strerror}") from None
    try:
        yield
    finally:
        forget_pid_file(path)


def forget_pid_file(path: str | None) -> None:
    """Remove the file if it still holds our process id: another worker may have overwritten it."""
    with contextlib.suppress(OSError):
        if path is not None and Path(path).read_text() == f"{os.getpid()}\n":
            Path(path).unlink()
