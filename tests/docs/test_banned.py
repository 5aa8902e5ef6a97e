"""What would let data become code, or pass for somebody else, is used nowhere in presque."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs import documents

FILES = sorted([*(documents.ROOT / "src").rglob("*.py"), *(documents.ROOT / "tools").rglob("*.py")])

MODULES = {
    "pickle", "_pickle", "cPickle", "dill", "cloudpickle", "jsonpickle", "marshal", "shelve", "code", "codeop",
    "pty", "telnetlib", "ftplib", "xml", "lxml", "imp",
}  # fmt: skip
ALLOWED = {"src/presque/xmpp/parsing.py": {"xml.etree.ElementTree", "xml.parsers"}}
"""Reads the stream of an XMPP server with expat, and refuses every declaration: tests/unit/test_xmpp.py."""
CALLS = {
    "eval", "exec", "compile", "__import__", "breakpoint",
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.create_subprocess_shell",
    "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "tempfile.mktemp",
    "ssl._create_unverified_context", "hashlib.md5", "hashlib.sha1",
}  # fmt: skip
NAMES = {"Loader", "UnsafeLoader", "FullLoader"}  # of yaml
ARGUMENTS = {("shell", True), ("verify", False), ("usedforsecurity", True)}


def banned(source: str) -> Iterator[str]:
    """What of a source is banned, each with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found = [one.name for one in node.names if one.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            root = (node.module or "").split(".")[0]
            found = [node.module or ""] if root in MODULES and not node.level else []
            found += [f"{root}.{one.name}" for one in node.names if f"{root}.{one.name}" in CALLS]
        elif isinstance(node, ast.Call):
            # RFC 6455 has a SHA-1 in its handshake, which keeps nothing secret and says so.
            harmless = any(ast.unparse(one) == "usedforsecurity=False" for one in node.keywords)
            found = [ast.unparse(node.func)] if ast.unparse(node.func) in CALLS and not harmless else []
            found += [
                f"{one.arg}={one.value.value!r}"
                for one in node.keywords
                if isinstance(one.value, ast.Constant) and (one.arg, one.value.value) in ARGUMENTS
            ]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "yaml":
            found = [f"yaml.{node.attr}"] if node.attr in NAMES else []
        else:
            continue
        yield from (f"line {node.lineno}: {one}" for one in found)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(documents.ROOT)))
def test_nothing_banned_is_used(file: Path) -> None:
    allowed = ALLOWED.get(str(file.relative_to(documents.ROOT)), set())
    found = [one for one in banned(file.read_text("utf-8")) if one.partition(": ")[2] not in allowed]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "import a, marshal", "from pickle import loads", "from xml.etree import ElementTree",
        "eval(text)", "exec(text)", "__import__(name)", "os.system(text)", "from os import system",
        "subprocess.run(text, shell=True)", "Popen(text, shell=True)", "yaml.load(text, yaml.Loader)",
        "yaml.unsafe_load(text)", "get(url, verify=False)", "asyncio.create_subprocess_shell(text)",
        "x = yaml.FullLoader", "hashlib.md5(text)",
    ],
)  # fmt: skip
def test_what_is_banned_is_noticed(source: str) -> None:
    assert list(banned(source))
