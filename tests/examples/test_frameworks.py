"""The applications in examples/frameworks/, each with its framework, against a real server."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from presque import Client
from tests import rig
from tests.docs import documents

FRAMEWORKS = documents.ROOT / "examples" / "frameworks"
GUIDE = documents.ROOT / "docs" / "guides" / "frameworks.md"


@pytest.fixture(scope="module")
def shop_server() -> Iterator[rig.Server]:
    """A server for these applications, whose queues have names of their own."""
    with rig.server("--memory") as found:
        yield found


@pytest.fixture
def inside(shop_server: rig.Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[rig.Server]:
    """The modules of the examples can be imported, and find the server."""
    monkeypatch.syspath_prepend(str(FRAMEWORKS))
    monkeypatch.setenv("PRESQUE_URL", shop_server.url)
    before = set(sys.modules)
    yield shop_server
    if "shop_tasks" in sys.modules:
        close(sys.modules["shop_tasks"].app)
    for name in set(sys.modules) - before:
        if name.split("_")[-1] in ("shop", "tasks") and "." not in name:
            del sys.modules[name]


def close(app: Any) -> None:
    """End the connections of an App, which a program keeps until it ends."""
    app.client.close()
    app.async_client.close()


def run(server: rig.Server, *command: str, within: Path = FRAMEWORKS, **environment: str) -> str:
    """What a program prints."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=within,
        env={**os.environ, "PRESQUE_URL": server.url, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_fastapi(inside: rig.Server) -> None:
    import fastapi_shop  # type: ignore[import-not-found]
    from fastapi.testclient import TestClient

    with TestClient(fastapi_shop.api) as client:
        placed = client.post("/orders", json={"number": 7, "to": "ana"})
        assert placed.status_code == 202
        job = client.get(f"/jobs/{placed.json()['job']}?wait=30").json()
        assert job == {"state": "done", "result": "order 7 is confirmed to ana"}
        assert client.get("/jobs/999999").status_code == 404
        assert client.post("/orders", json={"number": "x"}).status_code == 422


def test_fastapi_says_when_nothing_was_taken(inside: rig.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESQUE_URL", f"http://127.0.0.1:{rig.free_port()}")
    import fastapi_shop
    from fastapi.testclient import TestClient

    answer = TestClient(fastapi_shop.api).post("/orders", json={"number": 7, "to": "ana"})  # without lifespan
    assert answer.status_code == 503
    assert "no server at" in answer.json()["error"]


def test_flask(inside: rig.Server) -> None:
    import flask_shop  # type: ignore[import-not-found]

    client = flask_shop.shop.test_client()
    placed = client.post("/orders", json={"number": 8, "to": "bob"})
    assert placed.status_code == 202
    run(inside, "-m", "flask", "--app", "flask_shop", "worker", PRESQUE_WORKER_BURST="yes")
    job = client.get(f"/jobs/{placed.json['job']}?wait=30").json
    assert job == {"state": "done", "result": "order 8 is confirmed to bob"}
    assert client.get("/jobs/999999").status_code == 404


DJANGO = FRAMEWORKS / "django_shop"
PLACE = """
from django.db import connection, transaction
from django.test import Client
from shop.models import Order

print(Client().post("/orders", {"to": "ana"}).status_code)
"""


def test_django(shop_server: rig.Server, tmp_path: Path) -> None:
    database = str(tmp_path / "shop.sqlite3")

    def manage(*command: str) -> str:
        return run(shop_server, "manage.py", *command, within=DJANGO, SHOP_DATABASE=database)

    manage("migrate", "--run-syncdb")
    assert "202" in manage("shell", "-c", PLACE)
    with Client(shop_server.url) as client:
        waiting = client.jobs("orders", "ready")["jobs"]
        assert [job["body"]["task"] for job in waiting] == ["shop.tasks.confirm"]
        manage("presque_worker", "--burst")
        assert client.stats("orders")["ready"] == 0
        assert client.stats("orders")["dead"] == 0
    shown = manage("shell", "-c", "from shop.models import Order\nprint(list(Order.objects.values()))")
    assert "{'id': 1, 'to': 'ana', 'confirmed': True}" in shown


def test_the_tests_of_the_django_application_pass(shop_server: rig.Server, tmp_path: Path) -> None:
    run(shop_server, "manage.py", "test", within=DJANGO, SHOP_DATABASE=str(tmp_path / "shop.sqlite3"))


def test_a_plain_script(shop_server: rig.Server) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-m", "presque", "worker", "script", "--url", shop_server.url],
        cwd=FRAMEWORKS,
        env={**os.environ, "PYTHONPATH": str(FRAMEWORKS)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert run(shop_server, "script.py") == "1 5\n2 5\n3 5\n"
    finally:
        worker.terminate()
        worker.wait(rig.PATIENCE)


async def test_a_notebook(inside: rig.Server) -> None:
    text = (FRAMEWORKS / "notebook.py").read_text("utf-8")
    names: dict[str, Any] = {"__name__": "__main__"}
    async with asyncio.timeout(60):
        for cell in text.split("# %%"):
            code = compile(f"# {cell}", "notebook", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, names)
            if asyncio.iscoroutine(result):
                await result
    close(names["app"])
    assert names["results"] == [0, 1, 4, 9, 16]
    with Client(inside.url) as client:
        body = client.job("orders", names["id"])["body"]
        assert json.loads(json.dumps(body))["task"] == "shop_tasks.confirm"


def test_the_guide_shows_what_the_examples_have() -> None:
    whole = "\n".join(file.read_text("utf-8") for file in FRAMEWORKS.rglob("*.py"))
    for block in documents.blocks(GUIDE):
        if block.language == "python":
            shown = "\n".join(block.lines)
            assert flat(shown) in flat(whole), f"line {block.line}"


def flat(text: str) -> str:
    """A text whatever its indentation."""
    return re.sub(r"\s+", " ", text)
