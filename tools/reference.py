#!/usr/bin/env python3
"""Writes docs/reference/client.md: every method, option, answer and error of both clients.

    python tools/reference.py           write the document again
    python tools/reference.py --check   exit with 1 if that would change it

Signatures, docstrings and the comments `# --- …` that group the methods are read from the text of the source.
What the document says is changed there, and the tool is run again.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from presque.client import errors as client_errors
from presque.errors import PresqueError, SetupError
from presque.http import problems
from presque.http.gate import NotAllowed
from presque.http.head import BadHead
from presque.http.problems import TooMany

ROOT = Path(__file__).resolve().parents[1]
CLIENT = ROOT / "src" / "presque" / "client"
TO = ROOT / "docs" / "reference" / "client.md"

BEGINNING = """\
<!-- Made by tools/reference.py of the source: change that, and run the tool again. -->

# The clients: reference

`from presque import AsyncClient, Client`. Both have the same methods: those of `AsyncClient` are coroutines,
to be awaited, those of `Client` are not. What only one of them has says so. The [guide](../guides/clients.md)
shows how they are used, the [protocol](../protocol.md) what the server promises.

`Duration` is seconds, a `timedelta`, or a text such as `"1h30m"`. `Holder` is what names a lease: a
`LeasedJob`, or a mapping with `queue`, `id` and `lease`. Any method can raise a [`ClientError`](#errors), and
`ValueError` or `TypeError` for arguments that no server would take; nothing has been sent then.
"""

ANSWERS = """\
What the methods return. A name whose type is a class of this list is a dictionary with these keys, unless the
text says otherwise; keys of some answers only may be missing. Times are RFC 3339 texts."""

ERRORS = """\
All derive from `ClientError`, from `presque.client`. `code` is the stable word; the classes stand for its
kinds."""

CODES = """\
What the server answers (the header `Presque-Error`), and what a client says itself where there is no
status."""

OF_THE_CLIENT = (
    ("`server-not-reached`", "-", "`ServerNotReached`", "No answer came, or only a part of one."),
    ("`unreadable-answer`", "-", "`ClientError`", "What answered is not presque, or the answer is damaged."),
)


def parsed(name: str) -> tuple[str, ast.Module]:
    """A file of the client: its text and its tree."""
    text = (CLIENT / name).read_text("utf-8")
    return text, ast.parse(text)


def classes(tree: ast.Module) -> dict[str, ast.ClassDef]:
    """The public classes of a file."""
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_"}


def doc(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """A docstring as paragraphs of Markdown."""
    return ast.get_docstring(node) or ""


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """A method as one would declare it, without `self`."""
    arguments = ast.unparse(node.args).removeprefix("self, ").removeprefix("self")
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    return f"{node.name}({arguments}){returns}"


def methods(node: ast.ClassDef) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The public methods of a class."""
    for one in node.body:
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and one.name[0] != "_":
            yield one


def clients() -> Iterator[str]:
    """The clients themselves, and their methods by the groups of the source."""
    text, tree = parsed("async_client.py")
    asynchronous = classes(tree)["AsyncClient"]
    plain = classes(parsed("client.py")[1])["Client"]
    for node in (plain, asynchronous):
        init = next(one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__")
        made = signature(init).replace("__init__", node.name).removesuffix(" -> None")
        yield f"## {node.name}\n\n```python\n{made}\n```\n\n{doc(node)}\n"
    both = {one.name for one in methods(plain)}
    groups = re.finditer(r"^    # --- (.+?)-*$", text, re.MULTILINE)
    titles = [(text[: at.start()].count("\n"), at[1].strip()) for at in groups]
    said = ""
    for one in methods(asynchronous):
        title = next((title for line, title in reversed(titles) if line < one.lineno), "the client itself")
        if title != said:
            said = title
            yield f"## {title[0].upper()}{title[1:]}\n"
        only = "" if one.name in both else "\n\nOnly of `AsyncClient`."
        yield f"### {one.name}\n\n```python\n{signature(one)}\n```\n\n{doc(one)}{only}\n"


def fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """The fields of a class, and the type of each."""
    for one in node.body:
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name) and one.target.id[0] != "_":
            yield one.target.id, ast.unparse(one.annotation)


def table(head: str, rows: Iterable[tuple[str, ...]]) -> str:
    """A table of Markdown, whose head is given as cells between bars."""
    line = "| --- " * (head.count("|") + 1) + "|"
    return "\n".join([f"| {head} |", line, *(f"| {' | '.join(row)} |" for row in rows)])


def shapes(
    title: str, means: str, nodes: Iterable[ast.ClassDef], within: Mapping[str, ast.ClassDef]
) -> Iterator[str]:
    """Classes that are data: a table of fields each."""
    yield f"## {title}\n\n{means}\n"
    for node in nodes:
        bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
        inherited = [found for base in bases if base in within for found in fields(within[base])]
        rows = [*inherited, *fields(node)]
        if not rows:
            continue
        cells = ((f"`{name}`", f"`{kind}`".replace("|", "\\|")) for name, kind in rows)
        yield f"### {node.name}\n\n{doc(node)}\n\n{table('field | type', cells)}\n"
        for one in methods(node):
            yield f"`{signature(one)}`: {doc(one)}\n"


def all_classes(tree: ast.Module) -> dict[str, ast.ClassDef]:
    """Those that only others are made of, too."""
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def data() -> Iterator[str]:
    """Options, answers, and what a consumer brings."""
    _, options = parsed("options.py")
    _, answers = parsed("answers.py")
    _, fetched = parsed("calls/taking.py")
    _, leased = parsed("leased.py")
    _, consuming = parsed("consume.py")
    said = "Options, given by name. All may be left out."
    yield from shapes("Options", said, classes(options).values(), all_classes(options))
    found = [classes(fetched)["Job"], *classes(answers).values(), *classes(leased).values()]
    yield from shapes("Answers", ANSWERS, found, all_classes(answers))
    consumed = classes(consuming)
    said = "What `AsyncClient.consume` brings, over one WebSocket."
    yield from shapes("Consuming", said, [consumed["ConsumedJob"]], {})
    yield f"### Consumer\n\n{doc(consumed['Consumer'])}\n"


def kinds_of(kind: type[PresqueError]) -> Iterator[type[PresqueError]]:
    """An error of the server and all that derive from it, but for those that no client hears of."""
    if issubclass(kind, SetupError):
        return
    yield kind
    for derived in sorted(kind.__subclasses__(), key=lambda one: (one.__module__, one.__name__)):
        yield from kinds_of(derived)


def sentence(text: str | None) -> str:
    """The first sentence of a docstring."""
    return re.split(r"(?<=\.) ", " ".join((text or "").split()), maxsplit=1)[0]


def status_of(kind: type[PresqueError]) -> int | None:
    """The status with which an error is answered, None where it depends."""
    if issubclass(kind, BadHead | NotAllowed | TooMany):
        return None
    return next((status for one, status in problems._STATUS if issubclass(kind, one)), None)


def raised_for(status: int | None, code: str) -> str:
    """The class that a client raises."""
    kind, _ = client_errors._BY_STATUS.get(status or 0, (client_errors.ClientError, ""))
    return client_errors._BY_CODE.get(code, kind).__name__


def refusals() -> Iterator[str]:
    """Every error."""
    _, tree = parsed("errors.py")
    kinds = ((f"`{name}`", " ".join(doc(node).split())) for name, node in classes(tree).items())
    yield f"## Errors\n\n{ERRORS}\n\n{table('class | means', kinds)}\n"
    found: dict[tuple[str, int | None], str] = {}
    for kind in kinds_of(PresqueError):
        code = kind.__dict__.get("code")
        if isinstance(code, str) and code != "error":
            found.setdefault((code, status_of(kind)), sentence(kind.__doc__))
    rows = [
        (f"`{code}`", str(status or "depends"), f"`{raised_for(status, code)}`", means)
        for (code, status), means in sorted(found.items(), key=lambda one: (one[0][1] or 0, one[0][0]))
    ]
    yield f"### Codes\n\n{CODES}\n\n{table('code | status | class | means', [*rows, *OF_THE_CLIENT])}\n"


def written() -> str:
    """The whole document."""
    return "\n".join([BEGINNING, *clients(), *data(), *refusals()])


def main(arguments: list[str]) -> int:
    """Write the document, or compare it."""
    text = written()
    if arguments == ["--check"]:
        if TO.exists() and TO.read_text("utf-8") == text:
            return 0
        print(f"{TO} is out of date: run `python tools/reference.py`")
        return 1
    TO.parent.mkdir(exist_ok=True)
    TO.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
