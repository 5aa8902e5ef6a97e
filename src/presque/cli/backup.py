"""backup and restore: the data of presque's own store, taken while it runs and put back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import click

from presque.cli.fields import json_option
from presque.cli.settings import loaded
from presque.cli.terminal import Bytes, print_json
from presque.commands import times
from presque.config.settings import Settings, data_directory
from presque.engine import library
from presque.engine.keys import Keys
from presque.exits import INTERRUPTED, NOT_FOUND, USAGE, Failure
from presque.quantities import counted
from presque.server.about import size_of
from presque.store import backup as backups
from presque.store.asking import connected
from presque.store.embedded import EmbeddedSettings, EmbeddedStore, find_binary
from presque.version import __version__


@click.command(short_help="Back up the data of presque's own store, running or not.")
@click.argument("target", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--data", metavar="DIR", help="Where presque's own store keeps its data, as for serve.")
@click.option("--config", metavar="FILE", help="Settings file, as for serve.")
@json_option("Print an object that says what it holds.")
def backup(target: Path, data: str | None, config: str | None, as_json: bool) -> None:
    """Write a backup into DIR, which must not exist yet.

    It holds every job that was answered before, and may be taken while presque runs. It must be called on the
    machine and by the user that presque runs on. `presque restore` puts it back.
    """
    settings = loaded({"data": data}, config=config).settings
    directory = directory_of(settings, "back it up with its own tools, such as `valkey-cli --rdb FILE`")
    if not (directory / "appendonlydir").is_dir():
        raise Failure(f"there is no data in {directory}: pass --data or --config", NOT_FOUND)
    counter = Bytes("read", of=size_of_log(directory))
    try:
        page = asyncio.run(_back_up(settings, directory, target.absolute(), counter))
    except KeyboardInterrupt:  # what was begun may have been finished all the same
        counter.clear()
        whole = (target / backups.PAGE).exists()
        far = f"{counter.far()}, no backup was made; run it again"
        told = f"{target} holds a whole backup" if whole else far
        raise Failure(f"stopped: {told}", INTERRUPTED) from None
    finally:
        counter.clear()
    if as_json:
        print_json(_plain(target, page))
        return
    held = f"{counted(page.jobs, 'job')} in {counted(page.queues, 'queue')}"
    click.echo(f"{target} holds {held} ({size_of(page.size)}), checked")


@click.command(short_help="Restore a backup.")
@click.argument("source", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--data", metavar="DIR", help="Where presque's own store keeps its data, as for serve.")
@click.option("--config", metavar="FILE", help="Settings file, as for serve.")
@click.option("--replace", is_flag=True, help="Move existing data aside.")
@json_option("Print an object that says what was restored, and where the former data is now.")
def restore(source: Path, data: str | None, config: str | None, replace: bool, as_json: bool) -> None:
    """Make the backup DIR the data of presque's own store. Stop presque first.

    Jobs that were fetched since the backup are handed out again; jobs that were pushed since then are gone.
    """
    settings = loaded({"data": data}, config=config).settings
    directory = directory_of(settings, "restore it with its own tools")
    counter = Bytes("read", of=2 * backups.size_of_snapshot(source))
    try:
        page, aside = backups.restore(
            source, directory.absolute(), layout=library.LAYOUT, replace=replace, tell=counter.add
        )
    except KeyboardInterrupt:
        counter.clear()
        if backups.is_unfinished(directory):
            told = "run it again before you start presque: nothing is lost"
        elif backups.is_restored(source, directory):
            told = f"{directory} holds the backup"
        else:
            told = "nothing was changed"
        raise Failure(f"stopped: {counter.far()}; {told}", INTERRUPTED) from None
    finally:
        counter.clear()
    if as_json:
        where = {"data": str(directory), "aside": None if aside is None else str(aside)}
        print_json(_plain(source, page) | where)
        return
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(page.at))
    click.echo(
        f"{directory} holds {counted(page.jobs, 'job')} in {counted(page.queues, 'queue')}, as of {made}; "
        "start presque"
    )
    if aside is not None:
        click.echo(f"what was there before is in {aside}")


def _plain(directory: Path, page: backups.Backup) -> dict[str, Any]:
    return {
        "backup": str(directory), "made_at": times.moment(page.at * 1000), "jobs": page.jobs,
        "queues": page.queues, "bytes": page.size, "presque": page.presque,
    }  # fmt: skip


def directory_of(settings: Settings, otherwise: str) -> Path:
    """Where our own store keeps its data. Raises `Failure` if it keeps none."""
    if settings.redis is not None:
        raise Failure(f"the store at {settings.redis.address} is your own: {otherwise}", USAGE)
    directory = data_directory(settings)
    if directory is None:
        raise Failure("a store in memory keeps no data", USAGE)
    return directory


def size_of_log(directory: Path) -> int:
    """The bytes of the store's log of writes. A snapshot has about as many, or fewer."""
    with contextlib.suppress(OSError):
        return sum(one.stat().st_size for one in (directory / "appendonlydir").iterdir())
    return 0


async def _back_up(settings: Settings, directory: Path, target: Path, counter: Bytes) -> backups.Backup:
    async with own_store(settings, directory) as listens_at:
        jobs, queues = await _count(listens_at, Keys(settings.namespace))
        binary = find_binary(settings.valkey_bin)
        connection = socket.socket(socket.AF_UNIX)
        try:
            return await asyncio.to_thread(
                backups.take, connection, listens_at, binary, target, presque=__version__,
                layout=library.LAYOUT, jobs=jobs, queues=queues, tell=counter.add,
            )  # fmt: skip
        finally:  # the thread, too, ends at once when this was cancelled
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


async def _count(listens_at: Path, keys: Keys) -> tuple[int, int]:
    """How many jobs and queues there are, those of namespaces included; this only reads."""
    async with connected(listens_at) as call:
        names = await call(f"ZRANGE {keys.registry()[0]} 0 -1")
        jobs, queues = sum([await call(f"HLEN {keys.of(name)[1]}") for name in names]), len(names)
        for name in await call(f"HKEYS {keys.access()[4]}"):
            its_names, used, _ = keys.inside(name).usage()
            jobs += int(await call(f"HGET {used} jobs") or 0)
            queues += await call(f"ZCARD {its_names}")
    return jobs, queues


@contextlib.asynccontextmanager
async def own_store(settings: Settings, directory: Path) -> AsyncIterator[Path]:
    """The socket of the store on this data: of the one that runs, else of one that runs while inside."""
    found = backups.running_at(directory)
    if found is not None and _answers(found):
        yield found
        return
    store = EmbeddedStore(
        EmbeddedSettings(
            directory=directory, layout=library.LAYOUT, fsync=settings.fsync, binary=settings.valkey_bin
        )
    )
    await store.start()
    try:
        yield store.socket
    finally:
        await store.stop()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            return False
    return True
