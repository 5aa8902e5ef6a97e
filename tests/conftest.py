"""What tests share: a store of each kind, an engine on it, a server."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import uvloop
from hypothesis import HealthCheck, settings

from presque import Client
from presque.engine.engine import Engine
from presque.store.address import Address
from tests import rig
from tests.clients import Connect, InLoop

# A slow machine makes a test slow, never wrong.
settings.register_profile("presque", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("presque")

# A shell without job control lets what it starts in the background ignore Ctrl-C, and all that this starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the loop that the server runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """What a test has printed or logged may be no Unicode, as a name of a file; a report must be."""
    return _unicode((yield))


def _unicode(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_unicode(key): _unicode(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_unicode(one) for one in value)
    return value


QUICK = {"unit", "lua", "engine"}  # folders of many short tests


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several workers, begin with what takes long, so that none is alone with it in the end.

    Each worker of xdist gets an equal piece of the list, and later takes from the ends of others. So the
    files are dealt out to the pieces one by one, and short tests fill each piece up.
    """
    pieces = getattr(config, "workerinput", {}).get("workercount", 1)
    if pieces == 1:
        return
    quick: list[pytest.Item] = []
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        if item.path.parent.name in QUICK:
            quick.append(item)
        else:
            files.setdefault(item.path, []).append(item)
    piles: list[list[pytest.Item]] = [[] for _ in range(pieces)]
    for file in files.values():
        min(piles, key=len).extend(file)
    size, rest = -(-len(items) // pieces), iter(quick)
    items[:] = [item for pile in piles for item in [*pile, *itertools.islice(rest, max(0, size - len(pile)))]]
    items += rest


@pytest.fixture(autouse=True)
def levels_of_logging() -> Iterator[None]:
    """A test that sets up logging, as a command does, sets it up for nobody else."""
    loggers = [logging.getLogger(), logging.getLogger("presque")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="session", params=sorted(rig.STORES))
def store(request: pytest.FixtureRequest) -> Iterator[rig.Store]:
    """A store that a whole run shares. Tests keep apart by namespace."""
    with rig.store(request.param) as found:
        yield found


@pytest.fixture
async def engine(store: rig.Store) -> AsyncIterator[Engine]:
    """An engine in a namespace of its own. Afterwards every key there must be one that we know."""
    namespace = f"t{uuid4().hex[:8]}"
    found = Engine(Address(unix=store.socket), namespace)
    await found.start()
    yield found
    await found.stop()
    with store.client() as client:
        names = [key.decode() for key in client.scan_iter(f"{namespace}:*")]
        assert [name for name in names if not _known(name, namespace)] == []
        if names:
            client.delete(*names)


def _known(name: str, namespace: str) -> bool:
    leases = r"leased|runs|dead|done|groups|ring(:[1-9])?|rate|fired|(memo|idem)(:old)?|purged.*"
    leases += r"|history:(5m|1h|1d|7d)"
    bulk = r"bulk|moved|moving:.*"
    queue = rf"\{{[^{{}}:][^{{}}]*\}}:(meta|jobs|ready(:[1-9]?(:.+)?)?|due|ttl|turns|uniq|{leases}|{bulk})"
    crons = r"\{:cron\}:(jobs|bodies|due|steady|notes|clock)"
    queues = r"\{:queues\}(:(layout|busy|stopped|watched|opened|used|used:open|history:(5m|1h|1d|7d|all)))?"
    workers = r"\{:workers\}:(queues|started|processed|failed|seen|report|asked|takers)"
    alerts = r"\{:alerts\}:wanted"
    tasks = r"\{:tasks\}:(meta|what|how|status|due|holder|ended)"
    access = r"\{:access\}:(tokens|meta|audit|names|active|spent)"
    inside = "([A-Za-z0-9._-]+:)?"
    return (
        re.fullmatch(
            rf"{re.escape(namespace)}:{inside}({queue}|{queues}|{workers}|{crons}|{access}|{tasks}|{alerts})",
            name,
        )
        is not None
    )


@pytest.fixture(scope="session", autouse=True)
def no_process_left() -> Iterator[None]:
    """Whatever the tests start, with whatever it starts in turn, has ended when they have."""
    mark = f"TESTED_BY={uuid4().hex}"
    name, _, value = mark.partition("=")
    os.environ[name] = value
    yield
    del os.environ[name]
    if Path("/proc/self/environ").exists():
        rig.eventually(lambda: not rig.processes_with(mark), say=lambda: rig.processes_with(mark))


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for this machine, and its key, in one file."""
    return rig.certificate(tmp_path_factory.mktemp("tls"), "localhost", "DNS:localhost", "IP:127.0.0.1")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rig.Server]:
    """A server with its embedded store on disk, shared by all tests that only need one."""
    with rig.server("--data", str(tmp_path_factory.mktemp("data") / "presque")) as found:
        yield found


@pytest.fixture
def queue_name() -> str:
    """The name of a queue that no other test uses."""
    return f"q-{uuid4().hex[:12]}"


@pytest.fixture
def new_data(tmp_path: Path) -> Callable[[], str]:
    """Makes fresh data directories, as flags take them."""
    count = iter(range(100))
    return lambda: str(tmp_path / f"data{next(count)}")


@pytest.fixture(params=["Client", "AsyncClient"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Makes clients of one kind, and closes them afterwards."""
    made: list[Client | InLoop] = []

    def make(*args: Any, **options: Any) -> Client | InLoop:
        made.append((Client if request.param == "Client" else InLoop)(*args, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
