"""top: a live screen of queues, workers and failures, with keys to control them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial

import click

from presque.cli.connection import connected, queue_names, server_options
from presque.cli.fields import option_for
from presque.cli.full_screen import FullScreen
from presque.cli.top_page import PANELS, Page, Seen
from presque.cli.trouble import ORDERS
from presque.client import Client, ClientError
from presque.client.answers import JobRecord, QueueCounts
from presque.exits import DONE
from presque.fields import duration
from presque.quantities import counted

EVERY_S = 2
PAGES_MOST = 5
"""Pages of 1000 queues that are asked for each time."""
FAILURES_MOST = 50
FAILING_MOST = 5
TIMEOUT_S = 10
ROWS_OF_A_PAGE = 10


@click.command(short_help="Watch and control queues, workers and failures on a live screen.")
@click.argument("queues", required=False, shell_complete=queue_names)
@option_for(duration("every", "How often the server is asked.", 0.2, 3600, default=EVERY_S), "SECONDS")
@server_options
def top(queues: str | None, every: float, url: str, token: str | None) -> int:
    """Watch queues, workers and failures on a live screen: those in trouble first.

    QUEUES are names and patterns: 'critical,mail_*'. Keys stop and start queues and workers and retry dead
    jobs; ? lists the keys, q ends it. When the server is away the screen says so and goes on by
    itself.
    """
    with connected(url, token) as client:  # what is wrong from the start is said in a line
        seen = look(client, queues, Page(url))
    screen = FullScreen()
    with closing(Client(url, token, timeout=TIMEOUT_S)) as client, screen:
        Top(screen, client, queues, every, Page(url), seen).run()
    return DONE


def look(client: Client, queues: str | None, page: Page) -> Seen:
    """All that the page may show now. Raises `ClientError`."""
    found: dict[str, QueueCounts] = {}
    cursor: str | None = None
    for _ in range(PAGES_MOST):
        answer = client.all_stats(queues, cursor=cursor)
        found |= answer["by_queue"]
        cursor = answer.get("cursor")
        if cursor is None:
            break
    failures: list[JobRecord] = []
    if page.panel == "failures":
        worst = sorted(
            (name for name, of in found.items() if of["dead"]), key=lambda one: -found[one]["dead"]
        )
        for name in [page.of_queue] if page.of_queue else worst[:FAILING_MOST]:
            failures += client.jobs(name, "dead", FAILURES_MOST)["jobs"]
    return Seen(
        time.time(), time.monotonic(), answer["version"], answer["disk"], answer["size"], found,
        client.worker_records(), failures,
    )  # fmt: skip


class Top:
    """The screen: one thread asks the server, another carries out what was asked for, this one draws."""

    def __init__(
        self, screen: FullScreen, client: Client, queues: str | None, every: float, page: Page, seen: Seen
    ) -> None:
        self.screen, self.client, self.queues, self.every = screen, client, queues, every
        self.page, self.seen = page, seen
        self._agreed: Callable[[], str] | None = None
        self._over = False
        self._look_now = threading.Event()
        self._after_typing = ""

    def run(self) -> None:
        """Until somebody ends it."""
        threading.Thread(target=self._look_again_and_again, daemon=True).start()
        while not self._over:
            columns, lines = self.screen.size
            self.screen.draw(self.page.lines(self.seen, columns, lines, time.monotonic()))
            for key in self.screen.keys(1.0):
                self.press(key)

    def _look_again_and_again(self) -> None:
        while True:
            self._look_now.wait(self.every)
            self._look_now.clear()
            if self.page.held:
                continue
            try:
                self.seen = look(self.client, self.queues, self.page)
                self.page.away = ""
            except ClientError as error:
                self.page.away = str(error)
            self.screen.wake()

    # --- keys

    def press(self, key: str) -> None:
        """Do what a key stands for."""
        page = self.page
        if page.question:
            self._answer(key)
        elif page.typing:
            self._type(key)
        elif page.helping and key != "redraw":
            page.helping = False
        else:
            page.message = ""
            act = self._keys().get(key)
            if act is not None:
                act()

    def _keys(self) -> dict[str, Callable[[], None]]:
        page = self.page
        move = partial(page.move, self.seen)
        most = len(page.keys(self.seen))
        return {
            "q": self._end, "?": self._help, "h": self._help, "redraw": self._redraw,
            "up": partial(move, -1), "k": partial(move, -1), "down": partial(move, 1), "j": partial(move, 1),
            "page up": partial(move, -ROWS_OF_A_PAGE), "page down": partial(move, ROWS_OF_A_PAGE),
            "home": partial(move, -most), "end": partial(move, most),
            "tab": self._next_panel, "enter": self._failures, "o": self._next_order, "/": self._filter,
            " ": self._hold, "s": self._stop, "g": self._go_on, "x": self._end_worker,
            "r": self._retry, "d": self._delete,
        }  # fmt: skip

    def _end(self) -> None:
        self._over = True

    def _help(self) -> None:
        self.page.helping = True

    def _redraw(self) -> None:
        self.screen.forget()

    def _next_panel(self) -> None:
        page = self.page
        page.panel = PANELS[(PANELS.index(page.panel) + 1) % len(PANELS)]
        page.of_queue = None
        self._look()

    def _failures(self) -> None:
        if self.page.panel == "queues" and (queue := self.page.here(self.seen)):
            self.page.panel, self.page.of_queue = "failures", queue
            self._look()

    def _look(self) -> None:
        self.seen = replace(self.seen, failures=())
        self._look_now.set()

    def _next_order(self) -> None:
        orders = list(ORDERS)
        self.page.order = orders[(orders.index(self.page.order) + 1) % len(orders)]

    def _filter(self) -> None:
        self._after_typing, self.page.typing, self.page.holding = self.page.holding, True, ""

    def _type(self, key: str) -> None:
        page = self.page
        if key in ("enter", "escape"):
            page.typing = False
            if key == "escape":
                page.holding = self._after_typing
        elif key == "backspace":
            page.holding = page.holding[:-1]
        elif len(key) == 1:
            page.holding += key

    def _hold(self) -> None:
        self.page.held = not self.page.held
        self._look_now.set()

    # --- acts

    def _stop(self) -> None:
        here = self.page.here(self.seen)
        if here is None:
            return
        if self.page.panel == "queues":
            ready = self.seen.queues[here]["ready"]
            question = f"Stop {here}? It still accepts jobs but hands out none; {ready} are ready."
            self._ask(question, lambda: self.client.stop(here), f"{here} is stopped")
        elif self.page.panel == "workers":
            self._ask(
                f"Let {here} finish what it holds and take no further job?",
                lambda: self.client.tell_worker(here, "quiet"), f"{here} is asked to be quiet",
            )  # fmt: skip

    def _go_on(self) -> None:
        here = self.page.here(self.seen)
        if here is None:
            return
        if self.page.panel == "queues":
            self._do(lambda: self.client.start(here), f"{here} is started")
        elif self.page.panel == "workers":
            self._do(lambda: self.client.tell_worker(here, "start"), f"{here} is asked to take jobs again")

    def _end_worker(self) -> None:
        here = self.page.here(self.seen)
        if here is not None and self.page.panel == "workers":
            self._ask(
                f"Let {here} finish what it holds and end?",
                lambda: self.client.tell_worker(here, "stop"), f"{here} is asked to stop",
            )  # fmt: skip

    def _retry(self) -> None:
        here = self.page.here(self.seen)
        if here is None:
            return
        if self.page.panel == "queues":
            dead = self.seen.queues[here]["dead"]
            if not dead:
                self.page.message = f"{here} has no dead jobs"
                return
            question = f"Retry {counted(dead, 'dead job')} of {here}?"
            self._ask(question, lambda: self._retry_all(here))
        elif self.page.panel == "failures":
            queue, _, id = here.partition("/")
            self._do(lambda: self.client.retry(queue, id), f"job {here} is retried")

    def _delete(self) -> None:
        here = self.page.here(self.seen)
        if here is not None and self.page.panel == "failures":
            queue, _, id = here.partition("/")
            question = f"Delete job {here} for good?"
            self._ask(question, lambda: self.client.delete(queue, id), f"job {here} is deleted")

    def _retry_all(self, queue: str) -> str:
        return f"{counted(self.client.retry_all(queue), 'job')} of {queue} retried"

    def _ask(self, question: str, act: Callable[[], object], done: str = "") -> None:
        """Ask before something that cannot be undone. `done` says what came of it, unless the act does."""
        self.page.question = question
        self._agreed = partial(self._told, act, done)

    def _answer(self, key: str) -> None:
        self.page.question, agreed = "", self._agreed
        self._agreed = None
        if key in ("y", "Y") and agreed is not None:
            self._start(agreed)
        else:
            self.page.message = "nothing was changed"

    def _do(self, act: Callable[[], object], done: str) -> None:
        self._start(partial(self._told, act, done))

    def _told(self, act: Callable[[], object], done: str) -> str:
        try:
            said = act()
        except ClientError as error:
            return str(error)
        return done or str(said)

    def _start(self, act: Callable[[], str]) -> None:
        """Do it in a thread of its own, so that a slow server does not stop the screen."""

        def work() -> None:
            self.page.message = act()
            self._look_now.set()
            self.screen.wake()

        self.page.message = "…"
        threading.Thread(target=work, daemon=True).start()
