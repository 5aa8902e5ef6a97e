"""Named servers, in a file that its owner alone can read; and which server a command talks to.

Nothing is mixed: the token of a context goes to the server of that context and to no other.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from presque.client.address import DEFAULT_URL, server, token_of
from presque.errors import nearest, shown
from presque.exits import FAILED, NOT_FOUND, USAGE, Failure

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Context:
    """A server, and the token for it, if any."""

    url: str
    token: str | None = field(default=None, repr=False)


@dataclass(slots=True)
class Contexts:
    """All of them by name, and the name of the one in use."""

    named: dict[str, Context] = field(default_factory=dict)
    used: str | None = None

    def __getitem__(self, name: str) -> Context:
        """The context of this name. Raises `Failure` that names the nearest one."""
        found = self.named.get(name)
        if found is None:
            if not self.named:
                raise Failure(
                    f"there is no context `{shown(name)}`: make it with `presque context new`", NOT_FOUND
                )
            raise Failure(f"there is no context `{shown(name)}`, {nearest(name, self.named)}", NOT_FOUND)
        return found

    def remove(self, name: str) -> None:
        """Forget a context. Raises `Failure` if there is none of this name."""
        if self[name] and self.used == name:
            self.used = None
        del self.named[name]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The server that a command talks to, its token, and who says so: an option, a variable, a context."""

    url: str
    token: str | None = field(repr=False)
    origin: str


def chosen(url: str | None, token: str | None, context: str | None) -> Chosen:
    """The server that these options mean, else the environment, else the context in use.

    In this order: `--url`, `--context`, PRESQUE_CONTEXT, PRESQUE_URL, the context in use, this machine. A
    context brings its token; where it has none, and beside a URL, `--token` or PRESQUE_TOKEN says it.
    Raises `Failure`.
    """
    if url is not None and context is not None:
        raise Failure("--url and --context contradict each other: use one of them", USAGE)
    said = os.environ.get("PRESQUE_TOKEN") or None
    name = context or os.environ.get("PRESQUE_CONTEXT") or None
    at = url or (None if name else os.environ.get("PRESQUE_URL") or None)
    if at is not None:
        return Chosen(at, token or said, "--url" if url else "PRESQUE_URL")
    found = read()
    name = name or found.used
    if name is None:
        return Chosen(DEFAULT_URL, token or said, "")
    of = found[name]
    return Chosen(of.url, token or of.token or said, f"context {name}")


def place() -> Path:
    """Where the contexts are kept."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "presque" / "contexts.json"


def read() -> Contexts:
    """All contexts. Raises `Failure` for a file that others can read or change, or that is not ours."""
    path = place()
    try:
        with path.open("rb") as file:
            _only_ours(path, os.fstat(file.fileno()))
            said = json.loads(file.read())
    except FileNotFoundError:
        return Contexts()
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror}", USAGE) from None
    except (ValueError, RecursionError):
        raise Failure(f"{path} is not what presque wrote: fix it, or remove it", USAGE) from None
    try:
        return _read(said)
    except (LookupError, TypeError, ValueError, AttributeError):
        raise Failure(f"{path} is not what presque wrote: fix it, or remove it", USAGE) from None


def _only_ours(path: Path, facts: os.stat_result) -> None:
    if facts.st_uid != os.geteuid():
        raise Failure(f"{path} belongs to another user; it may hold tokens", USAGE)
    if stat.S_IMODE(facts.st_mode) & 0o077:
        raise Failure(f"others may read {path}, which may hold tokens: chmod 600 {path}", USAGE)


def _read(said: Any) -> Contexts:
    if said["format"] != FORMAT:
        raise Failure(f"{place()} was written by another version of presque", USAGE)
    named = {}
    for name, of in said["contexts"].items():
        server(of["url"])
        named[name] = Context(of["url"], token_of(of["token"]) if of["token"] is not None else None)
    used = said["used"]
    return Contexts(named, used if used in named else None)


@contextmanager
def changing() -> Iterator[Contexts]:
    """All contexts, to change; what is changed inside is written, unless it raises. One at a time may.

    Raises `Failure`.
    """
    path = Path(os.path.realpath(place()))  # it may be a link into a folder of settings
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise Failure(f"cannot keep contexts in {path.parent}: {error.strerror}", FAILED) from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        found = read()
        yield found
        _write(path, found)
    finally:
        os.close(folder)


def _write(path: Path, contexts: Contexts) -> None:
    """Replace the file, whole or not at all."""
    text = json.dumps({"format": FORMAT, "used": contexts.used, "contexts": _plain(contexts.named)}, indent=2)
    new = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(file, "w") as out:
                out.write(f"{text}\n")
                out.flush()
                os.fsync(out.fileno())
            new.replace(path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise Failure(f"cannot write {path}: {error.strerror}", FAILED) from None


def _plain(named: Mapping[str, Context]) -> dict[str, Any]:
    return {name: asdict(of) for name, of in sorted(named.items())}
