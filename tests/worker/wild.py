"""Workers whose jobs misbehave, for the tests: `presque worker tests.worker.wild:Wild`.

A job is the name of a function below, or `{"do": name, …}`. `Wild` calls it, `WildAsync` does so in a
coroutine, and awaits what it returns.
"""

from __future__ import annotations

import _imp
import _signal  # type: ignore[import-not-found]
import _thread
import asyncio
import atexit
import builtins
import contextlib
import contextvars
import ctypes
import decimal
import faulthandler
import functools
import gc
import gzip
import io
import itertools
import locale
import logging
import logging.config
import logging.handlers
import multiprocessing
import multiprocessing.pool
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from presque import Dead, Retry, Worker
from presque.worker import Job, JobCancelled, JobStopped
from presque.worker.job import current
from tests.worker.jobs import is_there, note

JOBS: dict[str, Callable[[Any], Any]] = {}


def job(function: Callable[..., Any]) -> Callable[..., Any]:
    """Something that a job may do."""
    JOBS[function.__name__] = function
    return function


class Wild(Worker):
    """Does what the job says, whatever it is."""

    def work(self, job: Any) -> Any:
        name = job["do"] if isinstance(job, dict) else job
        note("began", id=self.job.id, do=name)
        result = JOBS[name](job)
        note("ended", id=self.job.id, do=name)
        return result

    def fail(self, job: Any, error: BaseException) -> None:
        note("failed", id=self.job.id, kind=type(error).__name__)
        name = job["do"] if isinstance(job, dict) else job
        if name == "fail_exits":
            sys.exit(3)
        if name == "fail_interrupts":
            raise KeyboardInterrupt
        if name == "fail_cancels":
            with contextlib.suppress(RuntimeError):  # no loop, no task
                task = asyncio.current_task()
                assert task is not None
                task.cancel()


class WildAsync(Wild):
    """The same in a coroutine."""

    async def work(self, job: Any) -> Any:
        name = job["do"] if isinstance(job, dict) else job
        note("began", id=self.job.id, do=name)
        result = JOBS[name](job)
        if issubclass(type(result), types.CoroutineType):
            result = await result
        await asyncio.sleep(0)
        note("ended", id=self.job.id, do=name)
        return result


class Forgets(Worker):
    """Its jobs leave nothing of the worker as they see it."""

    def before_work(self, job: Job) -> None:
        note("hooked", id=job.id)

    def work(self, _job: Any) -> Any:
        vars(self).clear()


class ForgetsAsync(Forgets):
    """The same in a coroutine."""

    async def work(self, _job: Any) -> None:
        vars(self).clear()


# --- exceptions that are hard to print


@job
def fine(job: Any) -> Any:
    return job.get("return") if isinstance(job, dict) else None


def raising(name: str, make: Callable[[], BaseException]) -> None:
    def run(_job: Any) -> None:
        raise make()

    JOBS[name] = run


def kind(**members: Any) -> BaseException:
    return type("Odd", (Exception,), members)("odd")  # type: ignore[no-any-return]


def explode(*_: Any) -> Any:
    raise RuntimeError("from inside of the exception")


raising("str_none", lambda: kind(__str__=lambda _: None))
raising("str_int", lambda: kind(__str__=lambda _: 404))
raising("str_raises", lambda: kind(__str__=explode, __repr__=explode))
raising("str_exits", lambda: kind(__str__=lambda _: sys.exit(9)))
raising("class_raises", lambda: kind(__class__=property(explode)))
raising("module_none", lambda: kind(__module__=None))
raising("notes_odd", lambda: kind(__notes__=property(explode)))
raising("traceback_odd", lambda: kind(__traceback__=property(explode), __cause__=property(explode)))
raising("huge", lambda: ValueError("é" * 1_400_000))
raising("surrogate", lambda: ValueError("half \ud800"))
raising("exits", lambda: SystemExit(3))
raising("exits_odd", lambda: SystemExit(kind(__str__=explode)))
raising("interrupts", lambda: KeyboardInterrupt())
raising("generator_exit", lambda: GeneratorExit())
raising("stop_iteration", lambda: StopIteration(1))
raising("cancelled", lambda: asyncio.CancelledError())
raising("recursion", lambda: deep())
raising("memory", lambda: MemoryError())
raising("base", lambda: type("Base", (BaseException,), {})("bare"))
raising("fail_exits", lambda: ValueError("then fail exits"))
raising("fail_interrupts", lambda: ValueError("then fail is interrupted"))
raising("fail_cancels", lambda: ValueError("then fail cancels its task"))
raising("dead_huge", lambda: Dead("x" * 1_400_000))
raising("retry_huge", lambda: Retry("x" * 1_400_000, in_=3600))
raising("dead_in_a_group", lambda: ExceptionGroup("several", [Dead("no such user")]))
raising(
    "dead_deep_in_groups",
    lambda: BaseExceptionGroup("several", [ExceptionGroup("inner", [Dead("no such user")]), SystemExit(1)]),
)
raising("retry_in_a_group", lambda: ExceptionGroup("several", [Retry("busy", in_=3600)]))
raising("group", lambda: ExceptionGroup("several", [ValueError("the first"), KeyError("the second")]))


class Careless(Retry):
    """Forgot to call what it overrides."""

    def __init__(self) -> None:
        self.args = ("careless",)


raising("retry_careless", Careless)


def chain(length: int) -> BaseException:
    """Exceptions that each came while the one before was handled."""
    error = ValueError("the first")
    for number in range(length):
        following = ValueError(str(number))
        following.__context__ = error
        error = following
    return error


raising("chain", lambda: chain(20_000))
raising("wide", lambda: ExceptionGroup("wide", [ValueError(number) for number in range(50_000)]))
raising("wide_and_dead", lambda: ExceptionGroup("wide", [*map(ValueError, range(500)), Dead("the last")]))
raising("stops_itself", lambda: JobStopped("of its own"))
raising("cancels_itself", lambda: JobCancelled("of its own"))


@job
def changes_its_job(_job: Any) -> None:
    """The worker goes by what the server said, whatever becomes of the job's own view of it."""
    ours = job_now()
    for name in ("queue", "id", "lease", "key", "pushed_at"):
        with contextlib.suppress(AttributeError):
            setattr(ours, name, object())
    ours.value = ours.tell = None  # type: ignore[assignment]


def deep() -> BaseException:
    try:
        return deep()
    except RecursionError as error:
        return error


# --- results that are odd


class Items(dict[str, Any]):
    """A dictionary that cannot be gone through."""

    def items(self) -> Any:
        raise RuntimeError("no items")


class Exits(dict[str, Any]):
    """Worse."""

    def items(self) -> Any:
        sys.exit(4)


JOBS["result_items"] = lambda _: Items(a=1)
JOBS["result_exits"] = lambda _: Exits(a=1)
JOBS["result_set"] = lambda _: {1, 2}
JOBS["result_huge"] = lambda _: "x" * 200_000
JOBS["result_surrogate"] = lambda _: "\ud800"
JOBS["result_nan"] = lambda _: float("nan")
JOBS["result_class_raises"] = lambda _: type("Odd", (), {"__class__": property(explode)})()


JOBS["result_deep"] = lambda _: nested(700)


def nested(levels: int) -> Any:
    value: Any = 10**5000
    for _ in range(levels):
        value = [value]
    return value


@job
def tells_long_integers(_job: Any) -> Any:
    """Longer than Python writes by itself, and nested deep."""
    ours = job_now()
    for levels in (400, 600, 900):
        try:
            ours.progress(nested(levels))
        except ValueError as error:
            note("refused", levels=levels, error=str(error))
    ours.save(nested(1))
    sys.set_int_max_str_digits(0)
    return nested(1)


# --- what has not run


async def later() -> None:
    note("ran")


JOBS["returns_a_coroutine"] = lambda _: later()
JOBS["returns_a_generator"] = lambda _: (note(what) for what in ["ran"])  # type: ignore[func-returns-value]
JOBS["returns_a_map"] = lambda _: map(note, ["ran"])
JOBS["returns_a_starmap"] = lambda _: itertools.starmap(note, [("ran",)])
JOBS["returns_a_function"] = lambda _: later
JOBS["returns_a_partial"] = lambda _: functools.partial(note, "ran")
JOBS["returns_coroutines"] = lambda _: {"all": [{1: later()}]}
JOBS["returns_a_set_of_coroutines"] = lambda _: {later(), later()}
JOBS["returns_a_map_in_a_list"] = lambda _: [1, (map(note, ["ran"]),)]


@contextlib.contextmanager
def opened() -> Iterator[None]:
    note("ran")
    yield


@contextlib.asynccontextmanager
async def opened_async() -> AsyncIterator[None]:
    note("ran")
    yield


def in_a_pool() -> Any:
    """What a pool returns for work that it has not done; a pool would leave its pipes to the collector."""
    pool: Any = types.SimpleNamespace(_cache={})
    return multiprocessing.pool.AsyncResult(pool, None, None)


JOBS["returns_a_context"] = lambda _: opened()
JOBS["returns_an_async_context"] = lambda _: [opened_async()]
JOBS["returns_what_a_pool_does"] = lambda _: in_a_pool()


def undecorated(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that forgot `functools.wraps`."""

    def run(*arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    return run


class Decorated(Worker):
    @undecorated
    async def work(self, job: Any) -> None:
        note("ran")


class Forgotten(Worker):
    async def work(self, job: Any) -> Any:
        return later()


class CallableObject:
    async def __call__(self, job: Any) -> None:
        note("ran")


class OfAnObject(Worker):
    work = CallableObject()


class OfAPartial(Worker):
    work = functools.partial(CallableObject().__call__)


class HookedAsync(Worker):
    async def before_work(self, job: Job) -> None:
        note("before_work")

    async def after_work(self, job: Job, result: Any) -> None:
        note("after_work", result=result)

    async def work(self, job: Any) -> Any:
        if job == "raise":
            raise ValueError("no")
        return job

    async def fail(self, job: Any, error: BaseException) -> None:
        await asyncio.sleep(0)
        note("failed", kind=type(error).__name__)


async def around(_job: Job, call_next: Callable[[], Any]) -> Any:
    return call_next()


class Yields(Worker):
    def work(self, job: Any) -> Any:
        yield job


class AsyncYields(Worker):
    async def work(self, job: Any) -> Any:
        yield job


class SyncWithAsyncHook(Worker):
    async def before_work(self, job: Job) -> None: ...

    def work(self, job: Any) -> None: ...


class SyncWithAsyncFail(Worker):
    def work(self, job: Any) -> None: ...

    async def fail(self, job: Any, error: BaseException) -> None: ...


class SyncWithAsyncMiddleware(Worker):
    middleware = (around,)

    def work(self, job: Any) -> None: ...


# --- what is done to the process

LOOKED = contextvars.ContextVar("LOOKED", default="nothing")


def state() -> dict[str, Any]:
    """What a job sees of its process."""
    mask = os.umask(0)
    os.umask(mask)
    root = logging.getLogger()
    return {
        "directory": str(Path.cwd()),
        "environment": os.environ.get("LEFT"),
        "removed": "HOME" in os.environ,
        "path": "/left" in sys.path,
        "streams": [getattr(sys, name).closed for name in ("stdout", "stderr")],
        "stdout": type(sys.stdout).__name__,
        "mask": mask,
        "context": LOOKED.get(),
        "precision": decimal.getcontext().prec,
        "locale": locale.setlocale(locale.LC_ALL),
        "filters": any("left behind" in str(one) for one in warnings.filters),
        "handlers": [type(one).__name__ for one in root.handlers],
        "level": root.level,
        "disabled": root.manager.disable,
        "presque": logging.getLogger("presque.worker").disabled,
        **state_of_the_interpreter(),
    }


def state_of_the_interpreter() -> dict[str, Any]:
    """What jobs seldom change."""
    out = sys.__stdout__
    return {
        "descriptors": [str(Path(f"/proc/self/fd/{number}").readlink()) for number in range(3)],
        "__stdout__": out is not None and not out.closed,
        "errors": getattr(sys.stdout, "errors", None),
        "hooks": [sys.excepthook.__name__, sys.unraisablehook.__name__, threading.excepthook.__name__],
        "numbers": [sys.getrecursionlimit(), sys.getswitchinterval(), sys.get_int_max_str_digits()],
        "gc": [gc.isenabled(), list(gc.get_threshold())],
        "sockets": socket.getdefaulttimeout(),
        "tracing": [str(one) for one in (sys.gettrace(), sys.getprofile(), threading.gettrace())],
        "zone": time.strftime("%z"),
        "faulthandler": faulthandler.is_enabled(),
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "timers": [bool(signal.getitimer(one)[0]) for one in (signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)],
        "other signals": [
            str(signal.getsignal(one)) for one in (signal.SIGPIPE, signal.SIGCHLD, signal.SIGWINCH)
        ],
        "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "app": logging.getLogger("of.the.app").level,
        "logging": [
            len(logging.getLogger("presque.worker").filters),
            [len(one.filters) for one in logging.getLogger().handlers],
            logging.getLogRecordFactory().__name__,
            logging.raiseExceptions,
        ],
        "warnings": warnings.showwarning.__name__,
        "imports": len(sys.meta_path) > 0,
        "environ": type(os.environ).__name__,
        "policy": type(asyncio.get_event_loop_policy()).__name__,
        "threads": [threading.stack_size(), sys.argv, sys.breakpointhook.__name__],
        "locks": [_imp.lock_held(), *(one._is_owned() for one in locks_of_logging())],
        "generators": "explode" in str(sys.get_asyncgen_hooks()),
    }


logging.getLogger("of.the.app").setLevel("INFO")


@job
def look(_job: Any) -> Any:
    print("seen", flush=True)  # noqa: T201
    return state()


MESSES: dict[str, Callable[[], Any]] = {
    "directory": lambda: os.chdir("/"),
    "a directory that goes": lambda: gone(),
    "environment": lambda: os.environ.update(LEFT="1"),
    "removed from the environment": lambda: os.environ.pop("HOME"),
    "import path": lambda: sys.path.insert(0, "/left"),
    "stdout in place of ours": lambda: setattr(sys, "stdout", io.StringIO()),
    "stdout closed": lambda: sys.stdout.close(),
    "stderr closed": lambda: sys.stderr.close(),
    "mask": lambda: os.umask(0o777),
    "context": lambda: (LOOKED.set("left"), decimal.setcontext(decimal.Context(prec=3))),  # type: ignore[func-returns-value]
    "locale": lambda: locale.setlocale(locale.LC_ALL, "C"),
    "filters": lambda: warnings.filterwarnings("ignore", "left behind"),
    "logging basic": lambda: logging.basicConfig(force=True, level="CRITICAL"),
    "logging dict": lambda: logging.config.dictConfig({"version": 1}),
    "logging disabled": lambda: logging.disable(),
    "our logger": lambda: logging.getLogger("presque").setLevel("CRITICAL"),
    "signal handlers": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "alarm": lambda: signal.setitimer(signal.ITIMER_REAL, 0.3),
    "alarm in processor time": lambda: signal.setitimer(signal.ITIMER_VIRTUAL, 0.05, 0.05),
    "alarm of a profiler": lambda: signal.setitimer(signal.ITIMER_PROF, 0.05, 0.05),
    "other signals": lambda: [
        signal.signal(one, signal.SIG_IGN) for one in (signal.SIGCHLD, signal.SIGWINCH, signal.SIGURG)
    ],
    "signals of C": lambda: ctypes.CDLL(None).signal(signal.SIGTERM, ctypes.c_void_p(1)),  # ignored
    "blocked signals": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()),
    "stdout deleted": lambda: delattr(sys, "stdout"),
    "stdout without its buffer": lambda: sys.stdout.detach(),  # type: ignore[union-attr]
    "stderr without its buffer": lambda: sys.stderr.detach(),  # type: ignore[union-attr]
    "descriptor of stdout closed": lambda: os.close(1),
    "descriptor of stderr elsewhere": lambda: elsewhere(2),
    "__stdout__": lambda: setattr(sys, "__stdout__", None),
    "hooks": lambda: [setattr(one, "excepthook", explode) for one in (sys, threading)],  # type: ignore[func-returns-value]
    "unraisable hook": lambda: setattr(sys, "unraisablehook", explode),
    "recursion limit": lambda: sys.setrecursionlimit(200),
    "switch interval": lambda: sys.setswitchinterval(2),
    "digits of integers": lambda: sys.set_int_max_str_digits(640),
    "no garbage collection": lambda: gc.disable(),
    "much garbage collection": lambda: gc.set_threshold(1),
    "time-out of sockets": lambda: socket.setdefaulttimeout(0.0001),
    "trace function": lambda: (sys.settrace(nothing), threading.settrace(nothing)),  # type: ignore[func-returns-value]
    "profile function": lambda: sys.setprofile(nothing),
    "time zone": lambda: (os.environ.update(TZ="Asia/Tokyo"), time.tzset()),  # type: ignore[func-returns-value]
    "faulthandler": lambda: faulthandler.enable(file=2),
    "limit of files": lambda: resource.setrlimit(
        resource.RLIMIT_NOFILE, (40, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    ),
    "limit of memory": lambda: resource.setrlimit(resource.RLIMIT_AS, (10_000_000, resource.RLIM_INFINITY)),
    "logger of the app": lambda: logging.getLogger("of.the.app").setLevel("CRITICAL"),
    "filter of our logger": lambda: logging.getLogger("presque.worker").addFilter(lambda _: False),
    "filters of handlers": lambda: [one.addFilter(lambda _: False) for one in logging.getLogger().handlers],  # type: ignore[func-returns-value]
    "our handlers are no list": lambda: setattr(logging.getLogger("presque.worker"), "handlers", None),
    "log records": lambda: logging.setLogRecordFactory(explode),
    "errors of logging": lambda: setattr(logging, "raiseExceptions", False),
    "warnings shown": lambda: setattr(warnings, "showwarning", explode),
    "no imports": lambda: sys.meta_path.clear(),
    "environ": lambda: setattr(os, "environ", dict(os.environ)),
    "event loop policy": lambda: asyncio.set_event_loop_policy(LeftPolicy()),
    "stack of threads": lambda: threading.stack_size(1 << 20),
    "arguments": lambda: sys.argv.append("left"),
    "other arguments": lambda: setattr(sys, "argv", ["left"]),
    "hooks of generators": lambda: left_hooks(),
    "locks of logging": lambda: [one.acquire() for one in 2 * locks_of_logging()],
    "lock of imports": lambda: _imp.acquire_lock(),
    "breakpoints": lambda: setattr(sys, "breakpointhook", explode),
}


class LeftPolicy(asyncio.DefaultEventLoopPolicy):
    """A job's own."""


def left_hooks() -> None:
    if asyncio._get_running_loop() is None:  # else it is the loop that sets them
        sys.set_asyncgen_hooks(explode, explode)


def nothing(*_: Any) -> None:
    """Follows what runs, and says nothing of it."""


def elsewhere(number: int) -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, number)
    os.close(nothing)


def gone() -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)


@job
def mess(job: Any) -> None:
    with contextlib.suppress(ValueError):  # signals are for the main thread
        MESSES[job["what"]]()


@job
def own_loop(_job: Any) -> None:
    """Hears signals as asyncio offers it, and forgets them again."""

    async def hear() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGUSR1):
            loop.add_signal_handler(number, lambda: None)
        for number in (signal.SIGTERM, signal.SIGUSR1):
            loop.remove_signal_handler(number)

    asyncio.run(hear())


class Shallow(Worker):
    """Its jobs leave no more stack than they need themselves."""

    def work(self, job: Any) -> None:
        if job == "shallow":
            for limit in range(1, 1000):
                with contextlib.suppress(RecursionError):
                    sys.setrecursionlimit(limit)
                    return


class ClosesItsLoop(Worker):
    """Its loop cannot go on."""

    async def work(self, _job: Any) -> None:
        asyncio.get_running_loop()._selector.close()  # type: ignore[attr-defined]
        await asyncio.sleep(0)


class OwnLoopAsync(Worker):
    """The same on the loop of all jobs."""

    async def work(self, _job: Any) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: None)
        loop.remove_signal_handler(signal.SIGTERM)
        note("ended")


# --- children and signals


@job
def ends_a_child(_job: Any) -> Any:
    """A child is told to end, not the worker."""
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(30,))
    child.start()
    child.terminate()
    child.join(10)
    return child.exitcode


@job
def has_children(_job: Any) -> None:
    children = [multiprocessing.get_context("fork").Process(target=time.sleep, args=(30,)) for _ in range(2)]
    for child in children:
        child.start()
    note("children", pids=[child.pid for child in children])
    time.sleep(30)


@job
def comes_back_from_a_fork(_job: Any) -> None:
    """Forgets that there are two of it now."""
    os.fork()


@job
def signals_its_worker(job: Any) -> None:
    os.kill(os.getpid() if not job.get("parent") else os.getppid(), job["number"])


raise_signal = signal.raise_signal
"""Itself, as who imports it by its name has it: nobody can look at it before it is called."""


@job
def raises_a_signal(_job: Any) -> None:
    raise_signal(signal.SIGTERM)
    time.sleep(5)


ENDERS: dict[str, Callable[[], Any]] = {
    "_exit": lambda: os._exit(0),
    "_exit by name": lambda: os._exit(status=3),
    "abort": lambda: os.abort(),
    "exec": lambda: os.execv("/bin/true", ["true"]),
    "kill": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "kill for real time": lambda: os.kill(os.getpid(), signal.SIGRTMIN + 2),
    "kill by the group": lambda: os.kill(-os.getpgrp(), signal.SIGINT),
    "killpg": lambda: os.killpg(os.getpgrp(), signal.SIGTERM),
    "killpg 0": lambda: os.killpg(0, signal.SIGKILL),
    "raise_signal": lambda: signal.raise_signal(signal.SIGTERM),
    "raise_signal of C": lambda: _signal.raise_signal(signal.SIGHUP),
    "interrupt_main": lambda: _thread.interrupt_main(),
    "interrupt_main by TERM": lambda: _thread.interrupt_main(signal.SIGTERM),
    "pthread_kill": lambda: signal.pthread_kill(threading.get_ident(), signal.SIGQUIT),
    "pidfd": lambda: of_a_pidfd(),
    "a signal that a child sends": lambda: of_a_child(lambda: os.kill(os.getppid(), signal.SIGTERM)),
    "a signal that a child sends to the group": lambda: of_a_child(lambda: os.killpg(0, signal.SIGTERM)),
}


def of_a_pidfd() -> None:
    file = os.pidfd_open(os.getpid())
    try:
        signal.pidfd_send_signal(file, signal.SIGTERM)
    finally:
        os.close(file)


def of_a_child(deed: Callable[[], Any]) -> None:
    """What a child raises is raised here."""
    child = os.fork()
    if not child:
        try:
            deed()
        except PermissionError:
            os._exit(7)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7:
        raise PermissionError("a job must not send its own worker a signal: its child has tried")


def in_a_thread(deed: Callable[[], Any]) -> None:
    """What a thread raises is raised here."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            deed()
        except BaseException as error:  # noqa: BLE001  (raised again below)
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    for error in raised:
        raise error


@job
def ends_its_worker(job: Any) -> None:
    deed = ENDERS[job["how"]]
    in_a_thread(deed) if job.get("thread") else deed()
    time.sleep(0.2)


@job
def sends_a_signal_by_its_group(job: Any) -> None:
    """Of a fork: its worker is in another one."""
    os.killpg(os.getpgid(os.getppid()), job["number"])


@job
def breaks_the_interpreter(_job: Any) -> None:
    """Not for good: that would hit the test, too, where it says what it has done."""
    note("broken")
    builtins.len = explode


@job
def exits_everywhere(_job: Any) -> None:
    """As C code can, in all threads but its own."""
    note("exits")
    for thread in sys._current_frames():
        if thread != threading.get_ident():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(SystemExit))
    time.sleep(10)


@job
def exits_in_a_thread(_job: Any) -> None:
    thread = threading.Thread(target=sys.exit, args=(3,))
    thread.start()
    thread.join()


# --- locks that a job keeps


def locks_of_logging() -> list[Any]:
    return [logging._lock, *(one.lock for one in logging.getLogger().handlers)]  # type: ignore[attr-defined]


@job
def holds_the_locks_of_logging(job: Any) -> None:
    """As long as it runs, and in a thread that ends with them."""
    take = MESSES["locks of logging"]
    in_a_thread(take) if job.get("thread") else take()
    note("holding")
    while not is_there(job["until"]):
        time.sleep(0.02)


# --- the standard descriptors, while others run


@job
def waits(job: Any) -> None:
    note("waiting")
    while not is_there(job["until"]):
        time.sleep(0.02)


@job
async def waits_async(job: Any) -> None:
    note("waiting")
    while not is_there(job["until"]):
        await asyncio.sleep(0.02)


@job
def pipes_over_the_descriptors(_job: Any) -> None:
    """Nobody reads it."""
    reading, writing = os.pipe()
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    os.close(writing)
    note("pipe", reading=reading)


@job
def closes_the_descriptors(_job: Any) -> None:
    os.closerange(0, 3)


class HoldsLong(logging.Handler):
    """Takes its lock slowly."""

    def acquire(self) -> None:
        super().acquire()
        if log_slowly:
            time.sleep(0.003)

    def emit(self, record: logging.LogRecord) -> None: ...


log_slowly = False


@job
def logs_without_end(_job: Any) -> None:
    """Mostly between the lock of a log handler and the code that gives it back."""
    global log_slowly
    root = logging.getLogger("presque")
    if not any(isinstance(one, HoldsLong) for one in root.handlers):
        root.addHandler(HoldsLong())
    log_slowly = True
    try:
        while True:
            logging.getLogger("presque.app").info("step")
            sum(range(20_000))
    finally:
        log_slowly = False


@job
def cleans_up(job: Any) -> None:
    """Stops when it is told to, but not at once."""
    note("working")
    deadline = time.monotonic() + 30
    try:
        while time.monotonic() < deadline and not job_now().cancelled:
            time.sleep(0.05)
    finally:
        time.sleep(job["clean"])
        note("cleaned")


@job
def deaf(_job: Any) -> None:
    note("working")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(BaseException):
            time.sleep(0.05)
            note("beat")


def job_now() -> Job:
    found = current.get()
    assert found is not None
    return found


class DeafAsync(Worker):
    async def work(self, _job: Any) -> None:
        note("working")
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.05)
                note("beat")


class CleansUpAsync(Worker):
    async def work(self, job: Any) -> None:
        note("working")
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(job["clean"])
            note("cleaned")


class SwallowsAsync(Worker):
    async def work(self, _job: Any) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(30)
        return "as if it were done"


@job
def swallows(_job: Any) -> str:
    with contextlib.suppress(BaseException):
        time.sleep(30)
    return "as if it were done"


async def part(number: int) -> None:
    await asyncio.sleep(0)
    sys.exit(number)


class TasksAsync(Worker):
    """Its jobs start tasks of their own, which exit."""

    async def work(self, job: Any) -> None:
        note("began", id=self.job.id)
        if job == "gather":
            await asyncio.gather(part(3))
        elif job == "task":
            self.kept = asyncio.create_task(part(0))
            await asyncio.sleep(0.05)
        elif job == "stop":
            asyncio.get_running_loop().stop()
        elif job == "cancel all":
            for task in asyncio.all_tasks():
                task.cancel()
            await asyncio.sleep(1)
        else:
            await asyncio.sleep(0.1)
        note("ended", id=self.job.id)


class LoopAsync(Worker):
    """Its jobs change the loop."""

    async def work(self, what: Any) -> Any:
        loop = asyncio.get_running_loop()
        if what == "handler":
            loop.set_exception_handler(explode)
        elif what == "factory":
            loop.set_task_factory(explode)
        elif what == "debug":
            loop.set_debug(True)
        elif what == "executor":
            await loop.shutdown_default_executor()
        elif what == "generators":
            await loop.shutdown_asyncgens()
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                async for _ in several():
                    pass
            answer = await asyncio.gather(asyncio.to_thread(lambda: 5))
            return [*answer, loop.get_debug(), str(loop.get_exception_handler())]
        return None


async def several() -> AsyncIterator[int]:
    yield 1
    yield 2


@job
def starts_programs(_job: Any) -> None:
    """In its group, in a session of its own, forked without a program, and one whose parent has ended."""
    plain = subprocess.Popen(["sleep", "300"])
    apart = subprocess.Popen(["sleep", "300"], start_new_session=True)
    forked = multiprocessing.get_context("fork").Process(target=time.sleep, args=(300,))
    forked.start()
    orphan = subprocess.run(
        ["sh", "-c", "sleep 300 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True, check=True
    )
    note("started", pids=[plain.pid, apart.pid, forked.pid, int(orphan.stdout)])
    time.sleep(300)


class StartsAsync(Worker):
    async def work(self, job: Any) -> None:
        starts_programs(job)


@job
def leaves_a_program(_job: Any) -> None:
    note("left", program=subprocess.Popen(["sleep", "300"]).pid)


@job
def leaves_an_orphan(_job: Any) -> None:
    subprocess.run(["sh", "-c", "sleep 0.3 >/dev/null 2>&1 &"], check=True)


@job
def waits_for_its_child(_job: Any) -> int:
    child = subprocess.Popen(["sh", "-c", "exit 7"])
    time.sleep(1)
    return child.wait()


# --- for the fuzz


@job
def good(job: Any) -> int:
    """Does what it should, once."""
    note("good", n=job["n"])
    return int(job["n"])


@job
def hangs(_job: Any) -> None:
    time.sleep(60)


@job
def spins(_job: Any) -> None:
    while True:
        pass


@job
def prints(_job: Any) -> None:
    sys.stdout.write("x" * 100_000 + "\n")
    sys.stderr.write("y" * 1000 + "\n")


@job
def closes(_job: Any) -> None:
    """Only what is standard: a worker needs its other descriptors."""
    sys.stdout.close()
    sys.stderr.close()


@job
def closes_all(_job: Any) -> None:
    os.closerange(0, 1000)


@job
def leaves_files_open(_job: Any) -> None:
    for _ in range(3):
        open(os.devnull)  # noqa: SIM115, PTH123


@job
def leaves_a_thread(_job: Any) -> None:
    threading.Thread(target=time.sleep, args=(0.2,)).start()


@job
def exits_at_once(_job: Any) -> None:
    os._exit(3)


@job
def crashes(_job: Any) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


@job
def fills_the_memory(_job: Any) -> None:
    bytearray(10**11)


@job
def starts_a_program(_job: Any) -> None:
    subprocess.Popen(["sleep", "300"])


# --- how forked jobs end

of_the_module = tempfile.TemporaryDirectory(prefix="of-the-worker-")
atexit.register(lambda: note("exit of the worker") if "DIARY" in os.environ else None)


kept: list[tempfile.TemporaryDirectory[str]] = []


class Array(MemoryError):
    """As numpy's."""


raising("array", lambda: Array("Unable to allocate 8 GiB"))


@job
def leaves_exits(_job: Any) -> None:
    """A thread, an exit function, lines in a buffer and a directory, which a program would not leave."""

    def later() -> None:
        time.sleep(0.3)
        note("thread ended")

    threading.Thread(target=later).start()
    atexit.register(note, "exit function")
    buffer = logging.handlers.MemoryHandler(100, target=logging.FileHandler(os.environ["DIARY"] + ".log"))
    logging.getLogger("buffered").addHandler(buffer)
    logging.getLogger("buffered").warning("in the buffer")
    kept.append(tempfile.TemporaryDirectory())
    note("directory", path=kept[0].name, of_the_module=of_the_module.name)


files: list[Any] = []
if "OF_THE_WORKER" in os.environ:
    files.append(open(os.environ["OF_THE_WORKER"], "a"))  # noqa: SIM115, PTH123
    files[0].write("once")
    atexit.register(files[0].close)


@job
def leaves_files_with_buffers(_job: Any) -> None:
    """Nobody closes them, and a cycle keeps one of them."""
    path = os.environ["DIARY"]
    files.append(open(f"{path}.text", "w"))  # noqa: SIM115, PTH123
    files.append(open(f"{path}.bytes", "wb"))  # noqa: SIM115, PTH123
    files.append(open(f"{path}.both", "w+b"))  # noqa: SIM115, PTH123
    files.append(gzip.open(f"{path}.gz", "wb"))  # noqa: SIM115
    files.append(gzip.open(f"{path}.text.gz", "wt"))  # noqa: SIM115
    for file in files[-5:]:
        file.write("kept" if isinstance(file, io.TextIOWrapper) else b"kept")
    files.append(files)


@job
def leaves_an_endless_thread(_job: Any) -> None:
    threading.Thread(target=time.sleep, args=(300,)).start()


@job
def draws(_job: Any) -> float:
    return random.random()


@job
def is_rung(_job: Any) -> None:
    """Has an alarm of its own, and no handler for it."""
    signal.alarm(1)
    time.sleep(10)


@job
def rings(_job: Any) -> str:
    """Has both."""
    rung = threading.Event()
    signal.signal(signal.SIGALRM, lambda *_: rung.set())
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    return str(rung.wait(5))


class Seeded(Worker):
    """Looks whether `numpy.random` begins anew in each child. Any module of that name will do."""

    def work(self, _job: Any) -> None:
        note("seeds", count=len(seeds))


seeds: list[int] = []
if os.environ.get("WITH_NUMPY"):
    numpy = types.ModuleType("numpy.random")
    numpy.seed = lambda: seeds.append(os.getpid())  # type: ignore[attr-defined]
    sys.modules["numpy.random"] = numpy
