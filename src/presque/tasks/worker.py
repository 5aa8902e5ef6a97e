"""Runs tasks, worker classes and recurring jobs in one process: `app.worker()`, `presque worker MODULE`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Unpack

from presque import globs, names
from presque.errors import InvalidName
from presque.tasks.calling import Handlers
from presque.tasks.errors import WrongTask
from presque.tasks.lanes import Lane, lanes_of
from presque.tasks.options import OF_A_WORKER
from presque.tasks.putting import Declared
from presque.tasks.recurring import Recurring
from presque.tasks.task import Task
from presque.worker import settings
from presque.worker.crew import Crew
from presque.worker.settings import Options as WorkerOptions
from presque.worker.settings import WrongSetting
from presque.worker.starting import end_command, run_within, start
from presque.worker.work import Work
from presque.worker.worker import Worker

log = logging.getLogger("presque.worker")


@dataclass(frozen=True, slots=True)
class Found:
    """What a worker is to run: `modules` are those that declare it, with all that is below them."""

    tasks: Sequence[Task[Any, Any]] = ()
    recurring: Sequence[Recurring] = ()
    classes: Sequence[type[Worker]] = ()
    modules: frozenset[str] = field(default_factory=frozenset)


def found_in(app: Any) -> Found:
    """What an App has declared so far."""
    modules = frozenset(one.definition.module for one in app.tasks)
    return Found(app.tasks, app.recurring, (), modules)


class AppWorker:
    """The worker of one process for any number of tasks and worker classes.

    Queues whose tasks say nothing of limits share `concurrency` jobs at once, those that do have their own.
    `only` and `except_` are queue lists. Raises `WrongTask` or `WrongSetting` with a sentence when the tasks
    or the settings contradict one another.
    """

    def __init__(
        self,
        found: Found,
        base_url: str | None = None,
        *,
        only: str | None = None,
        except_: str | None = None,
        **given: Unpack[WorkerOptions],
    ) -> None:
        for name in given:
            if name not in settings.OPTIONS and name != "token":
                raise TypeError(f"unknown setting `{name}`, {settings.known(name)}")
        if given.get("queues") is not None or os.environ.get("PRESQUE_WORKER_QUEUES"):
            raise WrongSetting("`queues` is for a single worker class: `only` picks queues of modules")
        chosen = Chosen(only, except_)
        handlers = Handlers(found.tasks)
        queues = chosen.of(task.queue for task in found.tasks)
        classes = [one for one in found.classes if chosen.takes(one)]
        self.lanes: Sequence[Lane] = lanes_of(found.tasks, queues)
        self.workers: list[Worker] = []
        named = dict.fromkeys(task.queue for task in found.tasks)
        named |= dict.fromkeys(one for kind in found.classes for one in _named(kind))
        if not self.lanes and not classes:
            raise WrongSetting(chosen.nothing(named))
        chosen.tell_unknown(named)
        everyone = {"base_uri": base_url, **given}
        works = []
        for lane in self.lanes:
            said = _settings(everyone, lane.settings, ",".join(lane.queues))
            everyone["worker_id"] = said.worker_id
            works.append(_work(lane, said, handlers))
        for kind in classes:
            worker = _made(kind, everyone)
            everyone["worker_id"] = worker.settings.worker_id
            self.workers.append(worker)
            works.append(worker.as_work())
        for work, lane in zip(works, self.lanes, strict=False):
            _check_timeout(work, lane, alone=len(works) == 1)
        self._works = works
        self._declared = Declared(found.recurring, found.modules)
        self._crew: Crew | None = None

    def __repr__(self) -> str:
        lists = ",".join(one.settings.queues for one in self._works)
        return f"<AppWorker of {lists}>"

    def start(self, *, handle_signals: bool = True) -> None:
        """Work until told to stop: as `Worker.start`."""
        start(self._works, self._started, self._errands(), handle_signals=handle_signals)

    async def run(self, *, handle_signals: bool = False) -> None:
        """Work in the event loop that runs, beside whatever else does: as `Worker.run`."""
        await run_within(self._works, self._started, self._errands(), handle_signals=handle_signals)

    def stop(self) -> None:
        """Finish the jobs that run, then end: `start()` and `run()` return. May be called from any thread."""
        if self._crew is not None:
            self._crew.ask("finish")

    def run_as_command(self) -> None:
        """Start it as the one thing that this program does: as `presque.worker.worker.run`."""
        self.start()
        if self._crew is not None:
            end_command(self._crew)

    def _errands(self) -> list[Any]:
        return [self._declared.put] if self._declared.recurring or self._declared.modules else []

    def _started(self, crew: Crew) -> None:
        self._crew = crew
        for worker in self.workers:
            worker._started(crew)  # noqa: SLF001  (their `stop` stops this process)


class Chosen:
    """The queues that a worker takes jobs of, among those that its code names."""

    def __init__(self, only: str | None, except_: str | None) -> None:
        self._only_text, self._except_text = only, except_
        try:
            self._only = None if only is None else names.queue_list(only)
            self._except = None if except_ is None else names.queue_list(except_)
        except InvalidName as error:
            raise WrongSetting(str(error)) from None

    def of(self, queues: Iterable[str]) -> list[str]:
        """Those of these queues that it takes, in order of preference."""
        known = list(dict.fromkeys(queues))
        found = known if self._only is None else [one for one in self._only.expand(known) if one in known]
        return [one for one in found if self._except is None or not self._except.matches(one)]

    def takes(self, kind: type[Worker]) -> bool:
        """Whether it runs this class: if it takes one of the queues that the class names."""
        items = list(_named(kind))
        return bool(self.of(items)) or not items

    def tell_unknown(self, named: Iterable[str]) -> None:
        """Say in the log which queues it was told of that the code does not name: they may be misspelt."""
        code = [*named]
        for option, chosen in (("only", self._only), ("except", self._except)):
            for queue in () if chosen is None else chosen.items:
                if not names.has_glob(queue) and not any(globs.fits(queue, one) for one in code):
                    known = ",".join(code)
                    log.warning("worker.queue_unknown option=%s queue=%s known=%s", option, queue, known)

    def nothing(self, queues: Iterable[str]) -> str:
        """Why there is nothing to do, where the code names these queues."""
        if self._only is None and self._except is None:
            return "there is no task and no worker class: decorate a function with `@app.task`"
        said = (("only", self._only_text), ("except", self._except_text))
        parts = ", ".join(f"{flag} {text}" for flag, text in said if text)
        known = ", ".join(f"`{one}`" for one in queues) or "none"
        return f"{parts} leaves no queue of a task or of a worker class; the code has {known}"


def _named(kind: type[Worker]) -> Iterator[str]:
    """The queues, and patterns of queues, that a worker class names."""
    asked = kind.queues or getattr(kind, "queue", None) or ""
    for one in asked.split(",") if isinstance(asked, str) else asked:
        if one and not one.startswith("!"):
            yield one


def _settings(given: Mapping[str, Any], said: Mapping[str, Any], queues: str) -> settings.Settings:
    """The settings of a lane. A limit that tasks state holds, whatever is said for all queues together."""
    own = {name: value for name, value in given.items() if name not in said}
    return settings.read({**own, "queues": queues, **said}, {})


def _work(lane: Lane, said: settings.Settings, handlers: Handlers) -> Work:
    asks = handlers.is_async if lane.kind in ("mixed", "fork") else None
    forks = handlers.forks if lane.forks else None
    return Work(said, handlers.call, is_async=lane.kind == "async", asks=asks, forks=forks)


def _check_timeout(work: Work, lane: Lane, *, alone: bool) -> None:
    said = work.settings
    inline = alone and lane.kind == "threads" and (said.concurrency or 1) == 1
    if said.timeout is not None and not said.fork and lane.kind in ("threads", "mixed") and not inline:
        raise WrongSetting(
            f"a thread cannot be stopped, so `timeout` needs `fork` or `async def` in {','.join(lane.queues)}"
        )


def _made(kind: type[Worker], given: Mapping[str, Any]) -> Worker:
    if not (kind.queues or getattr(kind, "queue", None)):
        raise WrongTask(
            f"`{kind.__name__}` names no queue: give the class a `queue`, or start it by itself with"
            f" {kind.__module__}:{kind.__name__} and --queues"
        )
    stated = {name for name in OF_A_WORKER if getattr(kind, name, None) is not None}
    options = {name: value for name, value in given.items() if name not in stated and name != "base_uri"}
    return kind(given.get("base_uri"), **options)
