"""Starts a worker: picks what runs its jobs, obeys signals, writes its pid file, and ends it cleanly."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from presque import traces
from presque.errors import SetupError
from presque.log import configure
from presque.worker import first_process, forked, interrupts, last_words
from presque.worker.coroutines import Tasks
from presque.worker.crew import Crew, Errand
from presque.worker.errors import JobStopped
from presque.worker.forker import LOST, Forker
from presque.worker.forks import Forks
from presque.worker.guard import guard
from presque.worker.logger import log
from presque.worker.reporting import LEAVE_S
from presque.worker.runner import FLUSH_S
from presque.worker.settings import WrongSetting
from presque.worker.signals import Handler, Signals, heard, watch_forks
from presque.worker.stage import begin_in, executors_of, parts_of, run_here
from presque.worker.threads import Threads
from presque.worker.work import Work

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
ALARMS = ("SIGALRM", "SIGPROF", "SIGXCPU")
"""What a job may have sent to itself, to come later: it would end the worker."""
SIGNALS = {getattr(signal, name): what for name, what in _MEANING.items() if hasattr(signal, name)}


_exit = os._exit
"""Itself: whatever a job has done to the interpreter, a second TERM ends the worker."""

OnCrew = Callable[[Crew], None]


def start(
    works: Sequence[Work],
    on_crew: OnCrew,
    errands: Sequence[Errand] = (),
    *,
    handle_signals: bool = True,
) -> None:
    """Run until told to stop: see `Worker.start`. `on_crew` gets what can be asked to stop."""
    first_process.step_aside()
    forked.fill_standard_streams()
    if not logging.getLogger().handlers:  # nobody has said how log lines look
        configure()
    unsilence()
    in_main = threading.current_thread() is threading.main_thread()
    set_up_traces(works)
    executors, forker = executors_of(works)
    forks = [one for one in executors if isinstance(one, Forks)]
    if forks and not (in_main and handle_signals):
        raise WrongSetting(
            "a forking worker hears of its children by signals: start it in the main thread, "
            "with `handle_signals`"
        )
    if forker is not None and not in_main:
        raise WrongSetting(
            "a process with threads should not fork: start a forking worker in the main thread"
        )
    crew = Crew(works, executors, errands)
    on_crew(crew)
    watch_forks()
    obeys = in_main and handle_signals
    forking_here = contextlib.nullcontext() if forker is None else forking(forker, crew)
    heard_here = obeyed(crew) if obeys else contextlib.nullcontext()
    with pid_file(crew.settings.pidfile), guarded(crew), forking_here, heard_here:
        if forks:
            for one in forks:
                one.client = crew.client
            _run_loop(crew)
        else:
            run_beside(crew)
    traces.shut_down()
    if crew.left:
        end_under(crew)
    if forker is not None and forker.lost:
        raise RuntimeError(LOST)


@contextlib.contextmanager
def forking(forker: Forker, crew: Crew) -> Iterator[None]:
    """Have the process beside this one that forks for jobs. When it ends, so does the worker."""
    forker.on_lost = lambda: crew.ask("stop")
    with forker.running():
        yield


async def run_within(
    works: Sequence[Work],
    on_crew: OnCrew,
    errands: Sequence[Errand] = (),
    *,
    handle_signals: bool = False,
) -> None:
    """Run in the loop that runs, until told to stop: see `Worker.run`."""
    if handle_signals and threading.current_thread() is not threading.main_thread():
        raise WrongSetting("signals come to the main thread: leave out `handle_signals` in others")
    set_up_traces(works)
    executors, forker = executors_of(works)
    if forker is not None or any(isinstance(one, Forks) for one in executors):
        raise WrongSetting(
            "`fork` needs a process of its own, since one with the loop and the threads of somebody else"
            " should not fork: run `presque worker` beside this program, or use `start()` in one that does"
            " nothing else; `app.worker(except_=QUEUES)` leaves out the queues of tasks that fork"
        )
    crew = Crew(works, executors, errands)
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def end(error: BaseException | None) -> None:
        if ended.cancelled() or ended.done():
            return
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)

    def hold() -> None:
        error = None
        try:
            with log.apart():
                _run_loop(crew)
        except BaseException as raised:  # noqa: BLE001  (raised again where `run` was awaited)
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(end, error)

    on_crew(crew)
    begin_in(loop, executors)
    threading.Thread(target=hold, name="presque-leases", daemon=True).start()
    with obeyed_within(loop, crew) if handle_signals else contextlib.nullcontext():
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError:
            for one in parts_of(executors):
                if isinstance(one, Tasks):  # `asyncio.run` cancels the tasks of jobs, too, when it ends
                    one.ends = JobStopped("the worker was stopped")
            crew.ask("stop")
            await ended
            raise


@contextlib.contextmanager
def obeyed_within(loop: asyncio.AbstractEventLoop, crew: Crew) -> Iterator[None]:
    """Obey signals in a loop of somebody else's; those who were asked before come back afterwards."""
    orders = Orders(crew)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        loop.add_signal_handler(number, orders.obey, number)
    try:
        yield
    finally:
        orders.over()
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


def set_up_logging(format: str, level: str) -> None:  # noqa: A002  (as `configure`)
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


def set_up_traces(works: Sequence[Work]) -> None:
    """Make traces if a worker is to. Raises `WrongSetting` if that cannot be."""
    if any(one.settings.traces for one in works):
        try:
            traces.set_up("presque-worker")
        except SetupError as error:
            raise WrongSetting(str(error)) from None


def unsilence() -> None:
    """`logging.config` disables, by default, all loggers that were there before it."""
    for name in ("presque", *(one for one in logging.root.manager.loggerDict if one.startswith("presque."))):
        logging.getLogger(name).disabled = False


@contextlib.contextmanager
def guarded(crew: Crew) -> Iterator[None]:
    """Have somebody at hand who ends what jobs have started, should this process be killed."""
    trouble = guard.begin()
    if trouble is not None:
        log.warning("worker.unguarded reason=%s", trouble)
    try:
        yield
    finally:
        guard.end(stopped=crew.was_stopped)


def run_beside(crew: Crew) -> None:
    """The jobs run here, in the thread that was given to us; their leases are held in another one."""
    raised: list[BaseException] = []
    limit = sys.getrecursionlimit()

    def hold() -> None:
        try:
            with log.apart():
                _run_loop(crew)
        except BaseException as error:  # noqa: BLE001  (raised again below)
            raised.append(error)
        finally:
            try:
                for one in crew.executors:
                    one.close()
            except BaseException:  # noqa: BLE001  (a job has broken Python, and nobody could wake the others)
                end_at_once(crew, 1)
        if crew.left:
            end_under(crew)

    thread = threading.Thread(target=hold, name="presque-leases", daemon=True)
    thread.start()
    try:
        run_here(crew.executors, crew.signals)
    except BaseException as error:
        sys.setrecursionlimit(
            max(limit, sys.getrecursionlimit())
        )  # a job may have left less than a log line needs
        log.exception("worker.broke worker=%s", crew.settings.worker_id)
        crew.broke(error)
        if crew.signals is not None:
            _raise_loudly(error)
        raise
    finally:
        thread.join()
    if raised:
        _raise_loudly(raised[0])


def _raise_loudly(error: BaseException) -> NoReturn:
    """Raise what has ended a worker. C code of a job may raise `SystemExit` in any thread, and a worker that
    ends with it would seem to have ended as it should."""
    if isinstance(error, SystemExit):
        raise RuntimeError("something has raised SystemExit in the worker itself") from error
    raise error


def _run_loop(crew: Crew) -> None:
    """Run the lease loops, in a kind of event loop that can watch the socket of the signals anywhere."""
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as loop:
        loop.run(crew.run())


@contextlib.contextmanager
def obeyed(crew: Crew) -> Iterator[None]:
    """Obey signals; those who were asked before come back afterwards."""
    [first, *others] = crew.executors
    forks = isinstance(first, Forks)
    alone = first if isinstance(first, Threads) and not others else None
    numbers: set[int] = set(SIGNALS)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        numbers.discard(signal.SIGHUP)  # nohup
    if forks:
        numbers.add(signal.SIGCHLD)
    raising: dict[int, Handler] = {}
    if alone is not None and interrupts.SIGNAL is not None:
        for number in (interrupts.SIGNAL, interrupts.TIMER):
            if number is not None:
                raising[number] = lambda _number, frame: alone.interrupted(frame)
    if not forks:
        alarms = [getattr(signal, name) for name in ALARMS if hasattr(signal, name)]
        for number in alarms:
            if signal.getsignal(number) is signal.SIG_DFL:
                raising[number] = ignored if alone is None else alone.rung
    orders = Orders(crew)
    try:
        with heard(Signals(numbers, orders.obey, raising)) as signals:
            crew.signals = signals
            for one in crew.executors:
                one.signals = signals
            if not forks:
                signals.listen()  # else the lease loop has the main thread to itself, and hears them
            yield
    finally:
        orders.over()


def ignored(_number: int, _frame: FrameType | None) -> None:
    """The handler of what would end the process: nobody can say which of several jobs it was for."""


class Orders:
    """What signals ask for. The third TERM, INT or HUP, or the second in haste, ends the process at once."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._asked: str | None = None
        self._is_late = self._is_over = False
        self._counts_from = 0.0
        """From when on another one to stop is a second one, and not the same again."""

    def over(self) -> None:
        """The worker has ended. A program that continues is not ended with it."""
        self._is_over = True

    def obey(self, number: int) -> None:
        """Do what a signal asks for: from any thread."""
        if hasattr(signal, "SIGCHLD") and number == signal.SIGCHLD:
            for one in self._crew.executors:
                if isinstance(one, Forks):
                    one.reap()
            return
        what = SIGNALS[number]
        if number == signal.SIGTERM and self._asked is None:
            what = self._crew.settings.term
        if what == "stop":
            now = time.monotonic()
            if self._asked == "stop" and now > self._counts_from:
                self._end(128 + number)
            if self._asked != "stop" and first_process.is_aside:
                self._counts_from = now + first_process.TWICE_S
            self._asked = "stop"
            after = self._crew.settings.grace + FLUSH_S + LEAVE_S
            if not self._is_late:
                self._is_late = True
                end_after(after, self._end_late)
        elif what == "finish":
            self._asked = what
        self._crew.ask(what)

    def _end_late(self) -> None:
        if not self._is_over:
            self._end(1)

    def _end(self, code: int) -> NoReturn:
        try:
            self._crew.kill()
        finally:
            end_at_once(self._crew, code)


def end_after(seconds: float, end: Callable[[], object]) -> None:
    """Call `end` then, if this process is still there."""

    def wait() -> None:
        time.sleep(seconds)
        end()

    _thread.start_new_thread(wait, ())  # `Thread` waits until it runs: for ever, if a job has broken Python


def end_command(crew: Crew) -> None:
    """The command that has run a worker ends: threads that jobs have left have the grace, if it was stopped.

    Python waits for them at the end of a program, however long that takes.
    """
    if crew.was_stopped:
        end_after(crew.settings.grace, lambda: _exit(0))


def end_at_once(crew: Crew, code: int) -> NoReturn:
    """End the process where it stands."""
    try:
        log.flush(0.2)
        forget_pid_file(crew.settings.pidfile)
    finally:
        _exit(code)


def end_under(crew: Crew) -> NoReturn:
    """End the process under jobs that will not stop, and give them back once they have ended.

    Nothing else ends a thread; and a job that is given back while it still runs would run twice at once. So
    another program takes the place of this one, and tells the server.
    """
    forget_pid_file(crew.settings.pidfile)
    traces.shut_down()
    forked.flush()
    last_words.replace_process(crew.settings, crew.left)
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
