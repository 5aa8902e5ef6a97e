"""Starts a worker: picks its executor, obeys signals, writes its pid file, and ends it cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from presque.log import configure
from presque.worker import first_process, forked, interrupts, last_words
from presque.worker.executors import Executor, Tasks, Threads
from presque.worker.forks import Forks
from presque.worker.guard import guard
from presque.worker.logger import log
from presque.worker.programs import Programs
from presque.worker.runner import FLUSH_S, LEAVE_S, Runner
from presque.worker.settings import WrongSetting
from presque.worker.signals import Handler, Signals, heard, watch_forks
from presque.worker.work import Work

TASKS = 100
"""How many jobs an `async def work` does at once, unless told otherwise."""

# As resque's workers obey them, as far as the system has them: Windows knows INT and TERM alone.
_MEANING = {
    "SIGQUIT": "finish",
    "SIGTERM": "stop",
    "SIGINT": "stop",
    "SIGHUP": "stop",
    "SIGUSR1": "kill",
    "SIGUSR2": "quiet",
    "SIGCONT": "resume",
}
SIGNALS = {getattr(signal, name): what for name, what in _MEANING.items() if hasattr(signal, name)}


def start(work: Work, on_runner: Callable[[Runner], None]) -> None:
    """Run until told to stop: see `Worker.start`. `on_runner` gets what can be asked to stop."""
    first_process.step_aside()
    forked.fill_standard_streams()
    if not logging.getLogger().handlers:  # nobody has said how log lines look
        configure()
    unsilence()
    in_main = threading.current_thread() is threading.main_thread()
    executor = executor_of(work)
    if isinstance(executor, Forks) and not in_main:
        raise WrongSetting("a forking worker hears of its children by signals: start it in the main thread")
    runner = Runner(work, executor)
    on_runner(runner)
    watch_forks()
    heard_here = obeyed(runner, executor) if in_main else contextlib.nullcontext()
    with pid_file(work.settings.pidfile), guarded(), heard_here:
        if isinstance(executor, Forks):
            executor.client = runner.client
            _run_loop(runner)
        else:
            run_beside(runner, executor)
    if runner.left_running:
        end_under(runner)


def set_up_logging(format: str, level: str) -> None:  # noqa: A002
    """As `configure`, for a command, after the application was imported: what it has set up stays as it is.

    Without a set-up of its own, its lines are shown from the same level on as those of presque.
    """
    unsilence()
    root = logging.getLogger()
    if root.handlers:
        logging.getLogger("presque").setLevel(level.upper())
        return
    configure(format, level)
    root.setLevel(level.upper())


def unsilence() -> None:
    """`logging.config` disables, by default, all loggers that were there before it."""
    for name in ("presque", *(one for one in logging.root.manager.loggerDict if one.startswith("presque."))):
        logging.getLogger(name).disabled = False


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Have somebody at hand who ends what jobs have started, should this process be killed."""
    trouble = guard.begin()
    if trouble is not None:
        log.warning("worker.unguarded reason=%s", trouble)
    try:
        yield
    finally:
        guard.end()


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
            end_under(runner)

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
    numbers: set[int] = set(SIGNALS)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        numbers.discard(signal.SIGHUP)  # nohup
    if isinstance(executor, Forks):
        numbers.add(signal.SIGCHLD)
    raising: dict[int, Handler] = {}
    if isinstance(executor, Threads) and interrupts.SIGNAL is not None:
        for number in (interrupts.SIGNAL, interrupts.TIMER):
            if number is not None:
                raising[number] = lambda _number, frame: executor.interrupted(frame)
    orders = Orders(runner, executor)
    with heard(Signals(numbers, orders.obey, raising)) as signals:
        executor.signals = signals
        if isinstance(executor, Forks):
            runner.signals = signals  # the lease loop has the main thread to itself
        else:
            signals.listen()
        yield


class Orders:
    """What signals ask for. The third TERM, INT or HUP, or the second in haste, ends the process at once."""

    def __init__(self, runner: Runner, executor: Executor) -> None:
        self._runner, self._executor = runner, executor
        self._asked: str | None = None

    def obey(self, number: int) -> None:
        """Do what a signal asks for: from any thread."""
        if isinstance(self._executor, Forks) and number == signal.SIGCHLD:
            self._executor.reap()
            return
        what = SIGNALS[number]
        if number == signal.SIGTERM and self._asked is None:
            what = self._runner.settings.term
        if what == "stop":
            if self._asked == "stop":
                self._end(128 + number)
            after = self._runner.settings.grace + FLUSH_S + LEAVE_S
            late = threading.Timer(after, self._end, (1,))
            late.daemon = True
            late.start()
        if what in ("stop", "finish"):
            self._asked = what
        self._runner.ask(what)

    def _end(self, code: int) -> NoReturn:
        self._executor.kill()
        end_at_once(self._runner, code)


def end_at_once(runner: Runner, code: int) -> NoReturn:
    """End the process where it stands."""
    forget_pid_file(runner.settings.pidfile)
    os._exit(code)


def end_under(runner: Runner) -> NoReturn:
    """End the process under jobs that will not stop, and give them back when they do run no more.

    Nothing else ends a thread; and a job that is given back while it still runs would run twice at once. So
    another program takes the place of this one, and tells the server.
    """
    forget_pid_file(runner.settings.pidfile)
    forked.flush()
    last_words.replace_process(runner.settings, runner.left)
    os._exit(1)


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
