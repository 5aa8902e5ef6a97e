"""Which verb a path means. Routes come from the rows in verbs/.

A route is matched on the raw path: split at `/`, and each part decoded once, so `%2F` is part of a name (and
refused there) and never a second route to the same queue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from presque.errors import CallerError, UnknownParameter
from presque.http import head as heads
from presque.http.head import Head
from presque.http.problems import MethodNotAllowed, NoName, NoRoute
from presque.verbs import VERBS
from presque.verbs.verb import Verb

NAMELESS = ("/q", "/qb", "/j", "/control")

Found = tuple[Verb, tuple[str, ...]]
"""A verb, and what the parts of the path that are not fixed are called."""


class _Node:
    """One step of a path: what may follow it, and the verbs of each method."""

    __slots__ = ("fixed", "methods", "named")

    def __init__(self) -> None:
        self.fixed: dict[str, _Node] = {}
        self.named: _Node | None = None
        self.methods: dict[str, list[Found]] = {}


def _tree() -> _Node:
    root = _Node()
    for verb in VERBS.values():
        for route in filter(None, (verb.route, *verb.also)):
            method, path = route.split(" ")
            for spelling in {path, path.rstrip("/")}:
                node, called = root, []
                for part in spelling.split("/")[1:]:
                    if part.startswith("{"):
                        called.append(part[1:-1])
                        node.named = node = node.named or _Node()
                    else:
                        node = node.fixed.setdefault(part, _Node())
                for one in (method, "HEAD") if verb.reads else (method,):
                    # One that a parameter chooses stands before the one that needs none.
                    others = node.methods.setdefault(one, [])
                    others.insert(0 if verb.when else len(others), (verb, tuple(called)))
    return root


_ROOT = _tree()
OPEN = frozenset(verb.path for verb in VERBS.values() if verb.open)


def find(head: Head, raw: list[str], query: Mapping[str, str]) -> tuple[Verb, dict[str, str]]:
    """The verb that a request asks for, and what its path says, decoded."""
    if head.path.rstrip("/") in NAMELESS:
        raise NoName
    node, found, at = _walk(raw)
    if not node.methods or at < len(raw):
        raise NoRoute(head.method, head.path, _meant(node, raw, at))
    if head.method not in node.methods:
        if (head.method, *raw[1:2]) == ("PUT", "qb"):
            raise CallerError("PUT is not supported in batch mode")  # as in 2010
        raise MethodNotAllowed(head.method, node.methods)
    candidates = node.methods[head.method]
    verb, called = next(one for one in candidates if one[0].when is None or one[0].when in query)
    if verb.when is None and query and len(candidates) > 1:
        _check_against(query, [one for one, _ in candidates])
    return verb, {name: heads.segment(part) for name, part in zip(called, found, strict=True)}


def _check_against(query: Mapping[str, str], verbs: Sequence[Verb]) -> None:
    """Raise for parameters that no verb of this address knows, and for those of a verb that is not meant
    without another parameter: the one that is meant then may take none, and would say so."""
    of_another = {name: verb.when for verb in verbs if verb.when is not None for name in verb.parameters}
    known = {name for verb in verbs for name in verb.parameters}
    for name in query:
        if name not in known:
            raise UnknownParameter(name, known)
        if name in of_another:
            raise CallerError(f"`{name}` goes with `{of_another[name]}`: give `{of_another[name]}` too")


def _walk(raw: list[str]) -> tuple[_Node, list[str], int]:
    """How far the parts of a path lead: the last step, what stands for names, and the first part that leads
    nowhere; as many as there are if none does."""
    node, found = _ROOT, []
    for at, part in enumerate(raw[1:], 1):
        if (fixed := node.fixed.get(part)) is not None:
            node = fixed
        elif node.named is not None and part:
            node = node.named
            found.append(part)
        else:
            return node, found, at
    return node, found, len(raw)


def _meant(node: _Node, raw: list[str], at: int) -> str | None:
    """The route that a path probably means: with the known word that looks most like its part `at`, or
    without the slashes that are too many."""
    from difflib import get_close_matches  # a start need not wait for it

    close = get_close_matches(raw[at].lower(), node.fixed, n=1) if raw[at:] else []
    spellings = [[*raw[:at], word, *raw[at + 1 :]] for word in close]
    for parts in (*spellings, ["", *filter(None, raw)]):
        step, _, end = _walk(parts)
        if step.methods and end == len(parts) and parts != [""]:
            return "/".join(parts)[:200]
    return None
