"""A type checker, and so an editor, knows the parameters of a task."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests import rig

USE = """
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

from presque import App, Worker, current_job
from presque.tasks import PushOptions

app = App("http://localhost:5000", token="t", queue="mail", attempts=3, keep="1h")


@app.task
def bare(to: str, count: int = 1) -> list[str]:
    current_job().progress(1)
    return [to] * count


@app.task(queue="mail", priority=9, delay=timedelta(minutes=5), uniq=lambda to, **_: str(to))
def send(to: str, /, text: str, *, copies: int = 1) -> str:
    return text


@app.task
async def fetch(url: str) -> bytes:
    return url.encode()


@app.task(queue="net", concurrency=5, timeout="5m")
async def fetch_all(*urls: str) -> int:
    return len(urls)


@app.cron("0 3 * * *", timezone="Europe/Paris")
def nightly() -> None: ...


@app.cron(every="5m", missed="skip")
@app.task(queue="checks")
def check() -> int:
    return 1


async def right() -> None:
    a: list[str] = bare("x", 2)
    b: list[str] = bare.push("x", count=2).result(timeout="5m")
    c: str = send.options(delay="5m", priority=9).push("x", text="y", copies=2).result()
    d: bytes = await (await fetch.apush("u")).aresult()
    e: bytes = await fetch("u")
    f: Coroutine[Any, Any, bytes] = fetch("u")
    g: list[int] = [one.result() for one in fetch_all.push.many([("a", "b"), fetch_all.arguments("c")])]
    h: None = nightly.push().result()
    i: int = check.push().result()
    j: str = (await send.apush.many([{"to": "x"}]))[0].id
    k: dict[str, Any] = send.body("x", "y")
    usual: PushOptions = {"delay": timedelta(minutes=5), "priority": 9}
    send.options(**usual).options(keep="1h").push("x", "y")
    app.worker(only="mail", burst=True, concurrency=4).start(handle_signals=False)
    await app.worker(except_="net", timeout=timedelta(minutes=1)).run()
    with app.inline() as ran:
        print(ran.outcomes[0].state, a, b, c, d, e, f, g, h, i, j, k)


async def wrong() -> None:
    bare.push(5)
    bare.push("x", cuont=2)
    bare("x", "y")
    send.push(to="x", text="y")
    send.push("x")
    send.options(delay="5m").push("x", text=5)
    send.options(dellay="5m")
    await fetch.apush()
    await fetch.apush(url=5)
    fetch_all.arguments(1)
    nightly.push(1)
    n: int = send.push("x", "y").result()
    app.worker(ony="mail")
    send.delay("x", text="y")


@app.task(prority=9)
def misspelt() -> None: ...


class Embedded(Worker):
    async def work(self, job: Any) -> None: ...


async def lifespan() -> None:
    await Embedded(queue="a").run()
"""

WRONG = USE[: USE.index("async def wrong")].count("\n")
LINES = {
    number + 1: line.strip()
    for number, line in enumerate(USE.splitlines())
    if WRONG < number < USE[: USE.index("@app.task(prority")].count("\n") and line.strip()
}


def errors(said: str, marker: str) -> set[int]:
    """The lines for which there is an error."""
    return {int(line.split(":")[1]) for line in said.splitlines() if marker in line}


def test_mypy_finds_what_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text(USE)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "use.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert errors(done.stdout, " error: ") == expected(), done.stdout


def test_pyright_finds_what_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    beside = Path(sys.executable).with_name("basedpyright")  # the same checker, from PyPI
    pyright = str(beside) if beside.exists() else rig.require("pyright")
    (tmp_path / "use.py").write_text(USE)
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "standard"}')
    done = subprocess.run(
        [pyright, "--pythonpath", sys.executable, "use.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert errors(done.stdout, " - error: ") == expected(), done.stdout


def expected() -> set[int]:
    return {*LINES} | {USE[: USE.index("@app.task(prority")].count("\n") + 1}
