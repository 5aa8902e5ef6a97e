"""The guide to the clients: its programs run, and its tables leave nothing out."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from types import CodeType
from typing import Any

import pytest

import presque.client
from presque import AsyncClient, ClientError
from tests import rig
from tests.docs import documents

GUIDE = documents.ROOT / "docs" / "guides" / "clients.md"


def test_its_programs_run(server: rig.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, each with the names of those before it."""
    monkeypatch.setenv("PRESQUE_URL", server.url)
    names: dict[str, Any] = {}
    programs = [block for block in documents.blocks(GUIDE) if block.language == "python"]
    assert len(programs) > 8
    for block in programs:
        lines = "\n" * block.line + "\n".join(block.lines)
        code = compile(lines, str(GUIDE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if code.co_flags & inspect.CO_COROUTINE:
            asyncio.run(awaited(code, names))
        else:
            exec(code, names)
    names["client"].close()


async def awaited(code: CodeType, names: dict[str, Any]) -> None:
    await eval(code, names)


def test_it_has_every_method_with_its_arguments_and_no_other() -> None:
    rows = [row[0] for row in documents.rows(GUIDE.read_text("utf-8"))]
    written = dict(row.removesuffix(")").split("(", 1) for row in rows if re.match(r"\w+\(.*\)$", row))
    methods = {name: method for name, method in inspect.getmembers(AsyncClient, inspect.isfunction)}
    assert set(written) == {name for name in methods if name[0] != "_"} - {"close", "perform", "consume"}
    for name, arguments in written.items():
        parameters = inspect.signature(methods[name]).parameters.values()
        actual = [
            f"**{one.name}" if one.kind is one.VAR_KEYWORD else one.name
            for one in parameters
            if one.name != "self"
        ]
        if name == "change":
            actual[-1:] = ["priority", "delay", "delayed", "body"]
        if name == "settle_and_lease":
            actual[2:] = ["…"]
        assert arguments == ", ".join(actual), name


def test_it_has_every_setting_and_every_error() -> None:
    settings = [row[0] for row in documents.rows(documents.section(GUIDE, "Which server"))][1:]
    assert settings == list(inspect.signature(AsyncClient).parameters)
    errors = [row[0] for row in documents.rows(documents.section(GUIDE, "Errors"))][1:]
    kinds = [getattr(presque.client, name) for name in presque.client.__all__]
    assert set(errors) == {
        kind.__name__ for kind in kinds if inspect.isclass(kind) and issubclass(kind, ClientError)
    }
